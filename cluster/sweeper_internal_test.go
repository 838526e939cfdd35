package cluster

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
	"imgcluster/cluster/store"
)

// TestSweepOfFilesInUse: an upload that is sent again after a crash has files from before it spared. They
// go soon after it has ended, not with the next sweep.
func TestSweepOfFilesInUse(t *testing.T) {
	s, err := store.Open(t.TempDir(), store.Options{OnFailed: func(error) {}, OnUnknown: func(string) {}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	write := func() image.FileID {
		f := image.FileID{Image: image.NewID(), Shard: 2, Attempt: image.NewAttempt()}
		w, err := s.Create(f, 3)
		if err == nil {
			defer w.Abort()
			if _, err = w.Write([]byte("abc")); err == nil {
				err = w.Commit()
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	old, used := write(), write()
	there := func() (files int64) { files, _ = s.Usage(); return files }
	var inUse atomic.Bool
	inUse.Store(true)
	sweep := &sweeper{
		references: &references{
			self: 1, log: &shardLogs{}, serving: newServing(func() {}),
			membership: func() *catalog.Membership { return &catalog.Membership{} },
			uploads:    func(f image.FileID) bool { return inUse.Load() && f == used },
		},
		store: s, every: time.Hour, logger: zap.NewNop(),
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			sweep.run(ctx)
			close(ended)
		}()
		time.Sleep(3*sweepRetry + time.Second)
		if f, err := s.Open(old); err == nil {
			f.Close()
			t.Error("a file without a use is there")
		}
		if there() != 1 {
			t.Errorf("%d files while one is in use", there())
		}
		inUse.Store(false)
		time.Sleep(2 * sweepRetry)
		if there() != 0 {
			t.Errorf("%d files after the upload has ended", there())
		}
		cancel()
		<-ended
	})
}

// TestFilesOfBeforeARestore: what was there when a node was restored is kept for a week, as an older backup
// may not name it and a newer one does.
func TestFilesOfBeforeARestore(t *testing.T) {
	at := time.Now()
	before := image.FileID{Image: image.NewID()}
	other := image.FileID{Image: image.ID{1, 2, 3, 4, 5, 6, 0x40}} // a client's own, which has no time
	s := &sweeper{}
	if s.kept(before) {
		t.Error("kept without a restore")
	}
	s.restored = at.Add(time.Second)
	if !s.kept(before) || !s.kept(other) {
		t.Error("what was there is not kept")
	}
	s.restored = at.Add(-time.Second)
	if s.kept(before) {
		t.Error("an upload of after it is kept")
	}
	s.restored = at.Add(time.Second - restoredKeep)
	if !s.kept(other) {
		t.Error("not kept to the end of its time")
	}
	s.restored = at.Add(-restoredKeep)
	if s.kept(other) {
		t.Error("kept for ever")
	}
}

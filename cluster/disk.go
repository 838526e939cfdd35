package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/image"
	"imgcluster/cluster/repair"
	"imgcluster/cluster/store"
	"imgcluster/cluster/wait"
	"imgcluster/cluster/wire"
	"imgcluster/config"
)

// disk is this node's disk as a place for images: whether it has room for more, and whether it can be
// trusted. It is safe for concurrent use. The fields of the first part are set before recover and
// watchRoom run.
type disk struct {
	self       image.NodeID
	logger     *zap.Logger
	store      *store.Store
	dir        *store.DataDir
	repair     *repair.Service
	imageBytes int64         // of the largest image
	retry      time.Duration // until a disk that failed is tried again
	changed    func()        // called when the node is degraded, and when it has recovered

	full      atomic.Value                // wire.Lack, as watchRoom last found
	failure   atomic.Pointer[image.Error] // see degraded
	failed    chan struct{}               // capacity 1: the disk failed
	verifying sync.Mutex                  // one Verify at a time
}

func newDisk(self image.NodeID, cfg *config.Config, logger *zap.Logger) *disk {
	return &disk{
		self: self, logger: logger, imageBytes: int64(cfg.Limits.ImageBytes), retry: cfg.Timeouts.DiskRetry,
		failed: make(chan struct{}, 1),
	}
}

// fullImages is how many of the largest images must still fit, or the disk counts as full. Peers hear of that
// a little late, and what they assign until then must still be accepted.
const fullImages = 4

// lacks returns what the disk has too little of to take more images, empty when it has room. What
// limits.disk_free_bytes and limits.disk_free_inodes keep free is for Raft's log and the catalog,
// without which the node cannot run.
func (d *disk) lacks() wire.Lack {
	now, _ := d.measure()
	return now
}

// measure is lacks, with the store's error.
func (d *disk) measure() (wire.Lack, error) {
	was, _ := d.full.Load().(wire.Lack)
	images := int64(fullImages)
	if was != "" {
		images *= 2 // or the state would change with every temporary file
	}
	err := d.store.RoomFor(images, images*d.imageBytes)
	switch {
	case image.KindOf(err) == image.KindOverload:
		return was, nil // not known now
	case errors.Is(err, store.ErrNoInodes):
		return wire.LacksInodes, err
	case err != nil:
		return wire.LacksBytes, err
	}
	return "", nil
}

// watchRoom logs when the disk becomes full and when it has room again, and has missing copies made then.
func (d *disk) watchRoom(ctx context.Context, every time.Duration) {
	for {
		now, err := d.measure()
		was, _ := d.full.Swap(now).(wire.Lack)
		switch {
		case now != "" && was == "":
			d.logger.Warn("the disk is full: the node is given no more images", zap.Error(err),
				zap.String("hint", image.HintOf(err)))
		case was != "" && now == "":
			d.logger.Info("the disk has room again")
			d.repair.Kick()
		}
		if !wait.For(ctx, every) {
			return
		}
	}
}

// degraded is why the node stores nothing for now, nil when it does. It begins when the disk fails to
// make something durable, and ends when all that is stored has been read back from it.
func (d *disk) degraded() error {
	if e := d.failure.Load(); e != nil {
		return e
	}
	return nil
}

// fail takes the first failure of the store.
func (d *disk) fail(err error) {
	e := image.Errorf(image.KindAborted, "node %d stores nothing since its disk failed: %w", d.self, err).
		WithHint(cmp.Or(image.HintOf(err), "check the node's disk (dmesg)") +
			"; once it works the node verifies its images and goes on by itself")
	d.failure.CompareAndSwap(nil, e)
	select {
	case d.failed <- struct{}{}:
	default:
	}
}

// recover waits for the disk to fail, and then tries it until it works and all that is stored on it is
// verified.
func (d *disk) recover(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.failed:
		}
		err := d.store.Failed()
		if err == nil && !d.dir.Identity().Unverified {
			continue // it failed while it was tried, and has worked since
		}
		if err != nil {
			d.fail(err)
		}
		d.persistUnverified(true)
		d.logger.Error("the disk failed: the node stores nothing until its images are verified", zap.Error(err))
		d.changed()
		for {
			if !wait.For(ctx, d.retry) {
				return
			}
			if err = d.try(ctx); err == nil {
				break
			}
			d.logger.Warn("the disk has not recovered yet", zap.Error(err))
		}
		d.persistUnverified(false)
		d.failure.Store(nil)
		d.logger.Info("the disk works again, and all that is stored on it was verified")
		d.changed()
	}
}

// errUnverified is why a node stores nothing that was ended before it had verified a disk that failed.
var errUnverified = errors.New("its images were not verified before it ended")

// persistUnverified records in node.json, if it can be written, whether the stored images are unverified.
func (d *disk) persistUnverified(is bool) {
	if d.dir.Identity().Unverified == is {
		return
	}
	if err := d.dir.Update(func(id *store.Identity) { id.Unverified = is }); err != nil {
		d.logger.Warn("the failure of the disk is not persisted in the data directory", zap.Error(err))
	}
}

// try reads all copies of this node from the disk, once it works, and replaces what is bad.
func (d *disk) try(ctx context.Context) error {
	if err := d.store.Retry(); err != nil {
		return err
	}
	d.verifying.Lock()
	defer d.verifying.Unlock()
	sum, err := d.repair.Verify(ctx, repair.VerifyOptions{Sample: 1, Repair: true},
		func(wire.VerifyLine) error { return d.store.Failed() })
	switch {
	case err != nil:
		return err
	case sum.Skipped > 0 || sum.Repaired < sum.Bad:
		return fmt.Errorf("%d copies are bad, of which %d were replaced, and %d could not be read",
			sum.Bad, sum.Repaired, sum.Skipped)
	}
	return d.store.Failed()
}

// Verify implements api.Node: one at a time.
func (d *disk) Verify(
	ctx context.Context, sample float64, fix bool, report func(wire.VerifyLine) error,
) (wire.VerifySummary, error) {
	if !d.verifying.TryLock() {
		return wire.VerifySummary{}, image.Errorf(image.KindOverload, "node %d is verifying already", d.self).
			WithHint("wait for the other verify to end").WithRetry(time.Minute)
	}
	defer d.verifying.Unlock()
	return d.repair.Verify(ctx, repair.VerifyOptions{Sample: sample, Repair: fix}, report)
}

package repair

import (
	"context"
	"syscall"
	"testing"

	"go.uber.org/zap"

	"imgcluster/cluster/image"
)

// verified are copies of which Verify says err. They cannot be fetched.
type verified struct {
	Copies
	err error
}

func (v verified) Verify(context.Context, *image.Record, uint32) error { return v.err }

// TestUnreadForShortage: only a copy that is gone or bad is found damaged; one that was not read for
// another reason is left as it is.
func TestUnreadForShortage(t *testing.T) {
	rec := &image.Record{ID: image.NewID(), User: "alice", Name: "a.png", Bytes: 1, Shard: 2, Copies: []image.Copy{{Node: 1, Epoch: 1}}}
	for _, c := range []struct {
		err    error
		looked bool
	}{
		{nil, true},
		{image.Errorf(image.KindDamaged, "a wrong checksum"), true},
		{image.Errorf(image.KindNotFound, "no file"), true},
		{image.Errorf(image.KindOverload, "read: %w", syscall.EMFILE), false},
		{image.Errorf(image.KindInternal, "read: %w", syscall.EACCES), false},
		{image.Errorf(image.KindNoQuorum, "no key"), false},
		{syscall.ENOMEM, false},
	} {
		s := New(Options{Node: 1, Log: &movedLog{}, Copies: verified{err: c.err}, Logger: zap.NewNop(), Rate: 1})
		f, looked := s.check(t.Context(), rec, true)
		if f != nil || looked != c.looked || s.Stats().Damaged > 0 { // the log has no such record by now
			t.Errorf("%v: found %+v, looked at %t", c.err, f, looked)
		}
		s.Close()
	}
}

package repair

import (
	"context"
	"syscall"
	"testing"

	"go.uber.org/zap"

	"imgcluster/cluster/image"
)

// verified are copies for which Verify returns err. They cannot be fetched.
type verified struct {
	Copies
	err error
}

func (v verified) Verify(context.Context, *image.Record, image.Copy) error { return v.err }

// TestUnreadForShortage: only a missing or damaged copy counts as damaged; one that could not be read for
// another reason does not.
func TestUnreadForShortage(t *testing.T) {
	rec := &image.Record{
		ID: image.NewID(), User: "alice", Name: "a.png", Bytes: 1, Shard: 2,
		Copies: []image.Copy{{Node: 1, Attempt: image.NewAttempt()}},
	}
	for _, c := range []struct {
		err     error
		checked bool
	}{
		{nil, true},
		{image.Errorf(image.KindDamaged, "a wrong checksum"), true},
		{image.Errorf(image.KindNotFound, "no file"), true},
		{image.Errorf(image.KindOverload, "read: %w", syscall.EMFILE), false},
		{image.Errorf(image.KindInternal, "read: %w", syscall.EACCES), false},
		{image.Errorf(image.KindNoQuorum, "no key"), false},
		{syscall.ENOMEM, false},
	} {
		copies := verified{err: c.err}
		s := New(Options{Node: 1, Log: &movedLog{}, Copies: copies, Logger: zap.NewNop(), Rate: 1})
		f, checked := s.check(t.Context(), rec, true)
		if f != nil || checked != c.checked || s.Stats().Damaged > 0 { // the log no longer has the record
			t.Errorf("%v: found %+v, checked %t", c.err, f, checked)
		}
		s.Close()
	}
}

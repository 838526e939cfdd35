package membership

import (
	"context"
	"fmt"
	"slices"

	"go.uber.org/zap"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/failpoint"
	"imgcluster/cluster/image"
)

// Raft is the groups; see package consensus.
type Raft interface {
	// LeaderOf reports whether this node leads a shard.
	LeaderOf(shard uint64) bool
	Group(ctx context.Context, shard uint64) ([]catalog.Replica, error)
	AddReplica(
		ctx context.Context, shard uint64, r catalog.Replica, address string,
		still func(context.Context) error,
	) error
	RemoveReplica(ctx context.Context, shard uint64, r catalog.Replica, still func(context.Context) error) error
}

// System is what the system shard keeps.
type System interface {
	// Newest reads the membership with all changes made before.
	Newest(ctx context.Context) (*catalog.Membership, error)
	// Settle puts into its log which part of a layout the group has reached; being too late is no error.
	Settle(ctx context.Context, s catalog.Settle) error
}

// Options are what a Reconciler works with. All fields are needed.
type Options struct {
	Self   image.NodeID
	Raft   Raft
	System System
	// Known returns the newest membership that this node knows.
	Known func() *catalog.Membership
	// Up lists the nodes that are up, this one among them.
	Up func() []image.NodeID
	// Serves reports whether a node has the newest state of a shard.
	Serves func(node image.NodeID, shard uint64) bool
	// Unused reports whether nothing of a shard with this layout needs what is stored on a node, nor will.
	Unused func(ctx context.Context, shard uint64, l *catalog.Layout, node image.NodeID) (bool, error)
	// LeaderChanges counts the changes of leaders: a group is looked at again after one.
	LeaderChanges func() int64
	Logger        *zap.Logger
}

// Reconciler brings the Raft groups that this node leads to their layouts. It is not safe for concurrent use.
type Reconciler struct {
	o       Options
	matched map[uint64]matched // by shard
}

// matched is when a group was found to match its layout.
type matched struct {
	version       uint64 // of the layout
	leaderChanges int64
}

// New returns a Reconciler.
func New(o Options) *Reconciler { return &Reconciler{o: o, matched: map[uint64]matched{}} }

// Reconcile does what can be done now for every group that this node leads.
func (r *Reconciler) Reconcile(ctx context.Context) {
	m := r.o.Known()
	if m.Version == 0 {
		return
	}
	for shard, l := range m.Shards {
		now := matched{l.Version, r.o.LeaderChanges()}
		if !r.o.Raft.LeaderOf(shard) || r.matched[shard] == now {
			continue
		}
		done, err := r.reconcile(ctx, m, shard, l)
		if err != nil && ctx.Err() == nil && r.o.Raft.LeaderOf(shard) { // else it is for another node by now
			r.o.Logger.Warn("members of a shard not changed", zap.Uint64("shard", shard), zap.Error(err))
		}
		if done && err == nil {
			r.matched[shard] = now
		}
	}
}

// reconcile takes the steps of one group's plan, and reports whether there is nothing left to do.
func (r *Reconciler) reconcile(
	ctx context.Context, m *catalog.Membership, shard uint64, l *catalog.Layout,
) (done bool, err error) {
	group, err := r.o.Raft.Group(ctx, shard)
	if err != nil {
		return false, err
	}
	p, err := r.peers(ctx, m, shard, l)
	if err != nil {
		return false, err
	}
	steps, done := Plan(shard, group, l, p)
	for _, s := range steps {
		if err := r.do(ctx, m, shard, l, s); err != nil {
			return false, err
		}
	}
	return done, nil
}

// peers collects what a plan depends on.
func (r *Reconciler) peers(
	ctx context.Context, m *catalog.Membership, shard uint64, l *catalog.Layout,
) (p Peers, err error) {
	p = Peers{Self: r.o.Self, Up: r.o.Up()}
	for _, x := range m.Members {
		if r.o.Serves(x.ID, shard) {
			p.Serving = append(p.Serving, x.ID)
		}
	}
	for _, old := range l.Old {
		if l.Next != nil || slices.Contains(p.Unused, old.Node) {
			continue
		}
		free, err := r.o.Unused(ctx, shard, l, old.Node)
		if err != nil {
			return p, err
		}
		if free {
			p.Unused = append(p.Unused, old.Node)
		}
	}
	return p, nil
}

func (r *Reconciler) do(
	ctx context.Context, m *catalog.Membership, shard uint64, l *catalog.Layout, s Step,
) error {
	still := func(ctx context.Context) error { return r.isNewest(ctx, shard, l) }
	on := []zap.Field{zap.Uint64("shard", shard), zap.Uint32("replica on", uint32(s.Replica.Node))}
	switch s.Op {
	case Remove:
		r.o.Logger.Info("replica removed from a shard", on...)
		failpoint.Here("member/before-remove-replica")
		err := r.o.Raft.RemoveReplica(ctx, shard, s.Replica, still)
		failpoint.Here("member/replica-removed")
		return err
	case Add:
		x := m.Member(s.Replica.Node)
		if x == nil {
			return fmt.Errorf("node %d of the layout of shard %d is not a member", s.Replica.Node, shard)
		}
		r.o.Logger.Info("replica added to a shard", on...)
		failpoint.Here("member/before-add-replica")
		err := r.o.Raft.AddReplica(ctx, shard, s.Replica, x.Raft, still)
		if err == nil {
			failpoint.Here("member/replica-added")
		}
		return err
	case Settle:
		failpoint.Here("member/before-settle")
		err := r.o.System.Settle(ctx, s.Settle)
		failpoint.Here("member/settled")
		return err
	}
	return fmt.Errorf("no step is called %q", s.Op)
}

// isNewest refuses a layout that is not the shard's: this node may not have heard of the newest yet, or
// believe in one that never was.
func (r *Reconciler) isNewest(ctx context.Context, shard uint64, l *catalog.Layout) error {
	now, err := r.o.System.Newest(ctx)
	if err != nil {
		return err
	}
	if !l.Equal(now.Shards[shard]) {
		return image.Errorf(image.KindStale, "the layout of shard %d is not this one, of version %d",
			shard, l.Version)
	}
	return nil
}

package consensus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/lni/dragonboat/v4"
	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	sm "github.com/lni/dragonboat/v4/statemachine"
	"go.uber.org/zap"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/failpoint"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wait"
)

// stopTimeout bounds how long DropShard waits for a replica to end what it is at.
const stopTimeout = 10 * time.Second

// running is a Raft group of which a replica runs here.
type running struct {
	Shard
	leader atomic.Pointer[raftio.LeaderInfo] // as far as this node knows
}

// record is what the database keeps of the replica that this node runs, so that a restart starts the
// same one, in the same way.
type record struct {
	Replica uint64                  `json:"replica"`
	Members map[image.NodeID]string `json:"members,omitempty"` // of a bootstrap replica
}

func recordKey(shard uint64) []byte {
	return prefixed(0, sectionOwn, fmt.Appendf(nil, "replica/%d", shard))
}

func (c *Consensus) shard(id uint64) *running {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.shards[id]
}

// Replica returns the replica of a shard that runs here.
func (c *Consensus) Replica(shard uint64) (r catalog.Replica, ok bool) {
	s := c.shard(shard)
	if s == nil {
		return r, false
	}
	return s.Replica, true
}

// Hosted lists the shards that have a replica here, by ID.
func (c *Consensus) Hosted() []uint64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return slices.Sorted(maps.Keys(c.shards))
}

// Stored lists the replicas that ran here before, by shard.
func (c *Consensus) Stored() (map[uint64]catalog.Replica, error) {
	all := map[uint64]catalog.Replica{}
	from := recordKey(0)[:len(recordKey(0))-1]
	to := append(slices.Clone(from), 0xff)
	it, err := c.db.pebble.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return nil, err
	}
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		var have record
		var shard uint64
		var v []byte
		if v, err = it.ValueAndErr(); err == nil {
			_, err = fmt.Sscanf(string(it.Key()[9:]), "replica/%d", &shard)
		}
		if err == nil {
			err = json.Unmarshal(v, &have)
		}
		all[shard] = catalog.ReplicaOf(have.Replica)
	}
	return all, errors.Join(err, it.Close())
}

// StartShard starts this node's replica of a shard, which goes on from what is on disk when it is there. What
// another replica of this node has left of the shard is deleted: Raft counts the new one as a node that knows
// nothing, and it gets the state from the others. A replica that joins waits until it is added to the group.
// One whose removal from this node was interrupted is not started: its removal is completed.
func (c *Consensus) StartShard(s Shard) error {
	leave, err := c.calls.enter()
	if err != nil {
		return err
	}
	defer leave()
	return startError(c.startShard(s), &c.opts)
}

func (c *Consensus) startShard(s Shard) (err error) {
	if s.Replica.Node == 0 {
		s.Replica.Node = c.opts.NodeID
	}
	s.Members, err = c.db.prepare(s, func(old uint64) error { return c.removeData(s.ID, old) })
	if err != nil {
		return err
	}
	c.mu.Lock()
	if c.shards[s.ID] != nil {
		c.mu.Unlock()
		return fmt.Errorf("shard %d runs already", s.ID)
	}
	c.shards[s.ID] = &running{Shard: s}
	c.mu.Unlock()
	err = c.startReplica(s)
	if err != nil {
		c.removeShard(s.ID)
	}
	switch {
	case errors.Is(err, dragonboat.ErrReplicaRemoved):
		return c.forget(s.ID)
	case err != nil:
		return fmt.Errorf("shard %d: %w", s.ID, err)
	}
	return nil
}

func (c *Consensus) removeShard(shard uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.shards, shard)
}

// startReplica gives the bootstrap members at every start: dragonboat compares them with those of
// the first.
func (c *Consensus) startReplica(s Shard) (err error) {
	defer recovered(&err)
	members := map[uint64]dragonboat.Target{}
	for id, address := range s.Members {
		members[uint64(id)] = address
	}
	create := func(uint64, uint64) sm.IOnDiskStateMachine {
		return &stateMachine{
			shard: s.ID, db: c.db, log: c.log,
			apply: s.Apply, applied: c.opts.Applied, restored: c.opts.Restored,
		}
	}
	return c.host.StartOnDiskReplica(members, len(members) == 0, create, config.Config{
		ReplicaID:          s.Replica.ID(),
		ShardID:            s.ID,
		CheckQuorum:        true,
		PreVote:            true,
		ElectionRTT:        c.opts.ElectionRTT,
		HeartbeatRTT:       c.opts.HeartbeatRTT,
		SnapshotEntries:    c.opts.SnapshotEntries,
		CompactionOverhead: c.opts.CompactionOverhead,
		MaxInMemLogSize:    shardLogBytesMax,

		OrderedConfigChange: true,  // see changeGroup
		Quiesce:             false, // a quiesced shard whose leader died does not elect
	})
}

// DropShard stops this node's replica of a shard and deletes what it has of it. The replica must not
// be a member of the group any more.
func (c *Consensus) DropShard(ctx context.Context, shard uint64) error {
	leave, err := c.calls.enter()
	if err != nil {
		return err
	}
	defer leave()
	s := c.shard(shard)
	if s == nil {
		return nil
	}
	c.removeShard(shard)
	err = c.host.StopReplica(shard, s.Replica.ID())
	if err != nil && !errors.Is(err, dragonboat.ErrShardNotFound) {
		return err
	}
	failpoint.Here("member/shard-stopped")
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	for {
		err := c.removeData(shard, s.Replica.ID())
		if err == nil {
			break
		}
		if !errors.Is(err, dragonboat.ErrShardNotStopped) {
			return err
		}
		if wait.For(ctx, c.opts.pause()); ctx.Err() != nil {
			return err
		}
	}
	failpoint.Here("member/data-removed")
	return c.forget(shard)
}

// forget deletes what the database has of a shard. The replica's Raft data was removed before: until the
// database has forgotten it too, Raft refuses to start that replica.
func (c *Consensus) forget(shard uint64) error {
	span := span(shard)
	batch := c.db.pebble.NewBatch()
	defer batch.Close()
	err := errors.Join(batch.DeleteRange(span.Start, span.End, nil), batch.Delete(recordKey(shard), nil))
	if err != nil {
		return err
	}
	c.log.Info("shard removed from this node", zap.Uint64("shard", shard))
	return batch.Commit(pebble.Sync)
}

func (c *Consensus) removeData(shard, replica uint64) (err error) {
	defer recovered(&err)
	return c.host.RemoveData(shard, replica)
}

// CaughtUp reports whether this node answers linearizable reads of the shard: it reaches the leader
// and has applied everything.
func (c *Consensus) CaughtUp(ctx context.Context, shard uint64) bool {
	leave, err := c.calls.enter()
	if err != nil {
		return false
	}
	defer leave()
	return c.caughtUp(ctx, shard)
}

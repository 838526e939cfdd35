package cluster

import (
	"context"
	"sync/atomic"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/consensus"
	"imgcluster/cluster/image"
	"imgcluster/cluster/placement"
)

// systemShard is the Raft group of the cluster's own state; the data shards follow it.
const systemShard = catalog.SystemShard

// shardIDs are the IDs of the data shards.
type shardIDs []uint64

// dataShards lists the IDs of n data shards.
func dataShards(n int) shardIDs {
	ids := make(shardIDs, n)
	for i := range ids {
		ids[i] = systemShard + 1 + uint64(i)
	}
	return ids
}

// of returns the shard of a name.
func (s shardIDs) of(user, name string) uint64 { return s[placement.Shard(user, name, len(s))] }

// withSystem lists the system shard and the data shards.
func (s shardIDs) withSystem() []uint64 { return append([]uint64{systemShard}, s...) }

// shardLogs proposes to the shards' logs and reads the catalog. It is made before consensus, because a start
// replays the log into parts that need it. Until consensus runs it has no leader and answers KindNoQuorum.
type shardLogs struct {
	c atomic.Pointer[consensus.Consensus]
}

func (l *shardLogs) started() (*consensus.Consensus, error) {
	if c := l.c.Load(); c != nil {
		return c, nil
	}
	return nil, image.Errorf(image.KindNoQuorum, "the node is starting").WithHint("try again in a second")
}

// Propose implements ingest.Log.
func (l *shardLogs) Propose(ctx context.Context, shard uint64, cmd catalog.Command) (catalog.Result, error) {
	c, err := l.started()
	if err != nil {
		return catalog.Result{}, err
	}
	b, err := c.Propose(ctx, shard, cmd.Encode())
	if err != nil {
		return catalog.Result{}, err
	}
	return catalog.DecodeResult(b)
}

// Do proposes a command. Its error is also that of a command that was rejected.
func (l *shardLogs) Do(ctx context.Context, shard uint64, cmd catalog.Command) (catalog.Result, error) {
	r, err := l.Propose(ctx, shard, cmd)
	if err == nil {
		err = r.Err()
	}
	return r, err
}

// View implements ingest.Log.
func (l *shardLogs) View(shard uint64, fn func(catalog.Reader) error) error {
	c, err := l.started()
	if err != nil {
		return err
	}
	return c.View(shard, fn)
}

// Read calls fn with a state of the shard that has all that was committed before the call.
func (l *shardLogs) Read(ctx context.Context, shard uint64, fn func(catalog.Reader) error) error {
	c, err := l.started()
	if err != nil {
		return err
	}
	return c.Read(ctx, shard, fn)
}

// Leader implements ingest.Log.
func (l *shardLogs) Leader(shard uint64) image.NodeID {
	c := l.c.Load()
	if c == nil {
		return 0
	}
	leader, _, ok := c.Leader(shard)
	if !ok {
		return 0
	}
	return leader
}

// apply is what commands do. Tests of many images have one more command, which writes records by the
// thousand.
var apply = catalog.Apply

// applier makes catalog.Apply the state machine of one shard.
func applier(shard uint64) func(tx catalog.Tx, index uint64, cmd []byte) ([]byte, []catalog.Event) {
	return func(tx catalog.Tx, index uint64, cmd []byte) ([]byte, []catalog.Event) {
		result, events, err := apply(tx, shard, index, cmd)
		if err != nil {
			panic(err) // a failing disk stops the node; anything else is undone and answered as failed
		}
		return result, events
	}
}

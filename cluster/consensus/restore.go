package consensus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2"
	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"
	"go.uber.org/zap"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/witness"
)

// WriteShard writes the state of a shard as it is here now, as a snapshot; see snapshot.go. It needs no
// majority. A nil error means that all was written.
func (c *Consensus) WriteShard(shard uint64, w io.Writer) error {
	if c.shard(shard) == nil {
		return errShard(shard)
	}
	leave, err := c.db.readers.enter()
	if err != nil {
		return err
	}
	defer leave()
	s := span(shard)
	it, err := c.db.pebble.NewIter(&pebble.IterOptions{LowerBound: s.Start, UpperBound: s.End})
	if err != nil {
		return err
	}
	return errors.Join(c.db.writeSnapshot(w, shard, it, nil), it.Close())
}

// Restoration makes what Start finds in a data directory, of states that WriteShard has written elsewhere.
//
// Dragonboat has a tool for a group that has lost its majority, ImportSnapshot of its package tools. It takes
// snapshots that its own host has exported, each a folder of files whose format only its internal packages
// write. What the tool puts into the log in the end is a record of the snapshot, and that is all that a state
// machine on disk needs whose state is there already: so a Restoration puts the states into the catalog, as
// a node does with a snapshot that it has got from another, and such a record into the log.
type Restoration struct {
	opts    Options
	log     *zap.Logger
	witness *witness.Witness
	db      *database
	shards  []uint64
}

// Restore calls fill, which puts in the shards and returns the number of this node's replica of all of them.
// The node is then the only one in each of their groups. opts.Dir must have nothing of consensus; of the
// other options NodeID, RaftAddress, Listen, DeploymentID, Disk, Snapshots, RTT and Logger are needed.
func Restore(opts Options, fill func(*Restoration) (number uint32, err error)) (err error) {
	setLogger(opts.Logger)
	r := &Restoration{opts: opts, log: opts.Logger.Named("consensus")}
	raftDir, catalogDir := filepath.Join(opts.Dir, "raft"), filepath.Join(opts.Dir, "catalog")
	if err := errors.Join(os.MkdirAll(raftDir, 0o700), os.MkdirAll(catalogDir, 0o700)); err != nil {
		return err
	}
	if r.witness, err = witness.Open(opts.Dir); err != nil {
		return witnessError(err)
	}
	defer func() { err = errors.Join(err, r.witness.Close(err == nil)) }()
	if r.db, err = openDatabase(r.witness.FS(defaultFS), catalogDir, &opts, r.log); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.db.close()) }()
	if err := r.db.claim(identityOf(&opts), raftDir); err != nil {
		return err
	}
	number, err := fill(r)
	if err != nil {
		return err
	}
	if err := r.makeLogs(raftDir, catalog.Replica{Node: opts.NodeID, Number: number}); err != nil {
		return err
	}
	return r.db.started()
}

// Put puts in the state of a shard. The error wraps one that says so where state is not what WriteShard wrote
// of that shard.
func (r *Restoration) Put(shard uint64, state io.Reader) error {
	if err := r.db.replace(state, shard, nil); err != nil {
		return err
	}
	r.shards = append(r.shards, shard)
	return nil
}

// View runs fn on the state of a shard that was put in.
func (r *Restoration) View(shard uint64, fn func(catalog.Reader) error) error {
	failed, err := r.db.view(shard, fn)
	return errors.Join(failed, err)
}

// makeLogs makes the log of each shard begin after the entry that its state is as of.
func (r *Restoration) makeLogs(dir string, replica catalog.Replica) (err error) {
	logs := logDBs{w: r.witness, sealer: r.opts.Disk, dir: r.opts.Dir, compactions: &compactions{}}
	host, err := startHost(dir, &r.opts, &logs, noTransport{}, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeHost(host)) }()
	batch := r.db.pebble.NewBatch()
	defer batch.Close()
	record, err := json.Marshal(record{Replica: replica.ID()})
	if err != nil {
		return err
	}
	for _, shard := range r.shards {
		m := &stateMachine{shard: shard, db: r.db}
		index, err := m.parseApplied(get(r.db.pebble, appliedKey(shard)))
		if err != nil {
			return err
		}
		// Dummy: the state is not in a file, it is on disk up to OnDiskIndex.
		err = logs.made.ImportSnapshot(raftpb.Snapshot{
			ShardID: shard, Index: max(index, 1), Term: 1, OnDiskIndex: index,
			Type: raftpb.OnDiskStateMachine, Dummy: true,
			Membership: raftpb.Membership{
				ConfigChangeId: max(index, 1),
				Addresses:      map[uint64]string{replica.ID(): r.opts.RaftAddress},
			},
		}, replica.ID())
		if err == nil {
			err = batch.Set(recordKey(shard), record, nil)
		}
		if err != nil {
			return fmt.Errorf("log of shard %d: %w", shard, err)
		}
	}
	return batch.Commit(pebble.Sync)
}

// noTransport is the network of a host that runs no shards.
type noTransport struct{}

var errNoTransport = errors.New("no network")

// Create implements config.TransportFactory.
func (noTransport) Create(
	config.NodeHostConfig, raftio.MessageHandler, raftio.ChunkHandler,
) raftio.ITransport {
	return noTransport{}
}

// Validate implements config.TransportFactory.
func (noTransport) Validate(string) bool { return true }

func (noTransport) Name() string { return "none" }
func (noTransport) Start() error { return nil }
func (noTransport) Close() error { return nil }

func (noTransport) GetConnection(context.Context, string) (raftio.IConnection, error) {
	return nil, errNoTransport
}

func (noTransport) GetSnapshotConnection(context.Context, string) (raftio.ISnapshotConnection, error) {
	return nil, errNoTransport
}

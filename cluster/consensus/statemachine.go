package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime/debug"

	"github.com/cockroachdb/pebble/v2"
	sm "github.com/lni/dragonboat/v4/statemachine"
	"go.uber.org/zap"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/failpoint"
)

// The values of Result.Value.
const (
	resultDone     = 0
	resultPanicked = 1 // Apply panicked, nothing was changed
)

// stateMachine is one shard's state machine: a thin adapter between dragonboat and Apply on a span of
// the database that all shards share.
//
// Update does not sync. What a crash takes away is the newest part of one write-ahead log, so never
// an older command without the newer ones; dragonboat replays from the index that Open returns.
type stateMachine struct {
	shard    uint64
	db       *database
	apply    func(tx catalog.Tx, index uint64, cmd []byte) ([]byte, []catalog.Event)
	applied  func(shard, index uint64, events []catalog.Event)
	restored func(shard, index uint64)
	log      *zap.Logger
}

var _ sm.IOnDiskStateMachine = (*stateMachine)(nil)

func appliedKey(shard uint64) []byte { return prefixed(shard, sectionOwn, []byte("applied")) }

// Open returns the index of the last command in the database. The index is written for a new shard
// too, so that a snapshot always has it.
func (m *stateMachine) Open(<-chan struct{}) (uint64, error) {
	v, err := get(m.db.pebble, appliedKey(m.shard))
	if err == nil && v == nil {
		return 0, m.db.pebble.Set(appliedKey(m.shard), make([]byte, 8), pebble.NoSync)
	}
	return m.parseApplied(v, err)
}

// parseApplied returns the index that get has read.
func (m *stateMachine) parseApplied(v []byte, err error) (uint64, error) {
	if err == nil && len(v) != 8 {
		err = fmt.Errorf("applied index of shard %d has %d bytes", m.shard, len(v))
	}
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(v), nil
}

// Update applies the entries as one batch; one that panics ends the batch before it.
func (m *stateMachine) Update(entries []sm.Entry) ([]sm.Entry, error) {
	for start := 0; start < len(entries); {
		n, err := m.update(entries[start:], len(entries))
		if err != nil {
			return nil, fmt.Errorf("shard %d: %w", m.shard, err)
		}
		start += n
	}
	return entries, nil
}

// update commits entries up to the first that panics, at most limit, and returns how many. The batch
// of a panic is thrown away, since it holds half a command, and what came before is applied again.
func (m *stateMachine) update(entries []sm.Entry, limit int) (int, error) {
	batch := m.db.pebble.NewIndexedBatch()
	defer batch.Close()
	t := &tx{db: m.db, shard: m.shard, batch: batch}
	var events []catalog.Event
	n := min(limit, len(entries))
	for i := range entries[:n] {
		result, evs, panicked := m.run(t, &entries[i])
		switch {
		case t.err != nil:
			return 0, t.err // the disk, not the command: the node must not go on
		case panicked && i > 0:
			return m.update(entries, i)
		case panicked:
			entries[i].Result = sm.Result{Value: resultPanicked}
			return 1, m.commit(nil, entries[i].Index, nil)
		}
		entries[i].Result = sm.Result{Value: resultDone, Data: result}
		events = append(events, evs...)
	}
	return n, m.commit(batch, entries[n-1].Index, events)
}

// run calls Apply and reports whether it panicked. A panic that got through would come back at every
// restart of every node. That of a newer command is to: only a newer program can go on from there.
func (m *stateMachine) run(t *tx, e *sm.Entry) (result []byte, events []catalog.Event, panicked bool) {
	defer func() {
		p := recover()
		if err, ok := p.(error); ok && errors.Is(err, catalog.ErrNewer) {
			t.err = err
			m.log.Error("this node stops before a command that it does not know: nothing of it is applied",
				zap.Uint64("shard", m.shard), zap.Uint64("index", e.Index), zap.Error(err),
				zap.String("hint", "start the newer version of imgcluster, which other nodes run, on this one"))
		} else if p != nil {
			panicked = true
			m.log.Error("apply panicked: the command is answered as failed", zap.Uint64("shard", m.shard),
				zap.Uint64("index", e.Index), zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
		}
	}()
	result, events = m.apply(t, e.Index, e.Cmd)
	return result, events, false
}

// commit makes batch, or nothing when it is nil, and the applied index visible as one.
func (m *stateMachine) commit(batch *pebble.Batch, index uint64, events []catalog.Event) error {
	if batch == nil {
		batch = m.db.pebble.NewBatch()
		defer batch.Close()
	}
	if err := batch.Set(appliedKey(m.shard), binary.BigEndian.AppendUint64(nil, index), nil); err != nil {
		return err
	}
	failpoint.Here("catalog/before-commit")
	if err := batch.Commit(pebble.NoSync); err != nil {
		return err
	}
	failpoint.Here("catalog/committed")
	m.applied(m.shard, index, events)
	return nil
}

// Lookup runs a func(catalog.Reader) error on the state as it is now. The function's own error is
// the result, not Lookup's error.
func (m *stateMachine) Lookup(query any) (any, error) {
	fn, ok := query.(func(catalog.Reader) error)
	if !ok {
		return nil, fmt.Errorf("shard %d cannot look up a %T", m.shard, query)
	}
	return m.db.view(m.shard, fn)
}

// Sync makes all that was applied durable. Shards share the write-ahead log, so this is for all.
func (m *stateMachine) Sync() error {
	failpoint.Here("catalog/before-sync")
	err := m.db.pebble.LogData(nil, pebble.Sync)
	failpoint.Here("catalog/synced")
	return err
}

// PrepareSnapshot pins the state. An iterator, for the reason that shardView has one.
func (m *stateMachine) PrepareSnapshot() (any, error) {
	s := span(m.shard)
	return m.db.pebble.NewIter(&pebble.IterOptions{LowerBound: s.Start, UpperBound: s.End})
}

// SaveSnapshot streams the pinned state to a node that is too far behind for the log.
func (m *stateMachine) SaveSnapshot(pinned any, w io.Writer, stop <-chan struct{}) (err error) {
	failpoint.Here("catalog/snapshot-begun")
	it := pinned.(*pebble.Iterator)
	defer func() {
		if e := it.Close(); err == nil {
			err = e
		}
		failpoint.Here("catalog/snapshot-saved")
	}()
	return m.db.writeSnapshot(w, m.shard, it, stop)
}

// RecoverFromSnapshot replaces the shard's state by the snapshot in one step: a crash leaves the
// old state or the new one, and dragonboat keeps the snapshot until Sync returned.
func (m *stateMachine) RecoverFromSnapshot(r io.Reader, stop <-chan struct{}) error {
	failpoint.Here("catalog/before-replace")
	if err := m.db.replace(r, m.shard, stop); err != nil {
		return err
	}
	failpoint.Here("catalog/replaced")
	index, err := m.parseApplied(get(m.db.pebble, appliedKey(m.shard)))
	if err != nil {
		return err
	}
	m.log.Info("state replaced by a snapshot", zap.Uint64("shard", m.shard), zap.Uint64("index", index))
	m.restored(m.shard, index)
	return nil
}

// Close has nothing to do: the database belongs to Consensus.
func (m *stateMachine) Close() error { return nil }

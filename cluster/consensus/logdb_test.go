package consensus

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"

	"imgcluster/cluster/image"
	"imgcluster/cluster/witness"
)

func mustWitness(t *testing.T, root string) *witness.Witness {
	t.Helper()
	w, err := witness.Open(root)
	must(t, err)
	return w
}

// recalled is a log with a given state.
type recalled struct {
	raftio.ILogDB
	state    raftio.RaftState
	snapshot raftpb.Snapshot
	hole     uint64 // an entry that is not there
}

func (r *recalled) SaveRaftState([]raftpb.Update, uint64) error { return nil }

func (r *recalled) GetSnapshot(uint64, uint64) (raftpb.Snapshot, error) { return r.snapshot, nil }

func (r *recalled) ReadRaftState(uint64, uint64, uint64) (raftio.RaftState, error) {
	if raftpb.IsEmptyState(r.state.State) {
		return r.state, raftio.ErrNoSavedLog
	}
	return r.state, nil
}

// IterateEntries returns one entry after the other.
func (r *recalled) IterateEntries(
	_ []raftpb.Entry, _, _, _, low, high, _ uint64,
) ([]raftpb.Entry, uint64, error) {
	if low < r.hole && r.hole < high {
		high = r.hole
	}
	if low == r.hole || low == high {
		return nil, 0, nil
	}
	return []raftpb.Entry{{Index: low}}, 0, nil
}

// TestForgetfulLog: a log that has forgotten an entry, a term or a vote is refused, and one that has all, or
// more, is not.
func TestForgetfulLog(t *testing.T) {
	w := mustWitness(t, t.TempDir())
	l := &logDB{ILogDB: &recalled{}, w: w, sealer: sealerOf("disk")}
	save := func(u raftpb.Update) {
		u.ShardID = 2
		u.ReplicaID = 3
		must(t, l.SaveRaftState([]raftpb.Update{u}, 1))
	}
	save(raftpb.Update{State: raftpb.State{Term: 5}, EntriesToSave: []raftpb.Entry{{Index: 8}, {Index: 12}}})
	save(raftpb.Update{EntriesToSave: []raftpb.Entry{{Index: 10}}}) // in the place of 10, 11 and 12
	save(raftpb.Update{State: raftpb.State{Term: 7, Vote: 1}})
	state := func(term, vote, first, count uint64) raftio.RaftState {
		s := raftpb.State{Term: term, Vote: vote}
		return raftio.RaftState{State: s, FirstIndex: first, EntryCount: count}
	}
	for name, c := range map[string]struct {
		have     raftio.RaftState
		snapshot uint64
		forgot   string // which entries, or in which term
	}{
		"all":                     {state(7, 1, 1, 10), 0, ""},
		"all, after a snapshot":   {state(7, 1, 9, 2), 8, ""},
		"the snapshot is the end": {state(7, 1, 10, 0), 10, ""},
		"more":                    {state(8, 0, 1, 11), 0, ""},
		"an entry":                {state(7, 1, 1, 9), 0, "9 of 10"},
		"entries after snapshot":  {state(7, 1, 8, 0), 8, "8 of 10"},
		"the term":                {state(6, 2, 1, 10), 0, "7"},
		"the vote":                {state(7, 0, 1, 10), 0, "7"},
		"another vote":            {state(7, 2, 1, 10), 0, "7"},
		"everything":              {raftio.RaftState{}, 0, "0 of 10"},
	} {
		t.Run(name, func(t *testing.T) {
			l.ILogDB = &recalled{state: c.have, snapshot: raftpb.Snapshot{Index: c.snapshot}}
			err := l.check()
			if c.forgot == "" {
				must(t, err)
				return
			}
			if !errors.Is(err, ErrDamaged) || image.KindOf(err) != image.KindDamaged ||
				!strings.Contains(err.Error(), c.forgot) {
				t.Errorf("%v, want %q", err, c.forgot)
			}
		})
	}
	l.ILogDB = &recalled{state: state(7, 1, 1, 10), hole: 4}
	if err := l.check(); err == nil || !strings.Contains(err.Error(), "4") {
		t.Errorf("without entry 4: %v", err)
	}
	must(t, w.RemoveLog(witness.Replica{Shard: 2, ID: 3}))
	l.ILogDB = &recalled{}
	must(t, l.check())
}

// syncedFirst is a log that keeps what the disk has of the witness when an update has become durable: all
// that was synced by then, and of what came after nothing.
type syncedFirst struct {
	recalled
	path string
	disk []byte
}

func (s *syncedFirst) SaveRaftState([]raftpb.Update, uint64) (err error) {
	s.disk, err = os.ReadFile(s.path)
	return err
}

// TestLogAfterPowerLoss: a follower puts a new leader's entries, or a snapshot, in the place of ones that
// were never committed, and loses power before the kernel has written what the witness says of that. Its log
// has forgotten nothing.
func TestLogAfterPowerLoss(t *testing.T) {
	for name, u := range map[string]raftpb.Update{
		"entries":    {State: raftpb.State{Term: 6}, EntriesToSave: []raftpb.Entry{{Index: 9}, {Index: 10}}},
		"a snapshot": {State: raftpb.State{Term: 6}, Snapshot: raftpb.Snapshot{Index: 10, Term: 6}},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			w := mustWitness(t, root)
			log := &syncedFirst{path: filepath.Join(root, witness.FileName)}
			l := &logDB{ILogDB: log, w: w, sealer: sealerOf("disk")}
			before := raftpb.Update{
				State: raftpb.State{Term: 5}, EntriesToSave: []raftpb.Entry{{Index: 8}, {Index: 12}},
			}
			for _, u := range []raftpb.Update{before, u} {
				u.ShardID = 2
				u.ReplicaID = 3
				must(t, l.SaveRaftState([]raftpb.Update{u}, 1))
			}
			must(t, w.Close(false))
			must(t, os.WriteFile(log.path, log.disk, 0o600))
			w = mustWitness(t, root)
			defer w.Close(false)
			state := raftio.RaftState{State: raftpb.State{Term: 6}, FirstIndex: 1, EntryCount: 10}
			has := &recalled{state: state}
			if err := (&logDB{ILogDB: has, w: w, sealer: sealerOf("disk")}).check(); err != nil {
				t.Error(err)
			}
			has.state.EntryCount = 9
			if err := (&logDB{ILogDB: has, w: w, sealer: sealerOf("disk")}).check(); !errors.Is(err, ErrDamaged) {
				t.Errorf("without the last entry: %v", err)
			}
		})
	}
}

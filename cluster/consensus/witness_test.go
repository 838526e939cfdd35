package consensus

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"

	"imgcluster/cluster/image"
)

// TestWitnessOfFiles flips each byte of what was synced, and cuts it, after a crash and after an
// orderly stop, when nothing else may differ either.
func TestWitnessOfFiles(t *testing.T) {
	for _, sealed := range []bool{false, true} {
		root := t.TempDir()
		w := mustWitness(t, root)
		fs := &catalogWitness{FS: vfs.Default, w: w}
		path := filepath.Join(root, "catalog", "000002.log")
		must(t, os.MkdirAll(filepath.Join(root, "raft"), 0o700))
		must(t, os.MkdirAll(filepath.Dir(path), 0o700))
		f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
		must(t, err)
		for _, part := range []string{"synced ", "too "} {
			_, err = f.Write([]byte(part))
			must(t, err)
			must(t, f.SyncData())
		}
		_, err = f.Write([]byte("not synced"))
		must(t, err)
		must(t, f.Close())
		must(t, os.WriteFile(filepath.Join(root, "catalog", "OPTIONS-000003"), []byte("small"), 0o600))
		must(t, w.close(sealed))
		whole, err := os.ReadFile(path)
		must(t, err)
		witness, err := os.ReadFile(filepath.Join(root, WitnessName))
		must(t, err)
		// damaged tells whether the next start sees what this does.
		damaged := func(content []byte) bool {
			t.Helper()
			must(t, os.WriteFile(path, content, 0o600))
			must(t, os.WriteFile(filepath.Join(root, WitnessName), witness, 0o600))
			w, err := openWitness(root)
			if err == nil {
				must(t, w.close(false))
				return false
			}
			if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "000002.log") {
				t.Fatal(err)
			}
			return true
		}
		promised := len("synced too ")
		if sealed {
			promised = len(whole)
		}
		for i := range whole {
			flipped := bytes.Clone(whole)
			flipped[i] ^= 1
			if damaged(flipped) != (i < promised) {
				t.Errorf("sealed %t: a flip at %d of %d", sealed, i, len(whole))
			}
			if damaged(whole[:i]) != (i < promised) {
				t.Errorf("sealed %t: a cut to %d of %d", sealed, i, len(whole))
			}
		}
		if damaged(whole) || damaged(append(bytes.Clone(whole), '!')) != sealed {
			t.Errorf("sealed %t: the whole file, or a longer one", sealed)
		}
		must(t, os.WriteFile(path, whole, 0o600))
		for i := 0; i < len(witness); i += 5 { // it then knows less, but nothing wrong
			flipped := bytes.Clone(witness)
			flipped[i] ^= 1
			must(t, os.WriteFile(filepath.Join(root, WitnessName), flipped, 0o600))
			w, err := openWitness(root)
			if err != nil && !(sealed && strings.Contains(err.Error(), "added")) {
				t.Fatalf("sealed %t, a flip at %d of the witness: %v", sealed, i, err)
			}
			if err == nil {
				must(t, w.close(false))
			}
		}
	}
}

func mustWitness(t *testing.T, root string) *witness {
	t.Helper()
	w, err := openWitness(root)
	must(t, err)
	return w
}

// TestWitnessOfGoneFiles lets files go, and come again under the same name and under another.
func TestWitnessOfGoneFiles(t *testing.T) {
	root := t.TempDir()
	w := mustWitness(t, root)
	fs := &catalogWitness{FS: vfs.Default, w: w}
	path := func(name string) string { return filepath.Join(root, name) }
	write := func(f vfs.File, err error, content string) {
		t.Helper()
		must(t, err)
		_, err = f.Write([]byte(content))
		must(t, err)
		must(t, f.Sync())
		must(t, f.Close())
	}
	for _, content := range []string{"first", "second and longer", "3rd"} {
		f, err := fs.Create(path("1.log"), vfs.WriteCategoryUnspecified)
		write(f, err, content)
	}
	f, err := fs.Create(path("2.log"), vfs.WriteCategoryUnspecified)
	write(f, err, "an old log, which is written over")
	f, err = fs.ReuseForWrite(path("2.log"), path("3.log"), vfs.WriteCategoryUnspecified)
	write(f, err, "a new log")
	f, err = fs.Create(path("4.sst"), vfs.WriteCategoryUnspecified)
	write(f, err, "a table")
	must(t, fs.Link(path("4.sst"), path("5.sst")))
	must(t, fs.Remove(path("4.sst")))
	must(t, w.close(false))
	known, _, err := readWitness(path(WitnessName))
	must(t, err)
	var names []string
	for name := range known {
		names = append(names, name)
	}
	slices.Sort(names)
	if want := []string{"1.log", "3.log", "5.sst"}; !slices.Equal(names, want) {
		t.Errorf("the witness knows %v, want %v", names, want)
	}
	must(t, mustWitness(t, root).close(false)) // all of it is right
	must(t, os.WriteFile(path("3.log"), []byte("a mew log, which is written over"), 0o600))
	if _, err := openWitness(root); !errors.Is(err, ErrDamaged) {
		t.Errorf("a flip in a log that was used again: %v", err)
	}
}

// recalled is a log that has what it is given.
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

// IterateEntries gives one after the other.
func (r *recalled) IterateEntries(_ []raftpb.Entry, _, _, _, low, high, _ uint64) ([]raftpb.Entry, uint64, error) {
	if low < r.hole && r.hole < high {
		high = r.hole
	}
	if low == r.hole || low == high {
		return nil, 0, nil
	}
	return []raftpb.Entry{{Index: low}}, 0, nil
}

// TestWitnessOfLog: a log that has forgotten an entry, a term or a vote is told from one that has all,
// or more.
func TestWitnessOfLog(t *testing.T) {
	w := mustWitness(t, t.TempDir())
	l := &logDB{ILogDB: &recalled{}, w: w}
	save := func(u raftpb.Update) {
		u.ShardID, u.ReplicaID = 2, 3
		must(t, l.SaveRaftState([]raftpb.Update{u}, 1))
	}
	save(raftpb.Update{State: raftpb.State{Term: 5}, EntriesToSave: []raftpb.Entry{{Index: 8}, {Index: 12}}})
	save(raftpb.Update{EntriesToSave: []raftpb.Entry{{Index: 10}}}) // in the place of 10, 11 and 12
	save(raftpb.Update{State: raftpb.State{Term: 7, Vote: 1}})
	state := func(term, vote, first, count uint64) raftio.RaftState {
		return raftio.RaftState{State: raftpb.State{Term: term, Vote: vote}, FirstIndex: first, EntryCount: count}
	}
	for name, c := range map[string]struct {
		have     raftio.RaftState
		snapshot uint64
		forgot   string
	}{
		"all":                     {state(7, 1, 1, 10), 0, ""},
		"all, after a snapshot":   {state(7, 1, 9, 2), 8, ""},
		"the snapshot is the end": {state(7, 1, 10, 0), 10, ""},
		"more":                    {state(8, 0, 1, 11), 0, ""},
		"an entry":                {state(7, 1, 1, 9), 0, "entries after 9 of 10"},
		"entries after snapshot":  {state(7, 1, 8, 0), 8, "entries after 8 of 10"},
		"the term":                {state(6, 2, 1, 10), 0, "term 7"},
		"the vote":                {state(7, 0, 1, 10), 0, "vote in term 7"},
		"another vote":            {state(7, 2, 1, 10), 0, "vote in term 7"},
		"everything":              {raftio.RaftState{}, 0, "entries after 0 of 10"},
	} {
		t.Run(name, func(t *testing.T) {
			l.ILogDB = &recalled{state: c.have, snapshot: raftpb.Snapshot{Index: c.snapshot}}
			err := l.expect()
			if (err == nil) != (c.forgot == "") || err != nil && (!errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), c.forgot) || image.KindOf(err) != image.KindDamaged) {
				t.Errorf("%v, want %q", err, c.forgot)
			}
		})
	}
	l.ILogDB = &recalled{state: state(7, 1, 1, 10), hole: 4}
	if err := l.expect(); err == nil || !strings.Contains(err.Error(), "no entry 4") {
		t.Errorf("without entry 4: %v", err)
	}
	must(t, w.forget(true, logName(2, 3)))
	l.ILogDB = &recalled{}
	must(t, l.expect())
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

// TestWitnessAfterPowerLoss: a follower puts a new leader's entries, or a snapshot, in the place of ones that
// were never committed, and loses power before the kernel has written what the witness says of that. Its log
// has forgotten nothing.
func TestWitnessAfterPowerLoss(t *testing.T) {
	for name, u := range map[string]raftpb.Update{
		"entries":    {State: raftpb.State{Term: 6}, EntriesToSave: []raftpb.Entry{{Index: 9}, {Index: 10}}},
		"a snapshot": {State: raftpb.State{Term: 6}, Snapshot: raftpb.Snapshot{Index: 10, Term: 6}},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			w := mustWitness(t, root)
			log := &syncedFirst{path: filepath.Join(root, WitnessName)}
			l := &logDB{ILogDB: log, w: w}
			for _, u := range []raftpb.Update{{State: raftpb.State{Term: 5}, EntriesToSave: []raftpb.Entry{{Index: 8}, {Index: 12}}}, u} {
				u.ShardID, u.ReplicaID = 2, 3
				must(t, l.SaveRaftState([]raftpb.Update{u}, 1))
			}
			must(t, w.close(false))
			must(t, os.WriteFile(log.path, log.disk, 0o600))
			w = mustWitness(t, root)
			defer w.close(false)
			has := &recalled{state: raftio.RaftState{State: raftpb.State{Term: 6}, FirstIndex: 1, EntryCount: 10}}
			if err := (&logDB{ILogDB: has, w: w}).expect(); err != nil {
				t.Error(err)
			}
			has.state.EntryCount = 9
			if err := (&logDB{ILogDB: has, w: w}).expect(); !errors.Is(err, ErrDamaged) {
				t.Errorf("without the last entry: %v", err)
			}
		})
	}
}

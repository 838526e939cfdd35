package consensus

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	sm "github.com/lni/dragonboat/v4/statemachine"
	"go.uber.org/zap"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
)

const dir = "catalog"

// openToy opens a state machine of the shard on fs, and returns the index that it has applied.
func openToy(t testing.TB, fs vfs.FS, shard uint64) (*stateMachine, uint64) {
	t.Helper()
	o := &Options{Disk: sealerOf("disk"), Snapshots: sealerOf("snapshots")}
	db, err := openDatabase(fs, dir, o, zap.NewNop())
	must(t, err)
	t.Cleanup(func() {
		if !db.readers.closed { // else the test closed it
			must(t, db.close())
		}
	})
	return openStateMachine(t, db, shard)
}

func openStateMachine(t testing.TB, db *database, shard uint64) (*stateMachine, uint64) {
	t.Helper()
	m := &stateMachine{
		shard: shard, db: db, apply: toyApply, log: zap.NewNop(),
		applied: func(uint64, uint64, []catalog.Event) {}, restored: func(uint64, uint64) {},
	}
	index, err := m.Open(nil)
	must(t, err)
	return m, index
}

// entries makes commands into log entries from index first.
func entries(first uint64, cmds ...string) []sm.Entry {
	es := make([]sm.Entry, len(cmds))
	for i, c := range cmds {
		es[i] = sm.Entry{Index: first + uint64(i), Cmd: []byte(c)}
	}
	return es
}

func update(t testing.TB, m *stateMachine, es []sm.Entry) []sm.Entry {
	t.Helper()
	es, err := m.Update(es)
	must(t, err)
	return es
}

func stateOf(t testing.TB, m *stateMachine) (all map[string]string) {
	t.Helper()
	_, err := m.Lookup(func(r catalog.Reader) error { all = dump(t, r); return nil })
	must(t, err)
	return all
}

func expectState(t testing.TB, what string, got, want map[string]string) {
	t.Helper()
	if !maps.Equal(got, want) {
		t.Errorf("%s: state %v, want %v", what, got, want)
	}
}

// commands is a log whose every prefix gives another state.
func commands(n int) []string {
	cmds := make([]string, n)
	for i := range cmds {
		switch {
		case i%7 == 6:
			cmds[i] = fmt.Sprintf("del k%d", i-3)
		case i%5 == 4:
			cmds[i] = fmt.Sprintf("half h%d", i)
		default:
			cmds[i] = fmt.Sprintf("set k%d v%d", i, i)
		}
	}
	return cmds
}

// states returns the state after each prefix of cmds, applied one at a time.
func states(t testing.TB, cmds []string) []map[string]string {
	m, _ := openToy(t, vfs.NewMem(), 1)
	all := []map[string]string{{}}
	for i, c := range cmds {
		update(t, m, entries(uint64(i+1), c))
		all = append(all, stateOf(t, m))
	}
	return all
}

// TestNewerCommand: a node stops before a command that only a newer program knows, with nothing of it or of
// the commands before in its batch applied: that program applies them.
func TestNewerCommand(t *testing.T) {
	m, _ := openToy(t, vfs.NewMem(), 1)
	update(t, m, entries(1, "set a 1"))
	m.apply = func(tx catalog.Tx, index uint64, cmd []byte) ([]byte, []catalog.Event) {
		if string(cmd) == "newer" {
			panic(fmt.Errorf("of a test: %w", catalog.ErrNewer))
		}
		return toyApply(tx, index, cmd)
	}
	if _, err := m.Update(entries(2, "set b 2", "newer", "set c 3")); !errors.Is(err, catalog.ErrNewer) {
		t.Fatalf("the node goes on: %v", err)
	}
	expectState(t, "before the newer command", stateOf(t, m), map[string]string{"a": "1"})
	m.apply = toyApply
	update(t, m, entries(2, "set b 2", "set d 4"))
	expectState(t, "with the newer program", stateOf(t, m), map[string]string{"a": "1", "b": "2", "d": "4"})
}

// TestNewerSnapshot: the snapshot of a newer program is refused with what to start, and changes nothing.
func TestNewerSnapshot(t *testing.T) {
	newer := []byte(snapshotMagic + "\x00\x00\x00\x00\x00\x00\x00\x01")
	newer[len(snapshotMagic)-1]++
	m, _ := openToy(t, vfs.NewMem(), 1)
	update(t, m, entries(1, "set a 1"))
	err := m.RecoverFromSnapshot(bytes.NewReader(newer), nil)
	if !errors.Is(err, errSnapshot) || !strings.Contains(image.HintOf(err), "newer") {
		t.Errorf("it is refused with %v, hint %q", err, image.HintOf(err))
	}
	expectState(t, "after the refused snapshot", stateOf(t, m), map[string]string{"a": "1"})
}

// TestNewerDatabase: the data directory of a newer program is refused.
func TestNewerDatabase(t *testing.T) {
	have := identityOf(&Options{NodeID: 1})
	newer := have
	newer.Version++
	if err := newer.differs(have); err == nil || !strings.Contains(image.HintOf(err), "version of the program") {
		t.Errorf("it is refused with %v, hint %q", err, image.HintOf(err))
	}
}

func TestUpdateInBatches(t *testing.T) {
	cmds := commands(40)
	want := states(t, cmds)[len(cmds)]
	for size := 1; size <= len(cmds); size *= 3 {
		m, _ := openToy(t, vfs.NewMem(), 1)
		var events []string
		m.applied = func(_, _ uint64, es []catalog.Event) {
			events = append(events, namesOf(es)...)
			if all := stateOf(t, m); all["k0"] != "v0" {
				t.Errorf("events came before readers see their state: %v", all)
			}
		}
		at := uint64(1)
		for batch := range slices.Chunk(cmds, size) {
			for _, e := range update(t, m, entries(at, batch...)) {
				panics := bytes.HasPrefix(e.Cmd, []byte("half"))
				if panics != (e.Result.Value == resultPanicked) {
					t.Errorf("%q: result %+v", e.Cmd, e.Result)
				}
			}
			at += uint64(len(batch))
		}
		expectState(t, fmt.Sprintf("batches of %d", size), stateOf(t, m), want)
		var wanted []string
		for i, c := range cmds {
			var verb, key string
			fmt.Sscan(c, &verb, &key)
			if verb != "half" {
				wanted = append(wanted, fmt.Sprintf("%s@%d", key, i+1))
			}
		}
		if !slices.Equal(events, wanted) {
			t.Errorf("batches of %d: events %v", size, events)
		}
	}
}

func TestTxSeesItsBatch(t *testing.T) {
	m, _ := openToy(t, vfs.NewMem(), 1)
	es := update(t, m, entries(1, "add n", "add n", "add n"))
	if got := string(es[2].Result.Data); got != "3" {
		t.Errorf("three additions in a batch give %s", got)
	}
	m.apply = func(tx catalog.Tx, _ uint64, _ []byte) ([]byte, []catalog.Event) {
		tx.Delete([]byte("n"))
		tx.Set([]byte("b"), nil)
		tx.Set([]byte("a"), []byte("1"))
		var keys []byte
		tx.Scan([]byte("a"), []byte("c"), func(k, _ []byte) bool { keys = append(keys, k...); return true })
		tx.Scan(nil, nil, func(k, _ []byte) bool { keys = append(keys, k...); return false })
		return keys, nil
	}
	if got := string(update(t, m, entries(4, "x"))[0].Result.Data); got != "aba" {
		t.Errorf("scans within a command give %q", got)
	}
	_, err := m.Lookup(func(r catalog.Reader) error {
		empty, err := r.Get([]byte("b"))
		none, err2 := r.Get([]byte("c"))
		if empty == nil || none != nil {
			t.Errorf("empty value %v, no value %v", empty, none)
		}
		return errors.Join(err, err2)
	})
	must(t, err)
}

func TestShardsAreApart(t *testing.T) {
	one, _ := openToy(t, vfs.NewMem(), 1)
	two, _ := openStateMachine(t, one.db, 2)
	update(t, one, entries(1, "set a 1", "set b 1"))
	update(t, two, entries(1, "set b 2"))
	expectState(t, "shard 1", stateOf(t, one), map[string]string{"a": "1", "b": "1"})
	expectState(t, "shard 2", stateOf(t, two), map[string]string{"b": "2"})
	if _, err := one.Lookup("a question"); err == nil {
		t.Error("a string was looked up")
	}
}

// TestPowerLoss loses what was not synced, at each point after it with other parts of it kept. The
// state must be that of the index that Open returns, which is not before the last Sync.
func TestPowerLoss(t *testing.T) {
	cmds := commands(30)
	want := states(t, cmds)
	const synced = 11
	for seed := range uint64(25) {
		fs := vfs.NewCrashableMem()
		m, _ := openToy(t, fs, 1)
		update(t, m, entries(1, cmds[:synced]...))
		must(t, m.Sync())
		for i := synced; i < len(cmds); i += 3 {
			update(t, m, entries(uint64(i+1), cmds[i:min(i+3, len(cmds))]...))
		}
		cfg := vfs.CrashCloneCfg{UnsyncedDataPercent: int(seed) * 4, RNG: rand.New(rand.NewPCG(seed, 1))}
		after, index := openToy(t, fs.CrashClone(cfg), 1)
		if index < synced || index > uint64(len(cmds)) || seed == 0 && index == uint64(len(cmds)) {
			t.Fatalf("seed %d: at index %d after the crash", seed, index)
		}
		expectState(t, fmt.Sprintf("seed %d, index %d", seed, index), stateOf(t, after), want[index])
		if rest := cmds[index:]; len(rest) > 0 {
			update(t, after, entries(index+1, rest...))
		}
		expectState(t, "replayed", stateOf(t, after), want[len(cmds)])
	}
}

// TestDiskFailureIsNoResult fails a read of Apply: the node must stop, since the others go on with
// the result that this one could not compute.
func TestDiskFailureIsNoResult(t *testing.T) {
	mem := vfs.NewMem()
	m, _ := openToy(t, mem, 1)
	for i := range uint64(5000) { // enough that "n" is in another block than what Open reads
		update(t, m, entries(i+1, fmt.Sprintf("set k%d %080d", i, i)))
	}
	update(t, m, entries(5001, "set n 41"))
	must(t, m.db.pebble.Flush())
	must(t, m.db.close())

	toggle := &errorfs.Toggle{Injector: errorfs.ErrInjected.If(errorfs.Reads)}
	m, index := openToy(t, errorfs.Wrap(mem, toggle), 1)
	toggle.On()
	_, err := m.Update(entries(index+1, "add n"))
	if injected := (errorfs.LabelledError{}); !errors.As(err, &injected) {
		t.Fatalf("Update with an unreadable disk: %v", err)
	}
	toggle.Off()
	if again, err := m.Open(nil); err != nil || again != index {
		t.Errorf("index %d after the failure, %v", again, err)
	}
}

// snapshotOf returns a snapshot of the state machine.
func snapshotOf(t testing.TB, m *stateMachine) []byte {
	t.Helper()
	pinned, err := m.PrepareSnapshot()
	must(t, err)
	var b bytes.Buffer
	must(t, m.SaveSnapshot(pinned, &b, nil))
	return b.Bytes()
}

// openedSnapshot returns the keys and opened values in a snapshot.
func openedSnapshot(t testing.TB, b []byte, shard uint64) map[string]string {
	t.Helper()
	all := map[string]string{}
	must(t, readSnapshot(bytes.NewReader(b), shard, nil, func(key, value []byte) (err error) {
		if isState(key) {
			value, err = openValue(sealerOf("snapshots"), key, value)
		}
		all[string(key)] = string(value)
		return err
	}))
	return all
}

func TestSnapshot(t *testing.T) {
	from, _ := openToy(t, vfs.NewMem(), 3)
	update(t, from, entries(1, commands(60)...))
	pinned, err := from.PrepareSnapshot()
	must(t, err)
	want := stateOf(t, from)
	update(t, from, entries(61, "set later x")) // not in the snapshot
	var b bytes.Buffer
	must(t, from.SaveSnapshot(pinned, &b, nil))

	to, _ := openToy(t, vfs.NewMem(), 3)
	beside, _ := openStateMachine(t, to.db, 4)
	update(t, to, entries(1, "set stale x", "set k0 old"))
	update(t, beside, entries(1, "set mine x"))
	events := 0
	to.restored = func(_, index uint64) {
		events++
		if index != 60 {
			t.Errorf("restored as of entry %d", index)
		}
		expectState(t, "at the event", stateOf(t, to), want)
	}
	_, err = to.Lookup(func(r catalog.Reader) error { // a reader keeps what it began with
		must(t, to.RecoverFromSnapshot(&b, nil))
		expectState(t, "an older reader", dump(t, r), map[string]string{"stale": "x", "k0": "old"})
		return nil
	})
	must(t, err)
	expectState(t, "shard 3", stateOf(t, to), want)
	expectState(t, "shard 4", stateOf(t, beside), map[string]string{"mine": "x"})
	if index, err := to.Open(nil); err != nil || index != 60 || events != 1 {
		t.Errorf("at index %d, %d events, %v", index, events, err)
	}
	must(t, to.Sync())
	if one, two := snapshotOf(t, to), snapshotOf(t, to); bytes.Equal(one, two) ||
		!maps.Equal(openedSnapshot(t, one, 3), openedSnapshot(t, two, 3)) {
		t.Error("two snapshots of one state are not the same, each sealed by itself")
	}
}

func TestSnapshotOfNothing(t *testing.T) {
	from, _ := openToy(t, vfs.NewMem(), 1)
	to, _ := openToy(t, vfs.NewMem(), 1)
	update(t, to, entries(1, "set stale x"))
	must(t, to.RecoverFromSnapshot(bytes.NewReader(snapshotOf(t, from)), nil))
	expectState(t, "an empty snapshot", stateOf(t, to), map[string]string{})
}

// crashingReader calls crash before each small read.
type crashingReader struct {
	r     io.Reader
	crash func()
}

func (c *crashingReader) Read(p []byte) (int, error) {
	c.crash()
	return c.r.Read(p[:min(len(p), 64)])
}

// TestPowerLossInRecovery crashes while a snapshot comes in and right after.
func TestPowerLossInRecovery(t *testing.T) {
	from, _ := openToy(t, vfs.NewMem(), 1)
	update(t, from, entries(1, commands(300)...))
	want := stateOf(t, from)
	old := map[string]string{"stale": "x"}

	fs := vfs.NewCrashableMem()
	to, _ := openToy(t, fs, 1)
	update(t, to, entries(1, "set stale x"))
	must(t, to.Sync())
	var crashed []*vfs.MemFS
	rng := rand.New(rand.NewPCG(1, 2))
	crash := func() {
		crashed = append(crashed,
			fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 10 * (len(crashed) % 10), RNG: rng}))
	}
	must(t,
		to.RecoverFromSnapshot(&crashingReader{r: bytes.NewReader(snapshotOf(t, from)), crash: crash}, nil))
	for i, c := range crashed {
		after, index := openToy(t, c, 1)
		if index != 1 {
			t.Fatalf("crash %d: index %d", i, index)
		}
		expectState(t, fmt.Sprintf("crash %d", i), stateOf(t, after), old)
		if left, err := c.List(after.db.restore); err != nil || len(left) > 0 {
			t.Errorf("crash %d left %v, %v", i, left, err)
		}
	}
	must(t, to.Sync())
	after, index := openToy(t, fs.CrashClone(vfs.CrashCloneCfg{}), 1)
	if index != 300 || len(crashed) < 10 {
		t.Errorf("index %d after recovery and sync, %d crashes before", index, len(crashed))
	}
	expectState(t, "after", stateOf(t, after), want)
}

func TestDamagedSnapshot(t *testing.T) {
	from, _ := openToy(t, vfs.NewMem(), 1)
	update(t, from, entries(1, commands(12)...))
	good := snapshotOf(t, from)
	to, _ := openToy(t, vfs.NewMem(), 1)
	update(t, to, entries(1, "set mine x"))
	refuse := func(what string, b []byte) {
		t.Helper()
		if err := to.RecoverFromSnapshot(bytes.NewReader(b), nil); !errors.Is(err, errSnapshot) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1 << (i % 8)
		refuse(fmt.Sprintf("byte %d flipped", i), bad)
		refuse(fmt.Sprintf("cut to %d", i), good[:i])
	}
	other, _ := openToy(t, vfs.NewMem(), 2)
	refuse("of another shard", snapshotOf(t, other))
	expectState(t, "afterwards", stateOf(t, to), map[string]string{"mine": "x"})

	stop := make(chan struct{})
	close(stop)
	if err := to.RecoverFromSnapshot(bytes.NewReader(good), stop); !errors.Is(err, sm.ErrSnapshotStopped) {
		t.Errorf("stopped recovery: %v", err)
	}
	pinned, err := from.PrepareSnapshot()
	must(t, err)
	if err := from.SaveSnapshot(pinned, io.Discard, stop); !errors.Is(err, sm.ErrSnapshotStopped) {
		t.Errorf("stopped saving: %v", err)
	}
}

// FuzzSnapshot reads any bytes as a snapshot: what is taken must be what would be written.
func FuzzSnapshot(f *testing.F) {
	m, _ := openToy(f, vfs.NewMem(), 1)
	f.Add(snapshotOf(f, m))
	update(f, m, entries(1, commands(12)...))
	f.Add(snapshotOf(f, m))
	f.Add([]byte(snapshotMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		to, _ := openToy(t, vfs.NewMem(), 1)
		if err := to.RecoverFromSnapshot(bytes.NewReader(b), nil); err != nil {
			return
		}
		want := openedSnapshot(t, b, 1)
		if got := openedSnapshot(t, snapshotOf(t, to), 1); !maps.Equal(got, want) {
			t.Errorf("%q was taken as %q", want, got)
		}
	})
}

package store

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"imgcluster/cluster/image"
)

var errOff = errors.New("the power is off")

// crashes returns by name the choices of what a power loss keeps of what was not synced.
func crashes() map[string]func(*memFS) *memFS {
	keep := func(yes bool) func(string) bool { return func(string) bool { return yes } }
	m := map[string]func(*memFS) *memFS{
		"nothing":  func(fs *memFS) *memFS { return fs.crash(keep(false), false) },
		"names":    func(fs *memFS) *memFS { return fs.crash(keep(true), false) },
		"contents": func(fs *memFS) *memFS { return fs.crash(keep(false), true) },
		"all":      func(fs *memFS) *memFS { return fs.crash(keep(true), true) },
	}
	for seed := range uint64(4) {
		m[fmt.Sprint("some names, ", seed)] = func(fs *memFS) *memFS {
			r := rand.New(rand.NewPCG(seed, 0))
			return fs.crash(func(string) bool { return r.IntN(2) == 0 }, seed%2 == 0)
		}
	}
	return m
}

var (
	crashOld = noise(1, 3*alignBytes+9)
	// crashNew is what is being written: a small file, and one that is not.
	crashNew = [][]byte{noise(2, 3*alignBytes+10), noise(3, smallBytes+3*alignBytes+10)}
)

// beforeCut returns a disk with the file testFile(9), which no test touches.
func beforeCut() (*memFS, error) {
	mem := newMemFS()
	s, err := openStore(mem, Options{})
	if err == nil {
		err = put(s, testFile(9), crashOld)
	}
	return mem, err
}

// commitCut is a commit during which the power fails.
type commitCut struct {
	data  []byte
	at    int // the operation from which on all fail
	opts  Options
	skip  string // an operation that is left out: a seeded bug
	crash func(*memFS) *memFS
}

// run cuts the power, applies the crash, and checks what is found after the restart. It reports whether the
// commit was done before the cut.
func (c commitCut) run(mem *memFS) (done bool, err error) {
	s, err := openStore(mem, c.opts)
	if err != nil {
		return false, err
	}
	f := &faultFS{fileSystem: mem, failAt: c.at, onward: true, err: errOff, skip: c.skip}
	s.fs = f
	acknowledged := put(s, testFile(1), c.data) == nil
	check := func(k image.FileID, got []byte) error {
		switch {
		case k == testFile(9) && bytes.Equal(got, crashOld):
		case k == testFile(1) && bytes.Equal(got, c.data):
		case k == testFile(1) && !acknowledged && got == nil:
		default:
			return fmt.Errorf("cut at %d, acknowledged %v: %v has %d bytes, not the right ones",
				c.at, acknowledged, k, len(got))
		}
		return nil
	}
	return acknowledged && len(f.ops) < c.at, afterCrash(c.crash(mem), check, acknowledged)
}

// afterCrash restarts the store, sweeps the files without a record, and checks both files. recorded means
// that the new file has a record.
func afterCrash(mem *memFS, check func(image.FileID, []byte) error, recorded bool) error {
	s, err := openStore(mem, Options{})
	if err != nil {
		return err
	}
	_, _, err = s.Sweep(func(f image.FileID) (bool, error) { return number(f) == 9 || recorded, nil })
	if err != nil {
		return err
	}
	files := int64(1)
	if recorded {
		files = 2
	}
	if n, _ := s.Usage(); n != files {
		return fmt.Errorf("%d files after the sweep, want %d", n, files)
	}
	if left := mem.names[tmpDir]; len(left) > 0 {
		return fmt.Errorf("temporary files after the sweep: %v", left)
	}
	for _, k := range []image.FileID{testFile(9), testFile(1)} {
		got, err := get(s, k)
		if err != nil && image.KindOf(err) != image.KindNotFound {
			return err
		}
		if err := check(k, got); err != nil {
			return err
		}
	}
	return nil
}

// cutEverywhere returns the first violation over all cuts and crashes.
func cutEverywhere(skip string) (cuts int, err error) {
	for _, buffered := range []bool{false, true} {
		opts := Options{Buffered: buffered}
		start, err := beforeCut()
		if err != nil {
			return cuts, err
		}
		for name, crash := range crashes() {
			for i, data := range crashNew {
				for cut, done := 1, false; !done; cut++ {
					c := commitCut{data: data, at: cut, opts: opts, skip: skip, crash: crash}
					if done, err = c.run(start.clone()); err != nil {
						return cuts, fmt.Errorf("file %d, power loss that keeps %s: %w", i, name, err)
					}
					cuts++
				}
			}
		}
	}
	return cuts, nil
}

// TestPowerLoss cuts the power at every operation of a commit.
func TestPowerLoss(t *testing.T) {
	cuts, err := cutEverywhere("")
	if err != nil {
		t.Fatal(err)
	}
	if cuts < 250 {
		t.Errorf("only %d cuts", cuts)
	}
}

// TestPowerLossAtFirstStart cuts the power at every operation from the first open of an empty directory to
// the end of the first commit, but only at some of those that make the folders.
func TestPowerLossAtFirstStart(t *testing.T) {
	for name, crash := range crashes() {
		for cut, acknowledged := 1, false; !acknowledged; cut++ {
			if cut > 5 && cut < foldersCount-5 {
				cut += 40
			}
			mem := newMemFS()
			f := &faultFS{fileSystem: mem, failAt: cut, onward: true, err: errOff}
			if s, err := openStore(f, Options{}); err == nil {
				acknowledged = put(s, testFile(1), crashNew[0]) == nil
			}
			s, err := openStore(crash(mem), Options{})
			if err != nil {
				t.Fatalf("power loss at %d that keeps %s: the store does not open: %v", cut, name, err)
			}
			got, err := get(s, testFile(1))
			if whole := bytes.Equal(got, crashNew[0]); acknowledged && !whole || err == nil && !whole {
				t.Fatalf("power loss at %d that keeps %s, acknowledged %v: %d bytes, %v",
					cut, name, acknowledged, len(got), err)
			}
		}
	}
}

// TestPowerLossFindsSeededBugs: the model must find the classic mistakes.
func TestPowerLossFindsSeededBugs(t *testing.T) {
	for _, skip := range []string{"fsync", "syncdir", "write"} {
		if _, err := cutEverywhere(skip); err == nil {
			t.Errorf("a commit without %s passed", skip)
		} else {
			t.Logf("without %s: %v", skip, err)
		}
	}
}

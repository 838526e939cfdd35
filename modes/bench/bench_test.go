//go:build linux

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestMain(m *testing.M) {
	child()
	os.Exit(m.Run())
}

// TestRun measures a few cells as the command does. All figures are there, the JSON says the same as the
// table was made of, and a run compared with itself shows no difference.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "bench.json")
	args := []string{
		"--only",
		"^(put .*, 2 writing, 4|get 1 MiB of 13 MB, no copy there, 8|put 10 KB, relay, .*TLS, 32) at once$",
		"--seconds", "0.3", "--rounds", "1", "--dir", dir, "--out", path,
	}
	var out, progress bytes.Buffer
	if err := run(t.Context(), args, &out, &progress); err != nil {
		t.Fatalf("%v\n%s", err, &progress)
	}
	r, err := readRun(path)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range r.Cells {
		names = append(names, m.Name)
		for _, figure := range m.figures() {
			if v := m.Median[figure]; v <= 0 || v != m.Rounds[0][figure] {
				t.Errorf("%s: %s is %v, of rounds %v", m.Name, figure, v, m.Rounds)
			}
		}
		if len(m.Rounds[0]) != len(m.figures()) {
			t.Errorf("%s has %v, want %v", m.Name, m.Rounds[0], m.figures())
		}
		if !strings.Contains(out.String(), "| "+m.Name+" ") {
			t.Errorf("the table has no %s:\n%s", m.Name, &out)
		}
	}
	want := []string{
		"put 13 MB, bare, 4 at once",
		"put 13 MB, bare, 2 writing, 4 at once",
		"get 1 MiB of 13 MB, file server, 8 at once",
		"get 1 MiB of 13 MB, no copy there, 8 at once",
		"put 10 KB, bare, 32 at once",
		"put 10 KB, relay, copies 2, 32 at once",
		"put 10 KB, relay, copies 2, TLS, 32 at once",
	}
	if !slices.Equal(names, want) {
		t.Errorf("measured %q, want %q", names, want)
	}
	within := func(name, figure string, low, high float64) {
		if v, ok := r.find(name).Median[figure]; ok && (v < low || v > high) {
			t.Errorf("%s: %s is %v, want %v to %v", name, figure, v, low, high)
		}
	}
	if t.Failed() {
		t.FailNow()
	}
	within("put 13 MB, bare, 4 at once", toBase, 1, 1)
	within("put 13 MB, bare, 4 at once", clientWire, 2, 3.1) // a stream without a connection may be given up
	within("put 13 MB, bare, 2 writing, 4 at once", diskPerByte, 1.9, 2.1)
	within("put 10 KB, relay, copies 2, TLS, 32 at once", clientWire, 1, 1.3+handshakes(r, 32, 0.3))
	within("put 10 KB, relay, copies 2, TLS, 32 at once", diskPerByte, 2, 100)
	within("get 1 MiB of 13 MB, no copy there, 8 at once", clientWire, 1, 1.1)
	within("get 1 MiB of 13 MB, no copy there, 8 at once", nodesWire, 1, 2)

	copied := filepath.Join(dir, "copy.json")
	if err := r.write(copied); err != nil {
		t.Fatal(err)
	}
	again, err := readRun(copied)
	if err != nil || !reflect.DeepEqual(r, again) {
		t.Errorf("the JSON says something else, %v", err)
	}
	all := ratios(*r, *again)
	for _, x := range all {
		if x.value != 1 || x.beyondNoise {
			t.Errorf("compared with itself: %+v", x)
		}
	}
	if len(all) < len(r.Cells)*7 {
		t.Errorf("%d ratios", len(all))
	}
}

// handshakes returns how many bytes the TLS handshakes of so many workers with three nodes are to a byte of
// the images of 10 KB that these have put in so many seconds.
func handshakes(r *Run, workers, seconds float64) float64 {
	const perConnection = 5 << 10
	images := r.find("put 10 KB, relay, copies 2, TLS, 32 at once").Median[perSecond] * seconds
	return 3 * workers * perConnection / (images * 10_000)
}

// TestAgainst measures two programs in turn, which are the same here. What is no part of them is measured
// once.
func TestAgainst(t *testing.T) {
	dir := t.TempDir()
	program, err := build(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "bench.json")
	var out, progress bytes.Buffer
	err = run(t.Context(), []string{
		"--program", program, "--against", program, "--only", "^put 10 KB, broadcast, copies 2, 32 at once$",
		"--seconds", "0.3", "--rounds", "2", "--dir", dir, "--out", path,
	}, &out, &progress)
	if err != nil {
		t.Fatalf("%v\n%s", err, &progress)
	}
	r, err := readRun(path)
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range r.Cells {
		other := r.Against.Cells[i]
		if len(m.Rounds) != 2 || len(other.Rounds) != 2 || m.Name != other.Name {
			t.Errorf("%s: %v, and %s: %v", m.Name, m.Rounds, other.Name, other.Rounds)
		}
		if same := reflect.DeepEqual(m, other); same != (m.On == onBare) {
			t.Errorf("%s: measured once %v", m.Name, same)
		}
		if lines := strings.Count(out.String(), "| "+m.Name+" "); lines != 2 { // of the table and of the ratios
			t.Errorf("%s is there %d times:\n%s", m.Name, lines, &out)
		}
	}
}

// figures returns the names of all figures that the cell must have.
func (m Measured) figures() []string {
	f := []string{perSecond, toBase, p50, p99, clientCPU, nodesCPU, clientPeak, nodesPeak, nodePeak}
	if root := os.Geteuid() == 0; root {
		f = append(f, clientWire)
		if m.On == onCluster {
			f = append(f, nodesWire)
		}
	}
	if m.Op == opPut && (m.On == onCluster || m.Writers > 0) {
		f = append(f, diskPerByte)
	}
	if m.Secured {
		f = append(f, cpuToPlain)
	}
	return f
}

// TestCells: each cell has a name of its own, and what it is compared with is measured, too.
func TestCells(t *testing.T) {
	var names []string
	for _, c := range cells() {
		names = append(names, c.name())
	}
	for _, c := range cells() {
		for _, other := range []string{c.base().name(), c.plain().name()} {
			if !slices.Contains(names, other) {
				t.Errorf("%s is compared with %s, which is not measured", c.name(), other)
			}
		}
	}
	slices.Sort(names)
	if all := len(names); len(slices.Compact(names)) != all {
		t.Errorf("a name is there twice: %q", names)
	}
}

// TestRatios: a difference is beyond noise when all rounds of both sides agree on it, and there are enough.
func TestRatios(t *testing.T) {
	series := func(values ...float64) Run {
		m := Measured{Name: "cell"}
		for _, v := range values {
			m.Rounds = append(m.Rounds, Figures{perSecond: v})
		}
		return Run{Cells: []Measured{m}}
	}
	for _, c := range []struct {
		old, new Run
		value    float64
		beyond   bool
	}{
		{series(10, 11, 12), series(20, 22, 24), 2, true},
		{series(20, 22, 24), series(10, 11, 12), 0.5, true},
		{series(10, 11, 12), series(12, 22, 24), 2, false},
		{series(10, 12), series(20, 24), 2, false},
	} {
		got := ratios(c.old, c.new)
		if want := []ratio{{"cell", perSecond, c.value, c.beyond}}; !slices.Equal(got, want) {
			t.Errorf("%v to %v: %v, want %v", c.new, c.old, got, want)
		}
		var out bytes.Buffer
		compare(&out, c.old, c.new)
		if strings.Contains(out.String(), "| **") != c.beyond {
			t.Errorf("%s", &out)
		}
	}
}

package chaos

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"imgcluster/cluster/image"
)

var three = []int{1, 2, 3}

func schedule(t *testing.T, seed uint64, faults int, uploads int64, nodes []int) []Fault {
	t.Helper()
	plan, err := Schedule(seed, faults, uploads, nodes)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

// TestScheduleStays holds the faults of a seed, so that a run that found a bug can be repeated with later
// versions.
func TestScheduleStays(t *testing.T) {
	var got []string
	for _, f := range schedule(t, 1, 6, 300, three) {
		got = append(got, f.String()+" after "+f.After.String()+" for "+f.For.String())
	}
	want := []string{
		"kill node 2 at upload 20 after 162ms for 1.438s", "pause node 1 at upload 68 after 87ms for 2.154s",
		"restart node 3 at upload 120 after 225ms for 1.129s", "pause node 3 at upload 175 after 130ms for 2.325s",
		"restart node 1 at upload 205 after 7ms for 2.095s", "kill node 2 at upload 259 after 241ms for 1.242s",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// TestSchedule tries many runs: faults come in their order, one in the first half of each stretch, and
// kinds and nodes come equally often.
func TestSchedule(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		seed := rng.Uint64()
		uploads := 1 + rng.Int64N(3000)
		faults := 1 + rng.IntN(int(min(uploads, 60)))
		nodes := []int{1, 2, 3, 5, 8}[:3+rng.IntN(3)]
		plan := schedule(t, seed, faults, uploads, nodes)
		if again := schedule(t, seed, faults, uploads, nodes); !reflect.DeepEqual(plan, again) {
			t.Fatalf("seed %d gives %v, then %v", seed, plan, again)
		}
		if len(plan) != faults {
			t.Fatalf("%d faults, not %d", len(plan), faults)
		}
		byKind := map[Kind]int{}
		byNode := map[int]int{}
		for i, f := range plan {
			first, next := stretch(i, faults, uploads), stretch(i+1, faults, uploads)
			if f.Upload < first || f.Upload >= next || f.Upload > uploads || 2*(f.Upload-first) > next-first {
				t.Fatalf("fault %d of %d in %d uploads begins at %d, its stretch is %d to %d",
					i, faults, uploads, f.Upload, first, next)
			}
			if i > 0 && f.Upload <= plan[i-1].Upload {
				t.Fatalf("fault %d is not after the one before: %v", i, plan)
			}
			if f.After < 0 || f.After >= afterMax || f.For < forMin || f.For >= forMax {
				t.Fatalf("fault %+v", f)
			}
			byKind[f.Kind]++
			byNode[f.Node]++
		}
		for _, k := range kinds {
			if n := byKind[k]; n < faults/len(kinds) || n > faults/len(kinds)+1 {
				t.Fatalf("%d of %d faults are of kind %s", n, faults, k)
			}
		}
		for _, id := range nodes {
			if n := byNode[id]; n < faults/len(nodes) || n > faults/len(nodes)+1 {
				t.Fatalf("%d of %d faults are of node %d", n, faults, id)
			}
		}
	}
}

// Seeds make a difference in every field of a fault.
func TestScheduleSeeds(t *testing.T) {
	seen := map[string]map[any]bool{"kind": {}, "node": {}, "upload": {}, "after": {}, "for": {}}
	for seed := range uint64(100) {
		f := schedule(t, seed, 3, 90, three)[1]
		seen["kind"][f.Kind] = true
		seen["node"][f.Node] = true
		seen["upload"][f.Upload] = true
		seen["after"][f.After] = true
		seen["for"][f.For] = true
	}
	for what, least := range map[string]int{"kind": 3, "node": 3, "upload": 10, "after": 50, "for": 50} {
		if len(seen[what]) < least {
			t.Errorf("100 seeds give %d different values of %s", len(seen[what]), what)
		}
	}
}

func TestDefault(t *testing.T) {
	for uploads, want := range map[int64]int{1: 1, 2: 2, 3: 3, 30: 3, 150: 3, 240: 4, 1500: 25} {
		if got := Default(uploads); got != want {
			t.Errorf("%d faults in %d uploads, want %d", got, uploads, want)
		}
	}
}

func TestScheduleRefuses(t *testing.T) {
	for _, c := range []struct {
		faults  int
		uploads int64
		nodes   []int
	}{{0, 10, three}, {-1, 10, three}, {11, 10, three}, {3, 10, three[:2]}, {1, 0, three}} {
		plan, err := Schedule(1, c.faults, c.uploads, c.nodes)
		if image.KindOf(err) != image.KindInvalid {
			t.Errorf("%+v gives %v, %v", c, plan, err)
		}
	}
}

func TestSummary(t *testing.T) {
	long := Summary(schedule(t, 1, 12, 300, three))
	if long != "12 faults: 4 kills, 4 pauses and 4 restarts of single nodes" {
		t.Error(long)
	}
	short := Summary([]Fault{{Upload: 3, Kind: Pause, Node: 2}, {Upload: 9, Kind: Kill, Node: 1}})
	if short != "pause node 2 at upload 3, kill node 1 at upload 9" {
		t.Error(short)
	}
}

package report

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"imgcluster/cluster/image"
	"imgcluster/cluster/placement"
	"imgcluster/cluster/sample"
	"imgcluster/modes/runlog"
	"imgcluster/modes/runlog/logtest"
)

// photoSizes are the sizes of the photographs beside the code.
func photoSizes(t testing.TB) (sizes []int64) {
	t.Helper()
	files, err := os.ReadDir(filepath.Join("..", "..", "testdata", "photos"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, info.Size())
	}
	return sizes
}

// simulatedLate is how many images later a node sees another one's decision: of which it is told at once.
const simulatedLate = 1

// simulated is a cluster that decides who owns what, each of three nodes for a third of the images.
type simulated struct {
	owned  []placement.Load // by node
	tables [][]placement.Candidate
	unseen []func()
}

func newSimulated(before ...placement.Load) *simulated {
	s := &simulated{owned: before}
	for range before {
		var table []placement.Candidate
		for i, l := range before {
			table = append(table, placement.Candidate{ID: image.NodeID(i + 1), Owned: l})
		}
		s.tables = append(s.tables, table)
	}
	return s
}

// put returns the owner of an image, and the first of its rank.
func (s *simulated) put(t testing.TB, user, name string, size int64) (owner, firstNode int) {
	t.Helper()
	leader := placement.Shard(user, name, 12) % len(s.tables)
	order, err := placement.Place(user, name, size, s.tables[leader], 2)
	if err != nil {
		t.Fatal(err)
	}
	at := order[0] - 1
	add := func(l *placement.Load) { l.Images, l.Bytes = l.Images+1, l.Bytes+size }
	add(&s.owned[at])
	add(&s.tables[leader][at].Owned)
	s.unseen = append(s.unseen, func() {
		for i, table := range s.tables {
			if i != leader {
				add(&table[at].Owned)
			}
		}
	})
	if len(s.unseen) > simulatedLate {
		s.unseen[0]()
		s.unseen = s.unseen[1:]
	}
	var ids []image.NodeID
	for _, c := range s.tables[0] {
		ids = append(ids, c.ID)
	}
	return int(order[0]), int(placement.Rank(user, name, ids)[0])
}

// simulatedRun is the log of a run on such a cluster, of images of these sizes in turn.
func simulatedRun(t testing.TB, s *simulated, user string, count int64, sizes []int64) []runlog.Record {
	recs := []runlog.Record{logtest.EvenRun(count)}
	recs = append(recs, ownedSamples(0.004, s.owned...)...)
	for seq := int64(1); seq <= count; seq++ {
		u := logtest.EvenUpload(seq)
		u.Bytes = sizes[seq%int64(len(sizes))]
		u.Owner, u.FirstNode = s.put(t, user, u.Name, u.Bytes)
		recs = append(recs, u)
	}
	return append(recs, runlog.End{ElapsedS: float64(count)*0.04 + 0.5})
}

func ownedSamples(t float64, owned ...placement.Load) (recs []runlog.Record) {
	for i, l := range owned {
		recs = append(recs, runlog.NodeSample{
			TS:   t,
			ID:   i + 1,
			Up:   true,
			Node: sample.Node{RSSBytes: 180 << 20, OwnedImages: l.Images, OwnedBytes: l.Bytes},
		})
	}
	return recs
}

// The photographs' sizes differ by eight times.
func TestBalanceOfPhotographs(t *testing.T) {
	sizes := photoSizes(t)
	for _, count := range []int64{40, 300} {
		failed, most, second := 0, 0.0, ""
		for user := range 200 {
			recs := simulatedRun(t, newSimulated(make([]placement.Load, 3)...), fmt.Sprint("user", user), count, sizes)
			c := checkNamed(t, compute(t, recs...), "balance")
			if c.Status != Passed {
				failed++
				second = c.Evidence
			}
			most = max(most, c.Figures["bytes_stddev_percent"]/c.Figures["bytes_limit_percent"])
		}
		t.Logf("%d uploads: at most %.2f of the limit by bytes", count, most)
		if failed > 0 {
			t.Errorf("%d of 200 runs of %d uploads are not balanced: %s", failed, count, second)
		}
		uneven := simulatedRun(t, newSimulated(make([]placement.Load, 3)...), "user", count, sizes)
		for i, rec := range uneven { // whoever has the large ones
			if u, ok := rec.(runlog.Upload); ok {
				u.Owner = int(u.Seq%3) + 1
				uneven[i] = u
			}
		}
		c := checkNamed(t, compute(t, uneven...), "balance")
		if c.Status != Failed || c.Figures["bytes_limit_percent"] <= c.Figures["limit_percent"] {
			t.Errorf("one node has all large images: %s, %s", c.Status, c.Evidence)
		}
	}
}

func TestShareLimits(t *testing.T) {
	for _, c := range []struct {
		count  int64
		sizes  []int64
		images float64 // limits in percent
		bytes  float64
	}{
		{1500, []int64{10e6, 20e6}, 0.15, 0.15},
		{300, []int64{10e6, 10e6}, 0.75, 0.75},
		{300, []int64{1e6, 1e6, 10e6}, 0.75, 1.125},
	} {
		recs := logtest.Mutate(logtest.Even(c.count), func(u *runlog.Upload) {
			u.Bytes = c.sizes[u.Seq%int64(len(c.sizes))]
		})
		got := checkNamed(t, compute(t, recs...), "balance")
		images, bytes := got.Figures["limit_percent"], got.Figures["bytes_limit_percent"]
		if images != c.images || math.Abs(bytes-c.bytes) > 1e-5 {
			t.Errorf("%v: %v and %v, %s; want %v and %v",
				c.sizes, images, bytes, got.Evidence, c.images, c.bytes)
		}
	}
}

// Runs on clusters with a history, by what their nodes owned before.
func TestHistory(t *testing.T) {
	photo := int64(53_175)
	owned := func(images ...int64) (list []placement.Load) {
		for _, n := range images {
			list = append(list, placement.Load{Images: n, Bytes: n * photo})
		}
		return list
	}
	thirds := func(u *runlog.Upload) { u.Owner, u.FirstNode = int(u.Seq%3)+1, int(u.Seq%3)+1 }
	toFirst := func(u *runlog.Upload) { u.Owner = 1 }
	for _, c := range []struct {
		name   string
		before []placement.Load
		count  int64
		change func(*runlog.Upload)
		want   Status
		has    figures
	}{
		{
			"nothing before", owned(0, 0, 0), 300, nil, Passed,
			figures{"limit_percent": 0.75, "bytes_limit_percent": 0.986, "owned_before_images": absent},
		},
		{
			"even before", owned(100, 100, 100), 300, nil, Passed,
			figures{"owned_before_images": 300, "owned_stddev_percent": 0},
		},
		{
			"a new node that catches up", owned(100, 100, 0), 300, nil, Passed,
			figures{"limit_percent": 0.45, "spread_before_images": absent},
		},
		{
			"a new node that gets nearer", owned(500, 500, 0), 300, nil, Passed,
			figures{
				"limit_percent": 0.173, "bytes_limit_percent": 0.2276,
				"spread_before_images": 333.3, "spread_after_images": 133.3,
			},
		},
		{
			"larger images before",
			[]placement.Load{{Images: 10, Bytes: 120e6}, {Images: 10, Bytes: 125e6}, {Images: 10, Bytes: 122e6}},
			300, nil, Passed,
			figures{"owned_before_images": 30},
		},
		{
			"the new node gets nothing", owned(100, 100, 0), 300, toFirst, Failed,
			figures{"spread_before_images": 66.67, "spread_after_images": 240.4},
		},
		{
			"even before, uneven run", owned(100, 100, 100), 300, toFirst, Failed,
			figures{"spread_before_images": 0, "spread_after_images": 200},
		},
		{
			"a new node, and thirds", owned(500, 500, 0), 300, thirds, Failed,
			figures{"spread_before_images": 333.3, "spread_after_images": 379.1},
		},
	} {
		recs := simulatedRun(t, newSimulated(slices.Clone(c.before)...), "user", c.count, photoSizes(t))
		if c.change != nil {
			recs = logtest.Mutate(recs, c.change)
		}
		r := compute(t, recs...)
		got := checkNamed(t, r, "balance")
		if got.Status != c.want {
			t.Errorf("%s: %s, %s; want %s", c.name, got.Status, got.Evidence, c.want)
		}
		c.has.expect(t, got)
		got = checkNamed(t, r, "hash_quality")
		if _, asked := got.Figures["shares_p"]; asked != (c.before[0].Images == 0) ||
			got.Figures["first_choices_p"] == 0 || got.Status == Skipped {
			t.Errorf("%s: hash_quality %s, %s", c.name, got.Status, got.Evidence)
		}
	}
}

// What a first sample that came late says has uploads of the run in it; those of the warm-up are not among
// the uploads.
func TestBefore(t *testing.T) {
	recs := slices.DeleteFunc(logtest.Even(60), logtest.Is[runlog.NodeSample])
	recs = append(recs,
		ownedSamples(1.5, placement.Load{Images: 20, Bytes: 200e6}, placement.Load{Images: 9, Bytes: 200e6})...)
	l := log{logtest.Log(t, recs...)}
	r := Compute(l.Log, DefaultLimits())
	if list, owned := l.before(r.Nodes); owned {
		t.Errorf("before, with no sample of node 3: %v", list)
	}
	recs = append(recs, runlog.NodeSample{TS: 1, ID: 3}, runlog.NodeSample{TS: 2, ID: 3, Up: true},
		runlog.NodeSample{TS: 3, ID: 3, Up: true, Node: sample.Node{OwnedImages: 50}})
	l = log{logtest.Log(t, logtest.Mutate(recs, func(u *runlog.Upload) { u.Warmup = u.Seq%2 == 0 })...)}
	list, owned := l.before(r.Nodes)
	if !owned || len(list) != 3 || list[0].Images >= 20 || list[0].Images < 10 || list[2].Images != 0 {
		t.Errorf("before %v", list)
	}
	warm := runlog.Load{}
	for _, o := range l.Warmup.Owned {
		warm.Add(o)
	}
	if warm.Images != 30 {
		t.Errorf("%d images of the warm-up", warm.Images)
	}
}

// TestGradeOfPlacement grades what placement does with few images, of many users: the first run that anybody
// makes is not called poor for what no placement of so few could do better.
func TestGradeOfPlacement(t *testing.T) {
	for _, images := range []int64{18, 30, 50, 100} {
		grades := map[string]int{}
		for user := range 300 {
			s := newSimulated(make([]placement.Load, 3)...)
			for seq := int64(1); seq <= images; seq++ {
				u := logtest.EvenUpload(seq)
				s.put(t, fmt.Sprintf("user-%d", user), u.Name, u.Bytes)
			}
			shares := make([]float64, 3)
			for i, l := range s.owned {
				shares[i] = 100 * float64(l.Images) / float64(images)
			}
			grades[allowance(images, 3).grade(stddev(shares))]++
		}
		t.Logf("%d images: %v", images, grades)
		if grades["poor"] > 0 || grades["excellent"] < 200 {
			t.Errorf("%d images: %v", images, grades)
		}
	}
}

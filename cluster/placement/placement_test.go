package placement

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"imgcluster/cluster/image"
)

// deviationMax is the promise: the standard deviation of the nodes' shares, in percent, over a run of
// runLength uploads.
const (
	deviationMax = 0.15
	runLength    = 1500
)

// runs returns the number of runs of each setting.
func runs() int {
	if testing.Short() {
		return 10
	}
	return 100
}

// worst are the largest deviations in the runs of one setting, and the number of uploads that went to their
// first choice.
type worst struct {
	images, bytes, storedImages, storedBytes float64
	first                                    int
}

// measure does all runs of one setting, every second one with random names, the others with those of the
// stress test. It calls setting for each run.
func measure(t testing.TB, setting func(seed uint64) sim) worst {
	var w worst
	for seed := range uint64(runs()) {
		all := uploads(seed, runLength)
		if seed%2 == 1 {
			all = renamed(all, rand.New(rand.NewPCG(1, seed)))
		}
		out, err := setting(seed).run("stresstest", all)
		if err != nil {
			t.Fatal(err)
		}
		i, b := spread(out.table, func(c Candidate) point { return c.Owned.point() })
		si, sb := spread(out.table, storedLoad)
		w.images = max(w.images, i)
		w.bytes = max(w.bytes, b)
		w.storedImages = max(w.storedImages, si)
		w.storedBytes = max(w.storedBytes, sb)
		w.first += out.first
	}
	return w
}

// TestBalance tests the promise on 100 fixed runs of each setting. Where decisions are seen late, nearly all
// runs keep it and not every one: see othersWeight.
func TestBalance(t *testing.T) {
	dice := func(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(2, seed)) }
	settings := []struct {
		name   string
		adjust func(s *sim, seed uint64)
	}{
		{"one leader", func(s *sim, _ uint64) { s.leaders = 1 }},
		{"three leaders, nothing late", func(*sim, uint64) {}},
		{"three leaders, 8 uploads late", func(s *sim, _ uint64) { s.late = 8 }},
		{"three leaders, 0 to 8 uploads late", func(s *sim, seed uint64) { s.late, s.dice = 8, dice(seed) }},
	}
	for _, nodes := range []int{3, 5, 7} {
		for _, setting := range settings {
			t.Run(fmt.Sprintf("%d nodes, %s", nodes, setting.name), func(t *testing.T) {
				t.Parallel()
				w := measure(t, func(seed uint64) sim {
					s := sim{nodes: nodes, replicas: 2, leaders: 3}
					setting.adjust(&s, seed)
					return s
				})
				first := 100 * float64(w.first) / float64(runs()*runLength)
				t.Logf("worst of %d runs: %.3f %% by images, %.3f %% by bytes; stored %.3f %%, %.3f %%;"+
					" first choice %.1f %%", runs(), w.images, w.bytes, w.storedImages, w.storedBytes, first)
				if w.images > deviationMax || w.bytes > deviationMax {
					t.Errorf("standard deviation %.3f %% by images, %.3f %% by bytes; the promise is %.2f %%",
						w.images, w.bytes, deviationMax)
				}
			})
		}
	}
}

// distances returns the greatest distance from the mean, in average images, by images and by bytes.
func distances(table []Candidate) (images, bytes float64) {
	var sum point
	for _, c := range table {
		sum.images += float64(c.Owned.Images)
		sum.bytes += float64(c.Owned.Bytes)
	}
	n := float64(len(table))
	average := max(1, sum.bytes/sum.images)
	for _, c := range table {
		images = max(images, math.Abs(float64(c.Owned.Images)-sum.images/n))
		bytes = max(bytes, math.Abs(float64(c.Owned.Bytes)-sum.bytes/n)/average)
	}
	return images, bytes
}

// TestEveryKindOfSizes bounds the distance from the mean after every upload, for sizes unlike those of the
// stress test. By bytes it cannot be smaller than the largest image allows.
func TestEveryKindOfSizes(t *testing.T) {
	for _, kind := range []struct {
		name                string
		size                func(i int, dice *rand.Rand) int64
		imagesMax, bytesMax float64 // in average images
	}{
		{"equal", func(int, *rand.Rand) int64 { return 1 << 20 }, 1, 1},
		{"empty", func(int, *rand.Rand) int64 { return 0 }, 1, 0},
		{"one huge", oneHuge, 12, 2000}, // all others together have 4.5 MB
		{"tiny and large", tinyAndLarge, 6, 6},
		{"any magnitude", func(_ int, dice *rand.Rand) int64 { return 1 << dice.IntN(26) }, 12, 12},
	} {
		t.Run(kind.name, func(t *testing.T) {
			dice := rand.New(rand.NewPCG(3, 3))
			all := make([]upload, 3000)
			for i := range all {
				all[i] = upload{fmt.Sprintf("%d.jpg", i), kind.size(i, dice)}
			}
			var images, bytes float64
			s := sim{nodes: 3, replicas: 2, leaders: 1, watch: func(table []Candidate) {
				i, b := distances(table)
				images = max(images, i)
				bytes = max(bytes, b)
			}}
			out, err := s.run("u", all)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("at most %.2f and %.2f average images from the mean; first choice %d of %d",
				images, bytes, out.first, len(all))
			if images > kind.imagesMax || bytes > kind.bytesMax {
				t.Errorf("%.2f average images from the mean, %.2f by bytes; want at most %.0f and %.0f",
					images, bytes, kind.imagesMax, kind.bytesMax)
			}
		})
	}
}

// oneHuge is 1 GiB among some kilobytes.
func oneHuge(i int, dice *rand.Rand) int64 {
	if i == 500 {
		return 1 << 30
	}
	return 1000 + dice.Int64N(1000)
}

// tinyAndLarge are images of 1 kB and of 10 MB at random.
func tinyAndLarge(_ int, dice *rand.Rand) int64 { return []int64{1000, 10_000_000}[dice.IntN(2)] }

// nodeIDs returns the IDs 1 to n.
func nodeIDs(n int) []image.NodeID {
	all := make([]image.NodeID, n)
	for i := range all {
		all[i] = image.NodeID(i + 1)
	}
	return all
}

// chiSquare returns the statistic for equal shares; its mean is len(counts)-1.
func chiSquare(counts []int) float64 {
	sum := 0
	chi := 0.0
	for _, c := range counts {
		sum += c
	}
	expected := float64(sum) / float64(len(counts))
	for _, c := range counts {
		chi += (float64(c) - expected) * (float64(c) - expected) / expected
	}
	return chi
}

func TestHashesAreUniform(t *testing.T) {
	const names, shards = 60_000, 12
	orders := map[string]int{}
	var first [7]int
	var shard [shards]int
	var both [shards * 3]int
	for i := range names {
		name := fmt.Sprintf("stress_image_%d.png", i)
		rank := Rank("stresstest", name, nodeIDs(3))
		sh := Shard("stresstest", name, shards)
		orders[fmt.Sprint(rank)]++
		first[Rank("stresstest", name, nodeIDs(7))[0]-1]++
		shard[sh]++
		both[sh*3+int(rank[0])-1]++
	}
	var perm []int
	for _, n := range orders {
		perm = append(perm, n)
	}
	// Chance exceeds these limits once in a thousand. The names are fixed, so the result is too.
	for _, c := range []struct {
		what   string
		counts []int
		limit  float64
	}{
		{"orders of 3 nodes", perm, 20.5},
		{"first of 7 nodes", first[:], 22.5},
		{"shards", shard[:], 31.3},
		{"shard and first node together", both[:], 66.6},
	} {
		chi := chiSquare(c.counts)
		t.Logf("%s: chi-square %.1f with %d degrees of freedom", c.what, chi, len(c.counts)-1)
		if chi > c.limit || chi == 0 {
			t.Errorf("%s are not uniform: chi-square %.1f, limit %.1f: %v", c.what, chi, c.limit, c.counts)
		}
	}
	if len(perm) != 6 {
		t.Errorf("%d of 6 orders seen", len(perm))
	}
}

// TestHashesStay: the shard that keeps a record must never change, or a running cluster loses it.
func TestHashesStay(t *testing.T) {
	for _, c := range []struct {
		user, name string
		shard      int
		rank       []image.NodeID
	}{
		{"alice", "photo.png", 9, []image.NodeID{1, 2, 5, 3, 4}},
		{"stresstest", "stress_image_1.png", 7, []image.NodeID{5, 2, 1, 4, 3}},
		{"a", "b/c", 4, []image.NodeID{3, 4, 1, 5, 2}},
		{"", "", 10, []image.NodeID{1, 4, 3, 5, 2}},
	} {
		s := Shard(c.user, c.name, 12)
		r := Rank(c.user, c.name, nodeIDs(5))
		if s != c.shard || !slices.Equal(r, c.rank) {
			t.Errorf("%s/%s: shard %d, rank %v; they were %d and %v", c.user, c.name, s, r, c.shard, c.rank)
		}
	}
}

func TestUserAndNameAreSeparated(t *testing.T) {
	if imageKey("ab", "c") == imageKey("a", "bc") {
		t.Error("ab/c and a/bc hash alike")
	}
}

// TestRankWithoutANode: without a node the others keep their order.
func TestRankWithoutANode(t *testing.T) {
	for i := range 200 {
		name := fmt.Sprint(i)
		all := Rank("u", name, nodeIDs(7))
		removed := image.NodeID(i%7 + 1)
		left := slices.DeleteFunc(nodeIDs(7), func(n image.NodeID) bool { return n == removed })
		want := slices.DeleteFunc(all, func(n image.NodeID) bool { return n == removed })
		if got := Rank("u", name, left); !slices.Equal(got, want) {
			t.Fatalf("without node %d: %v, want %v", removed, got, want)
		}
	}
}

func TestShardEdges(t *testing.T) {
	for _, shards := range []int{-1, 0, 1} {
		if s := Shard("u", "n", shards); s != 0 {
			t.Errorf("shard %d of %d", s, shards)
		}
	}
}

func TestEmptyClusterFollowsTheRank(t *testing.T) {
	for i := range 100 {
		name := fmt.Sprint(i)
		order, err := Place("u", name, 1000, sim{nodes: 5}.empty(), 2)
		if err != nil || !slices.Equal(order, Rank("u", name, nodeIDs(5))) {
			t.Fatalf("%v, %v", order, err)
		}
	}
}

func TestNodeThatIsFarBehindIsTaken(t *testing.T) {
	table := sim{nodes: 3}.empty()
	for i := range table {
		table[i].Owned = Load{1000, 1e9}
	}
	table[1].Owned = Load{500, 5e8}
	for i := range 100 {
		order, err := Place("u", fmt.Sprint(i), 1e6, table, 2)
		if err != nil || order[0] != 2 {
			t.Fatalf("image %d goes to %v, %v", i, order, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	three := sim{nodes: 3}.empty()
	for _, c := range []struct {
		name     string
		size     int64
		nodes    []Candidate
		replicas int
		want     image.Kind
	}{
		{"no nodes", 1, nil, 2, image.KindNoQuorum},
		{"negative size", -1, three, 2, image.KindInvalid},
		{"no replicas", 1, three, 0, image.KindInternal},
		{"a node twice", 1, append(slices.Clone(three), Candidate{ID: 2}), 2, image.KindInternal},
		{"too many nodes", 1, sim{nodes: candidatesMax + 1}.empty(), 2, image.KindInternal},
	} {
		order, err := Place("u", "n", c.size, c.nodes, c.replicas)
		var e *image.Error
		if order != nil || !errors.As(err, &e) || e.Kind != c.want || e.Hint() == "" {
			t.Errorf("%s: %v, %v", c.name, order, err)
		}
	}
}

func FuzzPlace(f *testing.F) {
	f.Add("alice", "photo.png", int64(5_000_000), uint64(1), 3, 2, int64(1000))
	f.Add("u", "", int64(0), uint64(2), 1, 1, int64(0))
	f.Add("u", "n", int64(math.MaxInt64), uint64(3), 7, 9, int64(math.MaxInt64))
	f.Add("u", "n", int64(1), uint64(4), 64, 3, int64(-5))
	f.Fuzz(func(
		t *testing.T, user, name string, size int64, seed uint64, count, replicas int, loadMax int64,
	) {
		if count < 1 || count > candidatesMax || replicas < 1 || size < 0 {
			return
		}
		dice := rand.New(rand.NewPCG(seed, 0))
		table := randomTable(dice, count, loadMax)
		before := slices.Clone(table)
		order, err := Place(user, name, size, table, replicas)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(table, before) {
			t.Fatal("the table was changed")
		}
		sorted := slices.Sorted(slices.Values(order))
		if !slices.Equal(sorted, nodeIDs(count)) {
			t.Fatalf("%v is not an order of %d nodes", order, count)
		}
		dice.Shuffle(count, func(i, j int) { table[i], table[j] = table[j], table[i] })
		if again, err := Place(user, name, size, table, replicas); err != nil || !slices.Equal(again, order) {
			t.Fatalf("shuffled: %v, %v; before: %v", again, err, order)
		}
		expectBounded(t, before, size, order[0])
		rank := slices.DeleteFunc(Rank(user, name, nodeIDs(count)), func(n image.NodeID) bool {
			return slices.Contains(order[:min(replicas, count)], n)
		})
		if !slices.Equal(order[min(replicas, count):], rank) {
			t.Fatalf("the standbys %v are not in rank order %v", order, rank)
		}
	})
}

func randomTable(dice *rand.Rand, count int, loadMax int64) []Candidate {
	table := sim{nodes: count}.empty()
	load := func() Load { return Load{dice.Int64N(1000), dice.Int64N(max(loadMax, 1))} }
	for i := range table {
		table[i].Owned = load()
		table[i].Stored = load()
		table[i].Others = load()
	}
	if loadMax < 0 { // a corrupt count
		table[0].Owned = Load{loadMax, loadMax}
	}
	return table
}

// expectBounded expects that the image does not move the owner away from the mean. It computes the drift in
// another way than table does.
func expectBounded(t *testing.T, table []Candidate, size int64, owner image.NodeID) {
	t.Helper()
	var images, bytes, all, allBytes, scale float64
	var own point
	for _, c := range table {
		l := ownedLoad(c)
		images += l.images
		bytes += l.bytes
		all += float64(c.Owned.Images)
		allBytes += float64(c.Owned.Bytes)
		scale = max(scale, math.Abs(l.images), math.Abs(l.bytes))
		if c.ID == owner {
			own = l
		}
	}
	average := max(1, (allBytes+float64(size))/max(1, all+1))
	n := float64(len(table))
	drift := (own.images*n-images)*average*average + float64(size)*(own.bytes*n-bytes)
	rounding := 1e-9 * (scale + 1) * n * (average*average + float64(size) + 1)
	if drift > rounding {
		t.Fatalf("owner %d drifts by %g, rounding is %g", owner, drift, rounding)
	}
}

func BenchmarkPlace(b *testing.B) {
	for _, n := range []int{3, 7, 64} {
		b.Run(fmt.Sprintf("%d nodes", n), func(b *testing.B) {
			table := randomTable(rand.New(rand.NewPCG(1, 1)), n, 1e9)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Place("stresstest", "stress_image_17.png", 1e7, table, 2); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRank ranks more nodes than Place takes: what the hash itself costs.
func BenchmarkRank(b *testing.B) {
	for _, n := range []int{3, 64, 1000} {
		b.Run(fmt.Sprintf("%d nodes", n), func(b *testing.B) {
			nodes := make([]image.NodeID, n)
			for i := range nodes {
				nodes[i] = image.NodeID(i + 1)
			}
			for b.Loop() {
				Rank("stresstest", "stress_image_17.png", nodes)
			}
		})
	}
}

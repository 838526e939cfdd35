package report

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"imgcluster/modes/runlog"
	"imgcluster/modes/runlog/logtest"
	"imgcluster/modes/term"
)

// The upper tail of the chi-square distribution: the percentage points are those of the table in
// Abramowitz and Stegun (26.8); the others follow from closed forms, Q(1, x) = exp(-x) and
// Q(1/2, x) = erfc(sqrt(x)).
func TestGammaQ(t *testing.T) {
	for _, c := range []struct{ df, x, want, tolerance float64 }{
		{1, 3.84146, 0.05, 1e-6},
		{2, 5.99146, 0.05, 1e-6},
		{2, 9.21034, 0.01, 1e-7},
		{4, 13.2767, 0.01, 1e-6},
		{10, 18.3070, 0.05, 1e-6},
		{10, 3.94030, 0.95, 1e-6},
		{30, 50.8922, 0.01, 1e-6},
		{100, 124.342, 0.05, 1e-5},
		{2, 0, 1, 0},
		{2, 3, math.Exp(-1.5), 1e-13},
		{2, 100, math.Exp(-50), 1e-30},
		{1, 1, math.Erfc(math.Sqrt(0.5)), 1e-13},
		{1, 20, math.Erfc(math.Sqrt(10)), 1e-15},
		{1023, 1e9, 0, 0},
	} {
		if got := gammaQ(c.df/2, c.x/2); math.Abs(got-c.want) > c.tolerance || math.IsNaN(got) {
			t.Errorf("%v degrees of freedom, %v: %.12f, want %.12f", c.df, c.x, got, c.want)
		}
	}
}

// TestGammaQMeets compares both sides of the place where the series gives way to the fraction.
func TestGammaQMeets(t *testing.T) {
	for a := 0.5; a <= runlog.NodesMax/2; a += 0.5 {
		below, above := gammaQ(a, math.Nextafter(a+1, 0)), gammaQ(a, a+1)
		if math.Abs(below-above) > 1e-11 {
			t.Errorf("a = %v: %v below, %v above", a, below, above)
		}
	}
}

func TestChiSquareP(t *testing.T) {
	for _, c := range []struct {
		counts []int64
		want   float64
	}{
		{nil, 1},
		{[]int64{5}, 1},
		{[]int64{0, 0, 0}, 1},
		{[]int64{500, 500, 500}, 1},
		{[]int64{520, 490, 490}, math.Exp(-0.6)}, // chi-square 1.2 with 2 degrees of freedom
		{[]int64{60, 40}, math.Erfc(math.Sqrt2)}, // chi-square 4 with 1
		{[]int64{1000, 0, 0}, math.Exp(-1000)},
	} {
		if got := chiSquareP(c.counts); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("%v: %v, want %v", c.counts, got, c.want)
		}
	}
}

func TestQuantile(t *testing.T) {
	v := []float64{15, 20, 35, 40, 50} // the usual example of nearest rank
	for _, c := range []struct{ q, want float64 }{
		{0, 15},
		{0.05, 15},
		{0.3, 20},
		{0.4, 20},
		{0.5, 35},
		{0.99, 50},
		{1, 50},
	} {
		if got := quantile(v, c.q); got != c.want {
			t.Errorf("quantile %v is %v, want %v", c.q, got, c.want)
		}
	}
	if got := quantile(nil, 0.5); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
}

// TestQuantileDefinition checks the definition itself on random values: at least q of them are not
// larger, and of the next smaller one that is not true.
func TestQuantileDefinition(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		v := make([]float64, 1+rnd.IntN(300))
		for i := range v {
			v[i] = float64(rnd.IntN(50))
		}
		slices.Sort(v)
		q := rnd.Float64()
		got, notLarger, smaller := quantile(v, q), 0.0, 0.0
		for _, x := range v {
			if x <= got {
				notLarger++
			}
			if x < got {
				smaller++
			}
		}
		n := float64(len(v))
		if notLarger/n < q || smaller/n >= q {
			t.Fatalf("quantile %v of %v is %v", q, v, got)
		}
	}
}

func TestStddev(t *testing.T) {
	if got := stddev([]float64{2, 4, 4, 4, 5, 5, 7, 9}); got != 2 {
		t.Errorf("%v, want 2: that of a population, not of a sample", got)
	}
	if got := stddev(nil); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
}

// TestMannWhitney compares with figures worked out by hand: of five values that are all below five others U
// is 0, its mean 12.5 and its variance 25*11/12.
func TestMannWhitney(t *testing.T) {
	low, high := []float64{1, 5, 2, 4, 3}, []float64{6, 10, 7, 9, 8}
	want := 2 * normalTail(12/math.Sqrt(25.0*11/12))
	if got := mannWhitney(low, high); math.Abs(got-want) > 1e-12 {
		t.Errorf("p = %v, want %v", got, want)
	}
	if a, b := mannWhitney(low, high), mannWhitney(high, low); a != b {
		t.Errorf("%v one way, %v the other", a, b)
	}
	if got := mannWhitney(low, low); got != 1 {
		t.Errorf("p = %v of the same", got)
	}
	if got := mannWhitney([]float64{2, 2, 2}, []float64{2, 2}); got != 1 {
		t.Errorf("p = %v of nothing but ties", got)
	}
	if got := mannWhitney(nil, high); got != 1 {
		t.Errorf("p = %v against nothing", got)
	}
	even := mannWhitney(low, high)
	drifting := mannWhitney([]float64{1, 2, 3, 4, 5}, []float64{6, 7, 8, 9, 10})
	if drifting <= even {
		t.Errorf("p = %v for values like their neighbours, %v for others", drifting, even)
	}
}

// TestMannWhitneyHoldsItsLevel compares samples of one distribution, and of two.
func TestMannWhitneyHoldsItsLevel(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 5))
	sample := func(shift, like float64) []float64 {
		v, at := make([]float64, 80), 0.0
		for i := range v {
			at = like*at + rnd.NormFloat64()
			v[i] = math.Round(4 * (at + shift)) // with ties
		}
		return v
	}
	for _, c := range []struct {
		shift, like float64
		least, most int
	}{{0, 0, 0, 15}, {0, 0.6, 0, 25}, {1, 0, 395, 400}} {
		found := 0
		for range 400 {
			if mannWhitney(sample(0, c.like), sample(c.shift, c.like)) < compareAlpha {
				found++
			}
		}
		if found < c.least || found > c.most {
			t.Errorf("shifted by %v, alike by %v: %d of 400 differ", c.shift, c.like, found)
		}
	}
}

// The grades of the design, which many images have exactly.
func TestGrade(t *testing.T) {
	for _, images := range []int64{0, 137, 1500} {
		for _, c := range []struct {
			stddev float64
			want   string
		}{
			{0, "excellent"},
			{0.999, "excellent"},
			{1, "very good"},
			{1.999, "very good"},
			{2, "good"},
			{4.999, "good"},
			{5, "poor"},
			{47, "poor"},
		} {
			a := allowance(images, 3)
			if got := a.grade(c.stddev); got != c.want || a.words(got) != got {
				t.Errorf("%v of %d images: %s, want %s", c.stddev, images, a.words(got), c.want)
			}
		}
	}
}

// TestGradeOfFew grades shares of few images by what whole images, and placement, allow.
func TestGradeOfFew(t *testing.T) {
	for _, c := range []struct {
		owned []int64
		want  string
	}{
		{[]int64{10, 10, 10}, "excellent for 30 images (up to 7.50 % is normal for so few)"},
		{[]int64{11, 10, 9}, "excellent for 30 images (up to 7.50 % is normal for so few)"},
		{[]int64{12, 10, 8}, "very good for 30 images (up to 7.50 % is normal for so few)"},
		{[]int64{13, 9, 8}, "good for 30 images (up to 7.50 % is normal for so few)"},
		{[]int64{13, 10, 7}, "poor for 30 images (up to 7.50 % is normal for so few)"},
		{[]int64{15, 10, 5}, "poor for 30 images (up to 7.50 % is normal for so few)"},
		{[]int64{15, 15, 0}, "poor for 30 images (up to 7.50 % is normal for so few)"},
		{[]int64{30, 0, 0}, "poor for 30 images (up to 7.50 % is normal for so few)"},
		{[]int64{35, 33, 32}, "excellent for 100 images (up to 2.25 % is normal for so few)"},
		{[]int64{41, 30, 29}, "poor for 100 images (up to 2.25 % is normal for so few)"},
		{[]int64{1, 0, 0}, "excellent for 1 image (up to 100.00 % is normal for so few)"},
		{[]int64{1, 1, 0}, "excellent for 2 images (up to 50.00 % is normal for so few)"},
		{[]int64{3, 0, 0}, "poor for 3 images (up to 33.33 % is normal for so few)"},
		{[]int64{2, 2, 1}, "excellent for 5 images (up to 20.00 % is normal for so few)"},
		{[]int64{3, 3, 0}, "poor for 6 images (up to 16.67 % is normal for so few)"},
		{[]int64{4, 1, 1}, "poor for 6 images (up to 16.67 % is normal for so few)"},
		{[]int64{20}, "excellent"},
	} {
		recs := []runlog.Record{logtest.SetRun([]runlog.Record{logtest.EvenRun(0)}, func(r *runlog.Run) {
			r.Nodes = r.Nodes[:len(c.owned)]
		})[0]}
		for node, n := range c.owned {
			for range n {
				u := logtest.EvenUpload(int64(len(recs)))
				u.Owner = node + 1
				recs = append(recs, u)
			}
		}
		if got := compute(t, recs...).Balance; got.Words != c.want || !strings.HasPrefix(got.Words, got.Grade) {
			t.Errorf("%v, %.2f %%: %s, %q; want %q", c.owned, got.StddevPercent, got.Grade, got.Words, c.want)
		}
	}
}

// TestGradeKeepsToBounds holds what the grades of any number of images on any number of nodes go by: the most
// even shares are excellent, all on one node is poor, and the design's grades are the least that any share
// gets.
func TestGradeKeepsToBounds(t *testing.T) {
	order := []string{"excellent", "very good", "good", "poor"}
	for nodes := 2; nodes <= 9; nodes++ {
		for images := int64(1); images <= 400; images++ {
			a := allowance(images, nodes)
			even, one := make([]float64, nodes), make([]float64, nodes)
			one[0] = 100
			for i := range images {
				even[i%int64(nodes)] += 100 / float64(images)
			}
			if got := stddev(even); math.Abs(got-a.Least) > 1e-9 || a.grade(got) != "excellent" {
				t.Fatalf("%d images, %d nodes: even is %v, least %v, %s", images, nodes, got, a.Least, a.grade(got))
			}
			if got := a.grade(stddev(one)); images >= 3*int64(nodes) && got != "poor" {
				t.Fatalf("%d images, %d nodes, all on one: %s", images, nodes, got)
			}
			for _, s := range []float64{0, 0.9, 1.5, 3, 4.9, 5, 20, 60} {
				few, many := a.grade(s), allowance(0, nodes).grade(s)
				if slices.Index(order, few) > slices.Index(order, many) {
					t.Fatalf("%d images, %d nodes, %v: %s, %s of many", images, nodes, s, few, many)
				}
			}
		}
	}
}

func TestUnits(t *testing.T) {
	for _, c := range []struct {
		bytes int64
		want  string
	}{
		{0, "0 B"},
		{999, "999 B"},
		{1000, "1.00 kB"},
		{9_994_999, "9.99 MB"},
		{9_995_000, "10.0 MB"},
		{99_960_000, "100 MB"},
		{999_499_999, "999 MB"},
		{999_500_000, "1.00 GB"},
		{6_612_345_678, "6.61 GB"},
		{math.MaxInt64, "9.22 EB"},
	} {
		if got := term.Bytes(c.bytes); got != c.want {
			t.Errorf("%d: %s, want %s", c.bytes, got, c.want)
		}
	}
}

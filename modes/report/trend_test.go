package report

import (
	"math"
	"math/rand/v2"
	"testing"
)

func line(values ...float64) (points []Point) {
	for i, v := range values {
		points = append(points, Point{float64(i), v})
	}
	return points
}

// TestTrendByHand compares with figures worked out by hand: of ten values that only fall, Kendall's S is -45
// and its variance 125, so that z is -44/sqrt(125).
func TestTrendByHand(t *testing.T) {
	got, ok := findTrend(line(20, 18, 16, 14, 12, 10, 8, 6, 4, 2))
	if want := normalTail(44 / math.Sqrt(125)); !ok || got.slope != -2 || got.low != -2 || got.high != -2 ||
		math.Abs(got.pFalling-want) > 1e-12 {
		t.Errorf("%+v, want a slope of -2 and p = %v", got, want)
	}
	if got.seconds != 9 || got.level != 11 {
		t.Errorf("%+v, want 9 seconds and a level of 11", got)
	}
	if up, _ := findTrend(line(1, 2, 3, 4, 5, 6, 7, 8, 9, 10)); up.slope != 1 || up.pFalling != 1 {
		t.Errorf("%+v of a line that rises", up)
	}
	if _, ok := findTrend(line(1, 2, 3)); ok {
		t.Error("three points have a trend")
	}
	if _, ok := findTrend(make([]Point, 30)); ok {
		t.Error("points of one moment have a trend")
	}
	if got := kendallVariance([]float64{1, 1, 2}); math.Abs(got-48.0/18) > 1e-12 {
		t.Errorf("variance %v, want 48/18", got)
	}
}

// TestTrendHoldsItsLevel looks for a fall where there is none: in noise, and in noise that is like its
// neighbours, of which the uncorrected test would find one several times too often.
func TestTrendHoldsItsLevel(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 9))
	const runs, n = 400, 60
	for _, like := range []float64{0, 0.3, 0.6} {
		found, covered := 0, 0
		for range runs {
			v, at := make([]float64, n), 0.0
			for i := range v {
				at = like*at + rnd.NormFloat64()
				v[i] = 100 + at
			}
			tr, ok := findTrend(line(v...))
			if ok && tr.pFalling < fallingPMax {
				found++
			}
			if tr.low <= 0 && tr.high >= 0 {
				covered++
			}
		}
		if found > runs*4/100 || covered < runs*85/100 {
			t.Errorf("alike by %v: %d of %d fall, %d intervals hold the slope 0", like, found, runs, covered)
		}
	}
}

func TestTrendFindsAFall(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	found := 0
	for range 100 {
		slowly, once := make([]float64, 60), make([]float64, 60)
		for i := range slowly {
			slowly[i] = 100 - 40*float64(i)/60 + 10*rnd.NormFloat64()
			once[i] = 100 + 10*rnd.NormFloat64()
			if i >= 30 {
				once[i] -= 50
			}
		}
		for _, v := range [][]float64{slowly, once} {
			if tr, _ := findTrend(line(v...)); tr.pFalling < fallingPMax && tr.high < 0 {
				found++
			}
		}
	}
	if found < 198 {
		t.Errorf("%d of 200 falls found", found)
	}
}

func TestThin(t *testing.T) {
	if got := thin(line(1, 3, 5, 7, 9), 2); len(got) != 2 || got[0] != (Point{1, 3}) ||
		got[1] != (Point{3.5, 8}) {
		t.Errorf("%v", got)
	}
	long := make([]Point, 100_001)
	if got := thin(long, trendPointsMax); len(got) > trendPointsMax {
		t.Errorf("%d points", len(got))
	}
}

package report

import (
	"cmp"
	"math"
	"slices"
)

// Point is a value at a time.
type Point struct{ T, V float64 }

// trend is a straight line through points, with what is known of its slope.
type trend struct {
	slope     float64 // of V by T
	low, high float64 // of the slope's 95 % confidence interval
	pFalling  float64 // probability of a fall at least as clear when there is none
	seconds   float64 // from the first point to the last
	level     float64 // mean of V
}

const (
	trendPointsMax = 240 // of a trend; more are put together
	trendPointsMin = 10
	z95            = 1.959964 // of the normal distribution, both tails 5 %
)

// findTrend is the one test for a trend, of points in order of time: that of Mann and Kendall (Kendall, Rank
// Correlation Methods, 1975) on Kendall's S, the sum of the signs of all pairs. How large the trend is comes
// from the same pairs: the median of their slopes, with the confidence interval that S gives (Sen, Journal of
// the American Statistical Association 63, 1968). Both need one correction, by the effective sample size (Yue
// and Wang, Water Resources Management 18, 2004): neighbours are alike in throughput as in memory, and
// without it a fall is found where there is none several times too often. False when there are too few
// points.
func findTrend(points []Point) (trend, bool) {
	points = thin(points, trendPointsMax)
	n := len(points)
	if n < trendPointsMin {
		return trend{}, false
	}
	var s float64
	slopes := make([]float64, 0, n*(n-1)/2)
	for i, a := range points {
		for _, b := range points[i+1:] {
			s += float64(cmp.Compare(b.V, a.V))
			if b.T > a.T {
				slopes = append(slopes, (b.V-a.V)/(b.T-a.T))
			}
		}
	}
	if len(slopes) == 0 {
		return trend{}, false
	}
	slices.Sort(slopes)
	pairs := len(slopes)
	values := make([]float64, n)
	for i, p := range points {
		values[i] = p.V
	}
	t := trend{
		slope:    (slopes[(pairs-1)/2] + slopes[pairs/2]) / 2,
		pFalling: 1,
		seconds:  points[n-1].T - points[0].T,
		level:    mean(values),
	}
	deviation := math.Sqrt(kendallVariance(values) * varianceFactor(autocorrelation(withoutLevel(values))))
	at := func(rank float64) float64 { return slopes[min(max(int(rank), 0), pairs-1)] }
	t.low = at(math.Floor((float64(pairs)-z95*deviation)/2) - 1)
	t.high = at(math.Ceil((float64(pairs) + z95*deviation) / 2))
	if deviation > 0 && s < 0 {
		t.pFalling = normalTail((-s - 1) / deviation)
	}
	return t, true
}

// thin puts neighbours together until there are at most most points: their mean, in the middle of their time.
func thin(points []Point, most int) []Point {
	group := (len(points) + most - 1) / most
	if group <= 1 {
		return points
	}
	var out []Point
	for part := range slices.Chunk(points, group) {
		var sum Point
		for _, p := range part {
			sum.T += p.T
			sum.V += p.V
		}
		n := float64(len(part))
		out = append(out, Point{sum.T / n, sum.V / n})
	}
	return out
}

// kendallVariance is the variance of Kendall's S without a trend, ties taken into account.
func kendallVariance(values []float64) float64 {
	term := func(n float64) float64 { return n * (n - 1) * (2*n + 5) }
	v := term(float64(len(values)))
	for _, ties := range tieCounts(values) {
		v -= term(ties)
	}
	return v / 18
}

// levelWindow is the share of all values of which the median is the level around a value.
const levelWindow = 1.0 / 3

// withoutLevel returns by how much each value differs from the level around it. That level is a running
// median and not a straight line, so that a throughput that falls at once is not taken for noise that is like
// its neighbours.
func withoutLevel(values []float64) []float64 {
	rest := make([]float64, len(values))
	half := max(int(float64(len(values))*levelWindow/2), 1)
	for i, v := range values {
		rest[i] = v - median(values[max(0, i-half):min(len(values), i+half+1)])
	}
	return rest
}

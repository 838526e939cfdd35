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
	slope    float64 // of v by t
	low      float64 // of the slope's 95 % confidence interval
	high     float64
	pFalling float64 // probability of a fall at least as clear when there is none
	span     float64 // from the first point to the last
	level    float64 // mean of v
}

const (
	trendPointsMax = 240 // of a trend; more are put together
	trendPointsMin = 10
	z95            = 1.959964 // of the normal distribution, both tails 5 %
)

// findTrend is the one test for a trend, of points in order of time: that of Mann and Kendall (Kendall, Rank
// Correlation Methods, 1975) on Kendall's S, the sum of the signs of all pairs. How large the trend is comes from
// the same pairs: the median of their slopes, with the confidence interval that S gives (Sen, Journal of the
// American Statistical Association 63, 1968). Both need one correction, of the variance of S for autocorrelation
// (Hamed and Rao, Journal of Hydrology 204, 1998): neighbours are alike in throughput as in memory, and without it
// a fall is found where there is none several times too often. False when there are too few points.
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
	values := make([]float64, n)
	for i, p := range points {
		values[i] = p.V
	}
	t := trend{slope: middle(slopes), span: points[n-1].T - points[0].T, level: mean(values)}
	deviation := math.Sqrt(kendallVariance(values) * autocorrelationFactor(values))
	c := z95 * deviation
	pairs := float64(len(slopes))
	at := func(rank float64) float64 { return slopes[min(max(int(rank), 0), len(slopes)-1)] }
	t.low, t.high = at(math.Floor((pairs-c)/2)-1), at(math.Ceil((pairs+c)/2))
	t.pFalling = 1
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

// middle returns the median of sorted values: of an even number the mean of the two in the middle.
func middle(sorted []float64) float64 {
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
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

// tieCounts returns how often each value occurs that occurs more than once.
func tieCounts(values []float64) (counts []float64) {
	sorted := slices.Sorted(slices.Values(values))
	for i := 0; i < len(sorted); {
		end := i + 1
		for end < len(sorted) && sorted[end] == sorted[i] {
			end++
		}
		if end-i > 1 {
			counts = append(counts, float64(end-i))
		}
		i = end
	}
	return counts
}

// smoothWindow is the share of all points of which the median is taken as the level around a point.
const smoothWindow = 1.0 / 3

// autocorrelationFactor returns how much wider the variance of Kendall's S is because neighbours are
// alike (Hamed and Rao, equation 16), from the ranks of what the level around each point leaves, at all lags
// before the first at which they are not alike (Geyer, Statistical Science 7, 1992). The level is a running
// median and not a straight line, so that a throughput that falls at once is not taken for noise that
// is like its neighbours. It is never below 1.
func autocorrelationFactor(values []float64) float64 {
	rest := make([]float64, len(values))
	half := max(int(float64(len(values))*smoothWindow/2), 1)
	for i, v := range values {
		rest[i] = v - median(values[max(0, i-half):min(len(values), i+half+1)])
	}
	n, sum := float64(len(values)), 0.0
	r := ranks(rest)
	for lag := 1; lag <= len(values)/4; lag++ {
		rho := autocorrelation(r, lag)
		if rho <= 0 {
			break
		}
		i := float64(lag)
		sum += (n - i) * (n - i - 1) * (n - i - 2) * rho
	}
	return max(1, 1+2*sum/(n*(n-1)*(n-2)))
}

// autocorrelation is that of values with themselves lag later; 0 when they do not vary.
func autocorrelation(values []float64, lag int) float64 {
	m := mean(values)
	var with, all float64
	for i, v := range values {
		all += (v - m) * (v - m)
		if i+lag < len(values) {
			with += (v - m) * (values[i+lag] - m)
		}
	}
	if all == 0 {
		return 0
	}
	return with / all
}

// ranks returns each value's place in order, from 1; equal values share the mean of theirs.
func ranks(values []float64) []float64 {
	order := make([]int, len(values))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(values[a], values[b]) })
	r := make([]float64, len(values))
	for i := 0; i < len(order); {
		end := i + 1
		for end < len(order) && values[order[end]] == values[order[i]] {
			end++
		}
		for _, at := range order[i:end] {
			r[at] = float64(i+1+end) / 2
		}
		i = end
	}
	return r
}

// normalTail is the probability that a standard normal variable exceeds z.
func normalTail(z float64) float64 { return math.Erfc(z/math.Sqrt2) / 2 }

// mannWhitney returns the probability that two samples differ at least so much when both come from
// one distribution: the U test (Mann and Whitney, Annals of Mathematical Statistics 18, 1947),
// two-sided, by its normal approximation with ties. Samples in order of time are often alike to their
// neighbours; the variance is widened by (1+r)/(1-r), r being the mean of their autocorrelations at lag 1
// (Bayley and Hammersley, Supplement to the Journal of the Royal Statistical Society 8, 1946).
// It is 1 when there is nothing to compare.
func mannWhitney(a, b []float64) float64 {
	n1, n2 := float64(len(a)), float64(len(b))
	if len(a) == 0 || len(b) == 0 {
		return 1
	}
	all := append(slices.Clone(a), b...)
	sum := 0.0
	for _, r := range ranks(all)[:len(a)] {
		sum += r
	}
	n := n1 + n2
	ties := 0.0
	for _, t := range tieCounts(all) {
		ties += t*t*t - t
	}
	variance := n1 * n2 / 12 * (n + 1 - ties/(n*(n-1)))
	r := min(max(0, (autocorrelation(a, 1)+autocorrelation(b, 1))/2), 0.99)
	variance *= (1 + r) / (1 - r)
	if variance <= 0 {
		return 1
	}
	u := sum - n1*(n1+1)/2
	z := max(0, math.Abs(u-n1*n2/2)-0.5) / math.Sqrt(variance)
	return min(1, 2*normalTail(z))
}

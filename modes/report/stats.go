package report

import (
	"cmp"
	"math"
	"slices"
)

// quantile returns the q-quantile of sorted by nearest rank: the smallest value that at least the share q of
// all values does not exceed. It is exact, and always one of the values; 0 without values.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(q * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

func mean(v []float64) float64 {
	sum := 0.0
	for _, x := range v {
		sum += x
	}
	return ratio(sum, float64(len(v)))
}

func median(v []float64) float64 { return quantile(slices.Sorted(slices.Values(v)), 0.5) }

// stddev returns the standard deviation of v as a whole population.
func stddev(v []float64) float64 {
	m, sum := mean(v), 0.0
	for _, x := range v {
		sum += (x - m) * (x - m)
	}
	return math.Sqrt(ratio(sum, float64(len(v))))
}

// ratioMin is the smallest divisor that gives a figure: a microsecond, the log's resolution.
const ratioMin = 1e-6

// ratio returns a/b, and 0 where b is too small for that to mean something.
func ratio(a, b float64) float64 {
	if b < ratioMin {
		return 0
	}
	return a / b
}

// normalTail is the probability that a standard normal variable exceeds z.
func normalTail(z float64) float64 { return math.Erfc(z/math.Sqrt2) / 2 }

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

// autocorrelation is that of values with their neighbours, at lag 1; 0 when they do not vary.
func autocorrelation(values []float64) float64 {
	m := mean(values)
	var with, all float64
	for i, v := range values {
		all += (v - m) * (v - m)
		if i > 0 {
			with += (v - m) * (values[i-1] - m)
		}
	}
	if all == 0 {
		return 0
	}
	return with / all
}

// autocorrelationMax limits varianceFactor: values that are even more alike are nearly one value.
const autocorrelationMax = 0.99

// varianceFactor returns how much larger the variance of a statistic is when its values have this
// autocorrelation: the number of values by how many independent ones they are worth (Bayley and Hammersley,
// Supplement to the Journal of the Royal Statistical Society 8, 1946). It is never below 1.
func varianceFactor(autocorrelation float64) float64 {
	r := min(max(0, autocorrelation), autocorrelationMax)
	return (1 + r) / (1 - r)
}

// mannWhitney returns the probability that two samples differ at least so much when both come from one
// distribution: the U test (Mann and Whitney, Annals of Mathematical Statistics 18, 1947), two-sided, by its
// normal approximation with ties. Samples in order of time are often alike to their neighbours, which widens
// the variance. It is 1 when there is nothing to compare.
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
	variance *= varianceFactor((autocorrelation(a) + autocorrelation(b)) / 2)
	if variance <= 0 {
		return 1
	}
	u := sum - n1*(n1+1)/2
	z := max(0, math.Abs(u-n1*n2/2)-0.5) / math.Sqrt(variance)
	return min(1, 2*normalTail(z))
}

// chiSquareP returns the probability that counts at least as uneven as these come from equal chances:
// Pearson's chi-square test with len(counts)-1 degrees of freedom, whose upper tail is Q(df/2, x/2)
// (Abramowitz and Stegun, Handbook of Mathematical Functions, 26.4.19). It is 1 when there is nothing to
// compare.
func chiSquareP(counts []int64) float64 {
	var total int64
	for _, c := range counts {
		total += c
	}
	if total == 0 || len(counts) < 2 {
		return 1
	}
	expected := float64(total) / float64(len(counts))
	x := 0.0
	for _, c := range counts {
		d := float64(c) - expected
		x += d * d / expected
	}
	return gammaQ(float64(len(counts)-1)/2, x/2)
}

const (
	gammaTermsMax = 10_000 // far more than the few hundred that NodesMax nodes need
	gammaEpsilon  = 1e-15
)

// gammaQ returns the regularised upper incomplete gamma function Q(a, x) for a > 0, x >= 0: by the
// series for P (NIST Digital Library of Mathematical Functions, 8.11.4) where that converges
// fast, else by the continued fraction (8.9.2).
func gammaQ(a, x float64) float64 {
	if x <= 0 {
		return 1
	}
	lg, _ := math.Lgamma(a)
	front := math.Exp(-x + a*math.Log(x) - lg)
	if x < a+1 {
		return min(max(1-front*gammaSeries(a, x), 0), 1)
	}
	return min(max(front*gammaFraction(a, x), 0), 1)
}

// gammaSeries is the sum over n of x^n / (a (a+1) ... (a+n)).
func gammaSeries(a, x float64) float64 {
	term := 1 / a
	sum := term
	for n := 1; n < gammaTermsMax && term > sum*gammaEpsilon; n++ {
		term *= x / (a + float64(n))
		sum += term
	}
	return sum
}

// gammaFraction evaluates the continued fraction by the modified method of Lentz (Thompson and
// Barnett, Journal of Computational Physics 64, 1986).
func gammaFraction(a, x float64) float64 {
	const tiny = 1e-300
	b := x + 1 - a
	c := 1 / tiny
	d := 1 / b
	h := d
	for n := 1; n < gammaTermsMax; n++ {
		an := -float64(n) * (float64(n) - a)
		b += 2
		d = an*d + b
		if math.Abs(d) < tiny {
			d = tiny
		}
		c = b + an/c
		if math.Abs(c) < tiny {
			c = tiny
		}
		d = 1 / d
		h *= d * c
		if math.Abs(d*c-1) < gammaEpsilon {
			break
		}
	}
	return h
}

package report

import (
	"math"
	"slices"
)

// quantile returns the q-quantile of sorted by nearest rank: the smallest value that at least the
// share q of all values does not exceed. It is exact, and always a value that occurred; 0 without values.
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

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return quantile(s, 0.5)
}

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

// ratio returns a/b, and 0 where that says nothing.
func ratio(a, b float64) float64 {
	if b < ratioMin {
		return 0
	}
	return a / b
}

// chiSquareP returns the probability that counts at least as uneven as these come from equal
// chances: Pearson's chi-square test with len(counts)-1 degrees of freedom, whose upper tail is
// Q(df/2, x/2) (Abramowitz and Stegun, Handbook of Mathematical Functions, 26.4.19). It is 1 when
// there is nothing to compare.
func chiSquareP(counts []int64) float64 {
	var total int64
	for _, c := range counts {
		total += c
	}
	if total == 0 || len(counts) < 2 {
		return 1
	}
	expected, x := float64(total)/float64(len(counts)), 0.0
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

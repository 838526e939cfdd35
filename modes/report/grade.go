package report

import (
	"fmt"
	"math"

	"imgcluster/modes/term"
)

// Of few images, a grade allows these parts of the way from Allowance.Least to Allowance.Most.
const (
	excellentPart = 0.5
	veryGoodPart  = 0.75
	goodPart      = 1
)

// Allowance is how uneven the shares of a number of images may be, as standard deviations in percentage
// points.
//
// Least is that of the most even shares of whole images: n images on k nodes leave n mod k over.
//
// Most is that of the shares that placement may make (bounded loads: Mirrokni, Thorup, Zadimoghaddam:
// Consistent Hashing with Bounded Loads, 2016): its bound is two images from the mean, kept by several nodes
// that decide at once, which in simulation is 0.14 % of 1500 images at worst, 2.1 of them; promised are 0.15
// %, 2.25. That is too much for fewer than balancePerNodeMin images a node, where it is 1.
type Allowance struct {
	Images int64   `json:"images"`
	Least  float64 `json:"least_stddev_percent"`
	Most   float64 `json:"most_stddev_percent"`
}

func allowance(images int64, nodes int) Allowance {
	a := Allowance{Images: images}
	if images == 0 || nodes < 2 {
		return a
	}
	fromMean := balanceImagesMax
	if images < int64(balancePerNodeMin*nodes) {
		fromMean = balanceFewMax
	}
	k, over := float64(nodes), float64(images%int64(nodes))
	a.Least = 100 * math.Sqrt(over*(k-over)) / k / float64(images)
	a.Most = 100 * fromMean / float64(images)
	return a
}

// part returns Least for 0, Most for 1.
func (a Allowance) part(p float64) float64 { return a.Least + p*(a.Most-a.Least) }

// few reports whether the grades depend on the number of images: on three nodes, below 137.
func (a Allowance) few() bool { return a.part(excellentPart) > 1 }

// grade returns excellent for a standard deviation below 1, very good below 2, good below 5, and else poor.
// Of few images, what they allow is good, three quarters of it very good and half of it excellent.
func (a Allowance) grade(stddevPercent float64) string {
	reaches := func(percent, part float64) bool {
		return stddevPercent < percent || stddevPercent <= a.part(part)+roundingError
	}
	switch {
	case reaches(1, excellentPart):
		return "excellent"
	case reaches(2, veryGoodPart):
		return "very good"
	case reaches(5, goodPart):
		return "good"
	}
	return "poor"
}

const roundingError = 1e-9 // of a percentage

// words returns the grade with the number of images when they are few.
func (a Allowance) words(grade string) string {
	if !a.few() {
		return grade
	}
	return fmt.Sprintf("%s for %s (up to %.2f %% is normal for so few)", grade,
		term.Plural(a.Images, "image"), a.Most)
}

package report

import (
	"fmt"
	"math"

	"imgcluster/modes/term"
)

// Up to how much of what so few images allow each grade goes.
const (
	excellentPart = 0.5
	veryGoodPart  = 0.75
)

// Allowance says how even the shares of so many images can be, as standard deviations in percentage points.
//
// Least is that of the most even shares of whole images: n images on k nodes leave n mod k over.
//
// Most is what placement (bounded loads: Mirrokni, Thorup, Zadimoghaddam: Consistent Hashing with Bounded
// Loads, 2016) may leave: its bound is two images from the mean, decided by several nodes that do not see
// what the others are deciding, which in simulation is 0.14 % of 1500 images at worst, 2.1 of them; promised
// are 0.15 %, 2.25. That is too much of fewer than balancePerNodeMin images a node: of these, 1.
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
	apart, over := balanceImagesMax, float64(images%int64(nodes))
	if images < int64(balancePerNodeMin*nodes) {
		apart = balanceFewMax
	}
	k := float64(nodes)
	a.Least, a.Most = 100*math.Sqrt(over*(k-over))/k/float64(images), 100*apart/float64(images)
	return a
}

// part is Least for 0, Most for 1.
func (a Allowance) part(p float64) float64 { return a.Least + p*(a.Most-a.Least) }

// few reports whether a grade goes by the number of images: on three nodes below 137.
func (a Allowance) few() bool { return a.part(excellentPart) > 1 }

// grade calls a standard deviation below 1 excellent, below 2 very good, below 5 good, and else poor. Of few
// images, what they allow is good, three quarters of it very good and half of it excellent.
func (a Allowance) grade(stddevPercent float64) string {
	reaches := func(percent, part float64) bool {
		return stddevPercent < percent || stddevPercent <= a.part(part)+roundingError
	}
	switch {
	case reaches(1, excellentPart):
		return "excellent"
	case reaches(2, veryGoodPart):
		return "very good"
	case reaches(5, 1):
		return "good"
	}
	return "poor"
}

const roundingError = 1e-9 // of a percentage

// words says of what the grade is, in every form of the report.
func (a Allowance) words(grade string) string {
	if !a.few() {
		return grade
	}
	return fmt.Sprintf("%s for %s (up to %.2f %% is normal for so few)", grade,
		term.Plural(a.Images, "image"), a.Most)
}

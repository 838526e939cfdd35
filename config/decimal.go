package config

import (
	"regexp"
	"strconv"
	"strings"
)

// Decimal is a number with up to three digits behind the point, in thousandths, so that its text is exact.
type Decimal int64

const (
	decimalDigits = 3
	decimalUnit   = 1000
)

var decimalText = regexp.MustCompile(`^[0-9]{1,12}(\.[0-9]{1,3})?$`)

// ParseDecimal reads a number such as 0.15 or 99.
func ParseDecimal(s string) (Decimal, error) {
	if !decimalText.MatchString(s) {
		return 0, faultf("write it in digits, at most three of them behind the point, such as 0.15",
			"%s is not a number", quote(s))
	}
	whole, rest, _ := strings.Cut(s, ".")
	n, err := strconv.ParseInt(whole+rest+strings.Repeat("0", decimalDigits-len(rest)), 10, 64)
	return Decimal(n), err // as many digits as that always fit
}

// Float returns the number.
func (d Decimal) Float() float64 { return float64(d) / decimalUnit }

// String returns the shortest exact text, which ParseDecimal reads back.
func (d Decimal) String() string {
	return strconv.FormatFloat(d.Float(), 'f', -1, 64)
}

// MarshalText implements encoding.TextMarshaler.
func (d Decimal) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Decimal) UnmarshalText(text []byte) (err error) {
	*d, err = ParseDecimal(string(text))
	return err
}

package term

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// Bytes returns a size with three digits, in powers of ten: "13.2 MB".
func Bytes(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	v := float64(n) / 1000
	units := "kMGTPE"
	for v >= 999.5 {
		v /= 1000
		units = units[1:]
	}
	return fmt.Sprintf("%s %cB", Digits3(v), units[0])
}

// MiB returns bytes as a whole number of MiB, without the unit.
func MiB(bytes float64) string { return fmt.Sprintf("%.0f", bytes/(1<<20)) }

// Digits3 returns v, which is not negative, with three digits: at most two after the point, all before it.
func Digits3(v float64) string {
	switch {
	case v < 9.995:
		return fmt.Sprintf("%.2f", v)
	case v < 99.95:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", math.Round(v))
}

// Significant3 returns v, which is not negative, with three significant digits.
func Significant3(v float64) string {
	if v >= 1 {
		return Digits3(v)
	}
	return fmt.Sprintf("%.3g", v)
}

// Percent returns a percentage with three digits: "99.5 %".
func Percent(v float64) string { return Digits3(v) + " %" }

// Seconds returns seconds without the unit, for a table: below 100 to the millisecond.
func Seconds(s float64) string {
	if s < 100 {
		return fmt.Sprintf("%.3f", s)
	}
	return fmt.Sprintf("%.0f", s)
}

// Duration returns seconds with three digits and their unit: "143 ms", "1.52 s".
func Duration(s float64) string {
	if s < 0.9995 {
		return fmt.Sprintf("%.0f ms", s*1000)
	}
	return Digits3(s) + " s"
}

// Clock returns a duration as minutes and seconds, with hours when there are any: "01:30", "1:00:00".
func Clock(d time.Duration) string {
	s := int(d.Seconds() + 0.5)
	if s >= 3600 {
		return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
	}
	return fmt.Sprintf("%02d:%02d", s/60, s%60)
}

// Plural returns a count with its noun: "1 upload", "2 copies".
func Plural[T int | int64](n T, noun string) string {
	stem, y := strings.CutSuffix(noun, "y")
	switch {
	case n == 1:
	case y && !strings.HasSuffix(stem, "a") && !strings.HasSuffix(stem, "e") && !strings.HasSuffix(stem, "o"):
		noun = stem + "ies"
	case strings.HasSuffix(noun, "s"):
		noun += "es"
	default:
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

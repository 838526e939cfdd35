package result

import (
	"fmt"
	"math"
	"strings"
)

// plural returns "1 upload", "2 uploads".
func plural(n int64, what string) string {
	switch {
	case n == 1:
		return fmt.Sprintf("%d %s", n, what)
	case strings.HasSuffix(what, "s"):
		return fmt.Sprintf("%d %ses", n, what)
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func mib(bytes float64) string { return fmt.Sprintf("%.0f", bytes/(1<<20)) }

// size returns bytes in decimal units with three digits.
func size(bytes int64) string {
	v := float64(bytes)
	units := []string{"B", "kB", "MB", "GB", "TB", "PB", "EB"}
	i := 0
	for ; v >= 999.5 && i+1 < len(units); i++ {
		v /= 1000
	}
	if i == 0 {
		return fmt.Sprintf("%d B", bytes)
	}
	return digits3(v) + " " + units[i]
}

// digits3 returns v with three digits, or all those before the point.
func digits3(v float64) string {
	switch {
	case v < 9.995:
		return fmt.Sprintf("%.2f", v)
	case v < 99.95:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", math.Round(v))
}

// significant3 returns v with three significant digits.
func significant3(v float64) string {
	if v >= 1 {
		return digits3(v)
	}
	return fmt.Sprintf("%.3g", v)
}

// seconds returns s to the millisecond where that matters.
func seconds(s float64) string {
	if s < 100 {
		return fmt.Sprintf("%.3f", s)
	}
	return fmt.Sprintf("%.0f", s)
}

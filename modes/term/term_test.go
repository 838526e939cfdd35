package term

import (
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{
		0:              "0 B",
		999:            "999 B",
		1000:           "1.00 kB",
		9994:           "9.99 kB",
		9995:           "10.0 kB",
		99949:          "99.9 kB",
		99950:          "100 kB",
		999_499:        "999 kB",
		999_500:        "1.00 MB",
		13_227_000:     "13.2 MB",
		19_840_000_000: "19.8 GB",
		1e18:           "1.00 EB",
	} {
		if got := Bytes(n); got != want {
			t.Errorf("%d bytes are %q, not %q", n, got, want)
		}
	}
}

func TestTimes(t *testing.T) {
	for s, want := range map[float64]string{
		0:      "0 ms",
		0.1434: "143 ms",
		0.9995: "1.00 s",
		9.996:  "10.0 s",
		100.4:  "100 s",
	} {
		if got := Duration(s); got != want {
			t.Errorf("%g s are %q, not %q", s, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		0:                        "00:00",
		89600 * time.Millisecond: "01:30",
		3661 * time.Second:       "1:01:01",
	} {
		if got := Clock(d); got != want {
			t.Errorf("%v is %q, not %q", d, got, want)
		}
	}
}

func TestPlural(t *testing.T) {
	for noun, want := range map[string]string{
		"upload": "2 uploads",
		"copy":   "2 copies",
		"day":    "2 days",
		"loss":   "2 losses",
	} {
		two := Plural(2, noun)
		one := Plural(int64(1), noun)
		if two != want || one != "1 "+noun {
			t.Errorf("%q, %q", two, one)
		}
	}
}

func TestWrap(t *testing.T) {
	long := Indent("    ", strings.Repeat("wörd ", 40))
	if strings.Count(long, "wörd") != 40 || strings.Count(long, "\n") != 2 {
		t.Errorf("%q", long)
	}
	for line := range strings.Lines(long) {
		if utf8.RuneCountInString(strings.TrimSuffix(line, "\n")) > Width {
			t.Errorf("%q is wide", line)
		}
	}
	for text, want := range map[string]string{
		"":                    "",
		"a  b":                "a  b",
		"it took 12 s":        "it took|12 s",
		"at /a/long/path now": "at|/a/long/path|now",
	} {
		if got := strings.Join(Wrap(text, 9), "|"); got != want {
			t.Errorf("%q becomes %q, not %q", text, got, want)
		}
	}
}

func TestCut(t *testing.T) {
	for width, want := range map[int]string{0: "", 1: "…", 3: "ün…", 4: "ünit"} {
		if got := Cut("ünit", width); got != want {
			t.Errorf("%d columns: %q, not %q", width, got, want)
		}
	}
}

func TestSpark(t *testing.T) {
	if got := Spark([]float64{0, 1, math.NaN(), 4, 8}); got != " ▂ ▅█" {
		t.Errorf("%q", got)
	}
	if got := Spark([]float64{0, 0}); got != "  " {
		t.Errorf("%q of nothing", got)
	}
}

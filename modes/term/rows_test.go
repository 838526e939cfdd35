package term

import (
	"slices"
	"strings"
	"testing"
)

func TestRow(t *testing.T) {
	r := *(&Row{{"a", Plain}}).Add(Red, "b%d", 1).Add(Plain, "  ")
	if got := r.Render(10, false); got != "ab1" {
		t.Errorf("%q", got)
	}
	if got, want := r.Render(2, true), "a"+Styled(Red, "…"); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestEnds(t *testing.T) {
	for width, want := range map[int]string{9: "left   12", 7: "left 12", 6: "le… 12"} {
		if got := Ends("left", "12", Plain, width).Render(width, false); got != want {
			t.Errorf("%d columns: %q, want %q", width, got, want)
		}
	}
}

func TestBar(t *testing.T) {
	for width, want := range map[int]string{12: "████░░░░ 50%", 11: "50%"} {
		if got := Bar(0.5, " 50%", width).Render(width, false); got != want {
			t.Errorf("%d columns: %q, want %q", width, got, want)
		}
	}
}

// Where there is little room, the gaps are left out first, then rows in the order of Drop.
func TestFit(t *testing.T) {
	row := func(text string) Row { return Row{{text, Plain}} }
	blocks := []Block{
		{Rows: []Row{row("a")}},
		{Rows: []Row{row("b"), row("c")}, Drop: 1, Gap: true},
		{Rows: []Row{row("d")}, Drop: 2, Gap: true},
		{Gap: true},
	}
	for lines, want := range []string{"", "a", "a|b", "a|b|c", "a|b|c|d", "a|b|c|d", "a||b|c||d", "a||b|c||d"} {
		if got := strings.Join(Fit(blocks, 80, lines, false), "|"); got != want {
			t.Errorf("%d lines: %q, want %q", lines, got, want)
		}
	}
}

func TestFitHeadings(t *testing.T) {
	headings := []Heading{{"a", 3, 1}, {"b", 3, 3}, {"c", 3, 2}}
	for width, want := range map[int][]int{12: {0, 1, 2}, 11: {0, 2}, 7: {0}, 3: nil} {
		if got := FitHeadings(headings, width); !slices.Equal(got, want) {
			t.Errorf("%d columns: %v, want %v", width, got, want)
		}
	}
}

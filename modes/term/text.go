package term

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Cut returns s in at most width columns, with an ellipsis in place of what is left out. All characters
// that this program writes are one column wide.
func Cut(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	if width < 1 {
		return ""
	}
	return string([]rune(s)[:width-1]) + "…"
}

// Wrap breaks text at blanks into lines of at most width columns. A number stays with the next word,
// which mostly is its unit. A word that is wider has a line of its own, whole, so that it can be copied.
// A text that fits is returned as it is. There is always at least one line.
func Wrap(text string, width int) []string {
	if utf8.RuneCountInString(text) <= width {
		return []string{text}
	}
	var lines []string
	line := ""
	for _, word := range withUnits(strings.Fields(text)) {
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line+" "+word) > width:
			lines = append(lines, line)
			line = word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}

// withUnits joins words that end in a digit with the next one.
func withUnits(words []string) []string {
	joined := words[:0:0]
	for i, word := range words {
		if i > 0 && unicode.IsDigit(rune(words[i-1][len(words[i-1])-1])) {
			joined[len(joined)-1] += " " + word
			continue
		}
		joined = append(joined, word)
	}
	return joined
}

// Indent wraps text to Width, each line behind indent.
func Indent(indent, text string) string {
	return indent + strings.Join(Wrap(text, Width-utf8.RuneCountInString(indent)), "\n"+indent)
}

// List returns numbers with commas between them, the lowest first.
func List[N cmp.Ordered](numbers []N) string {
	var out []string
	for _, n := range slices.Sorted(slices.Values(numbers)) {
		out = append(out, fmt.Sprint(n))
	}
	return strings.Join(out, ", ")
}

// Spark draws a bar of one character for each value, from 0 up to the highest. Zero and NaN are blank.
func Spark(values []float64) string {
	top := 0.0
	for _, v := range values {
		if v > top { // false for NaN
			top = v
		}
	}
	bars := []rune("▁▂▃▄▅▆▇█")
	var out strings.Builder
	for _, v := range values {
		if math.IsNaN(v) || v <= 0 {
			out.WriteByte(' ')
			continue
		}
		out.WriteRune(bars[min(int(v/top*float64(len(bars))), len(bars)-1)])
	}
	return out.String()
}

// Column is one column of a table, all cells of which are padded to the width of the widest.
type Column struct {
	cells []string
	width int
}

// Add appends a cell.
func (c *Column) Add(s string) {
	c.cells = append(c.cells, s)
	c.width = max(c.width, utf8.RuneCountInString(s))
}

// Width returns the width of the widest cell.
func (c *Column) Width() int { return c.width }

// Right returns cell i, aligned to the right.
func (c *Column) Right(i int) string { return fmt.Sprintf("%*s", c.width, c.cells[i]) }

// Left returns cell i, aligned to the left.
func (c *Column) Left(i int) string { return fmt.Sprintf("%-*s", c.width, c.cells[i]) }

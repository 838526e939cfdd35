package term

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"imgcluster/cluster/printable"
)

// Segment is a text in one style.
type Segment struct {
	Text  string
	Style Style
}

// Row is a line of a Screen.
type Row []Segment

// Add appends a segment.
func (r *Row) Add(style Style, format string, args ...any) *Row {
	*r = append(*r, Segment{fmt.Sprintf(format, args...), style})
	return r
}

// Render returns the row cut to width columns, in its styles if color.
func (r Row) Render(width int, color bool) string {
	var out strings.Builder
	for _, s := range r {
		text := Cut(printable.Text(s.Text), width)
		width -= utf8.RuneCountInString(text)
		if color {
			text = Styled(s.Style, text)
		}
		out.WriteString(text)
	}
	return strings.TrimRight(out.String(), " ")
}

// Ends returns a row with a text at each end. Where they do not fit, the left one is cut.
func Ends(left, right string, style Style, width int) Row {
	left = Cut(left, max(width-utf8.RuneCountInString(right)-1, 0))
	gap := max(width-utf8.RuneCountInString(left+right), 1)
	return Row{{left, style}, {strings.Repeat(" ", gap), Plain}, {right, style}}
}

// barMin is the least width of a bar.
const barMin = 8

// Bar returns a row with a bar of which part, from 0 to 1, is filled, and a text after it. Where a bar
// does not fit, the row has the text alone.
func Bar(part float64, text string, width int) Row {
	room := width - utf8.RuneCountInString(text)
	if room < barMin {
		return Row{{strings.TrimLeft(text, " "), Plain}}
	}
	filled := int(part * float64(room))
	return Row{
		{strings.Repeat("█", filled), Green},
		{strings.Repeat("░", room-filled), Dim},
		{text, Plain},
	}
}

// Block is a group of rows on a Screen.
type Block struct {
	Rows []Row
	Drop int  // where blocks do not fit, the one with the highest loses its rows first; 0: it keeps them
	Gap  bool // a blank line before it, where there is room
}

// height returns the lines of blocks, with or without the gaps.
func height(blocks []Block, gaps bool) (lines int) {
	for _, b := range blocks {
		lines += len(b.Rows)
		if b.Gap && gaps && len(b.Rows) > 0 {
			lines++
		}
	}
	return lines
}

// Fit returns the lines of the blocks, at most max of them. What does not fit is left out: first the
// gaps, then rows of the blocks in the order of Drop.
func Fit(blocks []Block, width, max int, color bool) []string {
	gaps := height(blocks, true) <= max
	blocks = slices.Clone(blocks)
	byDrop := func(a, b *Block) int { return b.Drop - a.Drop }
	var order []*Block
	for i := range blocks {
		order = append(order, &blocks[i])
	}
	slices.SortStableFunc(order, byDrop)
	for _, b := range order {
		if over := height(blocks, gaps) - max; over > 0 && b.Drop > 0 {
			b.Rows = b.Rows[:len(b.Rows)-min(over, len(b.Rows))]
		}
	}
	var lines []string
	for _, b := range blocks {
		if b.Gap && gaps && len(b.Rows) > 0 {
			lines = append(lines, "")
		}
		for _, r := range b.Rows {
			lines = append(lines, r.Render(width, color))
		}
	}
	return lines[:min(len(lines), max)]
}

// Heading is the head of a table's column on a Screen.
type Heading struct {
	Text  string
	Width int
	Drop  int // where the columns do not fit, the one with the highest is left out first
}

// FitHeadings returns the indices of the headings that fit width, with a blank before each.
func FitHeadings(headings []Heading, width int) []int {
	shown := make([]int, len(headings))
	need := 0
	for i, h := range headings {
		shown[i] = i
		need += 1 + h.Width
	}
	for need > width && len(shown) > 0 {
		first := slices.MaxFunc(shown, func(a, b int) int { return headings[a].Drop - headings[b].Drop })
		shown = slices.DeleteFunc(shown, func(i int) bool { return i == first })
		need -= 1 + headings[first].Width
	}
	return shown
}

package modes

import (
	"fmt"
	"slices"
	"strings"

	"imgcluster/cluster/image"
)

// columns is the width that the words to the user are made for.
const columns = 80

// formatBytes writes a size for people: three digits, in powers of ten.
func formatBytes(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	v, units := float64(n)/1000, "kMGTPE"
	for v >= 999.5 {
		v, units = v/1000, units[1:]
	}
	decimals := 2
	if v >= 99.95 {
		decimals = 0
	} else if v >= 9.995 {
		decimals = 1
	}
	return fmt.Sprintf("%.*f %cB", decimals, v, units[0])
}

// formatNodes lists node IDs, the lowest first.
func formatNodes(ids []image.NodeID) string {
	ids = slices.Sorted(slices.Values(ids))
	s := make([]string, len(ids))
	for i, id := range ids {
		s[i] = fmt.Sprint(id)
	}
	return strings.Join(s, ", ")
}

// plural writes a count with its noun.
func plural[T int | int64](n T, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// copies writes how many copies there are.
func copies(n int) string {
	if n == 1 {
		return "1 copy"
	}
	return fmt.Sprintf("%d copies", n)
}

// wrap breaks a text into lines of at most columns, each behind indent.
func wrap(indent, text string) string {
	var out strings.Builder
	width := 0
	for word := range strings.FieldsSeq(text) {
		switch {
		case width == 0:
			out.WriteString(indent)
			width = len(indent)
		case width+1+len(word) > columns:
			out.WriteString("\n" + indent)
			width = len(indent)
		default:
			out.WriteByte(' ')
			width++
		}
		out.WriteString(word)
		width += len(word)
	}
	return out.String()
}

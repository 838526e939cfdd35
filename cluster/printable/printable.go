// Package printable shows what others chose, such as names of images and what nodes answer, so that it
// cannot steer a terminal, turn the order of a line around, or hide a part of itself.
package printable

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Text returns s in one line: control characters, invisible ones, those that change the direction of
// writing, and bytes that are not UTF-8 are written out, as JSON writes them: \u202e. A byte that is no
// UTF-8 is \ufffd.
func Text(s string) string {
	if strings.IndexFunc(s, hidden) < 0 && utf8.ValidString(s) {
		return s
	}
	var out strings.Builder
	for _, r := range s {
		if !hidden(r) {
			out.WriteRune(r)
			continue
		}
		for _, unit := range utf16.AppendRune(nil, r) {
			fmt.Fprintf(&out, `\u%04x`, unit)
		}
	}
	return out.String()
}

// hidden finds what has no picture of its own. The blanks of other scripts have one.
func hidden(r rune) bool { return !unicode.IsGraphic(r) || r == utf8.RuneError }

// Lines is Text for each line. Lines after the first are indented, so that none can pass for another
// sentence of this program's.
func Lines(s string) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	for i := range lines {
		lines[i] = Text(lines[i])
	}
	return strings.Join(lines, "\n  ")
}

// Argument writes s so that a shell takes it as one word, and a terminal shows all of it. For what has
// to be written out it takes the form $'...' of bash, zsh and ksh.
func Argument(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./,:=@%+", r)
	}
	switch {
	case s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0:
		return s
	case Text(s) == s:
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	var out strings.Builder
	for i, r := range s {
		_, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case hidden(r):
			for _, b := range []byte(s[i : i+size]) {
				fmt.Fprintf(&out, `\%03o`, b)
			}
		case r == '\'' || r == '\\':
			out.WriteByte('\\')
			fallthrough
		default:
			out.WriteRune(r)
		}
	}
	return "$'" + out.String() + "'"
}

// Writer passes lines on to w with everything but line ends and tabs as Text has it. A line of JSON
// stays one, with the same values. Each Write has whole characters.
func Writer(w io.Writer) io.Writer { return writer{w} }

type writer struct{ w io.Writer }

func (w writer) Write(p []byte) (int, error) {
	for i, b := range p {
		if b < ' ' && b != '\n' && b != '\t' || b >= 0x7f {
			return len(p), w.rewrite(p, i)
		}
	}
	return w.w.Write(p)
}

// rewrite writes p, of which the first clean bytes are plain.
func (w writer) rewrite(p []byte, clean int) error {
	var out strings.Builder
	out.Write(p[:clean])
	rest := string(p[clean:])
	for {
		at := strings.IndexAny(rest, "\n\t")
		if at < 0 {
			break
		}
		out.WriteString(Text(rest[:at]))
		out.WriteByte(rest[at])
		rest = rest[at+1:]
	}
	out.WriteString(Text(rest))
	_, err := io.WriteString(w.w, out.String())
	return err
}

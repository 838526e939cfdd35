// Package printable escapes text that others chose, such as names of images and answers of nodes, before it
// is printed or logged, so that it cannot control a terminal, reverse the order of a line, or hide a part of
// itself.
package printable

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Text returns s as one line: control characters, invisible ones, and those that change the direction of
// writing are escaped as in JSON, such as \u202e. A byte that is not UTF-8 becomes \ufffd.
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

// hidden reports whether a character has no glyph of its own. Spaces of all scripts count as glyphs.
func hidden(r rune) bool { return !unicode.IsGraphic(r) || r == utf8.RuneError }

// Lines is Text for each line. It indents all lines but the first, so that none looks like a message of this
// program.
func Lines(s string) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	for i := range lines {
		lines[i] = Text(lines[i])
	}
	return strings.Join(lines, "\n  ")
}

// Argument quotes s so that a shell reads it as one word and a terminal shows all of it. A text with
// characters to escape gets the form $'...' of bash, zsh and ksh.
func Argument(s string) string {
	switch {
	case s != "" && strings.IndexFunc(s, needsQuotes) < 0:
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

// needsQuotes reports whether a shell may give a character a meaning.
func needsQuotes(r rune) bool {
	plain := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
	return !plain && !strings.ContainsRune("-_./,:=@%+", r)
}

// Writer returns a writer that writes to w and escapes, as Text does, everything but line ends and tabs. A
// line of JSON keeps its values. No Write may end within a character.
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

// rewrite escapes and writes p, whose first clean bytes need no escaping.
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

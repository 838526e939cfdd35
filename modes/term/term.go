// Package term is what a terminal shows: its size and colours, a live screen of styled rows, a line of
// progress, figures in units for people, and text that is cut, wrapped and laid out in tables. It writes
// only to the files and writers that it is given.
package term

import (
	"os"
	"strings"

	xterm "golang.org/x/term"
)

// Width and heightDefault are the size in columns and lines of a terminal that does not report one. All
// text to the user fits Width, which mail programs do not wrap either.
const (
	Width         = 80
	heightDefault = 24
)

// Is reports whether f, which may be nil, is a terminal.
func Is(f *os.File) bool { return f != nil && xterm.IsTerminal(int(f.Fd())) }

// IsScreen reports whether f, which may be nil, is a terminal with colours and a cursor that can be moved.
func IsScreen(f *os.File) bool { return Is(f) && showsColors(f) }

// Size returns how many columns and lines a terminal has.
func Size(f *os.File) (columns, lines int) {
	columns, lines, err := xterm.GetSize(int(f.Fd()))
	if err != nil || columns < 1 || lines < 1 {
		return Width, heightDefault
	}
	return columns, lines
}

// Style is how a terminal shows a text: the parameters of ANSI's SGR sequence (ECMA-48, 8.3.117).
type Style string

// The styles in use.
const (
	Plain     Style = ""
	Bold      Style = "1"
	Dim       Style = "2"
	Red       Style = "31"
	Green     Style = "32"
	Yellow    Style = "33"
	Cyan      Style = "36"
	BoldRed   Style = "1;31"
	BoldGreen Style = "1;32"
)

// Styled returns text in a style. Blanks are returned as they are.
func Styled(style Style, text string) string {
	if style == Plain || strings.TrimSpace(text) == "" {
		return text
	}
	return "\x1b[" + string(style) + "m" + text + "\x1b[0m"
}

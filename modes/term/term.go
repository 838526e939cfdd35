// Package term is what a terminal shows: how wide it is and whether it knows colours, a live screen and a line of
// progress, figures in units for people, and text cut, wrapped and laid out in columns. It writes only to what it
// is given.
package term

import (
	"os"
	"strings"

	xterm "golang.org/x/term"
)

// Width is how many columns the words to the user are made for: what a mail takes without breaking lines.
const Width = 80

// height is that of a terminal that does not say how large it is.
const height = 24

// Is reports whether f, which may be nil, is a terminal.
func Is(f *os.File) bool { return f != nil && xterm.IsTerminal(int(f.Fd())) }

// IsScreen reports whether f, which may be nil, is a terminal that knows colours and moves its cursor.
func IsScreen(f *os.File) bool {
	kind := os.Getenv("TERM")
	return kind != "" && kind != "dumb" && Is(f)
}

// Size returns how many columns and lines a terminal has.
func Size(f *os.File) (columns, lines int) {
	columns, lines, err := xterm.GetSize(int(f.Fd()))
	if err != nil || columns < 1 || lines < 1 {
		return Width, height
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

package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// ErrInvalid is what errors.Is finds in every error of this package: the user must change the
// configuration or the command line, and trying again does not help.
var ErrInvalid = errors.New("invalid configuration")

// Problem is one thing that is wrong.
type Problem struct {
	// File is the file's path, "env IMGCLUSTER_..." or "flag --..."; empty: set by the program
	File string `json:"file,omitempty"`
	// Line counts from 1; 0 when no single line is to blame, or it is not in a file
	Line    int    `json:"line,omitempty"`
	Key     string `json:"key,omitempty"` // such as cluster.replicas or cluster.nodes[1].host
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"` // what to do
}

// String returns the problem in one line, without its hint.
func (p Problem) String() string {
	var s strings.Builder
	if p.File != "" {
		s.WriteString(p.File)
		if p.Line > 0 {
			s.WriteString(":" + strconv.Itoa(p.Line))
		}
		s.WriteString(": ")
	}
	if p.Key != "" {
		s.WriteString(p.Key + ": ")
	}
	s.WriteString(p.Message)
	return s.String()
}

// Problems is everything that is wrong, in the order of lines, then environment and flags.
type Problems []Problem

// Error returns one line for each problem, with its hint in the line below.
func (ps Problems) Error() string {
	var s strings.Builder
	if len(ps) > 1 {
		fmt.Fprintf(&s, "%d problems in the configuration:\n", len(ps))
	}
	for i, p := range ps {
		if i > 0 {
			s.WriteByte('\n')
		}
		s.WriteString(p.String())
		if p.Hint != "" {
			s.WriteString("\n  hint: " + p.Hint)
		}
	}
	return s.String()
}

// Is makes errors.Is(err, ErrInvalid) true.
func (ps Problems) Is(target error) bool { return target == ErrInvalid }

// ExitStatus returns the program's exit status 2: the configuration has to change.
func (ps Problems) ExitStatus() int { return 2 }

// fault is what is wrong with a text, before it is known where the text stands.
type fault struct{ message, hint string }

func (f *fault) Error() string { return f.message }

func faultf(hint, format string, args ...any) *fault {
	return &fault{message: fmt.Sprintf(format, args...), hint: hint}
}

// isRange reports whether strconv found a number that does not fit.
func isRange(err error) bool { return errors.Is(err, strconv.ErrRange) }

// problemsMax bounds the list; what a broken file has beyond it is counted only.
const problemsMax = 50

// place is where a setting was set: a line of a file, or a variable or flag (line 0).
type place struct {
	source string
	line   int
}

// collector gathers problems, and the keys that have one, so that a bad value is
// reported once and not again by the checks that compare it with others.
type collector struct {
	list Problems
	more int
	bad  map[string]bool
}

// fault reports f at a place.
func (c *collector) fault(at place, key string, f *fault) {
	if c.bad == nil {
		c.bad = map[string]bool{}
	}
	c.bad[key] = true
	if len(c.list) == problemsMax {
		c.more++
		return
	}
	c.list = append(c.list,
		Problem{File: at.source, Line: at.line, Key: key, Message: f.message, Hint: f.hint})
}

// problems returns what was gathered, nil when there are none.
func (c *collector) problems() Problems {
	if len(c.list) == 0 {
		return nil
	}
	ps := slices.Clone(c.list)
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Line, b.Line))
	})
	if c.more > 0 {
		ps = append(ps, Problem{
			Message: fmt.Sprintf("%d more problems are not shown", c.more),
			Hint:    "correct these first",
		})
	}
	return ps
}

// rank puts what has a line before what has none.
func rank(p Problem) int {
	if p.Line > 0 {
		return 0
	}
	return 1
}

// textMax bounds how much of a wrong text is shown, in bytes.
const textMax = 60

// quote shows a wrong text in quotes, cut to a bearable length.
func quote(s string) string {
	if len(s) > textMax {
		return strconv.Quote(s[:textMax]) + "..."
	}
	return strconv.Quote(s)
}

// plain shows a wrong key as it is, or quoted when it has unusual characters.
func plain(s string) string {
	if q := quote(s); q != `"`+s+`"` {
		return q
	}
	return s
}

// suggest returns a hint with the candidate that is most like s, or fallback.
func suggest(s string, candidates []string, fallback string) string {
	best := ""
	least := max(2, len(s)/3) + 1
	for _, c := range candidates {
		if len(s) > 2*len(c)+2 {
			continue // far too long: not worth the work
		}
		if d := distance(strings.ToLower(s), strings.ToLower(c)); d < least && d < len(c) {
			best = c
			least = d
		}
	}
	if best == "" {
		return fallback
	}
	return "did you mean " + best + "?"
}

// distance is Levenshtein's: the least number of bytes to insert, delete or change.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

package result

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// cursor walks the fields of one JSON object without allocating: a log has a million lines like
// that, of which a few fields count. It trusts its input, which json.Valid has accepted. The first
// field that is not what was asked for stays in err.
type cursor struct {
	rest  []byte // what follows the last field
	key   []byte // as written, without quotes; an escaped key is simply not known
	value []byte // as written
	err   error
}

// object returns a cursor before the first field of line, or false when it is not an object.
func object(line []byte) (cursor, bool) {
	line = bytes.TrimLeft(line, jsonSpace)
	if len(line) == 0 || line[0] != '{' {
		return cursor{}, false
	}
	return cursor{rest: line[1:]}, true
}

const jsonSpace = " \t\r\n"

// next moves to the next field.
func (c *cursor) next() bool {
	i := skip(c.rest, 0, " \t\r\n,")
	if c.rest[i] == '}' {
		return false
	}
	end := stringEnd(c.rest, i)
	c.key = c.rest[i+1 : end-1]
	i = skip(c.rest, end, " \t\r\n:")
	end = valueEnd(c.rest, i)
	c.value, c.rest = c.rest[i:end], c.rest[end:]
	return true
}

// known moves to the next field that is not null.
func (c *cursor) known() bool {
	for c.next() {
		if !c.isNull() {
			return true
		}
	}
	return false
}

func skip(b []byte, i int, chars string) int {
	for strings.IndexByte(chars, b[i]) >= 0 {
		i++
	}
	return i
}

// stringEnd returns the index after the string that starts at i.
func stringEnd(b []byte, i int) int {
	for i++; b[i] != '"'; i++ {
		if b[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// valueEnd returns the index after the value that starts at i.
func valueEnd(b []byte, i int) int {
	switch b[i] {
	case '"':
		return stringEnd(b, i)
	case '{', '[':
		return nestedEnd(b, i)
	}
	for ; i < len(b); i++ {
		switch b[i] {
		case ',', '}', ' ', '\t', '\r', '\n':
			return i
		}
	}
	return i
}

func nestedEnd(b []byte, i int) int {
	for depth := 0; ; {
		switch b[i] {
		case '"':
			i = stringEnd(b, i)
			continue
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
		i++
		if depth == 0 {
			return i
		}
	}
}

func (c *cursor) isNull() bool { return c.value[0] == 'n' }

func (c *cursor) fail(want string) {
	if c.err == nil {
		c.err = fmt.Errorf("%s is %s, want %s", c.key, cut(string(c.value), 40), want)
	}
}

// whole returns the value as a whole number from 0 to max.
func (c *cursor) whole(max int64) int64 {
	if n, ok := digits(c.value); ok && n <= max {
		return n
	}
	f := c.number(float64(max))
	if c.err == nil && f != math.Trunc(f) {
		c.fail("a whole number")
	}
	if c.err != nil {
		return 0
	}
	return int64(f)
}

// digits is the way of nearly all whole numbers: at most 18 digits and nothing else.
func digits(b []byte) (n int64, ok bool) {
	if len(b) > 18 {
		return 0, false
	}
	for _, d := range b {
		if d < '0' || d > '9' {
			return 0, false
		}
		n = n*10 + int64(d-'0')
	}
	return n, true
}

// number returns the value as a number from 0 to max; 0 for null.
func (c *cursor) number(max float64) float64 {
	f, isNumber := c.float()
	if isNumber && !(f >= 0 && f <= max) && c.err == nil {
		c.err = within(string(c.key), f, 0, max)
	}
	return f
}

func (c *cursor) float() (f float64, isNumber bool) {
	if c.isNull() {
		return 0, false
	}
	if d := c.value[0]; d != '-' && (d < '0' || d > '9') {
		c.fail("a number")
		return 0, false
	}
	f, _ = strconv.ParseFloat(string(c.value), 64) // valid JSON: fails on overflow only, as infinity
	return f, true
}

// flag returns the value as a truth value; false for null.
func (c *cursor) flag() bool {
	if !c.isNull() && c.value[0] != 't' && c.value[0] != 'f' {
		c.fail("true or false")
	}
	return c.value[0] == 't'
}

// text returns the value as the bytes of a string, valid until the line is; empty for null.
func (c *cursor) text() []byte {
	switch {
	case c.isNull():
		return nil
	case c.value[0] != '"':
		c.fail("a string")
		return nil
	case bytes.IndexByte(c.value, '\\') < 0:
		return c.value[1 : len(c.value)-1]
	}
	var s string
	if err := json.Unmarshal(c.value, &s); err != nil {
		c.fail("a string")
	}
	return []byte(s)
}

package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Bytes is a size. Its text is a whole number with an optional unit: 1024, 64MiB, 1GB. Binary
// units (KiB ... PiB) are powers of 1024, decimal ones (kB ... PB) powers of 1000.
type Bytes int64

type unit struct {
	name string
	size int64
}

// units from the largest down, binary before decimal: String takes the first that divides.
var units = []unit{
	{"PiB", 1 << 50},
	{"TiB", 1 << 40},
	{"GiB", 1 << 30},
	{"MiB", 1 << 20},
	{"KiB", 1 << 10},
	{"PB", 1e15},
	{"TB", 1e12},
	{"GB", 1e9},
	{"MB", 1e6},
	{"kB", 1e3},
	{"B", 1},
}

const bytesHint = "write a whole number and a unit, such as 64MiB, 1GB or 4096"

// ParseBytes reads the text of a size. Letter case and a space before the unit do not matter.
func ParseBytes(s string) (Bytes, error) {
	number := strings.TrimRight(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
	size, ok := unitSize(s[len(number):])
	if !ok {
		return 0, faultf(bytesHint, "%s has an unknown unit", quote(s))
	}
	n, err := strconv.ParseUint(strings.TrimSuffix(number, " "), 10, 64)
	switch {
	case err != nil && isRange(err), err == nil && n > uint64(math.MaxInt64/size):
		return 0, faultf("give a smaller one", "%s is too large a size", quote(s))
	case err != nil:
		return 0, faultf(bytesHint, "%s is not a size", quote(s))
	}
	return Bytes(n) * Bytes(size), nil
}

func unitSize(name string) (int64, bool) {
	if name == "" {
		return 1, true
	}
	for _, u := range units {
		if strings.EqualFold(u.name, name) {
			return u.size, true
		}
	}
	return 0, false
}

// String returns the shortest exact text, which ParseBytes reads back.
func (b Bytes) String() string {
	for _, u := range units {
		if n := int64(b); n != 0 && u.size > 1 && n%u.size == 0 {
			return fmt.Sprintf("%d%s", n/u.size, u.name)
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// MarshalText implements encoding.TextMarshaler.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *Bytes) UnmarshalText(text []byte) (err error) {
	*b, err = ParseBytes(string(text))
	return err
}

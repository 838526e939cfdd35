// Package pack writes values as bytes and takes them apart again: what the catalog keeps of every upload, and
// what nodes say of it to each other. Numbers are unsigned varints, and texts come after their length.
package pack

import (
	"encoding/binary"
	"encoding/json"
	"time"
)

// Numbers appends numbers.
func Numbers(b []byte, numbers ...uint64) []byte {
	for _, n := range numbers {
		b = binary.AppendUvarint(b, n)
	}
	return b
}

// Text appends a text.
func Text[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// Time appends a time, to the nanosecond.
func Time(b []byte, t time.Time) []byte {
	return Numbers(b, uint64(t.Unix()), uint64(t.Nanosecond()))
}

// JSON returns v, of a type that cannot fail, as JSON.
func JSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// Reader takes apart what was written. Where that has ended too early or is something else it goes on with
// zeros; Done says so.
type Reader struct {
	b   []byte
	bad bool
}

// Read returns a Reader of b, of which Bytes and Rest return parts.
func Read(b []byte) *Reader { return &Reader{b: b} }

// Fail makes the value one that is not what was written.
func (r *Reader) Fail() { r.b, r.bad = nil, true }

// Len returns how many bytes are left.
func (r *Reader) Len() int { return len(r.b) }

// Done reports whether all of the value was read, and was what was written.
func (r *Reader) Done() bool { return !r.bad && len(r.b) == 0 }

// Number reads a number.
func (r *Reader) Number() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.Fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

// Count reads a number of things that come next, of a byte each at least.
func (r *Reader) Count() int {
	n := r.Number()
	if n > uint64(len(r.b)) {
		r.Fail()
		return 0
	}
	return int(n)
}

// Bytes reads n bytes.
func (r *Reader) Bytes(n int) []byte {
	if len(r.b) < n {
		r.Fail()
		return make([]byte, n)
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

// Text reads what Text has written.
func (r *Reader) Text() string { return string(r.Bytes(r.Count())) }

// Time reads what Time has written.
func (r *Reader) Time() time.Time { return time.Unix(int64(r.Number()), int64(r.Number())).UTC() }

// Begins reports whether the next byte is b, and reads it then.
func (r *Reader) Begins(b byte) bool {
	is := len(r.b) > 0 && r.b[0] == b
	if is {
		r.b = r.b[1:]
	}
	return is
}

// Rest reads all that is left.
func (r *Reader) Rest() []byte { return r.Bytes(len(r.b)) }

// Maybe reads a text of JSON, unless that is empty, and reports whether it is not.
func (r *Reader) Maybe(v any) bool {
	s := r.Text()
	if s != "" && json.Unmarshal([]byte(s), v) != nil {
		r.Fail()
	}
	return s != ""
}

// JSON reads all that is left as JSON.
func (r *Reader) JSON(v any) {
	if json.Unmarshal(r.Rest(), v) != nil {
		r.Fail()
	}
}

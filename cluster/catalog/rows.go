package catalog

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"imgcluster/cluster/image"
)

// What every upload reads and changes is kept as bytes too, numbers as unsigned varints; the rest as JSON.

// row is a value that is kept as bytes.
type row interface {
	appendTo(b []byte) []byte
	readFrom(d *recordReader)
}

// encode returns the value that get reads.
func encode(v any) []byte {
	if v, ok := v.(row); ok {
		return v.appendTo(nil)
	}
	return appendJSON(nil, v)
}

func appendNumbers(b []byte, numbers ...uint64) []byte {
	for _, n := range numbers {
		b = binary.AppendUvarint(b, n)
	}
	return b
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// text returns what appendText has written.
func (d *recordReader) text() string { return string(d.bytes(d.count())) }

// count returns the length of something that comes next, in bytes or in parts of a byte at least.
func (d *recordReader) count() int {
	n := d.number()
	if n > uint64(len(d.b)) {
		d.b, d.bad = nil, true
		return 0
	}
	return int(n)
}

// time returns what appendTime has written.
func (d *recordReader) time() time.Time {
	return time.Unix(int64(d.number()), int64(d.number())).UTC()
}

func appendTime(b []byte, t time.Time) []byte {
	return appendNumbers(b, uint64(t.Unix()), uint64(t.Nanosecond()))
}

// load reads a load.
func (d *recordReader) load() Load { return Load{int64(d.number()), int64(d.number())} }

// decodeRow reads the value of key.
func decodeRow(key, value []byte, v row) error {
	d := recordReader{b: value}
	if v.readFrom(&d); d.bad || len(d.b) > 0 {
		return fmt.Errorf("catalog: value of key %q: %w", key, errRecord)
	}
	return nil
}

// EncodeTotals returns the value of a shard's sums.
func EncodeTotals(t *Totals) []byte { return t.appendTo(nil) }

func (t *Totals) appendTo(b []byte) []byte {
	b = appendNumbers(b, uint64(t.Images), uint64(t.Bytes), uint64(t.UnderReplicated))
	for _, id := range slices.Sorted(maps.Keys(t.Nodes)) {
		b = appendNumbers(b, uint64(id))
		n := t.Nodes[id]
		for _, l := range []Load{n.Assigned, n.Storing, n.Owned, n.Stored} {
			b = appendNumbers(b, uint64(l.Images), uint64(l.Bytes))
		}
	}
	return b
}

func (t *Totals) readFrom(d *recordReader) {
	t.Images, t.Bytes, t.UnderReplicated = int64(d.number()), int64(d.number()), int64(d.number())
	t.Nodes = map[image.NodeID]*NodeTotals{}
	for len(d.b) > 0 {
		t.Nodes[image.NodeID(d.number())] = &NodeTotals{d.load(), d.load(), d.load(), d.load()}
	}
}

func (q *finishedQueue) appendTo(b []byte) []byte {
	return appendNumbers(b, q.First, q.Next, uint64(q.Bytes), uint64(q.Clock), q.Floor)
}

func (q *finishedQueue) readFrom(d *recordReader) {
	*q = finishedQueue{d.number(), d.number(), int64(d.number()), int64(d.number()), d.number()}
}

func (u *userQueue) appendTo(b []byte) []byte {
	return appendNumbers(b, u.First, u.Next, uint64(u.Bytes), uint64(u.Class))
}

func (u *userQueue) readFrom(d *recordReader) {
	*u = userQueue{d.number(), d.number(), int64(d.number()), int(d.number())}
}

func (r *orderRow) appendTo(b []byte) []byte {
	return appendNumbers(appendText(b, r.User), r.Seq, uint64(r.At))
}

func (r *orderRow) readFrom(d *recordReader) {
	*r = orderRow{d.text(), d.number(), int64(d.number())}
}

func (r *userRow) appendTo(b []byte) []byte {
	return appendNumbers(appendText(b, string(r.Answer)), r.Order, uint64(r.Bytes), r.Index)
}

func (r *userRow) readFrom(d *recordReader) {
	*r = userRow{[]byte(d.text()), d.number(), int64(d.number()), d.number()}
}

// appendTo writes an upload that was committed as bytes, any other as JSON, which begins with another byte.
func (u *Upload) appendTo(b []byte) []byte {
	if u.State != Committed {
		return appendJSON(b, u)
	}
	b = appendNumbers(append(b, asBytes), u.Index, u.Round, u.Seq)
	b = appendText(appendText(b, u.User), u.Name)
	return append(b, EncodeRecord(u.Record)...)
}

func (u *Upload) readFrom(d *recordReader) {
	if !d.isBytes() {
		d.json(u)
		return
	}
	*u = Upload{State: Committed, Index: d.number(), Round: d.number(), Seq: d.number()}
	u.User, u.Name = d.text(), d.text()
	rec, err := DecodeRecord(nameKey(u.User, u.Name), d.b)
	if err != nil {
		d.bad = true
		return
	}
	u.ID, u.Record, d.b = rec.ID, rec, nil
}

// asBytes begins values that are kept as bytes where others of their kind are JSON.
const asBytes = 1

// isBytes reports whether the value begins with asBytes, which it passes.
func (d *recordReader) isBytes() bool {
	if len(d.b) == 0 || d.b[0] != asBytes {
		return false
	}
	d.b = d.b[1:]
	return true
}

// json reads the rest as JSON.
func (d *recordReader) json(v any) {
	d.bad = d.bad || json.Unmarshal(d.b, v) != nil
	d.b = nil
}

func appendJSON(b []byte, v any) []byte {
	more, err := json.Marshal(v)
	if err != nil {
		panic(err) // their types cannot fail; see TestEveryCommandEncodes
	}
	return append(b, more...)
}

func (c *Commit) appendTo(b []byte) []byte {
	b = append(append(b, c.ID[:]...), c.Check.MAC[:]...)
	b = appendNumbers(b, uint64(c.Check.Key), uint64(c.Bytes), uint64(c.Wanted))
	b = appendTime(b, c.Created)
	b = appendText(appendText(appendText(b, c.User), c.Name), c.Type)
	conditions := ""
	if !c.If.IsZero() {
		conditions = string(appendJSON(nil, c.If))
	}
	b = appendNumbers(appendText(b, conditions), uint64(len(c.Copies)))
	for _, x := range c.Copies {
		b = append(appendNumbers(b, uint64(x.Node), uint64(x.Key), x.Index), x.Attempt[:]...)
	}
	if c.Sealed != nil {
		b = append(b, c.Sealed[:]...)
	}
	return b
}

func (c *Commit) readFrom(d *recordReader) {
	copy(c.ID[:], d.bytes(len(c.ID)))
	copy(c.Check.MAC[:], d.bytes(len(c.Check.MAC)))
	c.Check.Key, c.Bytes, c.Wanted = uint32(d.number()), int64(d.number()), int(d.number())
	c.Created = d.time()
	c.User, c.Name, c.Type = d.text(), d.text(), d.text()
	if conditions := d.text(); conditions != "" {
		d.bad = d.bad || json.Unmarshal([]byte(conditions), &c.If) != nil
	}
	c.Copies = make([]Reported, d.count())
	for i := range c.Copies {
		x := &c.Copies[i]
		x.Node, x.Key, x.Index = image.NodeID(d.number()), uint32(d.number()), d.number()
		copy(x.Attempt[:], d.bytes(len(x.Attempt)))
	}
	if len(d.b) > 0 {
		c.Sealed = &image.SealedDigest{}
		copy(c.Sealed[:], d.bytes(len(c.Sealed)))
	}
}

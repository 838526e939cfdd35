package catalog

import (
	"fmt"
	"maps"
	"slices"

	"imgcluster/cluster/image"
	"imgcluster/cluster/pack"
)

// What every upload reads and changes is kept as bytes too, numbers as unsigned varints; the rest as JSON.

// row is a value that is kept as bytes.
type row interface {
	appendTo(b []byte) []byte
	readFrom(d *pack.Reader)
}

// encode returns the value that get reads.
func encode(v any) []byte {
	if v, ok := v.(row); ok {
		return v.appendTo(nil)
	}
	return pack.JSON(v)
}

// load reads a load.
func load(d *pack.Reader) Load { return Load{int64(d.Number()), int64(d.Number())} }

// decodeRow reads the value of key.
func decodeRow(key, value []byte, v row) error {
	d := pack.Read(value)
	if v.readFrom(d); !d.Done() {
		return fmt.Errorf("catalog: value of key %q: %w", key, errRecord)
	}
	return nil
}

// EncodeTotals returns the value of a shard's sums.
func EncodeTotals(t *Totals) []byte { return t.appendTo(nil) }

func (t *Totals) appendTo(b []byte) []byte {
	b = pack.Numbers(b, uint64(t.Images), uint64(t.Bytes), uint64(t.UnderReplicated))
	for _, id := range slices.Sorted(maps.Keys(t.Nodes)) {
		b = pack.Numbers(b, uint64(id))
		n := t.Nodes[id]
		for _, l := range []Load{n.Assigned, n.Storing, n.Owned, n.Stored} {
			b = pack.Numbers(b, uint64(l.Images), uint64(l.Bytes))
		}
	}
	return b
}

func (t *Totals) readFrom(d *pack.Reader) {
	t.Images, t.Bytes, t.UnderReplicated = int64(d.Number()), int64(d.Number()), int64(d.Number())
	t.Nodes = map[image.NodeID]*NodeTotals{}
	for d.Len() > 0 {
		t.Nodes[image.NodeID(d.Number())] = &NodeTotals{load(d), load(d), load(d), load(d)}
	}
}

func (q *finishedQueue) appendTo(b []byte) []byte {
	return pack.Numbers(b, q.First, q.Next, uint64(q.Bytes), uint64(q.Clock), q.Floor)
}

func (q *finishedQueue) readFrom(d *pack.Reader) {
	*q = finishedQueue{d.Number(), d.Number(), int64(d.Number()), int64(d.Number()), d.Number()}
}

func (u *userQueue) appendTo(b []byte) []byte {
	return pack.Numbers(b, u.First, u.Next, uint64(u.Bytes), uint64(u.Class))
}

func (u *userQueue) readFrom(d *pack.Reader) {
	*u = userQueue{d.Number(), d.Number(), int64(d.Number()), int(d.Number())}
}

func (r *orderRow) appendTo(b []byte) []byte {
	return pack.Numbers(pack.Text(b, r.User), r.Seq, uint64(r.At))
}

func (r *orderRow) readFrom(d *pack.Reader) {
	*r = orderRow{d.Text(), d.Number(), int64(d.Number())}
}

func (r *userRow) appendTo(b []byte) []byte {
	return pack.Numbers(pack.Text(b, r.Answer), r.Order, uint64(r.Bytes), r.Index)
}

func (r *userRow) readFrom(d *pack.Reader) {
	*r = userRow{[]byte(d.Text()), d.Number(), int64(d.Number()), d.Number()}
}

// appendTo writes an upload that was committed as bytes, any other as JSON, which begins with another byte.
func (u *Upload) appendTo(b []byte) []byte {
	if u.State != Committed {
		return append(b, pack.JSON(u)...)
	}
	b = pack.Numbers(append(b, asBytes), u.Index, u.Round, u.Seq)
	b = pack.Text(pack.Text(b, u.User), u.Name)
	return append(b, EncodeRecord(u.Record)...)
}

func (u *Upload) readFrom(d *pack.Reader) {
	if !d.Begins(asBytes) {
		d.JSON(u)
		return
	}
	*u = Upload{State: Committed, Index: d.Number(), Round: d.Number(), Seq: d.Number()}
	u.User, u.Name = d.Text(), d.Text()
	rec, err := DecodeRecord(nameKey(u.User, u.Name), d.Rest())
	if err != nil {
		d.Fail()
		return
	}
	u.ID, u.Record = rec.ID, rec
}

// asBytes begins values that are kept as bytes where others of their kind are JSON.
const asBytes = 1

func (c *Commit) appendTo(b []byte) []byte {
	b = append(append(b, c.ID[:]...), c.Check.MAC[:]...)
	b = pack.Numbers(b, uint64(c.Check.Key), uint64(c.Bytes), uint64(c.Wanted))
	b = pack.Time(b, c.Created)
	b = pack.Text(pack.Text(pack.Text(b, c.User), c.Name), c.Type)
	var conditions []byte
	if !c.If.IsZero() {
		conditions = pack.JSON(c.If)
	}
	b = pack.Numbers(pack.Text(b, conditions), uint64(len(c.Copies)))
	for _, x := range c.Copies {
		b = append(pack.Numbers(b, uint64(x.Node), uint64(x.Key), x.Index), x.Attempt[:]...)
	}
	if c.Sealed != nil {
		b = append(b, c.Sealed[:]...)
	}
	return b
}

func (c *Commit) readFrom(d *pack.Reader) {
	copy(c.ID[:], d.Bytes(len(c.ID)))
	copy(c.Check.MAC[:], d.Bytes(len(c.Check.MAC)))
	c.Check.Key, c.Bytes, c.Wanted = uint32(d.Number()), int64(d.Number()), int(d.Number())
	c.Created = d.Time()
	c.User, c.Name, c.Type = d.Text(), d.Text(), d.Text()
	d.Maybe(&c.If)
	c.Copies = make([]Reported, d.Count())
	for i := range c.Copies {
		x := &c.Copies[i]
		x.Node, x.Key, x.Index = image.NodeID(d.Number()), uint32(d.Number()), d.Number()
		copy(x.Attempt[:], d.Bytes(len(x.Attempt)))
	}
	if d.Len() > 0 {
		c.Sealed = &image.SealedDigest{}
		copy(c.Sealed[:], d.Bytes(len(c.Sealed)))
	}
}

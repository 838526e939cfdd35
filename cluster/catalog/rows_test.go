package catalog

import (
	"reflect"
	"testing"

	"imgcluster/cluster/image"
)

// fullCommit has a value in each field.
func fullCommit() *Commit {
	c := *commitOf(5, "holiday/a b.png", reported(1, 1), reported(2, 3)).Commit
	c.Type, c.Sealed, c.Created = "image/png", &image.SealedDigest{1, 2}, clock.Add(123)
	c.If = image.Conditions{NoneMatch: image.Tags{"*"}}
	c.Check.MAC[3] = 7
	return &c
}

// TestRows: what is kept as bytes is read back as it was, and nothing shorter or longer is taken for it.
func TestRows(t *testing.T) {
	committed := &Upload{
		ID: id(5), User: "alice", Name: "a.png", State: Committed, Index: 300, Round: 9, Seq: 4,
		Record: (&Commit{
			ID: id(5), User: "alice", Name: "a.png", Bytes: 300, Created: clock,
			Copies: []Reported{reported(1, 1)},
		}).record(&txn{shard: 2, index: 300}),
	}
	problem := image.AsProblem(Conflict(id(5)))
	load := func(n int64) Load { return Load{n, 1000 * n} }
	for _, test := range []struct{ value, read row }{
		{&Totals{Images: 1, Bytes: 1 << 40, UnderReplicated: 3, Nodes: map[image.NodeID]*NodeTotals{
			1: {load(1), load(2), load(3), load(4)}, 300: {load(5), load(6), load(7), load(8)},
		}}, &Totals{}},
		{&finishedQueue{1, 2, 3, 1 << 50, 5}, &finishedQueue{}},
		{&userQueue{1, 2, 3, 4}, &userQueue{}},
		{&orderRow{"alice", 1, 2}, &orderRow{}},
		{&userRow{[]byte{1, 0, 2}, 1, 2, 3}, &userRow{}},
		{committed, &Upload{}},
		{&Upload{ID: id(5), User: "alice", Name: "a.png", State: Failed, Problem: &problem, Round: 9}, &Upload{}},
		{fullCommit(), &Commit{}},
	} {
		b := test.value.appendTo(nil)
		if err := decodeRow(nil, b, test.read); err != nil || !reflect.DeepEqual(test.read, test.value) {
			t.Errorf("%T: read back as %+v, %v; want %+v", test.value, test.read, err, test.value)
		}
		again := reflect.New(reflect.TypeOf(test.read).Elem()).Interface().(row)
		if err := decodeRow(nil, append(b, 0), again); err == nil {
			t.Errorf("%T: one byte more is taken for it", test.value)
		}
		for n := range len(b) {
			again := reflect.New(reflect.TypeOf(test.read).Elem()).Interface().(row)
			if err := decodeRow(nil, b[:n], again); err == nil && reflect.DeepEqual(again, test.value) {
				t.Errorf("%T: %d of %d bytes are taken for all", test.value, n, len(b))
			}
		}
	}
}

// TestCommitEntries: a Commit and its answer are read from the log as they were, and an entry that is cut is
// refused.
func TestCommitEntries(t *testing.T) {
	want := Command{Commit: fullCommit()}
	b := want.Encode()
	if got, err := decode(b); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("read back as %+v, %v", got.Commit, err)
	}
	for n := range len(b) - len(want.Commit.Sealed) {
		if got, err := decode(b[:n]); image.KindOf(err) != image.KindInvalid {
			t.Errorf("%d of %d bytes are read as %+v, %v", n, len(b), got.Commit, err)
		}
	}
}

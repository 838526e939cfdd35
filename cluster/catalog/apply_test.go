package catalog

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"imgcluster/cluster/clustertest/memkv"
	"imgcluster/cluster/image"
)

// shard is a shard in memory with its log.
type shard struct {
	t      testing.TB
	number uint64
	db     memkv.KV
	index  uint64
	log    [][]byte
	events []Event
	kept   Retention
}

func newShard(t testing.TB) *shard {
	return &shard{t: t, number: 2, db: memkv.KV{}, kept: finishedKept}
}

func newSystemShard(t testing.TB) *shard {
	s := newShard(t)
	s.number = SystemShard
	return s
}

func (s *shard) do(c Command) Result {
	s.t.Helper()
	s.index++
	cmd := c.Encode()
	s.log = append(s.log, cmd)
	b, events, err := ApplyKeeping(s.kept, s.db, s.number, s.index, cmd)
	if err != nil {
		s.t.Fatal(err)
	}
	s.events = append(s.events, events...)
	r, err := DecodeResult(b)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

func (s *shard) expectKind(r Result, want image.Kind) {
	s.t.Helper()
	if got := image.KindOf(r.Err()); got != want {
		s.t.Fatalf("the command was answered with %q (%v), want %q", got, r.Err(), want)
	}
}

func (s *shard) totals() *Totals {
	s.t.Helper()
	t, err := GetTotals(s.db)
	if err != nil {
		s.t.Fatal(err)
	}
	return t
}

func (s *shard) record(name string) *image.Record {
	s.t.Helper()
	rec, err := GetRecord(s.db, "alice", name)
	if err != nil {
		s.t.Fatal(err)
	}
	return rec
}

var (
	clock = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	sumA  = image.Check{Key: 1, MAC: image.MAC{0xaa}}
	sumB  = image.Check{Key: 1, MAC: image.MAC{0xbb}}
)

func id(n byte) image.ID { return image.ID{15: n} }

// file returns one of the files that a node may have of an upload.
func file(node image.NodeID, n byte) image.Copy {
	return image.Copy{Node: node, Attempt: image.Attempt{byte(node), n}, Key: uint32(n)}
}

// names asks Names for a copy.
func (s *shard) names(n byte, c image.Copy) bool {
	s.t.Helper()
	named, err := Names(s.db, c.Node, image.FileID{Image: id(n), Shard: 2, Attempt: c.Attempt})
	if err != nil {
		s.t.Fatal(err)
	}
	return named
}

// put stores an image on nodes 1 and 2.
func (s *shard) put(n byte, name string) {
	s.t.Helper()
	s.expectKind(s.do(commitOf(n, name, s.now(1), s.now(2))), "")
}

// TestFewerCopiesThanWanted: the sums say so until the image is gone.
func TestFewerCopiesThanWanted(t *testing.T) {
	s := newShard(t)
	s.expectKind(s.do(commitOf(1, "a.png", s.now(2))), "")
	if got := s.totals().UnderReplicated; got != 1 {
		t.Errorf("%d are under-replicated, want 1", got)
	}
	s.expectKind(s.do(Command{Delete: &Delete{User: "alice", Name: "a.png"}}), "")
	got := s.totals()
	if got.UnderReplicated != 0 || got.Images != 0 || got.Bytes != 0 || got.Nodes[2].Owned.Images != 0 {
		t.Errorf("after the delete: %+v", got)
	}
	if load := got.Nodes[2]; load.Assigned != (Load{1, 100}) || load.Storing != (Load{1, 100}) {
		t.Errorf("the load that placement balances sank with the delete: %+v", load)
	}
}

// absentOnly is If-None-Match: *.
var absentOnly = image.Conditions{NoneMatch: image.Tags{image.AnyTag}}

func TestReplaceAndIfAbsent(t *testing.T) {
	s := newShard(t)
	s.put(1, "a.png")
	absent := commitOf(2, "a.png", s.now(1), s.now(2))
	absent.Commit.If = absentOnly
	s.expectKind(s.do(absent), image.KindExists)
	first := s.record("a.png")
	s.events = nil
	again := commitOf(4, "a.png", s.now(2), s.now(3))
	again.Commit.Check = sumB
	s.expectKind(s.do(again), "")
	now := s.record("a.png")
	if now.Check != sumB || now.Version <= first.Version {
		t.Fatalf("the second upload is not the newest: %+v after %+v", now, first)
	}
	removed := s.events[0].Removed
	if removed == nil || removed.ID != id(1) || len(removed.Copies) != 2 {
		t.Fatalf("events %+v do not name the replaced record", s.events)
	}
	if s.names(1, file(1, 1)) || !s.names(4, file(2, 1)) {
		t.Error("the replaced file is still named, or the new one is not")
	}
}

// TestLateCommands applies commands again that were answered long ago, like a proposal that was believed
// lost. The name is another image's by then.
func TestLateCommands(t *testing.T) {
	s := newShard(t)
	put := func(n byte) { t.Helper(); s.put(n, "a.png") }
	remove := func(n byte) Command {
		return Command{Delete: &Delete{ID: id(n), User: "alice", Name: "a.png", Created: clock}}
	}
	s.expectKind(s.do(remove(11)), image.KindNotFound)
	put(1)
	s.expectKind(s.do(remove(11)), image.KindNotFound)
	late := commitOf(2, "a.png", s.now(1), s.now(2))
	late.Commit.If = absentOnly
	s.expectKind(s.do(late), image.KindExists)
	s.expectKind(s.do(remove(12)), "")
	s.expectKind(s.do(late), image.KindExists)
	late.Commit.If, late.Commit.Copies[0].Index, late.Commit.Copies[1].Index = image.Conditions{}, 99, 99
	s.expectKind(s.do(late), image.KindExists) // as its client was answered
	if u, err := GetUpload(s.db, id(2)); err != nil || u.State != Failed || !u.Refused() {
		t.Fatalf("the refused upload is %+v (%v)", u, err)
	}
	put(3)
	s.expectKind(s.do(remove(12)), "")
	if s.record("a.png") == nil {
		t.Fatal("a delete took a second image")
	}
	s.expectKind(s.do(Command{Delete: &Delete{ID: id(12), User: "alice", Name: "b.png", Created: clock}}),
		image.KindConflict)
}

// sealedTag is the entity tag of the sealed digest that begins with n, without its quotes.
func sealedTag(n byte) string { return fmt.Sprintf("%02x%030d", n, 0) }

// TestDeleteIfItMatches deletes an image only under its own tag, and answers a repeat as the first time.
func TestDeleteIfItMatches(t *testing.T) {
	s := newShard(t)
	remove := func(n byte, match string) Command {
		c := image.Conditions{Match: image.Tags{`"` + match + `"`}}
		return Command{Delete: &Delete{ID: id(n), User: "alice", Name: "a.png", If: c, Created: clock}}
	}
	s.expectKind(s.do(remove(11, id(1).String())), image.KindNotFound)
	s.put(1, "a.png")
	for range 2 {
		s.expectKind(s.do(remove(12, id(2).String())), image.KindChanged)
	}
	if s.record("a.png") == nil {
		t.Fatal("another image was deleted")
	}
	s.expectKind(s.do(remove(13, id(1).String())), "")
	if s.record("a.png") != nil {
		t.Fatal("the image is still there")
	}
	s.expectKind(s.do(remove(12, id(2).String())), image.KindChanged)
	withDigest := commitOf(2, "a.png", s.now(1), s.now(2))
	withDigest.Commit.Sealed = &image.SealedDigest{1}
	s.expectKind(s.do(withDigest), "")
	s.expectKind(s.do(remove(14, sealedTag(2))), image.KindChanged)
	s.expectKind(s.do(remove(15, sealedTag(1))), "")
}

func TestListIsOrderedAndPaged(t *testing.T) {
	s := newShard(t)
	for i, name := range []string{"b", "a/2", "a/1", "a0", "c"} {
		s.put(byte(i+1), name)
	}
	list := func(prefix, after string) (names []string) {
		err := ListRecords(s.db, "alice", prefix, after, func(r *image.Record) bool {
			names = append(names, r.Name)
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	for _, c := range []struct {
		prefix, after string
		want          []string
	}{
		{"", "", []string{"a/1", "a/2", "a0", "b", "c"}},
		{"a/", "", []string{"a/1", "a/2"}},
		{"", "a/2", []string{"a0", "b", "c"}},
		{"a", "a/1", []string{"a/2", "a0"}},
		{"b", "a", []string{"b"}},
		{"", "c", nil},
		{"x", "", nil},
	} {
		if got := list(c.prefix, c.after); !slices.Equal(got, c.want) {
			t.Errorf("prefix %q after %q: %q, want %q", c.prefix, c.after, got, c.want)
		}
	}
}

func TestFirstUserKeyWins(t *testing.T) {
	s := newSystemShard(t)
	s.do(Command{PutKey: &PutKey{User: "alice", KeyID: 1, Wrapped: []byte("first")}})
	r := s.do(Command{PutKey: &PutKey{User: "alice", KeyID: 1, Wrapped: []byte("second")}})
	if string(r.Key.Wrapped) != "first" {
		t.Fatalf("the second key won: %q", r.Key.Wrapped)
	}
}

func TestBadCommandsAreRejected(t *testing.T) {
	bad := map[string]Command{
		"empty":               {},
		"no time of a delete": {Delete: &Delete{ID: id(1), User: "alice", Name: "nothing"}},
		"no such name":        {Delete: &Delete{User: "alice", Name: "nothing"}},
	}
	for name, c := range bad {
		t.Run(name, func(t *testing.T) {
			s := newShard(t)
			if s.do(c).Err() == nil {
				t.Error("accepted")
			}
			if len(s.db) != 0 || len(s.events) != 0 {
				t.Errorf("left %v and %v", s.db, s.events)
			}
		})
	}
	for _, raw := range []string{"", "\x02{}", "\x01{", "\x01[]", "\x01" + `{"unknown":1}`} {
		b, _, err := Apply(memkv.KV{}, 2, 1, []byte(raw))
		if err != nil {
			t.Fatal(err)
		}
		if r, err := DecodeResult(b); err != nil || r.Err() == nil {
			t.Errorf("command %q was accepted: %v", raw, err)
		}
	}
}

// TestNewerCommand: a command of a newer program is no rejection, after which this node would go on with
// another state than the newer ones have.
func TestNewerCommand(t *testing.T) {
	db := memkv.KV{}
	for _, raw := range []string{"\x03", "\x03{}", "\xff" + `{"delete":{}}`} {
		if b, _, err := Apply(db, 2, 1, []byte(raw)); b != nil || !errors.Is(err, ErrNewer) || len(db) != 0 {
			t.Errorf("command %q is answered with %q, %v", raw, b, err)
		}
	}
}

// TestRandomHistories drives a shard with random commands and checks after each what must always
// hold; at the end a second replica that applies the same log must have the same state.
func TestRandomHistories(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := newShard(t)
		steps := rapid.IntRange(1, 60).Draw(rt, "steps")
		for range steps {
			s.do(s.randomCommand(rt))
			checkInvariants(rt, s)
		}
		replica := memkv.KV{}
		for i, cmd := range s.log {
			if _, _, err := Apply(replica, 2, uint64(i+1), cmd); err != nil {
				rt.Fatal(err)
			}
		}
		if !replica.Equal(s.db) {
			rt.Fatal("two replicas of the same log differ")
		}
	})
}

func (s *shard) randomCommand(rt *rapid.T) Command {
	n := rapid.ByteRange(1, 4).Draw(rt, "upload")
	name := fmt.Sprintf("name%d", n%2)
	node := image.NodeID(rapid.IntRange(1, 3).Draw(rt, "node"))
	copied := func(node image.NodeID) Reported {
		index := s.index - min(s.index, rapid.Uint64Range(0, 5).Draw(rt, "before"))
		return Reported{file(node, rapid.ByteRange(1, 2).Draw(rt, "file")), index}
	}
	switch rapid.IntRange(0, 6).Draw(rt, "command") {
	case 0, 1, 2:
		c := commitOf(n, name, copied(node), copied(node%3+1))
		c.Commit.If = drawConditions(rt, id(rapid.ByteRange(1, 4).Draw(rt, "tag")))
		return c
	case 3:
		return endOf(n, name)
	case 4:
		return abortOf(n, copied(node))
	case 5:
		dropped := rapid.SampledFrom([][]image.Copy{nil, {copied(node%3 + 1).Copy}}).Draw(rt, "drop")
		return recopy(n, name, []Reported{copied(node)}, dropped...)
	default:
		return Command{Delete: &Delete{User: "alice", Name: name}}
	}
}

func recopy(n byte, name string, add []Reported, drop ...image.Copy) Command {
	return Command{Recopy: &Recopy{User: "alice", Name: name, ID: id(n), Add: add, Drop: drop}}
}

func TestRecopy(t *testing.T) {
	of := func(c ...image.Copy) []image.Copy { return c }
	s := newShard(t)
	now := func(c ...image.Copy) (all []Reported) {
		for _, x := range c {
			all = append(all, Reported{x, s.index})
		}
		return all
	}
	s.expectKind(s.do(commitOf(1, "a.png", s.now(1))), "") // one copy, of two wanted
	if tot := s.totals(); tot.UnderReplicated != 1 {
		t.Fatalf("totals %+v", tot)
	}
	healed := func() Command { return recopy(1, "a.png", now(file(3, 1))) }
	moved := func() Command { return recopy(1, "a.png", now(file(2, 1)), file(1, 1)) }
	for _, step := range []struct {
		what string
		cmd  func() Command
		kind image.Kind
		want []image.Copy
	}{
		{
			"another image", func() Command { return recopy(2, "a.png", now(file(3, 1))) },
			image.KindStale, of(file(1, 1)),
		},
		{
			"no image", func() Command { return recopy(1, "b.png", now(file(3, 1))) },
			image.KindStale, of(file(1, 1)),
		},
		{
			"fewer copies", func() Command { return recopy(1, "a.png", nil, file(1, 1)) },
			image.KindStale, of(file(1, 1)),
		},
		{
			"second copy on a node", func() Command { return recopy(1, "a.png", now(file(1, 2))) },
			image.KindStale, of(file(1, 1)),
		},
		{
			"too many", func() Command { return recopy(1, "a.png", now(file(2, 1), file(3, 1))) },
			image.KindStale, of(file(1, 1)),
		},
		{
			"a node twice", func() Command { return recopy(1, "a.png", now(file(3, 1), file(3, 2)), file(1, 1)) },
			image.KindInvalid, of(file(1, 1)),
		},
		{
			"to stay and to go", func() Command { return recopy(1, "a.png", now(file(1, 1)), file(1, 1)) },
			image.KindInvalid, of(file(1, 1)),
		},
		{
			"no attempt", func() Command { return recopy(1, "a.png", now(image.Copy{Node: 3})) },
			image.KindInvalid, of(file(1, 1)),
		},
		{"healed", healed, "", of(file(1, 1), file(3, 1))},
		{"healed again", healed, "", of(file(1, 1), file(3, 1))},
		{
			"healed enough", func() Command { return recopy(1, "a.png", now(file(2, 1))) },
			image.KindStale, of(file(1, 1), file(3, 1)),
		},
		{"the owner's moved", moved, "", of(file(3, 1), file(2, 1))},
		{"moved again", moved, "", of(file(3, 1), file(2, 1))},
		{
			"dropped before", func() Command { return recopy(1, "a.png", now(file(1, 2)), file(1, 1)) },
			image.KindStale, of(file(3, 1), file(2, 1)),
		},
		{
			"another file on the node", func() Command { return recopy(1, "a.png", now(file(3, 2)), file(3, 1)) },
			"", of(file(2, 1), file(3, 2)),
		},
	} {
		s.expectKind(s.do(step.cmd()), step.kind)
		if rec := s.record("a.png"); !slices.Equal(rec.Copies, step.want) {
			t.Fatalf("%s: copies %v, want %v", step.what, rec.Copies, step.want)
		}
	}
	rec := s.record("a.png")
	tot := s.totals()
	if rec.Owner != 3 || rec.Version != 1 || rec.Recopied != s.index {
		t.Errorf("record %+v", rec)
	}
	if tot.UnderReplicated != 0 || tot.Nodes[1].Stored.Images != 0 || tot.Nodes[2].Stored.Bytes != 100 ||
		tot.Nodes[3].Owned.Images != 1 || tot.Nodes[1].Assigned.Images != 1 {
		t.Errorf("totals %+v", tot)
	}
	var removed []image.Copy
	for _, e := range s.events {
		if e.Removed != nil {
			removed = append(removed, e.Removed.Copies...)
		}
	}
	if want := of(file(1, 1), file(3, 1)); !slices.Equal(removed, want) {
		t.Errorf("the events say that %v are garbage, want %v", removed, want)
	}
	for c, want := range map[image.Copy]bool{
		file(1, 1): false, file(2, 1): true, file(3, 1): false, file(3, 2): true,
	} {
		if got := s.names(1, c); got != want {
			t.Errorf("copy %v is named: %v", c, got)
		}
	}
}

// TestLateRecopy: a copy that was reported before something that its node may have deleted it for is not
// named, though the record has room for it.
func TestLateRecopy(t *testing.T) {
	for what, happens := range map[string]func(*shard){
		"it was named, and dropped": func(s *shard) {
			s.expectKind(s.do(recopy(1, "a.png", []Reported{{file(3, 1), s.index}})), "")
			s.expectKind(s.do(recopy(1, "a.png", []Reported{{file(2, 1), s.index}}, file(3, 1))), "")
		},
		"its image was stored again": func(s *shard) {
			s.do(Command{Delete: &Delete{User: "alice", Name: "a.png"}})
			s.forgetAll(10)
			s.do(commitOf(1, "a.png", s.now(1)))
		},
		"it was taken back": func(s *shard) { s.do(abortOf(1, reported(3, 0))) },
		"that is forgotten": func(s *shard) { s.do(abortOf(1, reported(3, 0))); s.forgetAll(10) },
		"its disk was lost": func(s *shard) { s.do(Command{Restart: &Restart{Node: 3}}) },
	} {
		t.Run(what, func(t *testing.T) {
			s := newShard(t)
			s.expectKind(s.do(commitOf(1, "a.png", s.now(1))), "") // one copy, of two wanted
			late := recopy(1, "a.png", []Reported{{file(3, 1), s.index}})
			happens(s)
			if rec := s.record("a.png"); len(rec.Copies) == 2 { // make room
				late.Recopy.Drop = rec.Copies[1:]
			}
			before := s.record("a.png").Copies
			s.expectKind(s.do(late), image.KindStale)
			if got := s.record("a.png").Copies; !slices.Equal(got, before) {
				t.Errorf("copies %v after %v", got, before)
			}
			late.Recopy.Add = []Reported{{file(3, 2), s.index}}
			s.expectKind(s.do(late), "")
		})
	}
}

// TestRecordsArePaged reads all records of a shard in parts.
func TestRecordsArePaged(t *testing.T) {
	s := newShard(t)
	for n := range byte(7) {
		s.put(n+1, fmt.Sprintf("%d.png", n))
	}
	for limit := 1; limit < 9; limit++ {
		var names string
		for after := []byte(nil); ; {
			recs, last, err := Records(s.db, after, limit)
			if err != nil {
				t.Fatal(err)
			}
			for _, rec := range recs {
				names += rec.Name[:1]
			}
			if after = last; after == nil {
				break
			}
		}
		if names != "0123456" {
			t.Errorf("pages of %d: %s", limit, names)
		}
	}
}

func checkInvariants(rt *rapid.T, s *shard) {
	tot := s.totals()
	want := &Totals{Nodes: map[image.NodeID]*NodeTotals{}}
	for n := range byte(2) {
		if rec := s.record(fmt.Sprintf("name%d", n)); rec != nil {
			want.count(rec, 1)
			if len(rec.Copies) == 0 || !slices.Contains(rec.Replicas(), rec.Owner) {
				rt.Fatalf("record %+v has no copy on its owner", rec)
			}
		}
	}
	if tot.Images != want.Images || tot.Bytes != want.Bytes || tot.UnderReplicated != want.UnderReplicated {
		rt.Fatalf("totals %+v do not match the records %+v", tot, want)
	}
	for n := range byte(5) {
		u, err := GetUpload(s.db, id(n))
		if err != nil {
			rt.Fatal(err)
		}
		if u == nil {
			continue
		}
		if (u.State == Committed) != (u.Record != nil) || (u.State == Failed) != (u.Problem != nil) ||
			u.Index == 0 || u.Index > s.index {
			rt.Fatalf("upload %+v", u)
		}
	}
	for node, l := range tot.Nodes {
		if l.Assigned.Images < 0 || l.Storing.Images < 0 || l.Owned.Images < 0 || l.Stored.Images < 0 {
			rt.Fatalf("node %d has negative loads %+v", node, l)
		}
	}
}

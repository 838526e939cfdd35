package catalog

import (
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

func assign(n byte, name string, holders ...image.NodeID) Command {
	return Command{Assign: &Assign{
		ID: id(n), User: "alice", Name: name, Bytes: 100, Holders: holders, Replicas: 2, Created: clock,
	}}
}

// at returns what a node stores that was asked to in an epoch; each time the same file.
func at(node image.NodeID, epoch uint32) StoredCopy { return file(node, epoch, 1) }

// file returns one of the files that a node may have of an upload in an epoch.
func file(node image.NodeID, epoch uint32, n byte) StoredCopy {
	attempt := image.Attempt{byte(node), byte(epoch), n}
	return StoredCopy{Copy: image.Copy{Node: node, Attempt: attempt, Key: uint32(n)}, Epoch: epoch}
}

// wants asks Wants for a copy.
func (s *shard) wants(n byte, c StoredCopy) bool {
	s.t.Helper()
	wanted, err := Wants(s.db, c.Node, image.FileID{Image: id(n), Shard: 2, Attempt: c.Attempt})
	if err != nil {
		s.t.Fatal(err)
	}
	return wanted
}

func stored(n byte, sum image.Check, copies ...StoredCopy) Command {
	return Command{Stored: &Stored{ID: id(n), Copies: copies, Check: sum}}
}

func drop(n byte, epoch uint32, min int, nodes ...image.NodeID) Command {
	return Command{Reassign: &Reassign{
		ID: id(n), Epoch: epoch, Drop: nodes, Min: min, Cause: image.KindAborted, Text: "gone",
	}}
}

func TestUploadCommitsWhenAllStored(t *testing.T) {
	s := newShard(t)
	r := s.do(assign(1, "a.png", 2, 3, 1))
	if u := r.Upload; u.Owner != 2 || u.Epoch != 1 || len(u.Storing) != 2 || u.Slot(1) != nil ||
		u.Slot(3) == nil {
		t.Fatalf("assigned %+v", u)
	}
	if r = s.do(stored(1, sumA, at(2, 1))); r.Upload.State != Pending ||
		s.record("a.png") != nil {
		t.Fatalf("committed with one of two copies: %+v", r.Upload)
	}
	r = s.do(stored(1, sumA, at(3, 1)))
	rec := s.record("a.png")
	if r.Upload.State != Committed || rec == nil {
		t.Fatalf("not committed with both copies: %+v", r.Upload)
	}
	want := image.Record{
		User: "alice", Name: "a.png", Version: 3, ID: id(1), Bytes: 100, Check: sumA, Owner: 2,
		Copies: []image.Copy{at(2, 1).Copy, at(3, 1).Copy}, Shard: 2, Wanted: 2, Created: clock,
	}
	if fmt.Sprint(*rec) != fmt.Sprint(want) {
		t.Errorf("record %+v\nwant %+v", *rec, want)
	}
	tot := s.totals()
	if tot.Images != 1 || tot.Bytes != 100 || tot.UnderReplicated != 0 || tot.Nodes[2].Owned.Images != 1 ||
		tot.Nodes[3].Stored.Bytes != 100 {
		t.Errorf("totals %+v", tot)
	}
	for c, want := range map[StoredCopy]bool{
		at(2, 1): true, at(3, 1): true, at(1, 1): false, at(2, 2): false, file(2, 1, 2): false,
	} {
		if got := s.wants(1, c); got != want {
			t.Errorf("%+v is wanted: %v", c, got)
		}
	}
}

// TestOneFileASlot: the shard waits for whatever file a node stores, and once one is reported takes no other.
func TestOneFileASlot(t *testing.T) {
	s := newShard(t)
	s.do(assign(1, "a.png", 1, 2, 3))
	other := file(1, 1, 2)
	if !s.wants(1, at(1, 1)) || !s.wants(1, other) {
		t.Error("a file that may yet be reported is not wanted")
	}
	none := at(1, 1)
	none.Attempt = image.Attempt{}
	s.expectKind(s.do(stored(1, sumA, none)), image.KindInvalid)
	for range 2 {
		s.expectKind(s.do(stored(1, sumA, at(1, 1))), "")
	}
	s.expectKind(s.do(stored(1, sumA, other)), image.KindStale)
	if !s.wants(1, at(1, 1)) || s.wants(1, other) {
		t.Error("not the reported file alone is wanted")
	}
	s.expectKind(s.do(stored(1, sumA, at(2, 1))), "")
	s.expectKind(s.do(stored(1, sumA, other)), image.KindStale)
	if rec := s.record("a.png"); rec == nil || rec.Copies[0] != at(1, 1).Copy {
		t.Errorf("record %+v", rec)
	}
}

func TestRepeatedCommandsChangeNothing(t *testing.T) {
	s := newShard(t)
	s.do(assign(1, "a.png", 1, 2, 3))
	if r := s.do(assign(1, "a.png", 3, 2, 1)); r.Upload.Owner != 1 {
		t.Fatalf("the second Assign won: %+v", r.Upload)
	}
	s.do(stored(1, sumA, at(1, 1), at(2, 1)))
	before := s.totals()
	s.expectKind(s.do(stored(1, sumA, at(1, 1))), "")
	if r := s.do(assign(1, "a.png", 1, 2, 3)); r.Upload.State != Committed {
		t.Fatalf("a committed upload was assigned again: %+v", r.Upload)
	}
	if after := s.totals(); fmt.Sprint(after.Nodes[1]) != fmt.Sprint(before.Nodes[1]) || after.Images != 1 {
		t.Errorf("totals changed from %+v to %+v", before, after)
	}
	s.expectKind(s.do(assign(1, "b.png", 1, 2, 3)), image.KindConflict)
	s.expectKind(s.do(stored(1, sumB, at(1, 1))), image.KindConflict)
}

func TestTakeoverGivesThePartToTheNextHolder(t *testing.T) {
	s := newShard(t)
	s.do(assign(1, "a.png", 1, 2, 3))
	s.do(stored(1, sumA, at(2, 1)))
	r := s.do(drop(1, 1, 2, 1))
	if u := r.Upload; u.Epoch != 2 || u.Owner != 2 || u.Slot(1) != nil || u.Slot(3).Epoch != 2 ||
		!u.Slot(2).Stored() {
		t.Fatalf("reassigned %+v", u)
	}
	s.expectKind(s.do(stored(1, sumA, at(1, 1))), image.KindStale)
	s.expectKind(s.do(drop(1, 1, 2, 3)), image.KindStale)
	if r = s.do(stored(1, sumA, at(3, 2))); r.Upload.State != Committed {
		t.Fatalf("not committed: %+v", r.Upload)
	}
	if rec := s.record("a.png"); rec.Owner != 2 || !slices.Equal(rec.Replicas(), []image.NodeID{2, 3}) {
		t.Errorf("record %+v", rec)
	}
	if s.wants(1, at(1, 1)) {
		t.Error("the dead owner's file is still wanted")
	}
	tot := s.totals()
	if n := tot.Nodes[1]; n.Assigned.Images != 0 || n.Storing.Images != 0 {
		t.Errorf("node 1 is still charged: %+v", n)
	}
}

func TestTooFewHoldersFailOrCommitWithLess(t *testing.T) {
	t.Run("fail", func(t *testing.T) {
		s := newShard(t)
		s.do(assign(1, "a.png", 1, 2))
		r := s.do(drop(1, 1, 2, 1))
		s.expectKind(r, image.KindAborted)
		if r.Upload.State != Failed || s.totals().Nodes[2].Assigned.Images != 0 {
			t.Fatalf("upload %+v, totals %+v", r.Upload, s.totals().Nodes[2])
		}
		s.expectKind(s.do(stored(1, sumA, at(2, 1))), image.KindStale)
		if r = s.do(assign(1, "a.png", 2, 3)); r.Upload.State != Pending || r.Upload.Epoch <= 2 {
			t.Fatalf("the retry is %+v, want a later epoch", r.Upload)
		}
	})
	t.Run("less", func(t *testing.T) {
		s := newShard(t)
		s.do(assign(1, "a.png", 1, 2))
		s.do(stored(1, sumA, at(2, 1)))
		if r := s.do(drop(1, 1, 1, 1)); r.Upload.State != Committed {
			t.Fatalf("upload %+v", r.Upload)
		}
		if got := s.totals().UnderReplicated; got != 1 {
			t.Errorf("%d are under-replicated, want 1", got)
		}
		s.expectKind(s.do(Command{Delete: &Delete{User: "alice", Name: "a.png"}}), "")
		if got := s.totals(); got.UnderReplicated != 0 || got.Images != 0 || got.Bytes != 0 {
			t.Errorf("after the delete: %+v", got)
		}
	})
}

func TestDifferentBytesUnderOneIDFail(t *testing.T) {
	s := newShard(t)
	s.do(assign(1, "a.png", 1, 2, 3))
	s.do(stored(1, sumA, at(1, 1)))
	r := s.do(stored(1, sumB, at(2, 1)))
	s.expectKind(r, image.KindConflict)
	if r.Upload.State != Failed || s.record("a.png") != nil {
		t.Fatalf("upload %+v", r.Upload)
	}
}

// absentOnly is If-None-Match: *.
var absentOnly = image.Conditions{NoneMatch: image.Tags{image.AnyTag}}

func TestReplaceAndIfAbsent(t *testing.T) {
	s := newShard(t)
	both := func(n byte, sum image.Check) Result {
		return s.do(stored(n, sum, at(1, 1), at(2, 1)))
	}
	absent := assign(2, "a.png", 1, 2, 3)
	absent.Assign.If = absentOnly
	late := assign(3, "a.png", 1, 2, 3)
	late.Assign.If = absentOnly
	s.expectKind(s.do(late), "")
	s.do(assign(1, "a.png", 1, 2, 3))
	both(1, sumA)
	s.expectKind(s.do(absent), image.KindExists)
	s.expectKind(both(3, sumB), image.KindExists) // assigned when the name was free
	first := s.record("a.png")
	s.do(assign(4, "a.png", 1, 2, 3))
	s.events = nil
	both(4, sumB)
	now := s.record("a.png")
	if now.Check != sumB || now.Version <= first.Version {
		t.Fatalf("the second upload is not the newest: %+v after %+v", now, first)
	}
	removed := s.events[0].Removed
	if removed == nil || removed.ID != id(1) {
		t.Fatalf("events %+v do not name the replaced record", s.events)
	}
	if s.wants(1, at(1, 1)) {
		t.Error("the replaced file is still wanted")
	}
}

// TestLateCommands applies commands again that were answered long ago, like a proposal that was believed
// lost. The name is another image's by then.
func TestLateCommands(t *testing.T) {
	s := newShard(t)
	put := func(n byte) {
		t.Helper()
		s.expectKind(s.do(assign(n, "a.png", 1, 2)), "")
		s.expectKind(s.do(stored(n, sumA, at(1, 1), at(2, 1))), "")
	}
	remove := func(n byte) Command {
		return Command{Delete: &Delete{ID: id(n), User: "alice", Name: "a.png", Created: clock}}
	}
	s.expectKind(s.do(remove(11)), image.KindNotFound)
	put(1)
	s.expectKind(s.do(remove(11)), image.KindNotFound)
	late := assign(2, "a.png", 1, 2)
	late.Assign.If = absentOnly
	s.expectKind(s.do(late), image.KindExists)
	s.expectKind(s.do(remove(12)), "")
	s.expectKind(s.do(late), image.KindExists)
	if u, err := GetUpload(s.db, id(2)); err != nil || u.State != Failed {
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
	s.expectKind(s.do(assign(1, "a.png", 1, 2)), "")
	s.expectKind(s.do(stored(1, sumA, at(1, 1), at(2, 1))), "")
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
	withDigest := stored(2, sumA, at(1, 1), at(2, 1))
	withDigest.Stored.Sealed = &image.SealedDigest{1}
	s.expectKind(s.do(assign(2, "a.png", 1, 2)), "")
	s.expectKind(s.do(withDigest), "")
	s.expectKind(s.do(remove(14, sealedTag(2))), image.KindChanged)
	s.expectKind(s.do(remove(15, sealedTag(1))), "")
}

// TestEpochsOutlastARefusal assigns a failed upload again while its name is taken. The refusal must
// not make the shard forget the epochs of the first attempt: a late Stored of it would count.
func TestEpochsOutlastARefusal(t *testing.T) {
	s := newShard(t)
	first := assign(1, "a.png", 1, 2)
	first.Assign.If = absentOnly
	s.do(first)
	s.expectKind(s.do(drop(1, 1, 2, 1)), image.KindAborted)
	s.do(assign(2, "a.png", 1, 2))
	s.do(stored(2, sumA, at(1, 1), at(2, 1)))
	s.expectKind(s.do(first), image.KindExists)
	s.expectKind(s.do(Command{Delete: &Delete{User: "alice", Name: "a.png"}}), "")
	s.expectKind(s.do(first), image.KindExists) // as its client was answered
	first.Assign.If = image.Conditions{}
	if r := s.do(first); r.Upload == nil || r.Upload.Epoch <= 2 {
		t.Fatalf("the last attempt is %+v, want an epoch after the first one's", r.Upload)
	}
	s.expectKind(s.do(stored(1, sumA, at(1, 1), at(2, 1))),
		image.KindStale)
}

func TestListIsOrderedAndPaged(t *testing.T) {
	s := newShard(t)
	for i, name := range []string{"b", "a/2", "a/1", "a0", "c"} {
		s.do(assign(byte(i+1), name, 1, 2, 3))
		s.do(stored(byte(i+1), sumA, at(1, 1), at(2, 1)))
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
		"empty":      {},
		"no holders": assign(1, "a.png"),
		"node twice": assign(1, "a.png", 1, 1),
		"node zero":  assign(1, "a.png", 0, 1),
		"bad name":   assign(1, "../a.png", 1),
		"no ID":      assign(0, "a.png", 1),
		"unknown user": {Assign: &Assign{
			ID: id(1), User: "a/b", Name: "x", Bytes: 1, Holders: []image.NodeID{1}, Replicas: 1, Created: clock,
		}},
		"stored first": stored(9, sumA, at(1, 1)),
		"no time": {Assign: &Assign{
			ID: id(1), User: "alice", Name: "x", Bytes: 1, Holders: []image.NodeID{1}, Replicas: 1,
		}},
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

// TestRandomHistories drives a shard with random commands and checks after each what must always
// hold; at the end a second replica that applies the same log must have the same state.
func TestRandomHistories(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := newShard(t)
		steps := rapid.IntRange(1, 60).Draw(rt, "steps")
		epochs := map[image.ID]uint32{}
		for range steps {
			s.do(randomCommand(rt))
			checkInvariants(rt, s, epochs)
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

func randomCommand(rt *rapid.T) Command {
	n := rapid.ByteRange(1, 4).Draw(rt, "upload")
	node := image.NodeID(rapid.IntRange(1, 3).Draw(rt, "node"))
	epoch := uint32(rapid.IntRange(1, 4).Draw(rt, "epoch"))
	switch rapid.IntRange(0, 5).Draw(rt, "command") {
	case 0:
		order := rapid.Permutation([]image.NodeID{1, 2, 3}).Draw(rt, "order")
		c := assign(n, fmt.Sprintf("name%d", n%2), order...)
		c.Assign.If = drawConditions(rt, id(rapid.ByteRange(1, 4).Draw(rt, "tag")))
		return c
	case 1, 2:
		return stored(n, sumA, at(node, epoch))
	case 3:
		return drop(n, epoch, rapid.IntRange(1, 2).Draw(rt, "min"), node)
	case 4:
		add := at(node, epoch).Copy
		other := at(node%3+1, uint32(rapid.IntRange(1, 2).Draw(rt, "other epoch"))).Copy
		dropped := rapid.SampledFrom([][]image.Copy{nil, {other}}).Draw(rt, "drop")
		return recopy(n, fmt.Sprintf("name%d", n%2), []image.Copy{add}, dropped...)
	default:
		return Command{Delete: &Delete{User: "alice", Name: fmt.Sprintf("name%d", n%2)}}
	}
}

func recopy(n byte, name string, add []image.Copy, drop ...image.Copy) Command {
	return Command{Recopy: &Recopy{User: "alice", Name: name, ID: id(n), Add: add, Drop: drop}}
}

func TestRecopy(t *testing.T) {
	of := func(node image.NodeID, n uint32) image.Copy { return at(node, n).Copy }
	one := func(c ...image.Copy) []image.Copy { return c }
	s := newShard(t)
	s.do(assign(1, "a.png", 1, 2, 3))
	s.do(drop(1, 1, 1, 2, 3)) // one copy, of two wanted
	s.do(stored(1, sumA, at(1, 1)))
	if tot := s.totals(); tot.UnderReplicated != 1 {
		t.Fatalf("totals %+v", tot)
	}
	steps := []struct {
		what string
		cmd  Command
		kind image.Kind
		want []image.Copy
	}{
		{"another image", recopy(2, "a.png", one(of(3, 1))), image.KindStale, one(of(1, 1))},
		{"no image", recopy(1, "b.png", one(of(3, 1))), image.KindStale, one(of(1, 1))},
		{"fewer copies", recopy(1, "a.png", nil, of(1, 1)), image.KindStale, one(of(1, 1))},
		{"second copy on a node", recopy(1, "a.png", one(of(1, 2))), image.KindStale, one(of(1, 1))},
		{"too many", recopy(1, "a.png", one(of(2, 1), of(3, 1))), image.KindStale, one(of(1, 1))},
		{"healed", recopy(1, "a.png", one(of(3, 1))), "", one(of(1, 1), of(3, 1))},
		{"healed again", recopy(1, "a.png", one(of(3, 1))), "", one(of(1, 1), of(3, 1))},
		{"healed enough", recopy(1, "a.png", one(of(2, 1))), image.KindStale, one(of(1, 1), of(3, 1))},
		{"the owner's moved", recopy(1, "a.png", one(of(2, 1)), of(1, 1)), "", one(of(3, 1), of(2, 1))},
		{"moved again", recopy(1, "a.png", one(of(2, 1)), of(1, 1)), "", one(of(3, 1), of(2, 1))},
		{
			"dropped before", recopy(1, "a.png", one(of(1, 2)), of(1, 1)), image.KindStale,
			one(of(3, 1), of(2, 1)),
		},
		{"another file on the node", recopy(1, "a.png", one(of(3, 2)), of(3, 1)), "", one(of(2, 1), of(3, 2))},
	}
	for _, step := range steps {
		s.expectKind(s.do(step.cmd), step.kind)
		if rec := s.record("a.png"); !slices.Equal(rec.Copies, step.want) {
			t.Fatalf("%s: copies %v, want %v", step.what, rec.Copies, step.want)
		}
	}
	rec := s.record("a.png")
	tot := s.totals()
	if rec.Owner != 3 || rec.Version != 3 {
		t.Errorf("record %+v", rec)
	}
	if tot.UnderReplicated != 0 || tot.Nodes[1].Stored.Images != 0 || tot.Nodes[2].Stored.Bytes != 100 ||
		tot.Nodes[3].Owned.Images != 1 {
		t.Errorf("totals %+v", tot)
	}
	var removed []image.Copy
	for _, e := range s.events {
		if e.Removed != nil {
			removed = append(removed, e.Removed.Copies...)
		}
	}
	if want := one(of(1, 1), of(3, 1)); !slices.Equal(removed, want) {
		t.Errorf("the events say that %v are garbage, want %v", removed, want)
	}
	for c, want := range map[image.Copy]bool{
		of(1, 1): false, of(2, 1): true, of(3, 1): false, of(3, 2): true,
	} {
		if got := s.wants(1, StoredCopy{Copy: c}); got != want {
			t.Errorf("copy %v is wanted: %v", c, got)
		}
	}
}

// TestRecordsArePaged reads all records of a shard in parts.
func TestRecordsArePaged(t *testing.T) {
	s := newShard(t)
	for n := range byte(7) {
		s.do(assign(n+1, fmt.Sprintf("%d.png", n), 1, 2))
		s.do(stored(n+1, sumA, at(1, 1), at(2, 1)))
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

func checkInvariants(rt *rapid.T, s *shard, epochs map[image.ID]uint32) {
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
		if u.Epoch < epochs[u.ID] {
			rt.Fatalf("epoch of %s fell from %d to %d", u.ID, epochs[u.ID], u.Epoch)
		}
		epochs[u.ID] = u.Epoch
		if u.State == Pending && (u.Slot(u.Owner) == nil || len(u.Storing) > u.Replicas) {
			rt.Fatalf("pending upload without a storing owner: %+v", u)
		}
	}
	for node, l := range tot.Nodes {
		if l.Assigned.Images < 0 || l.Storing.Images < 0 || l.Owned.Images < 0 || l.Stored.Images < 0 {
			rt.Fatalf("node %d has negative loads %+v", node, l)
		}
	}
}

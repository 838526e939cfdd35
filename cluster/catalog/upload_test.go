package catalog

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"imgcluster/cluster/image"
)

// reported returns a copy on a node as of an entry of the log.
func reported(node image.NodeID, index uint64) Reported {
	return Reported{file(node, 1), index}
}

func commitOf(n byte, name string, copies ...Reported) Command {
	return Command{Commit: &Commit{
		ID: id(n), User: "alice", Name: name, Bytes: 100, Copies: copies, Check: sumA, Wanted: 2, Created: clock,
	}}
}

func endOf(n byte, name string) Command {
	return Command{End: &End{
		ID: id(n), User: "alice", Name: name, Cause: image.KindAborted, Text: "gone", Created: clock,
	}}
}

func abortOf(n byte, c Reported) Command {
	file := image.FileID{Image: id(n), Shard: 2, Attempt: c.Attempt}
	return Command{Abort: &Abort{File: file, User: "alice", Created: clock}}
}

// now is the index of the shard's last entry: what a node reports that has acted on all.
func (s *shard) now(node image.NodeID) Reported { return reported(node, s.index) }

func TestOneEntryCommits(t *testing.T) {
	s := newShard(t)
	r := s.do(commitOf(1, "a.png", s.now(2), s.now(3)))
	rec := s.record("a.png")
	if r.Err() != nil || rec == nil || rec.Owner != 2 || !slices.Equal(rec.Replicas(), []image.NodeID{2, 3}) ||
		rec.Version != 1 {
		t.Fatalf("%v, %+v", r.Err(), rec)
	}
	want := image.Record{
		User: "alice", Name: "a.png", Version: 1, ID: id(1), Bytes: 100, Check: sumA, Owner: 2,
		Copies: []image.Copy{file(2, 1), file(3, 1)}, Shard: 2, Wanted: 2, Created: clock,
	}
	if !reflect.DeepEqual(*rec, want) || !reflect.DeepEqual(r.Upload.Record, rec) {
		t.Errorf("record %+v\nwant %+v", *rec, want)
	}
	for c, want := range map[image.Copy]bool{
		file(2, 1): true, file(3, 1): true, file(1, 1): false, file(2, 2): false,
		{Node: 3, Attempt: file(2, 1).Attempt}: false,
	} {
		if got := s.names(1, c); got != want {
			t.Errorf("%+v is named: %v", c, got)
		}
	}
	sums := s.totals()
	if sums.UnderReplicated != 0 || sums.Nodes[2].Owned.Images != 1 || sums.Nodes[3].Stored.Bytes != 100 {
		t.Errorf("%+v", sums)
	}
	if sums.Images != 1 || sums.Nodes[2].Assigned.Images != 1 || sums.Nodes[3].Storing.Bytes != 100 {
		t.Fatalf("%+v", sums)
	}
	// The first one made the record, whatever copies another leader knew of.
	r = s.do(commitOf(1, "a.png", s.now(1), s.now(3)))
	if r.Err() != nil || r.Upload.Record.Owner != 2 || s.record("a.png").Version != 1 {
		t.Fatalf("a second commit: %v, %+v", r.Err(), r.Upload)
	}
	if again := s.totals(); !reflect.DeepEqual(again, sums) {
		t.Errorf("sums %+v", again)
	}
	other := commitOf(1, "a.png", s.now(1))
	other.Commit.Check = sumB
	s.expectKind(s.do(other), image.KindConflict)
	s.expectKind(s.do(commitOf(1, "b.png", s.now(1))), image.KindConflict)
	s.expectKind(s.do(endOf(1, "a.png")), "")
	if s.record("a.png") == nil {
		t.Error("an end removed a record")
	}
	s.do(commitOf(2, "a.png", s.now(1), s.now(2)))
	if rec := s.record("a.png"); rec.ID != id(2) || s.totals().Images != 1 {
		t.Errorf("not replaced: %+v", rec)
	}
}

// TestCopiesThatCountNoMore: copies that were reported before something that their nodes may have deleted
// them for. Reported again they count, but for one that was taken back.
func TestCopiesThatCountNoMore(t *testing.T) {
	for what, happens := range map[string]func(*shard){
		"the upload ended":       func(s *shard) { s.do(endOf(1, "a.png")) },
		"a node lost its disk":   func(s *shard) { s.do(Command{Restart: &Restart{Node: 3}}) },
		"the user was purged":    func(s *shard) { s.do(purge(1, "alice")) },
		"another was forgotten":  func(s *shard) { s.forgetAll(10) },
		"its end was forgotten":  func(s *shard) { s.do(endOf(1, "a.png")); s.forgetAll(10) },
		"its record was deleted": func(s *shard) { s.do(commitOf(1, "a.png", s.now(2))); s.forgetAll(10) },
	} {
		t.Run(what, func(t *testing.T) {
			s := newShard(t)
			s.do(commitOf(9, "there.png", s.now(1), s.now(2)))
			before := []Reported{s.now(2), s.now(3)}
			happens(s)
			s.do(Command{Delete: &Delete{User: "alice", Name: "a.png", Created: clock}})
			s.expectKind(s.do(commitOf(1, "a.png", before...)), image.KindStale)
			s.expectKind(s.do(commitOf(1, "a.png", before[1], s.now(2))), image.KindStale)
			if s.record("a.png") != nil {
				t.Fatal("there is a record")
			}
			s.expectKind(s.do(commitOf(1, "a.png", s.now(2), s.now(3))), "")
		})
	}
	s := newShard(t)
	back := s.now(2)
	s.do(abortOf(1, back))
	if last := s.events[len(s.events)-1]; last.Aborted == nil || last.Aborted.File.Attempt != back.Attempt {
		t.Errorf("event %+v", last)
	}
	s.expectKind(s.do(commitOf(1, "a.png", s.now(2), s.now(3))), image.KindStale)
	s.expectKind(s.do(commitOf(1, "a.png", s.now(3))), "")
	s.events = nil
	s.do(abortOf(1, s.now(3)))
	if len(s.events) > 0 {
		t.Errorf("a copy that the record names was taken back: %+v", s.events)
	}
}

// forgetAll has the shard forget what it keeps of the past, by so many answers to others.
func (s *shard) forgetAll(n byte) {
	s.kept = Retention{Time: time.Hour, Step: time.Second, User: 1, Total: 1}
	for i := range n {
		s.do(Command{Delete: &Delete{ID: id(100 + i), User: "bob", Name: "nothing", Created: clock}})
	}
	s.do(endOf(99, "z.png"))
	s.do(Command{Delete: &Delete{ID: id(99), User: "alice", Name: "nothing", Created: clock}})
	s.kept = finishedKept
}

func TestConditionsOfACommit(t *testing.T) {
	s := newShard(t)
	s.do(commitOf(9, "there.png", s.now(1), s.now(2)))
	absent := image.Conditions{NoneMatch: image.Tags{"*"}}
	c := commitOf(1, "there.png", s.now(2), s.now(3))
	c.Commit.If = absent
	s.expectKind(s.do(c), image.KindExists)
	c.Commit.Copies = []Reported{s.now(2), s.now(3)}
	s.do(Command{Delete: &Delete{User: "alice", Name: "there.png", Created: clock}})
	s.expectKind(s.do(c), image.KindExists) // its client was told
	early := endOf(2, "there.png")
	early.End.If = absent
	if r := s.do(early); r.Err() != nil || r.Upload != nil {
		t.Errorf("an upload ended though its conditions hold: %+v", r)
	}
	s.do(commitOf(3, "there.png", s.now(1)))
	s.expectKind(s.do(early), image.KindExists)
	late := commitOf(2, "there.png", s.now(2))
	s.expectKind(s.do(late), image.KindExists)
}

func TestMalformedCommits(t *testing.T) {
	s := newShard(t)
	change := func(fn func(c *Commit)) Command {
		c := commitOf(1, "a.png", s.now(2), s.now(3))
		fn(c.Commit)
		return c
	}
	for what, c := range map[string]Command{
		"no copies":     commitOf(1, "a.png"),
		"too many":      commitOf(1, "a.png", s.now(1), s.now(2), s.now(3)),
		"a node twice":  commitOf(1, "a.png", s.now(2), s.now(2)),
		"no node":       commitOf(1, "a.png", s.now(0)),
		"no attempt":    change(func(c *Commit) { c.Copies[0].Attempt = image.Attempt{} }),
		"no bytes":      change(func(c *Commit) { c.Bytes = 0 }),
		"no ID":         change(func(c *Commit) { c.ID = image.ID{} }),
		"no time":       change(func(c *Commit) { c.Created = time.Time{} }),
		"a path":        change(func(c *Commit) { c.Name = "../a" }),
		"a type":        change(func(c *Commit) { c.Type = "a\nb" }),
		"end of no ID":  {End: &End{User: "alice", Name: "a", Cause: image.KindAborted, Created: clock}},
		"end for what":  {End: &End{ID: id(1), User: "alice", Name: "a", Cause: "?", Created: clock}},
		"end when":      {End: &End{ID: id(1), User: "alice", Name: "a", Cause: image.KindAborted}},
		"abort when":    {Abort: &Abort{User: "alice"}},
		"abort whose":   {Abort: &Abort{Created: clock}},
		"restart of no": {Restart: &Restart{}},
	} {
		t.Run(what, func(t *testing.T) {
			before := len(s.db)
			if r := s.do(c); r.Err() == nil || len(s.db) != before || len(s.events) > 0 {
				t.Errorf("answered with %+v, %d events", r, len(s.events))
			}
		})
	}
}

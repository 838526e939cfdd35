package catalog

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"imgcluster/cluster/image"
)

// goodJoin is the first Join of a cluster of three nodes.
func goodJoin() *Join {
	j := &Join{
		Node: 1, Cluster: "a", KeyID: "k", Shards: []uint64{2, 3}, Incarnation: "i1", Starts: 1, Run: "r1",
	}
	for n := range 3 {
		j.Members = append(j.Members, Member{ID: image.NodeID(n + 1), API: api(n + 1), Raft: raft(n + 1)})
	}
	return j
}

// TestJoinIsBounded sends joins that no node makes, as the first of a cluster and to one that runs. Each is
// refused with a next step, and changes nothing.
func TestJoinIsBounded(t *testing.T) {
	long := strings.Repeat("a", 70_000)
	for name, change := range map[string]func(*Join){
		"long cluster name":        func(j *Join) { j.Cluster = long },
		"empty cluster name":       func(j *Join) { j.Cluster = "" },
		"cluster name with a NUL":  func(j *Join) { j.Cluster = "a\x00" },
		"cluster name not UTF-8":   func(j *Join) { j.Cluster = "a\xff" },
		"long key ID":              func(j *Join) { j.KeyID = long },
		"key ID with an escape":    func(j *Join) { j.KeyID = "\x1b[2J" },
		"long incarnation":         func(j *Join) { j.Incarnation = long },
		"no incarnation":           func(j *Join) { j.Incarnation = "" },
		"incarnation with a quote": func(j *Join) { j.Incarnation = `a"` },
		"long run":                 func(j *Join) { j.Run = long },
		"no run":                   func(j *Join) { j.Run = "" },
		"no node":                  func(j *Join) { j.Node = 0 },
		"never started":            func(j *Join) { j.Starts = 0 },
		"too many starts":          func(j *Join) { j.Starts = startsMax + 1 },
		"no members":               func(j *Join) { j.Members = nil },
		"too many members": func(j *Join) {
			for n := 3; n <= image.NodesMax; n++ {
				j.Members = append(j.Members, Member{ID: image.NodeID(n + 1), API: api(n + 1), Raft: raft(n + 1)})
			}
		},
		"member without an ID":     func(j *Join) { j.Members[1].ID = 0 },
		"member twice":             func(j *Join) { j.Members[1].ID = 1 },
		"address twice":            func(j *Join) { j.Members[1].Raft = j.Members[0].API },
		"long address":             func(j *Join) { j.Members[1].API = long + ":8001" },
		"address without a port":   func(j *Join) { j.Members[1].API = "10.0.0.2" },
		"address with a bad port":  func(j *Join) { j.Members[1].API = "10.0.0.2:99999" },
		"address with a line":      func(j *Join) { j.Members[1].Raft = "10.0.0.2\n:9001" },
		"address with a quote":     func(j *Join) { j.Members[1].Raft = `10.0".2:9001` },
		"API and Raft on one port": func(j *Join) { j.Members[1].Raft = j.Members[1].API },
		"no shards":                func(j *Join) { j.Shards = nil },
		"shard twice":              func(j *Join) { j.Shards = []uint64{2, 2} },
		"the system shard":         func(j *Join) { j.Shards = []uint64{SystemShard, 2} },
		"too many shards": func(j *Join) {
			for n := range uint64(shardsMax) {
				j.Shards = append(j.Shards, 100+n)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSystemShard(t)
			for _, when := range []string{"first", "later"} {
				before := len(s.events)
				j := goodJoin()
				change(j)
				r := s.do(Command{Join: j})
				if image.KindOf(r.Err()) != image.KindInvalid || image.HintOf(r.Err()) == "" {
					t.Errorf("%s: answered with %v, want a refusal with a hint", when, r.Err())
				}
				if len(s.events) != before || when == "first" && len(s.db) != 0 {
					t.Errorf("%s: left %v and %v", when, s.db, s.events)
				}
				if text := fmt.Sprint(r.Err()); len(text) > 1024 {
					t.Errorf("%s: an answer of %d bytes", when, len(text))
				}
				s.expectKind(s.do(Command{Join: goodJoin()}), "")
			}
		})
	}
}

// TestLargestMembership: the largest members that joins can bring about pass the check of whoever gets them
// from another node, and are far from the limits of what reads them.
func TestLargestMembership(t *testing.T) {
	s := newSystemShard(t)
	token := strings.Repeat("f", tokenBytesMax)
	j := &Join{
		Node: 1, Cluster: strings.Repeat("c", clusterBytesMax), KeyID: token, Run: token, Starts: startsMax,
	}
	for n := range image.NodesMax {
		host := fmt.Sprintf("%0*d", addressBytesMax-6, n)
		j.Members = append(j.Members, Member{
			ID: image.NodeID(1<<32 - 1 - n), API: host + ":10001", Raft: host + ":10002",
		})
	}
	for n := range uint64(shardsMax) {
		j.Shards = append(j.Shards, 1<<60+n)
	}
	for _, x := range j.Members {
		j.Node, j.Incarnation = x.ID, token
		s.expectKind(s.do(Command{Join: j}), "")
	}
	m, err := GetMembership(s.db)
	if err != nil || m.Check() != nil {
		t.Fatalf("%v, %v", err, m.Check())
	}
	members, err := json.Marshal(m.Members)
	if err != nil || len(members) > 16<<10 {
		t.Errorf("members of %d bytes, %v", len(members), err)
	}
	all, err := json.Marshal(m)
	if err != nil || len(all) > membershipBytes {
		t.Errorf("membership of %d bytes, %v", len(all), err)
	}
	for name, change := range map[string]func(*Membership){
		"member":      func(m *Membership) { m.Members[0].API = strings.Repeat("a", 70_000) },
		"incarnation": func(m *Membership) { m.Members[0].Incarnation = strings.Repeat("a", 70_000) },
		"state":       func(m *Membership) { m.Members[0].State = "x" },
		"name":        func(m *Membership) { m.Cluster = "\x00" },
		"shards":      func(m *Membership) { m.Shards = nil },
		"layout":      func(m *Membership) { m.Shards[SystemShard] = nil },
	} {
		bad := &Membership{}
		if err := json.Unmarshal(all, bad); err != nil {
			t.Fatal(err)
		}
		change(bad)
		if image.KindOf(bad.Check()) != image.KindInvalid {
			t.Errorf("a bad %s passes: %v", name, bad.Check())
		}
	}
}

// TestCommandsAreBounded sends commands with fields that no proposer of this program gives them.
func TestCommandsAreBounded(t *testing.T) {
	long := strings.Repeat("a", 70_000)
	commit := commitOf(1, "a.png", reported(1, 0), reported(2, 0))
	bad := func(change func(*Commit)) Command {
		c := *commit.Commit
		change(&c)
		return Command{Commit: &c}
	}
	end := func(change func(*End)) Command {
		c := endOf(1, "a.png")
		change(c.End)
		return c
	}
	many := make(image.Tags, conditionsMax+1)
	for i := range many {
		many[i] = `"a"`
	}
	user := Command{PutKey: &PutKey{User: "alice", KeyID: 1, Wrapped: []byte("k")}}
	for name, c := range map[string]Command{
		"type":        bad(func(c *Commit) { c.Type = "image/\x00" }),
		"tags":        bad(func(c *Commit) { c.If.NoneMatch = many }),
		"tag":         bad(func(c *Commit) { c.If.Match = image.Tags{long} }),
		"wanted":      bad(func(c *Commit) { c.Wanted = image.NodesMax + 1 }),
		"bytes":       bad(func(c *Commit) { c.Bytes = imageBytesMax + 1 }),
		"end tags":    end(func(e *End) { e.If.NoneMatch = many }),
		"end name":    end(func(e *End) { e.Name = long }),
		"cause":       end(func(e *End) { e.Cause = image.Kind(long) }),
		"abort user":  {Abort: &Abort{User: long, Created: clock}},
		"delete user": {Delete: &Delete{ID: id(1), User: long, Name: "a"}},
		"delete name": {Delete: &Delete{ID: id(1), User: "alice", Name: long}},
		"no key":      {PutKey: &PutKey{User: "alice", KeyID: 1}},
		"key":         {PutKey: &PutKey{User: "alice", KeyID: 1, Wrapped: []byte(long)}},
		"member":      {AddMember: &AddMember{ID: 4, API: long + ":1", Raft: raft(4)}},
		"no address":  {AddMember: &AddMember{ID: 4, API: api(4)}},
		"empty":       {},
		"of data":     commit,
		"of system":   user,
	} {
		t.Run(name, func(t *testing.T) {
			s := newShard(t)
			if !c.ofImages() && name != "of system" || name == "of data" { // these two in the wrong shard
				s.number = SystemShard
			}
			r := s.do(c)
			s.expectKind(r, image.KindInvalid)
			if len(s.db) != 0 || len(s.events) != 0 {
				t.Errorf("left %v and %v", s.db, s.events)
			}
			if text := fmt.Sprint(r.Err()); len(text) > 1024 {
				t.Errorf("an answer of %d bytes", len(text))
			}
		})
	}
}

// TestReasonIsClipped: an end is not refused for the length of its reason.
func TestReasonIsClipped(t *testing.T) {
	s := newShard(t)
	c := endOf(1, "a.png")
	c.End.Text = strings.Repeat("é", 70_000)
	r := s.do(c)
	s.expectKind(r, image.KindAborted)
	if n := len(r.Problem.Detail); n != 2*textRunesMax {
		t.Errorf("a reason of %d bytes is kept", n)
	}
}

// FuzzJoin applies a Join to a cluster that runs: whatever is in it, it is answered, what is kept can be read
// back by the nodes, and each shard keeps its data on a majority of its nodes.
func FuzzJoin(f *testing.F) {
	for _, j := range []*Join{
		goodJoin(),
		{Node: 2, Cluster: "a", KeyID: "k", Incarnation: "other", Starts: 1, Run: "r", Replace: true},
	} {
		b, err := json.Marshal(j)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, b)
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		s := newSystemShard(t)
		for n := range 3 {
			j := goodJoin()
			j.Node, j.Incarnation = image.NodeID(n+1), fmt.Sprint("i", n+1)
			s.do(Command{Join: j})
		}
		for _, b := range [][]byte{first, second} {
			s.index++
			cmd := append([]byte("\x01{\"join\":"), b...)
			if _, _, err := Apply(s.db, SystemShard, s.index, append(cmd, '}')); err != nil {
				t.Fatalf("a command must be answered, not fail: %v", err)
			}
			m, err := GetMembership(s.db)
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Check(); err != nil {
				t.Fatalf("%v: %s", err, b)
			}
			for shard, l := range m.Shards {
				if l.intact() < Quorum(len(l.Nodes)) {
					t.Fatalf("shard %d is lost on %v of %v after %s", shard, l.New, l.Nodes, b)
				}
			}
		}
	})
}

package catalog

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"imgcluster/cluster/image"
	"imgcluster/cluster/placement"
)

// system is a shard that is used as the system shard.
type system struct {
	*shard
	data []uint64
}

func newSystem(t *testing.T, nodes int) *system {
	s := &system{newSystemShard(t), []uint64{11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22}}
	for n := range nodes {
		s.expectKind(s.join(image.NodeID(n+1), nodes, "i", 1, "r", false), "")
	}
	return s
}

func api(n int) string  { return fmt.Sprintf("10.0.0.%d:8001", n) }
func raft(n int) string { return fmt.Sprintf("10.0.0.%d:9001", n) }

func (s *system) join(
	node image.NodeID, nodes int, incarnation string, starts uint64, run string, replace bool,
) Result {
	j := &Join{
		Node: node, Cluster: "a", KeyID: "k", Shards: s.data,
		Incarnation: fmt.Sprint(incarnation, node), Starts: starts, Run: run, Replace: replace,
	}
	for n := range nodes {
		j.Members = append(j.Members,
			Member{ID: image.NodeID(n + 1), API: api(n + 1), Raft: raft(n + 1)})
	}
	return s.do(Command{Join: j})
}

func (s *system) add(id image.NodeID) Result {
	return s.do(Command{AddMember: &AddMember{
		ID: id, API: api(int(id)), Raft: raft(int(id)),
	}})
}

func (s *system) members() *Membership {
	m, err := GetMembership(s.db)
	if err != nil {
		panic(err)
	}
	return m
}

// settle does all that the shards' leaders would do until nothing moves.
func (s *system) settle() {
	for range 100 {
		m := s.members()
		busy := false
		for id, l := range m.Shards {
			if l.Next != nil || l.Old != nil || l.New != nil {
				busy = true
				s.do(Command{Settle: &Settle{
					Shard: id, Version: l.Version, Moved: l.Next != nil && l.New == nil, Left: l.Old, Ready: l.New,
				}})
			}
		}
		if !busy {
			return
		}
	}
	panic("the layout does not settle")
}

func TestJoinFixesWhatMustAgree(t *testing.T) {
	s := newSystem(t, 3)
	s.expectKind(s.join(1, 3, "i", 2, "r2", false), "")
	j := Join{
		Node: 2, Cluster: "b", KeyID: "k", Shards: s.data, Incarnation: "i2", Starts: 2, Run: "r2",
	}
	s.expectKind(s.do(Command{Join: &j}), image.KindInvalid)
	j.Cluster = "a"
	j.Shards = s.data[1:]
	s.expectKind(s.do(Command{Join: &j}), image.KindInvalid)
	j.Shards = s.data
	j.KeyID = "other"
	s.expectKind(s.do(Command{Join: &j}), image.KindInvalid)
	s.expectKind(s.join(4, 4, "i", 1, "r", false), image.KindNotFound)
	m := s.members()
	if len(m.Members) != 3 || m.Member(1).Starts != 2 || m.Member(2).Incarnation != "i2" ||
		len(m.Shards) != 13 {
		t.Fatalf("membership %+v", m)
	}
}

func TestANodeThatLostItsDiskIsAnotherReplica(t *testing.T) {
	s := newSystem(t, 3)
	before := s.members()
	s.expectKind(s.join(2, 3, "wiped", 1, "r", false), image.KindInvalid)
	s.expectKind(s.join(2, 3, "i", 1, "copy", false), image.KindInvalid) // an older copy of its disk
	if got := s.members(); got.Member(2).Incarnation != "i2" || got.Replicas != 0 {
		t.Fatalf("a refused node changed the membership: %+v", got)
	}
	s.expectKind(s.join(2, 3, "wiped", 1, "r", true), "")
	s.expectKind(s.join(2, 3, "wiped", 1, "r", true), "")
	after := s.members()
	for id, l := range after.Shards {
		old, _ := before.Shards[id].Of(2)
		now, _ := l.Of(2)
		if old == now || len(l.Nodes) != 3 || l.Next != nil {
			t.Errorf("shard %d: node 2 was replica %v and is %v, in %+v", id, old, now, l)
		}
	}
	if after.Replicas != 13 {
		t.Errorf("%d new replicas, want 13", after.Replicas)
	}
}

// TestSecondRebuild: a second node is not taken for lost before the first one has its data again, since a
// shard would have no majority with its data. The first one may be lost again.
func TestSecondRebuild(t *testing.T) {
	s := newSystem(t, 3)
	s.expectKind(s.join(2, 3, "wiped", 1, "r", true), "")
	before := s.members()
	r := s.join(3, 3, "wiped", 1, "r", true)
	s.expectKind(r, image.KindNoQuorum)
	if text := r.Err().Error(); !strings.Contains(text, "node 2 is still being rebuilt") ||
		!strings.Contains(image.HintOf(r.Err()), "--replace") {
		t.Errorf("refused with %q, hint %q", text, image.HintOf(r.Err()))
	}
	if got := s.members(); got.Version != before.Version || got.Member(3).Incarnation != "i3" {
		t.Errorf("a refused node changed the membership: %+v", got)
	}
	s.expectKind(s.join(2, 3, "wiped again", 1, "r", true), image.KindInvalid) // no such incarnation
	s.expectKind(s.join(2, 3, "wiped-again", 1, "r", true), "")
	s.expectKind(s.join(3, 3, "wiped", 1, "r", true), image.KindNoQuorum)
	for shard := range s.members().Shards {
		s.expectKind(s.join(3, 3, "wiped", 1, "r", true), image.KindNoQuorum) // until all shards are there
		l := s.members().Shards[shard]
		s.expectKind(s.do(Command{Settle: &Settle{Shard: shard, Version: l.Version, Ready: l.New}}), "")
	}
	s.expectKind(s.join(3, 3, "wiped", 1, "r", true), "")

	t.Run("of five", func(t *testing.T) { // two of them may be lost
		s := newSystem(t, 5)
		shared := func(a, b image.NodeID) bool {
			for shard, l := range s.members().Shards {
				if on(l.Nodes, a) >= 0 && on(l.Nodes, b) >= 0 && shard != SystemShard {
					return true
				}
			}
			return false
		}
		s.expectKind(s.join(1, 5, "wiped", 1, "r", true), "")
		for n := image.NodeID(2); n <= 5; n++ {
			want := image.Kind("")
			if shared(1, n) {
				want = image.KindNoQuorum
			}
			s.expectKind(s.join(n, 5, "wiped", 1, "r", true), want)
		}
	})
	t.Run("of two", func(t *testing.T) {
		s := newSystem(t, 2)
		s.expectKind(s.join(2, 2, "wiped", 1, "r", true), image.KindInvalid)
	})
}

func TestGrowShrinkAndDrain(t *testing.T) {
	s := newSystem(t, 3)
	s.expectKind(s.add(4), "")
	s.expectKind(s.add(4), "") // again
	s.expectKind(s.add(5), "")
	s.expectKind(s.do(Command{AddMember: &AddMember{ID: 6, API: api(5), Raft: raft(6)}}), image.KindInvalid)
	s.settle()
	for id, l := range s.members().Shards {
		if want := 3; id != SystemShard && len(l.Nodes) != want {
			t.Errorf("shard %d is on %v", id, l.Nodes)
		}
	}
	if n := s.members().Holding(5); n < 8 {
		t.Errorf("node 5 holds %d shards with the system shard, want at least 8", n)
	}
	s.expectKind(s.do(Command{DrainMember: &DrainMember{ID: 1, Drain: true}}), "")
	s.settle()
	if n := s.members().Holding(1); n != 1 {
		t.Errorf("drained node 1 holds %d shards, want the system shard only", n)
	}
	s.expectKind(s.do(Command{DrainMember: &DrainMember{ID: 1}}), "")
	s.settle()
	if n := s.members().Holding(1); n < 8 {
		t.Errorf("node 1 holds %d shards after it was drained and took up work again", n)
	}
	for _, id := range []image.NodeID{2, 3} {
		s.expectKind(s.do(Command{RemoveMember: &RemoveMember{ID: id, Least: 3}}), "")
	}
	s.expectKind(s.do(Command{RemoveMember: &RemoveMember{ID: 4, Least: 3}}), image.KindInvalid)
	s.settle()
	m := s.members()
	if m.Member(2) != nil || m.Member(3) != nil || !slices.Equal(m.Removed, []image.NodeID{2, 3}) {
		t.Fatalf("after two were removed: %+v", m)
	}
	s.expectKind(s.add(2), image.KindInvalid)
	s.expectKind(s.join(2, 3, "i", 9, "r9", false), image.KindNotFound)
}

func TestTooFewToDrain(t *testing.T) {
	s := newSystem(t, 4)
	drain := func(id image.NodeID) Result {
		return s.do(Command{DrainMember: &DrainMember{ID: id, Drain: true, Least: 2}})
	}
	s.expectKind(drain(1), "")
	s.expectKind(drain(2), "")
	before := s.members().Version
	s.expectKind(drain(3), image.KindInvalid)
	s.expectKind(drain(2), "") // again
	if m := s.members(); m.Member(3).State != MemberActive || m.Version != before {
		t.Errorf("a refused drain changed the membership: %+v", m)
	}
	s.expectKind(s.do(Command{DrainMember: &DrainMember{ID: 1}}), "")
	s.expectKind(drain(3), "")
}

// TestNoStepLosesAShard changes the membership at random and checks every state: each shard has replicas, all
// on members, and no replica's number is used again.
func TestNoStepLosesAShard(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := newSystem(t, 3)
		retired := map[string]bool{}
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			before := s.members()
			id := image.NodeID(rapid.IntRange(1, 7).Draw(rt, "node"))
			switch rapid.IntRange(0, 6).Draw(rt, "what") {
			case 0:
				s.add(id)
			case 1:
				s.do(Command{DrainMember: &DrainMember{ID: id, Drain: rapid.Bool().Draw(rt, "drain")}})
			case 2:
				s.do(Command{RemoveMember: &RemoveMember{ID: id, Least: 2}})
			case 3:
				s.join(id, 3, fmt.Sprint("i", rapid.IntRange(0, 3).Draw(rt, "incarnation")), 1, "r", true)
			default:
				shard := rapid.SampledFrom(append(slices.Clone(s.data), SystemShard)).Draw(rt, "shard")
				l := before.Shards[shard]
				s.do(Command{Settle: &Settle{
					Shard: shard, Version: l.Version - uint64(rapid.IntRange(0, 1).Draw(rt, "stale")),
					Moved: rapid.Bool().Draw(rt, "moved"),
					Ready: l.New[:rapid.IntRange(0, len(l.New)).Draw(rt, "ready")],
					Left:  l.Old[:rapid.IntRange(0, len(l.Old)).Draw(rt, "left")],
				}})
			}
			after := s.members()
			for shard, l := range after.Shards {
				if len(l.Nodes) == 0 || shard != SystemShard && len(l.Nodes) > placement.ShardNodes {
					rt.Fatalf("shard %d is on %+v", shard, l)
				}
				for _, r := range l.New {
					if !slices.Contains(l.Nodes, r) && !slices.Contains(l.Next, r) {
						rt.Fatalf("replica %+v of shard %d is rebuilt and is not there: %+v", r, shard, l)
					}
				}
				if l.intact() < Quorum(len(l.Nodes)) {
					rt.Fatalf("shard %d has its data on %d of %+v", shard, l.intact(), l)
				}
				now := map[Replica]bool{}
				for _, r := range l.All() {
					if after.Member(r.Node) == nil {
						rt.Fatalf("shard %d is on node %d, which is no member: %+v", shard, r.Node, l)
					}
					if retired[fmt.Sprint(shard, r)] {
						rt.Fatalf("replica %+v of shard %d is there again: %+v", r, shard, l)
					}
					now[r] = true
				}
				for _, r := range l.Next {
					if i := on(l.Nodes, r.Node); i >= 0 && l.Nodes[i] != r {
						rt.Fatalf("node %d is to stay in shard %d as two replicas: %+v", r.Node, shard, l)
					}
				}
				was := before.Member(id)
				is := after.Member(id)
				if was != nil && is != nil && was.Incarnation != "" && was.Incarnation != is.Incarnation {
					for _, r := range before.Shards[shard].All() {
						if r.Node == id && slices.Contains(l.All(), r) {
							rt.Fatalf("replica %+v of shard %d was lost and is to run: %+v", r, shard, l)
						}
					}
				}
				for _, r := range l.Old {
					if slices.Contains(l.Nodes, r) || slices.Contains(l.Next, r) {
						rt.Fatalf("replica %+v of shard %d is to stay and to go: %+v", r, shard, l)
					}
				}
				for _, r := range before.Shards[shard].All() {
					if !now[r] {
						retired[fmt.Sprint(shard, r)] = true
					}
				}
			}
		}
		s.settle()
		for _, x := range s.members().Members {
			if x.State == MemberLeaving {
				rt.Fatalf("node %d does not get away: %+v", x.ID, s.members())
			}
		}
	})
}

// TestRestoredNode: the others' replicas and data directories are forgotten once, and the shards move to
// where they belong when those have joined again.
func TestRestoredNode(t *testing.T) {
	s := newSystem(t, 3)
	before := s.members()
	number := before.Replicas + 1
	restored := func() Result {
		return s.do(Command{Join: &Join{
			Node: 2, Cluster: "a", KeyID: "k", Shards: s.data, Incarnation: "new", Starts: 1, Run: "r",
			Members: before.Members, Restored: number,
		}})
	}
	s.expectKind(restored(), "")
	m := s.members()
	alone := []Replica{{Node: 2, Number: number}}
	for shard, l := range m.Shards {
		if !slices.Equal(l.Nodes, alone) || !slices.Contains(l.Next, alone[0]) || len(l.Next) != 3 {
			t.Errorf("shard %d: %+v", shard, l)
		}
		for _, r := range l.Next {
			if r.Number < number {
				t.Errorf("shard %d moves to a replica of before: %+v", shard, l.Next)
			}
		}
	}
	if m.Member(2).Incarnation != "new" || m.Member(1).Incarnation != "" || m.Member(3).Incarnation != "" {
		t.Errorf("the members are %+v", m.Members)
	}
	s.expectKind(s.join(1, 3, "i", 5, "r", false), "")
	s.expectKind(restored(), "") // again, since its node did not hear the answer
	if now := s.members(); now.Replicas != m.Replicas || now.Member(1).Incarnation == "" {
		t.Errorf("a second time: %+v", now)
	}
}

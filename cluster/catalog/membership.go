package catalog

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"imgcluster/cluster/image"
	"imgcluster/cluster/placement"
)

// changeMembers runs change on the membership. When change returns nil it keeps the new one and has the
// node notified. settles says that the change is a Settle, which never waits for the end of another.
func (t *txn) changeMembers(settles bool, change func(*Membership) error) (Result, error) {
	state, err := GetMembership(t.tx)
	if err != nil {
		return Result{}, err
	}
	if state == nil {
		state = &Membership{}
	}
	before, err := json.Marshal(state)
	if err != nil {
		return Result{}, err
	}
	if err := change(state); err != nil {
		return reject(err), nil
	}
	for _, l := range state.Shards { // those that are rebuilt no more
		l.New = slices.DeleteFunc(l.New, func(r Replica) bool {
			return !slices.Contains(l.Nodes, r) && !slices.Contains(l.Next, r)
		})
	}
	after, err := json.Marshal(state)
	if err != nil || bytes.Equal(before, after) {
		return Result{Members: state}, err
	}
	if len(after) > membershipBytes && len(after) > len(before) && !settles ||
		state.Replicas > replicaNumberMax {
		return reject(image.Errorf(image.KindOverload, "too many changes of members are under way").
			WithHint("wait until shards have moved: imgcluster member list")), nil
	}
	state.Version++
	t.events = append(t.events, Event{Members: state})
	return Result{Members: state}, t.put([]byte{memberKey}, state)
}

func (t *txn) join(j *Join) (Result, error) {
	if err := j.check(t.shard); err != nil {
		return reject(err), nil
	}
	return t.changeMembers(false, func(s *Membership) error {
		if s.Members == nil {
			*s = *InitialMembership(t.shard, j)
		}
		if err := s.restore(t.shard, j); err != nil {
			return err
		}
		replaces, err := s.checkJoin(j)
		if err != nil {
			return err
		}
		if replaces {
			s.replace(j.Node)
		}
		me := s.Member(j.Node)
		me.Incarnation, me.Starts, me.Run = j.Incarnation, j.Starts, j.Run
		return nil
	})
}

// CheckJoin returns the error that a Join would be answered with, and reports whether it would replace what
// the node had under another incarnation. system is the system shard.
func (m *Membership) CheckJoin(system uint64, j *Join) (replaces bool, err error) {
	if err := j.check(system); err != nil {
		return false, err
	}
	return m.checkJoin(j)
}

func (m *Membership) checkJoin(j *Join) (replaces bool, err error) {
	me := m.Member(j.Node)
	switch {
	case m.Difference(j) != "":
		return false, image.Errorf(image.KindInvalid, "%s", m.Difference(j)).
			WithHint("use the same configuration file on every node")
	case m.checkKeys(j) != nil:
		return false, m.checkKeys(j)
	case me == nil:
		return false, errNoMember(j.Node)
	case me.Incarnation == j.Incarnation && me.Run != j.Run && me.Starts >= j.Starts:
		return false, image.Errorf(image.KindInvalid,
			"the data directory of node %d is an older copy: it was started %d times, "+
				"the cluster knows %d", j.Node, j.Starts, me.Starts).
			WithHint("restore the newest data directory, or start the node with --replace " +
				"so that it is rebuilt from its peers")
	case me.Incarnation == "" || me.Incarnation == j.Incarnation:
		return false, nil
	case !j.Replace:
		return false, image.Errorf(image.KindInvalid, "node %d is known with another data directory", j.Node).
			WithHint("restore the node's data directory, or start it with --replace " +
				"so that it is rebuilt from its peers")
	}
	return true, m.checkRebuilds(j.Node)
}

// Difference says in words in which of the settings that are fixed once data exists the cluster differs from
// what a node joins with, empty in none.
func (m *Membership) Difference(j *Join) string {
	shards := len(m.Shards) - 1 // without the system shard
	if m.Cluster == j.Cluster && shards == len(j.Shards) {
		return ""
	}
	return fmt.Sprintf("the cluster was founded as %.100q with %d data shards, "+
		"the configuration says %.100q with %d", m.Cluster, shards, j.Cluster, len(j.Shards))
}

func errNoMember(id image.NodeID) error {
	return image.Errorf(image.KindNotFound, "node %d is not a member of the cluster", id).
		WithHint("list the members with imgcluster member list; take a new one in with imgcluster member add")
}

// InitialMembership is the cluster as the configuration describes it, before the first Join: the system shard
// on all nodes, the data shards as placement.Layout has them.
func InitialMembership(system uint64, j *Join) *Membership {
	s := &Membership{
		Cluster: j.Cluster,
		KeyID:   j.KeyID,
		Members: slices.Clone(j.Members),
		Shards:  map[uint64]*Layout{},
	}
	slices.SortFunc(s.Members, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	var nodes []image.NodeID
	for i := range s.Members {
		s.Members[i].State = MemberActive
		nodes = append(nodes, s.Members[i].ID)
	}
	shards := slices.Sorted(slices.Values(j.Shards))
	where := map[uint64][]image.NodeID{system: nodes}
	for i, row := range placement.Layout(make([][]image.NodeID, len(shards)), nodes) {
		where[shards[i]] = row
	}
	for shard, nodes := range where {
		l := &Layout{Version: 1}
		for _, n := range nodes {
			l.Nodes = append(l.Nodes, Replica{Node: n})
		}
		s.Shards[shard] = l
	}
	return s
}

// checkRebuilds returns an error when a shard would have no quorum of replicas with its data left once a
// node's replica of it is lost too: those that replaced lost ones count when they have caught up.
func (s *Membership) checkRebuilds(id image.NodeID) error {
	for _, shard := range slices.Sorted(maps.Keys(s.Shards)) {
		l := s.Shards[shard]
		if _, ok := l.Of(id); !ok {
			continue
		}
		rebuilt := slices.DeleteFunc(NodesOf(l.New), func(n image.NodeID) bool { return n == id })
		intact := l.intact(id)
		switch {
		case intact >= Quorum(len(l.Nodes)):
		case len(rebuilt) == 0:
			return image.Errorf(image.KindInvalid, "node %d cannot be rebuilt from the others: without it, "+
				"%d of the %d nodes of shard %d have its data, and %d are needed",
				id, intact, len(l.Nodes), shard, Quorum(len(l.Nodes))).
				WithHint("restore the node's newest data directory")
		default:
			return image.Errorf(image.KindNoQuorum, "node %d cannot be rebuilt now: without it, "+
				"%d of the %d nodes of shard %d have its data, and %d are needed; node %d is still being rebuilt",
				id, intact, len(l.Nodes), shard, Quorum(len(l.Nodes)), rebuilt[0]).
				WithHint(fmt.Sprintf("wait until node %d is ready, then start node %d with --replace",
					rebuilt[0], id)).WithRetry(rebuildRetry)
		}
	}
	return nil
}

// Quorum is how many of n replicas must agree.
func Quorum(n int) int { return n/2 + 1 }

// rebuildRetry is when a node that waits for another one's rebuild should ask again.
const rebuildRetry = time.Second

// replace gives a node new replicas in place of those that it has lost, also where it is to leave: what
// it lost must not come back under its old ID, but its copies may be there still.
func (s *Membership) replace(id image.NodeID) {
	for _, shard := range slices.Sorted(maps.Keys(s.Shards)) {
		l := s.Shards[shard]
		if _, ok := l.Of(id); !ok {
			continue
		}
		s.Replicas++
		l.Version++
		stays := false
		for _, list := range [][]Replica{l.Nodes, l.Next} {
			if i := on(list, id); i >= 0 {
				list[i].Number = s.Replicas
				stays = true
			}
		}
		if stays {
			l.New = append(l.New, Replica{Node: id, Number: s.Replicas})
		}
		l.Old = slices.DeleteFunc(l.Old, func(r Replica) bool { return r.Node == id })
		if !stays {
			l.Old = append(l.Old, Replica{Node: id, Number: s.Replicas})
		}
	}
}

// restore gives all shards to a node that was restored from a backup, and has them move to where they belong.
// The other members' data directories count for nothing any more: they come back with empty ones, or as nodes
// that have lost what they had.
func (s *Membership) restore(system uint64, j *Join) error {
	if j.Restored <= s.Replicas { // an ordinary start, or again
		return nil
	}
	if s.Member(j.Node) == nil {
		return errNoMember(j.Node)
	}
	s.Replicas = j.Restored
	for i := range s.Members {
		x := &s.Members[i]
		x.Incarnation, x.Starts, x.Run = "", 0, ""
		if x.ID == j.Node {
			x.State = MemberActive
		}
	}
	for _, l := range s.Shards {
		*l = Layout{Version: l.Version + 1, Nodes: []Replica{{Node: j.Node, Number: j.Restored}}}
	}
	s.relayout(system)
	return nil
}

func (t *txn) addMember(a *AddMember) (Result, error) {
	if err := checkAddresses(a.ID, a.API, a.Raft); err != nil {
		return reject(err), nil
	}
	added := false
	result, err := t.changeMembers(false, func(s *Membership) error {
		if old := s.Member(a.ID); old != nil && old.API == a.API && old.Raft == a.Raft &&
			old.State == MemberActive {
			return nil
		}
		switch {
		case s.Members == nil:
			return image.Errorf(image.KindNoQuorum, "the cluster is not founded yet")
		case s.Member(a.ID) != nil || slices.Contains(s.Removed, a.ID):
			return image.Errorf(image.KindInvalid, "ID %d is or was another node's", a.ID).
				WithHint("choose an ID that was never used")
		case slices.ContainsFunc(s.Members, func(x Member) bool {
			return x.API == a.API || x.Raft == a.Raft || x.API == a.Raft || x.Raft == a.API
		}):
			return image.Errorf(image.KindInvalid, "another member has the address %s or %s", a.API, a.Raft).
				WithHint("remove that member first, or choose other ports")
		case len(s.Members) >= image.NodesMax:
			return image.Errorf(image.KindInvalid, "a cluster has at most %d members", image.NodesMax).
				WithHint("remove one first: imgcluster member remove ID")
		}
		s.Members = append(s.Members, Member{ID: a.ID, API: a.API, Raft: a.Raft, State: MemberActive})
		slices.SortFunc(s.Members, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
		s.relayout(t.shard)
		added = true
		return nil
	})
	if added && err == nil {
		err = t.addToRemovals(a.ID)
	}
	return result, err
}

func (t *txn) drainMember(d *DrainMember) (Result, error) {
	return t.changeMembers(false, func(s *Membership) error {
		me := s.Member(d.ID)
		switch {
		case me == nil:
			return errNoMember(d.ID)
		case me.State == MemberLeaving:
			return image.Errorf(image.KindInvalid, "node %d is being removed", d.ID).
				WithHint("wait for its end: imgcluster member list")
		case d.Drain && me.State == MemberActive:
			if err := s.checkSpare(d.ID, d.Least); err != nil {
				return err
			}
		}
		me.State = MemberActive
		if d.Drain {
			me.State = MemberDraining
		}
		s.relayout(t.shard)
		return nil
	})
}

func (t *txn) removeMember(r *RemoveMember) (Result, error) {
	return t.changeMembers(false, func(s *Membership) error {
		if slices.Contains(s.Removed, r.ID) {
			return nil
		}
		me := s.Member(r.ID)
		if me == nil {
			return errNoMember(r.ID)
		}
		if err := s.checkSpare(r.ID, r.Least); err != nil {
			return err
		}
		me.State = MemberLeaving
		s.relayout(t.shard)
		return nil
	})
}

// checkSpare returns an error when fewer than least active members would remain without a node.
func (s *Membership) checkSpare(id image.NodeID, least int) error {
	left := slices.DeleteFunc(s.active(), func(x image.NodeID) bool { return x == id })
	if least = max(1, least); len(left) >= least {
		return nil
	}
	return image.Errorf(image.KindInvalid,
		"without node %d too few active members stay for the copies of an image: "+
			"%d of the %d that are needed", id, len(left), least).
		WithHint("add another node first, or let a drained one take on work again: " +
			"imgcluster member drain ID --undo")
}

func (t *txn) settle(c *Settle) (Result, error) {
	return t.changeMembers(true, func(s *Membership) error {
		l := s.Shards[c.Shard]
		if l == nil || l.Version != c.Version {
			return image.Errorf(image.KindStale, "shard %d moved on from version %d", c.Shard, c.Version)
		}
		if c.Moved && slices.ContainsFunc(l.Next, func(r Replica) bool { return slices.Contains(l.New, r) }) {
			return image.Errorf(image.KindStale, "shard %d moves to a replica without its data", c.Shard)
		}
		if c.Moved && l.Next != nil {
			old := slices.DeleteFunc(l.Nodes, func(r Replica) bool { return slices.Contains(l.Next, r) })
			l.Nodes, l.Next, l.Old = l.Next, nil, append(l.Old, old...)
		}
		l.Old = slices.DeleteFunc(l.Old, func(r Replica) bool { return slices.Contains(c.Left, r) })
		l.New = slices.DeleteFunc(l.New, func(r Replica) bool { return slices.Contains(c.Ready, r) })
		l.Version++
		s.relayout(t.shard)
		return nil
	})
}

// dataShards lists the data shards.
func (m *Membership) dataShards(system uint64) []uint64 {
	shards := slices.Sorted(maps.Keys(m.Shards))
	return slices.DeleteFunc(shards, func(shard uint64) bool { return shard == system })
}

// active lists the members that take on work.
func (s *Membership) active() (ids []image.NodeID) {
	for _, x := range s.Members {
		if x.State == MemberActive {
			ids = append(ids, x.ID)
		}
	}
	return ids
}

// relayout assigns every shard to the members as they are now, and removes leaving members that hold nothing.
func (s *Membership) relayout(system uint64) {
	eligible := s.active()
	for _, x := range s.Members { // too few: better on a draining node than on none
		if x.State == MemberDraining && len(eligible) < placement.ShardNodes {
			eligible = append(eligible, x.ID)
		}
	}
	shards := s.dataShards(system)
	rows := make([][]image.NodeID, len(shards))
	for i, shard := range shards {
		l := s.Shards[shard]
		rows[i] = NodesOf(l.Nodes)
		if l.Next != nil {
			rows[i] = NodesOf(l.Next)
		}
	}
	for i, row := range placement.Layout(rows, eligible) {
		s.retarget(s.Shards[shards[i]], row)
	}
	var all []image.NodeID
	for _, x := range s.Members {
		holds := s.Holding(x.ID)
		if _, listed := s.Shards[system].Of(x.ID); listed {
			holds--
		}
		if x.State != MemberLeaving || holds > 0 {
			all = append(all, x.ID)
		}
	}
	s.retarget(s.Shards[system], all)
	s.Members = slices.DeleteFunc(s.Members, func(x Member) bool {
		done := x.State == MemberLeaving && s.Holding(x.ID) == 0
		if done {
			s.Removed = append(s.Removed, x.ID)
		}
		return done
	})
}

// retarget starts or redirects a shard's move to nodes; it does nothing when the shard is or moves there.
func (s *Membership) retarget(l *Layout, nodes []image.NodeID) {
	target := make([]Replica, len(nodes))
	for i, n := range nodes {
		if j := on(l.Nodes, n); j >= 0 {
			target[i] = l.Nodes[j]
		} else if j := on(l.Next, n); j >= 0 {
			target[i] = l.Next[j]
		} else {
			s.Replicas++
			target[i] = Replica{Node: n, Number: s.Replicas}
		}
	}
	now := l.Nodes
	if l.Next != nil {
		now = l.Next
	}
	if slices.Equal(now, target) {
		return
	}
	for _, r := range l.Next { // may be in the Raft group already
		if !slices.Contains(target, r) && !slices.Contains(l.Nodes, r) {
			l.Old = append(l.Old, r)
		}
	}
	l.Next = target
	if len(target) == len(l.Nodes) &&
		!slices.ContainsFunc(target, func(r Replica) bool { return !slices.Contains(l.Nodes, r) }) {
		l.Nodes, l.Next = target, nil // only who should lead has changed
	}
	l.Version++
}

package bootstrap

import (
	"fmt"
	"slices"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/store"
	"imgcluster/config"
)

// directory is what assess knows of this node's side.
type directory struct {
	path     string
	exists   bool           // a node has run in it
	claimed  bool           // by this process: identity is known
	identity store.Identity // zero before the claim
	noRaft   bool           // it has neither a Raft log nor a catalog
}

// finding is what this node is to the cluster, as its peers and its own data directory say.
type finding struct {
	cluster string // the cluster's ID, empty before it is bootstrapped
	lost    error  // why the data directory cannot be used, nil when it can
	admit   bool   // the others have to admit the node: it has no part in Raft yet
}

// assess works out what this node is to the cluster. The error is a *RefusedError where the node is no
// member, or a member at another address.
func assess(self config.Node, dir directory, peers []Hello) (finding, error) {
	own := dir.identity
	p := finding{cluster: own.ClusterID} // for a joining node, what it was claimed for
	known := membersIn(own)
	otherHistory := false
	var me *catalog.Member // this node as the cluster last knew it
	newest := uint64(0)
	for _, h := range peers {
		newest = max(newest, h.MembersVersion)
	}
	for _, h := range peers {
		if h.Members == nil || h.MembersVersion < newest { // a node may lag
			continue
		}
		x, err := member(self, h)
		if err != nil {
			return p, err
		}
		if me == nil || x.Starts > me.Starts || me.Incarnation == "" {
			me = x
		}
		otherHistory = own.Joined && h.ClusterID != "" && h.ClusterID != own.ClusterID
		p.cluster, known = h.ClusterID, h.Members
	}
	p.admit = !own.Joined && known != nil
	switch {
	case dir.exists && !dir.claimed: // its identity is not known yet: Start decides, after the claim
	case dir.exists && own.Joined && dir.noRaft:
		p.lost = fmt.Errorf("data directory %s %w", dir.path, ErrLostRaft)
	case otherHistory:
		p.lost = fmt.Errorf("the other nodes run the cluster as it was %w: data directory %s is not of it",
			ErrOtherHistory, dir.path)
	case me == nil || me.Incarnation == "":
	case !dir.exists || me.Incarnation != own.Incarnation:
		p.lost = fmt.Errorf("the cluster knows node %d with %w than %s", self.ID, ErrOtherDirectory, dir.path)
	case me.Starts > own.Starts:
		p.lost = fmt.Errorf("data directory %s is %w: it was started %d times, the cluster knows %d",
			dir.path, ErrOlderCopy, own.Starts, me.Starts)
	}
	return p, nil
}

// member returns this node as a peer knows it.
func member(self config.Node, h Hello) (*catalog.Member, error) {
	i := slices.IndexFunc(h.Members, func(x catalog.Member) bool { return x.ID == self.ID })
	if i < 0 {
		return nil, Refuse(
			fmt.Sprintf("add it first: imgcluster member add --id %d --host %s --api-port %d "+
				"--raft-port %d; an ID that was removed cannot come back",
				self.ID, self.Host, self.APIPort, self.RaftPort),
			"node %d is %w, says node %d", self.ID, ErrNotMember, h.Node)
	}
	x := &h.Members[i]
	if x.API != self.APIAddr() || x.Raft != self.RaftAddr() {
		return nil, Refuse("set its address back, or add a node with a new ID there and remove this one",
			"the cluster knows node %d at %s (Raft %s), the configuration has it at %s (Raft %s)",
			self.ID, x.API, x.Raft, self.APIAddr(), self.RaftAddr())
	}
	return x, nil
}

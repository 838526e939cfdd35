package cluster

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/failpoint"
	"imgcluster/cluster/image"
	"imgcluster/cluster/peer"
	"imgcluster/cluster/store"
	"imgcluster/cluster/wait"
	"imgcluster/cluster/wire"
	"imgcluster/cluster/witness"
	"imgcluster/config"
)

// hello is what nodes tell each other before they run together.
type hello struct {
	Node        image.NodeID    `json:"node"`
	Version     string          `json:"version"`
	Identity    config.Identity `json:"identity"`
	Replicas    int             `json:"replicas"`
	MinReplicas int             `json:"min_replicas"`
	KeyID       string          `json:"key_id"`
	Incarnation string          `json:"incarnation"`
	// ClusterID is what the cluster was founded as, and Members are those that the node last knew;
	// without members it knows of no cluster yet.
	ClusterID string           `json:"cluster_id,omitempty"`
	Members   []catalog.Member `json:"members,omitempty"`
	// MembersVersion is the membership's, 0 when the members are those noted in the data directory.
	MembersVersion uint64 `json:"members_version,omitempty"`
}

func marshal(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("introduce the node: %w", err)
	}
	return b, nil
}

func (n *Node) hello() hello {
	h := hello{
		Node: n.self.ID, Version: n.version, Identity: n.cfg.Identity(), KeyID: n.master.ID(),
		Replicas: n.cfg.Cluster.Replicas, MinReplicas: n.cfg.Cluster.MinReplicas,
	}
	if dir := n.dir.Load(); dir != nil {
		id := dir.Identity()
		h.Incarnation, h.ClusterID, h.Members = id.Incarnation, id.ClusterID, members(id)
	}
	if m := n.view.membership(); m.Version > 0 {
		h.Members, h.MembersVersion = m.Members, m.Version
	}
	return h
}

// members are those that a data directory has noted.
func members(id store.Identity) (list []catalog.Member) {
	if len(id.Members) > 0 && json.Unmarshal(id.Members, &list) != nil {
		return nil // it is persisted again before it is needed
	}
	return list
}

// deploymentID keeps Raft messages of clusters apart.
func deploymentID(clusterID string) uint64 {
	b, err := hex.DecodeString(clusterID)
	if err != nil || len(b) < 8 {
		return 1
	}
	return binary.BigEndian.Uint64(b) | 1
}

// handshake introduces this node to every peer that runs, and refuses to start beside one that differs. It
// returns what they say.
func (n *Node) handshake(ctx context.Context) ([]hello, error) {
	ours, err := marshal(n.hello())
	if err != nil {
		return nil, err
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	var met []hello
	var errs []error
	for _, id := range n.peers.IDs() {
		all.Go(func() {
			h, err := n.handshakeWith(ctx, id, ours)
			mu.Lock()
			defer mu.Unlock()
			if h != nil {
				met = append(met, *h)
			}
			errs = append(errs, err)
		})
	}
	all.Wait()
	slices.SortFunc(met, func(a, b hello) int { return cmp.Compare(a.Node, b.Node) })
	for _, err := range errs {
		if err != nil {
			return met, err
		}
	}
	return met, nil
}

func (n *Node) handshakeWith(ctx context.Context, id image.NodeID, ours []byte) (*hello, error) {
	addr := n.peers.Address(id)
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Client.Dial)
	defer cancel()
	b, err := n.peers.Post(ctx, id, wire.HelloPath, ours)
	if peer.Unreachable(err) {
		n.logger.Debug("peer did not answer", zap.Uint32("peer", uint32(id)), zap.Error(err))
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var theirs hello
	if err := json.Unmarshal(b, &theirs); err != nil {
		return nil, &RefusedError{
			Reason: fmt.Sprintf("at %s, where node %d should be, something else answers", addr, id),
			hint:   "check the nodes' addresses in the configuration",
		}
	}
	return &theirs, n.compare(id, addr, theirs)
}

// compare refuses to run beside a peer that differs in what must agree.
func (n *Node) compare(id image.NodeID, addr string, theirs hello) error {
	refuse := func(hint, format string, args ...any) error {
		return &RefusedError{
			Reason: fmt.Sprintf("node %d at %s runs with another configuration: ", id, addr) + fmt.Sprintf(format,
				args...),
			hint: hint,
		}
	}
	const sameFile = "use the same configuration file on every node"
	known := n.hello().Members
	if theirs.Members != nil || known != nil { // then these count, not the lists of the configurations
		theirs.Identity.Nodes = n.cfg.Identity().Nodes
	}
	switch diff := n.cfg.Difference(theirs.Identity); {
	case diff != "":
		return refuse(sameFile, "%s", diff)
	case theirs.Node != id:
		return refuse(sameFile, "it says it is node %d", theirs.Node)
	case theirs.Replicas != n.cfg.Cluster.Replicas || theirs.MinReplicas != n.cfg.Cluster.MinReplicas:
		return refuse(sameFile, "replicas is %d and min_replicas %d here, %d and %d there",
			n.cfg.Cluster.Replicas, n.cfg.Cluster.MinReplicas, theirs.Replicas, theirs.MinReplicas)
	case theirs.KeyID != n.master.ID():
		return refuse("copy the cluster's master key file to this node", "its master key is %s, this one is %s",
			theirs.KeyID, n.master.ID())
	}
	for _, x := range known {
		if x.ID == id && x.Incarnation != "" && theirs.Incarnation != "" && theirs.Incarnation != x.Incarnation &&
			theirs.Members == nil {
			return &RefusedError{
				Reason: fmt.Sprintf("node %d at %s runs with a new data directory, without what it has acknowledged", id,
					addr),
				hint: fmt.Sprintf("stop node %d; start this one and one more first, then node %d with --replace", id,
					id),
			}
		}
	}
	return nil
}

// Hello implements api.Peers. The node that asks decides; this one notes who came.
func (n *Node) Hello(b []byte) ([]byte, error) {
	var theirs hello
	if err := json.Unmarshal(b, &theirs); err != nil {
		return nil, image.Errorf(image.KindInvalid, "malformed hello: %w", err)
	}
	if err := n.compare(theirs.Node, "its address", theirs); err != nil {
		n.logger.Warn("a node with another configuration came", zap.Uint32("peer", uint32(theirs.Node)),
			zap.Error(err))
	}
	return marshal(n.hello())
}

// nodeState is what this node is to the cluster, as the others and its own data directory tell.
type nodeState struct {
	fresh     bool            // there is no data directory yet
	cluster   string          // the cluster's ID, empty before it is founded
	member    *catalog.Member // this node as the cluster last knew it
	lost      string          // why its data directory cannot be used, empty when it can
	mustAdmit bool            // it has no part in Raft yet
}

// assess finds out what this node is to the cluster.
func (n *Node) assess(met []hello) (s nodeState, err error) {
	path := n.cfg.DataDir(n.self.ID)
	s.fresh = !claimed(path)
	var own store.Identity
	if dir := n.dir.Load(); dir != nil {
		own = dir.Identity()
	}
	known := members(own)
	s.cluster = own.ClusterID // for a joining node, what it was claimed for
	newest := uint64(0)
	for _, h := range met {
		newest = max(newest, h.MembersVersion)
	}
	for _, h := range met {
		if h.Members == nil || h.MembersVersion < newest { // a node may lag
			continue
		}
		i := slices.IndexFunc(h.Members, func(x catalog.Member) bool { return x.ID == n.self.ID })
		if i < 0 {
			return s, &RefusedError{
				Reason: fmt.Sprintf("node %d is not a member of the cluster, says node %d", n.self.ID, h.Node),
				hint: fmt.Sprintf("take it in first: imgcluster member add --id %d --host %s --api-port %d "+
					"--raft-port %d; an ID that was removed cannot come back",
					n.self.ID, n.self.Host, n.self.APIPort, n.self.RaftPort),
			}
		}
		x := h.Members[i]
		if x.API != n.self.APIAddr() || x.Raft != n.self.RaftAddr() {
			return s, &RefusedError{
				Reason: fmt.Sprintf("the cluster knows node %d at %s (Raft %s), the configuration has it at %s (Raft %s)",
					n.self.ID, x.API, x.Raft, n.self.APIAddr(), n.self.RaftAddr()),
				hint: "set its address back, or add a node with a new ID there and remove this one",
			}
		}
		if s.member == nil || x.Starts > s.member.Starts || s.member.Incarnation == "" {
			s.member = &x
		}
		s.cluster, known = h.ClusterID, h.Members
	}
	s.mustAdmit = !own.Joined && known != nil
	switch x := s.member; {
	case !s.fresh && n.dir.Load() == nil: // claimed first
	case !s.fresh && own.Joined && !exists(filepath.Join(path, "catalog")) &&
		!exists(filepath.Join(path, "raft")):
		s.lost = fmt.Sprintf("data directory %s has lost its Raft log and its catalog", path)
	case x == nil || x.Incarnation == "":
	case s.fresh || x.Incarnation != own.Incarnation:
		s.lost = fmt.Sprintf("the cluster knows node %d with another data directory than %s", n.self.ID, path)
	case x.Starts > own.Starts:
		s.lost = fmt.Sprintf("data directory %s is an older copy: it was started %d times, the cluster knows %d",
			path, own.Starts, x.Starts)
	}
	if s.lost != "" && n.cfg.Local.LostData != config.LostDataReplace {
		return s, lostError(s.lost)
	}
	return s, nil
}

func lostError(reason string) error {
	return &RefusedError{
		Reason: reason,
		hint: "a node must not come back under its old identity without what it has acknowledged: " +
			"restore its newest data directory, or start it with --replace so that it is rebuilt from its peers",
	}
}

// exists reports whether there is something at path; what cannot be looked at counts as there.
func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// claimed reports whether a node has run in a data directory before: then it has its store's node.json.
func claimed(dir string) bool { return exists(filepath.Join(dir, "node.json")) }

// raftFolders are what consensus keeps in the data directory: two folders and a file.
var raftFolders = []string{"raft", "catalog", witness.FileName}

// bootstrap takes this node's place in the cluster, before it takes part in anything: it claims the data
// directory, and begins as what the cluster and the directory say that it is.
func (n *Node) bootstrap(ctx context.Context, met []hello) error {
	s, err := n.assess(met)
	if err != nil {
		return err
	}
	if err := n.openDisk(cmp.Or(s.cluster, n.cfg.Fingerprint())); err != nil {
		return err
	}
	if s, err = n.assess(met); err != nil { // now that it is known what the directory has
		return err
	}
	return n.countStart(ctx, met, s)
}

// countStart counts a start with the data directory, which is renewed when what it had is lost, and has the
// others admit the node when it is new to them.
func (n *Node) countStart(ctx context.Context, met []hello, s nodeState) error {
	dir := n.dir.Load()
	if s.lost != "" {
		n.logger.Warn("the node is rebuilt from its peers", zap.String("cause", s.lost))
		if err := dir.Renew(raftFolders...); err != nil {
			return err
		}
	}
	err := dir.Update(func(id *store.Identity) {
		id.Starts++
		id.ClusterID = cmp.Or(id.ClusterID, s.cluster, n.cfg.Fingerprint())
	})
	if err != nil {
		return err
	}
	n.run = image.NewID().String()
	if s.lost != "" || s.mustAdmit {
		return n.admit(ctx, met)
	}
	return nil
}

// introduce is this node's Join.
func (n *Node) introduce() (catalog.Join, error) {
	id := n.dir.Load().Identity()
	what := n.cfg.Identity()
	what.Nodes = nil
	identity, err := marshal(what)
	return catalog.Join{
		Node: n.self.ID, Identity: identity, KeyID: n.master.ID(), Members: founders(n.cfg), Shards: n.shards,
		Incarnation: id.Incarnation, Starts: id.Starts, Run: n.run,
		Replace: n.cfg.Local.LostData == config.LostDataReplace,
	}, err
}

// admit asks the others to take this node in, for as long as a start may take.
func (n *Node) admit(ctx context.Context, met []hello) error {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Timeouts.Start)
	defer cancel()
	j, err := n.introduce()
	if err != nil {
		return err
	}
	body, err := marshal(j)
	if err != nil {
		return err
	}
	failpoint.Here("member/before-admit")
	for {
		if len(met) == 0 {
			met, _ = n.handshake(ctx) // who differs was refused before
		}
		for _, h := range met {
			var b []byte
			one, cancelOne := context.WithTimeout(ctx, n.cfg.Timeouts.Proposal) // another one may do better
			b, err = n.peers.Post(one, h.Node, wire.JoinPath, body)
			cancelOne()
			if err == nil {
				m := &catalog.Membership{}
				if err = json.Unmarshal(b, m); err == nil {
					failpoint.Here("member/admitted")
					if err := n.writeMembers(m); err != nil { // see startShards
						return err
					}
					n.admitted = m
					n.view.set(m)
					return nil
				}
			}
			if kind := image.KindOf(err); kind == image.KindInvalid || kind == image.KindNotFound {
				return &RefusedError{Reason: err.Error(), hint: hint(err)}
			}
			n.logger.Warn("not admitted yet", zap.Uint32("peer", uint32(h.Node)), zap.Error(err))
		}
		if !wait.For(ctx, joinRetry) {
			return &RefusedError{
				Reason: fmt.Sprintf("node %d was not admitted to the cluster within %s: %v", n.self.ID,
					n.cfg.Timeouts.Start, errors.Join(err, context.Cause(ctx))),
				hint: "most of the other nodes must be up",
			}
		}
	}
}

// joinRetry is the pause between two attempts to reach a majority.
const joinRetry = 200 * time.Millisecond

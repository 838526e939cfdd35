package cluster

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"imgcluster/cluster/api"
	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
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
	// Known are the incarnations of the nodes' data directories that the system shard knows.
	Known map[image.NodeID]string `json:"known,omitempty"`
}

func marshal(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("introduce the node: %w", err)
	}
	return b, nil
}

func (n *Node) introduction() hello {
	h := hello{
		Node: n.self.ID, Version: n.version, Identity: n.cfg.Identity(), KeyID: n.master.ID(),
		Replicas: n.cfg.Cluster.Replicas, MinReplicas: n.cfg.Cluster.MinReplicas,
	}
	if n.dir != nil {
		h.Incarnation = n.dir.Identity().Incarnation
	}
	n.log.View(systemShard, func(r catalog.Reader) error { // not started yet: nothing known
		m, err := catalog.GetMembership(r)
		if m != nil {
			h.Known = m.Incarnations
		}
		return err
	})
	return h
}

// deploymentID keeps Raft messages of clusters apart that differ in what must agree.
func (n *Node) deploymentID() uint64 {
	b, err := hex.DecodeString(n.cfg.Fingerprint())
	if err != nil {
		panic(err) // hexadecimal by definition
	}
	return binary.BigEndian.Uint64(b) | 1
}

// meet compares this node with every peer that runs, and refuses to start beside one that differs.
func (n *Node) meet(ctx context.Context) error {
	ours, err := marshal(n.introduction())
	if err != nil {
		return err
	}
	var all errgroup.Group
	for id := range n.peers.addr {
		all.Go(func() error { return n.meetPeer(ctx, id, ours) })
	}
	return all.Wait()
}

func (n *Node) meetPeer(ctx context.Context, id image.NodeID, ours []byte) error {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Client.Dial)
	defer cancel()
	b, err := n.peers.hello(ctx, id, ours)
	if unreachable(err) {
		n.logger.Debug("peer not met", zap.Uint32("peer", uint32(id)), zap.Error(err))
		return nil
	}
	if err != nil {
		return err
	}
	var theirs hello
	if err := json.Unmarshal(b, &theirs); err != nil {
		return &RefusedError{
			Reason: fmt.Sprintf("at %s, where node %d should be, something else answers", n.peers.addr[id], id),
			hint:   "check the nodes' addresses in the configuration",
		}
	}
	return n.compare(id, theirs)
}

// compare refuses to run beside a peer that differs in what must agree.
func (n *Node) compare(id image.NodeID, theirs hello) error {
	refuse := func(hint, format string, args ...any) error {
		return &RefusedError{Reason: fmt.Sprintf("node %d at %s runs with another configuration: ", id, n.peers.addr[id]) + fmt.Sprintf(format, args...), hint: hint}
	}
	const sameFile = "use the same configuration file on every node"
	known := theirs.Known[n.self.ID]
	switch diff := n.cfg.Difference(theirs.Identity); {
	case diff != "":
		return refuse(sameFile, "%s", diff)
	case theirs.Node != id:
		return refuse(sameFile, "it says it is node %d", theirs.Node)
	case theirs.Replicas != n.cfg.Cluster.Replicas || theirs.MinReplicas != n.cfg.Cluster.MinReplicas:
		return refuse(sameFile, "replicas is %d and min_replicas %d here, %d and %d there",
			n.cfg.Cluster.Replicas, n.cfg.Cluster.MinReplicas, theirs.Replicas, theirs.MinReplicas)
	case theirs.KeyID != n.master.ID():
		return refuse("copy the cluster's master key file to this node", "its master key is %s, this one is %s", theirs.KeyID, n.master.ID())
	case known != "" && n.otherDirectory(known):
		return &RefusedError{
			Reason: fmt.Sprintf("the cluster knows node %d with another data directory than %s", n.self.ID, n.cfg.DataDir(n.self.ID)),
			hint:   "a node must not come back with an empty or other disk under its old ID: restore its data directory",
		}
	}
	return nil
}

// otherDirectory tells that this node's data directory is not the one that the cluster knows.
func (n *Node) otherDirectory(known string) bool {
	if n.dir == nil { // not claimed yet: an empty one is told before it is, the others after
		return !claimed(n.cfg.DataDir(n.self.ID))
	}
	return known != n.dir.Identity().Incarnation
}

// Hello implements api.Peers. The node that asks decides; this one notes who came.
func (n *Node) Hello(b []byte) ([]byte, error) {
	var theirs hello
	if err := json.Unmarshal(b, &theirs); err != nil {
		return nil, image.Errorf(image.KindInvalid, "malformed hello: %w", err)
	}
	if err := n.compare(theirs.Node, theirs); err != nil {
		n.logger.Warn("a node with another configuration came", zap.Uint32("peer", uint32(theirs.Node)), zap.Error(err))
	}
	return marshal(n.introduction())
}

// OpenCopy implements api.Peers.
func (n *Node) OpenCopy(id image.ID, epoch uint32) (api.Content, error) {
	f, err := n.store.Open(id, epoch)
	if err != nil {
		return nil, err
	}
	return newFileContent(f), nil
}

package bootstrap

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"go.uber.org/zap"

	"imgcluster/cluster/access"
	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
	"imgcluster/cluster/peer"
	"imgcluster/cluster/printable"
	"imgcluster/cluster/store"
	"imgcluster/cluster/wire"
	"imgcluster/config"
)

// protocol is the version of what nodes say to each other, and of what they keep together. Versions before it
// had no number, which reads as 0.
const protocol = 1

// Hello is what nodes tell each other before they run together.
type Hello struct {
	Protocol    int              `json:"protocol"`
	Node        image.NodeID     `json:"node"`
	Version     string           `json:"version"`
	Agreement   config.Agreement `json:"agreement"`
	Replicas    int              `json:"replicas"`
	MinReplicas int              `json:"min_replicas"`
	KeyIDs      []string         `json:"key_ids"` // of the master keys that the node has, the one in use first
	Incarnation string           `json:"incarnation"`
	// ClusterID is the ID that the cluster was bootstrapped with, and Members are those that the node last knew;
	// without members it knows of no cluster yet.
	ClusterID string           `json:"cluster_id,omitempty"`
	Members   []catalog.Member `json:"members,omitempty"`
	// MembersVersion is the membership's, 0 when the members are those of the data directory.
	MembersVersion uint64 `json:"members_version,omitempty"`
}

// hello is this node's.
func (s *Starter) hello() Hello {
	h := Hello{
		Protocol:    protocol,
		Node:        s.Self.ID,
		Version:     s.Version,
		Agreement:   s.Config.Agreement(),
		Replicas:    s.Config.Cluster.Replicas,
		MinReplicas: s.Config.Cluster.MinReplicas,
		KeyIDs:      s.KeyIDs(),
	}
	if s.dir != nil {
		id := s.dir.Identity()
		h.Incarnation, h.ClusterID, h.Members = id.Incarnation, id.ClusterID, membersIn(id)
	}
	if m := s.Membership(); m.Version > 0 {
		h.Members, h.MembersVersion = m.Members, m.Version
	}
	return h
}

// membersIn returns the members that a data directory has kept, nil when there are none.
func membersIn(id store.Identity) (list []catalog.Member) {
	if len(id.Members) > 0 && json.Unmarshal(id.Members, &list) != nil {
		return nil // they are persisted again before they are needed
	}
	return list
}

func marshal(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("introduce the node: %w", err)
	}
	return b, nil
}

// Handshake introduces this node to every peer that runs, and refuses to start beside one that differs. It
// returns what they say, by node ID.
func (s *Starter) Handshake(ctx context.Context) ([]Hello, error) {
	ours, err := marshal(s.hello())
	if err != nil {
		return nil, err
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	var heard []Hello
	var errs []error
	for _, id := range s.Peers.IDs() {
		all.Go(func() {
			h, err := s.ask(ctx, id, ours)
			mu.Lock()
			defer mu.Unlock()
			if h != nil {
				heard = append(heard, *h)
			}
			errs = append(errs, err)
		})
	}
	all.Wait()
	slices.SortFunc(heard, func(a, b Hello) int { return cmp.Compare(a.Node, b.Node) })
	for _, err := range errs {
		if err != nil {
			return heard, err
		}
	}
	return heard, nil
}

// ask returns a peer's hello, nil when it does not answer.
func (s *Starter) ask(ctx context.Context, id image.NodeID, ours []byte) (*Hello, error) {
	addr := s.Peers.Address(id)
	ctx, cancel := context.WithTimeout(ctx, s.Config.Client.Dial)
	defer cancel()
	b, err := s.Peers.Post(ctx, id, wire.HelloPath, ours)
	if peer.NotNode(err) {
		return nil, Refuse("run the same version of imgcluster on every node, and nothing else on that port",
			"at %s, where node %d should be, is another version of imgcluster, or another program: %w",
			addr, id, err)
	}
	if peer.Unreachable(err) {
		s.Logger.Debug("peer did not answer", zap.Uint32("peer", uint32(id)), zap.Error(err))
		return nil, nil
	}
	if errors.As(err, new(*access.CertificateError)) {
		return nil, Refuse(image.HintOf(err), "%w; this node has the cluster name %q and the master key %s", err,
			s.Config.Cluster.Name, strings.Join(s.KeyIDs(), " and "))
	}
	if err != nil {
		return nil, err
	}
	theirs, err := parseHello(b)
	if err != nil {
		return nil, Refuse("check the nodes' addresses in the configuration",
			"at %s, where node %d should be, something else answers: %v", addr, id, err)
	}
	return &theirs, compare(s.hello(), id, addr, theirs)
}

// Limits of a hello's texts, in bytes.
const (
	versionBytesMax = 128
	idBytesMax      = 128
	keyIDsMax       = 4 // in number
	hostBytesMax    = 256
)

// parseHello reads what another node says. What a node keeps or prints of it is bounded here; whether it fits
// this node's own is for compare.
func parseHello(b []byte) (h Hello, err error) {
	if err := json.Unmarshal(b, &h); err != nil {
		return h, image.Errorf(image.KindInvalid, "malformed hello: %w", err)
	}
	bad := func(what string) (Hello, error) {
		return Hello{}, image.Errorf(image.KindInvalid, "malformed hello: %s", what)
	}
	switch {
	case h.Node == 0:
		return bad("no node ID")
	case len(h.Version) > versionBytesMax || printable.Text(h.Version) != h.Version:
		return bad("version")
	case len(h.Agreement.Nodes) > image.NodesMax || slices.ContainsFunc(h.Agreement.Nodes,
		func(n config.Node) bool { return len(n.Host) > hostBytesMax }):
		return bad("nodes")
	case len(h.KeyIDs) > keyIDsMax || slices.ContainsFunc(h.KeyIDs,
		func(id string) bool { return len(id) > idBytesMax }):
		return bad("master keys")
	case len(h.Incarnation) > idBytesMax || len(h.ClusterID) > idBytesMax:
		return bad("a long ID")
	}
	if _, err := hex.DecodeString(h.ClusterID); err != nil {
		return bad("cluster ID")
	}
	if h.Members != nil {
		if err := catalog.CheckMembers(h.Members); err != nil {
			return Hello{}, image.Errorf(image.KindInvalid, "malformed hello: %w", err)
		}
	}
	return h, nil
}

// compare refuses to run beside a peer that differs in what must agree.
func compare(ours Hello, id image.NodeID, addr string, theirs Hello) error {
	const sameFile = "use the same configuration file on every node"
	differs := func(hint, format string, args ...any) error {
		return Refuse(hint, "node %d at %s runs with another configuration: %s", id, addr,
			fmt.Sprintf(format, args...))
	}
	if theirs.Members != nil || ours.Members != nil { // then these count, not the lists of the configurations
		theirs.Agreement.Nodes = ours.Agreement.Nodes
	}
	switch diff := ours.Agreement.Difference(theirs.Agreement); {
	case theirs.Protocol != ours.Protocol:
		return Refuse("run the same version of imgcluster on every node",
			"node %d at %s runs imgcluster %s, this node %s: they do not understand each other",
			id, addr, cmp.Or(theirs.Version, "of an unknown version"), ours.Version)
	case theirs.Agreement.Name != ours.Agreement.Name:
		return Refuse("check the nodes' addresses in the configuration; where cluster.name is wrong, "+
			sameFile, "node %d at %s is of the cluster %.64q, this one is of %q", id, addr,
			theirs.Agreement.Name, ours.Agreement.Name)
	case diff != "":
		return differs(sameFile, "%s", diff)
	case theirs.Node != id:
		return differs(sameFile, "it says it is node %d", theirs.Node)
	case theirs.Replicas != ours.Replicas || theirs.MinReplicas != ours.MinReplicas:
		return differs(sameFile, "replicas is %d and min_replicas %d here, %d and %d there",
			ours.Replicas, ours.MinReplicas, theirs.Replicas, theirs.MinReplicas)
	case !slices.ContainsFunc(ours.KeyIDs, func(id string) bool { return slices.Contains(theirs.KeyIDs, id) }):
		// Which of several is the cluster's is the log's to say; see catalog.Join.
		return differs("copy the cluster's master key file to this node",
			"its master key is %.100s, this one is %s", strings.Join(theirs.KeyIDs, ", "),
			strings.Join(ours.KeyIDs, ", "))
	}
	for _, x := range ours.Members {
		if x.ID == id && x.Incarnation != "" && theirs.Incarnation != "" &&
			theirs.Incarnation != x.Incarnation && theirs.Members == nil {
			return Refuse(
				fmt.Sprintf("stop node %d; start this one and one more first, then node %d with --replace", id, id),
				"node %d at %s runs with %w", id, addr, ErrPeerLostData)
		}
	}
	return nil
}

// Hello implements api.Peers. The node that asks decides; this one logs that another configuration runs.
func (s *Starter) Hello(_ context.Context, from image.NodeID, b []byte) ([]byte, error) {
	theirs, err := parseHello(b)
	if err != nil {
		return nil, err
	}
	if theirs.Node != from {
		return nil, image.Errorf(image.KindForbidden, "node %d introduces itself as node %d", from, theirs.Node).
			WithHint("each node speaks for itself only")
	}
	ours := s.hello()
	if err := compare(ours, theirs.Node, "its address", theirs); err != nil {
		s.Logger.Warn("a node with another configuration introduced itself",
			zap.Uint32("peer", uint32(theirs.Node)), zap.Error(err))
	}
	return marshal(ours)
}

// Package bootstrap makes a configured node a member before it takes part in Raft: it exchanges hellos with
// the other nodes, refuses to run beside one that differs, claims the data directory under the identity that
// the directory and the cluster agree on, and has the cluster admit the node.
package bootstrap

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/failpoint"
	"imgcluster/cluster/image"
	"imgcluster/cluster/store"
	"imgcluster/cluster/wait"
	"imgcluster/cluster/wire"
	"imgcluster/cluster/witness"
	"imgcluster/config"
)

// Retry is the pause between two attempts to reach a majority of the nodes.
const Retry = 200 * time.Millisecond

// Options are what a Starter works with. All fields are needed.
type Options struct {
	Config     *config.Config
	Self       config.Node
	Version    string                     // of the program
	KeyIDs     func() []string            // of the master keys that the node has, the one in use first
	Initial    catalog.Join               // what the node bootstraps the cluster with, from the configuration
	Membership func() *catalog.Membership // the newest that this node knows
	Peers      Peers
	Logger     *zap.Logger
}

// Peers are the other nodes, as package peer reaches them.
type Peers interface {
	IDs() []image.NodeID
	Address(id image.NodeID) string
	Post(ctx context.Context, id image.NodeID, path string, body []byte) ([]byte, error)
}

// Starter starts one node. Claim, Start, Rebuild and Readmit are called one after the other, the other
// methods at any time once the directory is claimed.
type Starter struct {
	Options

	dir  *store.DataDir // nil before it is claimed
	run  string         // random: distinguishes this start from that of a copied data directory
	lost bool           // this start replaces what the data directory has lost
}

// New returns a Starter.
func New(o Options) *Starter { return &Starter{Options: o} }

// Claim claims the data directory for this node. Its errors are *RefusedError and those of store.Claim;
// nothing in the directory was changed then.
func (s *Starter) Claim(heard []Hello) (*store.DataDir, error) {
	p, err := s.assess(heard)
	if err != nil {
		return nil, err
	}
	keys := s.KeyIDs()
	s.dir, err = store.Claim(s.path(), store.Identity{
		Cluster:   s.Config.Cluster.Name,
		ClusterID: cmp.Or(p.cluster, s.Config.Agreement().Fingerprint()),
		Node:      s.Self.ID,
		KeyID:     keys[0],
	}, keys[1:]...)
	if err == nil && s.dir.Identity().Restoring {
		err = Refuse("restore it again, from the same backup or another one: imgcluster restore",
			"data directory %s is %w", s.path(), ErrHalfRestored)
	}
	return s.dir, err
}

// Start counts this start, and has the other nodes admit this one where it is new to them or has to be
// rebuilt from them. It returns the membership that the node was admitted with, nil when it has its place
// already.
func (s *Starter) Start(ctx context.Context, heard []Hello) (*catalog.Membership, error) {
	p, err := s.assess(heard)
	if err != nil {
		return nil, err
	}
	return s.start(ctx, heard, p)
}

// Rebuild discards the Raft log and the catalog, which cannot be used for the given reason, and has the node
// admitted again.
func (s *Starter) Rebuild(ctx context.Context, reason error) (*catalog.Membership, error) {
	heard, err := s.Handshake(ctx)
	if err != nil {
		return nil, err
	}
	return s.start(ctx, heard, finding{lost: reason})
}

func (s *Starter) path() string { return s.Config.DataDir(s.Self.ID) }

// assess finds out what this node is to the cluster, and refuses a directory that has lost what the node has
// acknowledged, unless the configuration allows to rebuild it.
func (s *Starter) assess(heard []Hello) (finding, error) {
	dir := directory{path: s.path(), exists: Claimed(s.path())}
	if s.dir != nil {
		dir.claimed, dir.identity = true, s.dir.Identity()
		dir.noRaft = !exists(filepath.Join(dir.path, "catalog")) && !exists(filepath.Join(dir.path, "raft"))
	}
	p, err := assess(s.Self, dir, heard)
	if err == nil && p.lost != nil && s.Config.Local.LostData != config.LostDataReplace {
		err = Refuse("a node must not come back under its old identity without what it has acknowledged: "+
			"restore its newest data directory, or start it with --replace so that it is rebuilt from its peers",
			"%w", p.lost)
	}
	return p, err
}

// exists reports whether there is something at path; what cannot be looked at counts as there.
func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// Claimed reports whether a node has run in a data directory before: then it has its store's node.json.
func Claimed(dir string) bool { return exists(filepath.Join(dir, "node.json")) }

// RaftFolders are what consensus keeps in the data directory: two folders and a file.
var RaftFolders = []string{"raft", "catalog", witness.FileName}

func (s *Starter) start(ctx context.Context, heard []Hello, p finding) (*catalog.Membership, error) {
	s.lost = p.lost != nil
	if p.lost != nil {
		// Before anything is changed: what cannot be rebuilt now may be needed as it is.
		if _, err := s.admit(ctx, heard, true); err != nil {
			return nil, err
		}
		s.Logger.Warn("the node is rebuilt from its peers", zap.String("cause", p.lost.Error()))
		if err := s.dir.NewIncarnation(RaftFolders...); err != nil {
			return nil, err
		}
	}
	err := s.dir.Update(func(id *store.Identity) {
		id.Starts++
		if s.lost && p.cluster != "" && p.cluster != id.ClusterID {
			id.RestoredAt = time.Now().UTC()
		}
		id.ClusterID = cmp.Or(p.cluster, id.ClusterID, s.Config.Agreement().Fingerprint())
	})
	if err != nil {
		return nil, err
	}
	s.run = image.NewID().String()
	if p.lost != nil || p.admit {
		return s.admit(ctx, heard, false)
	}
	return nil, nil
}

// Readmit asks for admission again when an earlier start was admitted and ended before it had a replica. If
// the node bootstrapped the cluster instead, it would come back as replicas that it has lost. It returns nil
// when the node was never admitted.
func (s *Starter) Readmit(ctx context.Context) (*catalog.Membership, error) {
	if membersIn(s.dir.Identity()) == nil {
		return nil, nil
	}
	heard, err := s.Handshake(ctx)
	if err != nil {
		return nil, err
	}
	return s.admit(ctx, heard, false)
}

// Introduce returns the command that introduces this node to the system shard. It never replaces another
// incarnation: only a node that has just given up what it had asks for that, to be admitted.
func (s *Starter) Introduce() catalog.Join {
	id := s.dir.Identity()
	j := s.Initial
	keys := s.KeyIDs()
	j.Node, j.KeyID, j.Keys = s.Self.ID, keys[0], keys
	j.Incarnation, j.Starts, j.Run, j.Restored = id.Incarnation, id.Starts, s.run, id.Restored
	return j
}

// Introduced notes that the system shard has this node's introduction.
func (s *Starter) Introduced() error {
	if s.dir.Identity().Restored == 0 {
		return nil
	}
	return s.dir.Update(func(id *store.Identity) { id.Restored = 0 })
}

// JoinRequest is what a node asks for before it takes part in Raft: to be admitted, or, with Ask, whether it
// would be. Then nothing is changed, and Incarnation is none that the node will have.
type JoinRequest struct {
	catalog.Join
	Ask bool `json:"ask,omitempty"`
}

// ParseJoin reads the request of another node. What is in it is checked when it is applied.
func ParseJoin(b []byte) (r JoinRequest, err error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return r, image.Errorf(image.KindInvalid, "malformed join: %w", err).
			WithHint("run the same imgcluster version on every node")
	}
	return r, nil
}

// admit asks the others to admit this node, for as long as a start may take; with ask, whether they would.
func (s *Starter) admit(ctx context.Context, heard []Hello, ask bool) (*catalog.Membership, error) {
	ctx, cancel := context.WithTimeout(ctx, s.Config.Timeouts.Start)
	defer cancel()
	request := JoinRequest{Join: s.Introduce(), Ask: ask}
	request.Replace = s.lost
	if ask {
		request.Incarnation, request.Starts, request.Run = image.NewID().String(), 1, image.NewID().String()
	} else {
		failpoint.Here("member/before-admit")
	}
	body, err := marshal(request)
	if err != nil {
		return nil, err
	}
	var last error // why not yet
	for {
		if len(heard) == 0 {
			heard, _ = s.Handshake(ctx) // who differs was refused before
		}
		for _, h := range heard {
			m, err := s.askToJoin(ctx, h.Node, body)
			switch kind := image.KindOf(err); {
			case err == nil && ask:
				return m, nil
			case err == nil:
				failpoint.Here("member/admitted")
				return m, s.Persist(m) // see Readmit
			case kind == image.KindInvalid || kind == image.KindNotFound:
				return nil, Refuse(image.HintOf(err), "%v", err)
			case last == nil || image.HintOf(err) != "": // a node's reason says more than that time was up
				last = err
			}
			s.Logger.Warn("not admitted yet", zap.Uint32("peer", uint32(h.Node)), zap.Error(err))
		}
		if !wait.For(ctx, Retry) {
			return nil, Refuse(cmp.Or(image.HintOf(last), "most of the other nodes must be up"),
				"node %d was not admitted to the cluster within %s: %v", s.Self.ID,
				s.Config.Timeouts.Start, cmp.Or(last, context.Cause(ctx)))
		}
	}
}

// askToJoin asks one node to admit this one, and gives up early enough for another one that may do better.
func (s *Starter) askToJoin(ctx context.Context, id image.NodeID, body []byte) (*catalog.Membership, error) {
	ctx, cancel := context.WithTimeout(ctx, s.Config.Timeouts.Proposal)
	defer cancel()
	b, err := s.Peers.Post(ctx, id, wire.JoinPath, body)
	if err != nil {
		return nil, err
	}
	return parseMembership(b)
}

// parseMembership reads what a peer answered to a JoinRequest: what is kept of it must be readable again.
func parseMembership(b []byte) (*catalog.Membership, error) {
	m := &catalog.Membership{}
	err := json.Unmarshal(b, m)
	if err == nil {
		err = m.Check()
	}
	if err != nil {
		return nil, image.Errorf(image.KindInvalid, "malformed answer to a join: %w", err).
			WithHint("run the same imgcluster version on every node")
	}
	return m, nil
}

// Persist keeps the members in the data directory, where they are known before Raft runs.
func (s *Starter) Persist(m *catalog.Membership) error {
	b, err := marshal(m.Members)
	if err != nil {
		return err
	}
	return s.dir.Update(func(id *store.Identity) { id.Members = b })
}

// Registered refuses a node that the cluster does not know as it is: m is a membership of after its own join.
// The node must stop then, and leave its data directory as it is.
func (s *Starter) Registered(m *catalog.Membership) error {
	me := m.Member(s.Self.ID)
	switch {
	case me == nil:
		return Removed(s.Self.ID)
	case me.Incarnation != s.dir.Identity().Incarnation:
		return s.replaced()
	case me.Run != s.run:
		return Refuse("run each node on one machine, and do not start copies of data directories",
			"node %d was started elsewhere with %w of data directory %s", s.Self.ID, ErrCopy, s.path())
	}
	return nil
}

// replaced is the error of a node that another data directory has taken the place of.
func (s *Starter) replaced() error {
	return Refuse(fmt.Sprintf("nothing in it was changed. If node %d runs on another machine now, leave "+
		"this one stopped; else start it with --replace, so that it is rebuilt from its peers", s.Self.ID),
		"the cluster knows node %d with %w than %s", s.Self.ID, ErrOtherDirectory, s.path())
}

// Superseded asks the peers whether this node was removed, or replaced by another data directory, and returns
// the error to end with. It does so only when the node is leaving, or when led is false: it sees no leader of
// the system shard. Both commit after, or as, this node's replica leaves that shard, so its own log may never
// have them. Where it does, a peer has to know as much: while a node catches up, it sees members of long ago.
func (s *Starter) Superseded(ctx context.Context, led bool) error {
	m := s.Membership()
	me := m.Member(s.Self.ID)
	if m.Version == 0 || me != nil && me.State != catalog.MemberLeaving && led {
		return nil
	}
	heard, err := s.Handshake(ctx)
	if err != nil {
		s.Logger.Warn("peers not asked", zap.Error(err))
	}
	for _, h := range heard {
		i := slices.IndexFunc(h.Members, func(x catalog.Member) bool { return x.ID == s.Self.ID })
		switch {
		case h.MembersVersion < m.Version, h.MembersVersion == m.Version && me != nil:
		case i < 0:
			return Removed(s.Self.ID)
		case h.Members[i].Incarnation != "" && h.Members[i].Incarnation != s.dir.Identity().Incarnation:
			return s.replaced()
		}
	}
	return nil
}

// Package bootstrap makes a configured node a member before it takes part in Raft: it exchanges hellos with
// the other nodes, refuses to run beside one that differs, claims the data directory under the identity that
// the directory and the cluster agree on, and has the cluster admit the node.
package bootstrap

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
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
	KeyID      string                     // of the master key
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

	dir *store.DataDir // nil before it is claimed
	run string         // random: distinguishes this start from that of a copied data directory
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
	s.dir, err = store.Claim(s.path(), store.Identity{
		Cluster:   s.Config.Cluster.Name,
		ClusterID: cmp.Or(p.cluster, s.Config.Agreement().Fingerprint()),
		Node:      s.Self.ID,
		KeyID:     s.KeyID,
	})
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

// raftFolders are what consensus keeps in the data directory: two folders and a file.
var raftFolders = []string{"raft", "catalog", witness.FileName}

func (s *Starter) start(ctx context.Context, heard []Hello, p finding) (*catalog.Membership, error) {
	if p.lost != nil {
		s.Logger.Warn("the node is rebuilt from its peers", zap.String("cause", p.lost.Error()))
		if err := s.dir.NewIncarnation(raftFolders...); err != nil {
			return nil, err
		}
	}
	err := s.dir.Update(func(id *store.Identity) {
		id.Starts++
		id.ClusterID = cmp.Or(id.ClusterID, p.cluster, s.Config.Agreement().Fingerprint())
	})
	if err != nil {
		return nil, err
	}
	s.run = image.NewID().String()
	if p.lost != nil || p.admit {
		return s.admit(ctx, heard)
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
	return s.admit(ctx, heard)
}

// Introduce returns the command that introduces this node to the system shard.
func (s *Starter) Introduce() catalog.Join {
	id := s.dir.Identity()
	j := s.Initial
	j.Node, j.KeyID = s.Self.ID, s.KeyID
	j.Incarnation, j.Starts, j.Run = id.Incarnation, id.Starts, s.run
	j.Replace = s.Config.Local.LostData == config.LostDataReplace
	return j
}

// admit asks the others to admit this node, for as long as a start may take.
func (s *Starter) admit(ctx context.Context, heard []Hello) (*catalog.Membership, error) {
	ctx, cancel := context.WithTimeout(ctx, s.Config.Timeouts.Start)
	defer cancel()
	body, err := marshal(s.Introduce())
	if err != nil {
		return nil, err
	}
	failpoint.Here("member/before-admit")
	for {
		if len(heard) == 0 {
			heard, _ = s.Handshake(ctx) // who differs was refused before
		}
		for _, h := range heard {
			m := &catalog.Membership{}
			if m, err = s.askToJoin(ctx, h.Node, body); err == nil {
				failpoint.Here("member/admitted")
				return m, s.Persist(m) // see Readmit
			}
			if kind := image.KindOf(err); kind == image.KindInvalid || kind == image.KindNotFound {
				return nil, Refuse(image.HintOf(err), "%v", err)
			}
			s.Logger.Warn("not admitted yet", zap.Uint32("peer", uint32(h.Node)), zap.Error(err))
		}
		if !wait.For(ctx, Retry) {
			return nil, Refuse("most of the other nodes must be up",
				"node %d was not admitted to the cluster within %s: %v", s.Self.ID,
				s.Config.Timeouts.Start, errors.Join(err, context.Cause(ctx)))
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
	m := &catalog.Membership{}
	return m, json.Unmarshal(b, m)
}

// Persist keeps the members in the data directory, where they are known before Raft runs.
func (s *Starter) Persist(m *catalog.Membership) error {
	b, err := marshal(m.Members)
	if err != nil {
		return err
	}
	return s.dir.Update(func(id *store.Identity) { id.Members = b })
}

// Removed asks the peers whether this node was removed. It does so only when the node is leaving, or when led
// is false: it sees no leader of the system shard. The removal commits after this node's replica has left
// that shard, so its own log never has it.
func (s *Starter) Removed(ctx context.Context, led bool) bool {
	m := s.Membership()
	me := m.Member(s.Self.ID)
	if me == nil || me.State != catalog.MemberLeaving && led {
		return false
	}
	heard, err := s.Handshake(ctx)
	if err != nil {
		s.Logger.Warn("peers not asked", zap.Error(err))
	}
	return slices.ContainsFunc(heard, func(h Hello) bool {
		isSelf := func(x catalog.Member) bool { return x.ID == s.Self.ID }
		return h.MembersVersion > m.Version && !slices.ContainsFunc(h.Members, isSelf)
	})
}

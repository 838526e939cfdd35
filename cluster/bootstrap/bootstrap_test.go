package bootstrap

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
	"imgcluster/cluster/printable"
	"imgcluster/cluster/wire"
	"imgcluster/config"
)

// node is node 2, with peers that answer from memory.
type node struct {
	*Starter
	known catalog.Membership // what the node knows from the system shard

	mu       sync.Mutex
	hellos   map[image.NodeID]Hello // of the peers that are up
	admit    func(id image.NodeID) (*catalog.Membership, error)
	asked    []image.NodeID // to admit the node
	asks     int            // whether they would
	refusal  error          // what that is answered with
	replaces bool           // what the last of them was told
}

func newNode(t *testing.T) *node {
	cfg := config.Default()
	cfg.Local.DataDir = filepath.Join(t.TempDir(), "node{id}")
	n := &node{hellos: map[image.NodeID]Hello{}}
	n.Starter = New(Options{
		Config:     cfg,
		Self:       cfg.Cluster.Nodes[1],
		Version:    "v1",
		KeyIDs:     func() []string { return []string{"k1"} },
		Initial:    catalog.Join{Cluster: cfg.Cluster.Name},
		Membership: func() *catalog.Membership { return &n.known },
		Peers:      n,
		Logger:     zap.NewNop(),
	})
	return n
}

// IDs implements Peers.
func (n *node) IDs() []image.NodeID { return []image.NodeID{1, 3} }

// Address implements Peers.
func (n *node) Address(id image.NodeID) string { return n.Config.Cluster.Nodes[id-1].APIAddr() }

// Post implements Peers.
func (n *node) Post(_ context.Context, id image.NodeID, path string, body []byte) ([]byte, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h, up := n.hellos[id]
	switch {
	case !up:
		return nil, errors.New("connection refused")
	case path == wire.HelloPath:
		return json.Marshal(h)
	}
	r, err := ParseJoin(body)
	if err != nil {
		return nil, err
	}
	if r.Ask {
		n.asks++
		if n.refusal != nil {
			return nil, n.refusal
		}
		return json.Marshal(n.membership(4))
	}
	n.asked = append(n.asked, id)
	n.replaces = r.Replace
	m, err := n.admit(id)
	if err != nil {
		return nil, err
	}
	return json.Marshal(m)
}

// membership is one of node 2 alone.
func (n *node) membership(version uint64) *catalog.Membership {
	on2 := func() *catalog.Layout { return &catalog.Layout{Nodes: []catalog.Replica{{Node: 2}}} }
	return &catalog.Membership{
		Version: version, Cluster: n.Config.Cluster.Name, KeyID: "k1",
		Members: []catalog.Member{{ID: 2, API: n.Self.APIAddr(), Raft: n.Self.RaftAddr(), Starts: 1}},
		Shards:  map[uint64]*catalog.Layout{1: on2(), 2: on2()},
	}
}

// peer is the hello of a peer that runs with the same configuration.
func (n *node) peer(id image.NodeID) Hello {
	h := n.hello()
	h.Node = id
	h.Incarnation = ""
	h.ClusterID = ""
	return h
}

// inCluster is the hello of a peer that is a member of a cluster with node 2.
func (n *node) inCluster(id image.NodeID, incarnation string, starts uint64) Hello {
	h := n.peer(id)
	h.ClusterID = "c1"
	h.MembersVersion = 4
	h.Members = []catalog.Member{{
		ID: 2, API: n.Self.APIAddr(), Raft: n.Self.RaftAddr(), Incarnation: incarnation, Starts: starts,
	}}
	return h
}

// start takes the node to its place, as package cluster does.
func (n *node) start(t *testing.T) (*catalog.Membership, error) {
	t.Helper()
	heard, err := n.Handshake(t.Context())
	if err != nil {
		return nil, err
	}
	dir, err := n.Claim(heard)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { dir.Close() })
	return n.Start(t.Context(), heard)
}

func TestBootstraps(t *testing.T) {
	n := newNode(t)
	n.hellos[1] = n.peer(1)
	if m, err := n.start(t); m != nil || err != nil {
		t.Fatalf("admitted with %v, %v", m, err)
	}
	id := n.dir.Identity()
	if id.ClusterID != n.Config.Agreement().Fingerprint() || id.Starts != 1 || id.Joined {
		t.Errorf("identity %+v", id)
	}
	j := n.Introduce()
	if j.Node != 2 || j.Incarnation != id.Incarnation || j.Starts != 1 || j.Run == "" || j.Replace {
		t.Errorf("introduced as %+v", j)
	}
}

func TestHandshakeRefuses(t *testing.T) {
	for name, change := range map[string]func(*Hello){
		"another cluster":   func(h *Hello) { h.Agreement.Name = "b" },
		"other shards":      func(h *Hello) { h.Agreement.DataShards++ },
		"other nodes":       func(h *Hello) { h.Agreement.Nodes = h.Agreement.Nodes[:2] },
		"another node":      func(h *Hello) { h.Node = 3 },
		"other copies":      func(h *Hello) { h.Replicas++ },
		"fewer copies":      func(h *Hello) { h.MinReplicas-- },
		"another master":    func(h *Hello) { h.KeyIDs = []string{"k2"} },
		"a stranger's node": func(h *Hello) { *h = Hello{} },
		"an older version":  func(h *Hello) { h.Protocol = 0 },
		"a newer version":   func(h *Hello) { h.Protocol++ },
		"a long version":    func(h *Hello) { h.Version = strings.Repeat("1", 70_000) },
		"a version in red":  func(h *Hello) { h.Version = "\x1b[31m1" },
		"many nodes":        func(h *Hello) { h.Agreement.Nodes = make([]config.Node, 1000) },
		"a long host":       func(h *Hello) { h.Agreement.Nodes[0].Host = strings.Repeat("a", 70_000) },
		"a long cluster ID": func(h *Hello) { h.ClusterID = strings.Repeat("a", 70_000) },
		"an odd cluster ID": func(h *Hello) { h.ClusterID = "../.." },
		"a long address": func(h *Hello) {
			h.Members = []catalog.Member{{ID: 2, API: strings.Repeat("a", 70_000) + ":1", Raft: "b:1"}}
		},
		"a long incarnation": func(h *Hello) {
			h.Members = []catalog.Member{{ID: 2, API: "a:1", Raft: "a:2", Incarnation: strings.Repeat("a", 70_000)}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			h := n.peer(1)
			h.Agreement.Nodes = slices.Clone(h.Agreement.Nodes)
			change(&h)
			n.hellos[1] = h
			_, err := n.Handshake(t.Context())
			expectRefused(t, err)
			if text := fmt.Sprint(err); len(text) > 2048 || printable.Text(text) != text {
				t.Errorf("an error of %d bytes: %.200q", len(text), text)
			}
			if Claimed(n.path()) {
				t.Error("the data directory was made")
			}
		})
	}
}

// A peer that was wiped must not bootstrap the cluster with a node that knows of one.
func TestHandshakeRefusesAWipedPeer(t *testing.T) {
	n := newNode(t)
	n.known = catalog.Membership{Version: 3, Members: []catalog.Member{{ID: 1, Incarnation: "i1"}, {ID: 2}}}
	h := n.peer(1)
	h.Members = nil
	h.MembersVersion = 0
	h.Incarnation = "i9"
	n.hellos[1] = h
	_, err := n.Handshake(t.Context())
	expectRefused(t, err)
}

func TestAdmitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.hellos[1] = n.inCluster(1, "", 0)
		n.hellos[3] = n.inCluster(3, "", 0)
		want := n.membership(5)
		n.admit = func(id image.NodeID) (*catalog.Membership, error) {
			if len(n.asked) < 4 {
				return nil, image.Errorf(image.KindNoQuorum, "no leader")
			}
			return want, nil
		}
		m, err := n.start(t)
		if err != nil || m.Version != 5 {
			t.Fatalf("admitted with %+v, %v", m, err)
		}
		if !slices.Equal(n.asked, []image.NodeID{1, 3, 1, 3}) {
			t.Errorf("asked nodes %v", n.asked)
		}
		// The members are there before a replica is: a start after a crash here is admitted again.
		if kept := membersIn(n.dir.Identity()); len(kept) != 1 || kept[0].ID != 2 {
			t.Errorf("kept members %+v", kept)
		}
		if m, err = n.Readmit(t.Context()); err != nil || m == nil {
			t.Errorf("admitted again with %+v, %v", m, err)
		}
	})
}

func TestNotAdmitted(t *testing.T) {
	for name, kind := range map[string]image.Kind{
		"no quorum in time": image.KindNoQuorum,
		"refused":           image.KindInvalid,
		"no member":         image.KindNotFound,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNode(t)
				n.hellos[1] = n.inCluster(1, "", 0)
				n.admit = func(image.NodeID) (*catalog.Membership, error) {
					return nil, image.Errorf(kind, "no").WithHint("next")
				}
				began := time.Now()
				_, err := n.start(t)
				expectRefused(t, err)
				want := time.Duration(0) // an answer that does not change is not asked for again
				if kind == image.KindNoQuorum {
					want = n.Config.Timeouts.Start
				}
				if took := time.Since(began); took != want {
					t.Errorf("took %v, want %v", took, want)
				}
			})
		})
	}
}

func TestLostDirectory(t *testing.T) {
	n := newNode(t)
	n.hellos[1] = n.inCluster(1, "i1", 3)
	n.admit = func(image.NodeID) (*catalog.Membership, error) { return n.membership(5), nil }
	_, err := n.start(t)
	expectRefused(t, err)
	if Claimed(n.path()) {
		t.Fatal("the refused start made a data directory")
	}
	n.Config.Local.LostData = config.LostDataReplace
	if m, err := n.start(t); err != nil || m == nil {
		t.Fatalf("admitted with %+v, %v", m, err)
	}
	if !n.replaces || n.asks != 1 || n.Introduce().Replace {
		t.Errorf("asked %d times, replaces %t, introduced as %+v", n.asks, n.replaces, n.Introduce())
	}
}

func TestRenew(t *testing.T) {
	n := newNode(t)
	n.hellos[1] = n.inCluster(1, "", 0)
	n.admit = func(image.NodeID) (*catalog.Membership, error) { return n.membership(5), nil }
	if _, err := n.start(t); err != nil {
		t.Fatal(err)
	}
	before := n.Introduce()
	if m, err := n.Rebuild(t.Context(), errors.New("damaged")); err != nil || m == nil {
		t.Fatalf("admitted with %+v, %v", m, err)
	}
	after := n.Introduce()
	if after.Incarnation == before.Incarnation || after.Run == before.Run || after.Starts != 1 {
		t.Errorf("introduced as %+v, before as %+v", after, before)
	}
}

// TestRefusedRebuildChangesNothing: a node that may not be rebuilt now keeps what it has as it is, and says
// why in the words of the node that refused.
func TestRefusedRebuildChangesNothing(t *testing.T) {
	for name, kind := range map[string]image.Kind{
		"not now": image.KindNoQuorum,
		"never":   image.KindInvalid,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNode(t)
				n.hellos[1] = n.inCluster(1, "", 0)
				n.admit = func(image.NodeID) (*catalog.Membership, error) { return n.membership(5), nil }
				if _, err := n.start(t); err != nil {
					t.Fatal(err)
				}
				kept := filepath.Join(n.path(), "raft")
				if err := os.Mkdir(kept, 0o700); err != nil {
					t.Fatal(err)
				}
				before := n.dir.Identity()
				n.asked = nil
				n.refusal = image.Errorf(kind, "node 3 is down").WithHint("start node 3")
				_, err := n.Rebuild(t.Context(), errors.New("damaged"))
				expectRefused(t, err)
				if !strings.Contains(fmt.Sprint(err), "node 3 is down") || image.HintOf(err) != "start node 3" {
					t.Errorf("refused with %q, hint %q", err, image.HintOf(err))
				}
				if _, err := os.Stat(kept); err != nil || !reflect.DeepEqual(n.dir.Identity(), before) || n.asked != nil {
					t.Errorf("changed: %v, %+v, asked %v", err, n.dir.Identity(), n.asked)
				}
			})
		})
	}
}

// TestMalformedMembership: what a peer answers is not kept when it could not be read again.
func TestMalformedMembership(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.hellos[1] = n.inCluster(1, "", 0)
		n.admit = func(image.NodeID) (*catalog.Membership, error) {
			m := n.membership(5)
			m.Members[0].API = strings.Repeat("a", 70_000) + ":1"
			return m, nil
		}
		_, err := n.start(t)
		expectRefused(t, err)
		if n.dir.Identity().Members != nil {
			t.Error("the members were kept")
		}
	})
}

// TestRegistered: a node that the cluster knows with another data directory, or another start of it, ends.
func TestRegistered(t *testing.T) {
	n := newNode(t)
	n.hellos[1] = n.inCluster(1, "", 0)
	n.admit = func(image.NodeID) (*catalog.Membership, error) { return n.membership(5), nil }
	if _, err := n.start(t); err != nil {
		t.Fatal(err)
	}
	j := n.Introduce()
	for name, c := range map[string]struct {
		change func(*catalog.Membership)
		want   error
	}{
		"as it is": {func(*catalog.Membership) {}, nil},
		"another directory": {
			func(m *catalog.Membership) { m.Members[0].Incarnation = "other" }, ErrOtherDirectory,
		},
		"a copy":  {func(m *catalog.Membership) { m.Members[0].Run = "other" }, ErrCopy},
		"removed": {func(m *catalog.Membership) { m.Members[0].ID = 3 }, ErrRemoved},
	} {
		m := n.membership(6)
		m.Members[0].Incarnation, m.Members[0].Run = j.Incarnation, j.Run
		c.change(m)
		err := n.Registered(m)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if c.want != nil {
			expectRefused(t, err)
		}
	}
}

// TestSuperseded: a node that sees no leader learns from its peers that another data directory has its place.
func TestSuperseded(t *testing.T) {
	for name, c := range map[string]struct {
		incarnation string // of node 2, as a peer knows it
		version     uint64 // of the peer's membership; this node's is 4
		want        error
	}{
		"another directory": {"other", 5, ErrOtherDirectory},
		"a peer that lags":  {"other", 4, nil},
		"its own":           {"", 5, nil},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.hellos[1] = n.inCluster(1, "", 0)
			n.admit = func(image.NodeID) (*catalog.Membership, error) { return n.membership(4), nil }
			if _, err := n.start(t); err != nil {
				t.Fatal(err)
			}
			n.known = *n.membership(4)
			h := n.inCluster(1, cmp.Or(c.incarnation, n.dir.Identity().Incarnation), 1)
			h.MembersVersion = c.version
			n.hellos[1] = h
			if err := n.Superseded(t.Context(), true); err != nil {
				t.Errorf("with a leader: %v", err)
			}
			if err := n.Superseded(t.Context(), false); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}

func TestRemoved(t *testing.T) {
	active := catalog.Member{ID: 2, State: catalog.MemberActive}
	leaving := catalog.Member{ID: 2, State: catalog.MemberLeaving}
	other := catalog.Member{ID: 1, State: catalog.MemberActive}
	for name, c := range map[string]struct {
		me      catalog.Member
		led     bool
		version uint64 // of the peers' membership, which has no node 2; this node's is 4
		want    bool
	}{
		"active, with a leader": {active, true, 5, false}, // its own membership will say it
		"active, no leader":     {active, false, 5, true},
		"leaving":               {leaving, true, 5, true},
		"a peer that lags":      {leaving, true, 3, false},
		// This node's replica had applied its removal when it ended, and cannot join the shard any more.
		"its own log has it, and a peer's": {other, true, 4, true},
		"only its own log has it":          {other, true, 3, false},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.known = catalog.Membership{Version: 4, Members: []catalog.Member{c.me}}
			h := n.peer(1)
			h.Members = []catalog.Member{{ID: 1, API: "10.0.0.1:8001", Raft: "10.0.0.1:9001"}}
			h.MembersVersion = c.version
			n.hellos[1] = h
			if got := errors.Is(n.Superseded(t.Context(), c.led), ErrRemoved); got != c.want {
				t.Errorf("removed %v, want %v", got, c.want)
			}
		})
	}
}

func TestHello(t *testing.T) {
	n := newNode(t)
	theirs, err := json.Marshal(n.peer(1))
	if err != nil {
		t.Fatal(err)
	}
	b, err := n.Hello(t.Context(), 1, theirs)
	var ours Hello
	if err = errors.Join(err, json.Unmarshal(b, &ours)); err != nil || ours.Node != 2 || ours.KeyIDs[0] != "k1" {
		t.Errorf("answered %s, %v", b, err)
	}
	if _, err := n.Hello(t.Context(), 1, []byte("{")); image.KindOf(err) != image.KindInvalid {
		t.Errorf("half a hello: %v", err)
	}
	if _, err := n.Hello(t.Context(), 3, theirs); image.KindOf(err) != image.KindForbidden {
		t.Errorf("node 3 as node 1: %v", err)
	}
}

package bootstrap

import (
	"encoding/json"
	"errors"
	"testing"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/store"
	"imgcluster/config"
)

var self = config.Node{ID: 2, Host: "10.0.0.2", APIPort: 8002, RaftPort: 9002}

// member2 is this node as its peers know it.
func member2(incarnation string, starts uint64) catalog.Member {
	return catalog.Member{
		ID: 2, API: "10.0.0.2:8002", Raft: "10.0.0.2:9002", Incarnation: incarnation, Starts: starts,
	}
}

// says is what a peer answers: the version of its membership and how it knows this node.
func says(version uint64, members ...catalog.Member) Hello {
	return Hello{Node: 1, ClusterID: "c1", Members: members, MembersVersion: version}
}

// used is the directory of a node that has run, as incarnation i1, three times.
func used(change func(*directory)) directory {
	d := directory{path: "/data", exists: true, claimed: true, identity: store.Identity{
		ClusterID: "c1", Incarnation: "i1", Starts: 3, Joined: true,
	}}
	if change != nil {
		change(&d)
	}
	return d
}

func TestAssess(t *testing.T) {
	kept, err := json.Marshal([]catalog.Member{member2("i1", 3)})
	if err != nil {
		t.Fatal(err)
	}
	empty := directory{path: "/data"}
	for name, c := range map[string]struct {
		dir     directory
		peers   []Hello
		cluster string
		lost    error
		admit   bool
	}{
		"bootstraps the cluster": {dir: empty},
		"peers have not bootstrapped either": {
			dir: empty, peers: []Hello{{Node: 1, ClusterID: "c1"}},
		},
		"new to a cluster": {
			dir: empty, peers: []Hello{says(4, member2("", 0))}, cluster: "c1", admit: true,
		},
		"starts again alone": {dir: used(nil), cluster: "c1"},
		"starts again": {
			dir: used(nil), peers: []Hello{says(4, member2("i1", 3))}, cluster: "c1",
		},
		"was admitted and never joined": {
			dir: used(func(d *directory) {
				d.identity.Joined = false
				d.identity.Members = kept
			}),
			cluster: "c1", admit: true,
		},
		"lost the whole directory": {
			dir: empty, peers: []Hello{says(4, member2("i1", 3))}, cluster: "c1", admit: true,
			lost: ErrOtherDirectory,
		},
		"has another directory": {
			dir:   used(func(d *directory) { d.identity.Incarnation = "i2" }),
			peers: []Hello{says(4, member2("i1", 3))}, cluster: "c1", lost: ErrOtherDirectory,
		},
		"has an older copy": {
			dir: used(nil), peers: []Hello{says(4, member2("i1", 5))}, cluster: "c1", lost: ErrOlderCopy,
		},
		"is of before a backup was restored": {
			dir:   used(func(d *directory) { d.identity.ClusterID = "c0" }),
			peers: []Hello{says(4, member2("", 0))}, cluster: "c1", lost: ErrOtherHistory,
		},
		"lost its log and its catalog": {
			dir: used(func(d *directory) { d.noRaft = true }), cluster: "c1", lost: ErrLostRaft,
		},
		"never joined, so it lost nothing": {
			dir: used(func(d *directory) {
				d.noRaft = true
				d.identity.Joined = false
			}),
			cluster: "c1",
		},
		"a peer that lags says nothing": {
			dir: used(nil), cluster: "c1",
			peers: []Hello{says(3, member2("i9", 9)), says(4, member2("i1", 3))},
		},
		"the highest count of starts says it": {
			dir: used(nil), cluster: "c1", lost: ErrOlderCopy,
			peers: []Hello{says(4, member2("i1", 7)), says(4, member2("i1", 3))},
		},
		"not claimed yet": {
			dir: directory{path: "/data", exists: true}, cluster: "c1", admit: true,
			peers: []Hello{says(4, member2("i1", 3))},
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := assess(self, c.dir, c.peers)
			if err != nil {
				t.Fatal(err)
			}
			if p.cluster != c.cluster || p.admit != c.admit {
				t.Errorf("finding %+v, want cluster %q, admit %v", p, c.cluster, c.admit)
			}
			if !errors.Is(p.lost, c.lost) {
				t.Errorf("lost %v, want %v", p.lost, c.lost)
			}
		})
	}
}

func TestAssessRefuses(t *testing.T) {
	other := member2("", 0)
	other.API = "10.0.0.9:8002"
	for name, peer := range map[string]Hello{
		"no member":       says(4, catalog.Member{ID: 1}),
		"another address": says(4, other),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := assess(self, directory{path: "/data"}, []Hello{peer})
			expectRefused(t, err)
		})
	}
}

// expectRefused expects a *RefusedError with a next step and the exit status of a configuration.
func expectRefused(t *testing.T, err error) {
	t.Helper()
	var r *RefusedError
	if !errors.As(err, &r) || r.Hint() == "" || r.ExitStatus() != 2 {
		t.Errorf("got %v, want a refusal with a hint", err)
	}
}

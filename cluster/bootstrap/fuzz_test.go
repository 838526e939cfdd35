package bootstrap

import (
	"encoding/json"
	"testing"

	"go.uber.org/zap"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
	"imgcluster/config"
)

// FuzzHello reads what another node says, at its own door and as an answer: nothing panics, and what is taken
// fits the limits of what this node keeps.
func FuzzHello(f *testing.F) {
	cfg := config.Default()
	s := New(Options{
		Config: cfg, Self: cfg.Cluster.Nodes[1], Version: "v1", KeyIDs: func() []string { return []string{"k1"} },
		Initial:    catalog.Join{Cluster: cfg.Cluster.Name},
		Membership: func() *catalog.Membership { return &catalog.Membership{} },
		Logger:     zap.NewNop(),
	})
	h := s.hello()
	for range 2 {
		b, err := json.Marshal(h)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		h.Members = []catalog.Member{{ID: 2, API: "a:1", Raft: "a:2", Incarnation: "i", Starts: 1, Run: "r"}}
		h.ClusterID, h.MembersVersion = "c1", 4
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		theirs, err := parseHello(b)
		if _, answered := s.Hello(t.Context(), theirs.Node, b); (answered == nil) != (err == nil) {
			t.Fatalf("%v at the door, %v as an answer", answered, err)
		}
		if err != nil {
			if image.KindOf(err) != image.KindInvalid {
				t.Fatal(err)
			}
			return
		}
		if len(theirs.ClusterID) > idBytesMax || len(theirs.Members) > image.NodesMax {
			t.Fatalf("took %+v", theirs)
		}
		compare(s.hello(), 1, "10.0.0.1:1", theirs)
		assess(s.Self, directory{}, []Hello{theirs})
	})
}

// FuzzJoin reads what a node asks for, and what it is answered.
func FuzzJoin(f *testing.F) {
	f.Add([]byte(`{"node":2,"cluster":"a","key_id":"k","members":[],"shards":[2],"incarnation":"i","starts":1,` +
		`"run":"r","replace":true,"ask":true}`))
	f.Add([]byte(`{"version":4,"cluster":"a","key_id":"k","members":[{"id":2,"api":"a:1","raft":"a:2"}],` +
		`"shards":{"1":{"version":1,"nodes":[{"node":2}]},"2":{"version":1,"nodes":[{"node":2}]}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, err := ParseJoin(b)
		if err != nil && (image.KindOf(err) != image.KindInvalid || image.HintOf(err) == "") {
			t.Fatal(err)
		}
		m, err := parseMembership(b)
		if err != nil {
			return
		}
		again, err := json.Marshal(m.Members)
		if err != nil || len(again) > 16<<10 {
			t.Fatalf("%d bytes would be kept, %v", len(again), err)
		}
	})
}

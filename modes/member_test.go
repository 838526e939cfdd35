package modes

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
	"imgcluster/modes/stress"
)

// fakeNodes are HTTP servers in place of nodes. A configuration lists some of them.
type fakeNodes struct {
	mu      sync.Mutex
	members []wire.Member
	ready   chan struct{} // closed when the other fields are set
	set     []string      // the options that configure the listed ones
}

// nodeHandler answers a request to a fake node.
type nodeHandler func(f *fakeNodes, id int, w http.ResponseWriter, r *http.Request)

// newFakeNodes starts nodes 1 to n, which all are members. The configuration has those in listed, of
// which one beyond n does not answer.
func newFakeNodes(t *testing.T, n int, listed []int, handler nodeHandler) *fakeNodes {
	t.Helper()
	f := &fakeNodes{ready: make(chan struct{})}
	addrs := map[int]string{}
	for id := 1; id <= n; id++ {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			<-f.ready
			handler(f, id, w, r)
		}))
		t.Cleanup(s.Close)
		addrs[id] = s.Listener.Addr().String()
		f.members = append(f.members, wire.Member{
			ID:    image.NodeID(id),
			API:   addrs[id],
			State: "active",
			Up:    true,
		})
	}
	var nodes []string
	for i, id := range listed {
		addr := addrs[id]
		if addr == "" {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			addr = l.Addr().String()
			l.Close()
		}
		nodes = append(nodes, fmt.Sprintf("%d=%s:%d", id, addr, i+1))
	}
	f.set = []string{"--set", "cluster.nodes=" + strings.Join(nodes, ",")}
	close(f.ready)
	return f
}

// call runs a command that asks the nodes.
func (f *fakeNodes) call(t *testing.T, args ...string) ended {
	t.Helper()
	t.Chdir(t.TempDir())
	return call(t, append(args, f.set...)...)
}

func (f *fakeNodes) writeMembers(w http.ResponseWriter) {
	json.NewEncoder(w).Encode(map[string]any{"members": f.members})
}

// verifying returns a handler that verifies copies: each node has 9, and reads one less than its ID. Node
// 1 ends after the last one.
func verifying() nodeHandler {
	last := make(chan struct{})
	return func(f *fakeNodes, id int, w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/members" {
			f.writeMembers(w)
			return
		}
		if id == 1 {
			<-last
		}
		if id == len(f.members) {
			defer close(last)
		}
		sum := wire.VerifySummary{Node: image.NodeID(id), Images: int64(id - 1), OfImages: 9}
		json.NewEncoder(w).Encode(wire.VerifyLine{Type: wire.VerifyEnd, VerifySummary: sum})
	}
}

// TestVerifyMembers: verify asks the members, not the nodes of the configuration.
func TestVerifyMembers(t *testing.T) {
	f := newFakeNodes(t, 4, []int{1, 2, 7}, verifying())
	e := f.call(t, "verify")
	e.expectErr(t, 0, "node 7 is not a member")
	if want := "node 1  nothing was read of 9 copies\n" +
		"node 2  1 copy, 0 B: all good\n" +
		"node 3  2 copies, 0 B: all good\n" +
		"node 4  3 copies, 0 B: all good\n"; e.out != want {
		t.Errorf("want %s of %v", want, e)
	}
	f = newFakeNodes(t, 4, []int{1, 2, 3}, verifying())
	e = f.call(t, "verify", "--node", "4")
	e.expectOut(t, 0, "node 4  3 copies")
	if strings.Count(e.out, "\n") != 1 {
		t.Errorf("want one line of %v", e)
	}
	for _, id := range []string{"5", "7", "4294967297"} {
		f.call(t, "verify", "--node", id).expectRefused(t, exitUsage, "node "+id+" is not a member", "member list")
	}
}

// TestPreflightMembers: the preflight asks the members, also one that the configuration does not list,
// and not a node that was removed.
func TestPreflightMembers(t *testing.T) {
	f := newFakeNodes(t, 3, []int{1, 2, 7}, func(f *fakeNodes, id int, w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/node" {
			json.NewEncoder(w).Encode(wire.NodeInfo{ID: image.NodeID(id), Version: version()})
			return
		}
		s := wire.ClusterStatus{Ready: true, Replicas: 2}
		for _, m := range f.members {
			s.Nodes = append(s.Nodes, wire.NodeStatus{ID: m.ID, API: m.API, State: wire.NodeUp})
		}
		json.NewEncoder(w).Encode(s)
	})
	e := f.call(t, "stress", "--dry-run", "--json", "--count", "1")
	var doc struct{ Preflight []stress.Check }
	if err := json.Unmarshal([]byte(e.out), &doc); err != nil || len(doc.Preflight) == 0 {
		t.Fatalf("%v: %v", err, e)
	}
	nodes := doc.Preflight[0]
	if nodes.Name != "nodes" || nodes.State != stress.CheckWarn {
		t.Errorf("%+v", nodes)
	}
	for _, id := range []string{"node 7", "node 3"} {
		if !strings.Contains(nodes.Said, id) {
			t.Errorf("no %s in %+v", id, nodes)
		}
	}
}

// TestMemberWaits drains a node while another one, to which shards move, does not answer. The drain ends
// after the command has said twice what it waits for.
func TestMemberWaits(t *testing.T) {
	t.Parallel()
	var moved atomic.Bool
	f := newFakeNodes(t, 4, []int{1, 2, 3}, func(f *fakeNodes, _ int, w http.ResponseWriter, _ *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		draining := wire.Member{ID: 1, State: "draining", Up: true}
		if !moved.Load() {
			draining.Shards = 4
			draining.Moving = 3
			draining.Images = 7
		}
		f.members[0] = draining
		f.members[3].Up = false
		f.members[3].Moving = 3
		f.writeMembers(w)
	})
	r := start(t, program(t, t.TempDir(), append([]string{"member", "drain", "1"}, f.set...)...))
	const said = `node 1 is draining: 4 shards, 7 copies, 0 shards to lead; ` +
		`node 4 .* 3 shards .* server --id 4\n`
	r.awaitText(t, &r.err, "^"+said+"still waiting: "+said)
	moved.Store(true)
	if status := r.status(); status != 0 || !strings.Contains(r.out.String(), "draining") {
		t.Errorf("exit status %d: %s%s", status, &r.out, &r.err)
	}
}

// TestDrained: a drain is complete although the node has shards, if no other node can take them.
func TestDrained(t *testing.T) {
	of := func(draining ...wire.Member) []wire.Member {
		for i := range draining {
			draining[i].ID = image.NodeID(i + 1)
			draining[i].State = "draining"
		}
		return append(draining, wire.Member{ID: 8, State: "active"}, wire.Member{ID: 9, State: "active"})
	}
	for _, x := range []struct {
		list []wire.Member
		want bool
	}{
		{of(wire.Member{Shards: 4}), true},
		{of(wire.Member{Shards: 4, Images: 1}), false},
		{of(wire.Member{Shards: 4, Leads: 1}), false},
		{of(wire.Member{Shards: 4}, wire.Member{Shards: 4}), true},
		{of(wire.Member{Shards: 4, Moving: 1}, wire.Member{Shards: 4}), false},
		{append(of(wire.Member{Shards: 4}), wire.Member{ID: 7, State: "active"}), false},
		{append(of(wire.Member{}), wire.Member{ID: 7, State: "active"}), true},
		{nil, true},
	} {
		if got := drained(x.list, 1); got != x.want {
			t.Errorf("%+v: %v", x.list, got)
		}
	}
}

// TestStillTrying: a command that gets no answer says so after 5 s, unless it is to be quiet. The nodes
// answer when all have said it.
func TestStillTrying(t *testing.T) {
	t.Parallel()
	answer := make(chan struct{})
	f := newFakeNodes(t, 3, []int{1, 2, 3}, func(f *fakeNodes, _ int, w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		select {
		case <-answer:
		case <-r.Context().Done(): // the test has failed
		}
		switch {
		case r.URL.Path == "/v1/members":
			f.writeMembers(w)
		case r.URL.Path == "/v1/images/default":
			json.NewEncoder(w).Encode(wire.List{})
		case r.Method == http.MethodPost:
			json.NewEncoder(w).Encode(wire.Announcement{Nodes: []image.NodeID{1, 2}})
		default:
			json.NewEncoder(w).Encode(image.Receipt{Bytes: r.ContentLength, Committed: true})
		}
	})
	run := func(args ...string) *running { return start(t, program(t, t.TempDir(), append(args, f.set...)...)) }
	quiet := run("ls", "--quiet")
	commands := []*running{run("ls"), run("member", "list"), run("put", photos(t)[0])}
	for _, r := range commands {
		r.awaitText(t, &r.err, `^still trying after [56] s: .*\n`)
	}
	close(answer)
	for _, r := range append(commands, quiet) {
		if status := r.status(); status != 0 || strings.Count(r.err.String(), "still trying") > 1 {
			t.Errorf("%v: exit status %d: %s", r.cmd.Args, status, &r.err)
		}
	}
	if quiet.err.String() != "" {
		t.Errorf("--quiet says %s", &quiet.err)
	}
}

// TestStatusHeadline: the first line says what a cluster lacks, although it is ready.
func TestStatusHeadline(t *testing.T) {
	s := wire.ClusterStatus{
		Name:     "c",
		Ready:    true,
		Replicas: 2,
		Shards:   []wire.ShardStatus{{ID: 1, Leader: 1}},
		Nodes:    []wire.NodeStatus{{ID: 1, State: wire.NodeUp}, {ID: 2, State: wire.NodeDown}},
	}
	for missing, want := range map[int64]string{
		81: "c is ready: 1 of 1 shard have a leader, 1 node down, 81 images under-replicated\n",
		0:  "c is ready: 1 of 1 shard have a leader, 1 node down\n",
	} {
		var out bytes.Buffer
		s.UnderReplicated = missing
		if err := writeStatus(&out, s); err != nil || !strings.HasPrefix(out.String(), want) {
			t.Errorf("%v: %s", err, &out)
		}
	}
}

// TestStatusOutline: what a key that is no administrator's is shown has no figures that look like none.
func TestStatusOutline(t *testing.T) {
	s := wire.ClusterStatus{
		Name: "photos", Ready: true, Images: 7, Shards: []wire.ShardStatus{{ID: 2, Leader: 1}},
		Nodes: []wire.NodeStatus{{ID: 1, API: "127.0.0.1:8001", State: wire.NodeUp, StoredImages: 7, Version: "v"}},
	}
	var out bytes.Buffer
	if err := writeStatus(&out, s.Outline()); err != nil {
		t.Fatal(err)
	}
	const want = "photos is ready: 1 of 1 shard have a leader\n" +
		"node  state  API\n1     up     127.0.0.1:8001\n" +
		"The access key is not an administrator's: loads and figures are left out.\n"
	if out.String() != want {
		t.Errorf("%s", out.String())
	}
}

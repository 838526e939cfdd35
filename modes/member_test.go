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
	"testing"
	"time"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
	"imgcluster/modes/term"
)

// fakeNodes are HTTP servers in the place of nodes, of which a configuration lists some.
type fakeNodes struct {
	mu      sync.Mutex
	members []wire.Member
	ready   chan struct{} // closed when all of this is there
	set     []string      // the options that name the listed ones
}

// newFakeNodes starts nodes 1 to n that serve what handler does, beside the list of members, which are all of
// them. The configuration has those in listed; one beyond n does not answer.
func newFakeNodes(t *testing.T, n int, listed []int, handler func(f *fakeNodes, id int, w http.ResponseWriter, r *http.Request)) *fakeNodes {
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
		f.members = append(f.members, wire.Member{ID: image.NodeID(id), API: addrs[id], State: "active", Up: true})
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

// call runs a command against the nodes.
func (f *fakeNodes) call(t *testing.T, args ...string) ended {
	t.Helper()
	t.Chdir(t.TempDir())
	return call(t, append(args, f.set...)...)
}

func (f *fakeNodes) writeMembers(w http.ResponseWriter) {
	json.NewEncoder(w).Encode(map[string]any{"members": f.members})
}

// verifying serves a node that has two copies of images, of which it reads as many as its ID says, and
// ends the later the lower its ID is.
func verifying(last chan struct{}) func(f *fakeNodes, id int, w http.ResponseWriter, r *http.Request) {
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
		json.NewEncoder(w).Encode(wire.VerifyLine{Type: wire.VerifyEnd, VerifySummary: wire.VerifySummary{Node: image.NodeID(id), Images: int64(id - 1), OfImages: 9}})
	}
}

// TestVerifyMembers: the members are asked, not the nodes of the configuration.
func TestVerifyMembers(t *testing.T) {
	f := newFakeNodes(t, 4, []int{1, 2, 7}, verifying(make(chan struct{})))
	e := f.call(t, "verify")
	want := "node 1  nothing was read of 9 copies\nnode 2  1 copy, 0 B: all good\nnode 3  2 copies, 0 B: all good\nnode 4  3 copies, 0 B: all good\n"
	if e.status != 0 || e.out != want || !strings.Contains(e.err, "node 7 is not a member of the cluster: it was removed") {
		t.Error(e)
	}
	f = newFakeNodes(t, 4, []int{1, 2, 3}, verifying(make(chan struct{})))
	if e := f.call(t, "verify", "--node", "4"); e.status != 0 || !strings.HasPrefix(e.out, "node 4  3 copies") || strings.Count(e.out, "\n") != 1 {
		t.Error(e)
	}
	if e := f.call(t, "verify", "--node", "5"); e.status != exitUsage || !strings.Contains(e.err, "node 5 is not a member of the cluster\nhint: see the members with: imgcluster member list") {
		t.Error(e)
	}
	if e := f.call(t, "verify", "--node", "4294967297"); e.status != exitUsage || !strings.Contains(e.err, "node 4294967297 is not a member") {
		t.Error(e)
	}
	if e := f.call(t, "verify", "--node", "7"); e.status != exitUsage {
		t.Error(e)
	}
}

// TestPreflightMembers looks at the members, one of which the configuration does not list, and not at a
// node that was removed.
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
	if !strings.Contains(e.out, `{"check":"nodes","state":"warn","found":"node 7 is not a member`) || !strings.Contains(e.out, "node 3 is a member of the cluster and not in the configuration here") {
		t.Error(e)
	}
}

// TestMemberWaits drains a node while another one, which shards move to, does not answer.
func TestMemberWaits(t *testing.T) {
	t.Parallel()
	began := time.Now()
	f := newFakeNodes(t, 4, []int{1, 2, 3}, func(f *fakeNodes, _ int, w http.ResponseWriter, _ *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.members[0].State = "draining"
		f.members[0].Shards, f.members[0].Moving, f.members[0].Images = 4, 3, 7
		if f.members[3].Up, f.members[3].Moving = false, 3; time.Since(began) > term.ProgressEvery+2*memberEvery {
			f.members[0].Shards, f.members[0].Moving, f.members[0].Images = 0, 0, 0
		}
		f.writeMembers(w)
	})
	e := finish(t, program(t, t.TempDir(), append([]string{"member", "drain", "1"}, f.set...)...))
	said := "node 1 is draining: 4 shards, 7 copies, 0 shards to lead; node 4 does not answer, and 3 shards on the way wait for it: start it with imgcluster server --id 4\n"
	if e.status != 0 || !strings.HasPrefix(e.err, said+"still waiting: "+said) || !strings.Contains(e.out, "draining") {
		t.Error(e)
	}
}

// TestDrained: a drain is over when shards that nobody else can take stay.
func TestDrained(t *testing.T) {
	of := func(draining ...wire.Member) []wire.Member {
		for i := range draining {
			draining[i].ID, draining[i].State = image.NodeID(i+1), "draining"
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

// TestStillTrying: a command that has no answer says so after 5 s, unless it is to be quiet.
func TestStillTrying(t *testing.T) {
	t.Parallel()
	photo := photos(t)[0]
	f := newFakeNodes(t, 3, []int{1, 2, 3}, func(f *fakeNodes, _ int, w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		time.Sleep(8 * time.Second)
		switch r.URL.Path {
		case "/v1/members":
			f.writeMembers(w)
		case "/v1/images/default":
			json.NewEncoder(w).Encode(wire.List{})
		default:
			json.NewEncoder(w).Encode(image.Receipt{Bytes: r.ContentLength, Committed: true})
		}
	})
	var all sync.WaitGroup
	for _, x := range []struct{ args, said string }{
		{"ls", "still trying after 5 s: node 1 does not answer\n0 images of user default, 0 B\n"},
		{"member list", "still trying after 5 s: node 1 does not answer\n"},
		{"put " + photo, "still trying after 6 s: no node has answered yet\n"},
		{"ls --quiet", ""},
	} {
		cmd := program(t, t.TempDir(), append(strings.Fields(x.args), f.set...)...)
		all.Go(func() {
			var errs bytes.Buffer
			cmd.Stderr = &errs
			if err := cmd.Run(); err != nil || errs.String() != x.said {
				t.Errorf("%s: %v: %s", x.args, err, &errs)
			}
		})
	}
	all.Wait()
}

// TestStatusHeadline: the first line tells what is amiss though the cluster is ready.
func TestStatusHeadline(t *testing.T) {
	s := wire.ClusterStatus{Name: "c", Ready: true, Replicas: 2, Shards: []wire.ShardStatus{{ID: 1, Leader: 1}}}
	s.Nodes = []wire.NodeStatus{{ID: 1, State: wire.NodeUp}, {ID: 2, State: wire.NodeDown}}
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

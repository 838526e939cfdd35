package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"imgcluster/cluster/bootstrap"
	"imgcluster/cluster/client"
	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
	"imgcluster/config"
)

// uploads are sent one after the other until end is called. all are the acknowledged ones.
type uploads struct {
	end func()
	mu  sync.Mutex
	all []stored
}

func startUploads(t *testing.T, c *clustertest.Cluster, prefix string) *uploads {
	cl := c.Client(t, client.Broadcast)
	ctx, cancel := context.WithCancel(t.Context())
	u := &uploads{}
	var wg sync.WaitGroup
	for worker := range 2 {
		wg.Go(func() {
			pace := time.NewTicker(50 * time.Millisecond) // leaves a busy host time for the rest
			defer pace.Stop()
			for i := 0; ctx.Err() == nil; i++ {
				<-pace.C
				s := stored{
					name: fmt.Sprintf("%s-%d-%d.png", prefix, worker, i),
					body: clustertest.Image(uint64(9000+i), 60_000+i),
				}
				if _, err := cl.Put(t.Context(), uploadOf(s.name, s.body)); err != nil {
					t.Errorf("%s: %v", s.name, err)
					return
				}
				u.mu.Lock()
				u.all = append(u.all, s)
				u.mu.Unlock()
			}
		})
	}
	u.end = func() {
		cancel()
		wg.Wait()
	}
	t.Cleanup(u.end)
	return u
}

func (u *uploads) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.all)
}

func changeMember(t *testing.T, cl *client.Client, op wire.MemberOp, id image.NodeID) {
	t.Helper()
	if _, err := cl.ChangeMember(t.Context(), wire.MemberChange{Op: op, ID: id}); err != nil {
		t.Fatalf("%s %d: %v", op, id, err)
	}
}

// awaitMembers waits until nothing moves any more and returns the members.
func awaitMembers(t *testing.T, cl *client.Client, members int) (list []wire.Member) {
	t.Helper()
	clustertest.Poll(t, fmt.Sprintf("%d members, and nothing moves", members), func() bool {
		var err error
		list, err = cl.Members(t.Context())
		moving := slices.ContainsFunc(list, func(m wire.Member) bool { return m.Moving > 0 || !m.Up })
		return err == nil && len(list) == members && !moving
	})
	return list
}

// addition returns the change that adds a node to the members.
func addition(n config.Node) wire.MemberChange {
	return wire.MemberChange{Op: wire.MemberAdd, ID: n.ID, API: n.APIAddr(), Raft: n.RaftAddr()}
}

// TestGrowAndShrink takes a cluster from three nodes to five and back to three others, while it stores
// images.
func TestGrowAndShrink(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a cluster")
	}
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{})
	cl := c.Client(t, client.Relay)
	all := putImages(t, c, "before", 12)
	load := startUploads(t, c, "meanwhile")

	for range 2 {
		n := c.Grow()
		expectRefused(t, c.TryStart(c.Config, n.ID), bootstrap.ErrNotMember)
		if _, err := cl.ChangeMember(t.Context(), addition(n)); err != nil {
			t.Fatal(err)
		}
		c.Start(n.ID)
		awaitMembers(t, cl, len(c.IDs()))
	}
	for _, m := range awaitMembers(t, cl, 5) {
		if m.Shards < 1 || m.Shards > 2 { // 3 shards on 3 of 5 nodes each
			t.Errorf("node %d holds %d of 3 shards", m.ID, m.Shards)
		}
	}
	c.WaitReady(c.IDs()...)
	for _, s := range c.Status(5).Shards[1:] {
		if len(s.Nodes) != 3 || s.Leader == 0 {
			t.Errorf("shard %+v", s)
		}
	}
	expectImages(t, c, all, c.IDs()...)
	more := load.count()
	clustertest.Poll(t, "uploads to go on", func() bool { return load.count() > more+5 })

	changeMember(t, cl, wire.MemberDrain, 1)
	clustertest.Poll(t, "node 1 to be empty", func() bool {
		list, err := cl.Members(t.Context())
		return err == nil && list[0].Images == 0 && list[0].Shards == 0 && list[0].Leads == 0
	})
	expectImages(t, c, all, 1) // it still answers
	changeMember(t, cl, wire.MemberRemove, 1)
	awaitMembers(t, cl, 4)
	select {
	case err := <-c.Node(1).Failed():
		expectRefused(t, err, bootstrap.ErrRemoved)
	case <-time.After(clustertest.Deadline):
		t.Error("node 1 does not notice that it was removed")
	}
	c.Stop(1)
	c.Shrink(1)

	c.Stop(2) // a dead one
	changeMember(t, cl, wire.MemberRemove, 2)
	awaitMembers(t, cl, 3)
	c.Shrink(2)
	load.end()
	all = append(all, load.all...)
	c.WaitReady(c.IDs()...)
	awaitCopies(t, c, 5)
	expectImages(t, c, all, c.IDs()...)
	if s := c.Status(4); s.Images != int64(len(all)) {
		t.Errorf("%d images, %d were acknowledged", s.Images, len(all))
	}
	c.ExpectSettled(t)
	c.Restart(c.IDs()...) // with a configuration of those three
	expectImages(t, c, all[:5], c.IDs()...)
}

// TestFiveNodes bootstraps a cluster of five nodes, with each shard on three of them, and stops one.
func TestFiveNodes(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a cluster")
	}
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Nodes: 5})
	all := putImages(t, c, "five", 10) // plain uploads to nodes that may not hold the shard
	load := startUploads(t, c, "broadcast")
	clustertest.Poll(t, "uploads", func() bool { return load.count() > 10 })
	expectImages(t, c, all, c.IDs()...)
	if got := len(c.List(t, 4, "alice")); got < len(all) {
		t.Errorf("node 4 lists %d images of at least %d", got, len(all))
	}
	c.Stop(3)
	more := load.count()
	clustertest.Poll(t, "uploads with a node down", func() bool { return load.count() > more+10 })
	expectImages(t, c, all, c.Others(3)...)
	began := time.Now()
	c.Start(3)
	c.WaitReady(c.IDs()...)
	t.Logf("node 3 was ready again after %v", time.Since(began))
	load.end()
	expectImages(t, c, append(all, load.all...), c.IDs()...)
	c.ExpectSettled(t)
	c.ExpectNoPlaintext(t)
}

// TestBadMembers asks for changes that must be refused, and change nothing.
func TestBadMembers(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a cluster")
	}
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{})
	cl := c.Client(t, client.Relay)
	known := c.Config.Cluster.Nodes[1]
	before := awaitMembers(t, cl, 3)
	for _, x := range []struct{ api, raft, wrong string }{
		{"bad host!:7304", "bad host!:7404", `host: "bad host!"`},
		{"127.0.0.1:0", "127.0.0.1:7404", "api_port: 0"},
		{"127.0.0.1:7304", "127.0.0.1:99999", "raft_port: 99999"},
		{"127.0.0.1:7304", "localhost:7404", "localhost:7404"},
		{"127.0.0.1:7304", "127.0.0.1:07404", "127.0.0.1:07404"},
		{"127.0.0.1:7304", "", "127.0.0.1:7304"},
		{"127.0.0.1:http", "127.0.0.1:7404", "127.0.0.1:http"},
		{"127.0.0.1:7304", "127.0.0.1:7304", "raft_port: 127.0.0.1:7304"},
		{"0.0.0.0:7304", "0.0.0.0:7404", `host: "0.0.0.0"`},
		{"[fe80::1]:7304", "[fe80::1]:7404", `host: "fe80::1"`},
		{"[0::1]:7304", "[0::1]:7404", `host: "0::1"`},
		{fmt.Sprintf("localhost:%d", known.APIPort), "localhost:7404", "node 2 has the address " + known.APIAddr()},
		{"127.0.0.1:7304", known.APIAddr(), "node 2 has the address " + known.APIAddr()},
	} {
		add := wire.MemberChange{Op: wire.MemberAdd, ID: 4, API: x.api, Raft: x.raft}
		_, err := cl.ChangeMember(t.Context(), add)
		var e *image.Error
		if !errors.As(err, &e) || e.Kind != image.KindInvalid || e.Hint() == "" {
			t.Errorf("%q and %q: %v, want a hint", x.api, x.raft, err)
		} else if !strings.Contains(e.Detail, x.wrong) {
			t.Errorf("%q and %q: %v, want %q in it", x.api, x.raft, err, x.wrong)
		}
	}
	if after := awaitMembers(t, cl, 3); !slices.Equal(ids(after), ids(before)) {
		t.Errorf("members %+v", after)
	}

	changeMember(t, cl, wire.MemberDrain, 3)
	for _, op := range []wire.MemberOp{wire.MemberDrain, wire.MemberRemove} {
		_, err := cl.ChangeMember(t.Context(), wire.MemberChange{Op: op, ID: 2})
		if image.KindOf(err) != image.KindInvalid || !strings.Contains(err.Error(), "node 2") {
			t.Errorf("%s: %v", op, err)
		}
	}
	changeMember(t, cl, wire.MemberDrain, 3) // again
	for _, m := range awaitMembers(t, cl, 3) {
		if want := map[bool]string{true: "draining", false: "active"}[m.ID == 3]; m.State != want {
			t.Errorf("node %d is %s", m.ID, m.State)
		}
	}
}

func ids(list []wire.Member) (all []image.NodeID) {
	for _, m := range list {
		all = append(all, m.ID)
	}
	return all
}

// TestMembersWithoutQuorum: the list of members has the timeout of a read, as that of images has.
func TestMembersWithoutQuorum(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a cluster")
	}
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Change: func(cfg *config.Config) {
		cfg.Timeouts.Proposal = time.Minute
		cfg.Timeouts.Upload = time.Minute
		cfg.Timeouts.Read = 300 * time.Millisecond
	}})
	c.Stop(2, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL(1, "/v1/members"), nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.HTTP.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("status %s", r.Status)
	}
}

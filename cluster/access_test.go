package cluster_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"

	"imgcluster/cluster/client"
	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/image"
)

// TestRemovedUser removes a user with images, while others' stay and an upload of the user is on its way: the
// images are gone at once on every node, the files and old values after that, and the name can be used again,
// with another key.
func TestRemovedUser(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{})
	cl := c.Client(t, client.Broadcast)
	bodies := map[string][]byte{}
	for i := range 30 {
		name := fmt.Sprintf("%d.png", i)
		bodies[name] = clustertest.Image(uint64(i), 5000+i)
		for _, user := range []string{"alice", "alicia"} {
			c.Put(t, c.IDs()[i%3], user, name, bodies[name], nil)
		}
	}
	before := keyID(t, c, "alice")
	body := clustertest.Image(99, 200_000)
	conn := c.Dial(t, 1)
	path := clustertest.Path("alice", "late.png")
	conn.Send(fmt.Sprintf("PUT %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n", path, len(body)),
		body[:100_000])
	clustertest.Poll(t, "the upload is on its way", func() bool { return c.Status(1).Nodes[0].Uploads > 0 })

	left, err := cl.RemoveUser(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	if len(left.Nodes) != 3 || len(left.Shards) != c.Config.Cluster.DataShards {
		t.Errorf("left to do: %+v", left)
	}
	for _, id := range c.IDs() {
		clustertest.Poll(t, fmt.Sprintf("node %d refuses the images", id), func() bool {
			return c.Do(http.MethodGet, id, clustertest.Path("alice", "1.png"), nil, nil).Status == http.StatusNotFound
		})
		if list := c.List(t, id, "alice"); len(list) > 0 {
			t.Errorf("node %d lists %d images of the removed user", id, len(list))
		}
	}
	conn.Send(body[100_000:])
	if r := conn.Answer(); r.Status == http.StatusCreated {
		t.Errorf("the upload that was on its way was stored: %s", r.Body)
	}
	awaitRemovals(t, cl)
	c.ExpectSettled(t)
	for name := range bodies {
		for _, id := range c.IDs() {
			clustertest.ExpectProblem(t, c.Do(http.MethodGet, id, clustertest.Path("alice", name), nil, nil),
				image.KindNotFound)
		}
		c.ExpectImage(t, "alicia", name, bodies[name], c.IDs()...)
	}

	c.Put(t, 2, "alice", "1.png", bodies["2.png"], nil)
	c.ExpectImage(t, "alice", "1.png", bodies["2.png"], c.IDs()...)
	if after := keyID(t, c, "alice"); after <= before {
		t.Errorf("the new user's key has the ID %d, the removed one's had %d", after, before)
	}
	c.ExpectEqualCatalogs(t)
	c.ExpectNoPlaintext(t)
	c.ExpectUniqueKeys(t)
}

func awaitRemovals(t *testing.T, cl *client.Client) {
	t.Helper()
	clustertest.Poll(t, "removals are complete", func() bool {
		page, err := cl.UserPage(t.Context(), "")
		return err == nil && len(page.Removals) == 0
	})
}

func keyID(t *testing.T, c *clustertest.Cluster, user string) uint32 {
	t.Helper()
	id, err := c.Node(1).UserKeyID(t.Context(), user)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestRemovalGoesOn kills nodes in the middle of a user's removal, and leaves one down: the others go on
// where those ended, the removal says whose disk is left, and ends when that node is back.
func TestRemovalGoesOn(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a cluster")
	}
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Processes: true})
	cl := c.Client(t, client.Broadcast)
	body := clustertest.Image(1, 1000)
	for i := range 60 {
		c.Put(t, c.IDs()[i%3], "alice", fmt.Sprintf("%d.png", i), body, nil)
	}
	c.Put(t, 1, "bob", "stays.png", body, nil)
	c.Kill(3)
	if _, err := cl.RemoveUser(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	c.Kill(1)
	c.Start(1)
	c.WaitReady(1, 2)
	clustertest.Poll(t, "only node 3 to be left", func() bool {
		page, err := cl.UserPage(t.Context(), "")
		return err == nil && len(page.Removals) == 1 && len(page.Removals[0].Shards) == 0 &&
			slices.Equal(page.Removals[0].Nodes, []image.NodeID{3})
	})
	if _, err := cl.AddUser(t.Context(), "alice"); err != nil { // its name is free
		t.Error(err)
	}
	c.Put(t, 1, "alice", "new.png", body, nil)
	c.Start(3)
	c.WaitReady(c.IDs()...)
	awaitRemovals(t, cl)
	c.ExpectImage(t, "alice", "new.png", body, c.IDs()...)
	c.ExpectImage(t, "bob", "stays.png", body, c.IDs()...)
	c.ExpectSettled(t)
	if list := c.List(t, 3, "alice"); len(list) != 1 {
		t.Errorf("%d images of alice", len(list))
	}
}

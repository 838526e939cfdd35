package cluster_test

import (
	"bytes"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"imgcluster/cluster/client"
	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/wire"
)

// fileKeys counts the stored files of all nodes by the number of the user's key in their headers.
func fileKeys(t *testing.T, c *clustertest.Cluster) map[uint32]int {
	t.Helper()
	keys := map[uint32]int{}
	for _, id := range c.IDs() {
		for _, path := range c.Files(t, id, ".img") {
			if h, _ := clustertest.Header(t, path); h != nil {
				keys[h.UserKey]++
			}
		}
	}
	return keys
}

// TestRewrap encrypts a user's images again under a newer key while images are read and uploaded, with one
// node down that does its part when it is back.
func TestRewrap(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a cluster")
	}
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Nodes: 4})
	cl := c.Client(t, client.Relay)
	before := putImages(t, c, "before", 12)
	_, err := cl.RewrapState(t.Context(), "alice")
	expectHinted(t, err, "no images of \"alice\" are to be encrypted again")
	_, err = cl.Rewrap(t.Context(), "nobody")
	expectHinted(t, err, "nobody")
	if s, err := cl.Rewrap(t.Context(), "alice"); err != nil || s.Key != 1 || s.Left != 0 {
		t.Errorf("with one key there is left: %+v, %v", s, err)
	}
	if _, err := cl.RotateUserKey(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	c.Stop(4)
	load := startUploads(t, c, "meanwhile")
	if s, err := cl.Rewrap(t.Context(), "alice"); err != nil || s.Key != 2 {
		t.Errorf("the images are encrypted again: %+v, %v", s, err)
	}
	ended, reads := make(chan struct{}), atomic.Int64{}
	var readers sync.WaitGroup
	end := sync.OnceFunc(func() {
		close(ended)
		readers.Wait()
	})
	t.Cleanup(end)
	for range 2 {
		readers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-ended:
					return
				default:
				}
				s := before[i%len(before)]
				o, err := cl.Get(t.Context(), "alice", s.name, false)
				var got []byte
				if err == nil {
					got, err = io.ReadAll(o.Body)
					o.Body.Close()
				}
				if err != nil || !bytes.Equal(got, s.body) {
					t.Errorf("%s while it is encrypted again: %d bytes, %v", s.name, len(got), err)
					return
				}
				reads.Add(1)
			}
		})
	}
	var s wire.Rewrap
	clustertest.Poll(t, "only the node that is down has copies left", func() bool {
		var err error
		s, err = cl.RewrapState(t.Context(), "alice")
		return err == nil && !slices.ContainsFunc(s.Nodes, func(n wire.RewrapNode) bool { return n.ID != 4 })
	})
	enough := reads.Load() + 10
	clustertest.Poll(t, "images are read", func() bool { return reads.Load() >= enough })
	if s.Left == 0 {
		t.Error("nothing is left, though a node is down")
	}
	c.Start(4)
	c.WaitReady(4)
	clustertest.Poll(t, "nothing is left", func() bool {
		s, err := cl.RewrapState(t.Context(), "alice")
		return err == nil && s.Left == 0 && len(s.Nodes) == 0
	})
	end()
	load.end()
	c.ExpectSettled(t)
	if keys := fileKeys(t, c); len(keys) != 1 || keys[2] == 0 {
		t.Errorf("the files by key are %v", keys)
	}
	expectImages(t, c, slices.Concat(before, load.all), c.IDs()...)
	c.ExpectUniqueKeys(t)
	if _, err := cl.RemoveUser(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	_, err = cl.RewrapState(t.Context(), "alice")
	expectHinted(t, err, "no images")
}

// TestRewrapOfLate: an upload that was encrypted under the older key and is stored after all others were
// encrypted again is encrypted again too.
func TestRewrapOfLate(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a cluster")
	}
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{})
	cl := c.Client(t, client.Relay)
	putImages(t, c, "before", 2)
	body := clustertest.Image(7, 400_000)
	conn := c.Dial(t, 1)
	conn.Send("PUT "+clustertest.Path("alice", "late.png")+" HTTP/1.1\r\nHost: "+c.Addr(1)+
		"\r\nContent-Length: 400000\r\n\r\n", body[:200_000])
	clustertest.Poll(t, "two nodes write the copies of the upload", func() bool {
		return len(slices.Concat(c.Files(t, 1, ".tmp"), c.Files(t, 2, ".tmp"), c.Files(t, 3, ".tmp"))) >= 2
	})
	if _, err := cl.RotateUserKey(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	if _, err := cl.Rewrap(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	nothingLeft := func() bool {
		s, err := cl.RewrapState(t.Context(), "alice")
		return err == nil && s.Left == 0
	}
	clustertest.Poll(t, "nothing is left of what is stored", nothingLeft)
	conn.Send(body[200_000:])
	if r := conn.Answer(); r.Status >= 300 {
		t.Fatalf("the upload is answered with %d", r.Status)
	}
	clustertest.Poll(t, "nothing is left of the late upload", nothingLeft)
	c.ExpectSettled(t)
	if keys := fileKeys(t, c); len(keys) != 1 || keys[2] == 0 {
		t.Errorf("the files by key are %v", keys)
	}
	c.ExpectImage(t, "alice", "late.png", body, c.IDs()...)
}

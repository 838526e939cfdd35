package cluster_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imgcluster/cluster/client"
	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/image"
	"imgcluster/cluster/store"
	"imgcluster/cluster/wire"
	"imgcluster/crypto"
)

// prepare makes the next master key, on the one host of all nodes.
func prepare(t *testing.T, c *clustertest.Cluster) *crypto.MasterKey {
	t.Helper()
	m, err := crypto.CreateMasterKey(source(c).NextFile())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func source(c *clustertest.Cluster) crypto.KeySource {
	return crypto.KeySource{File: c.Config.Local.MasterKeyFile}
}

// rotate begins a change of the master key, as soon as all nodes have the next one.
func rotate(t *testing.T, cl *client.Client) (s wire.MasterKey) {
	t.Helper()
	clustertest.Poll(t, "the rotation begins", func() (ok bool) {
		var err error
		s, err = cl.ChangeMasterKey(t.Context(), wire.MasterKeyRotate)
		return err == nil
	})
	return s
}

// awaitResealed waits until a rotation waits for nothing.
func awaitResealed(t *testing.T, cl *client.Client) {
	t.Helper()
	clustertest.Poll(t, "all is sealed by the new master key", func() bool {
		s, err := cl.MasterKey(t.Context())
		return err == nil && s.Left == 0 && len(s.Waits) == 0
	})
}

func finish(t *testing.T, cl *client.Client) {
	t.Helper()
	awaitResealed(t, cl)
	if _, err := cl.ChangeMasterKey(t.Context(), wire.MasterKeyFinish); err != nil {
		t.Fatal(err)
	}
}

// expectSealedBy expects that all users' keys are sealed by a master key.
func expectSealedBy(t *testing.T, cl *client.Client, m *crypto.MasterKey) {
	t.Helper()
	users := 0
	err := cl.UserKeys(t.Context(), func(k wire.UserKey) error {
		users++
		_, err := m.UnwrapUserKey(k.User, k.Key, k.Wrapped)
		return err
	})
	if err != nil || users == 0 {
		t.Errorf("%d users' keys: %v", users, err)
	}
}

// TestRotateMasterKey rotates the master key under load, and restarts nodes on the way and after it.
func TestRotateMasterKey(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a cluster")
	}
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{})
	cl := c.Client(t, client.Relay)
	before := putImages(t, c, "before", 6)
	old, err := crypto.LoadMasterKey(c.Config.Local.MasterKeyFile)
	if err != nil {
		t.Fatal(err)
	}
	load := startUploads(t, c, "meanwhile")

	_, err = cl.ChangeMasterKey(t.Context(), wire.MasterKeyRotate)
	expectHinted(t, err, "no next master key")
	_, err = cl.ChangeMasterKey(t.Context(), wire.MasterKeyFinish)
	expectHinted(t, err, "not changing")
	_, err = cl.ChangeMasterKey(t.Context(), "turn")
	expectHinted(t, err, "unknown change")
	expectSealedBy(t, cl, old)

	next := prepare(t, c)
	if s := rotate(t, cl); s.Key != old.ID() || s.Next != next.ID() || len(s.Nodes) != 3 {
		t.Errorf("the rotation is %+v", s)
	}
	awaitResealed(t, cl)
	expectSealedBy(t, cl, next)
	// A node that restarts in the middle.
	c.Stop(2)
	c.Start(2)
	c.WaitReady(2)
	finish(t, cl)
	clustertest.Poll(t, "the new key is in its place", func() bool {
		m, err := crypto.LoadMasterKey(c.Config.Local.MasterKeyFile)
		s, failed := cl.MasterKey(t.Context())
		return err == nil && m.ID() == next.ID() && failed == nil && s.Key == next.ID() && len(s.Waits) == 0
	})
	m, err := crypto.LoadMasterKey(c.Config.Local.MasterKeyFile + "." + old.ID())
	if err != nil || m.ID() != old.ID() {
		t.Errorf("the old key was not kept: %v", err)
	}
	if _, err := os.Stat(source(c).NextFile()); err == nil {
		t.Error("the next key's file is still there")
	}
	load.end()
	after := putImages(t, c, "after", 3)
	for _, id := range c.IDs() {
		c.Stop(id)
	}
	c.StartAll()
	for _, id := range c.IDs() {
		if was := store.Peek(c.Config.DataDir(id)); was.KeyID != next.ID() || was.NextKeyID != "" {
			t.Errorf("node %d is claimed under %s, %s", id, was.KeyID, was.NextKeyID)
		}
	}
	expectSealedBy(t, cl, next)
	expectImages(t, c, slices.Concat(before, load.all, after), 1)

	// The old key is no good any more, and the new one rotates as well.
	c.Stop(3)
	cfg := *c.Config
	cfg.Local.MasterKeyFile += "." + old.ID()
	expectRefused(t, c.TryStart(&cfg, 3), nil, next.ID(), old.ID())
	c.Start(3)
	c.WaitReady(3)
	prepare(t, c)
	rotate(t, cl)
	finish(t, cl)
}

// TestRotationNeedsAllNodes: a rotation begins and ends only once every member has reported what it needs.
func TestRotationNeedsAllNodes(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a cluster")
	}
	t.Parallel()
	c := clustertest.New(t, clustertest.Options{})
	shared := c.Config
	if _, err := crypto.CreateMasterKey(shared.Local.MasterKeyFile); err != nil {
		t.Fatal(err)
	}
	// Each node has key files of its own.
	files := map[image.NodeID]string{}
	for _, id := range c.IDs() {
		files[id] = filepath.Join(t.TempDir(), "master.key")
		copyFile(t, shared.Local.MasterKeyFile, files[id])
		startWith(c, id, files[id])
	}
	c.WaitReady(c.IDs()...)
	images := putImages(t, c, "image", 4)
	next, err := crypto.CreateMasterKey(files[1] + crypto.NextSuffix)
	if err != nil {
		t.Fatal(err)
	}
	give := func(id image.NodeID) { copyFile(t, files[1]+crypto.NextSuffix, files[id]+crypto.NextSuffix) }
	cl := clientOf(t, c, 1)
	refused := func(op string, texts ...string) {
		t.Helper()
		var err error
		clustertest.Poll(t, "refused because: "+strings.Join(texts, ", "), func() bool {
			_, err = cl.ChangeMasterKey(t.Context(), op)
			return err != nil && !slices.ContainsFunc(texts, func(s string) bool {
				return !strings.Contains(err.Error(), s)
			})
		})
		expectHinted(t, err, texts...)
	}
	clustertest.Poll(t, "node 1 finds it", func() bool {
		s, err := cl.MasterKey(t.Context())
		return err == nil && slices.Contains(s.Nodes[0].Has, next.ID())
	})
	refused(wire.MasterKeyRotate, "node 2 does not have", "node 3 does not have", next.ID())
	give(2)
	refused(wire.MasterKeyRotate, "node 3 does not have")
	c.Stop(3)
	refused(wire.MasterKeyRotate, "node 3 does not answer")
	if s, err := cl.MasterKey(t.Context()); err != nil || s.Next != "" {
		t.Fatalf("a refused rotation has begun: %+v, %v", s, err)
	}
	give(3)
	startWith(c, 3, files[3])
	c.WaitReady(3)
	rotate(t, cl)

	// A node that is down in the middle, and knows of the rotation.
	clustertest.Poll(t, "node 3 uses the next key", func() bool {
		s, err := cl.MasterKey(t.Context())
		return err == nil && s.Nodes[2].Uses == next.ID()
	})
	c.Stop(3)
	refused(wire.MasterKeyFinish, "node 3 does not answer")
	// Without the next key it does not come back, with both it does.
	if err := os.Rename(files[3]+crypto.NextSuffix, files[3]+".away"); err != nil {
		t.Fatal(err)
	}
	cfg := *shared
	cfg.Local.MasterKeyFile = files[3]
	expectRefused(t, c.TryStart(&cfg, 3), nil, next.ID())
	if err := os.Rename(files[3]+".away", files[3]+crypto.NextSuffix); err != nil {
		t.Fatal(err)
	}
	startWith(c, 3, files[3])
	c.WaitReady(3)
	finish(t, cl)
	for _, id := range c.IDs() {
		clustertest.Poll(t, "each node moves its file", func() bool {
			m, err := crypto.LoadMasterKey(files[id])
			return err == nil && m.ID() == next.ID()
		})
	}
	expectImages(t, c, images, c.IDs()...)
}

// clientOf returns a client that asks one node alone.
func clientOf(t *testing.T, c *clustertest.Cluster, id image.NodeID) *client.Client {
	t.Helper()
	cl, err := client.New(client.Options{
		Delivery: client.Relay, Nodes: []client.Node{{ID: id, Addr: c.Addr(id)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// startWith starts a node with a master key file of its own.
func startWith(c *clustertest.Cluster, id image.NodeID, file string) {
	shared := c.Config
	cfg := *shared
	cfg.Local.MasterKeyFile = file
	c.Config = &cfg
	c.Start(id)
	c.Config = shared
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err = errors.Join(err, os.WriteFile(to, b, 0o400)); err != nil {
		t.Fatal(err)
	}
}

// expectHinted expects an error with these texts and a next step.
func expectHinted(t *testing.T, err error, texts ...string) {
	t.Helper()
	if err == nil || image.HintOf(err) == "" {
		t.Fatalf("got %v, hint %q", err, image.HintOf(err))
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%q is not in %v", text, err)
		}
	}
}

// TestRotateUserKey gives a user newer keys under load: no upload fails, what was sent before can be sent
// again and compared, and every image is read, each copy under the key that was current when it was made.
func TestRotateUserKey(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a cluster")
	}
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{})
	cl := c.Client(t, client.Broadcast)
	before := putImages(t, c, "before", 4)
	load := startUploads(t, c, "meanwhile") // fails the test when an upload fails
	const rotations = 8
	for n := range uint32(rotations) {
		enough := load.count() + 3
		clustertest.Poll(t, "uploads go on", func() bool { return load.count() >= enough })
		k, err := cl.RotateUserKey(t.Context(), "alice")
		if err != nil || k.Key != n+2 {
			t.Fatalf("rotation %d gives key %d: %v", n, k.Key, err)
		}
	}
	load.end()
	after := putImages(t, c, "after", 2)
	all := slices.Concat(before, load.all, after)
	expectImages(t, c, all, c.IDs()...)

	// An upload that comes again, and conditions, are answered as before the rotation.
	first := before[0]
	c.Put(t, 2, "alice", first.name, first.body, http.Header{"Idempotency-Key": {first.id.String()}})
	digest := sha256.Sum256(first.body)
	c.Put(t, 3, "alice", first.name, first.body,
		http.Header{"If-Match": {fmt.Sprintf("%q", hex.EncodeToString(digest[:]))}})
	versions := fileKeys(t, c)
	if len(versions) != rotations+1 {
		t.Errorf("the copies have the keys %v", versions)
	}
	_, err := cl.RotateUserKey(t.Context(), "nobody")
	expectHinted(t, err, "nobody")
}

// TestLeaderDiesWhileSealingAgain kills each node that leads the system shard after it has sealed some of the
// keys again, and one in the middle of its own part: the others go on from there.
func TestLeaderDiesWhileSealingAgain(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Processes: true, Program: clustertest.BuildWithFailpoints(t)})
	cl := c.Client(t, client.Relay)
	images := putImages(t, c, "image", 4)
	const users = 200 // more than two batches
	for n := range users {
		body := strings.NewReader(fmt.Sprintf(`{"name":"user%03d"}`, n))
		r := c.Do(http.MethodPost, 1, wire.UsersPath, body, http.Header{"Content-Type": {wire.DocumentType}})
		if r.Status >= 300 || r.Err != nil {
			t.Fatalf("user %d: %d %s %v", n, r.Status, r.Body, r.Err)
		}
	}
	next := prepare(t, c)
	clustertest.Poll(t, "all nodes have the next key", func() bool {
		s, err := cl.MasterKey(t.Context())
		return err == nil && !slices.ContainsFunc(s.Nodes, func(n wire.MasterKeyNode) bool {
			return !slices.Contains(n.Has, next.ID())
		})
	})
	for _, id := range c.IDs() {
		if !c.Arm(id, "keys/resealed", 2) {
			t.Fatalf("node %d is not armed", id)
		}
	}
	rotate(t, cl)
	deaths := 0
	clustertest.Poll(t, "a leader dies, and the rotation goes on", func() bool {
		for _, id := range c.IDs() {
			died, err := c.Died(id)
			if err != nil {
				t.Fatal(err)
			}
			if died {
				if deaths++; deaths == 1 {
					c.StartArmed(id, "keys/persisted", 1)
				} else {
					c.Start(id)
				}
			}
		}
		s, err := cl.MasterKey(t.Context())
		return deaths > 0 && err == nil && s.Left == 0 && len(s.Waits) == 0
	})
	for _, id := range c.IDs() {
		c.Arm(id, "", 0)
	}
	finish(t, cl)
	expectSealedBy(t, cl, next)
	c.Restart(c.IDs()...)
	expectImages(t, c, images, c.IDs()...)
	n := 0
	err := cl.UserKeys(t.Context(), func(wire.UserKey) error { n++; return nil })
	if err != nil || n != users+1 {
		t.Errorf("%d users' keys, %v", n, err)
	}
}

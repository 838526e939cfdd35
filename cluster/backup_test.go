package cluster_test

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster"
	"imgcluster/cluster/backup"
	"imgcluster/cluster/bootstrap"
	"imgcluster/cluster/client"
	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/image"
	"imgcluster/cluster/store"
	"imgcluster/cluster/wire"
	"imgcluster/config"
	"imgcluster/crypto"
)

// takeBackup has a node make a backup.
func takeBackup(t *testing.T, c *clustertest.Cluster, id image.NodeID) []byte {
	t.Helper()
	r := c.Do(http.MethodGet, id, wire.BackupPath, nil, nil)
	if r.Err != nil || r.Status != http.StatusOK || r.Header.Get("Content-Type") != wire.BackupType {
		t.Fatalf("a backup of node %d: %d, %v, %s", id, r.Status, r.Err, r.Body)
	}
	return r.Body
}

// restore restores a node and returns what was restored and the images of which it has no copy.
func restore(
	t *testing.T, cfg *config.Config, id image.NodeID, text []byte,
) (r cluster.Restored, missing []string, err error) {
	t.Helper()
	r, err = cluster.Restore(t.Context(), cfg, id, bytes.NewReader(text), zap.NewNop(),
		func(rec *image.Record) error { missing = append(missing, rec.User+"/"+rec.Name); return nil })
	return r, missing, err
}

// TestRestoreOfOneNode loses two of three nodes. The third one makes a backup without a majority, is restored
// from it and serves all images of which it has a copy. Then a node joins it with an empty disk, and one
// whose disk was found again: not as what it was, but replaced, with its copies.
func TestRestoreOfOneNode(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a cluster several times")
	}
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{})
	images := putImages(t, c, "image", 24)
	if _, err := c.Client(t, client.Broadcast).AddUser(t.Context(), "bob"); err != nil {
		t.Fatal(err)
	}
	old := takeBackup(t, c, 2)
	images = append(images, putImages(t, c, "later", 6)...)
	c.Stop(2, 3)
	newest := takeBackup(t, c, 1)
	c.Stop(1)
	if err := os.RemoveAll(c.Config.DataDir(2)); err != nil {
		t.Fatal(err)
	}

	elsewhere := *c.Config
	elsewhere.Local.DataDir = filepath.Join(t.TempDir(), "node{id}")
	r, missing, err := restore(t, &elsewhere, 3, old)
	if err != nil || r.Images != 24 || len(missing) != 24 || r.Header.Node != 2 || len(r.Trailer.Behind) > 0 {
		t.Errorf("the older backup, on a new machine: %+v, %v", r, err)
	}
	files := len(c.Files(t, 1, ".img"))
	if _, _, err := restore(t, c.Config, 1, old); err != nil { // a mistake, which loses nothing
		t.Fatal(err)
	}
	c.Start(1)
	c.WaitReady(1)
	time.Sleep(time.Second) // the first sweep is over, or this proves less
	c.Stop(1)
	if now := len(c.Files(t, 1, ".img")); now != files {
		t.Errorf("%d of %d files are left when an older backup was restored", now, files)
	}
	r, missing, err = restore(t, c.Config, 1, newest)
	if err != nil || r.Images != int64(len(images)) || int(r.Missing) != len(missing) ||
		r.Header.Node != 1 || len(r.Trailer.Behind) != c.Config.Cluster.DataShards+1 {
		t.Fatalf("%+v, %d missing, %v", r, len(missing), err)
	}

	c.Start(1)
	c.WaitReady(1)
	if got := c.List(t, 1, "alice"); len(got) != len(images) {
		t.Errorf("%d of %d images are listed", len(got), len(images))
	}
	for _, one := range images {
		r := c.Do(http.MethodGet, 1, clustertest.Path("alice", one.name), nil, nil)
		lost := slices.Contains(missing, "alice/"+one.name)
		if got := bytes.Equal(r.Body, one.body); got == lost {
			t.Errorf("%s is missing: %t; its bytes are there: %t, status %d", one.name, lost, got, r.Status)
		}
	}

	c.Start(2)
	c.WaitReady(1, 2)
	if err = c.TryStart(c.Config, 3); !errors.Is(err, bootstrap.ErrOtherHistory) || image.HintOf(err) == "" {
		t.Fatalf("node 3 as it was: %v", err)
	}
	replaced := *c.Config
	replaced.Local.LostData = config.LostDataReplace
	if err := c.TryStart(&replaced, 3); err != nil {
		t.Fatal(err)
	}
	c.WaitReady(1, 2, 3)
	images = append(images, putImages(t, c, "after", 6)...)
	expectImages(t, c, images, c.IDs()...) // each had a copy on node 1 or 3
	c.Restart(1)
	c.Restart(2, 3)
	expectImages(t, c, images, c.IDs()...)
	if r := c.Do(http.MethodGet, 2, wire.UsersPath, nil, nil); !bytes.Contains(r.Body, []byte(`"bob"`)) {
		t.Errorf("the users are %s", r.Body)
	}
}

// TestRestoreOfAllShards: of five nodes none holds all shards. A backup has them all, and one node can be
// restored with them, from which the others get theirs.
func TestRestoreOfAllShards(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a cluster")
	}
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Nodes: 5})
	images := putImages(t, c, "image", 20)
	text := takeBackup(t, c, 4)
	c.Stop(c.IDs()...)
	r, missing, err := restore(t, c.Config, 2, text)
	if err != nil || r.Images != 20 || len(missing) == 0 || len(missing) == 20 {
		t.Fatalf("%+v, %v", r, err)
	}
	c.Start(2)
	c.WaitReady(2)
	cfg := *c.Config
	cfg.Local.LostData = config.LostDataReplace
	for _, id := range c.Others(2) {
		if err := c.TryStart(&cfg, id); err != nil {
			t.Fatal(err)
		}
	}
	c.WaitReady(c.IDs()...)
	expectImages(t, c, images, c.IDs()...)
	clustertest.Poll(t, "shards where they belong", func() bool {
		for _, shard := range c.Status(2).Shards[1:] {
			if len(shard.Nodes) != 3 {
				return false
			}
		}
		return true
	})
	expectImages(t, c, append(images, putImages(t, c, "after", 5)...), c.IDs()...)
}

// TestBadBackups: what cannot be restored is refused with a next step, and the node is as it was.
func TestBadBackups(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a cluster")
	}
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{})
	images := putImages(t, c, "image", 4)
	text := takeBackup(t, c, 1)
	if _, _, err := restore(t, c.Config, 1, text); !errors.Is(err, store.ErrInUse) {
		t.Errorf("while the node runs: %v", err)
	}
	r := c.Do(http.MethodHead, 1, wire.BackupPath, nil, nil)
	if r.Status != http.StatusOK || len(r.Body) > 0 {
		t.Errorf("HEAD: %d, %d bytes", r.Status, len(r.Body))
	}
	c.Stop(c.IDs()...)
	named := *c.Config
	named.Cluster.Name = "other"
	otherKey := *c.Config
	otherKey.Local.MasterKeyFile = filepath.Join(t.TempDir(), "other.key")
	if _, err := crypto.CreateMasterKey(otherKey.Local.MasterKeyFile); err != nil {
		t.Fatal(err)
	}
	changed := bytes.Clone(text)
	changed[len(text)/2] ^= 1
	for name, x := range map[string]struct {
		cfg  *config.Config
		id   image.NodeID
		text []byte
		want error // nil: any
	}{
		"another cluster's":  {&named, 1, text, nil},
		"under another key":  {&otherKey, 1, text, backup.ErrOtherKey},
		"cut off":            {c.Config, 1, text[:len(text)-1], backup.ErrTruncated},
		"without its end":    {c.Config, 1, text[:len(text)/2], backup.ErrTruncated},
		"changed":            {c.Config, 1, changed, backup.ErrDamaged},
		"empty":              {c.Config, 1, nil, backup.ErrNotBackup},
		"something else":     {c.Config, 1, clustertest.Image(1, 1000), backup.ErrNotBackup},
		"of no node of ours": {c.Config, 9, text, nil},
	} {
		_, _, err := restore(t, x.cfg, x.id, x.text)
		if err == nil || x.want != nil && !errors.Is(err, x.want) || image.HintOf(err) == "" {
			t.Errorf("%s: %v, hint %q", name, err, image.HintOf(err))
		}
	}
	c.StartAll()
	expectImages(t, c, images, c.IDs()...)

	// A node whose restoring was interrupted does not start: it would found a cluster, or be of no history.
	c.Stop(c.IDs()...)
	dir, err := store.Claim(c.Config.DataDir(1), store.Peek(c.Config.DataDir(1)))
	if err == nil {
		err = errors.Join(dir.Update(func(id *store.Identity) { id.Restoring = true }), dir.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := c.TryStart(c.Config, 1); !errors.Is(err, bootstrap.ErrHalfRestored) {
		t.Errorf("a node that is half restored: %v", err)
	}
	if _, _, err := restore(t, c.Config, 1, text); err != nil {
		t.Fatal(err)
	}
	c.Start(1)
	c.WaitReady(1)
}

package cluster_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgcluster/cluster/bootstrap"
	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/image"
	"imgcluster/cluster/store"
	"imgcluster/cluster/wire"
	"imgcluster/config"
	"imgcluster/crypto"
)

// TestRestarts stops, restarts and damages the nodes of one cluster.
func TestRestarts(t *testing.T) {
	if testing.Short() {
		t.Skip("starts nodes many times")
	}
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{})
	bodies := map[string][]byte{}
	receipts := map[string]image.Receipt{}
	for i := range 9 {
		name := fmt.Sprintf("%d.png", i)
		bodies[name] = clustertest.Image(uint64(300+i), 1000+i*segment/3)
		receipts[name] = c.Put(t, c.IDs()[i%3], "alice", name, bodies[name], nil)
	}
	all := func(t *testing.T, ids ...image.NodeID) {
		t.Helper()
		for name, body := range bodies {
			c.ExpectImage(t, "alice", name, body, ids...)
		}
	}
	t.Run("Restart", func(t *testing.T) {
		junk := leaveJunk(t, c, 1)
		c.Restart(c.IDs()...)
		all(t, c.IDs()...)
		c.ExpectSettled(t) // the files are those of the records: swept
		c.ExpectEqualCatalogs(t)
		for _, path := range junk.swept {
			if _, err := os.Stat(path); err == nil {
				t.Errorf("%s was not swept", path)
			}
		}
		if b, err := os.ReadFile(junk.kept); err != nil || string(b) != "not ours" {
			t.Errorf("a foreign file was touched: %v", err)
		}
	})
	t.Run("OneIsDown", func(t *testing.T) {
		c.Stop(2)
		all(t, 1, 3)
		c.WaitReady(1, 3)
		body := clustertest.Image(400, 5000)
		rec := c.Put(t, 1, "alice", "two-up.png", body, nil)
		if slices.Contains(rec.Replicas, 2) || len(rec.Replicas) != 2 {
			t.Errorf("receipt %+v with node 2 down", rec)
		}
		c.Start(2)
		c.WaitReady(c.IDs()...)
		c.ExpectImage(t, "alice", "two-up.png", body, 2)
	})
	t.Run("GracefulShutdown", func(t *testing.T) { testGracefulShutdown(t, c) })
	t.Run("Refused", func(t *testing.T) { testRefused(t, c) })
	t.Run("Damage", func(t *testing.T) {
		for i, name := range []string{"3.png", "4.png", "5.png"} {
			testDamage(t, c, i, name, bodies[name], receipts[name])
		}
	})
	t.Run("NoQuorum", func(t *testing.T) { testNoQuorum(t, c) })
}

// junk are files among a node's images that no record names.
type junk struct {
	swept []string // of the store
	kept  string   // foreign: not touched
}

func leaveJunk(t *testing.T, c *clustertest.Cluster, id image.NodeID) (j junk) {
	t.Helper()
	images := filepath.Join(c.Config.DataDir(id), "images")
	file := func() image.FileID {
		return image.FileID{Image: image.NewID(), Shard: 2, Attempt: image.NewAttempt()}
	}
	orphan := file()
	path := filepath.Join(c.Config.DataDir(id), store.PathOf(orphan))
	j.swept = []string{
		filepath.Join(images, "tmp", file().String()+".tmp"),
		path,
	}
	j.kept = filepath.Join(filepath.Dir(path), "notes.txt")
	for _, path := range append(j.swept, j.kept) {
		if err := os.WriteFile(path, []byte("not ours"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return j
}

// testGracefulShutdown stops a node in the middle of uploads that it relays, of some of which it stores a
// copy itself. It finishes these uploads, serves reads until then, and accepts no more uploads.
func testGracefulShutdown(t *testing.T, c *clustertest.Cluster) {
	body := clustertest.Image(410, 200_000)
	names := []string{"stopping-1.png", "stopping-2.png", "stopping-3.png"}
	var conns []*clustertest.Conn
	for _, name := range names {
		conn := c.Dial(t, 3)
		conn.Send(head(clustertest.Path("alice", name), len(body)), body[:100_000])
		conns = append(conns, conn)
	}
	clustertest.Poll(t, "two nodes write each image", func() bool {
		writing := 0
		for _, id := range c.IDs() {
			writing += len(c.Files(t, id, ".tmp"))
		}
		return writing == 2*len(names)
	})
	if len(c.Files(t, 3, ".tmp")) == 0 {
		t.Error("the node that is to shut down stores none of them")
	}
	stopped := make(chan struct{})
	go func() {
		c.Stop(3)
		close(stopped)
	}()
	clustertest.Poll(t, "the node to be shutting down", func() bool {
		n := c.Status(1).Nodes
		return len(n) == 3 && n[2].State == wire.NodeDraining
	})
	late := c.Do(http.MethodPut, 3, clustertest.Path("alice", "late.png"), bytes.NewReader(body), nil)
	clustertest.ExpectProblem(t, late, image.KindNoQuorum)
	clustertest.ExpectProblem(t, c.Do(http.MethodGet, 3, "/readyz", nil, nil), image.KindNoQuorum)
	// With retries: leaders move meanwhile.
	other := c.DoAgain(t, http.MethodGet, 1, clustertest.Path("alice", "1.png"), nil, nil)
	if other.Status != http.StatusOK {
		t.Errorf("node 1 answers %d %s", other.Status, other.Body)
	}
	c.ExpectImage(t, "alice", "1.png", other.Body, 3)
	for i, name := range names {
		conns[i].Send(body[100_000:])
		// A shard that has got another leader meanwhile may have its copies from nodes that go on.
		if rec := clustertest.Receipt(t, conns[i].Answer()); len(rec.Replicas) != 2 {
			t.Errorf("%s is on %v", name, rec.Replicas)
		}
		c.ExpectImage(t, "alice", name, body, 1, 2)
	}
	<-stopped
	c.Start(3)
	c.WaitReady(c.IDs()...)
	for _, name := range names {
		c.ExpectImage(t, "alice", name, body, 3)
	}
	c.ExpectSettled(t)
}

// testDamage flips a byte of one copy. No node returns it, nor any other wrong byte.
func testDamage(
	t *testing.T, c *clustertest.Cluster, where int, name string, body []byte, rec image.Receipt,
) {
	t.Helper()
	owner := rec.Owner
	record := c.Do(http.MethodHead, owner, clustertest.Path("alice", name), nil, nil)
	id, err := image.ParseID(record.Header.Get("Imgcluster-Upload"))
	if err != nil {
		t.Fatal(err)
	}
	files := c.FilesOf(t, owner, id)
	if len(files) != 1 {
		t.Fatalf("files %v of %s on its owner", files, name)
	}
	h, raw := clustertest.Header(t, files[0])
	at := []int64{100, int64(len(raw)) + crypto.StreamHeaderBytes + 5, h.FileLen() - 1}[where]
	clustertest.FlipByte(t, files[0], at)
	// With the other copy damaged too there is nothing to return: an error, or a cut connection.
	var others []string
	for _, n := range rec.Replicas {
		if n != owner {
			others = append(others, c.FilesOf(t, n, id)...)
		}
	}
	for _, other := range others {
		clustertest.FlipByte(t, other, at)
	}
	for _, n := range c.IDs() {
		r := c.Do(http.MethodGet, n, clustertest.Path("alice", name), nil, nil)
		if r.Status == http.StatusOK && (r.Err == nil || !bytes.HasPrefix(body, r.Body)) {
			t.Errorf("%s, both copies damaged at %d: node %d answers %d with %d bytes",
				name, at, n, r.Status, len(r.Body))
		}
		if where < 2 { // found before the first byte is sent
			clustertest.ExpectProblem(t, r, image.KindDamaged)
		}
	}
	for _, other := range others {
		clustertest.FlipByte(t, other, at)
	}
	// With one good copy reads succeed, and the bad one is replaced.
	c.ExpectImage(t, "alice", name, body, c.IDs()...)
	last := http.Header{"Range": {"bytes=-3"}}
	tail := c.Do(http.MethodGet, owner, clustertest.Path("alice", name), nil, last)
	if tail.Status != http.StatusPartialContent || !bytes.Equal(tail.Body, body[len(body)-3:]) {
		t.Errorf("the end of %s: status %d, %v, %d bytes", name, tail.Status, tail.Err, len(tail.Body))
	}
	clustertest.Poll(t, "the damaged copy to be replaced", func() bool {
		bad, _ := c.Verify(t, owner, true)
		return len(bad) == 0
	})
	c.ExpectImage(t, "alice", name, body, c.IDs()...)
}

// testNoQuorum leaves one node of three.
func testNoQuorum(t *testing.T, c *clustertest.Cluster) {
	c.Stop(1, 2)
	body := clustertest.Image(420, 100_000)
	began := time.Now()
	var put, get clustertest.Response
	clustertest.Poll(t, "node 3 notices", func() bool {
		put = c.Do(http.MethodPut, 3, clustertest.Path("alice", "alone.png"), bytes.NewReader(body), nil)
		get = c.Do(http.MethodGet, 3, clustertest.Path("alice", "1.png"), nil, nil)
		return get.Status != http.StatusOK && put.Status != http.StatusCreated
	})
	t.Logf("refused after %v", time.Since(began))
	clustertest.ExpectProblem(t, put, image.KindNoQuorum)
	clustertest.ExpectProblem(t, get, image.KindNoQuorum)
	for path, method := range map[string]string{
		"/v1/images/alice":                 http.MethodGet,
		clustertest.Path("alice", "1.png"): http.MethodDelete,
		"/readyz":                          http.MethodGet,
	} {
		clustertest.ExpectProblem(t, c.Do(method, 3, path, nil, nil), image.KindNoQuorum)
	}
	if r := c.Do(http.MethodGet, 3, "/livez", nil, nil); r.Status != http.StatusOK {
		t.Errorf("livez: status %d", r.Status)
	}
	if s := c.Status(3); s.Ready || s.Nodes[0].State != wire.NodeDown {
		t.Errorf("status %+v", s)
	}
	c.Start(1)
	c.WaitReady(1, 3)
	c.Put(t, 3, "alice", "alone.png", body, nil)
	c.ExpectImage(t, "alice", "alone.png", body, 1, 3)
}

// expectRefused expects that a node did not start: err is want, contains the words, and has a hint.
func expectRefused(t *testing.T, err, want error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("the node started")
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
	if want != nil && !errors.Is(err, want) {
		t.Errorf("%q is not %q", err, want)
	}
	var hinted interface{ Hint() string }
	if !errors.As(err, &hinted) || hinted.Hint() == "" {
		t.Errorf("%q (%T) has no hint", err, err)
	}
}

// testRefused starts node 2 beside two that run, with everything that can be wrong.
func testRefused(t *testing.T, c *clustertest.Cluster) {
	const id = 2
	dir := c.Config.DataDir(id)
	t.Run("unknown node ID", func(t *testing.T) {
		expectRefused(t, c.TryStart(c.Config, 7), config.ErrInvalid, "7")
	})
	t.Run("data directory in use", func(t *testing.T) {
		expectRefused(t, c.TryStart(alone(t, c), id), store.ErrInUse, fmt.Sprint(os.Getpid()))
	})
	c.Stop(id)
	before := tree(t, dir)
	t.Run("ports", func(t *testing.T) { testPorts(t, c, id) })
	t.Run("master key", func(t *testing.T) { testMasterKey(t, c, id) })
	t.Run("configuration", func(t *testing.T) { testOtherConfiguration(t, c, id) })
	t.Run("data directory", func(t *testing.T) { testOtherDirectory(t, c, id) })
	if after := tree(t, dir); !slices.Equal(before, after) {
		t.Errorf("a refused start changed the data directory:\n%s\n%s", before, after)
	}
	c.Start(id)
	c.WaitReady(c.IDs()...)
}

// with returns a changed copy of the configuration.
func with(c *clustertest.Cluster, change func(*config.Config)) *config.Config {
	cfg := *c.Config
	cfg.Cluster.Nodes = slices.Clone(cfg.Cluster.Nodes)
	change(&cfg)
	return &cfg
}

func movePorts(t *testing.T, cfg *config.Config, id image.NodeID) {
	t.Helper()
	ports := clustertest.FreePorts(t, 2)
	cfg.Cluster.Nodes[id-1].APIPort = ports[0]
	cfg.Cluster.Nodes[id-1].RaftPort = ports[1]
}

// alone returns a configuration with the same directories and other addresses, at which no node runs.
func alone(t *testing.T, c *clustertest.Cluster) *config.Config {
	t.Helper()
	return with(c, func(cfg *config.Config) {
		for _, n := range cfg.Cluster.Nodes {
			movePorts(t, cfg, n.ID)
		}
	})
}

// tree lists the files and folders of a directory, without those that the databases create and remove.
func tree(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	for _, pattern := range []string{"*", "images/*", "images/*/*", "raft/*"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, found...)
	}
	return names
}

func testPorts(t *testing.T, c *clustertest.Cluster, id image.NodeID) {
	self, err := c.Config.Node(id)
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{self.APIAddr(), self.RaftAddr()} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		expectRefused(t, c.TryStart(c.Config, id), unix.EADDRINUSE, addr)
		fresh := with(c, func(cfg *config.Config) {
			cfg.Local.DataDir = filepath.Join(t.TempDir(), "node{id}")
		})
		expectRefused(t, c.TryStart(fresh, id), unix.EADDRINUSE, addr)
		if _, err := os.Stat(fresh.DataDir(id)); err == nil {
			t.Error("a first start that was refused left a data directory")
		}
		l.Close()
	}
}

func testMasterKey(t *testing.T, c *clustertest.Cluster, id image.NodeID) {
	other := filepath.Join(t.TempDir(), "other.key")
	otherKey, err := crypto.CreateMasterKey(other)
	if err != nil {
		t.Fatal(err)
	}
	file := func(text string, mode os.FileMode) string {
		path := filepath.Join(t.TempDir(), "master.key")
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good, err := os.ReadFile(c.Config.Local.MasterKeyFile)
	if err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(t.TempDir(), "none.key")
	for _, x := range []struct {
		path string
		want error
	}{
		{missing, crypto.ErrKeyMissing},
		{file("", 0o400), crypto.ErrKeyMalformed},
		{file("nonsense\n", 0o400), crypto.ErrKeyMalformed},
		{file(string(good), 0o444), crypto.ErrKeyMode},
		{t.TempDir(), crypto.ErrKeyUnreadable},
	} {
		cfg := with(c, func(cfg *config.Config) { cfg.Local.MasterKeyFile = x.path })
		expectRefused(t, c.TryStart(cfg, id), x.want)
	}
	if _, err := os.Stat(missing); err == nil {
		t.Error("a missing key was made")
	}
	withOther := with(c, func(cfg *config.Config) { cfg.Local.MasterKeyFile = other })
	expectRefused(t, c.TryStart(withOther, id), nil, otherKey.ID())
	// On a first start the wrong key must not be persisted, or the right one is refused then.
	withOther.Local.DataDir = filepath.Join(t.TempDir(), "node{id}")
	expectRefused(t, c.TryStart(withOther, id), nil, otherKey.ID())
	if _, err := os.Stat(withOther.DataDir(id)); err == nil {
		t.Error("a first start with another cluster's key left a data directory")
	}
}

func testOtherConfiguration(t *testing.T, c *clustertest.Cluster, id image.NodeID) {
	for _, x := range []struct {
		words  string
		change func(*config.Config)
	}{
		{"cluster name", func(cfg *config.Config) { cfg.Cluster.Name = "another" }},
		{"data_shards", func(cfg *config.Config) { cfg.Cluster.DataShards++ }},
		{"replicas", func(cfg *config.Config) { cfg.Cluster.Replicas = 3 }},
		{"min_replicas", func(cfg *config.Config) { cfg.Cluster.MinReplicas = 2 }},
		{"node 2", func(cfg *config.Config) { movePorts(t, cfg, id) }},
	} {
		cfg := with(c, x.change)
		expectRefused(t, c.TryStart(cfg, id), nil, x.words)
		cfg.Local.DataDir = filepath.Join(t.TempDir(), "node{id}")
		expectRefused(t, c.TryStart(cfg, id), nil, x.words)
		if _, err := os.Stat(cfg.DataDir(id)); err == nil {
			t.Errorf("%s: a refused first start left a data directory", x.words)
		}
	}
}

func testOtherDirectory(t *testing.T, c *clustertest.Cluster, id image.NodeID) {
	at := func(dir string) *config.Config {
		return with(c, func(cfg *config.Config) { cfg.Local.DataDir = dir })
	}
	t.Run("emptied", func(t *testing.T) {
		dir := t.TempDir()
		expectRefused(t, c.TryStart(at(dir), id), nil, "node 2", dir)
		if left := tree(t, dir); len(left) != 0 {
			t.Errorf("left behind: %v", left)
		}
	})
	t.Run("not a data directory", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "letter.txt"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		expectRefused(t, c.TryStart(at(dir), id), nil, dir)
		if left := tree(t, dir); len(left) != 1 {
			t.Errorf("left behind: %v", left)
		}
	})
	t.Run("new", func(t *testing.T) { // what someone does who does not read the hint
		dir := t.TempDir()
		key, err := crypto.LoadMasterKey(c.Config.Local.MasterKeyFile)
		if err != nil {
			t.Fatal(err)
		}
		identity := store.Identity{Cluster: c.Config.Cluster.Name, Node: id, KeyID: key.ID()}
		d, err := store.Claim(dir, identity)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		err = c.TryStart(at(dir), id)
		expectRefused(t, err, bootstrap.ErrOtherDirectory)
		if !errors.As(err, new(*bootstrap.RefusedError)) {
			t.Errorf("%T", err)
		}
	})
	t.Run("of another node", func(t *testing.T) {
		cfg := alone(t, c)
		cfg.Local.DataDir = c.Config.DataDir(id)
		expectRefused(t, c.TryStart(cfg, 3), store.ErrOtherNode, "node 2")
	})
	t.Run("of another cluster", func(t *testing.T) {
		cfg := alone(t, c)
		cfg.Cluster.Name = "another"
		expectRefused(t, c.TryStart(cfg, id), store.ErrOtherCluster, "another")
	})
	t.Run("of another key", func(t *testing.T) {
		cfg := alone(t, c)
		cfg.Local.MasterKeyFile = filepath.Join(t.TempDir(), "other.key")
		if _, err := crypto.CreateMasterKey(cfg.Local.MasterKeyFile); err != nil {
			t.Fatal(err)
		}
		expectRefused(t, c.TryStart(cfg, id), store.ErrOtherKey)
	})
	t.Run("with other addresses", func(t *testing.T) {
		expectRefused(t, c.TryStart(alone(t, c), id), nil, c.Config.Cluster.Nodes[id-1].RaftAddr())
	})
}

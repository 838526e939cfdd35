//go:build linux

package modes

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"imgcluster/cluster/client"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
	"imgcluster/config"
)

// TestUpgrade runs the program of the last release beside this one, in one cluster under load, and replaces
// it node by node: forwards, and back, as the manual says it. Nothing that was acknowledged is lost, and no
// client's call fails for good.
func TestUpgrade(t *testing.T) {
	before, after := builtBefore(t), built(t)
	for name, way := range map[string][2]string{"Upgrade": {before, after}, "Downgrade": {after, before}} {
		t.Run(name, func(t *testing.T) { testRolling(t, way[0], way[1]) })
	}
}

// builtBefore builds the program of the last tag before this commit; while there is none, of the commit
// before.
func builtBefore(t *testing.T) string {
	t.Helper()
	git := func(args ...string) (string, error) {
		out, err := exec.Command("git", append([]string{"-C", ".."}, args...)...).Output()
		return strings.TrimSpace(string(out)), err
	}
	of, err := git("describe", "--tags", "--abbrev=0", "--match", "v*", "HEAD^")
	if err != nil {
		of, err = git("rev-parse", "--verify", "--quiet", "HEAD^")
	}
	if err != nil {
		t.Skip("no commit before this one: no git, no clone, or a shallow one")
	}
	t.Logf("the program before is of %s", of)
	dir := t.TempDir()
	tree, binary := filepath.Join(dir, "tree"), filepath.Join(dir, "imgcluster")
	must(t, os.Mkdir(tree, 0o755))
	run := func(dir, name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
	}
	archive := filepath.Join(dir, "tree.tar")
	run("..", "git", "archive", "--output", archive, of)
	run(tree, "tar", "-xf", archive)
	run(tree, "go", "build", "-trimpath", "-o", binary, ".")
	return binary
}

func testRolling(t *testing.T, before, after string) {
	dir := t.TempDir()
	writeConfig(t, dir, "")
	cfg, err := config.Load(config.Options{Path: filepath.Join(dir, "imgcluster.yaml")})
	must(t, err)
	run := func(program string, id image.NodeID) *running {
		cmd := exec.Command(program, "server", "--id", fmt.Sprint(id))
		cmd.Dir = dir
		return start(t, cmd)
	}
	nodes := map[image.NodeID]*running{}
	for _, n := range cfg.Cluster.Nodes {
		nodes[n.ID] = run(before, n.ID)
	}
	var o client.Options
	for _, n := range cfg.Cluster.Nodes {
		o.Nodes = append(o.Nodes, client.Node{ID: n.ID, Addr: n.APIAddr()})
	}
	c, err := client.New(o)
	must(t, err)
	defer c.Close()
	ready := func(n client.Node, query string) {
		t.Helper()
		eventually(t, fmt.Sprintf("%s%s of node %d", wire.ReadyPath, query, n.ID), func() bool {
			if p := nodes[n.ID]; p.over() {
				t.Fatalf("node %d has ended: %s%s", n.ID, &p.out, &p.err)
			}
			answer, err := http.Get("http://" + n.Addr + wire.ReadyPath + query)
			if err != nil {
				return false
			}
			answer.Body.Close()
			return answer.StatusCode == http.StatusOK
		})
	}
	for _, n := range o.Nodes {
		ready(n, "")
	}

	l := &rollingLoad{client: c, acknowledged: map[string][sha256.Size]byte{}}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.run(ctx)
	}()
	more := func() {
		t.Helper()
		want := l.count() + imagesBetween
		eventually(t, "uploads go on", func() bool { return l.count() >= want })
	}
	more()
	for _, n := range o.Nodes {
		ready(n, "?maintenance")
		old := nodes[n.ID]
		must(t, old.cmd.Process.Signal(syscall.SIGTERM))
		if status := old.status(); status != 0 {
			t.Errorf("node %d ended with %d: %s", n.ID, status, &old.err)
		}
		nodes[n.ID] = run(after, n.ID)
		ready(n, "")
		more()
	}
	stop()
	<-ended

	for _, err := range l.failed {
		t.Errorf("a call has failed: %v", err)
	}
	i := 0
	for name, want := range l.acknowledged { // each from one node, in turn
		i++
		from := o.Nodes[i%len(o.Nodes)].ID
		object, err := c.GetFrom(t.Context(), from, rollingUser, name)
		if err != nil {
			t.Errorf("%s of node %d: %v", name, from, err)
			continue
		}
		if got, err := readAll(object.Body); err != nil || sha256.Sum256(got) != want {
			t.Errorf("%s of node %d is another image (%v)", name, from, err)
		}
	}
	t.Logf("%d uploads acknowledged and read back, %d failed, the longest pause between two took %d ms",
		len(l.acknowledged), len(l.failed), l.pause.Milliseconds())
}

const (
	rollingUser   = "alice"
	rollingEvery  = time.Second / 20
	rollingAtOnce = 32
	imagesBetween = 40 // between two nodes, at least
)

// rollingLoad uploads small images, each under a name of its own, and reads each back once.
type rollingLoad struct {
	client *client.Client

	mu           sync.Mutex
	acknowledged map[string][sha256.Size]byte // by name
	failed       []error
	last         time.Time     // when the last upload was acknowledged
	pause        time.Duration // the longest without one
}

func (l *rollingLoad) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acknowledged)
}

// run starts an upload at each tick, until ctx ends, and waits for those under way.
func (l *rollingLoad) run(ctx context.Context) {
	tick := time.NewTicker(rollingEvery)
	defer tick.Stop()
	var under sync.WaitGroup
	defer under.Wait()
	free := make(chan struct{}, rollingAtOnce)
	for i := 0; ctx.Err() == nil; i++ {
		free <- struct{}{}
		under.Go(func() {
			l.one(fmt.Sprintf("%d.png", i), uint64(i))
			<-free
		})
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// one uploads an image and reads it.
func (l *rollingLoad) one(name string, seed uint64) {
	data := make([]byte, 20<<10+seed%1000)
	for i, random := 0, rand.New(rand.NewPCG(seed, 1)); i < len(data); i++ {
		data[i] = byte(random.Uint32())
	}
	ctx := context.Background() // a call has its own limits, and the test stops after it
	_, err := l.client.Put(ctx, client.Upload{
		User: rollingUser, Name: name, Size: int64(len(data)),
		Body: func() io.Reader { return bytes.NewReader(data) },
	})
	l.done(name, sha256.Sum256(data), err)
	if err != nil {
		return
	}
	object, err := l.client.Get(ctx, rollingUser, name, false)
	if err == nil {
		var got []byte
		if got, err = readAll(object.Body); err == nil && !bytes.Equal(got, data) {
			err = fmt.Errorf("%s reads as another image", name)
		}
	}
	if err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.failed = append(l.failed, fmt.Errorf("read: %w", err))
	}
}

func (l *rollingLoad) done(name string, sum [sha256.Size]byte, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.failed = append(l.failed, fmt.Errorf("upload: %w", err))
		return
	}
	now := time.Now()
	if !l.last.IsZero() {
		l.pause = max(l.pause, now.Sub(l.last))
	}
	l.last = now
	l.acknowledged[name] = sum
}

func readAll(r io.ReadCloser) ([]byte, error) {
	defer r.Close()
	return io.ReadAll(r)
}

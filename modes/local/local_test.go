//go:build unix

package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"imgcluster/cluster/clustertest/poll"
	"imgcluster/config"
)

const waitMax = 20 * time.Second

// TestMain runs the tests, or one of the nodes that they start.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "node" {
		os.Exit(node(os.Args[2]))
	}
	os.Exit(m.Run())
}

// node answers as ready until SIGTERM. One with the address "fails" ends as a refused server does.
func node(addr string) int {
	if addr == "fails" {
		fmt.Fprint(os.Stderr, "starting\nimgcluster: node 1 cannot\nhint: change it\n")
		return exitUsage
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	go http.ListenAndServe(addr, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	<-ended
	return 0
}

// The tests of this package do not run side by side: a process that one of them is starting has for a moment
// the sockets by which another one looks for free ports.

// options are for three nodes that run this test binary, with their logs in dir.
func options(t *testing.T, dir string) Options {
	t.Helper()
	ports, err := config.FreePorts(6)
	if err != nil {
		t.Fatal(err)
	}
	var nodes []string
	for i := range 3 {
		nodes = append(nodes, fmt.Sprintf("%d=127.0.0.1:%d:%d", i+1, ports[2*i], ports[2*i+1]))
	}
	cfg, err := config.Load(config.Options{Set: []string{
		"cluster.nodes=" + strings.Join(nodes, ","), "node.data_dir=" + filepath.Join(dir, "node{id}"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	args := func(id int) []string { return []string{"node", cfg.Cluster.Nodes[id-1].APIAddr()} }
	return Options{Config: cfg, Program: os.Args[0], Args: args, Same: " --same"}
}

func startCluster(t *testing.T) *Cluster {
	t.Helper()
	c, err := Start(t.Context(), options(t, t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return c
}

// doer is a Cluster or a Session.
type doer interface {
	Do(ctx context.Context, a Action, node int) error
}

// expectDone takes an action on a node, which must succeed.
func expectDone(t *testing.T, d doer, a Action, node int) {
	t.Helper()
	if err := d.Do(t.Context(), a, node); err != nil {
		t.Fatalf("%s node %d: %v", a, node, err)
	}
}

// expectRefusal checks that an error is a usage error with this in its hint.
func expectRefusal(t *testing.T, err error, hint string) {
	t.Helper()
	if refused := (*Error)(nil); !errors.As(err, &refused) {
		t.Errorf("%v is no refusal", err)
	} else if !strings.Contains(refused.Hint(), hint) || refused.ExitStatus() != exitUsage {
		t.Errorf("%v has the hint %q, want %q", err, refused.Hint(), hint)
	}
}

// awaitReady waits until all nodes are ready.
func awaitReady(t *testing.T, c *Cluster) {
	t.Helper()
	poll.Until(t, waitMax, "all nodes are ready", func() bool {
		return !slices.ContainsFunc(c.Nodes(), func(n *Node) bool { return !n.ready(t.Context()) })
	})
}

func TestFaults(t *testing.T) {
	c := startCluster(t)
	first := c.Nodes()[0].PID()
	expectDone(t, c, ActionKill, 1)
	if n := <-c.Ended(); n.ID != 1 || !n.Asked() || !slices.Equal(c.running(), []int{2, 3}) {
		t.Errorf("node %d ended, %v run", n.ID, c.running())
	}
	expectDone(t, c, ActionStart, 1)
	if c.Nodes()[0].PID() == first {
		t.Error("node 1 has the old process")
	}
	expectDone(t, c, ActionPause, 2)
	expectDone(t, c, ActionContinue, 2)
	expectDone(t, c, ActionStop, 3)
	expectDone(t, c, ActionStart, 3) // waits for the end of the old one
	awaitReady(t, c)
	for _, refused := range []struct {
		action Action
		node   int
	}{{ActionKill, 4}, {ActionStart, 1}, {"eat", 1}} {
		if err := c.Do(t.Context(), refused.action, refused.node); err == nil {
			t.Errorf("%s node %d is done", refused.action, refused.node)
		}
	}
}

// There is one session at a time, and it leaves no node paused or without a process.
func TestSession(t *testing.T) {
	c := startCluster(t)
	said := make(chan string, 16)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	control, err := Listen(ctx, c, func(format string, args ...any) { said <- fmt.Sprintf(format, args...) })
	if err != nil {
		t.Fatal(err)
	}
	s, err := Connect(ctx, c.cfg, "")
	if err != nil {
		t.Fatal(err)
	}
	_, err = Connect(ctx, c.cfg, "")
	expectRefusal(t, err, "wait for its end")
	expectDone(t, s, ActionPause, 1)
	expectDone(t, s, ActionKill, 2)
	for _, want := range []string{"pause node 1", "kill node 2"} {
		if got := <-said; !strings.HasSuffix(got, want) {
			t.Errorf("%q, not %q", got, want)
		}
	}
	if err := s.Do(ctx, ActionKill, 2); err == nil {
		t.Error("a node without a process is killed")
	}
	s.Close()
	awaitReady(t, c)
	cancel()
	control.Close()
	_, err = Connect(t.Context(), c.cfg, " --same")
	expectRefusal(t, err, "imgcluster up --same")
}

// TestLinkedPath: a socket in a folder with a long path can be listened on and reached by links, of which
// nothing is left.
func TestLinkedPath(t *testing.T) {
	links := t.TempDir()
	t.Setenv("TMPDIR", links)
	folder := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(folder, "up.sock")
	here, done, err := linkedPath(socket)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", here)
	if err != nil {
		t.Fatalf("%s: %v", here, err)
	}
	there, doneToo, err := linkedPath(socket)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unix", there)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(conn.Close(), l.Close()); err != nil {
		t.Error(err)
	}
	done()
	doneToo()
	if left, err := os.ReadDir(links); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if _, err := os.Stat(folder); err != nil {
		t.Errorf("the folder went with its link: %v", err)
	}
}

// The error of a node that ends at once has the last error of its log. The other nodes are stopped.
func TestStartFails(t *testing.T) {
	o := options(t, t.TempDir())
	good := o.Args
	o.Args = func(id int) []string {
		if id == 1 {
			return []string{"node", "fails"}
		}
		return good(id)
	}
	_, err := Start(t.Context(), o)
	failed := &NodeError{}
	if !errors.As(err, &failed) {
		t.Fatal(err)
	}
	if want := (NodeError{ID: 1, Said: "node 1 cannot", Next: "change it", Status: exitUsage}); *failed != want {
		t.Errorf("%+v, want %+v", *failed, want)
	}
	if got := failed.ExitStatus(); got != exitUsage {
		t.Errorf("exit status %d, want %d", got, exitUsage)
	}
	if err := checkPorts(o.Config); err != nil {
		t.Errorf("a node still runs: %v", err)
	}
}

func TestStartRefused(t *testing.T) {
	taken := options(t, t.TempDir())
	l, err := net.Listen("tcp", taken.Config.Cluster.Nodes[1].RaftAddr())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = Start(t.Context(), taken)
	expectRefusal(t, err, "imgcluster status")

	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Start(t.Context(), options(t, file)) // even root cannot make a folder in a file
	expectRefusal(t, err, "node.data_dir")

	far := options(t, t.TempDir())
	far.Config.Cluster.Nodes[0].Host = "10.0.0.1"
	_, err = Start(t.Context(), far)
	expectRefusal(t, err, "server --id N --same")
}

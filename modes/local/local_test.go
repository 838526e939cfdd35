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

// TestMain is the test, or one of the nodes that it starts.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "node" {
		os.Exit(node(os.Args[2]))
	}
	os.Exit(m.Run())
}

// node is ready until SIGTERM. One without an address fails as a server does.
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

// options are of three nodes that are this program, with their logs in dir.
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

func started(t *testing.T) *Cluster {
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

// expectDone does something to a node.
func expectDone(t *testing.T, to interface {
	Do(ctx context.Context, a Action, node int) error
}, a Action, node int,
) {
	t.Helper()
	if err := to.Do(t.Context(), a, node); err != nil {
		t.Fatalf("%s node %d: %v", a, node, err)
	}
}

// expectRefusal finds the next step in an error that is the user's to mend.
func expectRefusal(t *testing.T, err error, next string) {
	t.Helper()
	if refused := (*Error)(nil); !errors.As(err, &refused) {
		t.Errorf("%v is no refusal", err)
	} else if !strings.Contains(refused.Hint(), next) || refused.ExitStatus() != exitUsage {
		t.Errorf("%v has the next step %q", err, refused.Hint())
	}
}

func TestFaults(t *testing.T) {
	c := started(t)
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
	poll.Until(t, waitMax, "all are ready", func() bool {
		return !slices.ContainsFunc(c.Nodes(), func(n *Node) bool { return !n.ready(t.Context()) })
	})
	for _, refused := range []struct {
		action Action
		node   int
	}{{ActionKill, 4}, {ActionStart, 1}, {"eat", 1}} {
		if err := c.Do(t.Context(), refused.action, refused.node); err == nil {
			t.Errorf("%s node %d is done", refused.action, refused.node)
		}
	}
}

// A session has the nodes alone, and leaves none of them paused or without a process.
func TestSession(t *testing.T) {
	c := started(t)
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
	poll.Until(t, waitMax, "all are ready", func() bool {
		return !slices.ContainsFunc(c.Nodes(), func(n *Node) bool { return !n.ready(t.Context()) })
	})
	cancel()
	control.Close()
	_, err = Connect(t.Context(), c.cfg, " --same")
	expectRefusal(t, err, "imgcluster up --same")
}

// A node that ends at once is told by its last words; those that were started have ended too.
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
	if failed := (*NodeError)(nil); !errors.As(err, &failed) {
		t.Fatal(err)
	} else if failed.ID != 1 || failed.Error() != "node 1 cannot" || failed.Hint() != "change it" || failed.ExitStatus() != exitUsage {
		t.Errorf("%+v", failed)
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
	_, err = Start(t.Context(), options(t, file)) // nobody, root neither, makes a folder in a file
	expectRefusal(t, err, "node.data_dir")

	far := options(t, t.TempDir())
	far.Config.Cluster.Nodes[0].Host = "10.0.0.1"
	_, err = Start(t.Context(), far)
	expectRefusal(t, err, "server --id N --same")
}

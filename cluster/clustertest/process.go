package clustertest

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"imgcluster/cluster"
	"imgcluster/cluster/image"
	"imgcluster/config"
)

// The variables that make the test binary one node.
const (
	envNode   = "CLUSTERTEST_NODE"
	envConfig = "CLUSTERTEST_CONFIG"
)

// catalogHash is what Main was given.
var catalogHash func(*cluster.Node) (string, error)

// Main is what TestMain calls first: in a process that was started to be a node or a load, it is that
// and does not return. hash sums up all that a node's catalog holds.
func Main(hash func(*cluster.Node) (string, error)) {
	catalogHash = hash
	run := func() error { return serve(os.Getenv(envNode), os.Getenv(envConfig)) }
	switch {
	case os.Getenv(envLoad) != "":
		run = func() error { return generate(os.Getenv(envLoad)) }
	case os.Getenv(envNode) == "":
		return
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// serve runs a node until SIGTERM, or until the test that started it is gone.
func serve(text, path string) error {
	id, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return err
	}
	cfg, err := config.Load(config.Options{Path: path})
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	lines := make(chan struct{})
	go func() {
		for in := bufio.NewScanner(os.Stdin); in.Scan(); { // ends with the parent
			lines <- struct{}{}
		}
		stop()
	}()
	node, err := cluster.Start(ctx, cfg, image.NodeID(id), "test", logger(image.NodeID(id)))
	if err != nil {
		return err
	}
	go func() {
		answers := os.NewFile(answersFD, "answers")
		for range lines {
			hash, err := catalogHash(node)
			fmt.Fprintln(answers, cmp.Or(hash, fmt.Sprint(err)))
		}
	}()
	select {
	case <-ctx.Done():
	case err = <-node.Failed():
	}
	closing, cancel := context.WithTimeout(context.Background(), cfg.Timeouts.Shutdown)
	defer cancel()
	return errors.Join(err, node.Close(closing))
}

// configFile is the configuration of all processes, in the folder of the cluster.
const configFile = "cluster.yaml"

// process is a node that is a process of its own.
type process struct {
	cmd     *exec.Cmd
	alive   io.WriteCloser // the process ends when this is closed, and tells its catalog's hash for each line
	answers *bufio.Reader
	exited  chan struct{}
	err     error // once exited is closed
}

// answersFD is the file on which a process answers.
const answersFD = 3

// spawn starts the node as a process.
func (c *Cluster) spawn(id image.NodeID) {
	c.t.Helper()
	path := filepath.Join(c.dir, configFile)
	b, err := c.Config.YAML()
	if err == nil {
		err = os.WriteFile(path+".new", b, 0o600)
	}
	if err == nil { // in one step: a node that was just started may be reading it
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	p := &process{cmd: exec.Command(os.Args[0]), exited: make(chan struct{})}
	if c.network != nil {
		p.cmd = c.network.Command(c.host(id), os.Args[0])
	}
	p.cmd.Env = append(os.Environ(), envNode+"="+strconv.Itoa(int(id)), envConfig+"="+path)
	p.cmd.Stdout, p.cmd.Stderr = os.Stderr, os.Stderr
	r, w, err := os.Pipe()
	if err != nil {
		c.t.Fatal(err)
	}
	p.answers, p.cmd.ExtraFiles = bufio.NewReader(r), []*os.File{w}
	if p.alive, err = p.cmd.StdinPipe(); err == nil {
		err = p.cmd.Start()
	}
	w.Close()
	if err != nil {
		r.Close()
		c.t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		r.Close()
		close(p.exited)
	}()
	c.procs[id] = p
}

// CatalogHash sums up all that a node's replicas of the shards hold.
func (c *Cluster) CatalogHash(t testing.TB, id image.NodeID) string {
	t.Helper()
	var hash string
	var err error
	if p := c.procs[id]; p == nil {
		hash, err = catalogHash(c.Node(id))
	} else if _, err = io.WriteString(p.alive, "\n"); err == nil {
		hash, err = p.answers.ReadString('\n')
	}
	if err != nil {
		t.Fatalf("catalog of node %d: %v", id, err)
	}
	return strings.TrimSpace(hash)
}

// stop ends the process in the orderly way, and by force when that takes too long.
func (p *process) stop() error {
	p.cmd.Process.Signal(syscall.SIGCONT) // a stopped process would not see the next one
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.exited:
		return p.err
	case <-time.After(Deadline):
		p.kill()
		return fmt.Errorf("the process did not end within %v of SIGTERM", Deadline)
	}
}

func (p *process) kill() {
	p.cmd.Process.Kill() // ended already: fine too
	<-p.exited
}

// Kill ends a node's process as kill -9 does.
func (c *Cluster) Kill(id image.NodeID) {
	c.t.Helper()
	p := c.procs[id]
	if p == nil {
		c.t.Fatalf("node %d is not a process that runs", id)
	}
	delete(c.procs, id)
	p.kill()
}

// Pause stops a node's process in its tracks; Resume lets it go on.
func (c *Cluster) Pause(id image.NodeID) { c.signal(id, syscall.SIGSTOP) }

// Freeze is Pause, and returns when no thread of the process runs any more: all have stopped, or will
// when the disk operation ends that they are in.
func (c *Cluster) Freeze(id image.NodeID) {
	c.t.Helper()
	c.Pause(id)
	tasks := fmt.Sprintf("/proc/%d/task/*/stat", c.procs[id].cmd.Process.Pid)
	Poll(c.t, fmt.Sprintf("node %d stops", id), func() bool {
		files, err := filepath.Glob(tasks)
		for _, file := range files {
			b, readErr := os.ReadFile(file)
			_, state, _ := bytes.Cut(b, []byte(") "))
			if readErr != nil || len(state) == 0 || state[0] != 'T' && state[0] != 'D' {
				return false
			}
		}
		return err == nil && len(files) > 0
	})
}

// Resume lets a paused process go on.
func (c *Cluster) Resume(id image.NodeID) { c.signal(id, syscall.SIGCONT) }

func (c *Cluster) signal(id image.NodeID, sig syscall.Signal) {
	c.t.Helper()
	if err := c.procs[id].cmd.Process.Signal(sig); err != nil {
		c.t.Fatal(err)
	}
}

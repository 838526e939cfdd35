package clustertest

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"imgcluster/cluster"
	"imgcluster/cluster/failpoint"
	"imgcluster/cluster/image"
	"imgcluster/config"
)

// The variables that make the test binary a node.
const (
	envNode   = "CLUSTERTEST_NODE"
	envConfig = "CLUSTERTEST_CONFIG"
)

// Answers are the queries that a node's process answers, each with one line.
type Answers struct {
	Hash      func(*cluster.Node) (string, error) // a hash of the whole catalog
	Inventory func(*cluster.Node) (string, error) // the entries of the catalog, as JSON of []Entry
}

// answers is the argument of Main.
var answers Answers

// Main must be called first in TestMain. In a process that was started as a node or a load it runs that and
// does not return.
func Main(a Answers) {
	answers = a
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

// serve runs a node until SIGTERM, or until the test that started it ends.
func serve(text, path string) error {
	id, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return err
	}
	cfg, err := config.Load(config.Options{Path: path})
	if err != nil {
		return err
	}
	cluster.LimitMemory(cfg)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	lines := make(chan string)
	go func() {
		for in := bufio.NewScanner(os.Stdin); in.Scan(); { // ends with the parent
			lines <- in.Text()
		}
		stop()
	}()
	out := os.NewFile(answersFD, "answers")
	node, err := cluster.Start(ctx, cfg, image.NodeID(id), Process(logger(image.NodeID(id))))
	if err != nil {
		return errors.Join(err, json.NewEncoder(out).Encode(refusalOf(err)))
	}
	go func() {
		for line := range lines {
			text, err := answer(node, line)
			fmt.Fprintln(out, cmp.Or(text, fmt.Sprint(err)))
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

// The requests to a process, and the answer to askArm.
const (
	askHash      = "hash"
	askInventory = "inventory"
	askArm       = "arm" // with the name of a failpoint, which may be empty, and a number
	armed        = "armed"
)

func answer(n *cluster.Node, line string) (string, error) {
	ask, rest, _ := strings.Cut(line, " ")
	switch ask {
	case askHash:
		return answers.Hash(n)
	case askInventory:
		return answers.Inventory(n)
	}
	name, count, _ := strings.Cut(rest, " ")
	times, err := strconv.Atoi(count)
	if err != nil {
		return "", err
	}
	failpoint.Arm(name, times)
	return armed, nil
}

// ask sends a process a line and returns its answer.
func (p *process) ask(line string) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := io.WriteString(p.stdin, line+"\n"); err != nil {
		return "", err
	}
	text, err := p.answers.ReadString('\n')
	return strings.TrimSpace(text), err
}

// Refusal is the error with which a node did not start, and its hint.
type Refusal struct{ Error, Hint string }

func refusalOf(err error) Refusal {
	r := Refusal{Error: err.Error()}
	var hinted interface{ Hint() string }
	if errors.As(err, &hinted) {
		r.Hint = hinted.Hint()
	}
	return r
}

// ReadyOrRefused waits until a node that was started as a process is ready, or has ended. The refusal is
// empty when it ended without giving one.
func (c *Cluster) ReadyOrRefused(t testing.TB, id image.NodeID) (r Refusal, ready bool) {
	t.Helper()
	Poll(t, fmt.Sprintf("node %d ready or refused", id), func() bool {
		if c.Dead(id) {
			return true
		}
		ready = c.Do(http.MethodGet, id, "/readyz", nil, nil).Status == http.StatusOK
		return ready
	})
	if !ready {
		p := c.procs[id]
		delete(c.procs, id)
		json.Unmarshal(p.refusal, &r) // stays empty when there is none
	}
	return r, ready
}

// configFile is the name of the configuration of all processes, in the folder of the cluster.
const configFile = "cluster.yaml"

// process is a node in a process of its own.
type process struct {
	cmd     *exec.Cmd
	stdin   io.WriteCloser // takes requests; the process ends when it is closed
	exited  chan struct{}
	err     error  // valid once exited is closed
	refusal []byte // likewise: a Refusal as JSON, or empty

	mu      sync.Mutex // of answers: one question at a time, and the process may end during one
	answers *bufio.Reader
}

// answersFD is the file descriptor to which a process writes its answers.
const answersFD = 3

// spawn starts a node as a process, with more variables in its environment.
func (c *Cluster) spawn(id image.NodeID, env ...string) {
	c.t.Helper()
	path := filepath.Join(c.dir, configFile)
	b, err := c.Config.YAML()
	if err == nil {
		err = os.WriteFile(path+".new", b, 0o600)
	}
	if err == nil { // atomically: a node that was just started may be reading it
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	program := cmp.Or(c.program, os.Args[0])
	p := &process{cmd: exec.Command(program), exited: make(chan struct{})}
	if c.network != nil {
		p.cmd = c.network.Command(c.host(id), program)
	}
	p.cmd.Env = append(os.Environ(), envNode+"="+strconv.Itoa(int(id)), envConfig+"="+path)
	p.cmd.Env = append(p.cmd.Env, env...)
	p.cmd.Stdout = os.Stderr
	p.cmd.Stderr = os.Stderr
	r, w, err := os.Pipe()
	if err != nil {
		c.t.Fatal(err)
	}
	p.answers = bufio.NewReader(r)
	p.cmd.ExtraFiles = []*os.File{w}
	if p.stdin, err = p.cmd.StdinPipe(); err == nil {
		err = p.cmd.Start()
	}
	w.Close()
	if err != nil {
		r.Close()
		c.t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.refusal, _ = p.answers.ReadBytes('\n') // the pipe's other end is closed
		r.Close()
		close(p.exited)
	}()
	c.procs[id] = p
}

// CatalogHash returns a hash of all of a node's replicas.
func (c *Cluster) CatalogHash(t testing.TB, id image.NodeID) string {
	t.Helper()
	var hash string
	var err error
	if p := c.procs[id]; p == nil {
		hash, err = answers.Hash(c.Node(id))
	} else {
		hash, err = p.ask(askHash)
	}
	if err != nil {
		t.Fatalf("catalog of node %d: %v", id, err)
	}
	return hash
}

// stop ends the process with SIGTERM, and with SIGKILL when it takes longer than Deadline.
func (p *process) stop() error {
	p.cmd.Process.Signal(syscall.SIGCONT) // a paused process would not handle SIGTERM
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
	p.cmd.Process.Kill() // an error means that it has ended
	<-p.exited
}

// Kill ends a node's process with SIGKILL.
func (c *Cluster) Kill(id image.NodeID) {
	c.t.Helper()
	p := c.procs[id]
	if p == nil {
		c.t.Fatalf("node %d is not a running process", id)
	}
	delete(c.procs, id)
	p.kill()
}

// DumpStacks makes the processes write their stacks to standard error and end, when IMGCLUSTER_TEST_LOG is
// set: for tests that failed because nodes hang.
func (c *Cluster) DumpStacks() {
	if os.Getenv("IMGCLUSTER_TEST_LOG") == "" {
		return
	}
	for id, p := range c.procs {
		fmt.Fprintf(os.Stderr, "stacks of node %d\n", id)
		p.cmd.Process.Signal(syscall.SIGQUIT)
		<-p.exited
		delete(c.procs, id)
	}
}

// Pause stops a node's process with SIGSTOP; Resume continues it.
func (c *Cluster) Pause(id image.NodeID) { c.signal(id, syscall.SIGSTOP) }

// Freeze is Pause, and returns when no thread of the process runs any more: each has stopped, or stops at the
// end of its disk operation.
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

// Resume continues a paused process.
func (c *Cluster) Resume(id image.NodeID) { c.signal(id, syscall.SIGCONT) }

func (c *Cluster) signal(id image.NodeID, sig syscall.Signal) {
	c.t.Helper()
	if err := c.procs[id].cmd.Process.Signal(sig); err != nil {
		c.t.Fatal(err)
	}
}

package clustertest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
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

// Main is what TestMain calls first: in a process that was started to be a node, it is that node and
// does not return.
func Main() {
	text := os.Getenv(envNode)
	if text == "" {
		return
	}
	if err := serve(text, os.Getenv(envConfig)); err != nil {
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
	go func() {
		io.Copy(io.Discard, os.Stdin) // ends with the parent
		stop()
	}()
	node, err := cluster.Start(ctx, cfg, image.NodeID(id), "test", logger(image.NodeID(id)))
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case err = <-node.Failed():
	}
	closing, cancel := context.WithTimeout(context.Background(), cfg.Timeouts.Shutdown)
	defer cancel()
	return errors.Join(err, node.Close(closing))
}

// process is a node that is a process of its own.
type process struct {
	cmd    *exec.Cmd
	alive  io.Closer // the process ends when this is closed
	exited chan struct{}
	err    error // once exited is closed
}

// spawn starts the node as a process.
func (c *Cluster) spawn(id image.NodeID) {
	c.t.Helper()
	path := filepath.Join(c.dir, "cluster.yaml")
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
	p.cmd.Env = append(os.Environ(), envNode+"="+strconv.Itoa(int(id)), envConfig+"="+path)
	p.cmd.Stdout, p.cmd.Stderr = os.Stderr, os.Stderr
	if p.alive, err = p.cmd.StdinPipe(); err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		c.t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	c.procs[id] = p
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

// Resume lets a paused process go on.
func (c *Cluster) Resume(id image.NodeID) { c.signal(id, syscall.SIGCONT) }

func (c *Cluster) signal(id image.NodeID, sig syscall.Signal) {
	c.t.Helper()
	if err := c.procs[id].cmd.Process.Signal(sig); err != nil {
		c.t.Fatal(err)
	}
}

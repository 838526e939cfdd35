//go:build !windows

package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"imgcluster/config"
)

// Options say which nodes are started, and how.
type Options struct {
	Config  *config.Config
	Program string                // path of the executable
	Args    func(id int) []string // its arguments for a node
	Same    string                // for hints: the options that give a command the same configuration
}

// Cluster is a cluster of node processes. It is safe for concurrent use.
type Cluster struct {
	cfg   *config.Config
	ended chan *Node    // receives each process that ends, until done
	done  chan struct{} // closed by Shutdown

	mu    sync.Mutex
	nodes []*Node // the newest process of each node
}

// Start starts every node of a loopback configuration and waits until all are ready. When one fails, it
// stops the others.
func Start(ctx context.Context, o Options) (c *Cluster, err error) {
	cfg := o.Config
	switch {
	case !cfg.OneHost():
		return nil, refusef("start each machine's node there, with: imgcluster server --id N"+o.Same,
			"the configuration's nodes are not all on this machine")
	case cfg.ListenPorts() && len(cfg.Cluster.Nodes) > 1:
		const hint = "give an address without ports, or start each node with imgcluster server --listen"
		return nil, refusef(hint, "node.listen has the ports of one node, and there are %d", len(cfg.Cluster.Nodes))
	}
	if err := checkPorts(cfg); err != nil {
		return nil, err
	}
	c = &Cluster{cfg: cfg, ended: make(chan *Node), done: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Shutdown(ctx))
		}
	}()
	for _, n := range cfg.Cluster.Nodes {
		log := filepath.Join(filepath.Dir(cfg.DataDir(n.ID)), fmt.Sprintf("node%d.log", n.ID))
		node := &Node{ID: int(n.ID), API: cfg.Scheme() + "://" + n.APIAddr(), LogPath: log}
		if err := node.start(o.Program, o.Args(node.ID)); err != nil {
			return c, err
		}
		c.nodes = append(c.nodes, node)
		c.watch(node)
	}
	return c, c.waitReady(ctx)
}

// Nodes returns the newest process of each node, in the order of the configuration.
func (c *Cluster) Nodes() []*Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.nodes)
}

// Ended returns a channel that receives each process that has ended, until Shutdown.
func (c *Cluster) Ended() <-chan *Node { return c.ended }

// watch reports the end of a process to Ended.
func (c *Cluster) watch(n *Node) {
	go func() {
		<-n.exited
		select {
		case c.ended <- n:
		case <-c.done:
		}
	}()
}

// checkPorts refuses ports that are taken, before anything is started or written. Otherwise a cluster
// that runs already would answer in place of the new one.
func checkPorts(cfg *config.Config) error {
	for _, n := range cfg.Cluster.Nodes {
		on := cfg.ListenOn(n)
		if err := checkPort(cfg, n, "api_port", on.APIAddr()); err != nil {
			return err
		}
		if err := checkPort(cfg, n, "raft_port", on.RaftAddr()); err != nil {
			return err
		}
	}
	return nil
}

func checkPort(cfg *config.Config, n config.Node, setting, addr string) error {
	l, err := net.Listen("tcp", addr)
	if err == nil {
		return l.Close()
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		hint := cfg.Listener(setting).Hint(err) + "; imgcluster status shows whether a cluster runs already"
		return refusef(hint, "node %d needs %s, which another process has", n.ID, addr)
	}
	return refusef("configure an address of this machine", "node %d cannot use %s: %w", n.ID, addr, err)
}

// readyPoll is the time between two readiness probes of a starting node.
const readyPoll = 50 * time.Millisecond

func (c *Cluster) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeouts.Start)
	defer cancel()
	for _, n := range c.nodes {
		for !n.ready(ctx) {
			select {
			case <-n.exited:
				return n.Failure()
			case <-ctx.Done():
				return fmt.Errorf("node %d is not ready: %w; its log is %s",
					n.ID, context.Cause(ctx), n.LogPath)
			case <-time.After(readyPoll):
			}
		}
	}
	for _, n := range c.nodes {
		if n.hasExited() {
			return n.Failure()
		}
	}
	return nil
}

// stopMargin is the time beyond timeouts.shutdown after which a node is killed.
const stopMargin = 5 * time.Second

// Shutdown stops all nodes, also those that are paused, and kills those that still run after
// timeouts.shutdown. It does so although ctx may be done. It is called once.
func (c *Cluster) Shutdown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.cfg.Timeouts.Shutdown+stopMargin)
	defer cancel()
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.done)
	for _, n := range c.nodes {
		n.cmd.Process.Signal(syscall.SIGTERM)
		n.cmd.Process.Signal(syscall.SIGCONT)
	}
	var wg sync.WaitGroup
	errs := make([]error, len(c.nodes))
	for i, n := range c.nodes {
		wg.Go(func() {
			select {
			case <-n.exited:
			case <-ctx.Done():
				n.cmd.Process.Kill()
				<-n.exited
				errs[i] = fmt.Errorf("node %d did not stop in time and was killed; its log is %s",
					n.ID, n.LogPath)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

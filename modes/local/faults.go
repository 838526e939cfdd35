//go:build !windows

package local

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"
)

// Do takes an action on a node's process. A process that the cluster did not start is left alone.
func (c *Cluster) Do(ctx context.Context, a Action, node int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, n := range c.nodes {
		if n.ID != node {
			continue
		}
		if a == ActionStart {
			return c.restart(ctx, i)
		}
		return n.signal(a)
	}
	return fmt.Errorf("there is no node %d here", node)
}

// signal takes an action that needs no new process.
func (n *Node) signal(a Action) error {
	if n.hasExited() {
		return n.Failure()
	}
	var sig syscall.Signal
	switch a {
	case ActionKill:
		n.asked.Store(true)
		sig = syscall.SIGKILL
	case ActionStop:
		n.asked.Store(true)
		sig = syscall.SIGTERM
	case ActionPause:
		n.paused = true
		sig = syscall.SIGSTOP
	case ActionContinue:
		n.paused = false
		sig = syscall.SIGCONT
	default:
		return fmt.Errorf("no action is named %q", a)
	}
	if err := n.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("%s node %d: %w", a, n.ID, err)
	}
	if a == ActionKill {
		<-n.exited
	}
	return nil
}

// restart waits for the end of a process that was killed or stopped, and starts the node again.
func (c *Cluster) restart(ctx context.Context, i int) error {
	old := c.nodes[i]
	if !old.asked.Load() {
		return fmt.Errorf("node %d was neither killed nor stopped", old.ID)
	}
	limit := time.NewTimer(c.cfg.Timeouts.Shutdown + stopMargin)
	defer limit.Stop()
	select {
	case <-old.exited:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-limit.C:
		old.cmd.Process.Kill()
		<-old.exited
	}
	n := &Node{ID: old.ID, API: old.API, LogPath: old.LogPath}
	if err := n.start(old.cmd.Path, old.cmd.Args[1:]); err != nil {
		return err
	}
	c.nodes[i] = n
	c.watch(n)
	return nil
}

// restore undoes the faults of a chaos run: paused nodes continue, and those that it ended are restarted.
func (c *Cluster) restore(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for i, n := range c.nodes {
		if n.paused && !n.hasExited() {
			errs = append(errs, n.signal(ActionContinue))
		}
		if n.asked.Load() {
			errs = append(errs, c.restart(ctx, i))
		}
	}
	return errors.Join(errs...)
}

// running returns the nodes whose process runs.
func (c *Cluster) running() (ids []int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.nodes {
		if !n.hasExited() {
			ids = append(ids, n.ID)
		}
	}
	return ids
}

// AllEnded reports whether all nodes have ended and none is to be restarted.
func (c *Cluster) AllEnded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.nodes {
		if !n.hasExited() || n.asked.Load() {
			return false
		}
	}
	return true
}

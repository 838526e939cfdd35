package modes

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"imgcluster/modes/stress/chaos"
)

// Do implements chaos.Nodes. What it takes is one of this cluster's processes: a node that somebody
// started otherwise is left alone.
func (l *localCluster) Do(ctx context.Context, a chaos.Action, node int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, n := range l.nodes {
		if int(n.id) != node {
			continue
		}
		if a == chaos.ActionStart {
			return l.restart(ctx, i)
		}
		return n.signal(a)
	}
	return fmt.Errorf("there is no node %d here", node)
}

// signal does to a process what needs no new one.
func (n *localNode) signal(a chaos.Action) error {
	if n.gone() {
		return n.failure()
	}
	var sig syscall.Signal
	switch a {
	case chaos.ActionKill:
		n.asked.Store(true)
		sig = syscall.SIGKILL
	case chaos.ActionStop:
		n.asked.Store(true)
		sig = syscall.SIGTERM
	case chaos.ActionPause:
		n.paused = true
		sig = syscall.SIGSTOP
	case chaos.ActionContinue:
		n.paused = false
		sig = syscall.SIGCONT
	default:
		return fmt.Errorf("nothing is named %q", a)
	}
	if err := n.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("%s node %d: %w", a, n.id, err)
	}
	if a == chaos.ActionKill {
		<-n.exited
	}
	return nil
}

// restart waits for the end of a process that was told to end, and starts the node again.
func (l *localCluster) restart(ctx context.Context, i int) error {
	old := l.nodes[i]
	if !old.asked.Load() {
		return fmt.Errorf("node %d was not told to end", old.id)
	}
	limit := time.NewTimer(l.cfg.Timeouts.Shutdown + stopMargin)
	defer limit.Stop()
	select {
	case <-old.exited:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-limit.C:
		old.cmd.Process.Kill()
		<-old.exited
	}
	n := &localNode{id: old.id, api: old.api, logPath: old.logPath}
	if err := n.start(old.cmd.Path, old.cmd.Args[1:]); err != nil {
		return err
	}
	l.nodes[i] = n
	l.watch(n)
	return nil
}

// restore ends what a chaos has left: paused nodes go on, and those that it ended start again.
func (l *localCluster) restore(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for i, n := range l.nodes {
		if n.paused && !n.gone() {
			errs = append(errs, n.signal(chaos.ActionContinue))
		}
		if n.asked.Load() {
			errs = append(errs, l.restart(ctx, i))
		}
	}
	return errors.Join(errs...)
}

// running lists the nodes that run as processes of this cluster.
func (l *localCluster) running() (ids []int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range l.nodes {
		if !n.gone() {
			ids = append(ids, int(n.id))
		}
	}
	return ids
}

// over tells whether all nodes have ended for good.
func (l *localCluster) over() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range l.nodes {
		if !n.gone() || n.asked.Load() {
			return false
		}
	}
	return true
}

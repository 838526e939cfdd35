package chaos

import (
	"context"
	"fmt"
	"sort"
	"sync"
	"time"

	"imgcluster/cluster/wait"
	"imgcluster/modes/local"
	"imgcluster/modes/runlog"
)

// Nodes takes actions on the nodes' processes.
type Nodes interface {
	Do(ctx context.Context, a local.Action, node int) error
}

// Health is the state of a cluster. It is Ready when all nodes are up, serve, and see all others do so. It is
// Healed when all of them report besides that no image lacks a copy.
type Health struct{ Ready, Healed bool }

// Options are what a Runner works with.
type Options struct {
	Plan       []Fault
	Nodes      Nodes
	Health     func(ctx context.Context) Health
	Event      func(e runlog.Event) // sets TS
	ReadyLimit time.Duration        // for a cluster to be ready after a fault; else there are no more faults
	HealLimit  time.Duration        // for it to be healed after that; else the next fault comes nevertheless
}

const (
	healthEvery  = 100 * time.Millisecond
	restoreLimit = 30 * time.Second // for the last action on a node, when the run is stopped
)

// Runner carries out a plan: one fault at a time, each after the cluster has recovered from the one
// before. Until then the upload that sets off the next fault waits, and so do those after it: so the
// whole plan fits into any run. The log has these waits.
type Runner struct {
	o     Options
	armed []chan struct{} // closed when the fault may come, so that its upload may begin
	begun []chan struct{} // closed when its upload has begun

	mu   sync.Mutex
	held bool // uploads wait
}

// New returns a Runner, both of whose Run and Begin have to be called.
func New(o Options) *Runner {
	r := &Runner{o: o}
	for range o.Plan {
		r.armed = append(r.armed, make(chan struct{}))
		r.begun = append(r.begun, make(chan struct{}))
	}
	return r
}

// Begin is called once before each upload begins, and returns when it may. When ctx ends it returns at
// once; then no upload should begin.
func (r *Runner) Begin(ctx context.Context, seq int64) {
	next := sort.Search(len(r.o.Plan), func(i int) bool { return r.o.Plan[i].Upload > seq })
	if next == 0 {
		return
	}
	i := next - 1
	r.hold(i)
	select {
	case <-r.armed[i]:
	case <-ctx.Done():
		return
	}
	if r.o.Plan[i].Upload == seq {
		close(r.begun[i])
	}
}

// hold records that uploads wait for fault i, at the first one.
func (r *Runner) hold(i int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.held && !wait.Closed(r.armed[i]) {
		r.held = true
		r.o.Event(runlog.Event{Kind: runlog.EventHeld})
	}
}

// arm lets the uploads before fault i+1 begin.
func (r *Runner) arm(i int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held {
		r.held = false
		r.o.Event(runlog.Event{Kind: runlog.EventReleased})
	}
	close(r.armed[i])
}

// Run carries out the plan. It ends early when ctx ends or a node does not come back. Whatever happens,
// it undoes the last fault as far as possible, and no upload waits any more.
func (r *Runner) Run(ctx context.Context) {
	next := 0
	defer func() {
		for ; next < len(r.armed); next++ {
			r.arm(next)
		}
	}()
	if !r.awaitRecovery(ctx, 0) {
		return
	}
	for i, f := range r.o.Plan {
		r.arm(i)
		next++
		select {
		case <-r.begun[i]:
		case <-ctx.Done():
			return
		}
		if !wait.For(ctx, f.After) || !r.inject(ctx, i) || !r.awaitRecovery(ctx, f.Node) {
			return
		}
	}
}

// step is the start or the end of a fault.
type step struct {
	action local.Action
	event  string
}

// steps are the start and the end of each kind of fault.
var steps = map[Kind][2]step{
	Kill:    {{local.ActionKill, runlog.EventKill}, {local.ActionStart, runlog.EventRestart}},
	Pause:   {{local.ActionPause, runlog.EventPause}, {local.ActionContinue, runlog.EventResume}},
	Restart: {{local.ActionStop, runlog.EventStop}, {local.ActionStart, runlog.EventRestart}},
}

// inject makes a node fail as fault i says, and brings it back, at once when ctx ends. It reports whether
// the plan continues.
func (r *Runner) inject(ctx context.Context, i int) bool {
	f := r.o.Plan[i]
	start, end := steps[f.Kind][0], steps[f.Kind][1]
	if err := r.o.Nodes.Do(ctx, start.action, f.Node); err != nil {
		return r.lost(f.Node, err)
	}
	detail := fmt.Sprintf("fault %d of %d, at upload %d, for %v", i+1, len(r.o.Plan), f.Upload, f.For)
	r.o.Event(runlog.Event{Kind: start.event, Node: f.Node, Detail: detail})
	wait.For(ctx, f.For)
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), restoreLimit)
	defer cancel()
	if err := r.o.Nodes.Do(limited, end.action, f.Node); err != nil {
		return r.lost(f.Node, err)
	}
	r.o.Event(runlog.Event{Kind: end.event, Node: f.Node})
	return ctx.Err() == nil
}

// lost records that a node does not come back, or that its process is out of reach. It returns false: the
// plan ends.
func (r *Runner) lost(node int, err error) bool {
	r.o.Event(runlog.Event{Kind: runlog.EventLost, Node: node, Detail: err.Error()})
	return false
}

// awaitRecovery waits until the cluster has recovered from a fault of the node, which is 0 before the
// first fault. It reports whether the plan continues.
func (r *Runner) awaitRecovery(ctx context.Context, node int) bool {
	ready := r.awaitHealth(ctx, r.o.ReadyLimit, func(h Health) bool { return h.Ready })
	healed := ready && r.awaitHealth(ctx, r.o.HealLimit, func(h Health) bool { return h.Ready && h.Healed })
	switch {
	case ctx.Err() != nil:
		return false
	case !ready:
		return r.lost(node, fmt.Errorf("not all nodes are ready after %v", r.o.ReadyLimit))
	case !healed:
		detail := fmt.Sprintf("images lack copies after %v", r.o.HealLimit)
		r.o.Event(runlog.Event{Kind: runlog.EventUnhealed, Node: node, Detail: detail})
	case node != 0:
		r.o.Event(runlog.Event{Kind: runlog.EventHealed, Node: node})
	}
	return true
}

// awaitHealth waits until the health is enough, and reports whether that was so before ctx ended or the
// limit had passed.
func (r *Runner) awaitHealth(ctx context.Context, limit time.Duration, enough func(Health) bool) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		if enough(r.o.Health(ctx)) {
			return true
		}
		if !wait.For(ctx, healthEvery) {
			return false
		}
	}
}

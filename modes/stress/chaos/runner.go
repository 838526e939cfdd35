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

// Nodes owns the nodes' processes.
type Nodes interface {
	Do(ctx context.Context, a local.Action, node int) error
}

// Health is how a cluster is: Ready when all nodes are up, serve and see all others do so, Healed
// when all of them say besides that no image lacks a copy.
type Health struct{ Ready, Healed bool }

// Options are what a Runner works with.
type Options struct {
	Plan       []Fault
	Nodes      Nodes
	Health     func(ctx context.Context) Health
	Event      func(e runlog.Event) // TS is for the callee to set
	ReadyLimit time.Duration        // for a node to come back; after it there are no more faults
	HealLimit  time.Duration        // for the copies after that; the next fault then comes anyway
}

const (
	healthEvery  = 100 * time.Millisecond
	restoreLimit = 30 * time.Second // for the last command to a node, when the run is stopped
)

// Runner carries out a plan: one fault at a time, and none before the cluster is over the one
// before. Uploads behind the begin of a fault that must wait for that wait too, so that the whole
// plan fits into any run; the log tells when.
type Runner struct {
	o     Options
	armed []chan struct{} // closed: the fault may come, so its upload may begin
	begun []chan struct{} // closed: its upload has begun

	mu   sync.Mutex
	held bool // uploads wait
}

// New returns a Runner. Its Run and Begin belong together.
func New(o Options) *Runner {
	r := &Runner{o: o}
	for range o.Plan {
		r.armed = append(r.armed, make(chan struct{}))
		r.begun = append(r.begun, make(chan struct{}))
	}
	return r
}

// Begin is called before upload seq begins, once for each, and returns when it may. It returns early
// when ctx is done: no upload should begin then.
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

// hold tells the log of the first upload that has to wait.
func (r *Runner) hold(i int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.armed[i]:
	default:
		if !r.held {
			r.held = true
			r.o.Event(runlog.Event{Kind: runlog.EventHeld})
		}
	}
}

// arm lets the uploads up to the fault behind i begin.
func (r *Runner) arm(i int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held {
		r.held = false
		r.o.Event(runlog.Event{Kind: runlog.EventReleased})
	}
	close(r.armed[i])
}

// Run carries out the plan. When ctx is done or a node does not come back it ends early. Whatever
// happens, no node stays paused or without a process as far as that can be helped, and no upload
// waits any more.
func (r *Runner) Run(ctx context.Context) {
	next := 0
	defer func() {
		for ; next < len(r.armed); next++ {
			r.arm(next)
		}
	}()
	if !r.settle(ctx, 0) {
		return
	}
	for next < len(r.o.Plan) {
		f := r.o.Plan[next]
		r.arm(next)
		next++
		select {
		case <-r.begun[next-1]:
		case <-ctx.Done():
			return
		}
		if !wait.For(ctx, f.After) || !r.strike(ctx, f, fmt.Sprintf("fault %d of %d", next, len(r.o.Plan))) || !r.settle(ctx, f.Node) {
			return
		}
	}
}

// step is one half of a fault.
type step struct {
	action local.Action
	event  string
}

// steps are the begin and the end of each kind of fault.
var steps = map[Kind][2]step{
	Kill:    {{local.ActionKill, runlog.EventKill}, {local.ActionStart, runlog.EventRestart}},
	Pause:   {{local.ActionPause, runlog.EventPause}, {local.ActionContinue, runlog.EventResume}},
	Restart: {{local.ActionStop, runlog.EventStop}, {local.ActionStart, runlog.EventRestart}},
}

// strike makes a node fail and brings it back, at once when ctx is done.
func (r *Runner) strike(ctx context.Context, f Fault, which string) bool {
	kind := steps[f.Kind]
	if err := r.o.Nodes.Do(ctx, kind[0].action, f.Node); err != nil {
		return r.broken(f.Node, err)
	}
	r.o.Event(runlog.Event{Kind: kind[0].event, Node: f.Node, Detail: fmt.Sprintf("%s, at upload %d, for %v", which, f.Upload, f.For)})
	wait.For(ctx, f.For)
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), restoreLimit)
	defer cancel()
	if err := r.o.Nodes.Do(limited, kind[1].action, f.Node); err != nil {
		return r.broken(f.Node, err)
	}
	r.o.Event(runlog.Event{Kind: kind[1].event, Node: f.Node})
	return ctx.Err() == nil
}

// broken tells that the processes cannot be had any more.
func (r *Runner) broken(node int, err error) bool {
	r.o.Event(runlog.Event{Kind: runlog.EventLost, Node: node, Detail: err.Error()})
	return false
}

// settle waits until the cluster is over a fault of the node; 0 is before the first one. It tells
// whether the next one may come.
func (r *Runner) settle(ctx context.Context, node int) bool {
	ready, healed := r.until(ctx, r.o.ReadyLimit, func(h Health) bool { return h.Ready }), false
	if ready {
		healed = r.until(ctx, r.o.HealLimit, func(h Health) bool { return h.Ready && h.Healed })
	}
	switch {
	case ctx.Err() != nil:
		return false
	case !ready:
		return r.broken(node, fmt.Errorf("not all nodes are ready after %v", r.o.ReadyLimit))
	case !healed:
		r.o.Event(runlog.Event{Kind: runlog.EventUnhealed, Node: node, Detail: fmt.Sprintf("images lack copies after %v", r.o.HealLimit)})
	case node != 0:
		r.o.Event(runlog.Event{Kind: runlog.EventHealed, Node: node})
	}
	return true
}

// until looks until the health is enough, ctx is done, or the limit has passed.
func (r *Runner) until(ctx context.Context, limit time.Duration, enough func(Health) bool) bool {
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

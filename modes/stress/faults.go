package stress

import (
	"context"
	"fmt"
	"sync"
	"time"

	"imgcluster/cluster/client"
	"imgcluster/cluster/wire"
	"imgcluster/config"
	"imgcluster/modes/runlog"
	"imgcluster/modes/stress/chaos"
	"imgcluster/modes/stress/load"
)

const (
	healLimit     = time.Minute     // for the copies of images after a fault; repair runs every 10 s
	healthTimeout = 2 * time.Second // of one status of all nodes
	readBackMax   = 1_000_000       // images, whose names and digests are kept, some 100 bytes each
)

// planFaults returns the faults of the run, none without --chaos.
func (o *Options) planFaults(cfg *config.Config) ([]chaos.Fault, error) {
	switch {
	case !o.Chaos && o.Faults != 0:
		return nil, refusef("add --chaos", "--faults without --chaos")
	case (o.Chaos || o.Verify) && o.Count > readBackMax:
		return nil, refusef("give a smaller --count",
			"every image is read back in the end, which is possible for %d", readBackMax)
	case !o.Chaos:
		return nil, nil
	case !cfg.OneHost():
		const hint = "run it without --chaos and stop nodes by hand on their machines meanwhile: " +
			"the report judges what it sees; or try it on this machine with: imgcluster demo --chaos"
		return nil, refusef(hint,
			"--chaos with nodes that are not all on this machine: their processes cannot be killed from here")
	case o.Duration > 0:
		return nil, refusef("give --count instead of --duration", "--chaos with a duration: faults come at uploads")
	}
	if o.Faults == 0 {
		o.Faults = chaos.Default(o.Count)
	}
	nodes := make([]int, len(cfg.Cluster.Nodes))
	for i, n := range cfg.Cluster.Nodes {
		nodes[i] = int(n.ID)
	}
	return chaos.Schedule(o.Spec.Seed, o.Faults, o.Count, nodes)
}

// chaosRun is what --chaos adds to a run.
type chaosRun struct {
	cfg   *config.Config
	c     *client.Client
	plan  []chaos.Fault
	nodes chaos.Nodes

	say     func(text string)
	changed func() // called after every event

	mu    sync.Mutex
	made  int    // faults so far
	state string // of the node of the last fault; empty when the cluster has recovered
	held  bool   // uploads wait
}

// addTo makes the faults a part of the run.
func (t *chaosRun) addTo(run *load.Options) {
	var recorder load.Recorder
	ready := make(chan struct{}) // closed when recorder is set
	runner := chaos.New(chaos.Options{
		Plan:       t.plan,
		Nodes:      t.nodes,
		Health:     t.health,
		ReadyLimit: t.cfg.Timeouts.Start,
		HealLimit:  healLimit,
		Event: func(e runlog.Event) {
			<-ready
			recorder.Event(e)
			t.event(e)
		},
	})
	run.Begin = runner.Begin
	run.Beside = func(ctx context.Context, l load.Recorder) {
		recorder = l
		close(ready)
		t.say(fmt.Sprintf("Chaos: %s.", chaos.Summary(t.plan)))
		runner.Run(ctx)
	}
}

// health asks every node, since each may know less than the others.
func (t *chaosRun) health(ctx context.Context) chaos.Health {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	h := chaos.Health{Ready: true, Healed: true}
	for _, n := range t.cfg.Cluster.Nodes {
		s, err := t.c.NodeCluster(ctx, n.ID)
		h.Ready = h.Ready && err == nil && s.Ready && allUp(s)
		h.Healed = h.Healed && s.UnderReplicated == 0
		if !h.Ready {
			break
		}
	}
	return h
}

func allUp(s wire.ClusterStatus) bool {
	for _, n := range s.Nodes {
		if n.State != wire.NodeUp || !n.Ready {
			return false
		}
	}
	return true
}

// states are the states of a node after an event.
var states = map[string]string{
	runlog.EventKill:     "killed",
	runlog.EventPause:    "paused",
	runlog.EventStop:     "stopped",
	runlog.EventRestart:  "back",
	runlog.EventResume:   "back",
	runlog.EventHealed:   "",
	runlog.EventUnhealed: "",
	runlog.EventLost:     "lost",
}

// event updates the state that progress shows, and reports failures.
func (t *chaosRun) event(e runlog.Event) {
	switch e.Kind {
	case runlog.EventUnhealed:
		t.say(fmt.Sprintf("The cluster has not recovered from the fault of node %d: %s.", e.Node, e.Detail))
	case runlog.EventLost:
		t.say(fmt.Sprintf("No more faults after that of node %d: %s.", e.Node, e.Detail))
	}
	t.set(e)
	t.changed()
}

func (t *chaosRun) set(e runlog.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch e.Kind {
	case runlog.EventHeld, runlog.EventReleased:
		t.held = e.Kind == runlog.EventHeld
		return
	case runlog.EventKill, runlog.EventPause, runlog.EventStop:
		t.made++
	}
	if t.state = states[e.Kind]; t.state != "" {
		t.state = fmt.Sprintf("node %d %s", e.Node, t.state)
	}
}

// String returns how many faults there were, and the state of the last one's node.
func (t *chaosRun) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.state == "":
		return fmt.Sprintf("%d of %d faults", t.made, len(t.plan))
	case t.held:
		return fmt.Sprintf("fault %d of %d: %s, uploads wait", t.made, len(t.plan), t.state)
	}
	return fmt.Sprintf("fault %d of %d: %s", t.made, len(t.plan), t.state)
}

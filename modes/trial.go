package modes

import (
	"context"
	"fmt"
	"sync"
	"time"

	"imgcluster/cluster/client"
	"imgcluster/cluster/image"
	"imgcluster/config"
	"imgcluster/modes/chaos"
	"imgcluster/modes/load"
	"imgcluster/modes/result"
)

const (
	healLimit       = time.Minute     // for the copies of images after a fault; repair looks every 10 s
	healthTimeout   = 2 * time.Second // of one look at a node
	chaosUploadsMax = 1_000_000       // their names and digests are kept, some 100 bytes each
)

// plan returns the faults of the run, none without --chaos.
func (o *stressOptions) plan(cfg *config.Config, same string) ([]chaos.Fault, error) {
	switch {
	case !o.chaos && o.faults != 0:
		return nil, usagef("add --chaos", "--faults without --chaos")
	case !o.chaos:
		return nil, nil
	case !cfg.Loopback():
		return nil, usagef("stop nodes by hand on their machines while imgcluster stress"+same+" runs without --chaos, its report judges the faults that it sees; or try it on this machine with: imgcluster demo --chaos",
			"--chaos with nodes that are not all on this machine: their processes cannot be killed from here")
	case o.count > chaosUploadsMax:
		return nil, usagef("give a smaller --count", "--chaos reads every image back, which it can for %d", chaosUploadsMax)
	}
	if o.faults == 0 {
		o.faults = chaos.Default(o.count)
	}
	nodes := make([]int, len(cfg.Cluster.Nodes))
	for i, n := range cfg.Cluster.Nodes {
		nodes[i] = int(n.ID)
	}
	return chaos.Schedule(o.spec.Seed, o.faults, o.count, nodes)
}

// trial is what --chaos adds to a run.
type trial struct {
	cfg   *config.Config
	c     *client.Client
	p     *progress
	plan  []chaos.Fault
	nodes chaos.Nodes
	back  *readBack

	mu    sync.Mutex
	made  int
	state string // of the node of the last fault; empty when it is over that
}

func newTrial(cfg *config.Config, c *client.Client, p *progress, o stressOptions, plan []chaos.Fault) *trial {
	return &trial{cfg: cfg, c: c, p: p, plan: plan, nodes: o.nodes, back: &readBack{target: target{c}, c: c, user: o.user, p: p}}
}

// join makes the trial a part of the run.
func (t *trial) join(run *load.Options) {
	var (
		runner *chaos.Runner
		to     load.Recorder
		ready  = make(chan struct{})
	)
	runner = chaos.New(chaos.Options{
		Plan: t.plan, Nodes: t.nodes, Health: t.health, ReadyLimit: t.cfg.Timeouts.Start, HealLimit: healLimit,
		Event: func(e result.Event) { t.event(e); <-ready; to.Event(e) },
	})
	run.Target = t.back
	run.Begin = runner.Begin
	run.Beside = func(ctx context.Context, l load.Recorder) {
		to = l
		close(ready)
		t.p.note(fmt.Sprintf("Chaos: %s.", chaos.Summary(t.plan)))
		runner.Run(ctx)
	}
	run.After = func(ctx context.Context, l load.Recorder) { t.back.run(ctx, l) }
}

// health asks every node, each of which may know less than the others.
func (t *trial) health(ctx context.Context) chaos.Health {
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

func allUp(s image.ClusterStatus) bool {
	for _, n := range s.Nodes {
		if n.State != image.NodeUp || !n.Ready {
			return false
		}
	}
	return true
}

// event keeps what the line of progress says.
func (t *trial) event(e result.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch e.Kind {
	case result.EventKill, result.EventPause, result.EventStop:
		t.made++
		t.state = fmt.Sprintf("node %d %s", e.Node, map[string]string{
			result.EventKill: "killed", result.EventPause: "paused", result.EventStop: "stopped",
		}[e.Kind])
	case result.EventRestart, result.EventResume:
		t.state = fmt.Sprintf("node %d back", e.Node)
	case result.EventHealed:
		t.state = ""
	case result.EventUnhealed:
		t.p.note(fmt.Sprintf("After the fault of node %d: %s.", e.Node, e.Detail))
	case result.EventLost:
		t.p.note(fmt.Sprintf("No more faults: node %d: %s.", e.Node, e.Detail))
	}
}

// suffix is the end of the line of progress; empty without a trial.
func (t *trial) suffix() string {
	if t == nil {
		return ""
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s := fmt.Sprintf(", fault %d of %d", t.made, len(t.plan))
	if t.state != "" {
		s += ": " + t.state
	}
	return s
}

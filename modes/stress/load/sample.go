package load

import (
	"context"
	"maps"
	"math"
	"slices"
	"time"

	"imgcluster/cluster/hostinfo"
	"imgcluster/cluster/sample"
	"imgcluster/cluster/wait"
	"imgcluster/modes/runlog"
)

// startSampler looks at the nodes and at this process at once, then every second, and once more
// when the uploads have ended. The channel it returns is closed after that.
func (r *run) startSampler(ended <-chan struct{}) <-chan struct{} {
	sampled := make(chan struct{})
	go r.guarded(func() {
		defer close(sampled)
		tick := time.NewTicker(sampleInterval)
		defer tick.Stop()
		up := map[int]bool{} // by node, as last seen
		for {
			r.sample(ended, up)
			select {
			case <-tick.C:
			case <-ended:
				r.sample(ended, up)
				return
			}
		}
	})()
	return sampled
}

// sample writes what it sees, and hands the log to the system. Nodes that cannot be asked are down: if it
// is this process that is too busy to ask, its uploads wait just as long.
func (r *run) sample(ended <-chan struct{}, up map[int]bool) {
	defer r.o.Log.Flush() // so that little is lost with this process; a failure comes back at the next write
	rss, cpu := hostinfo.Process()
	now := r.now()
	r.write(runlog.ClientSample{
		TS: now,
		Client: sample.Client{
			RSSBytes:  rss,
			CPUS:      cpu.Seconds(),
			InFlight:  int(r.flying.Load()),
			LateS:     micros(r.schedule.late(now)),
			SourceS:   micros(time.Duration(r.source.Load()).Seconds()),
			SentBytes: r.sent.Load(),
			ReadBytes: r.read.Load(),
		},
	})
	ctx, cancel := context.WithTimeout(r.hard, sampleTimeout)
	defer cancel()
	nodes, err := r.o.Target.Status(ctx)
	if err != nil {
		if r.hard.Err() != nil || wait.Closed(ended) {
			return // after the run nobody has to answer
		}
		nodes = r.silent(up)
	}
	now = r.now()
	for _, n := range nodes {
		n.TS = now
		if !n.Up {
			n = runlog.NodeSample{TS: now, ID: n.ID}
		}
		if was, seen := up[n.ID]; seen && was != n.Up {
			kind := runlog.EventNodeDown
			if n.Up {
				kind = runlog.EventNodeUp
			}
			r.write(runlog.Event{TS: now, Kind: kind, Node: n.ID})
		}
		up[n.ID] = n.Up
		r.write(n)
	}
}

// silent returns the nodes when none of them answers. One that was not seen yet was up before the run.
func (r *run) silent(up map[int]bool) []runlog.NodeSample {
	for _, id := range r.o.Run.Nodes {
		if _, seen := up[id]; !seen {
			up[id] = true
		}
	}
	var nodes []runlog.NodeSample
	for _, id := range slices.Sorted(maps.Keys(up)) {
		nodes = append(nodes, runlog.NodeSample{ID: id})
	}
	return nodes
}

// micros keeps a line short.
func micros(s float64) float64 { return math.Round(s*1e6) / 1e6 }

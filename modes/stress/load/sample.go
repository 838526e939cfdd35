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

// startSampler samples the nodes and this process at once, then every second, and once more when the
// uploads have ended. The channel that it returns is closed after that.
func (r *run) startSampler(ended <-chan struct{}) <-chan struct{} {
	sampled := make(chan struct{})
	go r.guarded(func() {
		defer close(sampled)
		tick := time.NewTicker(sampleInterval)
		defer tick.Stop()
		up := map[int]bool{} // by node, in the last sample
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

// sample records the figures and flushes the log. Nodes that do not answer count as down: should this
// process be too busy to ask, its uploads wait as long.
func (r *run) sample(ended <-chan struct{}, up map[int]bool) {
	defer r.o.Log.Flush() // so that little is lost with this process; the next write returns a failure
	rss, cpu := hostinfo.Process()
	now := r.now()
	r.write(runlog.ClientSample{
		TS: now,
		Client: sample.Client{
			RSSBytes:  rss,
			CPUS:      cpu.Seconds(),
			InFlight:  int(r.inFlight.Load()),
			LateS:     micros(r.schedule.late(now)),
			SourceS:   micros(time.Duration(r.source.Load()).Seconds()),
			SentBytes: r.sent.Load(),
			ReadBytes: r.read.Load(),
		},
	})
	ctx, cancel := context.WithTimeout(r.uploads, sampleTimeout)
	defer cancel()
	nodes, err := r.o.Target.Status(ctx)
	if err != nil {
		if r.uploads.Err() != nil || wait.Closed(ended) {
			return // after the run no node has to answer
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

// silent returns the samples of all nodes when none of them answers. A node without a sample yet was up
// before the run.
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

// micros rounds seconds to microseconds, so that records are short.
func micros(s float64) float64 { return math.Round(s*1e6) / 1e6 }

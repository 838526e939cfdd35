package load

import (
	"context"
	"math"
	"time"

	"imgcluster/cluster/machine"
	"imgcluster/modes/result"
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
			r.sample(up)
			select {
			case <-tick.C:
			case <-ended:
				r.sample(up)
				return
			}
		}
	})()
	return sampled
}

// sample writes what it sees, and hands the log to the system. When no node can be asked it writes nothing of the nodes: that says
// as much about this process as about them.
func (r *run) sample(up map[int]bool) {
	defer r.o.Log.Flush() // so that little is lost with this process; a failure comes back at the next write
	rss, cpu := machine.Process()
	now := r.now()
	r.write(result.ClientSample{
		TS: now, RSSBytes: rss, CPUS: cpu.Seconds(), InFlight: int(r.flying.Load()), LateS: micros(r.schedule.late(now)),
		SourceS: micros(time.Duration(r.source.Load()).Seconds()), SentBytes: r.sent.Load(), ReadBytes: r.read.Load(),
	})
	ctx, cancel := context.WithTimeout(r.hard, sampleTimeout)
	defer cancel()
	nodes, err := r.o.Target.Status(ctx)
	if err != nil {
		return
	}
	now = r.now()
	for _, n := range nodes {
		n.TS = now
		if !n.Up {
			n = result.NodeSample{TS: now, ID: n.ID}
		}
		if was, seen := up[n.ID]; seen && was != n.Up {
			kind := result.EventNodeDown
			if n.Up {
				kind = result.EventNodeUp
			}
			r.write(result.Event{TS: now, Kind: kind, Node: n.ID})
		}
		up[n.ID] = n.Up
		r.write(n)
	}
}

// micros keeps a line short.
func micros(s float64) float64 { return math.Round(s*1e6) / 1e6 }

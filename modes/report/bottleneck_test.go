package report

import (
	"math"
	"slices"
	"strings"
	"testing"

	"imgcluster/modes/runlog"
	"imgcluster/modes/runlog/logtest"
)

func nodes(f func(*runlog.NodeSample)) func() []runlog.Record {
	return func() []runlog.Record { return logtest.OnHosts(200, f, nil) }
}

func client(f func(*runlog.ClientSample)) func() []runlog.Record {
	return func() []runlog.Record { return logtest.OnHosts(200, nil, f) }
}

// late is a run of an open loop that falls 4 s behind its schedule.
func late(f func(*runlog.NodeSample)) func() []runlog.Record {
	return func() []runlog.Record {
		recs := logtest.OnHosts(200, f, func(s *runlog.ClientSample) { s.LateS = 4 })
		return logtest.SetRun(recs, func(r *runlog.Run) { r.Rate = 50 })
	}
}

// longer makes a run take so many times as long.
func longer(records func() []runlog.Record, times float64) func() []runlog.Record {
	return func() []runlog.Record {
		recs := logtest.Mutate(records(), func(u *runlog.Upload) { u.StartS *= times })
		for i, rec := range recs {
			switch rec := rec.(type) {
			case runlog.NodeSample:
				rec.TS *= times
				rec.DiskBusyS *= times
				recs[i] = rec
			case runlog.ClientSample:
				rec.TS *= times
				recs[i] = rec
			case runlog.End:
				recs[i] = runlog.End{ElapsedS: rec.ElapsedS * times}
			}
		}
		return recs
	}
}

// bottleneckCases has a run for every kind of limit.
var bottleneckCases = []struct {
	name    string
	records func() []runlog.Record
	kind    string
	node    int
	slow    bool
	used    float64 // percent, of the busiest resource
}{
	{"full disk queue", nodes(func(s *runlog.NodeSample) {
		if s.ID == 2 {
			s.DiskBusyS = 0.97
		}
	}), limitDisk, 2, false, 97},
	{"full link of a node", nodes(func(s *runlog.NodeSample) {
		if s.ID == 3 {
			s.NetRxBytes = 12_000e6
		}
	}), limitLink, 3, false, 96},
	{"full CPUs", nodes(func(s *runlog.NodeSample) {
		if s.ID == 1 {
			s.CPUS = 3.9
		}
	}), limitCPU, 1, false, 97.5},
	{"client's CPUs", client(func(s *runlog.ClientSample) { s.CPUS = 3.8 }), limitClientCPU, 0, false, 95},
	{
		"client's link", client(func(s *runlog.ClientSample) { s.SentBytes = 12_400e6 }), limitLink, 0, false, 99.2,
	},
	{"images made slowly", client(func(s *runlog.ClientSample) { s.SourceS = 6 }), limitSource, 0, false, 75},
	{"nothing busy", nodes(nil), limitWaiting, 0, true, 30},
	{"nothing known", even(200), limitUnknown, 0, false, 0},
	{"slow, nothing known", longer(even(200), 150), limitUnknown, 0, true, 0},
	{
		"slow by a disk", longer(nodes(func(s *runlog.NodeSample) { s.DiskBusyS = 0.95 }), 150),
		limitDisk, 1, true, 95,
	},
	{"as asked for", func() []runlog.Record {
		return logtest.SetRun(logtest.OnHosts(200, nil, nil), func(r *runlog.Run) { r.Rate = 23 })
	}, limitRate, 0, false, 30},
	{"late", late(nil), limitGenerator, 0, true, 30},
	{
		"late, for a disk", late(func(s *runlog.NodeSample) { s.DiskBusyS = 0.9 }),
		limitDisk, 1, false, 90,
	},
	{"one slow node", func() []runlog.Record {
		return logtest.Mutate(logtest.OnHosts(200, nil, nil), func(u *runlog.Upload) {
			if u.Owner == 3 {
				u.LatencyS *= 4
			}
		})
	}, limitSlowNode, 3, true, 30},
	{"tried again", func() []runlog.Record {
		return logtest.Mutate(logtest.OnHosts(200, nil, nil), func(u *runlog.Upload) {
			u.Attempts, u.SentBytes = 2, u.SentBytes*3/2
		})
	}, limitRetries, 0, true, 30},
	{
		"waiting for the cluster", with(nodes(nil), held(2, 6)...),
		limitFaults, 0, false, 30,
	},
	{"gone", nodes(func(s *runlog.NodeSample) {
		if s.ID == 2 {
			*s = runlog.NodeSample{ID: 2}
		}
	}), limitDown, 2, true, 30},
	{"one machine, with the cores of all its processes", func() []runlog.Record {
		return logtest.SetRun(logtest.OnHosts(200, nil, nil), func(r *runlog.Run) {
			r.Hosts.Client.Name = "one"
			r.Hosts.Client.CPUs = 2
			for i := range r.Hosts.Nodes {
				r.Hosts.Nodes[i].Name = "one"
				r.Hosts.Nodes[i].CPUs = 2
			}
		})
	}, limitCPU, 1, false, 85},
}

func TestBottleneck(t *testing.T) {
	for _, c := range bottleneckCases {
		t.Run(c.name, func(t *testing.T) {
			b := compute(t, c.records()...).Bottleneck
			if b == nil {
				t.Fatal("no bottleneck")
			}
			if b.Kind != c.kind || b.Node != c.node || b.Slow != c.slow || b.Try == "" || b.What == "" {
				t.Errorf("%+v; want %s of node %d, slow: %v", b, c.kind, c.node, c.slow)
			}
			used := 0.0
			if len(b.Resources) > 0 {
				used = b.Resources[0].UsedPercent
			}
			if math.Abs(used-c.used) > 0.05 {
				t.Errorf("the busiest is used to %v %%, want %v", used, c.used)
			}
		})
	}
	if b := compute(t, logtest.EvenRun(3)).Bottleneck; b != nil {
		t.Errorf("%+v of a run without uploads", b)
	}
}

func TestClientWarning(t *testing.T) {
	for name, c := range map[string]struct {
		records func() []runlog.Record
		says    string
	}{
		"idle":   {nodes(nil), ""},
		"source": {client(func(s *runlog.ClientSample) { s.SourceS = 6 }), "making images"},
		"cpu":    {client(func(s *runlog.ClientSample) { s.CPUS = 3.8 }), "95.0 % of its machine's CPUs"},
		"memory": {
			with(late(nil), runlog.Event{TS: 8, Kind: runlog.EventMemory, Detail: "uploads waited 9.0 s in all"}),
			"4.000 s behind the schedule: uploads waited 9.0 s in all",
		},
	} {
		r := compute(t, c.records()...)
		if got := r.Client.Limited; c.says == "" && got != "" || !strings.Contains(got, c.says) {
			t.Errorf("%s: %q", name, got)
		}
		if warned := strings.Contains(strings.Join(r.Notes, "\n"), "WARNING"); warned != (c.says != "") {
			t.Errorf("%s: notes %q", name, r.Notes)
		}
	}
}

// Without a run record nobody knows how many workers there were.
func TestNoWorkersKnown(t *testing.T) {
	recs := slices.DeleteFunc(logtest.OnHosts(200, nil, func(s *runlog.ClientSample) {
		s.SourceS = 3
	}), logtest.Is[runlog.Run])
	r := compute(t, recs...)
	if r.Client == nil || r.Client.SourcePercent != 0 || r.Client.Limited != "" ||
		r.Bottleneck.Kind == limitSource || strings.Contains(strings.Join(r.Notes, " "), "WARNING") {
		t.Errorf("client %+v, notes %q", r.Client, r.Notes)
	}
}

package report

import (
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

func TestBottleneck(t *testing.T) {
	for _, c := range []struct {
		name    string
		records func() []runlog.Record
		kind    string
		node    int
		slow    bool
		says    string
	}{
		{"full disk queue", nodes(func(s *runlog.NodeSample) {
			if s.ID == 2 {
				s.DiskBusyS = 0.97
			}
		}), limitDisk, 2, false, "busy for 97.0 % of the time, 220 MB/s written"},
		{"full link of a node", nodes(func(s *runlog.NodeSample) {
			if s.ID == 3 {
				s.NetRxBytes = 12_000e6
			}
		}), limitLink, 3, false, "12.0 GB/s in"},
		{"full CPUs", nodes(func(s *runlog.NodeSample) {
			if s.ID == 1 {
				s.CPUS = 3.9
			}
		}), limitCPU, 1, false, "3.90 of 4 cores used"},
		{
			"client's CPUs", client(func(s *runlog.ClientSample) { s.CPUS = 3.8 }), limitClientCPU, 0, false,
			"3.80 of 4 cores used",
		},
		{
			"client's link", client(func(s *runlog.ClientSample) { s.SentBytes = 12_400e6 }), limitLink, 0, false,
			"12.4 GB/s out of 12.5 GB/s",
		},
		{
			"images made slowly", client(func(s *runlog.ClientSample) { s.SourceS = 6 }), limitSource, 0, false,
			"its workers spent 75.0 % of their time",
		},
		{
			"nothing busy", nodes(nil), limitWaiting, 0, true,
			"the busiest in the samples is the disk of node 1",
		},
		{"nothing known", even(200), limitUnknown, 0, false, "no figures"},
		{"slow, nothing known", longer(even(200), 150), limitUnknown, 0, true, "no figures"},
		{
			"slow by a disk", longer(nodes(func(s *runlog.NodeSample) { s.DiskBusyS = 0.95 }), 150),
			limitDisk, 1, true, "busy for 95.0 %",
		},
		{"as asked for", func() []runlog.Record {
			return logtest.SetRun(logtest.OnHosts(200, nil, nil), func(r *runlog.Run) { r.Rate = 23 })
		}, limitRate, 0, false, "23.0 uploads/s were asked for"},
		{"late", late(nil), limitGenerator, 0, true, "it fell 4.000 s behind the schedule"},
		{
			"late, for a disk", late(func(s *runlog.NodeSample) { s.DiskBusyS = 0.9 }),
			limitDisk, 1, false, "90.0 %",
		},
		{"one slow node", func() []runlog.Record {
			return logtest.Mutate(logtest.OnHosts(200, nil, nil), func(u *runlog.Upload) {
				if u.Owner == 3 {
					u.LatencyS *= 4
				}
			})
		}, limitSlowNode, 3, true, "take 104 ms for a megabyte (median), those of the others 25.3 ms"},
		{"tried again", func() []runlog.Record {
			return logtest.Mutate(logtest.OnHosts(200, nil, nil), func(u *runlog.Upload) {
				u.Attempts, u.SentBytes = 2, u.SentBytes*3/2
			})
		}, limitRetries, 0, true, "100 % of the uploads were tried again, 50.0 %"},
		{
			"waiting for the cluster", with(nodes(nil), held(2, 6)...),
			limitFaults, 0, false, "uploads waited 4.000 s, 47.1 % of the time",
		},
		{"gone", nodes(func(s *runlog.NodeSample) {
			if s.ID == 2 {
				*s = runlog.NodeSample{ID: 2}
			}
		}), limitDown, 2, true, "it was down for"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := compute(t, c.records()...).Bottleneck
			if b == nil {
				t.Fatal("no bottleneck")
			}
			if b.Kind != c.kind || b.Node != c.node || b.Slow != c.slow || !strings.Contains(b.Evidence, c.says) ||
				b.Try == "" || b.What == "" {
				t.Errorf("%+v; want %s of node %d, slow: %v, %q", b, c.kind, c.node, c.slow, c.says)
			}
		})
	}
	if b := compute(t, logtest.EvenRun(3)).Bottleneck; b != nil {
		t.Errorf("%+v of a run without uploads", b)
	}
}

// TestOneMachine adds up the cores of all processes that share a host.
func TestOneMachine(t *testing.T) {
	recs := logtest.SetRun(logtest.OnHosts(200, nil, nil), func(r *runlog.Run) {
		r.Hosts.Client.Name, r.Hosts.Client.CPUs = "one", 2
		for i := range r.Hosts.Nodes {
			r.Hosts.Nodes[i].Name, r.Hosts.Nodes[i].CPUs = "one", 2
		}
	})
	b := compute(t, recs...).Bottleneck
	if b.Kind != limitCPU || b.Evidence != "1.70 of 2 cores used by the 4 processes of the run on its machine" {
		t.Errorf("%+v", b)
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

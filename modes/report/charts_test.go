package report

import (
	"math"
	"testing"

	"imgcluster/cluster/sample"
	"imgcluster/modes/runlog"
	"imgcluster/modes/runlog/logtest"
)

// A disk that is busy for 0.8 s of each second, written to with 100 MB/s. Samples come just after one
// another, are stamped when they come late.
func TestRatesOfCloseSamples(t *testing.T) {
	for name, times := range map[string][]struct{ taken, stamped float64 }{
		"at the end":   {{0, 0}, {1, 1}, {2, 2}, {3, 3}, {3.004, 3.004}},
		"at the start": {{0, 0}, {0.003, 0.003}, {1, 1}, {2, 2}},
		"late":         {{0, 0}, {1, 1}, {2, 2.99}, {3, 3}, {4, 4}},
		"at once":      {{0, 0}, {1, 1}, {2, 2}, {2, 2}, {3, 3}},
	} {
		recs := []runlog.Record{logtest.EvenRun(0)}
		for _, at := range times {
			recs = append(recs, runlog.NodeSample{
				TS: at.stamped, ID: 1, Up: true,
				Node: sample.Node{
					RSSBytes:         1,
					CPUS:             2 * at.taken,
					DiskBusyS:        0.8 * at.taken,
					DiskWrittenBytes: int64(1e8 * at.taken),
				},
			}, runlog.ClientSample{
				TS:     at.stamped,
				Client: sample.Client{RSSBytes: 1, CPUS: 2 * at.taken, SentBytes: int64(1e8 * at.taken)},
			})
		}
		lines := log{logtest.Log(t, recs...)}.processLines()
		client := lines[len(lines)-1]
		for _, c := range []struct {
			name string
			line []Point
			want float64
		}{
			{"busy", lines[0].Of["disk_busy_s"], 80},
			{"cores", lines[0].Of["cpu_s"], 2},
			{"written", lines[0].Of["disk_written_bytes"], 1e8},
			{"client's cores", client.Of["cpu_s"], 2},
			{"client's out", client.Of["net_tx_bytes"], 1e8},
		} {
			if len(c.line) < 2 {
				t.Errorf("%s: %s has %d points", name, c.name, len(c.line))
			}
			for _, p := range c.line {
				if name != "late" && math.Abs(p.V-c.want) > 1e-6*c.want || p.V > 1.5*c.want {
					t.Errorf("%s: %s of %v at %v s, want about %v", name, c.name, p.V, p.T, c.want)
				}
			}
		}
		if last := lines[0].Of["disk_busy_s"]; last[len(last)-1].T != times[len(times)-1].stamped {
			t.Errorf("%s: the last rate is of %v s", name, last[len(last)-1].T)
		}
	}
}

// A clock that is off makes no disk busier than always.
func TestBusyAtMost(t *testing.T) {
	recs := []runlog.Record{
		logtest.EvenRun(0),
		runlog.NodeSample{ID: 1, Up: true, Node: sample.Node{RSSBytes: 1}},
		runlog.NodeSample{TS: 1, ID: 1, Up: true, Node: sample.Node{RSSBytes: 1, DiskBusyS: 3}},
		runlog.NodeSample{TS: 2, ID: 1},
		runlog.NodeSample{TS: 3, ID: 1, Up: true, Node: sample.Node{RSSBytes: 1, DiskBusyS: 5}},
		runlog.NodeSample{TS: 3.01, ID: 1, Up: true, Node: sample.Node{RSSBytes: 1, DiskBusyS: 6}},
	}
	line := log{logtest.Log(t, recs...)}.processLines()[0].Of["disk_busy_s"]
	if len(line) != 2 || line[0].V != 100 || !math.IsNaN(line[1].V) {
		t.Errorf("busy %v, want 100 and a gap", line)
	}
}

// A run that is over at once tells no rates.
func TestRatesOfNoTime(t *testing.T) {
	recs := logtest.Even(12)
	for _, at := range []float64{0, 0.004} {
		node := sample.Node{RSSBytes: 1, DiskBusyS: 25 * at, NetRxBytes: int64(1e12 * at)}
		recs = append(recs,
			runlog.NodeSample{TS: at, ID: 1, Up: true, Node: node},
			runlog.ClientSample{TS: at, Client: sample.Client{CPUS: 40 * at}})
	}
	r := compute(t, recs...)
	if n := r.Nodes[0]; n.Of["disk_busy_s"] != 0 || n.Of["net_rx_bytes"] != 0 || r.Client.Of["cpu_s"] != 0 {
		t.Errorf("used %+v, client %+v", n.Usage, r.Client.Usage)
	}
}

package modes

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"imgcluster/cluster/client"
	"imgcluster/cluster/sample"
	"imgcluster/modes/local"
	"imgcluster/modes/runlog"
	"imgcluster/modes/stress"
	"imgcluster/modes/stress/load"
	"imgcluster/modes/term"
)

// blind is a target without figures of the nodes.
type blind struct{ *stress.Target }

func (blind) Status(context.Context) ([]runlog.NodeSample, error) { return nil, errDown }

// BenchmarkRecording makes runs with and without records and samples, in turn, and measures the CPU time
// of the client and all nodes that one record and one sample cost. Run it with -benchtime 1x.
func BenchmarkRecording(b *testing.B) {
	const samples, records = 500, 200_000
	exe, images := buildProgram(b), makeImages()
	e, cfg := demoConfigured(b, b.TempDir(), "log.level=warn")
	l, err := local.Start(b.Context(), e.localOptions(cfg, exe))
	if err != nil {
		b.Fatal(err)
	}
	defer l.Shutdown(b.Context())
	pids := []int{os.Getpid()}
	for _, n := range l.Nodes() {
		pids = append(pids, n.PID())
	}
	c, err := e.client(cfg, client.Broadcast)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	status, err := c.Cluster(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	to := stress.NewTarget(c, status)
	log := func() *runlog.Writer {
		f, err := os.Create(filepath.Join(b.TempDir(), "log.jsonl"))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { f.Close() })
		return runlog.NewWriter(f)
	}
	one := func(recorded bool) (rate, cpu float64) {
		o := load.Options{
			Run:    runlog.Run{Nodes: []int{1, 2, 3}, Count: benchUploads, Concurrency: benchConcurrency},
			Source: images, Target: blind{to}, Log: runlog.NewWriter(io.Discard), Users: []string{"bench"},
		}
		if recorded {
			o.Target = to
			o.Log = log()
			o.Observe = stress.NewTally(o).Take
		}
		before, began := cpuMillis(b, pids), time.Now()
		if err := load.Run(b.Context(), o); err != nil {
			b.Fatal(err)
		}
		return benchUploads / time.Since(began).Seconds(), (cpuMillis(b, pids) - before) / benchUploads
	}
	for b.Loop() {
		var with, without series
		for round := range 2 * benchRounds {
			rate, cpu := one(round%2 == 0)
			if round%2 == 0 {
				with.add(outcome{rate, cpu, 0})
			} else {
				without.add(outcome{rate, cpu, 0})
			}
		}
		before := cpuMillis(b, pids)
		for range samples {
			if _, err := to.Status(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
		sample := (cpuMillis(b, pids) - before) / samples
		o := load.Options{Run: runlog.Run{Nodes: []int{1, 2, 3}, Count: records}}
		w, take, first := log(), stress.NewTally(o).Take, true
		before = cpuMillis(b, pids)
		for i := range int64(records) {
			rec := runlog.Upload{
				Seq:         i + 1,
				Name:        "stress_image_1000.png",
				Class:       "medium",
				Bytes:       13e6,
				StartS:      float64(i) / 1000,
				LatencyS:    0.3,
				OK:          true,
				Owner:       2,
				Replicas:    []int{2, 3},
				Attempts:    1,
				SentBytes:   39e6,
				FirstChoice: &first,
			}
			if err := w.Write(rec); err != nil {
				b.Fatal(err)
			}
			take(rec)
		}
		record := (cpuMillis(b, pids) - before) / records
		rate, cpu := median(with.rate), median(with.client)
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(1000*record, "µs/record")
		b.ReportMetric(1000*sample, "µs/sample")
		b.ReportMetric(100*(record*rate+sample)/(cpu*rate), "%-of-CPU") // with a sample each second
		b.ReportMetric(with.ratio(without), "rate-with/without")
		b.Logf("uploads/s with %.1f, without %.1f; CPU ms an upload with %.1f, without %.1f",
			with.rate, without.rate, with.client, without.client)
	}
}

// BenchmarkScreen draws the screen of a busy run of an hour, which changes each time.
func BenchmarkScreen(b *testing.B) {
	tty, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer tty.Close()
	f := busy(3)
	for i := range 3600 {
		f.Take(runlog.Upload{
			Seq:      int64(i),
			StartS:   float64(i),
			LatencyS: 0.5,
			OK:       true,
			Owner:    1 + i%3,
			Attempts: 1,
			Bytes:    int64(i),
		})
	}
	v := &view{tally: f, color: true}
	s := term.OpenScreen(tty, v.lines)
	defer s.Close()
	now := f.Figures().Now
	for b.Loop() {
		now += 0.01
		f.Take(runlog.ClientSample{TS: now, Client: sample.Client{InFlight: int(now * 100)}})
		s.Redraw()
	}
	b.ReportMetric(float64(b.Elapsed())/float64(b.N)/float64(term.DrawEvery)*100, "%-of-a-core")
}

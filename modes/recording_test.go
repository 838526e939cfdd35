package modes

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"imgcluster/cluster/client"
	"imgcluster/cluster/sample"
	"imgcluster/genimg"
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
	to := stress.NewTarget(c, status, false)
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
		var with, without, cpuWith, cpuWithout, ratios []float64
		for round := range 2 * benchRounds {
			rate, cpu := one(round%2 == 0)
			if round%2 == 0 {
				with, cpuWith = append(with, rate), append(cpuWith, cpu)
			} else {
				without, cpuWithout = append(without, rate), append(cpuWithout, cpu)
				ratios = append(ratios, with[round/2]/rate)
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
		rate, cpu := median(with), median(cpuWith)
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(1000*record, "µs/record")
		b.ReportMetric(1000*sample, "µs/sample")
		b.ReportMetric(100*(record*rate+sample)/(cpu*rate), "%-of-CPU") // with a sample each second
		b.ReportMetric(median(ratios), "rate-with/without")
		b.Logf("uploads/s with %.1f, without %.1f; CPU ms an upload with %.1f, without %.1f",
			with, without, cpuWith, cpuWithout)
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

const (
	benchUploads     = 240
	benchConcurrency = 8
	benchImages      = 16 // different ones, generated before the clock starts
	benchRounds      = 5
)

// madeImages is a Source of images in memory.
type madeImages []load.Image

func (m madeImages) Open(_ context.Context, n int64, _ *load.Memory) (load.Image, error) {
	im := m[n%int64(len(m))]
	im.Name = fmt.Sprintf("bench-%d.png", n)
	return im, nil
}

func makeImages() (m madeImages) {
	spec := genimg.Default(1)
	for n := 1; n <= benchImages; n++ {
		im := spec.Image(n)
		b := im.AppendTo(make([]byte, 0, im.Size))
		m = append(m, load.Image{
			Name:  im.Name,
			Class: im.Class,
			Size:  im.Size,
			Body:  func() io.Reader { return bytes.NewReader(b) },
		})
	}
	return m
}

// cpuMillis returns the CPU time of processes so far, which the kernel counts in hundredths of a second.
func cpuMillis(b *testing.B, pids []int) (ms float64) {
	for _, pid := range pids {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			b.Fatal(err)
		}
		var user, system float64
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+2:])
		fmt.Sscan(string(fields[11]), &user)
		fmt.Sscan(string(fields[12]), &system)
		ms += 10 * (user + system)
	}
	return ms
}

func median(x []float64) float64 {
	s := slices.Sorted(slices.Values(x))
	return s[len(s)/2]
}

func buildProgram(b *testing.B) string {
	exe := filepath.Join(b.TempDir(), "imgcluster")
	if out, err := exec.Command("go", "build", "-o", exe, "imgcluster").CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	return exe
}

package result

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

// Remake the golden files with: go test ./modes/result -run TestGolden -update
var update = flag.Bool("update", false, "write the golden files")

// goldenRuns are the runs whose reports are kept as text and JSON.
var goldenRuns = map[string]func() []Record{
	"extreme":     func() []Record { return evenRecords(1500) },
	"failing":     failingRecords,
	"tiny":        func() []Record { return evenRecords(3) },
	"events":      eventRecords,
	"empty":       func() []Record { return []Record{evenRun(0), End{}} },
	"single-node": singleRecords,
	"idle-node":   idleRecords,
	"chaos":       chaosRecords,
	"mixed":       mixedRecords,
}

// mixedRecords is an open loop with reads, a warm-up, known machines and settings, in which the disk of node 2 is
// what limits, that was interrupted and resumed.
func mixedRecords() []Record {
	recs := machineRecords(400, func(s *NodeSample) {
		s.StagingBytes = 20 << 20
		if s.ID == 2 {
			s.DiskBusyS = 0.98
		}
	}, func(s *ClientSample) { s.LateS = 0.2 })
	recs = mutate(recs, func(u *Upload) {
		u.Warmup = u.StartS < 2
		u.ScheduledS = new(u.StartS - float64(u.Seq%20)/100)
		u.FirstNode = u.Owner
		if u.Seq%7 == 0 {
			u.FirstNode = u.Owner%3 + 1
		}
	})
	for i := range 100 {
		r := ReadOp{Name: fmt.Sprintf("stress_image_%d.png", i+1), Bytes: 9e6, StartS: 0.16 * float64(i), LatencyS: 0.05 + float64(i%7)/100, OK: i != 50}
		if r.Warmup, r.ScheduledS = r.StartS < 2, new(r.StartS); !r.OK {
			r.Error = "not found"
		}
		recs = beforeEnd(recs, r)
	}
	recs = beforeEnd(recs, Event{TS: 8, Kind: EventResumed}, Readback{Images: 400, Matched: 400, Bytes: 5e9, ElapsedS: 12})
	return setRun(recs, func(r *Run) {
		r.Rate, r.Arrivals, r.WarmupS, r.ReadPercent, r.Users, r.Version = 30, ArrivalsPoisson, 2, 20, 3, "v1.2.3"
		r.Settings = map[string]string{"cluster.data_shards": "12", "limits.staging_bytes": "256MiB"}
	})
}

// failingRecords is a run with lost uploads, uneven owners, much sent twice and a leaking node.
func failingRecords() []Record {
	recs := mutate(evenRecords(200), func(u *Upload) {
		if u.Seq%5 == 0 {
			u.Owner = 1
		}
		if u.Seq%10 == 0 {
			u.Attempts, u.SentBytes = 2, 2*u.SentBytes
		}
		if u.Seq%50 == 7 {
			u.OK, u.Owner, u.Replicas, u.Attempts = false, 0, nil, 3
			u.Error = "no quorum: nobody answered for shard 7 within 30 s, tried nodes 1, 2 and 3\x1b[2J in turn"
		}
		if u.Seq == 199 {
			u.OK, u.Owner, u.Replicas, u.Error = false, 0, nil, "disk full"
		}
	})
	for i := range 12 {
		recs = append(recs, memorySamples(float64(i), int64(150+40*i)<<20)...)
	}
	return recs
}

// eventRecords is a run in which node 2 is killed; for 1.4 s nothing ends.
func eventRecords() []Record {
	recs := mutate(evenRecords(300), func(u *Upload) {
		u.FirstChoice = new(u.Seq%5 != 0)
		if u.StartS > 6 {
			u.StartS += 1.4
		}
	})
	recs = append(recs, Event{TS: 6, Kind: EventKill, Node: 2}, Event{TS: 6.4, Kind: EventNodeDown, Node: 2},
		Event{TS: 9, Kind: EventRestart, Node: 2}, Event{TS: 9.2, Kind: EventNodeUp, Node: 2})
	return recs
}

// chaosRecords is a run that makes three faults: a kill after which nothing ends for 0.7 s, a pause
// with 1.2 s, and a restart before which uploads wait for 3 s. All images come back.
func chaosRecords() []Record {
	recs := mutate(evenRecords(300), func(u *Upload) {
		start := u.StartS
		for _, wait := range []struct{ from, wait float64 }{{2, 0.7}, {5, 1.2}, {8, 3}} {
			if start > wait.from {
				u.StartS += wait.wait
			}
		}
	})
	event := func(t float64, kind string, node int) { recs = append(recs, Event{TS: t, Kind: kind, Node: node}) }
	event(2.1, EventKill, 2)
	event(2.9, EventNodeDown, 2)
	event(3, EventRestart, 2)
	event(4, EventHealed, 2)
	event(5.8, EventPause, 1)
	event(7, EventResume, 1)
	event(10.1, EventHeld, 0)
	event(12.9, EventHealed, 1)
	event(12.9, EventReleased, 0)
	event(13.1, EventStop, 3)
	event(13.6, EventRestart, 3)
	event(15, EventHealed, 3)
	recs = append(recs, Readback{Images: 300, Matched: 300, Bytes: 4e9, ElapsedS: 20})
	return setRun(recs, func(r *Run) { r.Seed, r.Faults, r.Plan = 7, 3, Plan{Verify: true, Chaos: true} })
}

func singleRecords() []Record {
	recs := mutate(evenRecords(40), func(u *Upload) { u.Owner, u.Replicas, u.SentBytes = 1, []int{1}, u.Bytes })
	return setRun(recs, func(r *Run) { r.Nodes, r.Replicas = []int{1}, 1 })
}

// idleRecords is a run of the 3-node cluster in which node 3 owns nothing, from given images.
func idleRecords() []Record {
	recs := mutate(evenRecords(60), func(u *Upload) { u.Owner = int(u.Seq%2) + 1; u.Class = "" })
	return setRun(recs, func(r *Run) { r.Profile, r.Images = "", "photos" })
}

func TestGolden(t *testing.T) {
	for name, records := range goldenRuns {
		t.Run(name, func(t *testing.T) {
			r := compute(t, records()...)
			golden(t, name+".txt", []byte(text(t, r, TextOptions{})))
			var js bytes.Buffer
			if err := r.WriteJSON(&js); err != nil {
				t.Fatal(err)
			}
			golden(t, name+".json", js.Bytes())
		})
	}
	for name, reports := range map[string]Reports{
		"mixed": {compute(t, mixedRecords()...)}, "compared": {compared(t)}, "several": {named(t, "a.jsonl", eventRecords()), named(t, "b.jsonl", idleRecords())},
	} {
		golden(t, name+".csv", written(t, reports.WriteCSV))
		golden(t, name+".md", written(t, reports.WriteMarkdown))
	}
	golden(t, "compared.txt", []byte(text(t, compared(t), TextOptions{})))
	golden(t, "compared.json", written(t, compared(t).WriteJSON))
	golden(t, "log.jsonl", encode(t, recordsOfEveryType()...))
	golden(t, "color.txt", []byte(text(t, compute(t, failingRecords()...), TextOptions{Color: true, Width: 72})))
}

func named(t testing.TB, name string, recs []Record) *Report {
	r := compute(t, recs...)
	r.Log = name
	return r
}

// compared is the report of a run beside one of the same that was a quarter slower, with more at once.
func compared(t testing.TB) *Report {
	t.Helper()
	slower := setRun(mutate(evenRecords(300), func(u *Upload) { u.StartS, u.LatencyS = 1.25*u.StartS, 1.25*u.LatencyS }), func(r *Run) { r.Concurrency = 16 })
	slower[len(slower)-1] = End{ElapsedS: 15.7}
	this, other := read(t, string(encode(t, evenRecords(300)...))), read(t, string(encode(t, slower...)))
	r := Compute(this, DefaultLimits())
	r.Log = "this.jsonl"
	r.Compare(this, other, "other.jsonl")
	return r
}

func written(t testing.TB, write func(io.Writer) error) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func recordsOfEveryType() []Record {
	lost := Upload{Seq: 2, Name: "a/<b>&é.png", Class: "large", Bytes: 14013320, StartS: 0.013, LatencyS: 5, Error: "no quorum", Attempts: 3}
	recs := []Record{evenRun(2), evenUpload(1), lost}
	recs = append(recs, memorySamples(5, 181e6)[2:]...)
	return append(recs, ReadOp{Name: "a.png", Bytes: 12187809, StartS: 2, LatencyS: 0.2, OK: true, ScheduledS: new(1.9)}, Event{TS: 12.3, Kind: EventNodeDown, Node: 2}, Plan{Cleanup: true},
		Readback{Images: 1, Matched: 1, Bytes: 12187809, ElapsedS: 0.1}, Cleaned{Images: 1, Bytes: 12187809, Missing: 1, WonBack: 24375618}, End{ElapsedS: 38.2})
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not as kept; look at the difference, then run with -update\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}

func TestTextWidth(t *testing.T) {
	for name, records := range goldenRuns {
		r := compute(t, records()...)
		for _, asked := range []int{0, 1, 72, 76, 80, 500} {
			most := min(max(asked, widthMin), widthMax)
			if asked == 0 {
				most = widthMax
			}
			for line := range strings.Lines(text(t, r, TextOptions{Width: asked})) {
				if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > most {
					t.Errorf("%s at width %d: %d columns: %s", name, asked, n, line)
				}
				if strings.ContainsRune(line, '\x1b') {
					t.Errorf("%s: an escape in %q", name, line)
				}
			}
		}
	}
}

// Package logtest makes logs of runs for tests.
package logtest

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"imgcluster/cluster/sample"
	"imgcluster/modes/runlog"
)

var started = time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)

// EvenRun is the run of Even.
func EvenRun(count int64) runlog.Run {
	return runlog.Run{
		Started:     started,
		Profile:     "extreme",
		Nodes:       []int{1, 2, 3},
		Count:       count,
		Concurrency: 8,
		Delivery:    runlog.DeliveryBroadcast,
		Replicas:    2,
	}
}

// EvenUpload makes upload seq of a run that goes as promised: owners in turn, sizes and classes of
// the default test set, a steady pace of 25 a second.
func EvenUpload(seq int64) runlog.Upload {
	low := []int64{5_120_000, 8_000_000, 12_500_000, 18_000_000}[seq%4]
	high := []int64{8_000_000, 12_500_000, 18_000_000, 24_500_000}[seq%4]
	n := seq * 2654435761 % 1009 // spreads sizes and latencies, the same on every machine
	bytes := low + (high-low)*n/1009
	owner := int(seq/4%3) + 1
	return runlog.Upload{
		Seq:       seq,
		Name:      fmt.Sprintf("stress_image_%d.png", seq),
		Class:     []string{"small", "medium", "large", "xlarge"}[seq%4],
		Bytes:     bytes,
		StartS:    float64(seq) * 0.04,
		LatencyS:  0.1 + float64(bytes)/1e8 + float64(n)/5000,
		OK:        true,
		Owner:     owner,
		Replicas:  []int{owner, owner%3 + 1},
		Attempts:  1,
		SentBytes: 3 * bytes,
	}
}

// Even makes the whole log of such a run.
func Even(count int64) []runlog.Record {
	recs := []runlog.Record{EvenRun(count)}
	for seq := int64(1); seq <= count; seq++ {
		recs = append(recs, EvenUpload(seq))
		if seq%25 == 0 {
			recs = append(recs, MemorySamples(float64(seq)*0.04, 180<<20)...)
		}
	}
	return append(recs, runlog.End{ElapsedS: float64(count)*0.04 + 0.5})
}

// MemorySamples are samples of three nodes, which have about that much memory, and of the client.
func MemorySamples(t float64, rss int64) []runlog.Record {
	var recs []runlog.Record
	for id := 1; id <= 3; id++ {
		recs = append(recs, runlog.NodeSample{
			TS: t,
			ID: id,
			Up: true,
			Node: sample.Node{
				RSSBytes:      rss + int64(id)<<20,
				DiskFreeBytes: 70e9,
				CPUS:          t / 3,
				NetRxBytes:    1,
				NetTxBytes:    1,
			},
		})
	}
	return append(recs, runlog.ClientSample{TS: t, Client: sample.Client{RSSBytes: 88 << 20, CPUS: t / 9}})
}

// BeforeEnd puts more records before the last one.
func BeforeEnd(recs []runlog.Record, more ...runlog.Record) []runlog.Record {
	return slices.Insert(recs, len(recs)-1, more...)
}

// Mutate applies f to every upload.
func Mutate(recs []runlog.Record, f func(*runlog.Upload)) []runlog.Record {
	for i, rec := range recs {
		if u, ok := rec.(runlog.Upload); ok {
			f(&u)
			recs[i] = u
		}
	}
	return recs
}

// SetRun applies f to the run record, which is the first.
func SetRun(recs []runlog.Record, f func(*runlog.Run)) []runlog.Record {
	run := recs[0].(runlog.Run)
	f(&run)
	recs[0] = run
	return recs
}

// Encode writes records as a log.
func Encode(t testing.TB, recs ...runlog.Record) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := runlog.NewWriter(&buf)
	for _, rec := range recs {
		if err := w.Write(rec); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// OnHosts is a run on four hosts of 4 cores and 12.5 GB/s, sampled every second, in which nothing is busy.
// The samples that f and g change have the figures of one second.
func OnHosts(count int64, f func(*runlog.NodeSample), g func(*runlog.ClientSample)) []runlog.Record {
	recs := Even(count)
	recs = SetRun(recs, func(r *runlog.Run) {
		r.Hosts.Client = runlog.Host{Name: "client", CPUs: 4, MemoryBytes: 8 << 30, LinkBytesPS: 12_500e6}
		for _, id := range r.Nodes {
			r.Hosts.Nodes = append(r.Hosts.Nodes, runlog.Host{
				ID:          id,
				Name:        fmt.Sprint("host", id),
				CPUs:        4,
				MemoryBytes: 8 << 30,
				LinkBytesPS: 12_500e6,
			})
		}
	})
	var kept []runlog.Record
	for _, rec := range recs {
		switch rec.(type) {
		case runlog.NodeSample, runlog.ClientSample, runlog.End:
		default:
			kept = append(kept, rec)
		}
	}
	elapsed := float64(count)*0.04 + 0.5
	for t := 0.0; t <= elapsed; t++ {
		for id := 1; id <= 3; id++ {
			s := runlog.NodeSample{
				ID: id,
				Up: true,
				Node: sample.Node{
					RSSBytes:         180 << 20,
					DiskFreeBytes:    70e9,
					CPUS:             0.4,
					NetRxBytes:       330e6,
					NetTxBytes:       1e6,
					DiskWrittenBytes: 220e6,
					DiskBusyS:        0.3,
				},
			}
			if f != nil {
				f(&s)
			}
			s.TS = t
			s.CPUS *= t
			s.DiskBusyS *= t
			s.NetRxBytes *= int64(t)
			s.NetTxBytes *= int64(t)
			s.DiskWrittenBytes *= int64(t)
			kept = append(kept, s)
		}
		c := runlog.ClientSample{Client: sample.Client{
			RSSBytes:  88 << 20,
			CPUS:      0.5,
			InFlight:  8,
			SourceS:   0.4,
			SentBytes: 990e6,
		}}
		if g != nil {
			g(&c)
		}
		c.TS = t
		c.CPUS *= t
		c.SourceS *= t
		c.SentBytes *= int64(t)
		kept = append(kept, c)
	}
	return append(kept, runlog.End{ElapsedS: elapsed})
}

// Runs are the runs whose reports are kept as text and JSON.
var Runs = map[string]func() []runlog.Record{
	"extreme":     func() []runlog.Record { return Even(1500) },
	"failing":     Failing,
	"tiny":        func() []runlog.Record { return Even(3) },
	"events":      Killed,
	"empty":       func() []runlog.Record { return []runlog.Record{EvenRun(0), runlog.End{}} },
	"single-node": Single,
	"idle-node":   Idle,
	"chaos":       Chaos,
	"mixed":       Mixed,
}

// Mixed is an open loop with reads, a warm-up, known machines and settings, in which the disk of node 2 is
// what limits, that was interrupted and resumed.
func Mixed() []runlog.Record {
	recs := OnHosts(400, func(s *runlog.NodeSample) {
		s.StagingBytes = 20 << 20
		if s.ID == 2 {
			s.DiskBusyS = 0.98
		}
	}, func(s *runlog.ClientSample) { s.LateS = 0.2 })
	recs = Mutate(recs, func(u *runlog.Upload) {
		u.Warmup = u.StartS < 2
		u.ScheduledS = new(u.StartS - float64(u.Seq%20)/100)
		u.FirstNode = u.Owner
		if u.Seq%7 == 0 {
			u.FirstNode = u.Owner%3 + 1
		}
	})
	for i := range 100 {
		r := runlog.ReadOp{
			Name:     fmt.Sprintf("stress_image_%d.png", i+1),
			Bytes:    9e6,
			StartS:   0.16 * float64(i),
			LatencyS: 0.05 + float64(i%7)/100,
			OK:       i != 50,
		}
		if r.Warmup, r.ScheduledS = r.StartS < 2, new(r.StartS); !r.OK {
			r.Error = "not found"
		}
		recs = BeforeEnd(recs, r)
	}
	recs = BeforeEnd(recs,
		runlog.Event{TS: 8, Kind: runlog.EventResumed},
		runlog.Readback{Images: 400, Matched: 400, Bytes: 5e9, ElapsedS: 12})
	return SetRun(recs, func(r *runlog.Run) {
		r.Rate = 30
		r.Arrivals = runlog.ArrivalsPoisson
		r.WarmupS = 2
		r.ReadPercent = 20
		r.Users = 3
		r.Version = "v1.2.3"
		r.Settings = map[string]string{"cluster.data_shards": "12", "limits.staging_bytes": "256MiB"}
	})
}

// Failing is a run with lost uploads, uneven owners, much sent twice and a leaking node.
func Failing() []runlog.Record {
	recs := Mutate(Even(200), func(u *runlog.Upload) {
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
		recs = append(recs, MemorySamples(float64(i), int64(150+40*i)<<20)...)
	}
	return recs
}

// Killed is a run in which node 2 is killed; for 1.4 s nothing ends.
func Killed() []runlog.Record {
	recs := Mutate(Even(300), func(u *runlog.Upload) {
		u.FirstChoice = new(u.Seq%5 != 0)
		if u.StartS > 6 {
			u.StartS += 1.4
		}
	})
	return append(recs,
		runlog.Event{TS: 6, Kind: runlog.EventKill, Node: 2},
		runlog.Event{TS: 6.4, Kind: runlog.EventNodeDown, Node: 2},
		runlog.Event{TS: 9, Kind: runlog.EventRestart, Node: 2},
		runlog.Event{TS: 9.2, Kind: runlog.EventNodeUp, Node: 2})
}

// Chaos is a run that makes three faults: a kill after which nothing ends for 0.7 s, a pause
// with 1.2 s, and a restart before which uploads wait for 3 s. All images come back.
func Chaos() []runlog.Record {
	recs := Mutate(Even(300), func(u *runlog.Upload) {
		start := u.StartS
		for _, wait := range []struct{ from, wait float64 }{{2, 0.7}, {5, 1.2}, {8, 3}} {
			if start > wait.from {
				u.StartS += wait.wait
			}
		}
	})
	event := func(t float64, kind string, node int) {
		recs = append(recs, runlog.Event{TS: t, Kind: kind, Node: node})
	}
	event(2.1, runlog.EventKill, 2)
	event(2.9, runlog.EventNodeDown, 2)
	event(3, runlog.EventRestart, 2)
	event(4, runlog.EventHealed, 2)
	event(5.8, runlog.EventPause, 1)
	event(7, runlog.EventResume, 1)
	event(10.1, runlog.EventHeld, 0)
	event(12.9, runlog.EventHealed, 1)
	event(12.9, runlog.EventReleased, 0)
	event(13.1, runlog.EventStop, 3)
	event(13.6, runlog.EventRestart, 3)
	event(15, runlog.EventHealed, 3)
	recs = append(recs, runlog.Readback{Images: 300, Matched: 300, Bytes: 4e9, ElapsedS: 20})
	return SetRun(recs, func(r *runlog.Run) {
		r.Seed, r.Faults, r.Plan = 7, 3, runlog.Plan{Verify: true, Chaos: true}
	})
}

// Single is a run on one node.
func Single() []runlog.Record {
	recs := Mutate(Even(40), func(u *runlog.Upload) { u.Owner, u.Replicas, u.SentBytes = 1, []int{1}, u.Bytes })
	return SetRun(recs, func(r *runlog.Run) { r.Nodes, r.Replicas = []int{1}, 1 })
}

// Idle is a run of the 3-node cluster in which node 3 owns nothing, from given images.
func Idle() []runlog.Record {
	recs := Mutate(Even(60), func(u *runlog.Upload) { u.Owner = int(u.Seq%2) + 1; u.Class = "" })
	return SetRun(recs, func(r *runlog.Run) { r.Profile, r.Images = "", "photos" })
}

// EveryType is a log with a record of every type.
func EveryType() []runlog.Record {
	lost := runlog.Upload{
		Seq:      2,
		Name:     "a/<b>&é.png",
		Class:    "large",
		Bytes:    14013320,
		StartS:   0.013,
		LatencyS: 5,
		Error:    "no quorum",
		Attempts: 3,
	}
	recs := []runlog.Record{EvenRun(2), EvenUpload(1), lost}
	recs = append(recs, MemorySamples(5, 181e6)[2:]...)
	return append(recs,
		runlog.ReadOp{Name: "a.png", Bytes: 12187809, StartS: 2, LatencyS: 0.2, OK: true, ScheduledS: new(1.9)},
		runlog.Event{TS: 12.3, Kind: runlog.EventNodeDown, Node: 2},
		runlog.Plan{Cleanup: true},
		runlog.Readback{Images: 1, Matched: 1, Bytes: 12187809, ElapsedS: 0.1},
		runlog.Cleaned{Images: 1, Bytes: 12187809, Missing: 1, WonBack: 24375618},
		runlog.End{ElapsedS: 38.2})
}

// Whole is the log of a run with all that can be planned, in the order in which it is written.
func Whole(uploads int64) []runlog.Record {
	recs := Even(uploads)
	for t := range int(uploads/25) + 2 {
		recs = append(recs, MemorySamples(float64(t), 180<<20)...)
	}
	for i, f := range []struct{ fails, back string }{
		{runlog.EventKill, runlog.EventRestart},
		{runlog.EventPause, runlog.EventResume},
		{runlog.EventStop, runlog.EventRestart},
	} {
		at := float64(i) * 0.3
		recs = append(recs, runlog.Event{TS: at, Kind: f.fails, Node: i + 1},
			runlog.Event{TS: at + 0.1, Kind: f.back, Node: i + 1},
			runlog.Event{TS: at + 0.2, Kind: runlog.EventHealed, Node: i + 1})
	}
	recs = slices.DeleteFunc(recs, Is[runlog.End])
	slices.SortStableFunc(recs[1:], func(a, b runlog.Record) int { return cmp.Compare(moment(a), moment(b)) })
	recs = append(recs,
		runlog.Readback{Images: uploads, Matched: uploads, Bytes: 1e9, ElapsedS: 3},
		runlog.Event{TS: 9, Kind: runlog.EventCleaning},
		runlog.Cleaned{Images: uploads, Bytes: 1e9, WonBack: 2e9},
		runlog.End{ElapsedS: float64(uploads)*0.04 + 1})
	return SetRun(recs, func(r *runlog.Run) {
		r.Faults, r.Plan = 3, runlog.Plan{Verify: true, Chaos: true, Cleanup: true}
	})
}

// moment is when a record is written.
func moment(r runlog.Record) float64 {
	switch r := r.(type) {
	case runlog.Upload:
		return r.StartS + r.LatencyS
	case runlog.NodeSample:
		return r.TS
	case runlog.ClientSample:
		return r.TS
	case runlog.Event:
		return r.TS
	}
	return 0
}

// Lines of a log, with their ends.
const (
	RunLine = `{"type":"run","schema":1,"started":"2026-01-02T15:04:05Z","profile":"quick","nodes":[1,2,3],` +
		`"count":2,"concurrency":8,"delivery":"broadcast","replicas":2}` + "\n"
	UploadLine = `{"type":"upload","seq":1,"name":"a.png","class":"medium","bytes":9013320,` +
		`"start_s":0.012,"latency_s":0.143,"ok":true,"owner":2,"replicas":[2,3],"attempts":1,` +
		`"sent_bytes":27039960}` + "\n"
)

// Read reads a log that is no error to read.
func Read(t testing.TB, log string) *runlog.Log {
	t.Helper()
	l, err := runlog.Read(strings.NewReader(log))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// Gzip is text in gzip.
func Gzip(t testing.TB, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// Slower is the log of Even(300), a quarter slower, with more at once.
func Slower() []runlog.Record {
	recs := SetRun(Mutate(Even(300), func(u *runlog.Upload) {
		u.StartS *= 1.25
		u.LatencyS *= 1.25
	}), func(r *runlog.Run) { r.Concurrency = 16 })
	recs[len(recs)-1] = runlog.End{ElapsedS: 15.7}
	return recs
}

// File returns the text of a file.
func File(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Log reads back a log of these records.
func Log(t testing.TB, recs ...runlog.Record) *runlog.Log {
	t.Helper()
	return Read(t, string(Encode(t, recs...)))
}

// Is reports whether a record is of that type.
func Is[T runlog.Record](rec runlog.Record) bool {
	_, is := rec.(T)
	return is
}

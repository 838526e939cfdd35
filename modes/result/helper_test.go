package result

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

var started = time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)

func evenRun(count int64) Run {
	return Run{
		Started: started, Profile: "extreme", Nodes: []int{1, 2, 3}, Count: count,
		Concurrency: 8, Delivery: DeliveryBroadcast, Replicas: 2,
	}
}

// evenUpload makes upload seq of a run that goes as promised: owners in turn, sizes and classes of
// the default test set, a steady pace of 25 a second.
func evenUpload(seq int64) Upload {
	low := []int64{5_120_000, 8_000_000, 12_500_000, 18_000_000}[seq%4]
	high := []int64{8_000_000, 12_500_000, 18_000_000, 24_500_000}[seq%4]
	n := seq * 2654435761 % 1009 // spreads sizes and latencies, the same on every machine
	bytes := low + (high-low)*n/1009
	owner := int(seq/4%3) + 1
	return Upload{
		Seq: seq, Name: fmt.Sprintf("stress_image_%d.png", seq), Class: []string{"small", "medium", "large", "xlarge"}[seq%4],
		Bytes: bytes, StartS: float64(seq) * 0.04, LatencyS: 0.1 + float64(bytes)/1e8 + float64(n)/5000,
		OK: true, Owner: owner, Replicas: []int{owner, owner%3 + 1}, Attempts: 1, SentBytes: 3 * bytes,
	}
}

// evenRecords makes the whole log of such a run.
func evenRecords(count int64) []Record {
	recs := []Record{evenRun(count)}
	for seq := int64(1); seq <= count; seq++ {
		recs = append(recs, evenUpload(seq))
		if seq%25 == 0 {
			recs = append(recs, memorySamples(float64(seq)*0.04, 180<<20)...)
		}
	}
	return append(recs, End{ElapsedS: float64(count)*0.04 + 0.5})
}

func memorySamples(t float64, rss int64) []Record {
	var recs []Record
	for id := 1; id <= 3; id++ {
		recs = append(recs, NodeSample{TS: t, ID: id, Up: true, RSSBytes: rss + int64(id)<<20, DiskFreeBytes: 70e9, CPUS: t / 3, NetRxBytes: 1, NetTxBytes: 1})
	}
	return append(recs, ClientSample{TS: t, RSSBytes: 88 << 20, CPUS: t / 9})
}

// beforeEnd puts more records before the last one.
func beforeEnd(recs []Record, more ...Record) []Record {
	return slices.Insert(recs, len(recs)-1, more...)
}

// mutate applies f to every upload.
func mutate(recs []Record, f func(*Upload)) []Record {
	for i, rec := range recs {
		if u, ok := rec.(Upload); ok {
			f(&u)
			recs[i] = u
		}
	}
	return recs
}

// setRun applies f to the run record, which is the first.
func setRun(recs []Record, f func(*Run)) []Record {
	run := recs[0].(Run)
	f(&run)
	recs[0] = run
	return recs
}

// encode writes records as a log.
func encode(t testing.TB, recs ...Record) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := NewWriter(&buf)
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

// compute writes records, reads them back and computes the report.
func compute(t testing.TB, recs ...Record) *Report {
	t.Helper()
	return Compute(read(t, string(encode(t, recs...))), DefaultLimits())
}

func read(t testing.TB, log string) *Log {
	t.Helper()
	l, err := Read(strings.NewReader(log))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func text(t testing.TB, r *Report, opts TextOptions) string {
	t.Helper()
	var b strings.Builder
	if err := r.WriteText(&b, opts); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// checkNamed returns the check of that name.
func checkNamed(t testing.TB, r *Report, name string) Check {
	t.Helper()
	for _, c := range r.Verdict.Checks {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("no check %q", name)
	return Check{}
}

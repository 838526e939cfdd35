package result

import (
	"bytes"
	"flag"
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
	return setRun(recs, func(r *Run) { r.Seed, r.Faults = 7, 3 })
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
	golden(t, "log.jsonl", encode(t, recordsOfEveryType()...))
	golden(t, "color.txt", []byte(text(t, compute(t, failingRecords()...), TextOptions{Color: true, Width: 72})))
}

func recordsOfEveryType() []Record {
	lost := Upload{Seq: 2, Name: "a/<b>&é.png", Class: "large", Bytes: 14013320, StartS: 0.013, LatencyS: 5, Error: "no quorum", Attempts: 3}
	recs := []Record{evenRun(2), evenUpload(1), lost}
	recs = append(recs, memorySamples(5, 181e6)[2:]...)
	return append(recs, Event{TS: 12.3, Kind: EventNodeDown, Node: 2}, Readback{Images: 1, Matched: 1, Bytes: 12187809, ElapsedS: 0.1}, End{ElapsedS: 38.2})
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

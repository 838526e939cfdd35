package report

import (
	"math"
	"slices"
	"strings"
	"testing"

	"imgcluster/cluster/sample"
	"imgcluster/modes/runlog"
	"imgcluster/modes/runlog/logtest"
)

// checkCases has at least one run for every outcome of every check.
var checkCases = map[string][]struct {
	name    string
	records func() []runlog.Record
	want    Status
	says    string // part of the evidence
}{
	"production_scale_files": {
		{"default set", even(200), Passed, "all classes"},
		{"too small", changed(200, func(u *runlog.Upload) { u.Bytes /= 4 }), Failed, "wanted 4.50 MB"},
		{"too large", changed(200, func(u *runlog.Upload) { u.Bytes += 5e6 }), Failed, "wanted"},
		{
			"class missing", changed(200, func(u *runlog.Upload) { u.Class = "small" }), Failed,
			"missing: medium, large, xlarge",
		},
		{"given images", asked(200, func(r *runlog.Run) { r.Images = "photos" }), Skipped, "given images"},
		{"other pixels", asked(200, func(r *runlog.Run) { r.MaxPixels = 400 }), Skipped, "asked for"},
		{
			"default pixels", asked(200, func(r *runlog.Run) { r.MinPixels, r.MaxPixels = 1600, 3500 }), Passed,
			"all classes",
		},
		{
			"read back", with(even(200), runlog.Readback{Images: 200, Matched: 200}), Passed,
			"200 of 200 images read back and the same, all classes",
		},
		{
			"other bytes", with(even(200), runlog.Readback{Images: 200, Matched: 199, Mismatched: 1}), Failed,
			"1 with other bytes",
		},
		{"too few", even(3), Skipped, "too few"},
		{"none", even(0), Skipped, "no image sizes"},
	},
	"sustained_load": {
		{"steady", even(200), Passed, "p99 0.536 s of at most 60 s; throughput"},
		{"slower", changed(200, func(u *runlog.Upload) {
			if u.Seq > 100 {
				u.StartS = 4 + 3*(u.StartS-4)
			}
		}), Failed, "(Mann-Kendall)"},
		{
			"too short for a trend", even(200), Passed,
			"throughput: under 30 s too short to tell a trend; falling: p = ",
		},
		{"long enough for a trend", even(800), Passed, "from start to end, 95 % interval "},
		{"slower with faults", with(changed(200, func(u *runlog.Upload) {
			if u.Seq > 100 {
				u.StartS = 4 + 3*(u.StartS-4)
			}
		}), runlog.Event{TS: 5, Kind: runlog.EventKill, Node: 1}), Skipped, "missing for a time"},
		{"waited in the second half", with(changed(200, func(u *runlog.Upload) {
			if u.Seq > 120 {
				u.StartS += 20
			}
		}), held(4.9, 24.8)...), Passed, "throughput"},
		{"slower by noise", changed(200, func(u *runlog.Upload) {
			if u.Seq > 100 {
				u.StartS = 4 + 1.5*(u.StartS-4)
			}
		}), Passed, "p = 0.033"},
		{
			"slower in a long run", changed(1500, func(u *runlog.Upload) { u.StartS *= 1 + u.StartS/100 }), Failed,
			"throughput -",
		},
		{
			"slower by less than the limit", changed(1500, func(u *runlog.Upload) { u.StartS *= 1 + u.StartS/1500 }),
			Passed, "throughput -",
		},
		{"slow images now and then", changed(1500, func(u *runlog.Upload) {
			if u.Seq%97 == 0 {
				u.LatencyS += 5
			}
		}), Passed, "throughput"},
		{"too slow", func() []runlog.Record {
			recs := logtest.Mutate(logtest.Even(30), func(u *runlog.Upload) { u.StartS *= 150 })
			recs[len(recs)-1] = runlog.End{ElapsedS: 200}
			return recs
		}, Failed, "30 uploads in 200 s, 0.15/s; p99 0.536 s of at most 60 s; at least 0.20/s wanted"},
		{"as slow as asked for", func() []runlog.Record {
			recs := logtest.Mutate(logtest.Even(30), func(u *runlog.Upload) { u.StartS *= 150 })
			recs[len(recs)-1] = runlog.End{ElapsedS: 200}
			return logtest.SetRun(recs, func(r *runlog.Run) { r.Rate = 0.15 })
		}, Passed, "0.15/s"},
		{"long waits", changed(200, func(u *runlog.Upload) {
			if u.Seq > 190 {
				u.LatencyS += 70
			}
		}), Failed, "p99 over the limit"},
		{"long waits to begin", changed(200, func(u *runlog.Upload) {
			u.StartS += 100
			u.ScheduledS = new(u.StartS)
			if u.Seq > 190 {
				u.ScheduledS = new(u.StartS - 70)
			}
		}), Failed, "p99 over the limit"},
		{"few", even(19), Skipped, "19 uploads in"},
		{"short", func() []runlog.Record {
			recs := logtest.Mutate(logtest.Even(40), func(u *runlog.Upload) {
				u.StartS, u.LatencyS = u.StartS/100, 0.1
			})
			recs[len(recs)-1] = runlog.End{ElapsedS: 0.2}
			return recs
		}, Skipped, "needs 20 uploads and 2 s"},
		{
			"all at once", changed(60, func(u *runlog.Upload) { u.StartS, u.LatencyS = 0, 3 }), Skipped, "same moment",
		},
	},
	"balance": {
		{"even", even(1500), Passed, "at most 0.15 %"},
		{"one image off", changed(1500, func(u *runlog.Upload) {
			if u.Seq == 4 {
				u.Owner = 1
			}
		}), Passed, "0.0"},
		{"nine images off", changed(1500, func(u *runlog.Upload) {
			if u.Seq <= 9*12 && u.Owner == 2 && u.Seq%4 == 1 {
				u.Owner = 1
			}
		}), Failed, "at most 0.15 %"},
		{
			"uneven bytes only", changed(300, func(u *runlog.Upload) { u.Bytes += int64(u.Owner) * 2e6 }), Failed,
			"0.00 % by uploads",
		},
		{"scaled limit", even(30), Passed, "at most 7.50 %"},
		{"one node", logtest.Single, Skipped, "two nodes"},
		{"tiny", even(17), Skipped, "needs 6 for each"},
		{"no owners", changed(60, func(u *runlog.Upload) { u.Owner = 0 }), Skipped, "does not say who owns"},
		{"owner from outside", changed(120, func(u *runlog.Upload) {
			if u.Seq == 9 {
				u.Owner = 9
			}
		}), Passed, "1 owner not of the run"},
		{
			"node was down", with(changed(300, ownerOne), runlog.Event{TS: 2, Kind: runlog.EventNodeDown, Node: 2}),
			Skipped, "missing for a time",
		},
	},
	"memory_stable": {
		{"flat", even(500), Passed, "181, 182, 183 of 512 MiB; client's 88 of 256 MiB"},
		{
			"over", with(even(500), runlog.NodeSample{TS: 9, ID: 2, Up: true, Node: sample.Node{RSSBytes: 512 << 20}}),
			Failed, "node 2: over the limit",
		},
		{
			"client over", with(even(500), runlog.ClientSample{TS: 9, Client: sample.Client{RSSBytes: 300 << 20}}),
			Failed, "client: over the limit",
		},
		{"growing", growing, Failed, "node 3: grew by 240 MiB after its warm-up, over 512 MiB after"},
		{
			"growing after a restart", with(growing, runlog.Event{TS: 3, Kind: runlog.EventKill, Node: 3}), Passed,
			"nodes' peaks",
		},
		{
			"growing, another was lost", with(growing, runlog.Event{TS: 3, Kind: runlog.EventKill, Node: 2}), Failed,
			"node 3: grew by 240 MiB after its warm-up, over 512 MiB after",
		},
		{"growing, but less than the limit", func() []runlog.Record {
			recs := logtest.Even(0)
			for t := range 60 {
				recs = append(recs, logtest.MemorySamples(float64(t), int64(180+t)<<20)...)
			}
			return recs
		}, Passed, "steepest after the warm-up: node 1, +60.0 MiB/min, 95 % interval +60.0 to +60.0 (Theil-Sen)"},
		{"filling up", func() []runlog.Record {
			recs := logtest.Even(0)
			for t := range 120 {
				recs = append(recs, logtest.MemorySamples(float64(t), int64(300*(1-math.Exp(-float64(t)/40))+20)<<20)...)
			}
			return recs
		}, Passed, "95 % interval +"},
		{"growing, too short to tell", func() []runlog.Record {
			recs := logtest.Even(0)
			for t := range 60 {
				recs = append(recs, logtest.MemorySamples(float64(t), int64(100+5*t)<<20)...)
			}
			return recs
		}, Passed, "+300.0 MiB/min"},
		{"up and down", func() []runlog.Record {
			recs := logtest.Even(0)
			for t := range 60 {
				recs = append(recs, logtest.MemorySamples(float64(t), int64(180+t*37%200)<<20)...)
			}
			return recs
		}, Passed, "MiB/min"},
		{"client growing", func() []runlog.Record {
			recs := logtest.Even(100)
			for t := range 60 {
				recs = append(recs, runlog.ClientSample{
					TS:     float64(2 * t),
					Client: sample.Client{RSSBytes: int64(50+3*t) << 20},
				})
			}
			return recs
		}, Failed, "client: grew by"},
		{"client growing, after it was resumed", func() []runlog.Record {
			recs := append(logtest.Even(100), runlog.Event{TS: 30, Kind: runlog.EventResumed})
			for t := range 60 {
				recs = append(recs, runlog.ClientSample{
					TS:     float64(2 * t),
					Client: sample.Client{RSSBytes: int64(50+3*t) << 20},
				})
			}
			return recs
		}, Passed, "client's 227 of 256 MiB"},
		{
			"node unseen",
			with(even(20), runlog.NodeSample{TS: 9, ID: 2, Up: true, Node: sample.Node{RSSBytes: 1 << 20}}), Skipped,
			"no samples of node 1, 3",
		},
		{"down does not count", with(even(20), runlog.NodeSample{TS: 9, ID: 2}), Skipped, "no samples"},
	},
	"network": {
		{"each once", even(100), Passed, "0.0 % sent again; 0 uploads retried"},
		{"twice", changed(100, func(u *runlog.Upload) {
			if u.Seq%10 == 0 {
				u.SentBytes, u.Attempts = 2*u.SentBytes, 2
			}
		}), Failed, "10 uploads retried"},
		{"less elsewhere hides nothing", changed(100, func(u *runlog.Upload) {
			u.SentBytes = u.SentBytes * 2 / 3
			if u.Seq%10 == 0 {
				u.SentBytes *= 3
			}
		}), Failed, "sent again"},
		{"relay", relay, Passed, "0.0 % sent again"},
		{
			"five nodes, three receivers", asked(100, func(r *runlog.Run) { r.Nodes = []int{1, 2, 3, 4, 5} }), Passed,
			"0.0 % sent again",
		},
		{"five nodes, all of them sent to", fiveSent, Failed, "66.7 % sent again"},
		{
			"share of the link", asked(100, func(r *runlog.Run) { r.Hosts.Client.LinkBytesPS = 2e9 }), Passed,
			"% of the client's link of 2.00 GB/s",
		},
		{"unknown delivery", asked(100, func(r *runlog.Run) { r.Delivery = "pigeon" }), Skipped, "pigeon"},
		{"nothing known", changed(100, func(u *runlog.Upload) { u.SentBytes = 0 }), Skipped, "does not say"},
	},
	"hash_quality": {
		{"even", even(300), Passed, "p = 1.000"},
		{"first choice", logtest.Killed, Passed, "80.0 % went to the hash's first choice"},
		{"one-sided", changed(300, ownerOne), Failed, "p = 0.000"},
		{
			"no first choices", changed(300, func(u *runlog.Upload) { u.FirstNode = u.Owner%3 + 1 }), Failed,
			"0.0 % went to the hash's first choice, 300 (100.0 % of the bytes) to another node for even shares",
		},
		{"some first choices known", changed(30, func(u *runlog.Upload) {
			if u.Seq > 4 {
				u.FirstChoice = new(u.Seq > 19)
			}
		}), Passed, "of 26 uploads whose first choice is known, 42.3 % went to the hash's first choice, 15 ("},
		{
			"as many as by chance", changed(300, func(u *runlog.Upload) { u.FirstNode = int(u.Seq%3) + 1 }), Passed,
			"went to the hash's first choice",
		},
		{"first choices as owners", changed(300, func(u *runlog.Upload) {
			u.FirstNode = u.Owner
			if u.Seq%5 == 0 {
				u.FirstNode = u.Owner%3 + 1
			}
		}), Passed, "80.0 % went to the hash's first choice, 60 (20."},
		{"lopsided first choices", changed(300, func(u *runlog.Upload) {
			u.FirstNode = u.Owner
			if u.Seq%2 == 0 {
				u.FirstNode = 1
			}
		}), Failed, "p = 0.000 of the first choices"},
		{"lopsided first choices of five nodes", func() []runlog.Record {
			recs := logtest.Mutate(logtest.Even(300), func(u *runlog.Upload) {
				u.Owner = int(u.Seq%5) + 1
				u.FirstNode = u.Owner
				if u.Seq%3 == 0 {
					u.FirstNode = 1
				}
			})
			return logtest.SetRun(recs, func(r *runlog.Run) { r.Nodes = []int{1, 2, 3, 4, 5} })
		}, Passed, "went to the hash's first choice"},
		{"few", even(29), Skipped, "needs 30"},
		{"one node", logtest.Single, Skipped, "two nodes"},
		{"no owners", changed(60, func(u *runlog.Upload) { u.Owner = 0 }), Skipped, "does not say who owns"},
		{
			"node was down", with(changed(300, ownerOne), runlog.Event{TS: 2, Kind: runlog.EventPause, Node: 2}),
			Skipped, "missing for a time",
		},
	},
	"fault_tolerance": {
		{"no event", even(100), Skipped, "no node was lost"},
		{
			"information only",
			with(even(100), runlog.Event{TS: 1, Kind: runlog.EventNodeUp, Node: 1}, runlog.Event{
				TS:   1,
				Kind: "phase",
			}),
			Skipped, "no node was lost",
		},
		{
			"survived", logtest.Killed, Passed,
			"1 fault, 0 uploads failed; longest pause between acknowledgements 1.359 s",
		},
		{
			"two faults",
			with(even(300), runlog.Event{TS: 1, Kind: runlog.EventKill, Node: 1}, runlog.Event{
				TS:   2,
				Kind: runlog.EventNodeDown,
				Node: 2,
			}),
			Passed, "2 faults",
		},
		{
			"lost uploads",
			with(changed(100, func(u *runlog.Upload) {
				u.OK = u.Seq%10 != 0
			}), runlog.Event{TS: 1, Kind: runlog.EventNodeDown}),
			Failed, "10 uploads failed",
		},
		{
			"chaos", logtest.Chaos, Passed,
			"survived 3 of 3 faults (1 kill, 1 pause, 1 restart), 0 uploads failed; " +
				"longest pause between acknowledgements 1.174 s",
		},
		{"chaos, kill", logtest.Chaos, Passed, "s, after a kill 0.660 s"},
		{"chaos, read back", logtest.Chaos, Passed, "; 300 of 300 images read back and the same"},
		{
			"chaos, other bytes", readAs(runlog.Readback{Images: 300, Matched: 299, Mismatched: 1}), Failed,
			"299 of 300 images read back and the same, 1 with other bytes",
		},
		{
			"chaos, missing", readAs(runlog.Readback{Images: 300, Matched: 298, Missing: 2}), Failed,
			"the same, 2 missing",
		},
		{
			"chaos, unreadable", readAs(runlog.Readback{Images: 300, Matched: 297, Unread: 3}), Failed,
			"the same, 3 unreadable",
		},
		{"chaos, reading stopped", readAs(runlog.Readback{Images: 300, Matched: 17}), Skipped, "17 of 300 images"},
		{
			"chaos, stopped on a bad one", readAs(runlog.Readback{Images: 300, Matched: 17, Missing: 1}), Failed,
			"1 missing",
		},
		{"chaos, not read back", readAs(nil), Skipped, "no image read back"},
		{"chaos, lost uploads", func() []runlog.Record {
			return logtest.Mutate(logtest.Chaos(), func(u *runlog.Upload) { u.OK = u.Seq != 50 })
		}, Failed, "1 upload failed"},
		{"chaos, not all faults", func() []runlog.Record {
			return logtest.SetRun(logtest.Chaos(), func(r *runlog.Run) { r.Faults = 4 })
		}, Failed, "survived 3 of 4 faults"},
		{"chaos, no fault", func() []runlog.Record {
			recs := append(logtest.Even(60), runlog.Readback{Images: 60, Matched: 60})
			return logtest.SetRun(recs, func(r *runlog.Run) { r.Faults = 3 })
		}, Failed, "survived 0 of 3 faults, 0 uploads failed"},
		{"chaos, copies not made", func() []runlog.Record {
			recs := logtest.Chaos()
			for i, rec := range recs {
				if e, ok := rec.(runlog.Event); ok && e.Kind == runlog.EventHealed && e.Node == 1 {
					e.Kind = runlog.EventUnhealed
					recs[i] = e
				}
			}
			return recs
		}, Failed, "survived 2 of 3 faults"},
		{
			"chaos, one more", with(logtest.Chaos, runlog.Event{TS: 3.5, Kind: runlog.EventNodeDown, Node: 3}), Passed,
			"1 restart) and 1 fault more that the run did not make",
		},
		{"chaos, long pause", func() []runlog.Record {
			return logtest.Mutate(logtest.Chaos(), func(u *runlog.Upload) {
				if u.StartS > 5.9 {
					u.StartS += 15
				}
			})
		}, Failed, "longest pause between acknowledgements 13.374 s"},
		{
			"nobody answers any more", with(changed(100, func(u *runlog.Upload) {
				if u.StartS > 2 {
					u.OK, u.LatencyS = false, 5
				}
			}),
				runlog.Event{TS: 2.5, Kind: runlog.EventNodeDown, Node: 1},
				runlog.Event{TS: 2.5, Kind: runlog.EventNodeDown, Node: 2},
				runlog.Event{TS: 2.5, Kind: runlog.EventNodeDown, Node: 3}),
			Failed, "3 faults, 50 uploads failed; longest pause between acknowledgements 6.6",
		},
		{
			"after the end", with(even(100), runlog.Event{TS: 99, Kind: runlog.EventKill, Node: 1}), Skipped,
			"no upload ended after",
		},
	},
}

func even(n int64) func() []runlog.Record { return func() []runlog.Record { return logtest.Even(n) } }

func changed(n int64, f func(*runlog.Upload)) func() []runlog.Record {
	return func() []runlog.Record { return logtest.Mutate(logtest.Even(n), f) }
}

func asked(n int64, f func(*runlog.Run)) func() []runlog.Record {
	return func() []runlog.Record { return logtest.SetRun(logtest.Even(n), f) }
}

// held are the events of a time in which no upload could start.
func held(from, to float64) []runlog.Record {
	return []runlog.Record{
		runlog.Event{TS: from, Kind: runlog.EventHeld},
		runlog.Event{TS: to, Kind: runlog.EventReleased},
	}
}

func with(records func() []runlog.Record, more ...runlog.Record) func() []runlog.Record {
	return func() []runlog.Record { return append(records(), more...) }
}

// readAs is logtest.Chaos with another end: a Readback, or none.
func readAs(back runlog.Record) func() []runlog.Record {
	return func() []runlog.Record {
		recs := slices.DeleteFunc(logtest.Chaos(), logtest.Is[runlog.Readback])
		if back != nil {
			recs = append(recs, back)
		}
		return recs
	}
}

func ownerOne(u *runlog.Upload) {
	if u.Seq%3 != 0 {
		u.Owner = 1
	}
}

func growing() []runlog.Record {
	recs := logtest.Even(25)
	for i := range 60 {
		recs = append(recs, runlog.NodeSample{
			TS:   float64(5 * i),
			ID:   3,
			Up:   true,
			Node: sample.Node{RSSBytes: int64(100+6*i) << 20},
		})
	}
	return recs
}

func relay() []runlog.Record {
	return logtest.SetRun(logtest.Mutate(logtest.Even(100), func(u *runlog.Upload) {
		u.SentBytes = u.Bytes
	}), func(r *runlog.Run) { r.Delivery = runlog.DeliveryRelay })
}

func fiveSent() []runlog.Record {
	recs := logtest.Mutate(logtest.Even(100), func(u *runlog.Upload) { u.SentBytes = 5 * u.Bytes })
	return logtest.SetRun(recs, func(r *runlog.Run) { r.Nodes = []int{1, 2, 3, 4, 5} })
}

func TestChecks(t *testing.T) {
	for check, cases := range checkCases {
		for _, c := range cases {
			t.Run(check+"/"+c.name, func(t *testing.T) {
				got := checkNamed(t, compute(t, c.records()...), check)
				if got.Status != c.want || !strings.Contains(got.Evidence, c.says) {
					t.Errorf("%s: %s; want %s with %q", got.Status, got.Evidence, c.want, c.says)
				}
			})
		}
	}
}

func TestEveryOutcomeIsTested(t *testing.T) {
	for _, c := range checks {
		seen := map[Status]bool{}
		for _, tested := range checkCases[c.name] {
			seen[tested.want] = true
		}
		for _, s := range []Status{Passed, Failed, Skipped} {
			if !seen[s] {
				t.Errorf("no case in which %s is %s", c.name, s)
			}
		}
	}
}

func TestVerdict(t *testing.T) {
	lost := func(u *runlog.Upload) { u.OK = u.Seq != 7 }
	for _, c := range []struct {
		name    string
		records []runlog.Record
		passed  bool
		text    string
	}{
		{"all", logtest.Killed(), true, "SYSTEM PASSED ALL TESTS (7 passed)"},
		{"some skipped", logtest.Even(1500), true, "SYSTEM PASSED ALL TESTS (6 passed, 1 skipped)"},
		{
			"all skipped",
			[]runlog.Record{
				logtest.EvenRun(1), runlog.Upload{Seq: 1, OK: true, Owner: 1}, runlog.End{},
			},
			true, "ALL UPLOADS SUCCEEDED, NO TEST APPLIED (7 skipped)",
		},
		{"upload lost", logtest.Mutate(logtest.Even(1500), lost), false, "SYSTEM FAILED 1 OF 1500 UPLOADS"},
		{"tests failed", logtest.Idle(), false, "SYSTEM FAILED 2 OF 7 TESTS (balance, hash_quality)"},
		{
			"both", logtest.Mutate(logtest.Idle(), lost), false,
			"SYSTEM FAILED 2 OF 7 TESTS (balance, hash_quality) AND 1 OF 60 UPLOADS",
		},
		{
			"nothing attempted", logtest.Even(0), false,
			"SYSTEM FAILED: NO UPLOAD WAS ATTEMPTED; INCOMPLETE: nothing says how many uploads were planned",
		},
		{
			"all in the warm-up", logtest.Mutate(logtest.Even(60), func(u *runlog.Upload) { u.Warmup = true }), false,
			"SYSTEM FAILED: ALL 60 UPLOADS WERE IN THE WARM-UP, WHICH IS LEFT OUT",
		},
		{
			"killed", killed(logtest.Even(200), 3), false,
			"INCOMPLETE: 3 of 200 planned uploads, no end record; 2 tests passed so far, 5 skipped",
		},
		{
			"killed with losses", killed(logtest.Mutate(logtest.Even(200), lost), 100), false,
			"SYSTEM FAILED 1 OF 100 UPLOADS; INCOMPLETE: 100 of 200 planned uploads, no end record",
		},
		{
			"killed with failed tests", killed(logtest.Idle(), 50), false,
			"SYSTEM FAILED 2 OF 7 TESTS (balance, hash_quality); INCOMPLETE: 50 of 60 planned uploads, no end record",
		},
		{
			"killed before the first",
			[]runlog.Record{logtest.EvenRun(9)},
			false,
			"SYSTEM FAILED: NO UPLOAD WAS ATTEMPTED; INCOMPLETE: 0 of 9 planned uploads, no end record",
		},
		{
			"drained", append(killed(logtest.Even(200), 100), runlog.End{ElapsedS: 5}), false,
			"INCOMPLETE: 100 of 200 planned uploads; 6 tests passed so far, 1 skipped",
		},
		{
			"killed after the last", killed(logtest.Even(200), 200), false,
			"INCOMPLETE: no end record; 6 tests passed so far, 1 skipped",
		},
		{
			"with a warm-up", logtest.Mutate(logtest.Even(200), func(u *runlog.Upload) { u.Warmup = u.StartS < 2 }),
			true, "SYSTEM PASSED ALL TESTS (6 passed, 1 skipped)",
		},
		{"by time", timed(60.1, 60, 0, ""), true, "SYSTEM PASSED ALL TESTS (6 passed, 1 skipped)"},
		{
			"by time, killed", killed(timed(60.1, 60, 0, ""), 1500), false,
			"INCOMPLETE: no end record; 6 tests passed so far, 1 skipped",
		},
		{
			"by time, drained", timed(60.5, 70, 0, ""), false,
			"INCOMPLETE: 60.500 s of 70 s; 6 tests passed so far, 1 skipped",
		},
		{
			"by time and rate", timed(60.5, 61, 2, runlog.ArrivalsConstant), true,
			"SYSTEM PASSED ALL TESTS (6 passed, 1 skipped)",
		},
		{
			"by time and rate, drained", timed(60.5, 61.1, 2, runlog.ArrivalsConstant), false,
			"INCOMPLETE: 60.500 s of 61.1 s; 6 tests passed so far, 1 skipped",
		},
		{
			"by time, at random", timed(60.5, 65, 2, runlog.ArrivalsPoisson), true,
			"SYSTEM PASSED ALL TESTS (6 passed, 1 skipped)",
		},
		{
			"by time, at random, drained", timed(60.5, 66, 2, runlog.ArrivalsPoisson), false,
			"INCOMPLETE: 60.500 s of 66 s; 6 tests passed so far, 1 skipped",
		},
	} {
		v := compute(t, c.records...).Verdict
		if v.Passed != c.passed || v.Text != c.text {
			t.Errorf("%s: passed %v, %s; want %v, %s", c.name, v.Passed, v.Text, c.passed, c.text)
		}
		if len(v.Checks) != 7 {
			t.Errorf("%s: %d checks", c.name, len(v.Checks))
		}
	}
}

// killed is the log of a run that was killed after so many uploads.
func killed(recs []runlog.Record, uploads int64) []runlog.Record {
	return slices.DeleteFunc(recs, func(rec runlog.Record) bool {
		u, is := rec.(runlog.Upload)
		_, end := rec.(runlog.End)
		return end || is && u.Seq > uploads
	})
}

// timed is a run by duration that ended at a time.
func timed(end, duration, rate float64, arrivals string) []runlog.Record {
	recs := logtest.SetRun(logtest.Even(1500), func(r *runlog.Run) {
		r.Count, r.DurationS, r.Rate, r.Arrivals = 0, duration, rate, arrivals
	})
	recs[len(recs)-1] = runlog.End{ElapsedS: end}
	return recs
}

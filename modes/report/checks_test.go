package report

import (
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
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
	figures figures // some of the check's; nil when it has none
}{
	"production_scale_files": {
		{
			"default set", even(200), Passed,
			figures{
				"classes": 4, "images": 200, "min_bytes": 5.134e6, "mean_bytes": 13.34e6, "max_bytes": 24.3e6,
			},
		},
		{
			"too small", changed(200, func(u *runlog.Upload) { u.Bytes /= 4 }), Failed,
			figures{"min_bytes": 1.2836e6, "mean_bytes": 3.336e6, "max_bytes": 6.075e6},
		},
		{
			"too large", changed(200, func(u *runlog.Upload) { u.Bytes += 5e6 }), Failed,
			figures{"min_bytes": 10.134e6, "mean_bytes": 18.344e6, "max_bytes": 29.3e6},
		},
		{
			"class missing", changed(200, func(u *runlog.Upload) { u.Class = "small" }), Failed,
			figures{"classes": 1},
		},
		{
			"given images", asked(200, func(r *runlog.Run) { r.Images = "photos" }), Skipped,
			figures{"classes": 4},
		},
		{
			"other pixels", asked(200, func(r *runlog.Run) { r.MaxPixels = 400 }), Skipped,
			figures{"classes": 4},
		},
		{
			"default pixels", asked(200, func(r *runlog.Run) { r.MinPixels, r.MaxPixels = 1600, 3500 }), Passed,
			figures{"classes": 4},
		},
		{
			"read back", with(even(200), runlog.Readback{Images: 200, Matched: 200}), Passed,
			figures{"read_back_images": 200, "read_back_same": 200},
		},
		{
			"other bytes", with(even(200), runlog.Readback{Images: 200, Matched: 199, Mismatched: 1}), Failed,
			figures{"read_back_same": 199, "read_back_mismatched": 1},
		},
		{"too few", even(3), Skipped, figures{"images": 3}},
		{"none", even(0), Skipped, nil},
	},
	"sustained_load": {
		{
			"steady", even(200), Passed,
			figures{"p99_s": 0.536, "seconds": 8.5, "trend_percent": 0, "falling_p": 0.472},
		},
		{"slower", changed(200, func(u *runlog.Upload) {
			if u.Seq > 100 {
				u.StartS = 4 + 3*(u.StartS-4)
			}
		}), Failed, figures{"trend_percent": -77.08, "falling_p": 0}},
		{
			"long enough for a trend", even(800), Passed,
			figures{"seconds": 32.5, "trend_low_percent": 0, "trend_high_percent": 13.28},
		},
		{"slower with faults", with(changed(200, func(u *runlog.Upload) {
			if u.Seq > 100 {
				u.StartS = 4 + 3*(u.StartS-4)
			}
		}), runlog.Event{TS: 5, Kind: runlog.EventKill, Node: 1}), Skipped, figures{
			"trend_percent": -77.08, "falling_p": 0,
		}},
		{"waited in the second half", with(changed(200, func(u *runlog.Upload) {
			if u.Seq > 120 {
				u.StartS += 20
			}
		}), held(4.9, 24.8)...), Passed, figures{"trend_percent": 0, "falling_p": 1}},
		{"slower by noise", changed(200, func(u *runlog.Upload) {
			if u.Seq > 100 {
				u.StartS = 4 + 1.5*(u.StartS-4)
			}
		}), Passed, figures{"falling_p": 0.033}},
		{
			"slower in a long run", changed(1500, func(u *runlog.Upload) { u.StartS *= 1 + u.StartS/100 }), Failed,
			figures{"trend_percent": -68.16, "trend_high_percent": -59.64},
		},
		{
			"slower by less than the limit", changed(1500, func(u *runlog.Upload) { u.StartS *= 1 + u.StartS/1500 }),
			Passed,
			figures{"trend_percent": -5.614, "trend_low_percent": -17.04},
		},
		{"slow images now and then", changed(1500, func(u *runlog.Upload) {
			if u.Seq%97 == 0 {
				u.LatencyS += 5
			}
		}), Passed, figures{"trend_percent": 0, "falling_p": 1}},
		{"too slow", func() []runlog.Record {
			recs := logtest.Mutate(logtest.Even(30), func(u *runlog.Upload) { u.StartS *= 150 })
			recs[len(recs)-1] = runlog.End{ElapsedS: 200}
			return recs
		}, Failed, figures{"uploads": 30, "seconds": 200, "throughput_per_s": 0.15, "p99_s": 0.536}},
		{"as slow as asked for", func() []runlog.Record {
			recs := logtest.Mutate(logtest.Even(30), func(u *runlog.Upload) { u.StartS *= 150 })
			recs[len(recs)-1] = runlog.End{ElapsedS: 200}
			return logtest.SetRun(recs, func(r *runlog.Run) { r.Rate = 0.15 })
		}, Passed, figures{"throughput_per_s": 0.15}},
		{"long waits", changed(200, func(u *runlog.Upload) {
			if u.Seq > 190 {
				u.LatencyS += 70
			}
		}), Failed, figures{"p99_s": 70.364}},
		{"long waits to begin", changed(200, func(u *runlog.Upload) {
			u.StartS += 100
			u.ScheduledS = new(u.StartS)
			if u.Seq > 190 {
				u.ScheduledS = new(u.StartS - 70)
			}
		}), Failed, figures{"p99_s": 70.364}},
		{"few", even(19), Skipped, figures{"uploads": 19, "falling_p": absent}},
		{"short", func() []runlog.Record {
			recs := logtest.Mutate(logtest.Even(40), func(u *runlog.Upload) {
				u.StartS, u.LatencyS = u.StartS/100, 0.1
			})
			recs[len(recs)-1] = runlog.End{ElapsedS: 0.2}
			return recs
		}, Skipped, figures{"uploads": 40, "seconds": 0.2, "falling_p": absent}},
		{
			"all at once", changed(60, func(u *runlog.Upload) { u.StartS, u.LatencyS = 0, 3 }), Skipped,
			figures{"falling_p": absent},
		},
	},
	"balance": {
		{"even", even(1500), Passed, figures{"stddev_percent": 0, "limit_percent": 0.15}},
		{"one image off", changed(1500, func(u *runlog.Upload) {
			if u.Seq == 4 {
				u.Owner = 1
			}
		}), Passed, figures{"stddev_percent": 0.0544}},
		{"nine images off", changed(1500, func(u *runlog.Upload) {
			if u.Seq <= 9*12 && u.Owner == 2 && u.Seq%4 == 1 {
				u.Owner = 1
			}
		}), Failed, figures{"stddev_percent": 0.49, "limit_percent": 0.15}},
		{
			"uneven bytes only", changed(300, func(u *runlog.Upload) { u.Bytes += int64(u.Owner) * 2e6 }), Failed,
			figures{"stddev_percent": 0, "bytes_stddev_percent": 3.135},
		},
		{"scaled limit", even(30), Passed, figures{"limit_percent": 7.5}},
		{"one node", logtest.Single, Skipped, nil},
		{"tiny", even(17), Skipped, nil},
		{"no owners", changed(60, func(u *runlog.Upload) { u.Owner = 0 }), Skipped, nil},
		{"owner from outside", changed(120, func(u *runlog.Upload) {
			if u.Seq == 9 {
				u.Owner = 9
			}
		}), Passed, figures{"stddev_percent": 0.393, "limit_percent": 1.875}},
		{
			"node was down", with(changed(300, ownerOne), runlog.Event{TS: 2, Kind: runlog.EventNodeDown, Node: 2}),
			Skipped,
			figures{"stddev_percent": 35.36},
		},
	},
	"memory_stable": {
		{
			"flat", even(500), Passed,
			figures{
				"node_1_peak_bytes": 181 << 20, "node_2_peak_bytes": 182 << 20,
				"node_3_peak_bytes": 183 << 20, "client_peak_bytes": 88 << 20,
			},
		},
		{
			"over", with(even(500), runlog.NodeSample{TS: 9, ID: 2, Up: true, Node: sample.Node{RSSBytes: 512 << 20}}),
			Failed,
			figures{"node_2_peak_bytes": 512 << 20},
		},
		{
			"client over", with(even(500), runlog.ClientSample{TS: 9, Client: sample.Client{RSSBytes: 300 << 20}}),
			Failed,
			figures{"client_peak_bytes": 300 << 20},
		},
		{"growing", growing, Failed, figures{"node_3_growth_bytes": 240 << 20}},
		{
			"growing after a restart", with(growing, runlog.Event{TS: 3, Kind: runlog.EventKill, Node: 3}), Passed,
			figures{"node_3_peak_bytes": 454 << 20, "node_3_growth_bytes": absent},
		},
		{
			"growing, another was lost", with(growing, runlog.Event{TS: 3, Kind: runlog.EventKill, Node: 2}), Failed,
			figures{"node_3_growth_bytes": 240 << 20},
		},
		{"growing, but less than the limit", func() []runlog.Record {
			recs := logtest.Even(0)
			for t := range 60 {
				recs = append(recs, logtest.MemorySamples(float64(t), int64(180+t)<<20)...)
			}
			return recs
		}, Passed, figures{
			"node_1_slope_bytes_per_s": 1 << 20, "node_1_slope_low_bytes_per_s": 1 << 20,
			"node_1_slope_high_bytes_per_s": 1 << 20,
		}},
		{"filling up", func() []runlog.Record {
			recs := logtest.Even(0)
			for t := range 120 {
				recs = append(recs, logtest.MemorySamples(float64(t), int64(300*(1-math.Exp(-float64(t)/40))+20)<<20)...)
			}
			return recs
		}, Passed, figures{"node_1_slope_bytes_per_s": 1.130e6, "node_1_slope_low_bytes_per_s": 8.02e5}},
		{"growing, too short to tell", func() []runlog.Record {
			recs := logtest.Even(0)
			for t := range 60 {
				recs = append(recs, logtest.MemorySamples(float64(t), int64(100+5*t)<<20)...)
			}
			return recs
		}, Passed, figures{"node_1_slope_bytes_per_s": 5 << 20}},
		{"up and down", func() []runlog.Record {
			recs := logtest.Even(0)
			for t := range 60 {
				recs = append(recs, logtest.MemorySamples(float64(t), int64(180+t*37%200)<<20)...)
			}
			return recs
		}, Passed, figures{"node_1_slope_bytes_per_s": 6.673e5, "node_1_slope_low_bytes_per_s": -1.5325e6}},
		{"client growing", func() []runlog.Record {
			recs := logtest.Even(100)
			for t := range 60 {
				recs = append(recs, runlog.ClientSample{
					TS:     float64(2 * t),
					Client: sample.Client{RSSBytes: int64(50+3*t) << 20},
				})
			}
			return recs
		}, Failed, figures{"client_growth_bytes": 126 << 20}},
		{"client growing, after it was resumed", func() []runlog.Record {
			recs := append(logtest.Even(100), runlog.Event{TS: 30, Kind: runlog.EventResumed})
			for t := range 60 {
				recs = append(recs, runlog.ClientSample{
					TS:     float64(2 * t),
					Client: sample.Client{RSSBytes: int64(50+3*t) << 20},
				})
			}
			return recs
		}, Passed, figures{"client_peak_bytes": 227 << 20, "client_growth_bytes": absent}},
		{
			"node unseen",
			with(even(20), runlog.NodeSample{TS: 9, ID: 2, Up: true, Node: sample.Node{RSSBytes: 1 << 20}}), Skipped,
			figures{"node_1_peak_bytes": absent, "node_2_peak_bytes": 1 << 20, "node_3_peak_bytes": absent},
		},
		{"down does not count", with(even(20), runlog.NodeSample{TS: 9, ID: 2}), Skipped, nil},
	},
	"network": {
		{"each once", even(100), Passed, figures{"resent_percent": 0, "retried_uploads": 0}},
		{"twice", changed(100, func(u *runlog.Upload) {
			if u.Seq%10 == 0 {
				u.SentBytes, u.Attempts = 2*u.SentBytes, 2
			}
		}), Failed, figures{"resent_percent": 8.183, "retried_uploads": 10}},
		{"less elsewhere hides nothing", changed(100, func(u *runlog.Upload) {
			u.SentBytes = u.SentBytes * 2 / 3
			if u.Seq%10 == 0 {
				u.SentBytes *= 3
			}
		}), Failed, figures{"resent_percent": 8.183, "retried_uploads": 0}},
		{"relay", relay, Passed, figures{"resent_percent": 0}},
		{"announce", announced(0), Passed, figures{"resent_percent": 0, "asked_again_bytes": absent}},
		{"announce, some sent again", announced(5), Failed, figures{"resent_percent": 10.09}},
		{"announce, some asked for again", func() []runlog.Record {
			return logtest.Mutate(announced(5)(), func(u *runlog.Upload) {
				u.AgainBytes = u.SentBytes - 2*u.Bytes
			})
		}, Passed, figures{"resent_percent": 0, "asked_again_bytes": 2.6876e8}},
		{"auto", func() []runlog.Record {
			recs := logtest.SetRun(announced(0)(), func(r *runlog.Run) { r.Delivery = runlog.DeliveryAuto })
			return logtest.Mutate(recs, func(u *runlog.Upload) {
				if u.Delivery = runlog.DeliveryAnnounce; u.Seq > 50 {
					u.Delivery, u.SentBytes = runlog.DeliveryBroadcast, 3*u.Bytes
				}
			})
		}, Passed, figures{"resent_percent": 0}},
		{"auto, and not said what by", func() []runlog.Record {
			return logtest.SetRun(announced(0)(), func(r *runlog.Run) { r.Delivery = runlog.DeliveryAuto })
		}, Skipped, nil},
		{
			"five nodes, three receivers", asked(100, func(r *runlog.Run) { r.Nodes = []int{1, 2, 3, 4, 5} }), Passed,
			figures{"resent_percent": 0},
		},
		{"five nodes, all of them sent to", fiveSent, Failed, figures{"resent_percent": 66.67}},
		{
			"share of the link", asked(100, func(r *runlog.Run) { r.Hosts.Client.LinkBytesPS = 2e9 }), Passed,
			figures{"link_percent": 44.41},
		},
		{"unknown delivery", asked(100, func(r *runlog.Run) { r.Delivery = "pigeon" }), Skipped, nil},
		{"nothing known", changed(100, func(u *runlog.Upload) { u.SentBytes = 0 }), Skipped, nil},
	},
	"hash_quality": {
		{"even", even(300), Passed, figures{"shares_p": 1}},
		{
			"first choice", logtest.Killed, Passed,
			figures{"first_choice_percent": 80, "first_choices_p": absent},
		},
		{"one-sided", changed(300, ownerOne), Failed, figures{"shares_p": 0}},
		{
			"no first choices", changed(300, func(u *runlog.Upload) { u.FirstNode = u.Owner%3 + 1 }), Failed,
			figures{"first_choice_percent": 0, "moved_uploads": 300, "moved_bytes": 4.0043e9},
		},
		{"some first choices known", changed(30, func(u *runlog.Upload) {
			if u.Seq > 4 {
				u.FirstChoice = new(u.Seq > 19)
			}
		}), Passed, figures{"first_choice_known": 26, "first_choice_percent": 42.31, "moved_uploads": 15}},
		{
			"as many as by chance", changed(300, func(u *runlog.Upload) { u.FirstNode = int(u.Seq%3) + 1 }), Passed,
			figures{"first_choice_percent": 50},
		},
		{"first choices as owners", changed(300, func(u *runlog.Upload) {
			u.FirstNode = u.Owner
			if u.Seq%5 == 0 {
				u.FirstNode = u.Owner%3 + 1
			}
		}), Passed, figures{"first_choice_percent": 80, "moved_uploads": 60, "moved_bytes": 8.014e8}},
		{"lopsided first choices", changed(300, func(u *runlog.Upload) {
			u.FirstNode = u.Owner
			if u.Seq%2 == 0 {
				u.FirstNode = 1
			}
		}), Failed, figures{"shares_p": 1, "first_choices_p": 0}},
		{"lopsided first choices of five nodes", func() []runlog.Record {
			recs := logtest.Mutate(logtest.Even(300), func(u *runlog.Upload) {
				u.Owner = int(u.Seq%5) + 1
				u.FirstNode = u.Owner
				if u.Seq%3 == 0 {
					u.FirstNode = 1
				}
			})
			return logtest.SetRun(recs, func(r *runlog.Run) { r.Nodes = []int{1, 2, 3, 4, 5} })
		}, Passed, figures{"first_choice_percent": 73.33, "first_choices_p": absent}},
		{"few", even(29), Skipped, nil},
		{"one node", logtest.Single, Skipped, nil},
		{"no owners", changed(60, func(u *runlog.Upload) { u.Owner = 0 }), Skipped, nil},
		{
			"node was down", with(changed(300, ownerOne), runlog.Event{TS: 2, Kind: runlog.EventPause, Node: 2}),
			Skipped,
			figures{"shares_p": 0},
		},
	},
	"fault_tolerance": {
		{"no event", even(100), Skipped, nil},
		{
			"information only",
			with(even(100), runlog.Event{TS: 1, Kind: runlog.EventNodeUp, Node: 1}, runlog.Event{
				TS:   1,
				Kind: "phase",
			}),
			Skipped, nil,
		},
		{
			"survived", logtest.Killed, Passed,
			figures{"faults": 1, "failed_uploads": 0, "longest_pause_s": 1.359},
		},
		{
			"two faults",
			with(even(300), runlog.Event{TS: 1, Kind: runlog.EventKill, Node: 1}, runlog.Event{
				TS:   2,
				Kind: runlog.EventNodeDown,
				Node: 2,
			}),
			Passed,
			figures{"faults": 2},
		},
		{
			"lost uploads",
			with(changed(100, func(u *runlog.Upload) {
				u.OK = u.Seq%10 != 0
			}), runlog.Event{TS: 1, Kind: runlog.EventNodeDown}),
			Failed,
			figures{"failed_uploads": 10},
		},
		{
			"chaos", logtest.Chaos, Passed,
			figures{
				"faults": 3, "faults_planned": 3, "faults_survived": 3, "failed_uploads": 0,
				"longest_pause_s": 1.174, "longest_pause_after_kill_s": 0.66, "read_back_images": 300,
				"read_back_same": 300,
			},
		},
		{
			"chaos, other bytes", readAs(runlog.Readback{Images: 300, Matched: 299, Mismatched: 1}), Failed,
			figures{"read_back_same": 299, "read_back_mismatched": 1},
		},
		{
			"chaos, missing", readAs(runlog.Readback{Images: 300, Matched: 298, Missing: 2}), Failed,
			figures{"read_back_same": 298, "read_back_missing": 2},
		},
		{
			"chaos, unreadable", readAs(runlog.Readback{Images: 300, Matched: 297, Unread: 3}), Failed,
			figures{"read_back_same": 297, "read_back_unread": 3},
		},
		{
			"chaos, reading stopped", readAs(runlog.Readback{Images: 300, Matched: 17}), Skipped,
			figures{"read_back_images": 300, "read_back_same": 17},
		},
		{
			"chaos, stopped on a bad one", readAs(runlog.Readback{Images: 300, Matched: 17, Missing: 1}), Failed,
			figures{"read_back_missing": 1},
		},
		{
			"chaos, not read back", readAs(nil), Skipped,
			figures{"faults_survived": 3, "read_back_images": absent},
		},
		{"chaos, lost uploads", func() []runlog.Record {
			return logtest.Mutate(logtest.Chaos(), func(u *runlog.Upload) { u.OK = u.Seq != 50 })
		}, Failed, figures{"failed_uploads": 1}},
		{"chaos, not all faults", func() []runlog.Record {
			return logtest.SetRun(logtest.Chaos(), func(r *runlog.Run) { r.Faults = 4 })
		}, Failed, figures{"faults_planned": 4, "faults_survived": 3}},
		{"chaos, no fault", func() []runlog.Record {
			recs := append(logtest.Even(60), runlog.Readback{Images: 60, Matched: 60})
			return logtest.SetRun(recs, func(r *runlog.Run) { r.Faults = 3 })
		}, Failed, figures{"faults_planned": 3, "faults_survived": 0, "failed_uploads": 0}},
		{"chaos, copies not made", func() []runlog.Record {
			recs := logtest.Chaos()
			for i, rec := range recs {
				if e, ok := rec.(runlog.Event); ok && e.Kind == runlog.EventHealed && e.Node == 1 {
					e.Kind = runlog.EventUnhealed
					recs[i] = e
				}
			}
			return recs
		}, Failed, figures{"faults_survived": 2}},
		{
			"chaos, one more", with(logtest.Chaos, runlog.Event{TS: 3.5, Kind: runlog.EventNodeDown, Node: 3}), Passed,
			figures{"faults": 4, "faults_planned": 3, "faults_survived": 3},
		},
		{"chaos, long pause", func() []runlog.Record {
			return logtest.Mutate(logtest.Chaos(), func(u *runlog.Upload) {
				if u.StartS > 5.9 {
					u.StartS += 15
				}
			})
		}, Failed, figures{"longest_pause_s": 13.374}},
		{
			"nobody answers any more", with(changed(100, func(u *runlog.Upload) {
				if u.StartS > 2 {
					u.OK, u.LatencyS = false, 5
				}
			}),
				runlog.Event{TS: 2.5, Kind: runlog.EventNodeDown, Node: 1},
				runlog.Event{TS: 2.5, Kind: runlog.EventNodeDown, Node: 2},
				runlog.Event{TS: 2.5, Kind: runlog.EventNodeDown, Node: 3}),
			Failed,
			figures{"faults": 3, "failed_uploads": 50, "longest_pause_s": 6.639},
		},
		{
			"after the end", with(even(100), runlog.Event{TS: 99, Kind: runlog.EventKill, Node: 1}), Skipped,
			nil,
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

// announced are uploads that were sent to two nodes, every so many to a third one.
func announced(thirdEvery int64) func() []runlog.Record {
	return func() []runlog.Record {
		return logtest.SetRun(logtest.Mutate(logtest.Even(100), func(u *runlog.Upload) {
			if u.SentBytes = 2 * u.Bytes; thirdEvery > 0 && u.Seq%thirdEvery == 0 {
				u.SentBytes += u.Bytes
			}
		}), func(r *runlog.Run) { r.Delivery = runlog.DeliveryAnnounce })
	}
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
				if got.Status != c.want {
					t.Errorf("%s: %s; want %s", got.Status, got.Evidence, c.want)
				}
				if len(c.figures) == 0 && len(got.Figures) > 0 {
					t.Errorf("figures %v; want none", got.Figures)
				}
				c.figures.expect(t, got)
			})
		}
	}
}

var update = flag.Bool("update", false, "write the golden files")

// TestEvidence holds what the checks and the bottleneck say in words. Remake its file with:
// go test ./modes/report -run TestEvidence -update
func TestEvidence(t *testing.T) {
	var got strings.Builder
	for _, check := range checks {
		for _, c := range checkCases[check.name] {
			has := checkNamed(t, compute(t, c.records()...), check.name)
			fmt.Fprintf(&got, "%s, %s: %s\n  %s\n", check.name, c.name, has.Status, has.Evidence)
		}
	}
	for _, c := range bottleneckCases {
		has := compute(t, c.records()...).Bottleneck
		fmt.Fprintf(&got, "bottleneck, %s: %s\n  %s\n", c.name, has.Kind, has.Evidence)
	}
	path := filepath.Join("testdata", "evidence.txt")
	if *update {
		if err := os.WriteFile(path, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("%s is not as kept; look at the difference after a run with -update", path)
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

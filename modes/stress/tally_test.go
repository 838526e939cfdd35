package stress

import (
	"testing"

	"imgcluster/modes/runlog"
	"imgcluster/modes/stress/load"
)

func TestTallyBounds(t *testing.T) {
	f := NewTally(load.Options{
		Run:    runlog.Run{Count: 1},
		Resume: &load.Resume{AtS: 20, Done: map[int64]bool{1: true}},
	})
	f.Take(runlog.Upload{Seq: 2, StartS: 21, LatencyS: 4, OK: true, Bytes: 1000, Attempts: 1})
	// More uploads than planned, as when an upload of a resumed run is repeated.
	if g := f.Figures(); g.Part != 1 || g.Rest != 0 {
		t.Errorf("%v of it is done, %v are left", g.Part, g.Rest)
	}
	// A whole day: no more than secondsKept are kept.
	f.Take(runlog.Upload{Seq: 3, StartS: 90_000, LatencyS: 1, OK: true, Attempts: 1})
	f.Take(runlog.Upload{Seq: 4, StartS: 30, LatencyS: 1, OK: true, Attempts: 1})
	if len(f.seconds) != secondsKept || f.seconds[secondsKept-1].uploads != 1 {
		t.Errorf("%d seconds are kept", len(f.seconds))
	}
}

package stress

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"imgcluster/modes/runlog"
	"imgcluster/modes/stress/load"
)

const (
	rateSeconds   = 5    // over which the recent rate is taken
	secondsKept   = 3600 // whose rates are kept, for the curve
	eventsKept    = 32
	latencyMax    = 10 * time.Minute
	latencyDigits = 2
)

// Tally adds up the records of a run under way. It is safe for concurrent use.
type Tally struct {
	run    runlog.Run
	faults func() string // the state of a chaos run; nil for another

	Waiting atomic.Int64 // uploads that wait for memory

	mu      sync.Mutex
	done    int64   // uploads that ended, those before an interruption included
	now     float64 // on the run's clock
	begun   float64 // when the run began or was resumed, on its clock
	uploads int64   // that ended since then
	failed  int64
	retried int64
	reads   int64
	unread  int64
	bytes   int64
	seconds []second                // the last secondsKept ones
	first   int                     // number of the first in seconds
	latency *hdrhistogram.Histogram // in µs, from when an upload was due
	service *hdrhistogram.Histogram // in µs, from when it began
	nodes   []NodeFigures
	client  Sampled[runlog.ClientSample]
	events  []string
	after   stage // zero while uploads are made
}

// stage follows the uploads, such as reading all images back. Since it makes no records, it has a clock
// of its own.
type stage struct {
	what        string // is done with the images
	begun       time.Time
	at          float64 // begun on the run's clock
	done, total int64
}

// second is what was done in one second.
type second struct{ uploads, bytes int64 }

// NewTally returns the tally of a run that is about to begin or to be resumed.
func NewTally(o load.Options) *Tally {
	f := &Tally{run: o.Run}
	f.latency = hdrhistogram.New(1, latencyMax.Microseconds(), latencyDigits)
	f.service = hdrhistogram.New(1, latencyMax.Microseconds(), latencyDigits)
	for _, id := range o.Run.Nodes {
		f.nodes = append(f.nodes, NodeFigures{ID: id})
	}
	if o.Resume != nil {
		f.done = int64(len(o.Resume.Done))
		f.begun = o.Resume.AtS
		f.now = o.Resume.AtS
	}
	f.first = int(f.begun)
	return f
}

// Take adds a record.
func (f *Tally) Take(rec runlog.Record) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch r := rec.(type) {
	case runlog.Upload:
		f.upload(&r)
	case runlog.ReadOp:
		f.reads++
		if !r.OK {
			f.unread++
		}
		f.now = max(f.now, r.StartS+r.LatencyS)
	case runlog.NodeSample:
		f.node(r.ID).add(r)
		f.now = max(f.now, r.TS)
	case runlog.ClientSample:
		f.client.add(r)
		f.now = max(f.now, r.TS)
	case runlog.Event:
		f.event(r)
	}
}

func (f *Tally) upload(u *runlog.Upload) {
	end := u.StartS + u.LatencyS
	f.now = max(f.now, end)
	f.done++
	f.uploads++
	if u.Attempts > 1 {
		f.retried++
	}
	if !u.OK {
		f.failed++
		return
	}
	f.bytes += u.Bytes
	if s := f.second(int(end)); s != nil {
		s.uploads++
		s.bytes += u.Bytes
	}
	if u.Owner != 0 {
		f.node(u.Owner).Uploads++
	}
	if u.Warmup {
		return
	}
	due := u.StartS
	if u.ScheduledS != nil {
		due = *u.ScheduledS
	}
	record(f.latency, end-due)
	record(f.service, u.LatencyS)
}

// record adds a time in seconds. One beyond the histogram's range counts as its end.
func record(h *hdrhistogram.Histogram, s float64) {
	us := int64(s * 1e6)
	h.RecordValue(min(max(us, h.LowestTrackableValue()), h.HighestTrackableValue()))
}

// second returns the second in which an upload ended; nil when that is no longer kept.
func (f *Tally) second(at int) *second {
	for at-f.first >= len(f.seconds) {
		f.seconds = append(f.seconds, second{})
	}
	if over := len(f.seconds) - secondsKept; over > 0 {
		f.seconds = slices.Delete(f.seconds, 0, over)
		f.first += over
	}
	if at < f.first {
		return nil
	}
	return &f.seconds[at-f.first]
}

// node returns a node's figures, new ones for a node that has joined meanwhile.
func (f *Tally) node(id int) *NodeFigures {
	byID := func(n NodeFigures, id int) int { return cmp.Compare(n.ID, id) }
	i, ok := slices.BinarySearchFunc(f.nodes, id, byID)
	if !ok {
		f.nodes = slices.Insert(f.nodes, i, NodeFigures{ID: id})
	}
	return &f.nodes[i]
}

func (f *Tally) event(e runlog.Event) {
	f.now = max(f.now, e.TS)
	text := strings.ReplaceAll(e.Kind, "_", " ")
	if e.Node != 0 {
		text = strings.Replace(text, "node", fmt.Sprintf("node %d", e.Node), 1)
	}
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	f.note(fmt.Sprintf("%7.1f s  %s", e.TS, text))
}

// Note adds a line to the events.
func (f *Tally) Note(text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note(text)
}

// Held: mu.
func (f *Tally) note(text string) {
	if len(f.events) == eventsKept {
		f.events = slices.Delete(f.events, 0, 1)
	}
	f.events = append(f.events, text)
}

// rate returns the rate of the last rateSeconds whole seconds. Held: mu.
func (f *Tally) rate() (r Rate) {
	end := int(f.now) - f.first // the present second does not count
	from := max(end-rateSeconds, 0)
	if end <= from {
		return f.average()
	}
	for i := from; i < end && i < len(f.seconds); i++ {
		r.Uploads += float64(f.seconds[i].uploads)
		r.Bytes += float64(f.seconds[i].bytes)
	}
	return Rate{r.Uploads / float64(end-from), r.Bytes / float64(end-from)}
}

// average returns the rate since the run began or was resumed. Held: mu.
func (f *Tally) average() Rate {
	passed := f.now - f.begun
	if passed <= 0 {
		return Rate{}
	}
	return Rate{float64(f.uploads-f.failed) / passed, float64(f.bytes) / passed}
}

// progress returns the part of the run that is done, and how long the rest will take, 0 when that is not
// known. Held: mu.
func (f *Tally) progress() (part float64, rest time.Duration) {
	if f.run.DurationS > 0 {
		part = min(f.now/f.run.DurationS, 1)
		return part, time.Duration(max(f.run.DurationS-f.now, 0) * float64(time.Second))
	}
	left := max(f.run.Count-f.done, 0)
	part = min(float64(f.done)/float64(max(f.run.Count, 1)), 1)
	if rate := f.rate().Uploads; rate > 0 {
		rest = time.Duration(float64(left) / rate * float64(time.Second))
	}
	return part, rest
}

// SetStage updates the progress of the stage after the uploads.
func (f *Tally) SetStage(what string, done, total int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.after.what != what {
		f.after = stage{what: what, begun: time.Now(), at: f.now}
	}
	f.after.done = done
	f.after.total = total
}

// clock returns the time on the run's clock. Held: mu.
func (f *Tally) clock() float64 {
	if f.after.what == "" {
		return f.now
	}
	return max(f.now, f.after.at+time.Since(f.after.begun).Seconds())
}

// progress returns the part of the stage that is done, and how long the rest will take, 0 when that is
// not known.
func (s *stage) progress() (part float64, rest time.Duration) {
	if s.done > 0 {
		rest = time.Duration(float64(time.Since(s.begun)) / float64(s.done) * float64(s.total-s.done))
	}
	return float64(s.done) / float64(max(s.total, 1)), rest
}

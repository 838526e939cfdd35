package runlog

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
)

// recordsMax bounds the records of each type that are kept, and so the memory of Read: about 120 bytes for an
// upload, as many for a sample of a node.
const recordsMax = 4 << 20

// plannedMax bounds the uploads for which memory is allocated at once when a run record announces them.
const plannedMax = 1 << 20

// NamesMax bounds the different classes, error texts and event kinds that are kept; those that
// come later are counted under OtherName.
const (
	NamesMax  = 256
	OtherName = "other"
)

// The errors of Read: each is a *ReadError that wraps one of these.
var (
	ErrNotALog     = errors.New("not the log of a run")
	ErrBadLine     = errors.New("bad line")
	ErrNewerSchema = errors.New("log of a newer version")
	ErrSeveralRuns = errors.New("more than one run")
	ErrEncoding    = errors.New("not UTF-8")
	ErrCompressed  = errors.New("compressed")
)

// ReadError says which line of a log cannot be read, why, and what to do next. Lines count from 1.
type ReadError struct {
	Line   int
	Detail string
	Err    error // one of the sentinels above
	hint   string
}

func (e *ReadError) Error() string { return fmt.Sprintf("%v: line %d: %s", e.Err, e.Line, e.Detail) }

// Hint returns the next step.
func (e *ReadError) Hint() string { return e.hint }

// ExitStatus returns the program's exit status 2: the log that was given has to change.
func (e *ReadError) ExitStatus() int { return 2 }

// Unwrap returns the sentinel.
func (e *ReadError) Unwrap() error { return e.Err }

// Log is what Read keeps of a log. It does not change afterwards, so that it is safe for concurrent readers.
type Log struct {
	Run    Run  // zero when the log has no run record
	HasRun bool // it has one

	Uploads  []UploadOutcome // by Seq, without those of the warm-up
	Reads    []Outcome       // by StartS, without those of the warm-up
	Warmup   Warmup          // what was left out
	Nodes    []NodeSample    // by TS; see NotSampled
	Client   []ClientSample  // by TS; see NotSampled
	Events   []LoggedEvent   // by TS
	Owned    map[int]OwnedAt // by node, in the first sample that has it
	Readback *Readback       // nil when there is none

	ElapsedS float64 // of the last end record
	Ended    bool    // there is one, and the run was not resumed after it
	Cut      bool    // the last line is truncated
	Unknown  int     // uploads and reads without an outcome, events without a kind
	Repeated int     // upload records whose Seq came again later

	cleaning bool     // the deletion of its images began
	cleaned  *Cleaned // nil when there is none

	classes, reasons, kinds, details names

	lines  int          // that have a type
	known  int          // lines of a type that is known
	ids    map[int]bool // nodes mentioned
	latest map[int]NodeSample
}

// Warmup sums up the operations of the run's warm-up, which take no part in its figures.
type Warmup struct {
	Uploads, Reads, Failed int
	Owned                  map[int]Load // by node
}

// Outcome is what became of an upload or a read. Times are seconds.
type Outcome struct {
	Bytes     int64
	StartS    float64
	LatencyS  float64
	waitS     float64 // from when it was due to its start; 0 in a closed loop
	Reason    string  // of a failure
	OK        bool
	Warmup    bool
	Scheduled bool // it was due at a time: of an open loop
	Timed     bool // StartS and LatencyS are known
}

// FinishS returns when the operation ended.
func (o *Outcome) FinishS() float64 { return o.StartS + o.LatencyS }

// TookS returns the latency from when the operation was due, so that a generator that was held up does not
// hide it.
func (o *Outcome) TookS() float64 { return o.waitS + o.LatencyS }

// Measured reports whether the operation succeeded and its latency is known.
func (o *Outcome) Measured() bool { return o.OK && o.Timed }

// UploadOutcome is what the log says of an upload. Figures that are not known are 0.
type UploadOutcome struct {
	Outcome
	Seq       int64
	Sent      int64 // bytes
	Again     int64 // of Sent, see Upload.AgainBytes
	Owner     int
	FirstNode int // the hash's first choice
	Attempts  int
	Class     string
	Choice    Choice
	Counted   bool // Sent is known
	By        By   // with DeliveryAuto
	lacking   bool // the outcome is not known; finish drops these
}

// By is the delivery of an upload, 0 when the log does not say it.
type By uint8

// bys are the deliveries of uploads, in the order of By from 1 on.
var bys = []string{DeliveryBroadcast, DeliveryAnnounce, DeliveryRelay}

func (b By) String() string {
	if b == 0 {
		return ""
	}
	return bys[b-1]
}

// byOf returns the By of a delivery's name.
func byOf(name *string) By {
	if name == nil {
		return 0
	}
	return By(1 + slices.Index(bys, *name))
}

// Choice is whether the owner was the hash's first choice.
type Choice uint8

// The choices.
const (
	ChoiceUnknown Choice = iota
	ChoiceFirst
	ChoiceOther
)

// NotSampled is the value of a counter that no sample had yet. A counter that a sample leaves out has not
// grown since the one before; other figures are 0 then.
const NotSampled = -1

// LoggedEvent is an event, and whether its time is known.
type LoggedEvent struct {
	Event
	Timed bool
}

// Load is a number of images and their bytes.
type Load struct{ Images, Bytes int64 }

// Add adds another load.
func (l *Load) Add(o Load) {
	l.Images += o.Images
	l.Bytes += o.Bytes
}

// OwnedAt is what a node owned at a time.
type OwnedAt struct {
	Load
	TS float64
}

const jsonSpace = " \t\r\n"

// Read reads a log, in any Form. It accepts fields and types that it does not know, a last line that is cut
// off (no line end, no whole object), uploads recorded twice (the later record counts), and a log without
// end. A field that is null is absent. Anything else that is wrong, a second run in the log too, is a
// *ReadError; an error of r is wrapped.
func Read(r io.Reader) (*Log, error) {
	l := &Log{
		ids: map[int]bool{}, latest: map[int]NodeSample{},
		Owned: map[int]OwnedAt{}, Warmup: Warmup{Owned: map[int]Load{}},
	}
	in, _, err := Plain(r)
	if err != nil {
		return nil, err
	}
	for n := 1; ; n++ {
		text, err := in.ReadSlice('\n')
		last := errors.Is(err, io.EOF)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return nil, l.refuse(n, fmt.Errorf("longer than %d bytes", lineBytesMax-1))
		case err != nil && !last:
			if e, ok := errors.AsType[*ReadError](err); ok {
				e.Line = n
				return nil, e
			}
			return nil, fmt.Errorf("reading the log: %w", err)
		}
		if err := l.take(bytes.Trim(text, jsonSpace), last); err != nil {
			return nil, l.refuse(n, err)
		}
		if last {
			return l.finish(n)
		}
	}
}

// refuse returns the error about line n. When no line before it was a record, the file is not a log.
func (l *Log) refuse(n int, err error) error {
	e := &ReadError{
		Line: n, Detail: err.Error(), Err: ErrBadLine,
		hint: "take the line out of the log, or make the run again",
	}
	switch {
	case errors.Is(err, ErrNewerSchema):
		e.Err = ErrNewerSchema
		e.hint = "use the version of this program that wrote the log, or a newer one"
	case errors.Is(err, ErrSeveralRuns):
		e.Err, e.Detail = ErrSeveralRuns, "another one begins here"
		e.hint = fmt.Sprintf("give each run a log of its own: "+
			"head -n %d LOG > first.jsonl; tail -n +%d LOG > next.jsonl", n-1, n)
	case l.lines == 0:
		e.Err, e.hint = ErrNotALog, "give the log that stress wrote (default log.jsonl)"
	}
	return e
}

// finish puts the records in order; n is the number of the last line.
func (l *Log) finish(n int) (*Log, error) {
	if l.lines == 0 {
		return nil, l.refuse(n, errors.New("the file is empty"))
	}
	if l.known == 0 {
		l.lines = 0
		return nil, l.refuse(n, errors.New("no record of a run up to here"))
	}
	slices.SortStableFunc(l.Uploads, func(a, b UploadOutcome) int { return cmp.Compare(a.Seq, b.Seq) })
	slices.SortStableFunc(l.Reads, func(a, b Outcome) int { return cmp.Compare(a.StartS, b.StartS) })
	slices.SortStableFunc(l.Nodes, func(a, b NodeSample) int { return cmp.Compare(a.TS, b.TS) })
	slices.SortStableFunc(l.Client, func(a, b ClientSample) int { return cmp.Compare(a.TS, b.TS) })
	slices.SortStableFunc(l.Events, func(a, b LoggedEvent) int { return cmp.Compare(a.TS, b.TS) })
	l.dropRepeated()
	l.dropWarmup()
	return l, nil
}

// dropRepeated keeps the last record of every seq, and all records without one. It drops those without an
// outcome.
func (l *Log) dropRepeated() {
	kept := l.Uploads[:0]
	for i, u := range l.Uploads {
		if u.Seq != 0 && i+1 < len(l.Uploads) && l.Uploads[i+1].Seq == u.Seq {
			l.Repeated++
			continue
		}
		if u.lacking {
			l.Unknown++
			continue
		}
		kept = append(kept, u)
	}
	l.Uploads = kept
}

// dropWarmup sums up the operations of the warm-up and drops them.
func (l *Log) dropWarmup() {
	for i := range l.Uploads {
		if u := &l.Uploads[i]; u.Warmup && u.OK {
			o := l.Warmup.Owned[u.Owner]
			o.Add(Load{1, u.Bytes})
			l.Warmup.Owned[u.Owner] = o
		}
	}
	count := func(o *Outcome, n *int) bool {
		if o.Warmup {
			*n++
			if !o.OK {
				l.Warmup.Failed++
			}
		}
		return o.Warmup
	}
	l.Uploads = slices.DeleteFunc(l.Uploads, func(u UploadOutcome) bool {
		return count(&u.Outcome, &l.Warmup.Uploads)
	})
	l.Reads = slices.DeleteFunc(l.Reads, func(o Outcome) bool { return count(&o, &l.Warmup.Reads) })
}

// NodeIDs returns the nodes of the run, the lowest first; where the log does not say, those it mentions.
func (l *Log) NodeIDs() []int {
	if len(l.Run.Nodes) > 0 {
		return l.Run.Nodes
	}
	return slices.Sorted(maps.Keys(l.ids))
}

// LastUploadS returns when the last upload ended, successful or not.
func (l *Log) LastUploadS() (end float64) {
	for i := range l.Uploads {
		end = max(end, l.Uploads[i].FinishS())
	}
	return end
}

// LastS returns when the last upload or read ended.
func (l *Log) LastS() float64 {
	end := l.LastUploadS()
	for i := range l.Reads {
		end = max(end, l.Reads[i].FinishS())
	}
	return end
}

// names has one copy of each of the strings of a log, up to NamesMax of them.
type names struct{ copies map[string]string }

// keep returns the one copy of a name, or OtherName.
func (t *names) keep(name *string) string {
	if name == nil {
		return ""
	}
	s := cut(*name, errorBytesMax)
	if kept, ok := t.copies[s]; ok {
		return kept
	}
	if len(t.copies) >= NamesMax {
		return OtherName
	}
	if t.copies == nil {
		t.copies = map[string]string{}
	}
	t.copies[s] = s
	return s
}

package result

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// recordsMax bounds the records of one log that are kept, and so the memory of Read: 64 bytes
// for each upload, some more for a sample of a node.
const recordsMax = 4 << 20

// plannedMax bounds what is set aside at once for the uploads that a run record announces.
const plannedMax = 1 << 20

// namesMax bounds the different classes, error texts and event kinds that are kept; those that
// come later are counted under otherName.
const (
	namesMax  = 256
	otherName = "other"
)

// What Read finds wrong; every such error is a *ReadError that wraps one of these.
var (
	ErrNotALog     = errors.New("not the log of a run")
	ErrBadLine     = errors.New("bad line")
	ErrNewerSchema = errors.New("log of a newer version")
	ErrSeveralRuns = errors.New("more than one run")
	ErrEncoding    = errors.New("not UTF-8")
	ErrCompressed  = errors.New("compressed")
)

// ReadError says which line of a log cannot be used, why, and what to do next. Lines count from 1.
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

// Log is what Read keeps of a log, in compact form. It is not changed by
// Compute, and safe for concurrent readers.
type Log struct {
	Run Run // zero when the log has no run record

	uploads []upload // by seq, without those of the warm-up
	reads   []readOp // by their start, without those of the warm-up
	warm    warmup
	classes names
	reasons names
	kinds   names
	details names
	nodes   []nodeSample
	client  []clientSample
	events  []event
	back    *Readback // nil when there is none
	cleaned *Cleaned  // nil when there is none
	elapsed float64   // of the last end record
	ended   bool      // and the run did not go on after it

	cleaning bool // its images were deleted, or some of them
	unknown  int  // uploads, reads and events of which the log does not say what became of them, or what they are

	lines    int // lines that have a type
	known    int // lines of a type that is known
	runs     int
	repeated int // upload records whose seq came again later
	cut      bool
	ids      map[uint32]bool    // the nodes seen
	owned    map[uint32]ownedAt // by node, in its first sample
	latest   map[uint32]nodeSample
}

// warmup is what was left out.
type warmup struct {
	uploads, reads, failed int
	owned                  map[uint32]load // by node
}

// The kept part of the records, without pointers: the collector need not look into them.
type upload struct {
	seq, bytes, sent int64
	start, latency   float64
	wait             float64 // from when it was due to its start; 0 in a closed loop
	owner, attempts  uint32
	firstNode        uint32
	class, reason    uint16
	ok, warm         bool
	scheduled        bool
	timed            bool // start and latency are known
	counted          bool // sent is known
	lacking          bool // what became of it is not known; finish leaves these out
	choice           choice
}

type readOp struct {
	bytes                int64
	start, latency, wait float64
	reason               uint16
	ok, warm, scheduled  bool
	timed                bool // start and latency are known
}

// nodeSample is a NodeSample. A counter that a sample leaves out has not grown since the one before; it is notTold
// before the first that tells it. Of the other figures 0 is not known.
type nodeSample struct {
	t, cpu, diskBusy                            float64
	rss, free, rx, tx, staging, dread, dwritten int64
	id                                          uint32
	up                                          bool
}

// notTold is the value of a counter that no sample had yet.
const notTold = -1

type clientSample struct {
	t, cpu, late, source    float64
	rss, sent, read, flight int64
}

type event struct {
	t            float64
	node         uint32
	kind, detail uint16
	timed        bool
}

// choice tells whether the owner was the hash's first choice.
type choice uint8

const (
	choiceUnknown choice = iota
	choiceFirst
	choiceOther
)

func (u *upload) finish() float64 { return u.start + u.latency }

// took is the latency that counts: from when the upload was due, so that a generator that was held
// up does not hide it.
func (u *upload) took() float64 { return u.wait + u.latency }

// measured reports whether the latency counts: that of a success, where it is known.
func (u *upload) measured() bool { return u.ok && u.timed }

func (o *readOp) measured() bool  { return o.ok && o.timed }
func (o *readOp) finish() float64 { return o.start + o.latency }
func (o *readOp) took() float64   { return o.wait + o.latency }

func newLog() *Log {
	return &Log{ids: map[uint32]bool{}, owned: map[uint32]ownedAt{}, latest: map[uint32]nodeSample{}, warm: warmup{owned: map[uint32]load{}}}
}

// Read reads a log, in any Form. It takes fields and types that it does not know, a last line that is cut off
// (no line end, no whole object), uploads recorded twice (the later record counts), and a log
// without end. A field that is null is taken as absent. Anything else that is wrong, a second run in the log
// too, is a *ReadError; an error of r is returned as it is, wrapped.
func Read(r io.Reader) (*Log, error) {
	l := newLog()
	in, _, err := Plain(r)
	if err != nil {
		return nil, err
	}
	for n := 1; ; n++ {
		line, err := in.ReadSlice('\n')
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
		if err := l.take(line, last); err != nil {
			return nil, l.refuse(n, err)
		}
		if last {
			return l.finish(n)
		}
	}
}

// refuse makes the error of line n. When nothing before was a record, this is no log at all.
func (l *Log) refuse(n int, err error) error {
	e := &ReadError{Line: n, Detail: err.Error(), Err: ErrBadLine, hint: "take the line out of the log, or make the run again"}
	switch {
	case errors.Is(err, ErrNewerSchema):
		e.Err, e.hint = ErrNewerSchema, "use the version of this program that wrote the log, or a newer one"
	case errors.Is(err, ErrSeveralRuns):
		e.Err, e.Detail = ErrSeveralRuns, "another one begins here"
		e.hint = fmt.Sprintf("give each run a log of its own: head -n %d LOG > first.jsonl; tail -n +%d LOG > next.jsonl", n-1, n)
	case l.lines == 0:
		e.Err, e.hint = ErrNotALog, "give the log that stress wrote (default log.jsonl)"
	}
	return e
}

// take reads one line; unterminated tells that it has no line end.
func (l *Log) take(line []byte, unterminated bool) error {
	line = bytes.Trim(line, jsonSpace)
	if len(line) == 0 {
		return nil
	}
	if !json.Valid(line) {
		if unterminated && l.lines > 0 {
			l.cut = true
			return nil
		}
		return errors.New("not a JSON object")
	}
	typ, err := typeOf(line)
	if err != nil {
		return err
	}
	l.lines++
	return l.record(typ, line)
}

// typeOf returns the record's type, valid until the line is.
func typeOf(line []byte) ([]byte, error) {
	c, ok := object(line)
	if !ok {
		return nil, errors.New("not a JSON object")
	}
	for c.next() {
		if string(c.key) == "type" {
			return c.text(), c.err
		}
	}
	return nil, errors.New("an object without type")
}

// record keeps one record.
func (l *Log) record(typ, line []byte) error {
	c, _ := object(line)
	l.known++
	switch string(typ) {
	case "upload":
		return l.addUpload(c)
	case "read":
		return l.addRead(c)
	case "node":
		return l.addNode(c)
	case "client":
		return l.addClient(c)
	case "event":
		return l.addEvent(c)
	case "readback":
		return l.addReadback(c)
	case "cleaned":
		return l.addCleaned(c)
	case "plan":
		return l.addPlan(line)
	case "end":
		return l.addEnd(c)
	case "run":
		return l.addRun(line)
	}
	l.known--
	return nil
}

// addRun takes the run that the log is of.
func (l *Log) addRun(line []byte) error {
	var head struct {
		Schema json.Number `json:"schema"`
	}
	// The schema is looked at first: the other fields may mean something else in a newer one.
	if json.Unmarshal(line, &head) == nil {
		if v, err := head.Schema.Float64(); err == nil && v > Schema {
			return fmt.Errorf("schema %v, %w than %d", head.Schema, ErrNewerSchema, Schema)
		}
	}
	if l.known > 1 { // this one is counted
		return fmt.Errorf("another run begins here: %w", ErrSeveralRuns)
	}
	var run Run
	if err := json.Unmarshal(line, &run); err != nil {
		return jsonError(err)
	}
	if err := run.check(); err != nil {
		return err
	}
	slices.Sort(run.Nodes)
	run.Nodes = slices.Compact(run.Nodes)
	l.Run, l.runs, l.uploads = run, 1, make([]upload, 0, min(run.Count, plannedMax))
	for _, id := range run.Nodes {
		l.ids[uint32(id)] = true
	}
	return nil
}

// addPlan adds to what was planned.
func (l *Log) addPlan(line []byte) error {
	var more Plan
	if err := json.Unmarshal(line, &more); err != nil {
		return jsonError(err)
	}
	p := &l.Run.Plan
	p.Verify, p.Chaos, p.Cleanup = p.Verify || more.Verify, p.Chaos || more.Chaos, p.Cleanup || more.Cleanup
	return nil
}

// jsonError says in the log's words what encoding/json found.
func jsonError(err error) error {
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && e.Field != "" {
		return fmt.Errorf("%s is %s, want another type", e.Field, e.Value)
	}
	return errors.New(strings.TrimPrefix(err.Error(), "json: "))
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
	slices.SortStableFunc(l.uploads, func(a, b upload) int { return cmp.Compare(a.seq, b.seq) })
	slices.SortStableFunc(l.reads, func(a, b readOp) int { return cmp.Compare(a.start, b.start) })
	slices.SortStableFunc(l.nodes, func(a, b nodeSample) int { return cmp.Compare(a.t, b.t) })
	slices.SortStableFunc(l.client, func(a, b clientSample) int { return cmp.Compare(a.t, b.t) })
	slices.SortStableFunc(l.events, func(a, b event) int { return cmp.Compare(a.t, b.t) })
	l.dropRepeated()
	l.dropWarmup()
	return l, nil
}

// dropRepeated keeps the last record of every seq; records without one are all kept. What says nothing goes.
func (l *Log) dropRepeated() {
	kept := l.uploads[:0]
	for i, u := range l.uploads {
		if u.seq != 0 && i+1 < len(l.uploads) && l.uploads[i+1].seq == u.seq {
			l.repeated++
			continue
		}
		if u.lacking {
			l.unknown++
			continue
		}
		kept = append(kept, u)
	}
	l.uploads = kept
}

// dropWarmup leaves out what the run itself says is not to be judged.
func (l *Log) dropWarmup() {
	for i := range l.uploads {
		if u := &l.uploads[i]; u.warm && u.ok {
			o := l.warm.owned[u.owner]
			o.add(load{1, u.bytes})
			l.warm.owned[u.owner] = o
		}
	}
	warm := func(is, ok bool, n *int) bool {
		if is {
			*n++
			if !ok {
				l.warm.failed++
			}
		}
		return is
	}
	l.uploads = slices.DeleteFunc(l.uploads, func(u upload) bool { return warm(u.warm, u.ok, &l.warm.uploads) })
	l.reads = slices.DeleteFunc(l.reads, func(o readOp) bool { return warm(o.warm, o.ok, &l.warm.reads) })
}

// names gives small numbers to the strings of a log.
type names struct {
	list  []string
	known map[string]uint16
}

// index returns the number of name, a new one when it was not seen before.
func (t *names) index(name []byte) uint16 {
	if i, ok := t.known[string(name)]; ok {
		return i
	}
	s := strings.ToValidUTF8(cut(string(name), errorBytesMax), "\uFFFD")
	if len(t.list) >= namesMax {
		s = otherName
	}
	if t.known == nil {
		t.known = map[string]uint16{}
	}
	i, ok := t.known[s]
	if !ok {
		i = uint16(len(t.list))
		t.list = append(t.list, s)
		t.known[s] = i
	}
	return i
}

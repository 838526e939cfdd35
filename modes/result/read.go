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

// recordsMax bounds the records of one log that are kept, and so the memory of Read: about 56
// bytes each.
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
)

// ReadError says which line of a log cannot be used, why, and what to do next. Lines count from 1.
type ReadError struct {
	Line   int
	Detail string
	Hint   string
	Err    error // one of the sentinels above
}

func (e *ReadError) Error() string { return fmt.Sprintf("%v: line %d: %s", e.Err, e.Line, e.Detail) }

// Unwrap returns the sentinel.
func (e *ReadError) Unwrap() error { return e.Err }

// Log is what Read keeps of a log: the last run in it, in compact form. It is not changed by
// Compute, and safe for concurrent readers.
type Log struct {
	Run Run // zero when the log has no run record

	uploads []upload // by seq
	classes names
	reasons names
	kinds   names
	samples []sample
	events  []event
	back    *Readback // nil when there is none
	elapsed float64   // of the end record
	ended   bool

	lines    int // lines that have a type
	known    int // lines of a type that is known
	runs     int
	repeated int // upload records whose seq came again later
	cut      bool
	ids      map[uint32]bool // the nodes seen
}

// The kept part of the records, without pointers: the collector need not look into them.
type upload struct {
	seq, bytes, sent int64
	start, latency   float64
	owner, attempts  uint32
	class, reason    uint16
	ok               bool
	choice           choice
}

// sample is the memory of a node that was up, or of the client (id 0).
type sample struct {
	t   float64
	rss int64
	id  uint32
}

type event struct {
	t    float64
	node uint32
	kind uint16
}

// choice tells whether the owner was the hash's first choice.
type choice uint8

const (
	choiceUnknown choice = iota
	choiceFirst
	choiceOther
)

func (u *upload) finish() float64 { return u.start + u.latency }

// Read reads a log. It takes fields and types that it does not know, a last line that is cut off
// (no line end, no whole object), uploads recorded twice (the later record counts), and a log
// without end. Of several runs in one log the last one is kept. Anything else that is wrong is a
// *ReadError; an error of r is returned as it is, wrapped.
func Read(r io.Reader) (*Log, error) {
	l := &Log{ids: map[uint32]bool{}}
	in := bufio.NewReaderSize(r, lineBytesMax)
	for n := 1; ; n++ {
		line, err := in.ReadSlice('\n')
		last := errors.Is(err, io.EOF)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return nil, l.refuse(n, fmt.Errorf("longer than %d bytes", lineBytesMax-1))
		case err != nil && !last:
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
	e := &ReadError{Line: n, Detail: err.Error(), Err: ErrBadLine, Hint: "take the line out of the log, or make the run again"}
	switch {
	case errors.Is(err, ErrNewerSchema):
		e.Err, e.Hint = ErrNewerSchema, "use the version of this program that wrote the log, or a newer one"
	case l.lines == 0:
		e.Err, e.Hint = ErrNotALog, "give the log that stress wrote (default log.jsonl)"
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
	case "node":
		return l.addNode(c)
	case "client":
		return l.addClient(c)
	case "event":
		return l.addEvent(c)
	case "readback":
		return l.addReadback(c)
	case "end":
		return l.addEnd(c)
	case "run":
		return l.addRun(line)
	}
	l.known--
	return nil
}

// addRun starts over: of appended runs the last one counts.
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
	var run Run
	if err := json.Unmarshal(line, &run); err != nil {
		return jsonError(err)
	}
	if err := run.check(); err != nil {
		return err
	}
	slices.Sort(run.Nodes)
	run.Nodes = slices.Compact(run.Nodes)
	*l = Log{Run: run, uploads: make([]upload, 0, min(run.Count, plannedMax)), lines: l.lines, known: l.known, runs: l.runs + 1, ids: map[uint32]bool{}}
	for _, id := range run.Nodes {
		l.ids[uint32(id)] = true
	}
	return nil
}

// jsonError says in the log's words what encoding/json found.
func jsonError(err error) error {
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && e.Field != "" {
		return fmt.Errorf("%s is %s, want another type", e.Field, e.Value)
	}
	return errors.New(strings.TrimPrefix(err.Error(), "json: "))
}

func (l *Log) addUpload(c cursor) error {
	var u upload
	var class, reason []byte
	for c.next() {
		switch string(c.key) {
		case "seq":
			u.seq = c.whole(countMax)
		case "class":
			class = c.text()
		case "bytes":
			u.bytes = c.whole(bytesMax)
		case "start_s":
			u.start = c.number(secondsMax)
		case "latency_s":
			u.latency = c.number(secondsMax)
		case "ok":
			u.ok = c.flag()
		case "error":
			reason = c.text()
		case "owner":
			u.owner = uint32(c.whole(nodeIDMax))
		case "attempts":
			u.attempts = uint32(c.whole(attemptsMax))
		case "sent_bytes":
			u.sent = c.whole(bytesMax)
		case "first_choice":
			u.choice = c.choice()
		}
	}
	u.class = l.classes.index(class)
	if !u.ok {
		u.reason = l.reasons.index(reason)
	}
	if err := first(c.err, l.seen(u.owner), full("upload", len(l.uploads))); err != nil {
		return err
	}
	l.uploads = append(l.uploads, u)
	return nil
}

func (c *cursor) choice() choice {
	switch {
	case c.isNull():
		return choiceUnknown
	case c.flag():
		return choiceFirst
	}
	return choiceOther
}

// addNode keeps the sample of a node that is up; one that is down has no memory to look at.
func (l *Log) addNode(c cursor) error {
	var s sample
	var up bool
	for c.next() {
		switch string(c.key) {
		case "t_s":
			s.t = c.number(secondsMax)
		case "id":
			s.id = uint32(c.whole(nodeIDMax))
		case "up":
			up = c.flag()
		case "rss_bytes":
			s.rss = c.whole(sampleMax)
		case "cpu_s":
			c.number(secondsMax)
		case "disk_free_bytes", "net_rx_bytes", "net_tx_bytes":
			c.whole(sampleMax)
		}
	}
	if err := first(c.err, within("id", int64(s.id), 1, nodeIDMax), l.seen(s.id), full("sample", len(l.samples))); err != nil {
		return err
	}
	if up && s.rss > 0 {
		l.samples = append(l.samples, s)
	}
	return nil
}

func (l *Log) addClient(c cursor) error {
	var s sample
	for c.next() {
		switch string(c.key) {
		case "t_s":
			s.t = c.number(secondsMax)
		case "rss_bytes":
			s.rss = c.whole(sampleMax)
		case "cpu_s":
			c.number(secondsMax)
		}
	}
	if err := first(c.err, full("sample", len(l.samples))); err != nil {
		return err
	}
	if s.rss > 0 {
		l.samples = append(l.samples, s)
	}
	return nil
}

func (l *Log) addEvent(c cursor) error {
	var e event
	var kind []byte
	for c.next() {
		switch string(c.key) {
		case "t_s":
			e.t = c.number(secondsMax)
		case "kind":
			kind = c.text()
		case "node":
			e.node = uint32(c.whole(nodeIDMax))
		}
	}
	if err := first(c.err, full("event", len(l.events))); err != nil {
		return err
	}
	e.kind = l.kinds.index(kind)
	l.events = append(l.events, e)
	return nil
}

func (l *Log) addReadback(c cursor) error {
	b := &Readback{}
	for c.next() {
		switch string(c.key) {
		case "images":
			b.Images = c.whole(countMax)
		case "matched":
			b.Matched = c.whole(countMax)
		case "mismatched":
			b.Mismatched = c.whole(countMax)
		case "missing":
			b.Missing = c.whole(countMax)
		case "unread":
			b.Unread = c.whole(countMax)
		case "bytes":
			b.Bytes = c.whole(sampleMax)
		case "elapsed_s":
			b.ElapsedS = c.number(secondsMax)
		}
	}
	l.back = b
	return c.err
}

func (l *Log) addEnd(c cursor) error {
	for c.next() {
		if string(c.key) == "elapsed_s" {
			l.elapsed = c.number(secondsMax)
		}
	}
	l.ended = true
	return c.err
}

// seen remembers that node id is in the log; 0 is none.
func (l *Log) seen(id uint32) error {
	if id == 0 || l.ids[id] {
		return nil
	}
	if len(l.ids) == nodesMax {
		return fmt.Errorf("more than %d different nodes", nodesMax)
	}
	l.ids[id] = true
	return nil
}

func full(what string, n int) error {
	if n < recordsMax {
		return nil
	}
	return fmt.Errorf("more than %d records of type %s", recordsMax, what)
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
	slices.SortStableFunc(l.samples, func(a, b sample) int { return cmp.Compare(a.t, b.t) })
	slices.SortStableFunc(l.events, func(a, b event) int { return cmp.Compare(a.t, b.t) })
	l.dropRepeated()
	return l, nil
}

// dropRepeated keeps the last record of every seq; records without one are all kept.
func (l *Log) dropRepeated() {
	kept := l.uploads[:0]
	for i, u := range l.uploads {
		if u.seq != 0 && i+1 < len(l.uploads) && l.uploads[i+1].seq == u.seq {
			l.repeated++
			continue
		}
		kept = append(kept, u)
	}
	l.uploads = kept
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

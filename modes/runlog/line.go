package runlog

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"

	"imgcluster/cluster/sample"
)

// line has the fields that Read keeps of a line, of all types but run, plan and the figures of samples. A
// field that is absent or null is nil, which is never the same as 0. A whole number may be written as 9e6.
type line struct {
	Type *string `json:"type"`

	Seq         *float64        `json:"seq"`
	ID          json.RawMessage `json:"id"` // a node's number; an upload's is a text
	Class       *string         `json:"class"`
	Bytes       *float64        `json:"bytes"`
	StartS      *float64        `json:"start_s"`
	LatencyS    *float64        `json:"latency_s"`
	OK          *bool           `json:"ok"`
	Error       *string         `json:"error"`
	Owner       *float64        `json:"owner"`
	Attempts    *float64        `json:"attempts"`
	SentBytes   *float64        `json:"sent_bytes"`
	AgainBytes  *float64        `json:"again_bytes"`
	Delivery    *string         `json:"delivery"`
	FirstChoice *bool           `json:"first_choice"`
	FirstNode   *float64        `json:"first_node"`
	ScheduledS  *float64        `json:"scheduled_s"`
	Warmup      *bool           `json:"warmup"`

	TS *float64 `json:"t_s"`
	Up *bool    `json:"up"`

	Kind   *string  `json:"kind"`
	Node   *float64 `json:"node"`
	Detail *string  `json:"detail"`

	Images     *float64 `json:"images"`
	Matched    *float64 `json:"matched"`
	Mismatched *float64 `json:"mismatched"`
	Missing    *float64 `json:"missing"`
	Unread     *float64 `json:"unread"`
	Failed     *float64 `json:"failed"`
	WonBack    *float64 `json:"won_back_bytes"`
	ElapsedS   *float64 `json:"elapsed_s"`

	text []byte // the whole line
	err  error  // about the first field that is wrong
}

// take adds one line to the log; unterminated means that it has no line end.
func (l *Log) take(text []byte, unterminated bool) error {
	if len(text) == 0 {
		return nil
	}
	var in line
	err := json.Unmarshal(text, &in)
	if _, malformed := errors.AsType[*json.SyntaxError](err); malformed || text[0] != '{' {
		if malformed && unterminated && l.lines > 0 {
			l.Cut = true
			return nil
		}
		return errors.New("not a JSON object")
	}
	in.text, in.err = text, jsonError(err)
	if bad, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && bad.Field == "type" {
		return in.err
	}
	if in.Type == nil {
		return errors.New("an object without type")
	}
	l.lines++
	l.known++
	switch *in.Type {
	case "upload":
		return l.addUpload(&in)
	case "read":
		return l.addRead(&in)
	case "node":
		return l.addNode(&in)
	case "client":
		return l.addClient(&in)
	case "event":
		return l.addEvent(&in)
	case "readback":
		return l.addReadback(&in)
	case "cleaned":
		return l.addCleaned(&in)
	case "end":
		return l.addEnd(&in)
	case "plan":
		return l.addPlan(text)
	case "run":
		return l.addRun(text)
	}
	l.known--
	return nil
}

// jsonError returns an error of encoding/json in the log's words, and any other as it is.
func jsonError(err error) error {
	e, ok := errors.AsType[*json.UnmarshalTypeError](err)
	switch {
	case !ok:
		return err
	case e.Field == "":
		return errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	kind := e.Type.Kind()
	if number, tooLarge := strings.CutPrefix(e.Value, "number "); tooLarge && kind == reflect.Float64 {
		return fmt.Errorf("%s is %s, %w", e.Field, number, errRange)
	}
	want := "another type"
	switch kind {
	case reflect.Float64:
		want = "a number"
	case reflect.Bool:
		want = "true or false"
	case reflect.String:
		want = "a string"
	}
	return fmt.Errorf("%s is %s, want %s", e.Field, e.Value, want)
}

// number returns a field, from 0 to most; 0 when it is absent.
func (in *line) number(name string, v *float64, most float64) float64 {
	if v == nil {
		return 0
	}
	if err := within(name, *v, 0, most); err != nil && in.err == nil {
		in.err = err
	}
	return *v
}

// whole is number without a fraction.
func (in *line) whole(name string, v *float64, most int64) int64 {
	f := in.number(name, v, float64(most))
	if f != math.Trunc(f) && in.err == nil {
		in.err = fmt.Errorf("%s is %v, want a whole number", name, f)
	}
	if in.err != nil {
		return 0
	}
	return int64(f)
}

func (in *line) id(name string, v *float64) int { return int(in.whole(name, v, nodeIDMax)) }

// The figures that are read of samples.
var (
	nodeFigures   = sample.NewDecoder(sample.Nodes)
	clientFigures = sample.NewDecoder(sample.Clients)
)

// figures reads the figures of a sample into s, and reports which ones the line has. A counter that it does
// not have is what it was in the sample before, or NotSampled.
func (in *line) figures(figures *sample.Decoder, s, before any, known bool) (has []bool) {
	values := figures.Values(before)
	for i, f := range figures.Figures {
		switch {
		case !f.Counter:
			values[i] = 0
		case !known:
			values[i] = NotSampled
		}
	}
	has, err := figures.Decode(in.text, values)
	in.err = first(in.err, jsonError(err))
	figures.Set(s, values)
	return has
}

func isTrue(v *bool) bool { return v != nil && *v }

// outcome reads what uploads and reads have in common.
func (l *Log) outcome(in *line) Outcome {
	o := Outcome{
		Bytes:     in.whole("bytes", in.Bytes, bytesMax),
		StartS:    in.number("start_s", in.StartS, secondsMax),
		LatencyS:  in.number("latency_s", in.LatencyS, secondsMax),
		OK:        isTrue(in.OK),
		Warmup:    isTrue(in.Warmup),
		Timed:     in.StartS != nil && in.LatencyS != nil,
		Scheduled: in.ScheduledS != nil,
	}
	if due := in.number("scheduled_s", in.ScheduledS, secondsMax); o.Timed && o.Scheduled {
		o.waitS = max(0, o.StartS-due)
	}
	if !o.OK {
		o.Reason = l.reasons.keep(in.Error)
	}
	return o
}

func (l *Log) addUpload(in *line) error {
	u := UploadOutcome{
		Outcome:   l.outcome(in),
		Seq:       in.whole("seq", in.Seq, countMax),
		Sent:      in.whole("sent_bytes", in.SentBytes, bytesMax),
		Again:     in.whole("again_bytes", in.AgainBytes, bytesMax),
		By:        byOf(in.Delivery),
		Owner:     in.id("owner", in.Owner),
		FirstNode: in.id("first_node", in.FirstNode),
		Attempts:  int(in.whole("attempts", in.Attempts, attemptsMax)),
		Class:     l.classes.keep(in.Class),
		Counted:   in.SentBytes != nil,
		lacking:   in.OK == nil,
	}
	switch {
	case in.FirstChoice == nil:
	case *in.FirstChoice:
		u.Choice = ChoiceFirst
	default:
		u.Choice = ChoiceOther
	}
	if err := first(in.err, l.see(u.Owner), full("upload", len(l.Uploads))); err != nil {
		return err
	}
	l.Uploads = append(l.Uploads, u)
	return nil
}

func (l *Log) addRead(in *line) error {
	o := l.outcome(in)
	if err := first(in.err, full("read", len(l.Reads))); err != nil {
		return err
	}
	if in.OK == nil {
		l.Unknown++
		return nil
	}
	l.Reads = append(l.Reads, o)
	return nil
}

func (l *Log) addNode(in *line) error {
	var id *float64
	if len(in.ID) > 0 {
		if err := json.Unmarshal(in.ID, &id); err != nil {
			return fmt.Errorf("id is %s, want a number", cut(string(in.ID), 40))
		}
	}
	s := NodeSample{
		TS: in.number("t_s", in.TS, secondsMax),
		ID: in.id("id", id),
		Up: isTrue(in.Up),
	}
	before := l.latest[s.ID]
	has := in.figures(nodeFigures, &s.Node, before.Node, s.Up && before.Up)
	bad := first(in.err, within("id", s.ID, 1, nodeIDMax), l.see(s.ID), full("node", len(l.Nodes)))
	if bad != nil {
		return bad
	}
	if in.Up == nil {
		return nil // the node may be down
	}
	if n := len(l.Nodes); in.TS == nil && n > 0 {
		s.TS = l.Nodes[n-1].TS // samples come in order of time
	}
	if _, known := l.Owned[s.ID]; s.Up && has[sample.Nodes.Index("owned_images")] && !known {
		l.Owned[s.ID] = OwnedAt{Load{s.OwnedImages, s.OwnedBytes}, s.TS}
	}
	if s.Up {
		l.latest[s.ID] = s
	}
	l.Nodes = append(l.Nodes, s)
	return nil
}

func (l *Log) addClient(in *line) error {
	before := ClientSample{}
	n := len(l.Client)
	if n > 0 {
		before = l.Client[n-1]
	}
	s := ClientSample{TS: before.TS}
	has := in.figures(clientFigures, &s.Client, before.Client, n > 0)
	if i := sample.Clients.Index("in_flight"); !has[i] {
		s.InFlight = NotSampled
		if n > 0 {
			s.InFlight = before.InFlight
		}
	}
	if in.TS != nil { // samples come in order of time
		s.TS = in.number("t_s", in.TS, secondsMax)
	}
	if err := first(in.err, full("client", len(l.Client))); err != nil {
		return err
	}
	l.Client = append(l.Client, s)
	return nil
}

func (l *Log) addEvent(in *line) error {
	e := LoggedEvent{
		Event: Event{TS: in.number("t_s", in.TS, secondsMax), Node: in.id("node", in.Node)},
		Timed: in.TS != nil,
	}
	if err := first(in.err, full("event", len(l.Events))); err != nil {
		return err
	}
	if in.Kind == nil || *in.Kind == "" {
		l.Unknown++
		return nil
	}
	switch *in.Kind {
	case EventResumed:
		l.Ended = false
	case EventCleaning:
		l.cleaning = true
	}
	e.Kind, e.Detail = l.kinds.keep(in.Kind), l.details.keep(in.Detail)
	l.Events = append(l.Events, e)
	return nil
}

func (l *Log) addReadback(in *line) error {
	l.Readback = &Readback{
		Images:     in.whole("images", in.Images, countMax),
		Matched:    in.whole("matched", in.Matched, countMax),
		Mismatched: in.whole("mismatched", in.Mismatched, countMax),
		Missing:    in.whole("missing", in.Missing, countMax),
		Unread:     in.whole("unread", in.Unread, countMax),
		Bytes:      in.whole("bytes", in.Bytes, sampleMax),
		ElapsedS:   in.number("elapsed_s", in.ElapsedS, secondsMax),
	}
	return in.err
}

func (l *Log) addCleaned(in *line) error {
	l.cleaning = true
	l.cleaned = &Cleaned{
		Images:  in.whole("images", in.Images, countMax),
		Bytes:   in.whole("bytes", in.Bytes, sampleMax),
		Missing: in.whole("missing", in.Missing, countMax),
		Failed:  in.whole("failed", in.Failed, countMax),
		WonBack: in.whole("won_back_bytes", in.WonBack, sampleMax),
	}
	return in.err
}

func (l *Log) addEnd(in *line) error {
	if in.ElapsedS != nil {
		l.ElapsedS = in.number("elapsed_s", in.ElapsedS, secondsMax)
	}
	l.Ended = true
	return in.err
}

// addRun adds the run that the log is of.
func (l *Log) addRun(text []byte) error {
	var head struct {
		Schema json.Number `json:"schema"`
	}
	// The schema comes first: the other fields may mean something else in a newer one.
	if json.Unmarshal(text, &head) == nil {
		if v, err := head.Schema.Float64(); err == nil && v > Schema {
			return fmt.Errorf("schema %v, %w than %d", head.Schema, ErrNewerSchema, Schema)
		}
	}
	if l.known > 1 { // this one is counted
		return fmt.Errorf("another run begins here: %w", ErrSeveralRuns)
	}
	var run Run
	if err := json.Unmarshal(text, &run); err != nil {
		return jsonError(err)
	}
	if err := run.check(); err != nil {
		return err
	}
	slices.Sort(run.Nodes)
	run.Nodes = slices.Compact(run.Nodes)
	l.Run, l.HasRun = run, true
	l.Uploads = make([]UploadOutcome, 0, min(run.Count, plannedMax))
	for _, id := range run.Nodes {
		l.ids[id] = true
	}
	return nil
}

// addPlan adds to what was planned.
func (l *Log) addPlan(text []byte) error {
	var more Plan
	if err := json.Unmarshal(text, &more); err != nil {
		return jsonError(err)
	}
	p := &l.Run.Plan
	p.Verify = p.Verify || more.Verify
	p.Chaos = p.Chaos || more.Chaos
	p.Cleanup = p.Cleanup || more.Cleanup
	return nil
}

// see records that the log mentions node id; 0 is none.
func (l *Log) see(id int) error {
	if id == 0 || l.ids[id] {
		return nil
	}
	if len(l.ids) == NodesMax {
		return fmt.Errorf("more than %d different nodes", NodesMax)
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

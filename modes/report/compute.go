// Package report computes a Report from the log of a run: its figures, the checks with their verdict, what
// limited the run, and how it compares with another one. It shows nothing; see modes/report/render.
package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"imgcluster/modes/runlog"
	"imgcluster/modes/term"
)

// Report is a run in figures, with a verdict. Fields that end in Percent go from 0 to 100 and are of the
// successful uploads, SuccessRate goes from 0 to 1; times are seconds, sizes bytes. A figure for which the
// log has no data is 0.
type Report struct {
	Attempted           int         `json:"attempted"`
	Succeeded           int         `json:"succeeded"`
	Failed              int         `json:"failed"`
	SuccessRate         float64     `json:"success_rate"`
	ElapsedS            float64     `json:"elapsed_s"`
	ThroughputPerS      float64     `json:"throughput_per_s"`       // successful uploads
	ThroughputBytesPerS float64     `json:"throughput_bytes_per_s"` // their images, each counted once
	Bytes               int64       `json:"bytes"`                  // of the images stored, each counted once
	SentBytes           int64       `json:"sent_bytes"`             // what left the client
	LatencyS            Latency     `json:"latency_s"`              // of successful uploads
	Nodes               []NodeShare `json:"nodes"`                  // by id
	Balance             Balance     `json:"balance"`                // over the nodes of the run
	Classes             []Class     `json:"classes"`                // from small to large
	Failures            []Failure   `json:"failures"`               // the most frequent first
	Run                 *runlog.Run `json:"run,omitempty"`          // nil when the log does not say
	Notes               []string    `json:"notes"`                  // what to know of the log
	Verdict             Verdict     `json:"verdict"`

	MeasuredS       float64          `json:"measured_s"`                  // ElapsedS without the warm-up
	Warmup          Warmup           `json:"warmup"`                      // operations that are left out
	ServiceLatencyS *Latency         `json:"service_latency_s,omitempty"` // from the start; nil in a closed loop
	Reads           *Reads           `json:"reads,omitempty"`             // nil without reads
	Client          *Client          `json:"client,omitempty"`            // nil without samples
	Bottleneck      *Bottleneck      `json:"bottleneck,omitempty"`        // nil in a run too short to tell
	Events          []Event          `json:"events"`                      // by time, the first eventsShown
	EventsLeftOut   int              `json:"events_left_out,omitempty"`
	Readback        *runlog.Readback `json:"readback,omitempty"`   // nil when no image was read back
	Limits          Limits           `json:"limits"`               // of the checks
	Comparison      *Comparison      `json:"comparison,omitempty"` // nil unless Compare was called
	Log             string           `json:"-"`                    // the name of the log, where it is shown
	Charts          Charts           `json:"-"`                    // for a page of HTML
}

// Warmup counts the operations of the warm-up, which the figures leave out.
type Warmup struct {
	Uploads int `json:"uploads"`
	Reads   int `json:"reads"`
	Failed  int `json:"failed"` // of both
}

// Reads has the figures of the reads beside the uploads.
type Reads struct {
	Attempted           int       `json:"attempted"`
	Succeeded           int       `json:"succeeded"`
	Failed              int       `json:"failed"`
	Bytes               int64     `json:"bytes"`
	ThroughputPerS      float64   `json:"throughput_per_s"`
	ThroughputBytesPerS float64   `json:"throughput_bytes_per_s"`
	LatencyS            Latency   `json:"latency_s"`
	ServiceLatencyS     *Latency  `json:"service_latency_s,omitempty"`
	Failures            []Failure `json:"failures"`
}

// Event is an event of the log.
type Event struct {
	TS     float64 `json:"t_s"`
	Kind   string  `json:"kind"`
	Node   int     `json:"node,omitempty"`
	Detail string  `json:"detail,omitempty"`
}

// eventsShown bounds the events that a report lists and marks in its charts.
const eventsShown = 200

// Latency has quantiles by nearest rank: each is the latency of some operation.
type Latency struct {
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P95  float64 `json:"p95"`
	P99  float64 `json:"p99"`
	Max  float64 `json:"max"`

	P90   float64 `json:"p90"`
	P999  float64 `json:"p999"`
	P9999 float64 `json:"p9999"`
}

func newLatency(sorted []float64) Latency {
	return Latency{
		Mean:  mean(sorted),
		P50:   quantile(sorted, 0.5),
		P90:   quantile(sorted, 0.9),
		P95:   quantile(sorted, 0.95),
		P99:   quantile(sorted, 0.99),
		P999:  quantile(sorted, 0.999),
		P9999: quantile(sorted, 0.9999),
		Max:   quantile(sorted, 1),
	}
}

// NodeShare is what one node owns of the successful uploads, and what it used. A node that is not in
// Run.Nodes but owns something is listed too.
type NodeShare struct {
	ID                int     `json:"id"`
	Uploads           int64   `json:"uploads"`
	Bytes             int64   `json:"bytes"`
	SharePercent      float64 `json:"share_percent"`
	BytesSharePercent float64 `json:"bytes_share_percent"`
	Usage
}

// Balance is how even the shares are. The standard deviations are those of the whole population of nodes in
// the run, in percentage points.
type Balance struct {
	ExpectedPercent    float64 `json:"expected_percent"`
	StddevPercent      float64 `json:"stddev_percent"`
	BytesStddevPercent float64 `json:"bytes_stddev_percent"`
	Grade              string  `json:"grade"`        // excellent, very good, good, poor; none without an owner
	ChiSquareP         float64 `json:"chi_square_p"` // of the counts, against equal chances

	Of    Allowance `json:"allowance"` // on which the grade depends
	Words string    `json:"words"`     // the grade, with the number of images when they are few
}

// Class has the figures of the successful uploads of one size class, and counts the failed ones.
type Class struct {
	Class    string       `json:"class"`
	Uploads  int64        `json:"uploads"`
	Failed   int64        `json:"failed"`
	Bytes    int64        `json:"bytes"`
	MinBytes int64        `json:"min_bytes"`
	MaxBytes int64        `json:"max_bytes"`
	LatencyS ClassLatency `json:"latency_s"`
}

// ClassLatency is the latency of a class.
type ClassLatency struct {
	Mean float64 `json:"mean"`
	P95  float64 `json:"p95"`
	P50  float64 `json:"p50"`
	P99  float64 `json:"p99"`
}

// Failure counts the uploads that failed for one reason.
type Failure struct {
	Error   string `json:"error"`
	Uploads int    `json:"uploads"`
}

// Verdict passes when no check failed, every attempted upload succeeded, at least one, and the log has
// evidence of all that was planned.
type Verdict struct {
	Passed     bool    `json:"passed"`
	Text       string  `json:"text"`
	Checks     []Check `json:"checks"`
	Incomplete string  `json:"incomplete,omitempty"` // what was planned and is not in the log
	failed     bool    // a check, or too many uploads
}

// log is the log of a run, with what the figures need of it.
type log struct{ *runlog.Log }

// Compute computes the report of a log, judged by limits.
func Compute(in *runlog.Log, limits Limits) *Report {
	l := log{in}
	r := &Report{
		Limits:   limits,
		Readback: l.Readback,
		Warmup:   Warmup{l.Warmup.Uploads, l.Warmup.Reads, l.Warmup.Failed},
	}
	if l.HasRun {
		run := l.Run
		r.Run = &run
	}
	r.countUploads(l)
	r.countReads(l)
	usage := l.usage(r.ElapsedS - r.MeasuredS)
	r.Nodes = l.shares(r.Succeeded, r.Bytes, usage)
	if u := usage[clientID]; u != nil {
		r.Client = l.client(u)
		r.Client.Limited = r.Client.limits(&l.Run, r.ThroughputPerS)
	}
	r.Balance = l.balance(r.Nodes, r.Succeeded)
	r.Classes = l.classSums()
	r.listEvents(l)
	r.Bottleneck = l.bottleneck(r)
	r.Notes = l.notes(r)
	r.Verdict = judge(l, r)
	r.Charts = newCharts(l, r)
	return r
}

// notes lists what to know of the log to read the figures.
func (l log) notes(r *Report) []string {
	n := []string{}
	add := func(when bool, format string, args ...any) {
		if when {
			n = append(n, fmt.Sprintf(format, args...))
		}
	}
	left := l.Run.LeftOut
	add(len(left) > 0, "not all of --images was sent; left out: %s", strings.Join(left, "; "))
	add(l.Cut, "the last line is cut off and was left out")
	add(!l.HasRun, "no run record: the nodes are taken from the uploads")
	add(!l.Ended, "no end record: elapsed is up to the last finished upload")
	add(l.Unknown > 0, "%s: left out", l.Lacks())
	add(l.untimed() > 0, "%s without its times in the log, left out of latency",
		term.Plural(l.untimed(), "successful upload"))
	add(l.Repeated > 0, "%s recorded more than once; the last record counts",
		term.Plural(l.Repeated, "upload"))
	add(l.unowned() > 0, "%s without an owner in the log", term.Plural(l.unowned(), "successful upload"))
	outside, by := l.outside(r.Nodes)
	add(outside > 0, "%s on nodes that are not in the run record: %s", term.Plural(outside, "upload"), by)
	waited := l.waited()
	add(waited > 0, "uploads waited %s s in all for the cluster to recover from faults; "+
		"the throughput includes that", term.Seconds(waited))
	if missing := l.Missing().String(); missing != "" {
		again := ""
		switch {
		case l.Run.Demo:
			again = "; start the demo again"
		case l.Final() == "":
			again = "; stress --resume does the rest"
		}
		add(true, "not all that was planned is in the log: %s%s", missing, again)
	}
	add(r.Warmup != (Warmup{}), "left out as warm-up: %s and %s, of which %d failed",
		term.Plural(r.Warmup.Uploads, "upload"), term.Plural(r.Warmup.Reads, "read"), r.Warmup.Failed)
	add(l.resumed() > 0, "the run was interrupted, and resumed %s", term.Plural(l.resumed(), "time"))
	if c := r.Client; c != nil {
		add(c.Limited != "", "WARNING: the client was what limited, not the cluster: %s", c.Limited)
	}
	return n
}

// resumed counts how often the run was resumed after it had been interrupted.
func (l log) resumed() int64 { return l.CountEvents(runlog.EventResumed) }

// waited adds up the time in which no upload could start.
func (l log) waited() (sum float64) {
	end := l.LastS()
	for _, held := range l.Held() {
		sum += max(0, min(held.ToS, end)-held.FromS)
	}
	return sum
}

// unowned counts the successful uploads whose owner is not in the log.
func (l log) unowned() int {
	return l.succeededThat(func(u *runlog.UploadOutcome) bool { return u.Owner == 0 })
}

// untimed counts the successful uploads whose times are not in the log.
func (l log) untimed() int {
	return l.succeededThat(func(u *runlog.UploadOutcome) bool { return !u.Timed })
}

// unsized counts the successful uploads whose sizes are not in the log.
func (l log) unsized() int {
	return l.succeededThat(func(u *runlog.UploadOutcome) bool { return u.Bytes == 0 })
}

// succeededThat counts the successful uploads for which are returns true.
func (l log) succeededThat(are func(*runlog.UploadOutcome) bool) (n int) {
	for i := range l.Uploads {
		if u := &l.Uploads[i]; u.OK && are(u) {
			n++
		}
	}
	return n
}

// outside counts the uploads whose owner is not a node of the run, and lists these owners.
func (l log) outside(nodes []NodeShare) (uploads int64, by string) {
	var ids []string
	for _, n := range nodes {
		if !l.hasNode(n.ID) {
			uploads += n.Uploads
			ids = append(ids, fmt.Sprint(n.ID))
		}
	}
	return uploads, strings.Join(ids, ", ")
}

// countUploads computes the figures of the uploads.
func (r *Report) countUploads(l log) {
	t := newTally(l.uploads(), len(l.Uploads))
	r.Attempted, r.Succeeded, r.Failed = t.attempted, t.succeeded, t.attempted-t.succeeded
	r.SuccessRate = ratio(float64(t.succeeded), float64(t.attempted))
	r.Failures = t.failures()
	r.Bytes = t.bytes
	for i := range l.Uploads {
		r.SentBytes += l.Uploads[i].Sent
	}
	r.ElapsedS = l.LastS()
	if l.Ended {
		r.ElapsedS = max(r.ElapsedS, l.ElapsedS)
	}
	r.MeasuredS = r.ElapsedS
	if l.Warmup.Uploads+l.Warmup.Reads > 0 {
		r.MeasuredS = max(0, r.ElapsedS-l.Run.WarmupS)
	}
	r.ThroughputPerS = ratio(float64(t.succeeded), r.MeasuredS)
	r.ThroughputBytesPerS = ratio(float64(t.bytes), r.MeasuredS)
	r.LatencyS, r.ServiceLatencyS = t.latency, t.serviceLatency
}

// countReads computes the figures of the reads, when there are any.
func (r *Report) countReads(l log) {
	if len(l.Reads) == 0 {
		return
	}
	t := newTally(l.reads(), len(l.Reads))
	r.Reads = &Reads{
		Attempted:           t.attempted,
		Succeeded:           t.succeeded,
		Failed:              t.attempted - t.succeeded,
		Bytes:               t.bytes,
		ThroughputPerS:      ratio(float64(t.succeeded), r.MeasuredS),
		ThroughputBytesPerS: ratio(float64(t.bytes), r.MeasuredS),
		LatencyS:            t.latency,
		ServiceLatencyS:     t.serviceLatency,
		Failures:            t.failures(),
	}
}

// listEvents lists the events.
func (r *Report) listEvents(l log) {
	r.Events = []Event{}
	for _, e := range l.Events[:min(len(l.Events), eventsShown)] {
		r.Events = append(r.Events, Event(e.Event))
	}
	r.EventsLeftOut = len(l.Events) - len(r.Events)
}

// shares lists the run's nodes and all others that own an upload.
func (l log) shares(succeeded int, bytes int64, usage map[int]*Usage) []NodeShare {
	at := map[int]*NodeShare{}
	node := func(id int) *NodeShare {
		if at[id] == nil {
			at[id] = &NodeShare{ID: id}
		}
		return at[id]
	}
	for _, id := range l.NodeIDs() {
		node(id)
	}
	for i := range l.Uploads {
		if u := &l.Uploads[i]; u.OK && u.Owner != 0 {
			n := node(u.Owner)
			n.Uploads++
			n.Bytes += u.Bytes
		}
	}
	list := make([]NodeShare, 0, len(at))
	for id, n := range at {
		if u := usage[id]; u != nil {
			n.Usage = *u
		}
		n.SharePercent = 100 * ratio(float64(n.Uploads), float64(succeeded))
		n.BytesSharePercent = 100 * ratio(float64(n.Bytes), float64(bytes))
		list = append(list, *n)
	}
	slices.SortFunc(list, func(a, b NodeShare) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// hasNode reports whether a node is one of the run's.
func (l log) hasNode(id int) bool {
	_, ok := slices.BinarySearch(l.NodeIDs(), id)
	return ok
}

// unnamed reports whether the log does not name the run's nodes: one that owns nothing would not be missed.
func (l log) unnamed() bool { return len(l.Run.Nodes) == 0 }

// runNodes returns the shares of the run's nodes only.
func (l log) runNodes(nodes []NodeShare) []NodeShare {
	return slices.DeleteFunc(slices.Clone(nodes), func(n NodeShare) bool { return !l.hasNode(n.ID) })
}

func (l log) balance(nodes []NodeShare, succeeded int) Balance {
	var counts []int64
	var share, bytesShare []float64
	for _, n := range l.runNodes(nodes) {
		counts = append(counts, n.Uploads)
		share = append(share, n.SharePercent)
		bytesShare = append(bytesShare, n.BytesSharePercent)
	}
	b := Balance{
		ExpectedPercent:    ratio(100, float64(len(counts))),
		StddevPercent:      stddev(share),
		BytesStddevPercent: stddev(bytesShare),
		ChiSquareP:         chiSquareP(counts),
		Of:                 allowance(int64(succeeded), len(counts)),
	}
	b.Grade = b.Of.grade(b.StddevPercent)
	b.Words = b.Of.words(b.Grade)
	if succeeded == l.unowned() {
		b.Grade, b.Words = "none", "none"
	}
	return b
}

// defaultClasses are the classes of the default test set, from small to large.
var defaultClasses = []string{"small", "medium", "large", "xlarge"}

// classSums computes the figures of the classes: those of the default test set first, then the others by
// name.
func (l log) classSums() []Class {
	at := map[string]*Class{}
	for i := range l.Uploads {
		u := &l.Uploads[i]
		c := at[u.Class]
		if c == nil {
			c = &Class{Class: u.Class}
			at[u.Class] = c
		}
		if !u.OK {
			c.Failed++
			continue
		}
		if c.Uploads == 0 || u.Bytes < c.MinBytes {
			c.MinBytes = u.Bytes
		}
		c.MaxBytes = max(c.MaxBytes, u.Bytes)
		c.Uploads++
		c.Bytes += u.Bytes
	}
	list := []Class{}
	for name, c := range at {
		latency := newLatency(slices.Sorted(slices.Values(ofMeasured(l.uploadsOf(name), fromDue))))
		c.LatencyS = ClassLatency{
			Mean: latency.Mean,
			P50:  latency.P50,
			P95:  latency.P95,
			P99:  latency.P99,
		}
		list = append(list, *c)
	}
	slices.SortFunc(list, func(a, b Class) int {
		return cmp.Or(cmp.Compare(classRank(a.Class), classRank(b.Class)), cmp.Compare(a.Class, b.Class))
	})
	return list
}

func classRank(class string) int {
	if i := slices.Index(defaultClasses, class); i >= 0 {
		return i
	}
	return len(defaultClasses)
}

// Package report computes a Report from the log of a run: its figures, the checks with their verdict, what limited the
// run, and how it compares with another one. It shows nothing; see modes/report/render.
package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"imgcluster/modes/runlog"
	"imgcluster/modes/term"
)

// Report is a run in figures, with a verdict. Fields that end in Percent go from 0 to 100 and are
// of the successful uploads, SuccessRate goes from 0 to 1; times are seconds, sizes bytes. A
// figure for which the log has no data is 0.
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
	Notes               []string    `json:"notes"`                  // what is odd about the log
	Verdict             Verdict     `json:"verdict"`

	// of ElapsedS, what comes after the warm-up
	MeasuredS float64 `json:"measured_s"`
	Warmup    Warmup  `json:"warmup"` // what was left out
	// of an open loop: from each upload's start, not from when it was due
	ServiceLatencyS *Latency         `json:"service_latency_s,omitempty"`
	Reads           *Reads           `json:"reads,omitempty"`      // nil without reads
	Client          *Client          `json:"client,omitempty"`     // nil without samples
	Bottleneck      *Bottleneck      `json:"bottleneck,omitempty"` // nil when nothing tells
	Events          []Moment         `json:"events"`               // by time, the first eventsShown
	EventsLeftOut   int              `json:"events_left_out,omitempty"`
	Readback        *runlog.Readback `json:"readback,omitempty"`   // nil when no image was read back
	Limits          Limits           `json:"limits"`               // that the checks went by
	Comparison      *Comparison      `json:"comparison,omitempty"` // nil unless Compare was called
	Log             string           `json:"-"`                    // the name of the log, where it is shown
	Charts          Charts           `json:"-"`                    // for a page
}

// Warmup counts what the run itself left out of its figures.
type Warmup struct {
	Uploads int `json:"uploads"`
	Reads   int `json:"reads"`
	Failed  int `json:"failed"` // of both
}

// Reads sums up the reads beside the uploads.
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

// Moment is an event of the log.
type Moment struct {
	TS     float64 `json:"t_s"`
	Kind   string  `json:"kind"`
	Node   int     `json:"node,omitempty"`
	Detail string  `json:"detail,omitempty"`
}

// eventsShown bounds the events that a report lists and marks.
const eventsShown = 200

// Latency gives Distribution by nearest rank: each is the latency of some upload.
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
	at := func(q float64) float64 { return quantile(sorted, q) }
	return Latency{
		Mean: mean(sorted), P50: at(0.5), P90: at(0.9), P95: at(0.95), P99: at(0.99),
		P999: at(0.999), P9999: at(0.9999), Max: at(1),
	}
}

// NodeShare is what one node owned of the successful uploads. A node that is not in Run.Nodes but
// owned something is listed too.
type NodeShare struct {
	ID                int     `json:"id"`
	Uploads           int64   `json:"uploads"`
	Bytes             int64   `json:"bytes"`
	SharePercent      float64 `json:"share_percent"`
	BytesSharePercent float64 `json:"bytes_share_percent"`
	Usage
}

// Balance says how even the shares are. The standard deviations are those of the whole population
// of nodes in the run, in percentage points.
type Balance struct {
	ExpectedPercent    float64 `json:"expected_percent"`
	StddevPercent      float64 `json:"stddev_percent"`
	BytesStddevPercent float64 `json:"bytes_stddev_percent"`
	// excellent, very good, good, poor; none without an owner
	Grade      string  `json:"grade"`
	ChiSquareP float64 `json:"chi_square_p"` // of the counts, against equal chances

	Of    Allowance `json:"allowance"` // what the grade goes by
	Words string    `json:"words"`     // the grade, with how few images it is of
}

// Class sums up the successful uploads of one size class, and counts the failed ones.
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

// Verdict passes when no check failed and every attempted upload succeeded, at least one, and the log has evidence of
// all that was planned, to the end.
type Verdict struct {
	Passed bool    `json:"passed"`
	Text   string  `json:"text"`
	Checks []Check `json:"checks"`
	// what was planned and is not in the log; empty when all is
	Incomplete string `json:"incomplete,omitempty"`
	failed     bool   // a check, or an upload
}

// log is the log of a run with what the figures ask of it.
type log struct{ *runlog.Log }

// Compute works out the report of a log, judged by limits.
func Compute(in *runlog.Log, limits Limits) *Report {
	l := log{in}
	r := &Report{
		Limits: limits, Readback: l.Readback,
		Warmup: Warmup{l.Warmup.Uploads, l.Warmup.Reads, l.Warmup.Failed},
	}
	if l.HasRun {
		run := l.Run
		r.Run = &run
	}
	r.total(l)
	r.Reads = l.readTotals(r.MeasuredS)
	usage := l.usage(r.ElapsedS - r.MeasuredS)
	r.Nodes = l.shares(r.Succeeded, r.Bytes, usage)
	if u := usage[clientID]; u != nil {
		r.Client = l.client(u)
		r.Client.Limited = r.Client.limits(&l.Run, r.ThroughputPerS)
	}
	r.Balance = l.balance(r.Nodes, r.Succeeded)
	r.Classes = l.classSums()
	r.Failures = l.failures()
	r.moments(l)
	r.Bottleneck = l.bottleneck(r)
	r.Notes = l.notes(r)
	r.Verdict = judge(l, r)
	r.Charts = newCharts(l, r)
	return r
}

// notes tells what the reader of the figures should know of the log.
func (l log) notes(r *Report) []string {
	n := []string{}
	add := func(when bool, format string, args ...any) {
		if when {
			n = append(n, fmt.Sprintf(format, args...))
		}
	}
	if left := l.Run.LeftOut; len(left) > 0 {
		add(true, "not all of --images was sent; left out: %s", strings.Join(left, "; "))
	}
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
	add(waited > 0, "uploads waited %s s in all for the cluster to get over faults; throughput has that in it", term.Seconds(waited))
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

// resumed counts how often the run went on after it had been interrupted.
func (l log) resumed() int64 { return l.Happened(runlog.EventResumed) }

// waited adds up the time in which no upload could begin.
func (l log) waited() (sum float64) {
	end := l.LastS()
	for _, s := range l.Held() {
		sum += max(0, min(s.ToS, end)-s.FromS)
	}
	return sum
}

// unowned counts the successful uploads whose owner the log does not say.
func (l log) unowned() int {
	return l.succeededThat(func(u *runlog.UploadOutcome) bool { return u.Owner == 0 })
}

// untimed counts the successful uploads of which the log does not say when they were.
func (l log) untimed() int {
	return l.succeededThat(func(u *runlog.UploadOutcome) bool { return !u.Timed })
}

// unsized counts the successful uploads of which the log does not say how large they are.
func (l log) unsized() int {
	return l.succeededThat(func(u *runlog.UploadOutcome) bool { return u.Bytes == 0 })
}

// succeededThat counts the successful uploads that are so.
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
	members := l.NodeIDs()
	var ids []string
	for _, n := range nodes {
		if _, ok := slices.BinarySearch(members, n.ID); !ok {
			uploads += n.Uploads
			ids = append(ids, fmt.Sprint(n.ID))
		}
	}
	return uploads, strings.Join(ids, ", ")
}

func (r *Report) total(l log) {
	took, service := make([]float64, 0, len(l.Uploads)), make([]float64, 0, len(l.Uploads))
	open := false
	for i := range l.Uploads {
		u := &l.Uploads[i]
		r.SentBytes += u.Sent
		open = open || u.Scheduled
		if u.OK {
			r.Bytes += u.Bytes
			r.Succeeded++
		}
		if u.Measured() {
			took, service = append(took, u.TookS()), append(service, u.LatencyS)
		}
	}
	slices.Sort(took)
	r.Attempted = len(l.Uploads)
	r.Failed = r.Attempted - r.Succeeded
	r.SuccessRate = ratio(float64(r.Succeeded), float64(r.Attempted))
	r.ElapsedS = l.LastS()
	if l.Ended {
		r.ElapsedS = max(r.ElapsedS, l.ElapsedS)
	}
	r.MeasuredS = r.ElapsedS
	if l.Warmup.Uploads+l.Warmup.Reads > 0 {
		r.MeasuredS = max(0, r.ElapsedS-l.Run.WarmupS)
	}
	r.ThroughputPerS = ratio(float64(r.Succeeded), r.MeasuredS)
	r.ThroughputBytesPerS = ratio(float64(r.Bytes), r.MeasuredS)
	r.LatencyS = newLatency(took)
	if open {
		slices.Sort(service)
		r.ServiceLatencyS = new(newLatency(service))
	}
}

// readTotals sums up the reads.
func (l log) readTotals(measured float64) *Reads {
	if len(l.Reads) == 0 {
		return nil
	}
	var took, service []float64
	r, open := &Reads{Attempted: len(l.Reads)}, false
	reasons := map[string]int{}
	for i := range l.Reads {
		o := &l.Reads[i]
		open = open || o.Scheduled
		if !o.OK {
			reasons[o.Reason]++
			continue
		}
		r.Bytes += o.Bytes
		r.Succeeded++
		if o.Timed {
			took, service = append(took, o.TookS()), append(service, o.LatencyS)
		}
	}
	slices.Sort(took)
	slices.Sort(service)
	r.Failed = r.Attempted - r.Succeeded
	r.Failures = l.ranked(reasons)
	r.ThroughputPerS, r.ThroughputBytesPerS = ratio(float64(r.Succeeded), measured),
		ratio(float64(r.Bytes), measured)
	r.LatencyS = newLatency(took)
	if open {
		r.ServiceLatencyS = new(newLatency(service))
	}
	return r
}

// moments lists the events.
func (r *Report) moments(l log) {
	r.Events = []Moment{}
	for _, e := range l.Events[:min(len(l.Events), eventsShown)] {
		r.Events = append(r.Events, Moment{TS: e.TS, Kind: e.Kind, Node: e.Node, Detail: e.Detail})
	}
	r.EventsLeftOut = len(l.Events) - len(r.Events)
}

// shares lists the run's nodes and all others that own an upload.
func (l log) shares(succeeded int, bytes int64, usage map[int]*Usage) []NodeShare {
	at := map[int]*NodeShare{}
	node := func(id int) *NodeShare {
		if at[id] == nil {
			at[id] = &NodeShare{ID: int(id)}
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

// unnamed says that the log does not name the run's nodes: one that owned nothing would not be missed.
func (l log) unnamed() bool { return len(l.Run.Nodes) == 0 }

// ofMembers returns the shares of the run's nodes only.
func (l log) ofMembers(nodes []NodeShare) []NodeShare {
	members := l.NodeIDs()
	return slices.DeleteFunc(slices.Clone(nodes), func(n NodeShare) bool {
		_, ok := slices.BinarySearch(members, n.ID)
		return !ok
	})
}

func (l log) balance(nodes []NodeShare, succeeded int) Balance {
	var counts []int64
	var share, bytesShare []float64
	for _, n := range l.ofMembers(nodes) {
		counts = append(counts, n.Uploads)
		share = append(share, n.SharePercent)
		bytesShare = append(bytesShare, n.BytesSharePercent)
	}
	b := Balance{
		ExpectedPercent: ratio(100, float64(len(counts))), StddevPercent: stddev(share),
		BytesStddevPercent: stddev(bytesShare), ChiSquareP: chiSquareP(counts),
	}
	b.Of = allowance(int64(succeeded), len(counts))
	b.Grade = b.Of.grade(b.StddevPercent)
	b.Words = b.Of.words(b.Grade)
	if succeeded == l.unowned() {
		b.Grade, b.Words = "none", "none"
	}
	return b
}

// defaultClasses are the classes of the default test set, from small to large.
var defaultClasses = []string{"small", "medium", "large", "xlarge"}

// classSums sums up the classes: those of the default test set first, then the others by name.
func (l log) classSums() []Class {
	at := map[string]*Class{}
	latency := map[string][]float64{}
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
		if u.Timed {
			latency[u.Class] = append(latency[u.Class], u.TookS())
		}
	}
	table := []Class{}
	for name, c := range at {
		took := latency[name]
		slices.Sort(took)
		c.LatencyS = ClassLatency{
			Mean: mean(took), P50: quantile(took, 0.5), P95: quantile(took, 0.95), P99: quantile(took, 0.99),
		}
		table = append(table, *c)
	}
	slices.SortFunc(table, func(a, b Class) int {
		return cmp.Or(cmp.Compare(classRank(a.Class), classRank(b.Class)), cmp.Compare(a.Class, b.Class))
	})
	return table
}

func classRank(class string) int {
	if i := slices.Index(defaultClasses, class); i >= 0 {
		return i
	}
	return len(defaultClasses)
}

// failures counts the reasons of failed uploads.
func (l log) failures() []Failure {
	counts := map[string]int{}
	for i := range l.Uploads {
		if !l.Uploads[i].OK {
			counts[l.Uploads[i].Reason]++
		}
	}
	return l.ranked(counts)
}

// ranked lists reasons, the most frequent first.
func (l log) ranked(counts map[string]int) []Failure {
	list := []Failure{}
	for reason, n := range counts {
		list = append(list, Failure{Error: cmp.Or(reason, "no reason given"), Uploads: n})
	}
	slices.SortFunc(list, func(a, b Failure) int {
		return cmp.Or(cmp.Compare(b.Uploads, a.Uploads), cmp.Compare(a.Error, b.Error))
	})
	return list
}

package report

import (
	"cmp"
	"slices"

	"imgcluster/modes/runlog"
)

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

// countUploads computes the figures of the uploads.
func (r *Report) countUploads(l log) {
	t := newTally(l.uploads(), len(l.Uploads))
	r.Attempted = t.attempted
	r.Succeeded = t.succeeded
	r.Failed = t.attempted - t.succeeded
	r.SuccessRate = ratio(float64(t.succeeded), float64(t.attempted))
	r.Failures = t.failures()
	r.Bytes = t.bytes
	for i := range l.Uploads {
		r.SentBytes += l.Uploads[i].Sent
		r.AgainBytes += l.Uploads[i].Again
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
	r.LatencyS = t.latency
	r.ServiceLatencyS = t.serviceLatency
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

// balance computes how even the shares of the run's nodes are.
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

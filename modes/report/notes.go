package report

import (
	"fmt"
	"strings"

	"imgcluster/modes/runlog"
	"imgcluster/modes/term"
)

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
	add(l.Cut, "the last line is truncated and was left out")
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
	for _, e := range l.Events {
		add(e.Kind == runlog.EventDelivery, "delivery auto: %s", e.Detail)
	}
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

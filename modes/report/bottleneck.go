package report

import (
	"cmp"
	"fmt"
	"slices"

	"imgcluster/modes/runlog"
	"imgcluster/modes/term"
)

// Bottleneck says what limited the throughput, most likely. Resources are those that the samples tell
// of, the busiest first.
type Bottleneck struct {
	Slow      bool       `json:"slow"` // below the wanted throughput, or far below what the resources allow
	Kind      string     `json:"kind"` // one of the kinds below, or unknown
	Node      int        `json:"node,omitempty"`
	What      string     `json:"what"`
	Evidence  string     `json:"evidence"`
	Try       string     `json:"try"`
	Resources []Resource `json:"resources"`
}

// Resource is something of which a run can use all there is.
type Resource struct {
	Kind        string  `json:"kind"`
	Node        int     `json:"node,omitempty"` // 0 for the client
	UsedPercent float64 `json:"used_percent"`
	Evidence    string  `json:"evidence"`
}

// Name names the resource.
func (u Resource) Name() string { return resourceName(u.Kind, u.Node) }

// What can limit a run.
const (
	limitLink      = "link"      // of a node or of the client
	limitDisk      = "disk"      // of a node
	limitCPU       = "cpu"       // of a node's machine
	limitClientCPU = "client"    // the client's CPUs
	limitSource    = "source"    // the client makes images too slowly
	limitGenerator = "generator" // the client falls behind its schedule, with nothing else busy
	limitSlowNode  = "slow_node" // one node takes much longer than the others
	limitRetries   = "retries"   // much is sent again
	limitDown      = "down"      // a node was not up for much of the time
	limitFaults    = "faults"    // uploads waited for the cluster to get over what the run did to it
	limitRate      = "rate"      // no more was asked for
	limitWaiting   = "waiting"   // nothing is busy: round trips, fsync, elections
	limitUnknown   = "unknown"   // the log does not tell
)

// try says what to do about each.
var try = map[string]string{
	limitLink:      "use a faster link, or --delivery relay, which sends each image from the client once",
	limitDisk:      "give the node a faster disk, or one of its own; look for other programs that write to it",
	limitCPU:       "give the node more cores, or take other programs from its machine",
	limitClientCPU: "run the client on a machine of its own, or with more cores",
	limitSource:    "make the images before with generate and use --images, or run the client on more cores",
	limitGenerator: "raise --concurrency, or lower --rate",
	limitSlowNode:  "compare its disk, link and log with those of the others; drain it meanwhile",
	limitRetries:   "look at the failures and at the nodes' logs for why uploads are tried again",
	limitDown:      "find out why the node was down; the others have to do its work",
	limitFaults:    "run without --chaos to see the throughput",
	limitRate:      "raise --rate to find the limit",
	limitWaiting:   "raise --concurrency; then look at the disks' fsync and at the round trips between the nodes",
	limitUnknown:   "update the nodes and the client, so that the log tells of their links, disks and CPUs",
}

// When something counts as what limits.
const (
	busyPercentMin     = 80.0 // of a resource
	idlePercentMax     = 50.0 // the busiest resource, where twice as much would fit
	slowNodeFactor     = 1.5  // of the other nodes' median latency
	slowNodeUploadsMin = 10   // of each node
	retriedPercentMin  = 10.0 // of the uploads
	downPercentMin     = 20.0 // of the time
)

// bottleneck finds what limited the run; nil when nothing was stored.
func (l log) bottleneck(r *Report) *Bottleneck {
	if r.Succeeded == 0 || r.MeasuredS < sustainedSecondsMin {
		return nil
	}
	b := l.suspect(r)
	b.Resources = l.resources(r)
	if len(b.Resources) > 0 && (b.Kind == "" || b.Kind == limitGenerator) {
		if top := b.Resources[0]; top.UsedPercent >= busyPercentMin || top.Kind == limitSource &&
			top.UsedPercent >= clientSourcePercentMax {
			b.Kind, b.Node, b.Evidence = top.Kind, top.Node, top.Evidence
		}
	}
	if b.Kind == "" {
		b.rest(l, r)
	}
	low := r.ThroughputPerS < r.Limits.ThroughputPerS
	idle := len(b.Resources) > 0 && b.Resources[0].UsedPercent < idlePercentMax
	b.Slow = low || idle && b.Kind != limitRate && b.Kind != limitFaults
	b.What, b.Try = b.words(), try[b.Kind]
	return &b
}

// Limiting is the bottleneck when it is known or matters, else nil.
func (r *Report) Limiting() *Bottleneck {
	if b := r.Bottleneck; b != nil && (b.Slow || b.Kind != limitUnknown) {
		return b
	}
	return nil
}

// rest is what limits when nothing else does.
func (b *Bottleneck) rest(l log, r *Report) {
	switch {
	case l.Run.Rate > 0 && r.ThroughputPerS >= l.Run.UploadRate()*rateReachedMin:
		b.Kind, b.Evidence = limitRate, fmt.Sprintf("%s uploads/s were asked for, and made",
			term.Digits3(l.Run.UploadRate()))
	case len(b.Resources) == 0:
		b.Kind, b.Evidence = limitUnknown,
			"the log has no figures of links, disks and CPUs, or not of how much there is"
	default:
		top := b.Resources[0]
		b.Kind = limitWaiting
		b.Evidence = fmt.Sprintf("the busiest that the samples tell of is %s: %s",
			resourceName(top.Kind, top.Node), top.Evidence)
	}
}

// suspect looks for what limits whatever the resources are used by; a Bottleneck of no kind when there is nothing.
func (l log) suspect(r *Report) (b Bottleneck) {
	if waited := l.waited(); 100*ratio(waited, r.MeasuredS) > downPercentMin {
		b.Kind = limitFaults
		b.Evidence = fmt.Sprintf("uploads waited %s s, %s of the time, for the cluster to get over them",
			term.Seconds(waited), term.Percent(100*ratio(waited, r.MeasuredS)))
		return b
	}
	for _, n := range r.Nodes {
		if down := 100 * ratio(n.DownS, r.MeasuredS); down > downPercentMin {
			b.Kind, b.Node = limitDown, n.ID
			b.Evidence = fmt.Sprintf("it was down for %s s, %s of the time", term.Seconds(n.DownS),
				term.Percent(down))
			return b
		}
	}
	w := l.wire(receivers(&l.Run, len(l.ofMembers(r.Nodes))))
	resent, retried := 100*ratio(w.again, w.needed), 100*ratio(float64(w.retried), float64(r.Attempted))
	if w.needed > 0 && resent > r.Limits.ResentPercent || retried > retriedPercentMin {
		b.Kind = limitRetries
		b.Evidence = fmt.Sprintf("%s of the uploads were tried again, %s of the bytes sent again",
			term.Percent(retried), term.Percent(resent))
		return b
	}
	if node, mine, others := l.slowNode(); node != 0 {
		b.Kind, b.Node = limitSlowNode, node
		b.Evidence = fmt.Sprintf("uploads that it owns take %s ms for a megabyte (median), those of the others %s ms", term.Significant3(1000*mine), term.Significant3(1000*others))
		return b
	}
	if c := r.Client; c != nil && l.Run.Rate > 0 && c.Limited != "" {
		b.Kind, b.Evidence = limitGenerator, c.Limited
	}
	return b
}

// slowNode finds a node whose own uploads take much longer than those of each other node, by the byte.
func (l log) slowNode() (node int, mine, others float64) {
	at := map[int][]float64{}
	for i := range l.Uploads {
		if u := &l.Uploads[i]; u.Measured() && u.Owner != 0 && u.Bytes > 0 {
			at[u.Owner] = append(at[u.Owner], u.LatencyS/float64(u.Bytes)*1e6)
		}
	}
	if len(at) < 2 {
		return 0, 0, 0
	}
	type share struct {
		id     int
		median float64
	}
	var list []share
	for id, v := range at {
		if len(v) < slowNodeUploadsMin {
			return 0, 0, 0
		}
		list = append(list, share{id, median(v)})
	}
	slices.SortFunc(list, func(a, b share) int {
		return cmp.Or(cmp.Compare(b.median, a.median),
			cmp.Compare(a.id, b.id))
	})
	if list[0].median < slowNodeFactor*list[1].median {
		return 0, 0, 0
	}
	return int(list[0].id), list[0].median, list[1].median
}

// resources lists what the samples tell of, the busiest first.
func (l log) resources(r *Report) []Resource {
	list := []Resource{}
	add := func(kind string, node int, used float64, format string, args ...any) {
		if used > 0 {
			list = append(list, Resource{kind, node, used, fmt.Sprintf(format, args...)})
		}
	}
	seen := map[string]bool{} // hosts whose CPUs are in the list
	for _, n := range r.Nodes {
		m := l.Run.Machines.Node(n.ID)
		add(limitDisk, n.ID, n.Of["disk_busy_s"], "busy for %s of the time, %s/s written, %s/s read",
			term.Percent(n.Of["disk_busy_s"]), term.Bytes(int64(n.Of["disk_written_bytes"])),
			term.Bytes(int64(n.Of["disk_read_bytes"])))
		add(limitLink, n.ID, n.LinkPercent, "%s/s in, %s/s out of %s/s", term.Bytes(int64(n.Of["net_rx_bytes"])),
			term.Bytes(int64(n.Of["net_tx_bytes"])), term.Bytes(m.LinkBytesPS))
		if seen[m.Host] {
			continue
		}
		seen[m.Host] = m.Host != ""
		cores, shared := l.coresOn(m, r)
		also := ""
		if shared > 1 {
			also = fmt.Sprintf(" by the %d processes of the run on its machine", shared)
		}
		add(limitCPU, n.ID, 100*ratio(cores, float64(m.CPUs)), "%s of %s used%s", term.Digits3(cores),
			term.Plural(m.CPUs, "core"), also)
	}
	if c := r.Client; c != nil {
		m := l.Run.Machines.Client
		add(limitClientCPU, 0, c.CPUPercent, "%s of %s used", term.Digits3(c.Of["cpu_s"]),
			term.Plural(m.CPUs, "core"))
		add(limitSource, 0, c.SourcePercent, "its workers spent %s of their time making images",
			term.Percent(c.SourcePercent))
		add(limitLink, 0, c.LinkPercent, "%s/s out of %s/s", term.Bytes(int64(c.Of["net_tx_bytes"])),
			term.Bytes(m.LinkBytesPS))
	}
	slices.SortStableFunc(list, func(a, b Resource) int { return cmp.Compare(b.UsedPercent, a.UsedPercent) })
	return list
}

// coresOn adds up the cores that the run's processes used on a machine, and counts them.
func (l log) coresOn(m runlog.Machine, r *Report) (cores float64, processes int) {
	same := func(other runlog.Machine) bool { return other.Host != "" && other.Host == m.Host || other == m }
	for _, n := range r.Nodes {
		if same(l.Run.Machines.Node(n.ID)) {
			cores += n.Of["cpu_s"]
			processes++
		}
	}
	if c := r.Client; c != nil && same(l.Run.Machines.Client) {
		cores += c.Of["cpu_s"]
		processes++
	}
	return cores, processes
}

// words names what limits.
func (b *Bottleneck) words() string {
	switch b.Kind {
	case limitFaults:
		return "the faults that the run made"
	case limitRate:
		return "the rate that was asked for"
	case limitWaiting:
		return "waiting: nothing that was sampled is busy"
	case limitUnknown:
		return "unknown"
	case limitRetries:
		return "uploads that are tried again"
	case limitGenerator:
		return "the client, which falls behind its schedule"
	case limitSlowNode:
		return fmt.Sprintf("node %d, which takes much longer than the others", b.Node)
	case limitDown:
		return fmt.Sprintf("a fault of node %d", b.Node)
	}
	return resourceName(b.Kind, b.Node)
}

func resourceName(kind string, node int) string {
	switch kind {
	case limitClientCPU:
		return "the client's CPUs"
	case limitSource:
		return "the client's making of images"
	case limitCPU:
		return fmt.Sprintf("the CPUs of node %d", node)
	}
	if node == 0 {
		return "the client's " + kind
	}
	return fmt.Sprintf("the %s of node %d", kind, node)
}

package report

import (
	"cmp"
	"fmt"
	"slices"

	"imgcluster/modes/runlog"
	"imgcluster/modes/term"
)

// Bottleneck is what limited the throughput, most likely. Resources are those whose use the samples have, the
// busiest first.
type Bottleneck struct {
	Slow      bool       `json:"slow"` // below the wanted throughput, or far below what the resources allow
	Kind      string     `json:"kind"` // one of the kinds below, or unknown
	Node      int        `json:"node,omitempty"`
	What      string     `json:"what"`
	Evidence  string     `json:"evidence"`
	Try       string     `json:"try"`
	Resources []Resource `json:"resources"`
}

// Resource is something that a run can use up.
type Resource struct {
	Kind        string  `json:"kind"`
	Node        int     `json:"node,omitempty"` // 0 for the client
	UsedPercent float64 `json:"used_percent"`
	Evidence    string  `json:"evidence"`
}

// Name returns the resource and whose it is.
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
	limitFaults    = "faults"    // uploads waited for the cluster to recover from the run's own faults
	limitRate      = "rate"      // no more was asked for
	limitWaiting   = "waiting"   // nothing is busy: round trips, fsync, elections
	limitUnknown   = "unknown"   // the log does not have the figures
)

// try is the next step for each.
var try = map[string]string{
	limitLink:      "use a faster link, or --delivery announce or relay, which send less from the client",
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
	limitWaiting:   "raise --concurrency; then look at the disks' fsync and the round trips between the nodes",
	limitUnknown:   "update the nodes and the client, so that the log has their links, disks and CPUs",
}

// When something counts as the limit.
const (
	busyPercentMin     = 80.0 // of a resource
	idlePercentMax     = 50.0 // of the busiest resource: twice as much would fit
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
	if len(b.Resources) > 0 && (b.Kind == "" || b.Kind == limitGenerator) && b.Resources[0].usedUp() {
		b.Kind = b.Resources[0].Kind
		b.Node = b.Resources[0].Node
		b.Evidence = b.Resources[0].Evidence
	}
	if b.Kind == "" {
		b.nothingBusy(l, r)
	}
	low := r.ThroughputPerS < r.Limits.ThroughputPerS
	idle := len(b.Resources) > 0 && b.Resources[0].UsedPercent < idlePercentMax
	b.Slow = low || idle && b.Kind != limitRate && b.Kind != limitFaults
	b.What = b.words()
	b.Try = try[b.Kind]
	return &b
}

// usedUp reports whether so much of the resource was used that it limits the run.
func (u Resource) usedUp() bool {
	return u.UsedPercent >= busyPercentMin || u.Kind == limitSource && u.UsedPercent >= clientSourcePercentMax
}

// Limiting returns the bottleneck when it is known or the run was slow, else nil.
func (r *Report) Limiting() *Bottleneck {
	if b := r.Bottleneck; b != nil && (b.Slow || b.Kind != limitUnknown) {
		return b
	}
	return nil
}

// nothingBusy sets the limit of a run in which no resource was used up.
func (b *Bottleneck) nothingBusy(l log, r *Report) {
	switch rate := l.Run.UploadRate(); {
	case l.Run.Rate > 0 && r.ThroughputPerS >= rate*rateReachedMin:
		b.Kind = limitRate
		b.Evidence = fmt.Sprintf("%s uploads/s were asked for, and made", term.Digits3(rate))
	case len(b.Resources) == 0:
		b.Kind = limitUnknown
		b.Evidence = "the log has no figures of links, disks and CPUs, or not of how much there is"
	default:
		busiest := b.Resources[0]
		b.Kind = limitWaiting
		b.Evidence = fmt.Sprintf("the busiest in the samples is %s: %s", busiest.Name(), busiest.Evidence)
	}
}

// suspect looks for what limits the run however busy its resources are; it returns a Bottleneck of no kind
// when there is nothing.
func (l log) suspect(r *Report) (b Bottleneck) {
	if waited := l.waited(); 100*ratio(waited, r.MeasuredS) > downPercentMin {
		b.Kind = limitFaults
		b.Evidence = fmt.Sprintf("uploads waited %s s, %s of the time, for the cluster to recover from them",
			term.Seconds(waited), term.Percent(100*ratio(waited, r.MeasuredS)))
		return b
	}
	for _, n := range r.Nodes {
		if down := 100 * ratio(n.DownS, r.MeasuredS); down > downPercentMin {
			b.Kind, b.Node = limitDown, n.ID
			b.Evidence = fmt.Sprintf("it was down for %s s, %s of the time",
				term.Seconds(n.DownS), term.Percent(down))
			return b
		}
	}
	w := l.wire(len(l.runNodes(r.Nodes)))
	resent := 100 * ratio(w.again, w.needed)
	retried := 100 * ratio(float64(w.retried), float64(r.Attempted))
	if w.needed > 0 && resent > r.Limits.ResentPercent || retried > retriedPercentMin {
		b.Kind = limitRetries
		b.Evidence = fmt.Sprintf("%s of the uploads were tried again, %s of the bytes sent again",
			term.Percent(retried), term.Percent(resent))
		return b
	}
	if node, own, others := l.slowNode(); node != 0 {
		b.Kind, b.Node = limitSlowNode, node
		b.Evidence = fmt.Sprintf("uploads that it owns take %s ms for a megabyte (median), "+
			"those of the others %s ms", term.Significant3(1000*own), term.Significant3(1000*others))
		return b
	}
	if c := r.Client; c != nil && l.Run.Rate > 0 && c.Limited != "" {
		b.Kind, b.Evidence = limitGenerator, c.Limited
	}
	return b
}

// slowNode finds a node whose own uploads take much longer than those of each other node, and returns the
// medians of both in seconds for a megabyte; the node is 0 when there is none.
func (l log) slowNode() (node int, own, others float64) {
	perMegabyte := map[int][]float64{} // by owner
	for i := range l.Uploads {
		if u := &l.Uploads[i]; u.Measured() && u.Owner != 0 && u.Bytes > 0 {
			perMegabyte[u.Owner] = append(perMegabyte[u.Owner], u.LatencyS/float64(u.Bytes)*1e6)
		}
	}
	if len(perMegabyte) < 2 {
		return 0, 0, 0
	}
	for id, list := range perMegabyte {
		if len(list) < slowNodeUploadsMin {
			return 0, 0, 0
		}
		switch m := median(list); {
		case m > own:
			node, own, others = id, m, own
		case m > others:
			others = m
		}
	}
	if own < slowNodeFactor*others {
		return 0, 0, 0
	}
	return node, own, others
}

// resources lists the resources whose use the samples have, the busiest first.
func (l log) resources(r *Report) []Resource {
	list := []Resource{}
	add := func(kind string, node int, usedPercent float64, evidence string) {
		if usedPercent > 0 {
			list = append(list, Resource{kind, node, usedPercent, evidence})
		}
	}
	counted := map[string]bool{} // hosts whose CPUs are in the list
	for _, n := range r.Nodes {
		host := l.Run.Hosts.Node(n.ID)
		add(limitDisk, n.ID, n.Of["disk_busy_s"], fmt.Sprintf("busy for %s of the time, %s written, %s read",
			term.Percent(n.Of["disk_busy_s"]),
			perSecond(n.Of["disk_written_bytes"]),
			perSecond(n.Of["disk_read_bytes"])))
		add(limitLink, n.ID, n.LinkPercent, fmt.Sprintf("%s in, %s out of %s",
			perSecond(n.Of["net_rx_bytes"]),
			perSecond(n.Of["net_tx_bytes"]),
			perSecond(float64(host.LinkBytesPS))))
		if counted[host.Name] {
			continue
		}
		counted[host.Name] = host.Name != ""
		cores, processes := l.coresOn(host, r)
		evidence := fmt.Sprintf("%s of %s used", term.Digits3(cores), term.Plural(host.CPUs, "core"))
		if processes > 1 {
			evidence += fmt.Sprintf(" by the %d processes of the run on its machine", processes)
		}
		add(limitCPU, n.ID, 100*ratio(cores, float64(host.CPUs)), evidence)
	}
	if c := r.Client; c != nil {
		host := l.Run.Hosts.Client
		add(limitClientCPU, 0, c.CPUPercent, fmt.Sprintf("%s of %s used",
			term.Digits3(c.Of["cpu_s"]), term.Plural(host.CPUs, "core")))
		add(limitSource, 0, c.SourcePercent, fmt.Sprintf("its workers spent %s of their time making images",
			term.Percent(c.SourcePercent)))
		add(limitLink, 0, c.LinkPercent, fmt.Sprintf("%s out of %s",
			perSecond(c.Of["net_tx_bytes"]), perSecond(float64(host.LinkBytesPS))))
	}
	slices.SortStableFunc(list, func(a, b Resource) int { return cmp.Compare(b.UsedPercent, a.UsedPercent) })
	return list
}

// perSecond writes a rate in bytes.
func perSecond(bytes float64) string { return term.Bytes(int64(bytes)) + "/s" }

// coresOn adds up the cores that the run's processes used on a host, and counts the processes.
func (l log) coresOn(host runlog.Host, r *Report) (cores float64, processes int) {
	add := func(u *Usage, on runlog.Host) {
		if on.Name != "" && on.Name == host.Name || on == host {
			cores += u.Of["cpu_s"]
			processes++
		}
	}
	for i := range r.Nodes {
		add(&r.Nodes[i].Usage, l.Run.Hosts.Node(r.Nodes[i].ID))
	}
	if r.Client != nil {
		add(&r.Client.Usage, l.Run.Hosts.Client)
	}
	return cores, processes
}

// words names the limit.
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

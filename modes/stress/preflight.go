package stress

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"imgcluster/cluster/client"
	"imgcluster/cluster/hostinfo"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
	"imgcluster/config"
	"imgcluster/modes/runlog"
	"imgcluster/modes/term"
)

// What the preflight asks for.
const (
	preflightTimeout = 2500 * time.Millisecond // for a first answer of the cluster, and for its quorum
	preflightPoll    = 100 * time.Millisecond
	roundTrips       = 7 // to each node, the first of which connects and does not count
	clockApartMax    = time.Second
	diskMargin       = 1.1       // for headers, the log of Raft, and shares that are not quite even
	largestImages    = 4         // for which a node that is given images must have room besides
	clientMemory     = 256 << 20 // bytes that a run takes here at most
	nodeMemory       = 512 << 20 // and on a node
	filesReserve     = 64        // descriptors for logs, pipes and the like
	nodeFilesReserve = 256       // on a node: its log, catalog and peers too
)

// found is what the preflight found.
type found struct {
	status  wire.ClusterStatus
	nodes   []nodeFound
	client  hostinfo.Host
	version string // of this program
	// Nodes of the configuration that are no members, and members that it does not list.
	strangers, unlisted []image.NodeID
}

// nodeFound is one member of the cluster.
type nodeFound struct {
	ID      image.NodeID
	info    wire.NodeInfo
	err     error         // it did not answer
	latency time.Duration // of the median round trip
	ahead   time.Duration // its clock, of this machine's
	within  time.Duration // of ahead: half of the round trip in which it was told
}

// look asks every member of the cluster; dir is where the client writes its log. That nobody
// answers, or that there is no quorum, is an error.
func look(ctx context.Context, c *client.Client, cfg *config.Config, dir string) (*found, error) {
	status, err := awaitQuorum(ctx, c)
	if err != nil {
		return nil, err
	}
	f := &found{status: status, nodes: make([]nodeFound, len(status.Nodes))}
	f.compare(cfg)
	limited, cancel := context.WithTimeout(ctx, preflightTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for i, n := range status.Nodes {
		f.nodes[i].ID = n.ID
		wg.Go(func() { f.nodes[i].ask(limited, c) })
	}
	wg.Wait()
	f.client = hostinfo.Read(dir, ownAddress(cfg.Cluster.Nodes[0].APIAddr()))
	return f, ctx.Err()
}

// compare finds where the configuration and the members differ.
func (f *found) compare(cfg *config.Config) {
	var listed, members []image.NodeID
	for _, n := range cfg.Cluster.Nodes {
		listed = append(listed, n.ID)
	}
	for _, n := range f.status.Nodes {
		members = append(members, n.ID)
	}
	less := func(a, b []image.NodeID) []image.NodeID {
		return slices.DeleteFunc(slices.Clone(a), func(id image.NodeID) bool { return slices.Contains(b, id) })
	}
	f.strangers, f.unlisted = less(listed, members), less(members, listed)
}

// awaitQuorum finds the cluster, and waits a little for its quorum, and for the nodes that are up to be
// ready: elections are over soon.
func awaitQuorum(ctx context.Context, c *client.Client) (wire.ClusterStatus, error) {
	limited, cancel := context.WithTimeout(ctx, preflightTimeout)
	defer cancel()
	var seen wire.ClusterStatus // with a quorum
	for {
		status, err := c.Cluster(limited)
		switch {
		case ctx.Err() != nil:
			return status, ctx.Err()
		case limited.Err() != nil && seen.Ready:
			return seen, nil
		case limited.Err() != nil && err != nil:
			return status, c.NobodyAnswers(fmt.Sprintf("no node answers within %s", preflightTimeout))
		case err != nil || status.Ready && allReady(status):
			return status, err
		}
		if status.Ready {
			seen = status
		}
		select {
		case <-limited.Done():
			if seen.Ready {
				return seen, nil
			}
			return status, NotReady(status)
		case <-time.After(preflightPoll):
		}
	}
}

// allReady reports whether every node that is up, and has no problem that it knows of, is ready.
func allReady(s wire.ClusterStatus) bool {
	return !slices.ContainsFunc(s.Nodes, func(n wire.NodeStatus) bool { return n.Condition() == string(wire.NodeUp) && !n.Ready })
}

// ownAddress is the one that this machine has towards another.
func ownAddress(to string) netip.Addr {
	conn, err := net.Dial("udp", to) // sends nothing
	if err != nil {
		return netip.Addr{}
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr()
}

// ask takes several looks at a node.
func (n *nodeFound) ask(ctx context.Context, c *client.Client) {
	trips := make([]time.Duration, 0, roundTrips)
	for range roundTrips {
		began := time.Now()
		info, err := c.NodeInfo(ctx, n.ID)
		if err != nil {
			n.err = err
			return
		}
		trip := time.Since(began)
		if n.within == 0 || trip/2 < n.within {
			n.within = trip / 2
			n.ahead = info.Clock.Sub(began.Add(trip / 2))
		}
		n.info = info
		trips = append(trips, trip)
	}
	trips = trips[1:]
	slices.Sort(trips)
	n.latency = trips[len(trips)/2]
}

// NotReady is the failure of a cluster that cannot serve.
func NotReady(s wire.ClusterStatus) error {
	return image.Errorf(image.KindNoQuorum, "%d of %s have no leader",
		len(s.Shards)-s.Leaders(), term.Plural(len(s.Shards), "shard")).
		WithHint("wait for the election; if it does not end, start the nodes that are down, with: imgcluster server --id N")
}

// NotMember says that a node of the configuration is not in the cluster.
func NotMember(id image.NodeID) string {
	return fmt.Sprintf("node %d is not a member of the cluster: it was removed, or not added yet; "+
		"take it out of the configuration, or add it with imgcluster member add", id)
}

// answered are the nodes that did.
func (f *found) answered() []nodeFound {
	return slices.DeleteFunc(slices.Clone(f.nodes), func(n nodeFound) bool { return n.err != nil })
}

// describe completes the first record of the log.
func (f *found) describe(cfg *config.Config, run *runlog.Run) {
	describe := func(id image.NodeID, version string, m hostinfo.Host) runlog.Machine {
		return runlog.Machine{ID: int(id), Host: m.Host, CPUs: m.CPUs, MemoryBytes: m.MemoryBytes, LinkBytesPS: m.LinkBytesPS, Version: version}
	}
	run.Machines = runlog.Machines{Client: describe(0, f.version, f.client)}
	run.Settings = cfg.Shared()
	for i, n := range f.answered() {
		if i == 0 {
			run.Settings = map[string]string{}
			maps.Copy(run.Settings, n.info.Settings)
		}
		run.Machines.Nodes = append(run.Machines.Nodes, describe(n.ID, n.info.Version, n.info.Machine))
	}
	run.Settings["cluster.nodes"] = addresses(cfg)
	run.Nodes = nil
	for _, n := range f.nodes {
		run.Nodes = append(run.Nodes, int(n.ID))
	}
	run.Replicas = f.status.Replicas
}

// addresses lists the nodes as the setting has them.
func addresses(cfg *config.Config) string {
	for _, s := range cfg.Settings() {
		if s.Key == "cluster.nodes" {
			return s.Value
		}
	}
	return ""
}

// Verdict is what a check says: a failed one stops the run, unless it is forced.
type Verdict string

const (
	CheckOK   Verdict = "ok"
	CheckWarn Verdict = "warn"
	CheckFail Verdict = "fail"
)

// Check is one thing that the preflight looks at.
type Check struct {
	Name  string  `json:"check"`
	State Verdict `json:"state"`
	Said  string  `json:"found"`
	Hint  string  `json:"hint,omitempty"`
}

// judge holds what was found to what the run needs.
func (f *found) judge(cfg *config.Config, o *Options, t Needs) []Check {
	return []Check{
		f.checkNodes(), f.checkLeaders(), f.checkVersions(), f.checkSettings(cfg), f.checkClocks(), f.checkDisks(cfg, t),
		f.checkLogDisk(t), f.checkMemory(), f.checkFiles(o), f.checkUploads(o), f.checkLatency(cfg), f.checkLink(t),
	}
}

// worse keeps the worse state, and the words that belong to it.
func (c *Check) worse(state Verdict, hint, format string, args ...any) {
	rank := map[Verdict]int{CheckOK: 0, CheckWarn: 1, CheckFail: 2}
	said := fmt.Sprintf(format, args...)
	switch {
	case rank[state] > rank[c.State]:
		c.State, c.Said, c.Hint = state, said, hint
	case rank[state] == rank[c.State]:
		c.Said += "; " + said
	}
}

func (f *found) checkNodes() Check {
	c := Check{Name: "nodes", State: CheckOK, Said: fmt.Sprintf("%d of %d answer", len(f.answered()), len(f.nodes))}
	for _, n := range f.nodes {
		if n.err != nil {
			c.worse(CheckFail, fmt.Sprintf("start it with: imgcluster server --id %d", n.ID), "node %d does not answer as this version does: %v", n.ID, n.err)
		}
	}
	for _, n := range f.status.Nodes {
		if n.State == wire.NodeDown {
			continue // it does not answer
		}
		if state := n.Condition(); state != string(wire.NodeUp) {
			c.worse(CheckFail, cmp.Or(n.Problem, "see imgcluster status"), "node %d is %s", n.ID, state)
		}
	}
	for _, id := range f.strangers {
		c.worse(CheckWarn, "", "%s", NotMember(id))
	}
	for _, id := range f.unlisted {
		c.worse(CheckWarn, "", "node %d is a member of the cluster and not in the configuration here", id)
	}
	return c
}

func (f *found) checkLeaders() Check {
	return Check{Name: "leaders", State: CheckOK, Said: fmt.Sprintf("%d of %s have one", f.status.Leaders(), term.Plural(len(f.status.Shards), "shard"))}
}

func (f *found) checkVersions() Check {
	c := Check{Name: "versions", State: CheckOK}
	nodes := f.answered()
	for _, n := range nodes {
		switch first := nodes[0]; {
		case c.Said == "":
			c.Said = n.info.Version + " on every node"
		case n.info.Version != first.info.Version:
			c.worse(CheckFail, "install the same version on every node, and restart it", "node %d has %s, node %d has %s", first.ID, first.info.Version, n.ID, n.info.Version)
		}
	}
	if len(nodes) > 0 && nodes[0].info.Version != f.version {
		c.worse(CheckWarn, "", "this program is %s, node %d has %s", f.version, nodes[0].ID, nodes[0].info.Version)
	}
	return c
}

// mustMatch are the settings that this program has to have as the nodes do.
var mustMatch = []string{"cluster.name", "cluster.data_shards", "cluster.replicas", "limits.image_bytes"}

func (f *found) checkSettings(cfg *config.Config) Check {
	c := Check{Name: "settings", State: CheckOK, Said: "the same on every node"}
	nodes := f.answered()
	if len(nodes) == 0 {
		return c
	}
	first, own := nodes[0].info.Settings, cfg.Shared()
	for _, n := range nodes[1:] {
		for _, key := range slices.Sorted(maps.Keys(first)) {
			if a, b := first[key], n.info.Settings[key]; a != b {
				c.worse(CheckFail, "give every node the same configuration, and restart it", "%s is %s on node %d and %s on node %d", key, a, nodes[0].ID, b, n.ID)
			}
		}
	}
	for _, key := range mustMatch {
		if first[key] != own[key] {
			c.worse(CheckWarn, "use the nodes' configuration here too, with --config", "%s is %s on the nodes and %s here", key, first[key], own[key])
		}
	}
	return c
}

func (f *found) checkClocks() Check {
	var least, most nodeFound // this machine is ahead of itself by 0
	for _, n := range f.answered() {
		if n.ahead < least.ahead {
			least = n
		}
		if n.ahead > most.ahead {
			most = n
		}
	}
	apart, within := most.ahead-least.ahead, most.within+least.within
	c := Check{Name: "clocks", State: CheckOK, Said: fmt.Sprintf("%s apart at most, %s are allowed", milliseconds(apart), milliseconds(clockApartMax))}
	if apart-within > clockApartMax {
		name := func(n nodeFound) string {
			if n.ID == 0 {
				return "this machine"
			}
			return fmt.Sprintf("node %d", n.ID)
		}
		c.worse(CheckFail, "set the clocks, for example with: timedatectl set-ntp true", "%s is %s ahead of %s, %s are allowed", name(most), milliseconds(apart), name(least), milliseconds(clockApartMax))
	}
	return c
}

func milliseconds(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	if ms < 10 {
		return fmt.Sprintf("%.1f ms", ms)
	}
	return fmt.Sprintf("%.0f ms", ms)
}

// checkDisks adds up what the nodes need that share a file system.
func (f *found) checkDisks(cfg *config.Config, t Needs) Check {
	c := Check{Name: "disks", State: CheckOK}
	nodes := f.answered()
	for len(nodes) > 0 {
		disk := nodes[0].info.Machine
		same := func(n nodeFound) bool {
			return n.info.Machine.DiskID == disk.DiskID && disk.DiskID != "" || n.ID == nodes[0].ID
		}
		var ids []image.NodeID
		for _, n := range nodes {
			if same(n) {
				ids = append(ids, n.ID)
			}
		}
		nodes = slices.DeleteFunc(nodes, same)
		need := t.Disk(cfg, len(ids))
		name := "node " + term.List(ids)
		if len(ids) > 1 {
			name = "nodes " + term.List(ids) + " on one disk"
		}
		text := fmt.Sprintf("%s: needs %s, %s free", name, term.Bytes(need), term.Bytes(disk.DiskFree))
		switch {
		case disk.DiskFree >= need:
			c.Said = strings.TrimPrefix(c.Said+"; "+text, "; ")
		case t.AtMost:
			c.worse(CheckWarn, "give a --rate, so that it is known", "%s (at most)", text)
		default:
			c.worse(CheckFail, "free disk there, or give a smaller --count", "%s", text)
		}
	}
	return c
}

func (f *found) checkLogDisk(t Needs) Check {
	c := Check{Name: "log", State: CheckOK, Said: fmt.Sprintf("needs %s, %s free", term.Bytes(t.Log), term.Bytes(f.client.DiskFree))}
	if f.client.DiskID != "" && f.client.DiskFree < t.Log {
		c.State, c.Hint = CheckFail, "name a file on another disk with --log"
	}
	return c
}

// bootOf tells machines apart.
func bootOf(m hostinfo.Host) string { return strings.Split(m.DiskID, "/")[0] }

// checkMemory looks at each machine once, for all processes of the run that it has.
func (f *found) checkMemory() Check {
	type machineNeed struct {
		name       string
		free, need int64
	}
	machines := map[string]*machineNeed{bootOf(f.client): {"this machine", f.client.MemoryFree, clientMemory}}
	order := []string{bootOf(f.client)}
	resident := map[image.NodeID]int64{}
	for _, n := range f.status.Nodes {
		resident[n.ID] = n.RSSBytes
	}
	for _, n := range f.answered() {
		boot := bootOf(n.info.Machine)
		if machines[boot] == nil {
			machines[boot] = &machineNeed{name: fmt.Sprintf("node %d", n.ID), free: n.info.Machine.MemoryFree}
			order = append(order, boot)
		}
		machines[boot].need += max(nodeMemory-resident[n.ID], 0)
	}
	c := Check{Name: "memory", State: CheckOK}
	for _, boot := range order {
		m := machines[boot]
		text := fmt.Sprintf("%s: needs %s, %s free", m.name, term.Bytes(m.need), term.Bytes(m.free))
		if m.free >= m.need {
			c.worse(CheckOK, "", "%s", text)
			continue
		}
		c.worse(CheckFail, "end what else runs there, or take a machine with more memory", "%s", text)
	}
	c.Said = strings.TrimPrefix(c.Said, "; ")
	return c
}

func (f *found) checkFiles(o *Options) Check {
	need := int64(o.Concurrency*(len(f.nodes)+1) + filesReserve)
	c := Check{Name: "open files", State: CheckOK, Said: fmt.Sprintf("this program: needs %d, may have %d", need, f.client.OpenFilesMax)}
	if f.client.OpenFilesMax < need {
		c.State, c.Hint = CheckFail, "raise it with ulimit -n, or give a lower --concurrency"
	}
	for _, n := range f.answered() {
		have := n.info.Machine.OpenFilesMax
		if need := int64(2*o.Concurrency + nodeFilesReserve); have < need {
			c.worse(CheckFail, "raise it there with ulimit -n before the node starts", "node %d: needs %d, may have %d", n.ID, need, have)
		}
	}
	return c
}

func (f *found) checkUploads(o *Options) Check {
	c := Check{Name: "at once", State: CheckOK, Said: term.Plural(o.Concurrency, "upload")}
	for _, n := range f.answered() {
		var most int
		if _, err := fmt.Sscan(n.info.Settings["limits.uploads"], &most); err == nil && o.Concurrency > most {
			c.worse(CheckWarn, "", "%d uploads, node %d takes %d and lets others try again (limits.uploads)", o.Concurrency, n.ID, most)
		}
	}
	return c
}

func (f *found) checkLatency(cfg *config.Config) Check {
	c := Check{Name: "latency", State: CheckOK}
	for _, n := range f.answered() {
		text := fmt.Sprintf("node %d %s", n.ID, milliseconds(n.latency))
		if n.latency > cfg.Raft.RTT {
			c.worse(CheckWarn, "", "%s, more than raft.rtt, %s", text, milliseconds(cfg.Raft.RTT))
			continue
		}
		c.worse(CheckOK, "", "%s", text)
	}
	c.Said = strings.TrimPrefix(c.Said, "; ")
	return c
}

// checkLink tells what the network allows.
func (f *found) checkLink(t Needs) Check {
	c := Check{Name: "network", State: CheckOK, Said: "the link's speed is not known"}
	if link := f.client.LinkBytesPS; link > 0 {
		c.Said = fmt.Sprintf("%s/s from here: sending %s takes %s at least", term.Bytes(link), term.Bytes(t.Sent), Roughly(float64(t.Sent)/float64(link)))
	}
	return c
}

// Refusal is why a run is not started; nil when nothing speaks against it. One that has --force is forcible.
func Refusal(checks []Check, forcible bool) error {
	var said []string
	hint := ""
	for _, c := range checks {
		if c.State == CheckFail {
			said = append(said, c.Name+": "+c.Said)
			hint = cmp.Or(hint, c.Hint)
		}
	}
	if said == nil {
		return nil
	}
	if forcible {
		hint += "; or start it all the same with --force"
	}
	return &notStarted{"the run was not started: " + strings.Join(said, "; "), hint}
}

// notStarted is why a run is not started.
type notStarted struct{ text, next string }

func (n *notStarted) Error() string { return n.text }

// Hint returns the next step.
func (n *notStarted) Hint() string { return n.next }

package stress

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"imgcluster/cluster/client"
	"imgcluster/cluster/hostinfo"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
	"imgcluster/config"
	"imgcluster/modes/term"
)

// What the checks of the preflight ask for.
const (
	clockApartMax    = time.Second
	diskMargin       = 1.1       // for headers, the log of Raft, and shares that are not quite even
	largestImages    = 4         // the largest possible images that must fit on a node's disk besides its share
	clientMemory     = 256 << 20 // bytes that a run takes on this machine at most
	nodeMemory       = 512 << 20 // bytes that a run takes on a node at most
	filesReserve     = 64        // descriptors for logs, pipes and the like
	nodeFilesReserve = 256       // descriptors on a node for its log, catalog and peers
)

// CheckState is the outcome of a check. One that failed stops the run, unless it is forced.
type CheckState string

// The outcomes, the worst one last.
const (
	CheckOK   CheckState = "ok"
	CheckWarn CheckState = "warn"
	CheckFail CheckState = "fail"
)

var checkStates = []CheckState{CheckOK, CheckWarn, CheckFail}

// Check is one check of the preflight.
type Check struct {
	Name  string     `json:"check"`
	State CheckState `json:"state"`
	Said  string     `json:"found"`
	Hint  string     `json:"hint,omitempty"`
}

// add adds a finding. The check keeps those of its worst state.
func (c *Check) add(state CheckState, hint, format string, args ...any) {
	said := fmt.Sprintf(format, args...)
	switch cmp.Compare(slices.Index(checkStates, state), slices.Index(checkStates, c.State)) {
	case 1:
		c.State = state
		c.Said = said
		c.Hint = hint
	case 0:
		c.Said = strings.TrimPrefix(c.Said+"; "+said, "; ")
	}
}

// judge compares what the preflight found with what the run needs.
func (f *found) judge(cfg *config.Config, o *Options, needs Needs) []Check {
	return []Check{
		f.checkNodes(),
		f.checkLeaders(),
		f.checkVersions(),
		f.checkSettings(cfg),
		f.checkClocks(),
		f.checkDisks(cfg, needs),
		f.checkLogDisk(needs),
		f.checkMemory(),
		f.checkFiles(o),
		f.checkUploads(o),
		f.checkLatency(cfg),
		f.checkLink(needs),
	}
}

func (f *found) checkNodes() Check {
	c := Check{
		Name:  "nodes",
		State: CheckOK,
		Said:  fmt.Sprintf("%d of %d answer", len(f.answered()), len(f.nodes)),
	}
	for _, n := range f.nodes {
		switch kind := image.KindOf(n.err); {
		case n.err == nil:
		case kind == image.KindForbidden || kind == image.KindUnauthorized: // the same on all of them
			c.add(CheckFail, "use an administrator's access key, or run it where the master key is",
				"a run reads the state of the nodes' machines: %v", n.err)
			return c
		case errors.Is(n.err, client.ErrMistrusted):
			c.add(CheckFail, image.HintOf(n.err), "%v", n.err)
		default:
			c.add(CheckFail, fmt.Sprintf("start it with: imgcluster server --id %d", n.ID),
				"node %d does not answer as this version does: %v", n.ID, n.err)
		}
	}
	for _, n := range f.status.Nodes {
		if n.State == wire.NodeDown {
			continue // it does not answer
		}
		if state := n.Condition(); state != string(wire.NodeUp) {
			c.add(CheckFail, cmp.Or(n.Problem, "see imgcluster status"), "node %d is %s", n.ID, state)
		}
	}
	for _, id := range f.notMembers {
		c.add(CheckWarn, "", "%s", NotMember(id))
	}
	for _, id := range f.unlisted {
		c.add(CheckWarn, "", "node %d is a member of the cluster and not in the configuration here", id)
	}
	return c
}

func (f *found) checkLeaders() Check {
	shards := term.Plural(len(f.status.Shards), "shard")
	return Check{
		Name:  "leaders",
		State: CheckOK,
		Said:  fmt.Sprintf("%d of %s have one", f.status.Leaders(), shards),
	}
}

func (f *found) checkVersions() Check {
	c := Check{Name: "versions", State: CheckOK}
	nodes := f.answered()
	if len(nodes) == 0 {
		return c
	}
	first := nodes[0]
	c.Said = first.info.Version + " on every node"
	for _, n := range nodes[1:] {
		if n.info.Version != first.info.Version {
			c.add(CheckFail, "install the same version on every node, and restart it",
				"node %d has %s, node %d has %s", first.ID, first.info.Version, n.ID, n.info.Version)
		}
	}
	if first.info.Version != f.version {
		c.add(CheckWarn, "", "this program is %s, node %d has %s", f.version, first.ID, first.info.Version)
	}
	return c
}

// mustMatch are the settings that must be the same here as on the nodes.
var mustMatch = []string{"cluster.name", "cluster.data_shards", "cluster.replicas", "limits.image_bytes"}

func (f *found) checkSettings(cfg *config.Config) Check {
	c := Check{Name: "settings", State: CheckOK, Said: "the same on every node"}
	nodes := f.answered()
	if len(nodes) == 0 {
		return c
	}
	first := nodes[0].info.Settings
	for _, n := range nodes[1:] {
		for _, key := range slices.Sorted(maps.Keys(first)) {
			if a, b := first[key], n.info.Settings[key]; a != b {
				c.add(CheckFail, "give every node the same configuration, and restart it",
					"%s is %s on node %d and %s on node %d", key, a, nodes[0].ID, b, n.ID)
			}
		}
	}
	own := cfg.Shared()
	for _, key := range mustMatch {
		if first[key] != own[key] {
			c.add(CheckWarn, "use the nodes' configuration here too, with --config",
				"%s is %s on the nodes and %s here", key, first[key], own[key])
		}
	}
	return c
}

func (f *found) checkClocks() Check {
	var slowest, fastest nodeFound // the zero value is this machine, which is ahead of itself by 0
	for _, n := range f.answered() {
		if n.ahead < slowest.ahead {
			slowest = n
		}
		if n.ahead > fastest.ahead {
			fastest = n
		}
	}
	apart := fastest.ahead - slowest.ahead
	c := Check{
		Name:  "clocks",
		State: CheckOK,
		Said:  fmt.Sprintf("%s apart at most, %s are allowed", milliseconds(apart), milliseconds(clockApartMax)),
	}
	if apart-fastest.within-slowest.within > clockApartMax {
		c.add(CheckFail, "set the clocks, for example with: timedatectl set-ntp true",
			"%s is %s ahead of %s, %s are allowed", fastest.name(), milliseconds(apart), slowest.name(),
			milliseconds(clockApartMax))
	}
	return c
}

// name returns what people call the node; the zero value is this machine.
func (n *nodeFound) name() string {
	if n.ID == 0 {
		return "this machine"
	}
	return fmt.Sprintf("node %d", n.ID)
}

func milliseconds(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	if ms < 10 {
		return fmt.Sprintf("%.1f ms", ms)
	}
	return fmt.Sprintf("%.0f ms", ms)
}

// checkDisks adds up what nodes need that share a file system.
func (f *found) checkDisks(cfg *config.Config, needs Needs) Check {
	c := Check{Name: "disks", State: CheckOK}
	nodes := f.answered()
	for len(nodes) > 0 {
		first := nodes[0]
		disk := first.info.Machine
		same := func(n nodeFound) bool {
			return n.ID == first.ID || disk.DiskID != "" && n.info.Machine.DiskID == disk.DiskID
		}
		var ids []image.NodeID
		for _, n := range nodes {
			if same(n) {
				ids = append(ids, n.ID)
			}
		}
		nodes = slices.DeleteFunc(nodes, same)
		name := "node " + term.List(ids)
		if len(ids) > 1 {
			name = "nodes " + term.List(ids) + " on one disk"
		}
		need := needs.Disk(cfg, len(ids))
		text := fmt.Sprintf("%s: needs %s, %s free", name, term.Bytes(need), term.Bytes(disk.DiskFree))
		switch {
		case disk.DiskFree >= need:
			c.add(CheckOK, "", "%s", text)
		case needs.AtMost:
			c.add(CheckWarn, "give a --rate, so that it is known", "%s (at most)", text)
		default:
			c.add(CheckFail, "free disk there, or give a smaller --count", "%s", text)
		}
	}
	return c
}

func (f *found) checkLogDisk(needs Needs) Check {
	c := Check{
		Name:  "log",
		State: CheckOK,
		Said:  fmt.Sprintf("needs %s, %s free", term.Bytes(needs.Log), term.Bytes(f.client.DiskFree)),
	}
	if f.client.DiskID != "" && f.client.DiskFree < needs.Log {
		c.State = CheckFail
		c.Hint = "name a file on another disk with --log"
	}
	return c
}

// bootOf returns the ID of a machine's boot, which differs between machines.
func bootOf(m hostinfo.Host) string { return strings.Split(m.DiskID, "/")[0] }

// checkMemory checks each machine once, for all processes of the run on it.
func (f *found) checkMemory() Check {
	type machineNeed struct {
		name       string
		free, need int64
	}
	order := []string{bootOf(f.client)}
	machines := map[string]*machineNeed{
		order[0]: {name: "this machine", free: f.client.MemoryFree, need: clientMemory},
	}
	resident := map[image.NodeID]int64{}
	for _, n := range f.status.Nodes {
		resident[n.ID] = n.RSSBytes
	}
	for _, n := range f.answered() {
		boot := bootOf(n.info.Machine)
		if machines[boot] == nil {
			machines[boot] = &machineNeed{name: n.name(), free: n.info.Machine.MemoryFree}
			order = append(order, boot)
		}
		machines[boot].need += max(nodeMemory-resident[n.ID], 0)
	}
	c := Check{Name: "memory", State: CheckOK}
	for _, boot := range order {
		m := machines[boot]
		if m.free == 0 {
			c.add(CheckWarn, "", "%s: needs %s, how much is free is not known", m.name, term.Bytes(m.need))
			continue
		}
		text := fmt.Sprintf("%s: needs %s, %s free", m.name, term.Bytes(m.need), term.Bytes(m.free))
		if m.free >= m.need {
			c.add(CheckOK, "", "%s", text)
			continue
		}
		c.add(CheckFail, "end what else runs there, or take a machine with more memory", "%s", text)
	}
	return c
}

func (f *found) checkFiles(o *Options) Check {
	need := int64(o.Concurrency*(len(f.nodes)+1) + filesReserve)
	c := Check{
		Name:  "open files",
		State: CheckOK,
		Said:  fmt.Sprintf("this program: needs %d, may have %d", need, f.client.OpenFilesMax),
	}
	if f.client.OpenFilesMax < need {
		c.State = CheckFail
		c.Hint = "raise it with ulimit -n, or give a lower --concurrency"
	}
	nodeNeed := int64(2*o.Concurrency + nodeFilesReserve)
	for _, n := range f.answered() {
		if have := n.info.Machine.OpenFilesMax; have < nodeNeed {
			c.add(CheckFail, "raise it there with ulimit -n before the node starts",
				"node %d: needs %d, may have %d", n.ID, nodeNeed, have)
		}
	}
	return c
}

func (f *found) checkUploads(o *Options) Check {
	c := Check{Name: "at once", State: CheckOK, Said: term.Plural(o.Concurrency, "upload")}
	for _, n := range f.answered() {
		var most int
		_, err := fmt.Sscan(n.info.Settings["limits.uploads"], &most)
		if err == nil && o.Concurrency > most {
			c.add(CheckWarn, "", "%d uploads, node %d takes %d and lets others try again (limits.uploads)",
				o.Concurrency, n.ID, most)
		}
	}
	return c
}

func (f *found) checkLatency(cfg *config.Config) Check {
	c := Check{Name: "latency", State: CheckOK}
	for _, n := range f.answered() {
		text := fmt.Sprintf("node %d %s", n.ID, milliseconds(n.latency))
		if n.latency > cfg.Raft.RTT {
			c.add(CheckWarn, "", "%s, more than raft.rtt, %s", text, milliseconds(cfg.Raft.RTT))
			continue
		}
		c.add(CheckOK, "", "%s", text)
	}
	return c
}

// checkLink estimates how long the network takes.
func (f *found) checkLink(needs Needs) Check {
	c := Check{Name: "network", State: CheckOK, Said: "the link's speed is not known"}
	if link := f.client.LinkBytesPS; link > 0 {
		c.Said = fmt.Sprintf("%s/s from here: sending %s takes %s at least", term.Bytes(link),
			term.Bytes(needs.Sent), Roughly(float64(needs.Sent)/float64(link)))
	}
	return c
}

// Refusal returns the error of a run that is not started because checks failed; nil when none did. Its
// hint names --force if the command has that option.
func Refusal(checks []Check, hasForce bool) error {
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
	if hasForce {
		hint += "; or start it all the same with --force"
	}
	return &notStarted{"the run was not started: " + strings.Join(said, "; "), hint}
}

// notStarted is the error of a run that the preflight refused.
type notStarted struct{ text, next string }

func (n *notStarted) Error() string { return n.text }

// Hint returns the next step.
func (n *notStarted) Hint() string { return n.next }

package config

import (
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"imgcluster/cluster/image"
)

// shardNodesMax is how many nodes one shard lives on at most, and so the most copies of an image.
const shardNodesMax = 3

// Check returns everything that is wrong with a configuration made or changed by hand; its error is a
// Problems. What Load returns has passed it.
func (c *Config) Check() error {
	var col collector
	c.check(&col)
	if ps := col.problems(); ps != nil {
		return ps
	}
	return nil
}

// check adds the problems of single values, then those between values.
func (c *Config) check(col *collector) {
	k := checker{cfg: c, col: col}
	k.values(reflect.ValueOf(c).Elem(), fields, "")
	k.nodes()
	k.copies()
	k.order()
	k.raft()
	k.keyFiles()
	k.security()
	k.tracing()
}

type checker struct {
	cfg *Config
	col *collector
}

// report adds a problem between keys, unless one of them has a problem of its own. Its place is that of the
// first key that was set, since a default is nobody's mistake.
func (k checker) report(f *fault, keys ...string) {
	at := place{}
	blamed := keys[0]
	for _, key := range keys {
		if k.col.bad[key] {
			return
		}
		if p, ok := k.cfg.places[key]; ok && at == (place{}) {
			at = p
			blamed = key
		}
	}
	if at == (place{}) && strings.HasPrefix(keys[0], nodesKey) {
		at = k.cfg.places[nodesKey] // nodes given as one text
	}
	k.col.fault(at, blamed, f)
}

// values checks each value against its own range.
func (k checker) values(v reflect.Value, list []*field, prefix string) {
	for _, f := range list {
		var wrong *fault
		switch value := v.FieldByIndex(f.index); {
		case f.kind() == "nodes" || f.kind() == "switch":
		case f.kind() == "text":
			wrong = f.checkText(value.String())
		case value.CanInt():
			wrong = f.checkRange(value.Int())
		default:
			wrong = f.checkRange(int64(value.Uint()))
		}
		if wrong != nil {
			k.report(wrong, prefix+f.key)
		}
	}
}

// nodes checks every node, and that no two share an ID or an address.
func (k checker) nodes() {
	nodes := k.cfg.Cluster.Nodes
	if len(nodes) < 1 || len(nodes) > nodesMax {
		k.report(countFault(len(nodes)), nodesKey)
	}
	ids := map[image.NodeID]string{}
	addresses := map[string]string{}
	for i, n := range nodes {
		at := fmt.Sprintf("%s[%d]", nodesKey, i)
		if k.col.bad[at] {
			continue
		}
		k.values(reflect.ValueOf(n), nodeFields, at+".")
		if first := ids[n.ID]; first != "" {
			k.report(faultf("give every node its own ID",
				"node ID %d is used twice, first by %s", n.ID, first), at+".id")
		} else if !k.col.bad[at+".id"] {
			ids[n.ID] = at + k.line(at)
		}
		k.address(addresses, at, "api_port", n.Host, n.APIPort)
		k.address(addresses, at, "raft_port", n.Host, n.RaftPort)
	}
}

// line is " (line 12)" when the key stands in a file.
func (k checker) line(key string) string {
	if p := k.cfg.places[key]; p.line > 0 {
		return fmt.Sprintf(" (line %d)", p.line)
	}
	return ""
}

// address reports an address that another port setting has already.
func (k checker) address(taken map[string]string, node, name, host string, port int) {
	key := node + "." + name
	if k.col.bad[key] || k.col.bad[node+".host"] {
		return
	}
	address := net.JoinHostPort(loopbackName(host), strconv.Itoa(port))
	if first := taken[address]; first != "" {
		k.report(faultf("give every API and Raft port of a host its own number",
			"%s is used twice, first by %s", net.JoinHostPort(host, strconv.Itoa(port)), first), key)
		return
	}
	taken[address] = key + k.line(key)
}

// copies checks the numbers of copies against the number of nodes.
func (k checker) copies() {
	const replicas, minReplicas = "cluster.replicas", "cluster.min_replicas"
	c := k.cfg.Cluster
	switch n := len(c.Nodes); {
	case c.Replicas > n:
		k.report(faultf(fmt.Sprintf("set cluster.replicas to at most %d, or add nodes", max(n, 1)),
			"%d copies of an image need %d nodes, and there are %d", c.Replicas, c.Replicas, n), replicas,
			nodesKey)
	case c.Replicas > shardNodesMax:
		k.report(faultf("set cluster.replicas to 2 or 3",
			"%d copies are too many: each shard lives on %d nodes", c.Replicas, shardNodesMax), replicas)
	}
	if c.MinReplicas > c.Replicas {
		k.report(faultf("set it to at most cluster.replicas",
			"cluster.min_replicas (%d) is more than cluster.replicas (%d)", c.MinReplicas, c.Replicas),
			minReplicas, replicas)
	}
}

// ordered lists pairs of settings of which the first must not be more than the second, and why.
var ordered = []struct{ low, high, why string }{
	{"limits.image_bytes", "limits.staging_bytes", "a standby node holds the whole image"},
	{"limits.staging_bytes", "limits.memory_bytes", "staging is a part of a node's memory"},
	{"timeouts.report", "timeouts.takeover", "nodes report what they have before an upload is taken over"},
	{"timeouts.takeover", "timeouts.upload", "an upload must outlive a takeover"},
	{"timeouts.proposal_attempt", "timeouts.proposal", "a proposal has at least one attempt"},
	{"timeouts.proposal", "timeouts.upload", "an upload waits for its proposals"},
	{"timeouts.peer_interval", "timeouts.peer_silence", "a node is not down between two exchanges"},
	{"client.backoff_min", "client.backoff_max", "the first wait is the shortest"},
}

func (k checker) order() {
	v := reflect.ValueOf(k.cfg).Elem()
	for _, o := range ordered {
		low := v.FieldByIndex(byKey[o.low].index)
		high := v.FieldByIndex(byKey[o.high].index)
		if low.Int() > high.Int() {
			f := faultf("lower "+o.low+" or raise "+o.high,
				"%s (%s) is more than %s (%s), but %s", o.low, format(low), o.high, format(high), o.why)
			k.report(f, o.low, o.high)
		}
	}
}

// raft checks the settings of Raft, and of its proposals, against what the nodes accept.
func (k checker) raft() {
	r := k.cfg.Raft
	attempt := k.cfg.Timeouts.ProposalAttempt
	if r.RTT%time.Millisecond != 0 {
		k.report(faultf("write whole milliseconds, such as 50ms",
			"%s is not a whole number of milliseconds", r.RTT), "raft.rtt")
	}
	if r.ElectionRTT < 3*r.HeartbeatRTT {
		f := faultf("five times raft.heartbeat_rtt serves well",
			"raft.election_rtt (%d) is less than three times raft.heartbeat_rtt (%d)", r.ElectionRTT,
			r.HeartbeatRTT)
		k.report(f, "raft.election_rtt", "raft.heartbeat_rtt")
	}
	if attempt < 2*r.RTT {
		f := faultf("raise timeouts.proposal_attempt or lower raft.rtt",
			"timeouts.proposal_attempt (%s) is less than twice raft.rtt (%s)", formatDuration(attempt),
			formatDuration(r.RTT))
		k.report(f, "timeouts.proposal_attempt", "raft.rtt")
	}
}

// keyFiles reports a key inside a folder of images: a copy of the folder would have both.
func (k checker) keyFiles() {
	const dir = "node.data_dir"
	for _, file := range []struct{ key, path, what string }{
		{"node.master_key_file", k.cfg.Local.MasterKeyFile, "master key"},
		{"tls.key_file", k.cfg.TLS.KeyFile, "certificate's key"},
	} {
		for _, n := range k.cfg.Cluster.Nodes {
			if file.path != NoFile && inside(file.path, k.cfg.DataDir(n.ID)) {
				k.report(faultf("move the key file elsewhere",
					"the %s is inside the data folder of node %d, %s", file.what, n.ID,
					plain(k.cfg.DataDir(n.ID))), file.key, dir)
				break
			}
		}
	}
}

// security checks the settings of TLS and access keys against each other.
func (k checker) security() {
	if s := k.cfg.Security; s.Insecure && s.Always {
		k.report(faultf("remove one of the two",
			"security.insecure and security.always are both true"), "security.insecure", "security.always")
	}
	if t := k.cfg.TLS; (t.CertFile == NoFile) != (t.KeyFile == NoFile) {
		k.report(faultf("give both files, or neither",
			"tls.cert_file is %s and tls.key_file is %s", plain(t.CertFile), plain(t.KeyFile)),
			"tls.cert_file", "tls.key_file")
	}
}

// tracing checks the URL of the collector.
func (k checker) tracing() {
	const key = "tracing.endpoint"
	endpoint := k.cfg.Tracing.Endpoint
	if endpoint == NoEndpoint {
		return
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil ||
		u.RawQuery != "" || u.Fragment != "" {
		k.report(faultf("write a URL such as http://127.0.0.1:4318, or none",
			"%s is not the URL of a collector", plain(endpoint)), key)
	}
}

func inside(path, dir string) bool {
	path, err1 := filepath.Abs(path)
	dir, err2 := filepath.Abs(dir)
	if err1 != nil || err2 != nil {
		return false
	}
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// diskFreeLow is a generous bound of what the log and the catalog grow by before they are compacted.
const diskFreeLow = 256 << 20

// Unknown returns a warning for each variable of the environment that looks like a setting and is none.
func (c *Config) Unknown() []Problem { return c.unknown }

// Warnings returns what works but is probably a mistake, Unknown included.
func (c *Config) Warnings() []Problem {
	var col collector
	k := checker{cfg: c, col: &col}
	n := len(c.Cluster.Nodes)
	switch {
	case n == 1:
		k.report(faultf("use three nodes, which tolerate the loss of any one",
			"one node: when it is lost, all images are"), nodesKey)
	case n%2 == 0:
		k.report(faultf("use an odd number",
			"%d nodes tolerate the loss of %d, no more than %d nodes do", n, (n-1)/2, n-1), nodesKey)
	}
	if n > 1 && c.Cluster.Replicas == 1 {
		k.report(faultf("set it to 2", "one copy of each image: a lost disk loses images"),
			"cluster.replicas")
	}
	if c.Limits.DiskFreeBytes < diskFreeLow {
		k.report(faultf("keep 1GiB free",
			"%v may be too little for the log of Raft: a node ends when its log finds the disk full",
			c.Limits.DiskFreeBytes), "limits.disk_free_bytes")
	}
	k.warnInsecure()
	hosts := map[string]image.NodeID{}
	for _, node := range c.Cluster.Nodes {
		host := loopbackName(node.Host)
		if first, ok := hosts[host]; ok && c.DataDir(first) == c.DataDir(node.ID) {
			k.report(faultf("put {id} into node.data_dir",
				"nodes %d and %d of host %s have the same data folder", first, node.ID, node.Host),
				"node.data_dir")
			break
		}
		hosts[host] = node.ID
	}
	return slices.Concat(c.unknown, col.problems())
}

// warnInsecure reports what is open to a network, and a certificate that nobody is shown.
func (k checker) warnInsecure() {
	c := k.cfg
	switch {
	case c.Secured():
	case c.OpenToAll():
		k.report(faultf("remove it, and clients use TLS and access keys",
			"plain HTTP without access keys: whoever reaches the nodes reads, replaces and deletes all images"),
			"security.insecure")
	case c.OwnCertificate():
		k.report(faultf("set security.always: true for TLS on loopback addresses",
			"the certificate is not used: nodes on loopback addresses serve plain HTTP"), "tls.cert_file")
	}
}

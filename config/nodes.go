package config

import (
	"net"
	"net/netip"
	"reflect"
	"strconv"
	"strings"

	"imgcluster/cluster/image"
)

const nodesHint = "write id=host:api_port:raft_port for each node, with commas between them, such as 1=10.40.45.206:8001:9001"

// parseNodes reads the list of nodes as one text: 1=10.0.0.1:8001:9001,2=10.0.0.2:8001:9001.
func parseNodes(s string) (any, *fault) {
	var nodes []Node
	for part := range strings.SplitSeq(s, ",") {
		if len(nodes) == nodesMax {
			return nil, faultf("remove some", "there are more than %d nodes", nodesMax)
		}
		n, f := parseNode(strings.TrimSpace(part))
		if f != nil {
			return nil, f
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}

func parseNode(s string) (Node, *fault) {
	id, address, _ := strings.Cut(s, "=")
	parts := strings.Split(address, ":")
	if len(parts) != 3 {
		return Node{}, faultf(nodesHint, "%s is not a node", quote(s))
	}
	var n Node
	for i, text := range []string{id, parts[0], parts[1], parts[2]} {
		v, f := nodeFields[i].parse(text)
		if f != nil {
			return Node{}, faultf(f.hint, "%s of node %s: %s", nodeFields[i].key, quote(s), f.message)
		}
		n.set(nodeFields[i].key, v)
	}
	return n, nil
}

// CheckNode holds one node to the rules for those of a configuration, and returns what is wrong with it.
func CheckNode(n Node) Problems {
	var col collector
	k := checker{cfg: &Config{}, col: &col}
	k.values(reflect.ValueOf(n), nodeFields, "")
	taken := map[string]string{}
	k.address(taken, "", "api_port", n.Host, n.APIPort)
	k.address(taken, "", "raft_port", n.Host, n.RaftPort)
	return col.problems()
}

// SameAddress tells whether two texts host:port are one address, as far as spelling can tell.
func SameAddress(a, b string) bool {
	hostA, portA, err := net.SplitHostPort(a)
	if err != nil {
		return a == b
	}
	hostB, portB, err := net.SplitHostPort(b)
	return err == nil && portA == portB && loopbackName(hostA) == loopbackName(hostB)
}

// set puts a parsed value into the field of this key.
func (n *Node) set(key string, v any) {
	switch key {
	case "id":
		n.ID = v.(image.NodeID)
	case "host":
		n.Host = v.(string)
	case "api_port":
		n.APIPort = v.(int)
	case "raft_port":
		n.RaftPort = v.(int)
	}
}

func formatNodes(nodes []Node) string {
	parts := make([]string, len(nodes))
	for i, n := range nodes {
		parts[i] = strconv.FormatUint(uint64(n.ID), 10) + "=" + n.Host + ":" + strconv.Itoa(n.APIPort) + ":" + strconv.Itoa(n.RaftPort)
	}
	return strings.Join(parts, ",")
}

// hostMax is the longest host name of the DNS, in bytes; labelMax that of one of its parts.
const (
	hostMax  = 253
	labelMax = 63
)

// checkHost takes IPv4 addresses and host names. Raft's transport knows no IPv6 literals, and an
// unspecified address is one to listen on, not one that others reach.
func checkHost(host string) *fault {
	if addr, err := netip.ParseAddr(host); err == nil {
		switch {
		case !addr.Is4():
			return faultf("give an IPv4 address, or a host name that stands for the IPv6 address", "%s is an IPv6 address, which Raft's transport does not take", quote(host))
		case addr.IsUnspecified() || addr.IsMulticast() || addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
			return faultf("give the address that other nodes and clients reach this node by", "%s is not the address of one machine", quote(host))
		}
		return nil
	}
	labels := strings.Split(host, ".")
	_, err := strconv.Atoi(labels[len(labels)-1])
	good := len(host) <= hostMax && err != nil // a number at the end is a mistaken IP address
	for _, label := range labels {
		good = good && goodLabel(label)
	}
	if !good {
		return faultf("give it without a port, such as 10.40.45.206 or node1.example.org", "%s is neither an IPv4 address nor a host name", quote(host))
	}
	return nil
}

func goodLabel(s string) bool {
	if s == "" || len(s) > labelMax || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if c != '-' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return true
}

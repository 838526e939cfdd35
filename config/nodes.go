package config

import (
	"net"
	"net/netip"
	"reflect"
	"strconv"
	"strings"

	"imgcluster/cluster/oserr"
)

const nodesHint = "write id=host:api_port:raft_port for each node, with commas between them, " +
	"such as 1=10.40.45.206:8001:9001; an IPv6 address in brackets: 1=[fd00::1]:8001:9001"

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
	host, ports := splitAddress(address)
	if len(ports) != 2 {
		return Node{}, faultf(nodesHint, "%s is not a node", quote(s))
	}
	var n Node
	for i, text := range []string{id, host, ports[0], ports[1]} {
		f := nodeFields[i]
		v, wrong := f.parse(text)
		if wrong != nil {
			return Node{}, faultf(wrong.hint, "%s of node %s: %s", f.key, quote(s), wrong.message)
		}
		n.set(f, v)
	}
	return n, nil
}

// splitAddress takes host:port:port apart. An IPv6 address without brackets is a host without ports.
func splitAddress(s string) (host string, ports []string) {
	if Host(s) != s || isAddress(s) {
		return Host(s), nil
	}
	parts := strings.Split(s, ":")
	if end := strings.IndexByte(s, ']'); s != "" && s[0] == '[' && end > 0 &&
		strings.HasPrefix(s[end+1:], ":") {
		parts = append([]string{s[:end+1]}, strings.Split(s[end+2:], ":")...)
	}
	return Host(parts[0]), parts[1:]
}

func isAddress(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

// Host is the one spelling of a host that addresses are compared in: IPv6 without brackets and in its
// shortest form (RFC 5952), IPv4 mapped into it as IPv4. Other texts stay as they are.
func Host(s string) string {
	text := s
	if len(s) > 2 && s[0] == '[' && s[len(s)-1] == ']' {
		text = s[1 : len(s)-1]
	}
	addr, err := netip.ParseAddr(text)
	if err != nil || text != s && addr.Is4() {
		return s
	}
	return addr.Unmap().String()
}

// NodeHost is the value of node.listen that stands for the node's host and ports in cluster.nodes.
const NodeHost = "host"

// ListenOn returns the node with the host and the ports that it listens on. An empty host is all addresses of
// its host.
func (c *Config) ListenOn(n Node) Node {
	on, _ := parseListen(c.Local.Listen) // it was checked
	if on.Host == NodeHost {
		return n
	}
	n.Host = on.Host
	if on.APIPort > 0 {
		n.APIPort = on.APIPort
		n.RaftPort = on.RaftPort
	}
	return n
}

// ListenPorts reports whether node.listen gives ports, which can then be those of one node only.
func (c *Config) ListenPorts() bool {
	on, _ := parseListen(c.Local.Listen) // it was checked
	return on.APIPort > 0
}

// Listener says how the address of a port is configured; setting is api_port or raft_port.
func (c *Config) Listener(setting string) oserr.Listener {
	return oserr.Listener{Setting: setting, Listen: c.Local.Listen != NodeHost, ListenPorts: c.ListenPorts()}
}

const listenHint = "write an address of this host, or 0.0.0.0 for all, and both ports where they differ: " +
	"0.0.0.0:8001:9001, \"[::]:8001:9001\""

// parseListen reads ADDRESS or ADDRESS:API_PORT:RAFT_PORT. The ports are 0 when there are none.
func parseListen(s string) (on Node, f *fault) {
	host, ports := splitAddress(s)
	addr, err := netip.ParseAddr(host)
	switch {
	case len(ports) != 0 && len(ports) != 2 || host == NodeHost && len(ports) > 0:
		return on, faultf(listenHint, "%s is neither ADDRESS nor ADDRESS:API_PORT:RAFT_PORT", quote(s))
	case err == nil && !addr.IsMulticast():
	case host == "*":
		host = ""
	default:
		if f := checkHost(host); f != nil {
			return on, faultf(listenHint, "%s", f.message)
		}
	}
	on.Host = host
	for i, text := range ports {
		f := nodeFields[2+i]
		port, wrong := f.parse(text)
		if wrong != nil {
			return on, faultf(wrong.hint, "%s of %s: %s", f.key, quote(s), wrong.message)
		}
		on.set(f, port)
	}
	if len(ports) > 0 && on.APIPort == on.RaftPort {
		return on, faultf("give the API and Raft a port each", "%s has one port for both", quote(s))
	}
	return on, nil
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

// SameAddress reports whether two texts host:port are one address, as far as spelling shows.
func SameAddress(a, b string) bool {
	hostA, portA, err := net.SplitHostPort(a)
	if err != nil {
		return a == b
	}
	hostB, portB, err := net.SplitHostPort(b)
	return err == nil && portA == portB && loopbackName(hostA) == loopbackName(hostB)
}

// set sets a field, one of nodeFields, to a value that it has parsed.
func (n *Node) set(f *field, v any) {
	reflect.ValueOf(n).Elem().FieldByIndex(f.index).Set(reflect.ValueOf(v))
}

func formatNodes(nodes []Node) string {
	parts := make([]string, len(nodes))
	for i, n := range nodes {
		parts[i] = strconv.FormatUint(uint64(n.ID), 10) + "=" + n.APIAddr() + ":" + strconv.Itoa(n.RaftPort)
	}
	return strings.Join(parts, ",")
}

// hostMax is the longest host name of the DNS, in bytes; labelMax that of one of its parts.
const (
	hostMax  = 253
	labelMax = 63
)

var broadcastAddr = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// checkHost accepts addresses, as Host spells them, and host names. An unspecified address is one to listen
// on, not one that others reach.
func checkHost(host string) *fault {
	if addr, err := netip.ParseAddr(host); err == nil {
		switch {
		case addr.Zone() != "" || addr.Is6() && addr.IsLinkLocalUnicast():
			return faultf("give an address that is the same on every host, such as fd00::1",
				"%s is an address of one link only", quote(host))
		case addr.IsUnspecified() || addr.IsMulticast() || addr == broadcastAddr:
			return faultf("give the address that other nodes and clients reach this node by",
				"%s is not the address of one host", quote(host))
		case Host(host) != host:
			return faultf("write "+Host(host),
				"%s has a shorter form, which addresses are compared in", quote(host))
		}
		return nil
	}
	name := strings.TrimSuffix(host, ".") // the root of the DNS, which ends a complete name
	labels := strings.Split(name, ".")
	_, err := strconv.Atoi(labels[len(labels)-1])
	good := len(name) <= hostMax && err != nil // a number at the end is a mistaken IP address
	for _, label := range labels {
		good = good && goodLabel(label)
	}
	if !good {
		return faultf("give it without a port, such as 10.40.45.206 or node1.example.org",
			"%s is neither an IP address nor a host name", quote(host))
	}
	return nil
}

// goodLabel reports whether s can be a part of a host name. Underscores are in no host name of RFC
// 1123, and in many of real networks.
func goodLabel(s string) bool {
	if s == "" || len(s) > labelMax || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if c != '-' && c != '_' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return true
}

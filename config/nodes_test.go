package config

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

// TestIPv6: an address may be written in any of its forms, in the file and as one text, and is one address.
func TestIPv6(t *testing.T) {
	want := []Node{{1, "fd00::1", 8001, 9001}, {2, "::1", 8001, 9001}, {3, "10.0.0.3", 8001, 9001}}
	for name, o := range map[string]Options{
		"text": {Env: []string{
			"IMGCLUSTER_CLUSTER_NODES=1=[fd00::1]:8001:9001, 2=[::1]:8001:9001,3=10.0.0.3:8001:9001",
		}},
		"forms": {Set: []string{
			"cluster.nodes=1=[FD00:0:0::1]:8001:9001,2=[0:0:0:0:0:0:0:1]:8001:9001," +
				"3=[::ffff:10.0.0.3]:8001:9001",
		}},
		"file": {Path: write(t, `cluster:
  nodes:
  - {id: 1, host: "fd00::1", api_port: 8001, raft_port: 9001}
  - {id: 2, host: "[::1]", api_port: 8001, raft_port: 9001}
  - id: 3
    host: ::ffff:10.0.0.3
    api_port: 8001
    raft_port: 9001
`)},
	} {
		c, err := Load(o)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !reflect.DeepEqual(c.Cluster.Nodes, want) {
			t.Errorf("%s: nodes %v", name, c.Cluster.Nodes)
		}
		api := c.Cluster.Nodes[0].APIAddr()
		raft := c.Cluster.Nodes[1].RaftAddr()
		if api != "[fd00::1]:8001" || raft != "[::1]:9001" {
			t.Errorf("%s: addresses %s and %s", name, api, raft)
		}
		const shown = "1=[fd00::1]:8001:9001,2=[::1]:8001:9001,3=10.0.0.3:8001:9001"
		if text := setting(t, c, nodesKey).Value; text != shown {
			t.Errorf("%s: shown as %s", name, text)
		}
	}
	for text, want := range map[string]string{
		"1=fd00::1:8001:9001":          "is not a node", // an address as a whole
		"1=[fd00::1]:8001":             "is not a node",
		"1=[fd00::1]8001:9001":         "is not a node",
		"1=[fd00::1:8001:9001":         "is not a node",
		"1=[node1]:8001:9001":          "is neither an IP address nor a host name",
		"1=[fe80::1]:8001:9001":        "is an address of one link only",
		"1=[fe80::1%eth0]:8001:9001":   "is an address of one link only",
		"1=[::]:8001:9001":             "is not the address of one host",
		"1=[::1]:1:2,2=[0::1]:1:3":     "[::1]:1 is used twice",
		"1=localhost:1:2,2=[::1]:3:4,": "is not a node",
	} {
		_, err := Load(Options{Set: []string{"cluster.nodes=" + text, "cluster.replicas=1"}})
		var ps Problems
		if !errors.As(err, &ps) || !strings.Contains(ps[0].Message, want) || ps[0].Hint == "" {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

// TestListen: a node may listen on another address than others reach it by.
func TestListen(t *testing.T) {
	self := Node{1, "203.0.113.7", 8001, 9001}
	for listen, want := range map[string]struct{ api, raft string }{
		"host":                {"203.0.113.7:8001", "203.0.113.7:9001"},
		"0.0.0.0":             {"0.0.0.0:8001", "0.0.0.0:9001"},
		"*":                   {":8001", ":9001"},
		"::":                  {"[::]:8001", "[::]:9001"},
		"[::]":                {"[::]:8001", "[::]:9001"},
		"10.0.0.1":            {"10.0.0.1:8001", "10.0.0.1:9001"},
		"fe80::1%eth0":        {"[fe80::1%eth0]:8001", "[fe80::1%eth0]:9001"},
		"node1.lan":           {"node1.lan:8001", "node1.lan:9001"},
		"0.0.0.0:18001:19001": {"0.0.0.0:18001", "0.0.0.0:19001"},
		"*:18001:19001":       {":18001", ":19001"},
		"[FD00::1]:81:91":     {"[fd00::1]:81", "[fd00::1]:91"},
	} {
		c, err := Load(Options{Set: []string{"node.listen=" + listen}})
		if err != nil {
			t.Errorf("%s: %v", listen, err)
			continue
		}
		on := c.ListenOn(self)
		if on.APIAddr() != want.api || on.RaftAddr() != want.raft || on.ID != 1 {
			t.Errorf("%s: listens on %s and %s", listen, on.APIAddr(), on.RaftAddr())
		}
		if own := !strings.HasSuffix(want.api, ":8001"); c.ListenPorts() != own {
			t.Errorf("%s: ports %v", listen, c.ListenPorts())
		}
		if c.Loopback() != (listen == "host") || !c.OneHost() {
			t.Errorf("%s: loopback %v, one host %v", listen, c.Loopback(), c.OneHost())
		}
	}
	for _, listen := range []string{
		"0.0.0.0:8001", "0.0.0.0:8001:", "0.0.0.0:8001:9001:1", "0.0.0.0:0:1", "0.0.0.0:1:65536",
		"0.0.0.0:8001:8001", "a b", "224.0.0.1", "ff02::1",
		"host:8001:9001", "[::]8001:9001", "http://h", ":8001:9001", "a..b",
	} {
		_, err := Load(Options{Env: []string{"IMGCLUSTER_NODE_LISTEN=" + listen}})
		var ps Problems
		if !errors.As(err, &ps) || len(ps) != 1 || ps[0].Key != "node.listen" || ps[0].Hint == "" {
			t.Errorf("%s: %v", listen, err)
		}
	}
	for listen, loopback := range map[string]bool{
		"127.0.0.1": true, "localhost:1:2": true, "::1": true, "node1": false,
	} {
		c := Default()
		c.Local.Listen = listen
		if c.Loopback() != loopback {
			t.Errorf("%s: loopback %v", listen, c.Loopback())
		}
	}
}

package config

import (
	"errors"
	"flag"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares text with a file; go test ./config -update remakes it.
func golden(t *testing.T, path, text string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("differs from %s, which -update remakes:\n%s", path, text)
	}
}

// section is a file with one entry, in its second line.
func section(name, entry string) string { return name + ":\n  " + entry + "\n" }

// nodes is a file with these entries from line 3 on.
func nodes(entries ...string) string {
	return "cluster:\n  nodes:\n    - " + strings.Join(entries, "\n    - ") + "\n"
}

const (
	n1 = "{id: 1, host: 10.0.0.1, api_port: 8001, raft_port: 9001}"
	n2 = "{id: 2, host: 10.0.0.2, api_port: 8001, raft_port: 9001}"
	n3 = "{id: 3, host: 10.0.0.3, api_port: 8001, raft_port: 9001}"
)

// one is a file with a single wrong thing, and the whole text of what is said of it.
type one struct{ name, text, want string }

func hint(line, hint string) string { return line + "\n  hint: " + hint }

var keyErrors = []one{
	{
		"section", "clusters:\n  replicas: 2\n",
		hint("c.yaml:1: clusters: unknown key", "did you mean cluster?"),
	},
	{
		"key", section("cluster", "data_shrads: 12"),
		hint("c.yaml:2: cluster.data_shrads: unknown key", "did you mean data_shards?"),
	},
	{
		"letter case", section("cluster", "Replicas: 2"),
		hint("c.yaml:2: cluster.Replicas: unknown key", "did you mean replicas?"),
	},
	{
		"other section", "replicas: 2\n",
		hint("c.yaml:1: replicas: unknown key", "did you mean cluster.replicas?"),
	},
	{
		"full key", "cluster.replicas: 2\n",
		hint("c.yaml:1: cluster.replicas: unknown key", "did you mean cluster.replicas?"),
	},
	{
		"no likeness", section("log", "zzzzzz: 2"),
		hint("c.yaml:2: log.zzzzzz: unknown key", "known here: level, format, images_per_second"),
	},
	{
		"odd key", section("log", `"a\nb": 2`),
		hint(`c.yaml:2: log."a\nb": unknown key`, "known here: level, format, images_per_second"),
	},
	{
		"in a node", nodes(n1, n2, "{id: 3, host: h, api_port: 1, raft_prot: 2, raft_port: 2}"),
		hint("c.yaml:5: cluster.nodes[2].raft_prot: unknown key", "did you mean raft_port?"),
	},
	{
		"twice", section("cluster", "replicas: 2\n  replicas: 3"),
		hint("c.yaml:3: cluster.replicas: is set twice, first in line 2", "remove one of the two"),
	},
	{
		"section twice", "log:\n  level: info\nlog:\n  format: json\n",
		hint("c.yaml:3: log: is set twice, first in line 1", "remove one of the two"),
	},
	{
		"key that is a list", "log:\n  [a, b]: c\n",
		hint("c.yaml:2: log: has a list for a key", "write a name, a colon and a value"),
	},
	{
		"alias", "cluster:\n  min_replicas: &a 1\n  replicas: *a\n",
		hint("c.yaml:3: cluster.replicas: aliases are not supported", "write the value out"),
	},
	{
		"alias for a key", "cluster:\n  name: &a x\n  *a : 1\n",
		hint("c.yaml:3: cluster: has an alias for a key", "write a name, a colon and a value"),
	},
	{
		"merge key", "log: &a {level: info}\nclient:\n  <<: *a\n",
		hint("c.yaml:3: client.<<: unknown key",
			"known here: attempts, backoff_min, backoff_max, dial, read, straggler, response"),
	},
	{
		"no mapping", "- a\n",
		hint("c.yaml:1: wants a section, got a list", "write entries such as cluster: ..., one a line"),
	},
	{
		"text", "hello\n",
		hint(`c.yaml:1: wants a section, got text "hello"`, "write entries such as cluster: ..., one a line"),
	},
	{
		"section that is a list", "raft:\n  - 1\n",
		hint("c.yaml:2: raft: wants a section, got a list", "write entries such as rtt: ..., one a line"),
	},
	{
		"second document", "log: {level: info}\n---\nlog: {level: warn}\n",
		hint("c.yaml:2: the file has a second document", "keep one document: remove what follows ---"),
	},
	{
		"tab", "cluster:\n  replicas: 2\n\tname: x\n",
		hint("c.yaml:3: not valid YAML: found a tab character that violates indentation",
			"look at the indentation (spaces, no tabs), quotes and brackets at this line"),
	},
	{
		"open bracket", "log:\n  level: info\ncluster:\n  nodes: [\nraft:\n  rtt: 5ms\n",
		hint("c.yaml:4: not valid YAML: did not find expected ',' or ']'",
			"look at the indentation (spaces, no tabs), quotes and brackets at this line"),
	},
	{
		"open quote", "log:\n  level: info\ncluster:\n  name: \"x\n  replicas: 2\n",
		hint("c.yaml:4: not valid YAML: found unexpected end of stream",
			"look at the indentation (spaces, no tabs), quotes and brackets at this line"),
	},
	{
		"colon twice", "log:\n  level: info: warn\n",
		hint("c.yaml:2: not valid YAML: mapping values are not allowed in this context",
			"look at the indentation (spaces, no tabs), quotes and brackets at this line"),
	},
	{
		"indentation", "cluster:\n  name: x\n replicas: 2\nlog:\n  level: info\n",
		hint("c.yaml:3: not valid YAML: did not find expected key",
			"look at the indentation (spaces, no tabs), quotes and brackets at this line"),
	},
	{
		"not UTF-8", "cluster:\n  name: \xff\n",
		hint("c.yaml:2: not valid YAML: invalid leading UTF-8 octet",
			"look at the indentation (spaces, no tabs), quotes and brackets at this line"),
	},
}

var typeErrors = []one{
	{
		"text for number", section("cluster", "data_shards: twelve"),
		hint(`c.yaml:2: cluster.data_shards: wants a whole number, got text "twelve"`, "for example 12"),
	},
	{
		"quoted number", section("cluster", `data_shards: "12"`),
		hint(`c.yaml:2: cluster.data_shards: wants a whole number, got text "12"`, "for example 12"),
	},
	{
		"fraction", section("cluster", "data_shards: 1.5"),
		hint(`c.yaml:2: cluster.data_shards: wants a whole number, got a number "1.5"`, "for example 12"),
	},
	{
		"hexadecimal", section("cluster", "data_shards: 0x0c"),
		hint(`c.yaml:2: cluster.data_shards: "0x0c" is not a whole number`, "write it in digits, such as 12"),
	},
	{
		"list for number", section("cluster", "data_shards: [1]"),
		hint("c.yaml:2: cluster.data_shards: wants a whole number, got a list", "for example 12"),
	},
	{
		"nothing", section("cluster", "data_shards:"),
		hint("c.yaml:2: cluster.data_shards: has no value", "give one, or remove the line; for example 12"),
	},
	{
		"own type", section("cluster", "data_shards: !mine 12"),
		hint("c.yaml:2: cluster.data_shards: wants a whole number, got a value of type !mine",
			"for example 12"),
	},
	{
		"number for text", section("cluster", "name: 123"),
		hint(`c.yaml:2: cluster.name: wants text, got a number "123"`, `put it in quotes: "123"`),
	},
	{
		"bool for text", section("log", "level: true"),
		hint(`c.yaml:2: log.level: wants text, got true or false "true"`, `put it in quotes: "true"`),
	},
	{
		"section for text", section("log", "level: {a: b}"),
		hint("c.yaml:2: log.level: wants text, got a section", "for example info"),
	},
	{
		"no unit", section("timeouts", "read: 5"),
		hint("c.yaml:2: timeouts.read: 5 has no unit", "write 5s for seconds, 5ms for milliseconds"),
	},
	{
		"bad duration", section("timeouts", "read: soon"),
		hint(`c.yaml:2: timeouts.read: "soon" is not a duration`,
			"write a number and a unit, such as 500ms, 5s or 2m"),
	},
	{
		"bool for duration", section("timeouts", "read: yes please"),
		hint(`c.yaml:2: timeouts.read: "yes please" is not a duration`,
			"write a number and a unit, such as 500ms, 5s or 2m"),
	},
	{
		"list for duration", section("timeouts", "read: [5s]"),
		hint("c.yaml:2: timeouts.read: wants a duration, got a list", "for example 5s"),
	},
	{
		"bad unit", section("limits", "image_bytes: 64M"),
		hint(`c.yaml:2: limits.image_bytes: "64M" has an unknown unit`, bytesHint),
	},
	{
		"fraction of a size", section("limits", "image_bytes: 1.5GiB"),
		hint(`c.yaml:2: limits.image_bytes: "1.5GiB" is not a size`, bytesHint),
	},
	{
		"bool for size", section("limits", "image_bytes: true"),
		hint(`c.yaml:2: limits.image_bytes: wants a size, got true or false "true"`, "for example 64MiB"),
	},
	{
		"no list", section("cluster", "nodes: 3"),
		hint(`c.yaml:2: cluster.nodes: wants a list of nodes, got a number "3"`,
			"write one - {id: 1, host: 10.40.45.206, api_port: 8001, raft_port: 9001} a line"),
	},
	{
		"no node", nodes(n1, n2, "node3"),
		hint(`c.yaml:5: cluster.nodes[2]: wants a node, got text "node3"`,
			"write {id: 1, host: 10.40.45.206, api_port: 8001, raft_port: 9001}"),
	},
	{
		"half a node", nodes(n1, n2, "{id: 3, host: h, api_port: 1}"),
		hint("c.yaml:5: cluster.nodes[2].raft_port: is missing", "add raft_port: 9001"),
	},
	{
		"text for port", nodes(n1, n2, "{id: 3, host: h, api_port: http, raft_port: 1}"),
		hint(`c.yaml:5: cluster.nodes[2].api_port: wants a whole number, got text "http"`,
			"for example 8001"),
	},
	{
		"number for host", nodes(n1, n2, "{id: 3, host: 10, api_port: 1, raft_port: 2}"),
		hint(`c.yaml:5: cluster.nodes[2].host: wants text, got a number "10"`, `put it in quotes: "10"`),
	},
}

var rangeErrors = []one{
	{
		"no shard", section("cluster", "data_shards: 0"),
		hint("c.yaml:2: cluster.data_shards: 0 is not in the range 1 to 256", "the default is 12"),
	},
	{
		"many shards", section("cluster", "data_shards: 257"),
		hint("c.yaml:2: cluster.data_shards: 257 is not in the range 1 to 256", "the default is 12"),
	},
	{
		"no replica", section("cluster", "replicas: 0"),
		hint("c.yaml:2: cluster.replicas: 0 is less than 1", "the default is 2"),
	},
	{
		"too large for the type", section("client", "attempts: 9999999999999999999"),
		hint(`c.yaml:2: client.attempts: "9999999999999999999" is too large a number`, "give a smaller one"),
	},
	{
		"negative duration", section("timeouts", "read: -5s"),
		hint("c.yaml:2: timeouts.read: -5s is not in the range 1ms to 720h", "the default is 5s"),
	},
	{
		"no duration", section("timeouts", "read: 0"),
		hint("c.yaml:2: timeouts.read: 0s is not in the range 1ms to 720h", "the default is 5s"),
	},
	{
		"short duration", section("timeouts", "read: 5ns"),
		hint("c.yaml:2: timeouts.read: 5ns is not in the range 1ms to 720h", "the default is 5s"),
	},
	{
		"no size", section("limits", "image_bytes: 0"),
		hint("c.yaml:2: limits.image_bytes: 0 is not in the range 1 to 4GiB", "the default is 64MiB"),
	},
	{
		"negative size", section("limits", "image_bytes: -1"),
		hint(`c.yaml:2: limits.image_bytes: "-1" is not a size`, bytesHint),
	},
	{
		"large size", section("limits", "header_bytes: 1GB"),
		hint("c.yaml:2: limits.header_bytes: 1GB is not in the range 4KiB to 1MiB", "the default is 16KiB"),
	},
	{
		"huge size", section("limits", "header_bytes: 9000000PB"),
		hint(`c.yaml:2: limits.header_bytes: "9000000PB" is too large a size`, "give a smaller one"),
	},
	{
		"level", section("log", "level: wran"),
		hint(`c.yaml:2: log.level: "wran" is not one of debug, info, warn, error`, "did you mean warn?"),
	},
	{
		"format", section("log", "format: xml12345"),
		hint(`c.yaml:2: log.format: "xml12345" is not one of console, json`, "choose one of these"),
	},
	{
		"empty name", section("cluster", `name: ""`),
		hint("c.yaml:2: cluster.name: is empty", "the default is imgcluster"),
	},
	{
		"bad name", section("cluster", `name: "a b"`),
		hint(`c.yaml:2: cluster.name: "a b" cannot be a cluster's name`,
			"use up to 64 letters, digits, '-', '_' and '.', first a letter or a digit"),
	},
	{
		"bad path", section("node", `data_dir: "a\0b"`),
		hint(`c.yaml:2: node.data_dir: "a\x00b" cannot be a path`,
			"the default is ./imgcluster-data/node{id}"),
	},
	{
		"fraction of a tick", section("raft", "rtt: 1500us"),
		hint("c.yaml:2: raft.rtt: 1.5ms is not a whole number of milliseconds",
			"write whole milliseconds, such as 50ms"),
	},
	{
		"ID 0", nodes(n1, n2, "{id: 0, host: h, api_port: 1, raft_port: 2}"),
		hint("c.yaml:5: cluster.nodes[2].id: 0 is not in the range 1 to 4294967295", "for example 1"),
	},
	{
		"large ID", nodes(n1, n2, "{id: 4294967296, host: h, api_port: 1, raft_port: 2}"),
		hint("c.yaml:5: cluster.nodes[2].id: 4294967296 is not in the range 1 to 4294967295",
			"for example 1"),
	},
	{
		"port 0", nodes(n1, n2, "{id: 3, host: h, api_port: 0, raft_port: 2}"),
		hint("c.yaml:5: cluster.nodes[2].api_port: 0 is not in the range 1 to 65535", "for example 8001"),
	},
	{
		"port 65536", nodes(n1, n2, "{id: 3, host: h, api_port: 1, raft_port: 65536}"),
		hint("c.yaml:5: cluster.nodes[2].raft_port: 65536 is not in the range 1 to 65535",
			"for example 9001"),
	},
	{
		"no nodes", section("cluster", "nodes: []"),
		hint("c.yaml:2: cluster.nodes: 0 nodes are not in the range 1 to 7",
			"three nodes go on when any one is lost"),
	},
	{
		"many nodes", nodes(n1, n1, n1, n1, n1, n1, n1, n1),
		hint("c.yaml:3: cluster.nodes: 8 nodes are not in the range 1 to 7",
			"three nodes go on when any one is lost"),
	},
}

var crossErrors = []one{
	{
		"same ID", nodes(n1, n2, strings.Replace(n3, "id: 3", "id: 2", 1)),
		hint("c.yaml:5: cluster.nodes[2].id: node ID 2 is used twice, first by cluster.nodes[1] (line 4)",
			"give every node its own ID"),
	},
	{
		"same API address", nodes(n1, n2, "{id: 3, host: 10.0.0.2, api_port: 8001, raft_port: 9003}"),
		hint("c.yaml:5: cluster.nodes[2].api_port: 10.0.0.2:8001 is used twice, first by cluster.nodes[1].api_port (line 4)",
			"give every API and Raft port of a host its own number"),
	},
	{
		"same Raft address", nodes(n1, n2, "{id: 3, host: 10.0.0.2, api_port: 8003, raft_port: 9001}"),
		hint("c.yaml:5: cluster.nodes[2].raft_port: 10.0.0.2:9001 is used twice, first by cluster.nodes[1].raft_port (line 4)",
			"give every API and Raft port of a host its own number"),
	},
	{
		"API and Raft", nodes(n1, n2, "{id: 3, host: h, api_port: 1, raft_port: 1}"),
		hint("c.yaml:5: cluster.nodes[2].raft_port: h:1 is used twice, first by cluster.nodes[2].api_port (line 5)",
			"give every API and Raft port of a host its own number"),
	},
	{
		"localhost is 127.0.0.1",
		nodes("{id: 1, host: 127.0.0.1, api_port: 1, raft_port: 2}",
			"{id: 2, host: LocalHost, api_port: 3, raft_port: 1}"),
		hint("c.yaml:4: cluster.nodes[1].raft_port: LocalHost:1 is used twice, first by cluster.nodes[0].api_port (line 3)",
			"give every API and Raft port of a host its own number"),
	},
	{
		"replicas above nodes", section("cluster", "replicas: 4"),
		hint("c.yaml:2: cluster.replicas: 4 copies of an image need 4 nodes, and there are 3",
			"set cluster.replicas to at most 3, or add nodes"),
	},
	{
		"nodes below replicas", nodes(n1),
		hint("c.yaml:2: cluster.nodes: 2 copies of an image need 2 nodes, and there are 1",
			"set cluster.replicas to at most 1, or add nodes"),
	},
	{
		"replicas above a shard's nodes",
		"cluster:\n  replicas: 4\n  nodes:\n    - " + strings.Join([]string{n1, n2, n3, "{id: 4, host: h, api_port: 1, raft_port: 2}"}, "\n    - "),
		hint("c.yaml:2: cluster.replicas: 4 copies are too many: each shard lives on 3 nodes",
			"set cluster.replicas to 2 or 3"),
	},
	{
		"min_replicas", section("cluster", "min_replicas: 3"),
		hint("c.yaml:2: cluster.min_replicas: cluster.min_replicas (3) is more than cluster.replicas (2)",
			"set it to at most cluster.replicas"),
	},
	{
		"order", section("timeouts", "proposal: 300ms"),
		hint("c.yaml:2: timeouts.proposal: timeouts.proposal_attempt (400ms) is more than timeouts.proposal (300ms), but a proposal has at least one attempt",
			"lower timeouts.proposal_attempt or raise timeouts.proposal"),
	},
	{
		"order of sizes", section("limits", "image_bytes: 300MiB"),
		hint("c.yaml:2: limits.image_bytes: limits.image_bytes (300MiB) is more than limits.staging_bytes (256MiB), but a standby node holds the whole image",
			"lower limits.image_bytes or raise limits.staging_bytes"),
	},
	{
		"elections", section("raft", "heartbeat_rtt: 5"),
		hint("c.yaml:2: raft.heartbeat_rtt: raft.election_rtt (10) is not more than twice raft.heartbeat_rtt (5)",
			"ten times raft.heartbeat_rtt serves well"),
	},
	{
		"key beside the data", section("node", "master_key_file: imgcluster-data/node2/../node2/keys/k"),
		hint("c.yaml:2: node.master_key_file: the master key is inside the data folder of node 2, imgcluster-data/node2",
			"move the key file elsewhere"),
	},
}

func TestProblems(t *testing.T) {
	for group, cases := range map[string][]one{
		"key": keyErrors, "type": typeErrors, "range": rangeErrors, "cross": crossErrors,
	} {
		for _, tc := range cases {
			t.Run(group+"/"+tc.name, func(t *testing.T) {
				cfg, err := loadText(tc.text, Options{})
				var ps Problems
				if !errors.As(err, &ps) || !errors.Is(err, ErrInvalid) || cfg != nil {
					t.Fatalf("got %v, %v", cfg, err)
				}
				if err.Error() != tc.want {
					t.Errorf("got\n%s\nwant\n%s", err, tc.want)
				}
			})
		}
	}
}

func TestEnvAndFlagProblems(t *testing.T) {
	for name, tc := range map[string]struct {
		env, args []string
		want      string
	}{
		"bad number": {
			[]string{"IMGCLUSTER_CLUSTER_REPLICAS=two"},
			nil,
			hint(`env IMGCLUSTER_CLUSTER_REPLICAS: cluster.replicas: "two" is not a whole number`,
				"write it in digits, such as 2"),
		},
		"bad node": {
			[]string{"IMGCLUSTER_CLUSTER_NODES=1=h:1:2,h:3:4:5"},
			nil,
			hint(`env IMGCLUSTER_CLUSTER_NODES: cluster.nodes: "h:3:4:5" is not a node`, nodesHint),
		},
		"bad port": {
			[]string{"IMGCLUSTER_CLUSTER_NODES=1=h:1:0"},
			nil,
			hint(`env IMGCLUSTER_CLUSTER_NODES: cluster.nodes: raft_port of node "1=h:1:0": 0 is not in the range 1 to 65535`,
				"for example 9001"),
		},
		"many nodes": {
			[]string{"IMGCLUSTER_CLUSTER_NODES=" + strings.Repeat("1=h:1:2,", 8)},
			nil,
			hint("env IMGCLUSTER_CLUSTER_NODES: cluster.nodes: there are more than 7 nodes", "remove some"),
		},
		"cross": {
			[]string{"IMGCLUSTER_CLUSTER_REPLICAS=4"},
			nil,
			hint("env IMGCLUSTER_CLUSTER_REPLICAS: cluster.replicas: 4 copies of an image need 4 nodes, and there are 3",
				"set cluster.replicas to at most 3, or add nodes"),
		},
		"flag": {
			nil,
			[]string{"--read-timeout", "5"},
			hint(`flag --read-timeout: timeouts.read: "5" is not a duration`,
				"write a number and a unit, such as 500ms, 5s or 2m"),
		},
		"empty flag": {
			nil,
			[]string{"--data-dir="},
			hint("flag --data-dir: node.data_dir: is empty", "the default is ./imgcluster-data/node{id}"),
		},
		"same ID twice": {
			nil,
			[]string{"--nodes", "1=h:1:2,1=h:3:4"},
			hint("flag --nodes: cluster.nodes[1].id: node ID 1 is used twice, first by cluster.nodes[0]",
				"give every node its own ID"),
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := loadText("", Options{Env: tc.env, Flags: flags(t, tc.args...)})
			if err == nil || err.Error() != tc.want {
				t.Fatalf("got\n%v\nwant\n%s", err, tc.want)
			}
		})
	}
	c, err := loadText("", Options{Env: []string{"IMGCLUSTER_CONFIG=x", "IMGCLUSTER_MASTER_KEY=geheim", "imgcluster_x=1"}})
	if err != nil || len(c.Warnings()) != 0 {
		t.Errorf("variables of the commands are refused: %v", err)
	}
}

// Variables that are no settings are told of and refuse nothing: they may be another program's.
func TestUnknownEnv(t *testing.T) {
	for variable, want := range map[string]string{
		"IMGCLUSTER_CLUSTER_REPLICA=2": hint("env IMGCLUSTER_CLUSTER_REPLICA: no setting has this name",
			"did you mean IMGCLUSTER_CLUSTER_REPLICAS?"),
		"IMGCLUSTER_MASTERKEY=geheim": hint("env IMGCLUSTER_MASTERKEY: no setting has this name",
			"did you mean IMGCLUSTER_MASTER_KEY?"),
		"IMGCLUSTER_=geheim": hint("env IMGCLUSTER_: no setting has this name",
			"unset it; `imgcluster config show` lists the settings"),
		"IMGCLUSTER_CRASHES=3": hint("env IMGCLUSTER_CRASHES: no setting has this name",
			"unset it; `imgcluster config show` lists the settings"),
		"IMGCLUSTER_PORT=8001": hint("env IMGCLUSTER_PORT: no setting has this name",
			"unset it; `imgcluster config show` lists the settings"),
		"IMGCLUSTER_\x1b[2J=1": hint(`env "IMGCLUSTER_\x1b[2J": no setting has this name`,
			"unset it; `imgcluster config show` lists the settings"),
		"IMGCLUSTER_FOO=": "",
		// What Kubernetes makes of a service imgcluster, and of one imgcluster-node-1.
		"IMGCLUSTER_PORT=tcp://10.0.0.1:80":                "",
		"IMGCLUSTER_SERVICE_HOST=10.0.0.1":                 "",
		"IMGCLUSTER_SERVICE_PORT=80":                       "",
		"IMGCLUSTER_SERVICE_PORT_API=8001":                 "",
		"IMGCLUSTER_PORT_8001_TCP=tcp://10.0.0.1:8001":     "",
		"IMGCLUSTER_PORT_8001_TCP_PROTO=tcp":               "",
		"IMGCLUSTER_PORT_8001_TCP_PORT=8001":               "",
		"IMGCLUSTER_PORT_8001_TCP_ADDR=10.0.0.1":           "",
		"IMGCLUSTER_PORT_9001_UDP_ADDR=10.0.0.1":           "",
		"IMGCLUSTER_NODE_1_SERVICE_HOST=10.0.0.1":          "",
		"IMGCLUSTER_NODE_1_PORT=tcp://[fd00::1]:8001":      "",
		"IMGCLUSTER_NODE_1_SERVICE_PORT_RAFT_UDP=9001":     "",
		"IMGCLUSTER_NODE_1_PORT_9001_TCP=tcp://[fd00::1]:": "",
	} {
		c, err := loadText("", Options{Env: []string{variable}})
		if err != nil {
			t.Errorf("%s: %v", variable, err)
			continue
		}
		got := ""
		if ps := Problems(c.Warnings()); len(ps) > 0 {
			got = ps.Error()
		}
		if got != want || len(c.Unknown()) != len(c.Warnings()) {
			t.Errorf("%s: got\n%s\nwant\n%s", variable, got, want)
		}
	}
}

// Editors of Windows, and PowerShell's >, write a mark, UTF-16, and other ends of lines.
func TestFileOfWindows(t *testing.T) {
	const text = "cluster:\r\n  name: photos\r\n"
	wide := func(s string) (w string) {
		for _, b := range []byte(s) {
			w += string([]byte{b, 0})
		}
		return w
	}
	for name, data := range map[string]string{
		"UTF-8 with a mark": "\xef\xbb\xbf" + text, "UTF-16": "\xff\xfe" + wide(text),
	} {
		if c, err := loadText(data, Options{}); err != nil || c.Cluster.Name != "photos" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := loadText(wide(text), Options{}); err == nil || !strings.Contains(err.Error(), "UTF-16 without a mark") || !strings.Contains(err.Error(), "save it as UTF-8") {
		t.Errorf("UTF-16 without a mark: %v", err)
	}
	if _, err := loadText("\xff\xfe"+wide(text+"  data_shards: [\r\n"), Options{}); err == nil || !strings.Contains(err.Error(), "c.yaml:3: not valid YAML") {
		t.Errorf("UTF-16 with a mistake: %v", err)
	}
}

// All that is wrong, in all sources, comes in one error, in the order of the lines.
func TestAllProblemsAtOnce(t *testing.T) {
	data, err := os.ReadFile("testdata/problems.yaml")
	if err != nil {
		t.Fatal(err)
	}
	env := []string{"IMGCLUSTER_LOG_LEVLE=debug", "IMGCLUSTER_TIMEOUTS_READ=-1s"}
	_, err = load("testdata/problems.yaml", data, Options{Env: env, Flags: flags(t, "--data-dir=")}, &collector{})
	if err == nil {
		t.Fatal("no error")
	}
	golden(t, "testdata/problems.golden", err.Error()+"\n")
}

func TestProblemsAreBounded(t *testing.T) {
	_, err := loadText(strings.Repeat("x: 1\n", 1000), Options{})
	var ps Problems
	if !errors.As(err, &ps) || len(ps) != problemsMax+1 {
		t.Fatalf("%d problems", len(ps))
	}
	if last := ps[problemsMax]; last.Message != "950 more problems are not shown" {
		t.Errorf("last: %s", last)
	}
	_, err = loadText(section("log", "level: "+strings.Repeat("x", 1<<19)), Options{})
	if err == nil || len(err.Error()) > 300 {
		t.Errorf("a long value is repeated whole, in %d bytes", len(err.Error()))
	}
}

func TestHosts(t *testing.T) {
	for host, good := range map[string]bool{
		"127.0.0.1": true, "10.40.45.206": true, "localhost": true, "node1": true, "node-1.example.org": true,
		"3com.example": true, "XN--BCHER-KVA.example": true,
		strings.Repeat("a", labelMax): true, strings.Repeat("a", labelMax+1): false,
		strings.Repeat("a.", 127) + "a": false,
		"":                              false, "10.0.0": false, "10.0.0.256": false, "1.2.3.4.5": false, "::1": true, "fd00::1": true,
		"fd00:0::1": false, "FD00::1": false, "[::1]": false, "::": false, "ff02::1": false, "fe80::1": false,
		"::ffff:10.0.0.1": false, "0.0.0.0": false, "224.0.0.1": false,
		"255.255.255.255": false, "a b": false, "a..b": false, ".a": false, "a.": true, ".": false,
		"a..": false, "10.0.0.1.": false, "-a": false, "a-": false, "a_b": true, "_a.b_": true,
		"node1.example.org.": true, "h:80": false, "http://h": false, "bücher.example": false,
		"fe80::1%eth0": false,
	} {
		c := Default()
		c.Cluster.Nodes[0].Host = host
		err := c.Check()
		if (err == nil) != good {
			t.Errorf("%q: %v", host, err)
		}
		if ps := (Problems{}); err != nil && (!errors.As(err, &ps) || len(ps) != 1 || ps[0].Key != "cluster.nodes[0].host" || ps[0].Hint == "") {
			t.Errorf("%q: %v", host, err)
		}
	}
}

// Check finds in a struct what Load finds in a file.
func TestCheckByHand(t *testing.T) {
	c := Default()
	c.Cluster.Name = ""
	c.Cluster.Nodes[1] = Node{}
	c.Cluster.Nodes[2].ID = 1
	c.Timeouts.Read = 0
	c.Limits.Uploads = -1
	c.Log.Level = "loud"
	var ps Problems
	if err := c.Check(); !errors.As(err, &ps) {
		t.Fatal(err)
	}
	var keys []string
	for _, p := range ps {
		keys = append(keys, p.Key)
		if p.File != "" || p.Line != 0 {
			t.Errorf("%s has a place", p)
		}
	}
	want := []string{
		"cluster.name", "limits.uploads", "timeouts.read", "log.level",
		"cluster.nodes[1].id", "cluster.nodes[1].host", "cluster.nodes[1].api_port",
		"cluster.nodes[1].raft_port", "cluster.nodes[2].id",
	}
	if !reflect.DeepEqual(keys, want) {
		t.Errorf("got %v, want %v", keys, want)
	}
	if _, err := c.YAML(); !errors.Is(err, ErrInvalid) {
		t.Errorf("an invalid configuration is written: %v", err)
	}
}

func TestWarnings(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"none": {func(*Config) {}, ""},
		"one node": {
			func(c *Config) { c.Cluster.Nodes, c.Cluster.Replicas = c.Cluster.Nodes[:1], 1 },
			"cluster.nodes: one node: nothing is left when it is lost",
		},
		"even": {
			func(c *Config) { c.Cluster.Nodes = c.Cluster.Nodes[:2] },
			"cluster.nodes: 2 nodes go on after losing 0, no more than 1 nodes do",
		},
		"one copy": {
			func(c *Config) { c.Cluster.Replicas = 1 },
			"cluster.replicas: one copy of each image: a lost disk loses images",
		},
		"disk": {
			func(c *Config) { c.Limits.DiskFreeBytes = 1 << 20 },
			"limits.disk_free_bytes: 1MiB may be too little for the log of Raft: a node whose log finds the disk full ends",
		},
		"one folder": {
			func(c *Config) { c.Local.DataDir = "/data" },
			"node.data_dir: nodes 1 and 2 of host 127.0.0.1 have the same data folder",
		},
	} {
		c := Default()
		tc.change(c)
		got := c.Warnings()
		if err := c.Check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if tc.want == "" && got != nil || tc.want != "" && (len(got) != 1 || got[0].String() != tc.want || got[0].Hint == "") {
			t.Errorf("%s: got %v, want %s", name, got, tc.want)
		}
	}
}

func TestFormatDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", time.Millisecond: "1ms", 90 * time.Second: "1m30s", 10 * time.Minute: "10m", time.Hour: "1h",
		61 * time.Minute: "1h1m", time.Hour + time.Second: "1h0m1s", 20 * time.Second: "20s",
	} {
		if got := formatDuration(d); got != want {
			t.Errorf("%v: got %s, want %s", d, got, want)
		}
		if back, err := time.ParseDuration(want); err != nil || back != d {
			t.Errorf("%s reads back as %v, %v", want, back, err)
		}
	}
}

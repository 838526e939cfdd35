package config

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "remake the golden files")

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

// mistake is a file with a single wrong thing. testdata/mistakes.golden has its message.
type mistake struct{ name, text string }

var keyErrors = []mistake{
	{"section", "clusters:\n  replicas: 2\n"},
	{"key", section("cluster", "data_shrads: 12")},
	{"letter case", section("cluster", "Replicas: 2")},
	{"other section", "replicas: 2\n"},
	{"full key", "cluster.replicas: 2\n"},
	{"no likeness", section("log", "zzzzzz: 2")},
	{"odd key", section("log", `"a\nb": 2`)},
	{"in a node", nodes(n1, n2, "{id: 3, host: h, api_port: 1, raft_prot: 2, raft_port: 2}")},
	{"twice", section("cluster", "replicas: 2\n  replicas: 3")},
	{"section twice", "log:\n  level: info\nlog:\n  format: json\n"},
	{"key that is a list", "log:\n  [a, b]: c\n"},
	{"alias", "cluster:\n  min_replicas: &a 1\n  replicas: *a\n"},
	{"alias for a key", "cluster:\n  name: &a x\n  *a : 1\n"},
	{"merge key", "log: &a {level: info}\nclient:\n  <<: *a\n"},
	{"no mapping", "- a\n"},
	{"text", "hello\n"},
	{"section that is a list", "raft:\n  - 1\n"},
	{"second document", "log: {level: info}\n---\nlog: {level: warn}\n"},
	{"tab", "cluster:\n  replicas: 2\n\tname: x\n"},
	{"open bracket", "log:\n  level: info\ncluster:\n  nodes: [\nraft:\n  rtt: 5ms\n"},
	{"open quote", "log:\n  level: info\ncluster:\n  name: \"x\n  replicas: 2\n"},
	{"colon twice", "log:\n  level: info: warn\n"},
	{"indentation", "cluster:\n  name: x\n replicas: 2\nlog:\n  level: info\n"},
	{"not UTF-8", "cluster:\n  name: \xff\n"},
}

var typeErrors = []mistake{
	{"text for number", section("cluster", "data_shards: twelve")},
	{"quoted number", section("cluster", `data_shards: "12"`)},
	{"fraction", section("cluster", "data_shards: 1.5")},
	{"hexadecimal", section("cluster", "data_shards: 0x0c")},
	{"list for number", section("cluster", "data_shards: [1]")},
	{"nothing", section("cluster", "data_shards:")},
	{"own type", section("cluster", "data_shards: !mine 12")},
	{"number for text", section("cluster", "name: 123")},
	{"bool for text", section("log", "level: true")},
	{"section for text", section("log", "level: {a: b}")},
	{"no unit", section("timeouts", "read: 5")},
	{"bad duration", section("timeouts", "read: soon")},
	{"bool for duration", section("timeouts", "read: yes please")},
	{"list for duration", section("timeouts", "read: [5s]")},
	{"bad unit", section("limits", "image_bytes: 64M")},
	{"fraction of a size", section("limits", "image_bytes: 1.5GiB")},
	{"bool for size", section("limits", "image_bytes: true")},
	{"text for switch", section("security", "insecure: yes")},
	{"number for switch", section("security", "insecure: 1")},
	{"list for switch", section("security", "insecure: [true]")},
	{"no list", section("cluster", "nodes: 3")},
	{"no node", nodes(n1, n2, "node3")},
	{"half a node", nodes(n1, n2, "{id: 3, host: h, api_port: 1}")},
	{"text for port", nodes(n1, n2, "{id: 3, host: h, api_port: http, raft_port: 1}")},
	{"number for host", nodes(n1, n2, "{id: 3, host: 10, api_port: 1, raft_port: 2}")},
}

var rangeErrors = []mistake{
	{"no shard", section("cluster", "data_shards: 0")},
	{"many shards", section("cluster", "data_shards: 257")},
	{"no replica", section("cluster", "replicas: 0")},
	{"too large for the type", section("client", "attempts: 9999999999999999999")},
	{"negative duration", section("timeouts", "read: -5s")},
	{"no duration", section("timeouts", "read: 0")},
	{"short duration", section("timeouts", "read: 5ns")},
	{"no size", section("limits", "image_bytes: 0")},
	{"negative size", section("limits", "image_bytes: -1")},
	{"large size", section("limits", "header_bytes: 1GB")},
	{"huge size", section("limits", "header_bytes: 9000000PB")},
	{"level", section("log", "level: wran")},
	{"format", section("log", "format: xml12345")},
	{"empty name", section("cluster", `name: ""`)},
	{"bad name", section("cluster", `name: "a b"`)},
	{"bad path", section("node", `data_dir: "a\0b"`)},
	{"fraction of a tick", section("raft", "rtt: 1500us")},
	{"ID 0", nodes(n1, n2, "{id: 0, host: h, api_port: 1, raft_port: 2}")},
	{"large ID", nodes(n1, n2, "{id: 4294967296, host: h, api_port: 1, raft_port: 2}")},
	{"port 0", nodes(n1, n2, "{id: 3, host: h, api_port: 0, raft_port: 2}")},
	{"port 65536", nodes(n1, n2, "{id: 3, host: h, api_port: 1, raft_port: 65536}")},
	{"no nodes", section("cluster", "nodes: []")},
	{"many nodes", nodes(n1, n1, n1, n1, n1, n1, n1, n1)},
}

var crossErrors = []mistake{
	{"same ID", nodes(n1, n2, strings.Replace(n3, "id: 3", "id: 2", 1))},
	{"same API address", nodes(n1, n2, "{id: 3, host: 10.0.0.2, api_port: 8001, raft_port: 9003}")},
	{"same Raft address", nodes(n1, n2, "{id: 3, host: 10.0.0.2, api_port: 8003, raft_port: 9001}")},
	{"API and Raft", nodes(n1, n2, "{id: 3, host: h, api_port: 1, raft_port: 1}")},
	{
		"localhost is 127.0.0.1",
		nodes("{id: 1, host: 127.0.0.1, api_port: 1, raft_port: 2}",
			"{id: 2, host: LocalHost, api_port: 3, raft_port: 1}"),
	},
	{"replicas above nodes", section("cluster", "replicas: 4")},
	{"nodes below replicas", nodes(n1)},
	{
		"replicas above a shard's nodes",
		nodes(n1, n2, n3, "{id: 4, host: h, api_port: 1, raft_port: 2}") + "  replicas: 4\n",
	},
	{"min_replicas", section("cluster", "min_replicas: 3")},
	{"order", section("timeouts", "proposal: 300ms")},
	{"order of sizes", section("limits", "image_bytes: 300MiB")},
	{"elections", section("raft", "heartbeat_rtt: 4")},
	{"elections just below", section("raft", "election_rtt: 8\n  heartbeat_rtt: 3")},
	{"attempt", section("timeouts", "proposal_attempt: 199ms")},
	{"long ticks", section("raft", "rtt: 201ms")},
	{"key beside the data", section("node", "master_key_file: imgcluster-data/node2/../node2/keys/k")},
	{
		"certificate's key beside the data",
		section("tls", "cert_file: c.pem\n  key_file: imgcluster-data/node3/key.pem"),
	},
	{"collector without a scheme", section("tracing", "endpoint: 127.0.0.1:4318")},
	{"collector of another protocol", section("tracing", "endpoint: grpc://127.0.0.1:4317")},
	{"collector with a password", section("tracing", "endpoint: http://a:b@127.0.0.1:4318")},
	{"certificate without key", section("tls", "cert_file: c.pem")},
	{"key without certificate", section("tls", "key_file: c.pem")},
	{"insecure always", section("security", "always: true\n  insecure: true")},
}

// mistakes are all of them by group.
var mistakes = []struct {
	group string
	list  []mistake
}{
	{"key", keyErrors},
	{"type", typeErrors},
	{"range", rangeErrors},
	{"cross", crossErrors},
}

func TestProblems(t *testing.T) {
	var messages strings.Builder
	for _, g := range mistakes {
		for _, m := range g.list {
			name := g.group + "/" + m.name
			cfg, err := loadText(m.text, Options{})
			expectProblems(t, name, cfg, err)
			fmt.Fprintf(&messages, "# %s\n%v\n\n", name, err)
		}
	}
	golden(t, "testdata/mistakes.golden", messages.String())
}

// expectProblems expects that a configuration is refused, and that each problem has a hint.
func expectProblems(t *testing.T, name string, cfg *Config, err error) {
	t.Helper()
	var ps Problems
	if !errors.As(err, &ps) || !errors.Is(err, ErrInvalid) || cfg != nil {
		t.Fatalf("%s: got %v, %v", name, cfg, err)
	}
	for _, p := range ps {
		if p.Message == "" || p.Hint == "" {
			t.Errorf("%s: %q with the hint %q", name, p, p.Hint)
		}
	}
}

func TestEnvAndFlagProblems(t *testing.T) {
	var messages strings.Builder
	for _, tc := range []struct {
		name      string
		env, args []string
	}{
		{"bad number", []string{"IMGCLUSTER_CLUSTER_REPLICAS=two"}, nil},
		{"bad node", []string{"IMGCLUSTER_CLUSTER_NODES=1=h:1:2,h:3:4:5"}, nil},
		{"bad port", []string{"IMGCLUSTER_CLUSTER_NODES=1=h:1:0"}, nil},
		{"many nodes", []string{"IMGCLUSTER_CLUSTER_NODES=" + strings.Repeat("1=h:1:2,", 8)}, nil},
		{"cross", []string{"IMGCLUSTER_CLUSTER_REPLICAS=4"}, nil},
		{"flag", nil, []string{"--read-timeout", "5"}},
		{"empty flag", nil, []string{"--data-dir="}},
		{"same ID twice", nil, []string{"--nodes", "1=h:1:2,1=h:3:4"}},
	} {
		cfg, err := loadText("", Options{Env: tc.env, Flags: flags(t, tc.args...)})
		expectProblems(t, tc.name, cfg, err)
		fmt.Fprintf(&messages, "# %s\n%v\n\n", tc.name, err)
	}
	golden(t, "testdata/env-flags.golden", messages.String())
	commands := []string{"IMGCLUSTER_CONFIG=x", "IMGCLUSTER_MASTER_KEY=secret", "imgcluster_x=1"}
	c, err := loadText("", Options{Env: commands})
	if err != nil || len(c.Warnings()) != 0 {
		t.Errorf("variables of the commands are refused: %v", err)
	}
}

// TestUnknownEnv: a variable that is not a setting is a warning, since it may be another program's.
func TestUnknownEnv(t *testing.T) {
	const list = "config show" // of all settings, when none is similar
	for variable, hint := range map[string]string{
		"IMGCLUSTER_CLUSTER_REPLICA=2": "IMGCLUSTER_CLUSTER_REPLICAS?",
		"IMGCLUSTER_MASTERKEY=secret":  "IMGCLUSTER_MASTER_KEY?",
		"IMGCLUSTER_=secret":           list,
		"IMGCLUSTER_CRASHES=3":         list,
		"IMGCLUSTER_PORT=8001":         list,
		"IMGCLUSTER_\x1b[2J=1":         list,
		"IMGCLUSTER_FOO=":              "",
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
		warnings := c.Warnings()
		if len(c.Unknown()) != len(warnings) || (len(warnings) == 1) != (hint != "") {
			t.Errorf("%q: warnings %v", variable, warnings)
			continue
		}
		if hint == "" {
			continue
		}
		name, value, _ := strings.Cut(variable, "=")
		w := warnings[0]
		if w.File != "env "+plain(name) || !strings.Contains(w.Hint, hint) {
			t.Errorf("%q: %v (%s), want %q in the hint", variable, w, w.Hint, hint)
		}
		if value == "secret" && strings.Contains(w.String()+w.Hint, value) {
			t.Errorf("%q: the value is shown: %v", variable, w)
		}
	}
}

// TestFileOfWindows: editors of Windows, and PowerShell's >, write a mark, UTF-16, and other ends of lines.
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
	var ps Problems
	_, err := loadText(wide(text), Options{})
	if !errors.As(err, &ps) || !strings.Contains(ps[0].Hint, "UTF-8") {
		t.Errorf("UTF-16 without a mark: %v", err)
	}
	_, err = loadText("\xff\xfe"+wide(text+"  data_shards: [\r\n"), Options{})
	if !errors.As(err, &ps) || ps[0].Line != 3 {
		t.Errorf("UTF-16 with a mistake in line 3: %v", err)
	}
}

// TestAllProblemsAtOnce: all that is wrong, in all sources, is in one error, in the order of the lines.
func TestAllProblemsAtOnce(t *testing.T) {
	data, err := os.ReadFile("testdata/problems.yaml")
	if err != nil {
		t.Fatal(err)
	}
	o := Options{
		Env:   []string{"IMGCLUSTER_LOG_LEVLE=debug", "IMGCLUSTER_TIMEOUTS_READ=-1s"},
		Flags: flags(t, "--data-dir="),
	}
	cfg, err := load("testdata/problems.yaml", data, o, &collector{})
	expectProblems(t, "problems.yaml", cfg, err)
	golden(t, "testdata/problems.golden", err.Error()+"\n")
}

func TestProblemsAreBounded(t *testing.T) {
	_, err := loadText(strings.Repeat("x: 1\n", 1000), Options{})
	var ps Problems
	if !errors.As(err, &ps) || len(ps) != problemsMax+1 {
		t.Fatalf("%d problems", len(ps))
	}
	if last := ps[problemsMax]; !strings.Contains(last.Message, fmt.Sprint(1000-problemsMax)) {
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
		"":                              false, "10.0.0": false, "10.0.0.256": false, "1.2.3.4.5": false,
		"::1": true, "fd00::1": true,
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
		if err == nil {
			continue
		}
		var ps Problems
		if !errors.As(err, &ps) || len(ps) != 1 || ps[0].Key != "cluster.nodes[0].host" || ps[0].Hint == "" {
			t.Errorf("%q: %v", host, err)
		}
	}
}

// TestRaftLimits: the least that the nodes accept is accepted.
func TestRaftLimits(t *testing.T) {
	for _, text := range []string{
		section("raft", "election_rtt: 9\n  heartbeat_rtt: 3"),
		section("timeouts", "proposal_attempt: 200ms"),
		section("raft", "rtt: 200ms"),
	} {
		if _, err := loadText(text, Options{}); err != nil {
			t.Errorf("%s%v", text, err)
		}
	}
}

// TestCheckByHand: Check finds in a struct what Load finds in a file.
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
		key    string
	}{
		"none": {func(*Config) {}, ""},
		"one node": {
			func(c *Config) {
				c.Cluster.Nodes = c.Cluster.Nodes[:1]
				c.Cluster.Replicas = 1
			},
			nodesKey,
		},
		"even": {
			func(c *Config) { c.Cluster.Nodes = c.Cluster.Nodes[:2] },
			nodesKey,
		},
		"one copy": {
			func(c *Config) { c.Cluster.Replicas = 1 },
			"cluster.replicas",
		},
		"disk": {
			func(c *Config) { c.Limits.DiskFreeBytes = 1 << 20 },
			"limits.disk_free_bytes",
		},
		"insecure": {
			func(c *Config) {
				c.Cluster.Nodes[2].Host = "10.0.0.3"
				c.Security.Insecure = true
			},
			"security.insecure",
		},
		"insecure on loopback": {func(c *Config) { c.Security.Insecure = true }, ""},
		"unused certificate": {
			func(c *Config) { c.TLS = TLS{"c.pem", "k.pem"} },
			"tls.cert_file",
		},
		"used certificate": {
			func(c *Config) {
				c.TLS = TLS{"c.pem", "k.pem"}
				c.Security.Always = true
			},
			"",
		},
		"one folder": {
			func(c *Config) { c.Local.DataDir = "/data" },
			"node.data_dir",
		},
	} {
		c := Default()
		tc.change(c)
		got := c.Warnings()
		if err := c.Check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if tc.key == "" {
			if got != nil {
				t.Errorf("%s: got %v, want no warning", name, got)
			}
			continue
		}
		if len(got) != 1 || got[0].Key != tc.key || got[0].Message == "" || got[0].Hint == "" {
			t.Errorf("%s: got %v, want one warning about %s", name, got, tc.key)
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

package config

import (
	"encoding/json"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// Every field of every section is a setting with key, default and description.
func TestEverySettingIsDescribed(t *testing.T) {
	count := 0
	typ := reflect.TypeFor[Config]()
	for i := range typ.NumField() {
		if f := typ.Field(i); f.IsExported() && f.Type.Kind() == reflect.Struct {
			count += f.Type.NumField()
		}
	}
	if count != len(fields) || len(nodeFields) != reflect.TypeFor[Node]().NumField() {
		t.Errorf("%d fields, but %d settings", count, len(fields))
	}
	name := regexp.MustCompile(`^[a-z]+\.[a-z]+(_[a-z0-9]+)*$`)
	seen := map[string]bool{}
	for _, s := range Default().Settings() {
		if !name.MatchString(s.Key) || s.Description == "" || s.Default == "" || s.Type == "" || s.Env == "" {
			t.Errorf("incomplete: %+v", s)
		}
		if s.Value != s.Default || s.Origin != "default" {
			t.Errorf("%s is %q from %q, its default %q", s.Key, s.Value, s.Origin, s.Default)
		}
		if strings.Contains(s.Description, "\n") || seen[s.Env] || slices.Contains(notSettings, s.Env) {
			t.Errorf("bad description or variable: %+v", s)
		}
		seen[s.Env] = true
	}
	for _, f := range nodeFields {
		if f.help == "" || f.example() == "" || f.key == "" {
			t.Errorf("field %s of a node is not described", f.key)
		}
	}
	if !seen["IMGCLUSTER_CLUSTER_DATA_SHARDS"] {
		t.Error("IMGCLUSTER_CLUSTER_DATA_SHARDS is no setting's variable")
	}
}

// same compares what is set, not where.
func same(a, b *Config) bool {
	x := *a
	y := *b
	x.places, x.unknown = nil, nil
	y.places, y.unknown = nil, nil
	x.File = ""
	y.File = ""
	return reflect.DeepEqual(x, y)
}

func TestYAMLOfTheDefault(t *testing.T) {
	out, err := Default().YAML()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/default.yaml", string(out))
	back, err := loadText(string(out), Options{})
	if err != nil || !same(back, Default()) {
		t.Errorf("read back as %+v, %v", back, err)
	}
	for _, s := range back.Settings() {
		if !strings.HasPrefix(s.Origin, "file c.yaml:") {
			t.Errorf("%s is not in the file", s.Key)
		}
	}
}

// TestDraft: a new cluster's file has what was chosen on the command line, and no more.
func TestDraft(t *testing.T) {
	c, err := Load(Options{
		NoFile: true, Env: []string{"IMGCLUSTER_NODE_MASTER_KEY_FILE=/keys/k", "IMGCLUSTER_CLUSTER_NAME=photos"},
		Set: []string{"cluster.nodes=1=10.0.0.1:8001:9001,2=h2:8001:9001,3=[fd00::1]:8001:9001", "raft.rtt=80ms"},
	})
	if err != nil {
		t.Fatal(err)
	}
	text, err := c.Draft()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/draft.yaml", string(text))
	back, err := loadText(string(text), Options{})
	if err != nil {
		t.Fatal(err)
	}
	c.Local.MasterKeyFile = Default().Local.MasterKeyFile
	if !same(back, c) {
		t.Errorf("read back as %+v", back)
	}
}

func TestYAMLRoundTrip(t *testing.T) {
	for _, name := range []string{
		"a", "123", "0x1f", "true", "null", "1.5", "2001-01-01", "y", "NO", "1e3", "a.b-c_d", "0o7",
	} {
		for _, dir := range []string{
			"/data/{id}", " leading", "trailing ", "a: b # c", "- x", "*a", "'", `"`, "{id}", "ü/日本", "~",
			"null", "a\\b", "%x", "a#b", strings.Repeat("long path ", 40) + "x",
		} {
			c := Default()
			c.Cluster.Name = name
			c.Local.DataDir = dir
			c.Cluster.Nodes = []Node{{4294967295, "null", 1, 65535}, {7, "e5", 2, 3}, {9, "true", 4, 5}}
			c.Limits.ImageBytes = 1
			c.Limits.HeaderBytes = 4097
			c.Limits.DiskFreeBytes = 0
			c.Timeouts.Sweep = 1500 * time.Microsecond
			c.Timeouts.Read = 720 * time.Hour
			out, err := c.YAML()
			if err != nil {
				t.Fatal(err)
			}
			back, err := loadText(string(out), Options{})
			if err != nil || !same(back, c) {
				t.Fatalf("%q %q: read back as %+v, %v\n%s", name, dir, back, err, out)
			}
		}
	}
}

func TestBytes(t *testing.T) {
	for text, want := range map[string]Bytes{
		"0": 0, "1024": 1024, "64MiB": 64 << 20, "64mib": 64 << 20, "64 MiB": 64 << 20, "1GB": 1e9,
		"1kB": 1000, "1KB": 1000, "7B": 7, "8191PiB": 8191 << 50, "9223372036854775807": 1<<63 - 1,
	} {
		got, err := ParseBytes(text)
		if err != nil || got != want {
			t.Errorf("%s: %d, %v", text, got, err)
		}
		var back Bytes
		if err := back.UnmarshalText([]byte(got.String())); err != nil || back != got {
			t.Errorf("%s is written as %s, which reads as %d, %v", text, got, back, err)
		}
	}
	for _, text := range []string{
		"", "MiB", "-1", "+1", "1.5", "1 2", "1  B", " 1", "1_0", "0x1", "64M", "1XB", "8192PiB",
		"9223372036854775808", "99999999999999999999", "1e3", "١",
	} {
		if b, err := ParseBytes(text); err == nil {
			t.Errorf("%q is read as %d", text, b)
		}
	}
	for b, want := range map[Bytes]string{
		0: "0", 1: "1", 1000: "1kB", 1024: "1KiB", 1 << 30: "1GiB", 1536 << 20: "1536MiB", 1e9: "1GB",
		1001: "1001", 4097: "4097",
	} {
		if b.String() != want {
			t.Errorf("%d is written as %s, want %s", b, b, want)
		}
	}
	if out, err := json.Marshal(Default().Limits.ImageBytes); err != nil || string(out) != `"64MiB"` {
		t.Errorf("as JSON: %s, %v", out, err)
	}
}

func TestAgreement(t *testing.T) {
	here := Default().Agreement()
	for name, tc := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"same":          {func(*Config) {}, ""},
		"another order": {func(c *Config) { n := c.Cluster.Nodes; n[0], n[2] = n[2], n[0] }, ""},
		"what may differ": {
			func(c *Config) { c.Cluster.Replicas, c.Local.DataDir, c.Raft.RTT = 3, "/x", 1 }, "",
		},
		"name": {
			func(c *Config) { c.Cluster.Name = "b" }, `cluster name is "imgcluster" here and "b" there`,
		},
		"shards": {
			func(c *Config) { c.Cluster.DataShards = 8 }, "data_shards is 12 here and 8 there",
		},
		"address": {
			func(c *Config) { c.Cluster.Nodes[1].APIPort = 1 },
			"node 2 is 127.0.0.1:8002 (Raft port 9002) here and 127.0.0.1:1 (Raft port 9002) there",
		},
		"a node less, a name": {
			func(c *Config) { c.Cluster.Nodes, c.Cluster.Name = c.Cluster.Nodes[:2], "b" },
			`cluster name is "imgcluster" here and "b" there; node 3 is only here`,
		},
		"another ID": {
			func(c *Config) { c.Cluster.Nodes[2].ID = 4 }, "node 3 is only here; node 4 is only there",
		},
		"a node twice": {
			func(c *Config) { c.Cluster.Nodes = append(c.Cluster.Nodes, c.Cluster.Nodes[0]) },
			"a node is listed twice there",
		},
	} {
		t.Run(name, func(t *testing.T) {
			there := Default()
			tc.change(there)
			text, err := json.Marshal(there.Agreement())
			if err != nil {
				t.Fatal(err)
			}
			var received Agreement
			if err := json.Unmarshal(text, &received); err != nil {
				t.Fatal(err)
			}
			if got := here.Difference(received); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if equal := here.Fingerprint() == received.Fingerprint(); equal != (tc.want == "") {
				t.Errorf("fingerprints equal: %v", equal)
			}
		})
	}
	upper := Default().Agreement()
	upper.Nodes[0].Host = "LOCALHOST"
	lower := Default().Agreement()
	lower.Nodes[0].Host = "localhost"
	if d := upper.Difference(lower); d != "" || upper.Fingerprint() != lower.Fingerprint() {
		t.Errorf("letter case makes a difference: %s", d)
	}
	// Written down: a release that changes it splits running clusters.
	const want = "1d379164f06182a5d858ca4b6d42bdb27eea0b1bc378ab2cb01773a17847549e"
	if got := here.Fingerprint(); got != want {
		t.Errorf("fingerprint of the default is %s, was %s", got, want)
	}
}

func TestDifferenceIsBounded(t *testing.T) {
	other := Default().Agreement()
	for i := range 1000 {
		other.Nodes = append(other.Nodes, Node{ID: 100, Host: strings.Repeat("x", 1<<10), APIPort: i})
	}
	if d := Default().Agreement().Difference(other); d == "" || len(d) > 4<<10 {
		t.Errorf("%d bytes", len(d))
	}
}

func TestShared(t *testing.T) {
	a := Default()
	b := Default()
	b.Local.DataDir = "/x"
	b.Client.Attempts = 1
	b.Log.Level = "debug"
	b.TLS.CertFile = "/c"
	b.Limits.Uploads = 3
	b.Cluster.Nodes = b.Cluster.Nodes[:1]
	x := a.Shared()
	y := b.Shared()
	if x["limits.uploads"] != "64" || y["limits.uploads"] != "3" || x["raft.rtt"] != "100ms" ||
		x["security.insecure"] != "false" {
		t.Errorf("shared settings %v, %v", x, y)
	}
	y["limits.uploads"] = "64"
	if !reflect.DeepEqual(x, y) {
		t.Errorf("a node's own settings are shared: %v, %v", x, y)
	}
}

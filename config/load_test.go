package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"imgcluster/cluster/image"
)

// write puts a file into a folder of its own and returns its path.
func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// loadText loads a file called c.yaml with this text.
func loadText(text string, o Options) (*Config, error) {
	if text == "" {
		return load("", nil, o, &collector{}) // no file
	}
	return load("c.yaml", []byte(text), o, &collector{})
}

// flags parses arguments with flags for some settings.
func flags(t *testing.T, args ...string) *pflag.FlagSet {
	t.Helper()
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	AddFlag(fs, "node.data_dir", "data-dir")
	AddFlag(fs, "cluster.replicas", "replicas")
	AddFlag(fs, "cluster.nodes", "nodes")
	AddFlag(fs, "timeouts.read", "read-timeout")
	fs.Bool("json", false, "no setting")
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return fs
}

func setting(t *testing.T, c *Config, key string) Setting {
	t.Helper()
	for _, s := range c.Settings() {
		if s.Key == key {
			return s
		}
	}
	t.Fatalf("no setting %s", key)
	return Setting{}
}

func TestDefault(t *testing.T) {
	c := Default()
	if err := c.Check(); err != nil {
		t.Fatal(err)
	}
	want := []Node{{1, "127.0.0.1", 8001, 9001}, {2, "127.0.0.1", 8002, 9002}, {3, "127.0.0.1", 8003, 9003}}
	if !reflect.DeepEqual(c.Cluster.Nodes, want) {
		t.Errorf("nodes %v, want %v", c.Cluster.Nodes, want)
	}
	if c.Cluster.DataShards != 12 || c.Limits.ImageBytes != 64<<20 ||
		c.Timeouts.Report != 300*time.Millisecond || c.Raft.ElectionRTT != 5 {
		t.Errorf("defaults not applied: %+v", c)
	}
	if dir := c.DataDir(2); dir != "imgcluster-data/node2" {
		t.Errorf("data folder of node 2: %s", dir)
	}
	if !c.Loopback() {
		t.Error("the built-in configuration is not on loopback addresses")
	}
	c.Cluster.Nodes[0].Host = "changed"
	if Default().Cluster.Nodes[0].Host != "127.0.0.1" {
		t.Error("two configurations share their nodes")
	}
}

// TestSecured: TLS and keys go with addresses that other hosts reach, unless a switch says otherwise.
func TestSecured(t *testing.T) {
	for _, tc := range []struct {
		host, listen string
		security     Security
		want         bool
	}{
		{"127.0.0.1", "host", Security{}, false},
		{"localhost", "host", Security{}, false},
		{"10.0.0.1", "host", Security{}, true},
		{"node1.example.org", "host", Security{}, true},
		{"127.0.0.1", "0.0.0.0", Security{}, true},
		{"10.0.0.1", "127.0.0.1", Security{}, true},
		{"127.0.0.1", "host", Security{Always: true}, true},
		{"10.0.0.1", "host", Security{Insecure: true}, false},
		{"127.0.0.1", "host", Security{Insecure: true}, false},
	} {
		c := Default()
		c.Cluster.Nodes[1].Host = tc.host
		c.Local.Listen = tc.listen
		c.Security = tc.security
		if c.Secured() != tc.want {
			t.Errorf("%+v: secured %t", tc, c.Secured())
		}
	}
}

// TestCAFile: relative paths start at the configuration file's folder.
func TestCAFile(t *testing.T) {
	for _, tc := range []struct{ file, ca, want string }{
		{"", "ca.crt", "ca.crt"},
		{"imgcluster.yaml", "ca.crt", "ca.crt"},
		{"/etc/imgcluster/x.yaml", "ca.crt", "/etc/imgcluster/ca.crt"},
		{"conf/x.yaml", "../ca.pem", "ca.pem"},
		{"/etc/imgcluster/x.yaml", "/usr/ca.pem", "/usr/ca.pem"},
		{"/etc/imgcluster/x.yaml", "system", ""},
	} {
		c := Default()
		c.File = tc.file
		c.Client.CAFile = tc.ca
		if got := c.CAFile(); got != tc.want {
			t.Errorf("%+v: got %s", tc, got)
		}
	}
}

func TestPrecedence(t *testing.T) {
	const file = "cluster:\n  replicas: 3\n"
	env := []string{"IMGCLUSTER_CLUSTER_REPLICAS=1", "PATH=/bin"}
	for _, tc := range []struct {
		name, text    string
		env, args     []string
		value, origin string
	}{
		{"default", "", nil, nil, "2", "default"},
		{"empty section", "cluster:\n", nil, nil, "2", "default"},
		{"file", file, nil, nil, "3", "file c.yaml:2"},
		{"env over default", "", env, nil, "1", "env IMGCLUSTER_CLUSTER_REPLICAS"},
		{"env over file", file, env, nil, "1", "env IMGCLUSTER_CLUSTER_REPLICAS"},
		{"empty env is not set", file, []string{"IMGCLUSTER_CLUSTER_REPLICAS="}, nil, "3", "file c.yaml:2"},
		{
			"last env wins", "",
			[]string{env[0], "IMGCLUSTER_CLUSTER_REPLICAS=3"},
			nil,
			"3", "env IMGCLUSTER_CLUSTER_REPLICAS",
		},
		{"flag over all", file, env, []string{"--replicas=2", "--json"}, "2", "flag --replicas"},
		{"flag over file", file, nil, []string{"--replicas", "1"}, "1", "flag --replicas"},
		{"flag not given", file, nil, []string{"--json"}, "3", "file c.yaml:2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := loadText(tc.text, Options{Env: tc.env, Flags: flags(t, tc.args...)})
			if err != nil {
				t.Fatal(err)
			}
			s := setting(t, c, "cluster.replicas")
			if s.Value != tc.value || s.Origin != tc.origin {
				t.Errorf("got %s from %q, want %s from %q", s.Value, s.Origin, tc.value, tc.origin)
			}
			if other := setting(t, c, "cluster.min_replicas"); other.Value != "1" ||
				other.Origin != "default" {
				t.Errorf("the setting beside it changed: %+v", other)
			}
		})
	}
}

// TestEverySettingFromEverySource: every setting can be set in each of the three ways, and is read back from
// its own text.
func TestEverySettingFromEverySource(t *testing.T) {
	for _, f := range fields {
		t.Run(f.key, func(t *testing.T) {
			fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
			AddFlag(fs, f.key, "it")
			if err := fs.Parse([]string{"--it", f.def}); err != nil {
				t.Fatal(err)
			}
			def := f.def
			if def == "false" { // pflag leaves it out
				def = ""
			}
			if usage := fs.FlagUsages(); !strings.Contains(usage, f.help) || !strings.Contains(usage, def) {
				t.Errorf("usage without description or default: %s", usage)
			}
			section, name, _ := strings.Cut(f.key, ".")
			text := section + ":\n  " + name + ": " + f.def + "\n"
			if f.kind() == "nodes" {
				text = nodes(
					"{id: 1, host: h1, api_port: 1, raft_port: 2}", "{id: 2, host: h2, api_port: 1, raft_port: 2}",
				)
			}
			for origin, o := range map[string]Options{
				"file c.yaml:2": {},
				"env " + f.env:  {Env: []string{f.env + "=" + f.def}},
				"flag --it":     {Flags: fs, Env: []string{f.env + "=" + f.def}},
			} {
				c, err := loadText(text, o)
				if err != nil {
					t.Fatalf("%s: %v", origin, err)
				}
				s := setting(t, c, f.key)
				if s.Origin != origin || s.Value != f.def && origin != "file c.yaml:2" {
					t.Errorf("%s from %q, want %s from %q", s.Value, s.Origin, f.def, origin)
				}
			}
		})
	}
}

func TestNodesAreReplacedAsAWhole(t *testing.T) {
	file := nodes("{id: 7, host: h, api_port: 1, raft_port: 2}", "{id: 8, host: h, api_port: 3, raft_port: 4}")
	c, err := loadText(file, Options{
		Env: []string{"IMGCLUSTER_CLUSTER_NODES=1=10.0.0.1:8001:9001, 2=node2.example.org:8002:9002"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []Node{{1, "10.0.0.1", 8001, 9001}, {2, "node2.example.org", 8002, 9002}}
	if !reflect.DeepEqual(c.Cluster.Nodes, want) {
		t.Errorf("nodes %v, want %v", c.Cluster.Nodes, want)
	}
	if c.Loopback() {
		t.Error("10.0.0.1 counts as loopback")
	}
	// The place of a problem of these nodes is not a line of the file that they replace.
	_, err = loadText(file, Options{Env: []string{"IMGCLUSTER_CLUSTER_NODES=1=10.0.0.1:1:2,1=10.0.0.2:1:2"}})
	var ps Problems
	if !errors.As(err, &ps) || len(ps) != 1 || ps[0].Key != "cluster.nodes[1].id" ||
		ps[0].File != "env IMGCLUSTER_CLUSTER_NODES" || ps[0].Line != 0 {
		t.Errorf("got %v, want a problem of cluster.nodes[1].id in the environment", err)
	}
}

func TestFindFile(t *testing.T) {
	t.Chdir(t.TempDir())
	c, err := Load(Options{})
	if err != nil || c.File != "" || c.Cluster.Name != "imgcluster" {
		t.Fatalf("without a file: %v, %v", c, err)
	}
	if err := os.WriteFile(DefaultPath, []byte("cluster: {name: here}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err = Load(Options{})
	if err != nil || c.File != DefaultPath || c.Cluster.Name != "here" {
		t.Fatalf("with the default file: %v, %v", c, err)
	}
	named := write(t, "cluster: {name: named}\n")
	c, err = Load(Options{Path: named})
	if err != nil || c.File != named || c.Cluster.Name != "named" {
		t.Fatalf("with a named file: %v, %v", c, err)
	}
	if o := setting(t, c, "cluster.name").Origin; o != "file "+named+":1" {
		t.Errorf("origin %q", o)
	}
}

func TestUnreadableFile(t *testing.T) {
	dir := t.TempDir()
	large := write(t, "# "+strings.Repeat("x", fileBytesMax))
	for path, want := range map[string]string{
		filepath.Join(dir, "none.yaml"): "no such file",
		dir:                             "folder",
		large:                           Bytes(fileBytesMax).String(),
	} {
		_, err := Load(Options{Path: path})
		var ps Problems
		if !errors.As(err, &ps) || len(ps) != 1 || ps[0].File != path ||
			!strings.Contains(ps[0].Message, want) || !strings.Contains(ps[0].Hint, "--config") {
			t.Errorf("%s: %v, want %s", path, err, want)
		}
	}
}

func TestNode(t *testing.T) {
	c := Default()
	n, err := c.Node(2)
	if err != nil || n.APIAddr() != "127.0.0.1:8002" || n.RaftAddr() != "127.0.0.1:9002" {
		t.Errorf("node 2: %v, %v", n, err)
	}
	_, err = c.Node(9)
	if image.KindOf(err) != image.KindInvalid || !strings.Contains(err.Error(), "9") ||
		!strings.Contains(err.Error(), "1, 2, 3") || image.HintOf(err) == "" || !errors.Is(err, ErrInvalid) {
		t.Fatalf("node 9: %#v", err)
	}
}

func TestSample(t *testing.T) {
	c, err := Load(Options{Path: "../testdata/cluster.yaml"})
	if err != nil {
		t.Fatal(err)
	}
	want := []Node{
		{1, "10.40.45.206", 8001, 9001}, {2, "10.40.33.244", 8001, 9001}, {3, "10.40.53.40", 8001, 9001},
	}
	if !reflect.DeepEqual(c.Cluster.Nodes, want) || c.Cluster.Replicas != 2 || c.Cluster.DataShards != 12 ||
		c.Cluster.Name != "imgcluster" {
		t.Errorf("got %+v", c.Cluster)
	}
	if c.Loopback() || c.Warnings() != nil {
		t.Errorf("loopback %v, warnings %v", c.Loopback(), c.Warnings())
	}
}

// TestEmptyFile: a file that says nothing may be cut, and is not taken for the built-in configuration.
func TestEmptyFile(t *testing.T) {
	for _, text := range []string{"", "\n", "# cluster:\n", "---\n", "~\n"} {
		path := filepath.Join(t.TempDir(), "c.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var ps Problems
		_, err := Load(Options{Path: path, Env: []string{"IMGCLUSTER_CLUSTER_REPLICAS=1"}})
		if !errors.As(err, &ps) || len(ps) != 1 || ps[0].File != path || ps[0].Message == "" ||
			!strings.Contains(ps[0].Hint, "config show") || !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

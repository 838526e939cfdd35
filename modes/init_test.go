package modes

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imgcluster/cluster/access"
	"imgcluster/cluster/image"
	"imgcluster/config"
	"imgcluster/crypto"
)

// folder returns what is in a folder, with its sub-folders: each file's mode and text.
func folder(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	must(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		files[name] = info.Mode().String() + " " + string(read(t, path))
		return err
	}))
	return files
}

const (
	keyPath = "imgcluster-keys/master.key"
	hostA   = "10.40.45.206"
	hostB   = "10.40.33.244"
	hostC   = "10.40.53.40"
)

// TestInit makes a cluster of three machines, and again, which changes nothing.
func TestInit(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	e := call(t, "init", hostA, hostB, hostC, "--name", "photos", "--replicas", "3", "--set", "raft.rtt=80ms")
	e.expectOut(t, 0, "made   imgcluster.yaml  3 nodes, 3 copies of each image",
		"made   "+keyPath+"  master key ",
		"made   ca.crt  public", "Copy   for h in 10.40.45.206 10.40.33.244 10.40.53.40; do scp -rp "+
			"imgcluster.yaml imgcluster-keys ca.crt $h:; done",
		"Start  for h in 10.40.45.206 10.40.33.244 10.40.53.40; do ssh $h 'nohup imgcluster server >>",
		"or on each machine: imgcluster server\n")
	made := folder(t, dir)
	if len(made) != 3 || !strings.HasPrefix(made[keyPath], "-r-------- ") ||
		!strings.HasPrefix(made["ca.crt"], "-rw-r--r-- -----BEGIN CERTIFICATE") {
		t.Errorf("made %v", made)
	}
	cfg, err := config.Load(config.Options{})
	must(t, err)
	var hosts []string
	for i, n := range cfg.Cluster.Nodes {
		hosts = append(hosts, n.Host)
		if int(n.ID) != i+1 || n.APIPort != 8001 || n.RaftPort != 9001 {
			t.Errorf("made %+v", n)
		}
	}
	if c := cfg.Cluster; c.Name != "photos" || c.Replicas != 3 ||
		!slices.Equal(hosts, []string{hostA, hostB, hostC}) ||
		cfg.Raft.RTT.String() != "80ms" || !cfg.Secured() {
		t.Errorf("made %+v", c)
	}
	master, err := crypto.LoadMasterKey(keyPath)
	must(t, err)
	a, err := access.NewAuthority(master, "photos")
	must(t, err)
	if string(read(t, "ca.crt")) != string(a.CertificatePEM()) {
		t.Error("ca.crt is not of the master key")
	}

	for _, again := range [][]string{
		{"init", hostA, hostB, hostC, "--name", "photos", "--replicas", "3"}, {"init"},
	} {
		call(t, again...).expectOut(t, 0, "there  imgcluster.yaml", "there  "+keyPath, "there  ca.crt")
	}
	e = call(t, "init", "--json")
	e.expectOut(t, 0)
	var doc initDocument
	if err := json.Unmarshal([]byte(e.out), &doc); err != nil || doc.KeyID != master.ID() || !doc.Secured ||
		len(doc.Made) != 0 || !slices.Equal(doc.Copy, []string{"imgcluster.yaml", keyPath, "ca.crt"}) {
		t.Errorf("%s: %v", e.out, err)
	}
	must(t, os.Remove("ca.crt"))
	call(t, "init").expectOut(t, 0, "there  "+keyPath, "made   ca.crt")
	if now := folder(t, dir); !equalFolders(now, made) {
		t.Errorf("changed to %v", now)
	}
}

func equalFolders(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for name := range a {
		if a[name] != b[name] {
			return false
		}
	}
	return true
}

// TestInitLoopback: a cluster on this machine needs no ca.crt; the ports of its nodes are different.
func TestInitLoopback(t *testing.T) {
	t.Chdir(t.TempDir())
	e := call(t, "init", "127.0.0.1", "127.0.0.1", "127.0.0.1", "--api-port", "7001")
	e.expectOut(t, 0, "made   imgcluster.yaml", "made   "+keyPath, "Start  imgcluster up\n")
	cfg, err := config.Load(config.Options{})
	must(t, err)
	if n := cfg.Cluster.Nodes; n[2].APIPort != 7003 || n[2].RaftPort != 9003 {
		t.Errorf("made %v", n)
	}
	if _, err := os.Stat("ca.crt"); err == nil {
		t.Error("ca.crt is made")
	}
	// With TLS there is one. And one node has one copy.
	t.Chdir(t.TempDir())
	e = call(t, "init", "127.0.0.1", "--set", "security.always=true")
	e.expectOut(t, 0, "made   ca.crt", "1 copy of each image")
}

// TestInitElsewhere: paths of the user's, and a key in the environment.
func TestInitElsewhere(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(t.TempDir())
	path := filepath.Join(dir, "photos.yaml")
	e := call(t, "--config", path, "init", "node1.example", "fd77:77::2", "node3.example",
		"--set", "node.master_key_file="+filepath.Join(dir, "k"))
	e.expectOut(t, 0, "made   "+path, "made   "+filepath.Join(dir, "ca.crt"),
		"made   "+filepath.Join(dir, "k"),
		"Copy   to the same paths on node1.example, fd77:77::2, node3.example: ",
		"Start  on each machine: imgcluster server --config "+path+"\n")
	call(t, "--config", path, "init").expectOut(t, 0, "there  "+path, "there  "+filepath.Join(dir, "k"))

	line := strings.Split(strings.TrimSpace(string(read(t, filepath.Join(dir, "k")))), "\n")
	t.Setenv(crypto.MasterKeyEnv, line[len(line)-1])
	t.Setenv("IMGCLUSTER_CLUSTER_NODES", "1=node1.example:1:2,2=node2.example:1:2,3=node3.example:1:2")
	call(t, "init").expectOut(t, 0, "there  (no file)  master key ", "made   ca.crt")
	if got, want := read(t, "ca.crt"), read(t, filepath.Join(dir, "ca.crt")); string(got) != string(want) {
		t.Error("the same key and name make another ca.crt")
	}
}

// TestInitRefused: nothing is overwritten, and nothing made, when something that is there does not fit.
func TestInitRefused(t *testing.T) {
	hosts := []string{hostA, hostB, hostC}
	for what, tc := range map[string]struct {
		before func(t *testing.T)
		args   []string
		said   []string
	}{
		"no host": {nil, nil, []string{"no host is named", "imgcluster up"}},
		"other hosts": {
			func(t *testing.T) { call(t, "init", hostA, hostB, hostC).expectOut(t, 0) },
			[]string{hostA, hostB, "10.40.53.41"},
			[]string{"imgcluster.yaml exists", "node 3 is 10.40.53.40:8001", "leave the hosts"},
		},
		"other copies": {
			func(t *testing.T) { call(t, "init", hostA, hostB, hostC).expectOut(t, 0) },
			append(hosts, "--replicas", "3"),
			[]string{"replicas is 2 here and 3 there"},
		},
		"a flag without hosts": {
			func(t *testing.T) { call(t, "init", hostA, hostB, hostC).expectOut(t, 0) },
			[]string{"--name", "x"},
			[]string{"--name is for a new configuration"},
		},
		"a bad host": {
			nil, []string{"10.40.45.300", hostB, hostC}, []string{"neither an IP address nor a host name"},
		},
		"no such node": {nil, append(hosts, "--replicas", "4"), []string{"4 copies"}},
		"no folder": {
			nil, append(hosts, "--config", "missing/imgcluster.yaml"), []string{"there is no folder missing"},
		},
		"a loose key": {
			func(t *testing.T) {
				call(t, "init", hostA, hostB, hostC).expectOut(t, 0)
				must(t, os.Chmod(keyPath, 0o644))
			},
			nil,
			[]string{"has mode 0644", "chmod 400 " + keyPath},
		},
		"another's ca.crt": {
			func(t *testing.T) {
				call(t, "init", hostA, hostB, hostC).expectOut(t, 0)
				must(t, os.Remove(keyPath))
				_, err := crypto.CreateMasterKey(keyPath)
				must(t, err)
			},
			nil,
			[]string{"ca.crt does not belong to the master key"},
		},
		"a lost key": {
			func(t *testing.T) {
				call(t, "init", hostA, hostB, hostC).expectOut(t, 0)
				must(t, os.Remove(keyPath))
			},
			nil,
			[]string{"master key is not here", "copy its master key to " + keyPath},
		},
		"a lost key of data": {
			func(t *testing.T) {
				must(t, os.MkdirAll("imgcluster-data/node2", 0o700),
					os.WriteFile("imgcluster-data/node2/node.json", nil, 0o600))
			},
			hosts,
			[]string{"master key of the cluster whose data is in imgcluster-data/node2 is missing"},
		},
		"a broken configuration": {
			func(t *testing.T) { must(t, os.WriteFile("imgcluster.yaml", []byte("cluster: 1\n"), 0o600)) },
			nil,
			[]string{"imgcluster.yaml:1"},
		},
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			t.Chdir(dir)
			if tc.before != nil {
				tc.before(t)
			}
			before := folder(t, dir)
			e := call(t, append([]string{"init"}, tc.args...)...)
			e.expectErr(t, 2, append(tc.said, "hint: ")...)
			if after := folder(t, dir); !equalFolders(before, after) {
				t.Errorf("changed to %v", after)
			}
		})
	}
}

// TestCopyCommand: what init prints to copy is right for any file names, or not one command.
func TestCopyCommand(t *testing.T) {
	for want, files := range map[string][]string{
		"for h in a b; do scp -rp c.yaml k ca.crt $h:; done":         {"c.yaml", "./k/master.key", "ca.crt"},
		"for h in a b; do scp -rp 'c d.yaml' m.key ca.crt $h:; done": {"c d.yaml", "m.key", "ca.crt"},
	} {
		if got := copyCommand(files, []string{"a", "b"}); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	for _, files := range [][]string{{"/etc/c.yaml"}, {"../c.yaml"}, {"x/y/k"}} {
		if got := copyCommand(files, []string{"a"}); got != "" {
			t.Errorf("%v: %s", files, got)
		}
	}
}

// TestOwnNode: a server without --id is the node whose host is this machine, where that is clear.
func TestOwnNode(t *testing.T) {
	for _, tc := range []struct {
		nodes string
		want  image.NodeID
	}{
		{"1=10.40.45.206:8001:9001,2=127.0.0.1:8001:9001,3=198.51.100.1:8001:9001", 2},
		{"1=10.40.45.206:8001:9001,5=localhost:8001:9001,3=198.51.100.1:8001:9001", 5},
		{"1=127.0.0.1:8001:9001,2=127.0.0.1:8002:9002,3=198.51.100.1:8001:9001", 0},
		{"1=198.51.100.1:8001:9001,2=198.51.100.2:8001:9001,3=198.51.100.3:8001:9001", 0},
		{"7=198.51.100.1:8001:9001", 7},
	} {
		cfg, err := config.Load(config.Options{
			NoFile: true, Set: []string{"cluster.nodes=" + tc.nodes, "cluster.replicas=1"},
		})
		must(t, err)
		if got := ownNode(t.Context(), cfg); got != tc.want {
			t.Errorf("%s: node %d, want %d", tc.nodes, got, tc.want)
		}
	}
}

package modes

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imgcluster/modes/stress"
)

// doctor runs doctor and returns its checks by name.
func doctor(t *testing.T, status int, args ...string) map[string]stress.Check {
	t.Helper()
	e := call(t, append([]string{"doctor", "--json"}, args...)...)
	var said struct{ Checks []stress.Check }
	if err := json.Unmarshal([]byte(e.out), &said); err != nil || e.status != status {
		t.Fatalf("want exit status %d of %v: %v", status, e, err)
	}
	all := map[string]stress.Check{}
	for _, c := range said.Checks {
		all[c.Name] = c
		if c.Said == "" || c.State == stress.CheckFail && c.Hint == "" {
			t.Errorf("%+v says too little", c)
		}
	}
	return all
}

// TestDoctor looks at a machine before a first start, beside nodes that run, and where something is wrong.
func TestDoctor(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	writeConfig(t, dir, "node: {data_dir: 'node{id}'}\n")
	expect := func(checks map[string]stress.Check, name string, state stress.CheckState, texts ...string) {
		t.Helper()
		c := checks[name]
		missing := slices.ContainsFunc(texts, func(text string) bool {
			return !strings.Contains(c.Said+"\n"+c.Hint, text)
		})
		if c.State != state || missing {
			t.Errorf("%s: %+v, want %s with %q", name, c, state, texts)
		}
	}

	fresh := doctor(t, exitDone, "--id", "1")
	for _, name := range []string{"master key", "address", "ports", "open files", "memory", "room"} {
		expect(fresh, name, stress.CheckOK)
	}
	expect(fresh, "settings", stress.CheckWarn, "limits.disk_free_bytes", "keep 1GiB free")
	expect(fresh, "data", fresh["data"].State, "is made at the first start")
	expect(fresh, "disk", fresh["disk"].State, "fsync")
	expect(fresh, "peers", stress.CheckOK, "2 of 2 are reached, 0 run")
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("it leaves %v, %v", left, err)
	}
	e := call(t, "doctor", "--id", "1")
	e.expectOut(t, exitDone, "ok    ports", "fsync")
	call(t, "doctor", "--id", "9").expectRefused(t, exitUsage, "9")

	if !testing.Short() {
		for _, id := range []int{1, 2} {
			start(t, program(t, dir, "server", "--id", fmt.Sprint(id)))
		}
		eventually(t, "the nodes run", func() bool { return call(t, "status").status == exitDone })
		beside := doctor(t, exitDone, "--id", "1")
		expect(beside, "ports", stress.CheckOK, "the node, which runs")
		expect(beside, "data", beside["data"].State, "in use by the node")
		expect(beside, "peers", stress.CheckOK, "2 of 2 are reached, 1 run")
		other := doctor(t, exitFailed, "--id", "3", "--data-dir", filepath.Join(dir, "node1"))
		expect(other, "data", stress.CheckFail, "another one")
	}

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().(*net.TCPAddr).Port
	if err := os.WriteFile("file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wrong := doctor(t, exitFailed, "--id", "3", "--data-dir", "file",
		"--set", "limits.memory_bytes=4TiB", "--set",
		fmt.Sprintf("cluster.nodes=1=nowhere.invalid:8001:9001,2=127.0.0.1:8002:9002,3=127.0.0.1:%d:9003", taken),
		"--set", "client.dial=200ms", "--set", "security.insecure=true")
	expect(wrong, "ports", stress.CheckFail, "in use")
	expect(wrong, "data", stress.CheckFail, "not a folder", "--data-dir")
	expect(wrong, "memory", stress.CheckFail, "limits.memory_bytes")
	expect(wrong, "peers", stress.CheckWarn, "node 1 at nowhere.invalid:8001 is not reached", "firewall")
}

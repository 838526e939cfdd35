package modes

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imgcluster/cluster/clustertest/poll"
	"imgcluster/crypto"
)

// TestServerKeepsItsKey: a running node writes no core file, and its master key is neither in its environment
// nor in what it prints.
func TestServerKeepsItsKey(t *testing.T) {
	dir := t.TempDir()
	writeConfig(t, dir, "log: {level: debug}\n")
	path := filepath.Join(t.TempDir(), "key")
	if _, err := crypto.CreateMasterKey(path); err != nil {
		t.Fatal(err)
	}
	text := string(read(t, path))
	key := []byte(text[strings.LastIndexByte(strings.TrimSpace(text), ' ')+1:][:44])
	cmd := program(t, dir, "server", "--id", "1")
	cmd.Env = append(os.Environ(), crypto.MasterKeyEnv+"="+text)
	r := start(t, cmd)
	proc := func(file string) []byte { return read(t, fmt.Sprintf("/proc/%d/%s", cmd.Process.Pid, file)) }
	poll.Until(t, waitMax, "the node to start", func() bool {
		return strings.Contains(r.err.String(), "API listens")
	})
	environ := proc("environ")
	if bytes.Contains(environ, key) || !bytes.Contains(environ, []byte(crypto.MasterKeyEnv)) {
		t.Errorf("%d bytes of environment, the key in it: %t", len(environ), bytes.Contains(environ, key))
	}
	if !regexp.MustCompile(`(?m)^Max core file size +0 +0 `).Match(proc("limits")) {
		t.Errorf("core files are allowed:\n%s", proc("limits"))
	}
	if said := r.err.String() + r.out.String(); strings.Contains(said, string(key)) {
		t.Error("the key is in the log")
	}
}

// TestNoCoreFiles: every command forbids them, also to a program that the kernel would pipe them to.
func TestNoCoreFiles(t *testing.T) {
	call(t, "version").expectOut(t, 0)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &limit); err != nil || limit.Max != 0 || limit.Cur != 0 {
		t.Errorf("the limit of core files is %+v, %v", limit, err)
	}
	if dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || dumpable != 0 {
		t.Errorf("the process is dumpable: %d, %v", dumpable, err)
	}
}

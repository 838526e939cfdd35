package clustertest

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wait"
)

// BuildWithFailpoints builds the tests of the package in the working directory with failpoints and returns
// the path of the binary, for Options.Program.
func BuildWithFailpoints(t testing.TB) (program string) {
	t.Helper()
	program = filepath.Join(t.TempDir(), "node.test")
	out, err := exec.Command("go", "test", "-c", "-tags", "failpoints", "-o", program, ".").CombinedOutput()
	if err != nil {
		t.Fatalf("build with failpoints: %v\n%s", err, out)
	}
	return program
}

// Arm arms a failpoint in a node's process: the process dies, as by kill -9, when it reaches the failpoint
// for the n-th time. An empty name disarms. It reports whether the process confirmed.
func (c *Cluster) Arm(id image.NodeID, name string, n int) bool {
	p := c.procs[id]
	if p == nil {
		return false
	}
	text, err := p.ask(fmt.Sprintf("%s %s %d", askArm, name, n))
	return err == nil && text == armed
}

// StartArmed starts a node that dies when it reaches a failpoint for the n-th time.
func (c *Cluster) StartArmed(id image.NodeID, name string, n int) {
	c.t.Helper()
	c.spawn(id, fmt.Sprintf("IMGCLUSTER_FAILPOINT=%s:%d", name, n))
}

// Dead reports whether a node has no running process.
func (c *Cluster) Dead(id image.NodeID) bool {
	p := c.procs[id]
	return p == nil || wait.Closed(p.exited)
}

// Died reports whether a node's process has ended since it was started; a second call returns false. err is
// why it ended, nil for kill -9.
func (c *Cluster) Died(id image.NodeID) (died bool, err error) {
	p := c.procs[id]
	if p == nil || !c.Dead(id) {
		return false, nil
	}
	delete(c.procs, id)
	exit, ok := errors.AsType[*exec.ExitError](p.err)
	if ok && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		return true, nil
	}
	return true, fmt.Errorf("node %d ended by itself: %w", id, p.err)
}

// Runs reports whether a node was started and has not been stopped or found dead.
func (c *Cluster) Runs(id image.NodeID) bool { return slices.Contains(c.running(), id) }

package modes

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBackupAndRestore does what OPERATIONS.md says of a cluster that has lost two of three nodes.
func TestBackupAndRestore(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a cluster twice")
	}
	dir := t.TempDir()
	t.Chdir(dir)
	writeConfig(t, dir, "node: {data_dir: 'node{id}'}\n")
	nodes := map[int]*running{}
	serve := func(id int) {
		nodes[id] = start(t, program(t, dir, "server", "--id", fmt.Sprint(id)))
	}
	ready := func(want string) {
		eventually(t, "status says "+want, func() bool {
			e := call(t, "status")
			return e.status == 0 && strings.Contains(e.out, want) && !strings.Contains(e.out, "is starting")
		})
	}
	for id := range 3 {
		serve(id + 1)
	}
	ready("3     up")
	var names []string
	for i := range 8 {
		name := fmt.Sprintf("%d.png", i)
		call(t, "put", "--user", "alice", "--name", name, photos(t)[0]).expectErr(t, 0)
		names = append(names, name)
	}
	for _, id := range []int{2, 3} {
		nodes[id].cmd.Process.Kill()
		nodes[id].status()
		if err := os.RemoveAll(filepath.Join(dir, fmt.Sprintf("node%d", id))); err != nil {
			t.Fatal(err)
		}
	}
	call(t, "backup", "rescue.backup", "--node", "1").expectErr(t, 0, "rescue.backup", "from node 1", "export")
	call(t, "backup", "rescue.backup").expectRefused(t, exitUsage, "exists", "--force")
	call(t, "backup", "other.backup", "--node", "7").expectRefused(t, exitUsage, "there is no node 7")
	call(t, "backup", "other.backup", "--node", "2").expectRefused(t, exitNobody, "no node answers")
	call(t, "restore", "rescue.backup", "--id", "1").expectRefused(t, exitUsage, "runs", "stop all nodes")
	nodes[1].interrupt(t)
	call(t, "restore", "none.backup", "--id", "1").expectRefused(t, exitUsage, "no such file")
	call(t, "restore", "imgcluster.yaml", "--id", "1").expectRefused(t, exitUsage, "not a backup")
	e := call(t, "restore", "rescue.backup", "--id", "1", "--lost", "lost.txt")
	e.expectOut(t, 0, "made without a majority", "8 images", "imgcluster server --id 1")
	lost := string(read(t, "lost.txt"))
	serve(1)
	ready("1     up")
	serve(2)
	serve(3)
	ready("3     up")
	for _, name := range names {
		missing := strings.Contains(lost, "alice/"+name+"\t")
		if e := call(t, "get", "alice/"+name, "-o", name, "--force"); (e.status == 0) == missing {
			t.Errorf("%s, lost %t: %v", name, missing, e)
		}
	}
	call(t, "put", "--user", "alice", "--name", "after.png", photos(t)[0]).expectErr(t, 0)
}

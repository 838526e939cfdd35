package modes

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imgcluster/cluster/wire"
	"imgcluster/config"
	"imgcluster/modes/report"
	"imgcluster/modes/runlog"
	"imgcluster/modes/term"
)

// TestCluster uses one cluster as its users do, from its start to its end.
func TestCluster(t *testing.T) {
	l := up(t, "timeouts: {sweep: 1s}")
	t.Chdir(l.dir)
	for _, step := range []struct {
		name string
		run  func(*testing.T, *upCluster)
	}{
		{"status", testStatus},
		{"images", testImages},
		{"completion", testCompletion},
		{"users and access keys", testAccounts},
		{"verify", testVerify},
		{"refusals", testRefusals},
		{"second up", testSecondUp},
		{"stress", testStress},
		{"stress of files", testStressFiles},
		{"stress asks", testStressAsks},
		{"preflight", testDryRun},
		{"shapes of load", testShapes},
		{"resume", testResume},
		{"resume with the rest", testResumeRest},
		{"clean", testClean},
		{"stress is interrupted", testStressInterrupted},
		{"read back", testReadBack},
		{"a node dies", testNodeDies},
		{"no quorum", testNoQuorum},
	} {
		if !t.Run(step.name, func(t *testing.T) { l.t = t; step.run(t, l) }) {
			t.Fatal("the next steps need this one")
		}
	}
}

// TestUpStops ends a cluster with Ctrl-C and starts it again on the same data.
func TestUpStops(t *testing.T) {
	t.Parallel()
	l := up(t)
	photo := photos(t)[0]
	if e := finish(t, program(t, l.dir, "put", "--user", "alice", photo)); e.status != 0 {
		t.Fatal(e)
	}
	if status := l.interrupt(t); status != 0 {
		t.Errorf("exit status %d: %s", status, &l.err)
	}
	for id, pid := range l.pids {
		if !processEnded(pid) {
			t.Errorf("node %d still runs", id)
		}
	}
	again := start(t, program(t, l.dir, "up"))
	again.awaitText(t, &again.out, `Stop +Ctrl-C`)
	e := finish(t, program(t, l.dir, "get", "alice/"+filepath.Base(photo), "-o", "-"))
	if e.out != string(read(t, photo)) {
		t.Errorf("other bytes after a restart: status %d, %s", e.status, e.err)
	}
	if status := again.interrupt(t); status != 0 {
		t.Errorf("exit status %d: %s", status, &again.err)
	}
}

func testStatus(t *testing.T, l *upCluster) {
	text := l.awaitLeaders("--json")
	expectFields(t, text, "name", "ready", "replicas", "images", "bytes", "under_replicated",
		"shards.0.id", "shards.0.leader", "shards.0.term")
	for _, f := range []string{
		"id", "api", "state", "leader_of", "owned_images", "owned_bytes", "stored_images", "stored_bytes",
		"rss_bytes", "disk_free_bytes", "staging_bytes",
	} {
		expectFields(t, text, "nodes.0."+f, "nodes.2."+f)
	}
	s := decode[wire.ClusterStatus](t, text)
	if !s.Ready || s.Replicas != 2 || len(s.Nodes) != 3 || len(s.Shards) != 13 {
		t.Errorf("status %+v", s)
	}
}

func testImages(t *testing.T, l *upCluster) {
	files := photos(t)
	out := l.expectExit(0, append([]string{"put", "--json", "--user", "alice"}, files...)...)
	receipts := strings.Split(strings.TrimSpace(out), "\n")
	if len(receipts) != len(files) {
		t.Fatalf("%d files, receipts %s", len(files), out)
	}
	for _, r := range receipts {
		expectFields(t, r,
			"user", "name", "version", "bytes", "sha256", "owner", "replicas.1", "shard", "committed")
	}
	stdin := program(t, l.dir, "put", "--user", "alice", "--name", "gate/now.jpg", "-")
	stdin.Stdin = bytes.NewReader(read(t, files[0]))
	if e := finish(t, stdin); e.status != 0 || !strings.HasPrefix(e.out, "alice/gate/now.jpg ") {
		t.Error(e)
	}
	listed := strings.Split(strings.TrimSpace(l.expectExit(0, "ls", "alice", "--json")), "\n")
	if len(listed) != len(files)+1 {
		t.Errorf("the list is %q", listed)
	}
	for _, info := range listed {
		expectFields(t, info, "name", "bytes", "version", "owner", "replicas.1", "created")
	}
	folder := l.expectExit(0, "ls", "alice/gate/")
	if strings.Count(folder, "\n") != 1 || !strings.HasSuffix(folder, "gate/now.jpg\n") {
		t.Errorf("the list of a folder is %q", folder)
	}
	for _, f := range files {
		name := "alice/" + filepath.Base(f)
		info := decode[wire.Info](t, l.expectExit(0, "stat", name, "--json"))
		if info.Bytes != int64(len(read(t, f))) || len(info.Replicas) != 2 {
			t.Errorf("%s: %+v", name, info)
		}
		testGet(t, l, name, read(t, f))
	}
	l.expectExit(0, "rm", "alice/gate/now.jpg")
	l.expectExit(1, "stat", "alice/gate/now.jpg")
	if e := l.run("ls", "nobody"); e.status != 0 || e.out != "" {
		t.Error(e)
	}
}

// testGet reads an image back in every way.
func testGet(t *testing.T, l *upCluster, name string, want []byte) {
	base := filepath.Base(name)
	expectFields(t, l.expectExit(0, "get", name, "--json"),
		"file", "user", "name", "bytes", "sha256", "owner", "node")
	if !bytes.Equal(read(t, filepath.Join(l.dir, base)), want) {
		t.Errorf("%s came back with other bytes", name)
	}
	if got := l.expectExit(0, "get", name, "-o", "-"); got != string(want) {
		t.Errorf("%s came to standard output with other bytes", name)
	}
	l.run("get", name).expectErr(t, exitUsage, "hint: name another with -o, or add --force")
	l.expectExit(0, "get", name, "--force")
	folder := t.TempDir()
	l.expectExit(0, "get", name, "-o", folder)
	if !bytes.Equal(read(t, filepath.Join(folder, base)), want) {
		t.Errorf("%s came to a folder with other bytes", name)
	}
	l.expectExit(0, "get", name, "-o", base+".enc", "--encrypted")
	stored := read(t, filepath.Join(l.dir, base+".enc"))
	if len(stored) <= len(want) || bytes.Contains(stored, want[len(want)/2:len(want)/2+32]) {
		t.Errorf("the ciphertext of %s has %d bytes", name, len(stored))
	}
}

// testRefusals are mistakes that only a cluster can find.
func testRefusals(t *testing.T, l *upCluster) {
	photo := photos(t)[0]
	for _, test := range []struct {
		args   string
		status int
		said   string
	}{
		{"get alice/none", 1, "hint: see what is there with: imgcluster ls alice"},
		{"stat alice/none", 1, "user alice has no image none"},
		{"rm alice/none", 1, "user alice has no image none"},
		{"rm alice/none alice/none2", 1, "2 of 2 images were not deleted"},
		{"put --user alice --no-replace " + photo, 1, "hint: leave out --no-replace"},
		{"stress --profile extreme", 2, "hint: add --yes"},
	} {
		e := l.run(strings.Fields(test.args)...)
		e.expectErr(t, test.status, test.said)
		if e.out != "" {
			t.Errorf("%s prints %q", test.args, e.out)
		}
	}
	if _, err := os.Stat(filepath.Join(l.dir, "log.jsonl")); err == nil {
		t.Error("a run that was refused left its log")
	}
}

// testSecondUp starts another cluster on the ports, then on the data, of the first one.
func testSecondUp(t *testing.T, l *upCluster) {
	l.run("up").expectRefused(t, exitUsage, "which another process has")
	ports, err := config.FreePorts(6)
	if err != nil {
		t.Fatal(err)
	}
	nodes := fmt.Sprintf("cluster.nodes=1=127.0.0.1:%d:%d,2=127.0.0.1:%d:%d,3=127.0.0.1:%d:%d",
		ports[0], ports[1], ports[2], ports[3], ports[4], ports[5])
	e := l.run("up", "--set", nodes)
	e.expectRefused(t, exitUsage, "is in use by process")
	if strings.Count(e.err, "is in use by process") != 1 || strings.Count(e.err, "hint:") != 1 {
		t.Errorf("want one reason and one hint of %v", e)
	}
	if s := decode[wire.ClusterStatus](t, l.awaitLeaders("--json")); !s.Ready {
		t.Errorf("the first cluster after that: %+v", s)
	}
}

// runFields are the fields of the log's records, by type.
var runFields = map[string][]string{
	"run": {
		"schema", "started", "profile", "nodes.2", "count", "concurrency", "delivery", "replicas", "seed",
		"version", "machines.client.cpus", "machines.client.memory_bytes", "machines.nodes.2.id",
		"machines.nodes.2.host", "machines.nodes.2.version",
	},
	"upload": {
		"seq", "name", "class", "bytes", "start_s", "latency_s", "ok", "owner", "replicas.1", "attempts",
		"sent_bytes", "first_choice",
	},
	"node":   {"t_s", "id", "up", "rss_bytes", "disk_free_bytes", "cpu_s", "net_rx_bytes", "net_tx_bytes"},
	"client": {"t_s", "rss_bytes", "cpu_s"},
	"end":    {"elapsed_s"},
}

// reportFields are the fields of report --json.
var reportFields = []string{
	"attempted", "succeeded", "failed", "success_rate", "elapsed_s", "throughput_per_s",
	"throughput_bytes_per_s", "sent_bytes",
	"latency_s.mean", "latency_s.p50", "latency_s.p95", "latency_s.p99", "latency_s.max",
	"nodes.2.id", "nodes.0.uploads", "nodes.0.bytes", "nodes.0.share_percent", "nodes.0.bytes_share_percent",
	"balance.expected_percent", "balance.stddev_percent", "balance.bytes_stddev_percent", "balance.grade",
	"balance.chi_square_p", "classes.0", "verdict.passed", "verdict.checks.0.name", "verdict.checks.0.status",
	"verdict.checks.6.evidence",
}

// checks are the checks of the report in their order.
var checks = []string{
	"production_scale_files",
	"sustained_load",
	"balance",
	"memory_stable",
	"network",
	"hash_quality",
	"fault_tolerance",
}

func testStress(t *testing.T, l *upCluster) {
	e := l.run(append(small, "stress", "--json", "--count", "40", "--concurrency", "4")...)
	r := expectRun(t, e, 40)
	var names []string
	for _, c := range r.Verdict.Checks {
		names = append(names, c.Name)
	}
	if !slices.Equal(names, checks) {
		t.Errorf("checks %q", names)
	}
	path := filepath.Join(l.dir, "log.jsonl")
	log := logLines(t, path)
	for typ, want := range runFields {
		if len(log[typ]) == 0 {
			t.Errorf("no record of type %s", typ)
		}
		for _, line := range log[typ] {
			expectFields(t, line, want...)
		}
	}
	count := func(typ string) int { return len(log[typ]) }
	if count("run") != 1 || count("end") != 1 || count("upload") != 40 || count("node") < 6 {
		t.Errorf("%d run, %d end, %d upload and %d node records",
			count("run"), count("end"), count("upload"), count("node"))
	}
	again, err := reportLine([]byte(l.expectExit(e.status, "report", "log.jsonl", "--json")))
	if err != nil || string(again) != lastLine(e.out)+"\n" {
		t.Errorf("report and stress print different reports: %v", err)
	}
	if streamed := strings.TrimSuffix(e.out, string(again)); streamed != string(read(t, path)) {
		t.Errorf("other records were streamed than are in the log: %s", streamed)
	}
	text := l.expectExit(e.status, "report", "log.jsonl")
	if !strings.Contains(text, "Success 40 of 40 (100.00 %)") || strings.Contains(text, "\x1b") {
		t.Error(text)
	}
	stdin := program(t, l.dir, "report", "-", "--json")
	stdin.Stdin = bytes.NewReader(read(t, path))
	if piped, err := reportLine([]byte(finish(t, stdin).out)); err != nil || !bytes.Equal(piped, again) {
		t.Errorf("from a pipe: %v, %s", err, piped)
	}
	if n := strings.Count(l.expectExit(0, "ls", stressUser, "--json"), "\n"); n != 40 {
		t.Errorf("%d images are listed", n)
	}
}

// expectRun checks that a run has made these uploads, all with success, and that its exit status is that
// of its report. The verdict may be a failure, since a busy machine may be slow.
func expectRun(t *testing.T, e ended, uploads int) report.Report {
	t.Helper()
	line := lastLine(e.out)
	expectFields(t, line, append(reportFields, "type")...)
	r := decode[report.Report](t, line)
	status := exitVerdict
	if r.Verdict.Passed {
		status = exitDone
	}
	if r.Succeeded != uploads || r.Attempted != uploads || e.status != status {
		t.Fatal(e)
	}
	return r
}

// lastLine returns the report of a run with --json, which follows the records of the log.
func lastLine(out string) string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return lines[len(lines)-1]
}

func testStressFiles(t *testing.T, l *upCluster) {
	dir := filepath.Dir(photos(t)[0])
	e := l.run("stress", "--json", "--quiet", "--images", dir, "--count", "12", "--user", "files",
		"--delivery", "relay", "--log", "files.jsonl")
	expectRun(t, e, 12)
	if e.err != "" {
		t.Errorf("--quiet says %q", e.err)
	}
	run := logLines(t, filepath.Join(l.dir, "files.jsonl"))["run"][0]
	if r := decode[runlog.Run](t, run); r.Delivery != "relay" || r.Images != dir || r.Count != 12 {
		t.Error(run)
	}
	name := filepath.Base(photos(t)[0])
	for _, image := range []string{"files/" + name, "files/2/" + name} {
		if got := l.expectExit(0, "get", image, "-o", "-"); got != string(read(t, photos(t)[0])) {
			t.Errorf("%s came back with other bytes", image)
		}
	}
}

// testStressAsks answers no to an extreme run, and watches the progress of other runs, on a terminal.
func testStressAsks(t *testing.T, l *upCluster) {
	before := read(t, filepath.Join(l.dir, "log.jsonl"))
	user, tty := terminal(t)
	cmd := program(t, l.dir, "stress", "--profile", "extreme", "--force") // there may be little disk here
	cmd.Stdin = tty
	r := start(t, cmd)
	r.awaitText(t, &r.err, `1500 images, 19.8 GB(?s:.*)Start\? \[y/N\] $`)
	fmt.Fprintln(user, "n")
	if status := r.status(); status != 1 || !strings.Contains(r.err.String(), "not started") {
		t.Errorf("status %d: %s", status, &r.err)
	}
	if !bytes.Equal(read(t, filepath.Join(l.dir, "log.jsonl")), before) {
		t.Error("the log of the last run is lost")
	}
	out := outputOf(user)
	runOn := func(kind string) {
		cmd := program(t, l.dir, append(small, "stress", "--count", "4", "--log", "tty.jsonl")...)
		cmd.Stderr = tty
		cmd.Env = append(os.Environ(), "TERM="+kind)
		if err := cmd.Run(); err != nil && cmd.ProcessState.ExitCode() != exitVerdict {
			t.Fatal(err)
		}
	}
	runOn("xterm")
	done := regexp.MustCompile(`4 of 4 uploads, .* 0 failed\r\n`)
	eventually(t, "a screen, and the last state after it", func() bool {
		screen, after, left := strings.Cut(out.String(), term.LeaveScreen)
		return left && strings.Contains(screen, term.EnterScreen) && done.MatchString(after)
	})
	seen := len(out.String())
	runOn("dumb")
	eventually(t, "lines of progress", func() bool { return done.MatchString(out.String()[seen:]) })
	if text := out.String()[seen:]; strings.Contains(text, "\x1b") {
		t.Errorf("a dumb terminal gets %q", text)
	}
}

// testStressInterrupted drains a run with Ctrl-C: the log is complete up to then, and there is a report.
// The exit status is not that of the verdict, although a check fails too, since the user knows that the
// run is incomplete.
func testStressInterrupted(t *testing.T, l *upCluster) {
	args := append(small, "stress", "--json", "--count", "100000", "--user", "cut", "--log", "cut.jsonl",
		"--max-p99", "1ms")
	r := start(t, program(t, l.dir, args...))
	r.awaitText(t, &r.out, `"type":"upload"`)
	status := r.interrupt(t)
	report := decode[report.Report](t, lastLine(r.out.String()))
	if report.Succeeded < 1 || report.Failed != 0 {
		t.Fatalf("%d succeeded, %d failed: %s", report.Succeeded, report.Failed, &r.err)
	}
	verdict := report.Verdict
	incomplete := strings.HasSuffix(verdict.Incomplete, " of 100000 planned uploads")
	failed := strings.Contains(verdict.Text, "SYSTEM FAILED")
	if status != exitFailed || verdict.Passed || !incomplete || !failed {
		t.Errorf("exit status %d: %+v, %s", status, verdict, &r.err)
	}
	l.expectExit(exitVerdict, "report", "cut.jsonl")
	log := logLines(t, filepath.Join(l.dir, "cut.jsonl"))
	if len(log["end"]) != 1 || len(log["upload"]) != report.Attempted {
		t.Errorf("%d end records, %d uploads of %d", len(log["end"]), len(log["upload"]), report.Attempted)
	}
	if stored := strings.Count(l.expectExit(0, "ls", "cut", "--json"), "\n"); stored != report.Succeeded {
		t.Errorf("%d images are stored, %d uploads were acknowledged", stored, report.Succeeded)
	}
}

func (l *upCluster) kill(id int) {
	l.t.Helper()
	if err := unix.Kill(l.pids[id], unix.SIGKILL); err != nil {
		l.t.Fatal(err)
	}
}

// awaitLeaders returns what status prints once every shard has a leader: some move after the start.
func (l *upCluster) awaitLeaders(args ...string) (out string) {
	l.t.Helper()
	eventually(l.t, "every shard has a leader", func() bool {
		e := l.run(append([]string{"status"}, args...)...)
		out = e.out
		return e.status == 0
	})
	return out
}

// awaitState waits until the cluster has this state for a node.
func (l *upCluster) awaitState(id int, want wire.NodeState) {
	l.t.Helper()
	eventually(l.t, fmt.Sprintf("node %d is %s", id, want), func() bool {
		e := l.run("status", "--json") // status 3 until the elections are over
		s := decode[wire.ClusterStatus](l.t, e.out)
		return e.status == 0 && s.Nodes[id-1].State == want && s.Nodes[id-1].Ready == (want == wire.NodeUp)
	})
}

// testVerify damages a copy and removes another: verify lists them, and replaces them when told to.
func testVerify(t *testing.T, l *upCluster) {
	l.expectExit(0, "put", "--user", "vera", photos(t)[0], photos(t)[1])
	out := l.expectExit(0, "verify", "--sample", "1")
	if n := strings.Count(out, ": all good\n"); n != 3 {
		t.Fatalf("verify of three nodes: %s", out)
	}
	files, err := filepath.Glob(filepath.Join(l.dir, "imgcluster-data", "node2", "images", "??", "*.img"))
	if err != nil || len(files) < 2 {
		t.Fatalf("files %v of node 2, %v", files, err)
	}
	if err := os.Truncate(files[0], 1000); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(files[1]); err != nil {
		t.Fatal(err)
	}
	e := l.run("verify", "--node", "2")
	e.expectOut(t, exitFailed, ": 2 bad\n")
	e.expectErr(t, exitFailed, "hint: replace them with: imgcluster verify --repair")
	if strings.Count(e.out, "\nnode 2  ") != 2 {
		t.Errorf("want three lines of %v", e)
	}
	repair := strings.TrimSpace(l.expectExit(0, "verify", "--json", "--repair", "--node", "2"))
	end := decode[wire.VerifyLine](t, lastLine(repair))
	if strings.Count(repair, "\n") != 2 || end.Type != wire.VerifyEnd || end.Bad != 2 || end.Repaired != 2 {
		t.Errorf("repair: %s", repair)
	}
	l.expectExit(0, "verify")
	for _, args := range [][]string{{"--sample", "0"}, {"--sample", "half"}, {"--node", "9"}} {
		l.run(append([]string{"verify"}, args...)...).expectErr(t, exitUsage, "hint: ")
	}
}

// testNodeDies kills a node, stores an image without it, and restarts it with the command that up prints.
func testNodeDies(t *testing.T, l *upCluster) {
	l.kill(2)
	const died = `imgcluster: node 2: .*killed\nhint: start it again with: imgcluster (.*)\n`
	command := l.awaitText(t, &l.err, died)[1]
	l.awaitState(2, wire.NodeDown)
	photo := photos(t)[1]
	l.expectExit(0, "put", "--user", "bob", photo)
	back := start(t, program(t, l.dir, strings.Fields(command)...))
	l.awaitState(2, wire.NodeUp)
	e := l.run("stress", "--chaos", "--log", "none.jsonl")
	e.expectRefused(t, exitUsage, "up does not run all nodes: it has nodes 1 3\n")
	if got := l.expectExit(0, "get", "bob/"+filepath.Base(photo), "-o", "-"); got != string(read(t, photo)) {
		t.Error("other bytes after a restart")
	}
	if status := back.interrupt(t); status != 0 {
		t.Errorf("exit status %d: %s", status, &back.err)
	}
}

// testNoQuorum has one of three nodes left, then none.
func testNoQuorum(t *testing.T, l *upCluster) {
	l.kill(3)
	l.awaitText(t, &l.err, `node 3: .*killed`)
	eventually(t, "there is no quorum", func() bool { return l.run("status").status == exitNobody })
	e := l.run("stress", "--count", "1")
	if e.status != exitNobody || e.out != "" || !strings.Contains(e.err, "imgcluster server --id") {
		t.Error(e)
	}
	l.kill(1)
	if status := l.status(); status != 1 || !strings.Contains(l.err.String(), "all nodes have ended") {
		t.Errorf("up ends with status %d: %s", status, &l.err)
	}
	l.run("ls").expectErr(t, exitNobody, "hint: start them with: imgcluster up")
}

// TestDemoInterrupted stops a demo during its run: it leaves nothing behind.
func TestDemoInterrupted(t *testing.T) {
	t.Parallel()
	testDemoInterrupted(t, `ready after`, "demo")
}

func testDemoInterrupted(t *testing.T, when string, args ...string) {
	temp := t.TempDir()
	cmd := program(t, t.TempDir(), args...)
	cmd.Env = append(os.Environ(), "TMPDIR="+temp)
	r := start(t, cmd)
	dir := r.awaitText(t, &r.err, `starting 3 nodes in (\S+)`)[1]
	if filepath.Dir(dir) != temp {
		t.Errorf("the demo runs in %s", dir)
	}
	r.awaitText(t, &r.err, when)
	if status := r.interrupt(t); status == 0 {
		t.Errorf("exit status 0: %s", &r.err)
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if said := r.out.String() + r.err.String(); strings.Contains(said, "--resume") {
		t.Errorf("a demo cannot be resumed: %s", said)
	}
	progress, _, _ := strings.Cut(r.err.String(), "imgcluster: ")
	if !strings.HasSuffix(strings.TrimSpace(progress), "everything deleted") {
		t.Errorf("%s", &r.err)
	}
}

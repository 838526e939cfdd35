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

	"imgcluster/cluster/wire"
	"imgcluster/config"
	"imgcluster/modes/report"
	"imgcluster/modes/runlog"
	"imgcluster/modes/term"
)

// TestCluster goes through the life of one cluster as its user does.
func TestCluster(t *testing.T) {
	l := up(t, "timeouts: {sweep: 1s}")
	t.Chdir(l.dir)
	for _, step := range []struct {
		name string
		run  func(*testing.T, *upCluster)
	}{
		{"status", testStatus},
		{"images", testImages},
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
	if e := finish(t, program(t, l.dir, "get", "alice/"+filepath.Base(photo), "-o", "-")); e.out != string(read(t, photo)) {
		t.Errorf("other bytes after a restart: status %d, %s", e.status, e.err)
	}
	if status := again.interrupt(t); status != 0 {
		t.Errorf("exit status %d: %s", status, &again.err)
	}
}

func testStatus(t *testing.T, l *upCluster) {
	text := l.awaitLeaders("--json")
	expectFields(t, text, "name", "ready", "replicas", "images", "bytes", "under_replicated", "shards.0.id", "shards.0.leader", "shards.0.term")
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
		expectFields(t, r, "user", "name", "version", "bytes", "sha256", "owner", "replicas.1", "shard", "committed")
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
	if out := l.expectExit(0, "ls", "alice/gate/"); strings.Count(out, "\n") != 1 || !strings.HasSuffix(out, "gate/now.jpg\n") {
		t.Errorf("the list of a folder is %q", out)
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
	expectFields(t, l.expectExit(0, "get", name, "--json"), "file", "user", "name", "bytes", "sha256", "owner", "node")
	if !bytes.Equal(read(t, filepath.Join(l.dir, base)), want) {
		t.Errorf("%s came back with other bytes", name)
	}
	if got := l.expectExit(0, "get", name, "-o", "-"); got != string(want) {
		t.Errorf("%s came to standard output with other bytes", name)
	}
	if e := l.run("get", name); e.status != 2 || !strings.Contains(e.err, "hint: name another with -o, or add --force") {
		t.Error(e)
	}
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
		if e.status != test.status || !strings.Contains(e.err, test.said) || e.out != "" {
			t.Errorf("want status %d and %q of %v", test.status, test.said, e)
		}
	}
	if _, err := os.Stat(filepath.Join(l.dir, "log.jsonl")); err == nil {
		t.Error("a run that was refused left its log")
	}
}

// testSecondUp starts another cluster on the ports, then on the data, of the first.
func testSecondUp(t *testing.T, l *upCluster) {
	if e := l.run("up"); e.status != 2 || !strings.Contains(e.err, "which another process has") || e.out != "" {
		t.Error(e)
	}
	ports, err := config.FreePorts(6)
	if err != nil {
		t.Fatal(err)
	}
	nodes := fmt.Sprintf("cluster.nodes=1=127.0.0.1:%d:%d,2=127.0.0.1:%d:%d,3=127.0.0.1:%d:%d", ports[0], ports[1], ports[2], ports[3], ports[4], ports[5])
	e := l.run("up", "--set", nodes)
	if e.status != 2 || e.out != "" || strings.Count(e.err, "is in use by process") != 1 || strings.Count(e.err, "hint:") != 1 {
		t.Error(e)
	}
	if s := decode[wire.ClusterStatus](t, l.awaitLeaders("--json")); !s.Ready {
		t.Errorf("the first cluster after that: %+v", s)
	}
}

// runFields are those of the log's records, by type.
var runFields = map[string][]string{
	"run": {
		"schema", "started", "profile", "nodes.2", "count", "concurrency", "delivery", "replicas", "seed", "version", "machines.client.cpus",
		"machines.client.memory_bytes", "machines.nodes.2.id", "machines.nodes.2.host", "machines.nodes.2.version",
	},
	"upload": {"seq", "name", "class", "bytes", "start_s", "latency_s", "ok", "owner", "replicas.1", "attempts", "sent_bytes", "first_choice"},
	"node":   {"t_s", "id", "up", "rss_bytes", "disk_free_bytes", "cpu_s", "net_rx_bytes", "net_tx_bytes"},
	"client": {"t_s", "rss_bytes", "cpu_s"},
	"end":    {"elapsed_s"},
}

// reportFields are those of report --json.
var reportFields = []string{
	"attempted", "succeeded", "failed", "success_rate", "elapsed_s", "throughput_per_s", "throughput_bytes_per_s",
	"sent_bytes", "latency_s.mean", "latency_s.p50", "latency_s.p95", "latency_s.p99", "latency_s.max", "nodes.2.id", "nodes.0.uploads",
	"nodes.0.bytes", "nodes.0.share_percent", "nodes.0.bytes_share_percent", "balance.expected_percent", "balance.stddev_percent",
	"balance.bytes_stddev_percent", "balance.grade", "balance.chi_square_p", "classes.0", "verdict.passed", "verdict.checks.0.name",
	"verdict.checks.0.status", "verdict.checks.6.evidence",
}

// checks are the report's, in their order.
const checks = "production_scale_files sustained_load balance memory_stable network hash_quality fault_tolerance"

func testStress(t *testing.T, l *upCluster) {
	e := l.run("stress", "--json", "--count", "40", "--min-pixels", "100", "--max-pixels", "300", "--concurrency", "4")
	r := expectRun(t, e, 40)
	var names []string
	for _, c := range r.Verdict.Checks {
		names = append(names, c.Name)
	}
	if strings.Join(names, " ") != checks {
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
	if len(log["run"]) != 1 || len(log["end"]) != 1 || len(log["upload"]) != 40 || len(log["node"]) < 6 {
		t.Errorf("%d run, %d end, %d upload and %d node records", len(log["run"]), len(log["end"]), len(log["upload"]), len(log["node"]))
	}
	again, err := reportLine([]byte(l.expectExit(e.status, "report", "log.jsonl", "--json")))
	if err != nil || string(again) != lastLine(e.out)+"\n" {
		t.Errorf("report says other things than stress: %v", err)
	}
	if streamed := strings.TrimSuffix(e.out, string(again)); streamed != string(read(t, path)) {
		t.Errorf("other records were streamed than are in the log: %s", streamed)
	}
	if text := l.expectExit(e.status, "report", "log.jsonl"); !strings.Contains(text, "Success 40 of 40 (100.00 %)") || strings.Contains(text, "\x1b") {
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

// expectRun holds a run's report to its exit status; that a busy machine is slow is no failure here.
func expectRun(t *testing.T, e ended, uploads int) report.Report {
	t.Helper()
	line := lastLine(e.out)
	expectFields(t, line, append(reportFields, "type")...)
	r := decode[report.Report](t, line)
	if r.Succeeded != uploads || r.Attempted != uploads || r.Verdict.Passed != (e.status == 0) || e.status != 0 && e.status != exitVerdict {
		t.Fatal(e)
	}
	return r
}

// lastLine is the report of a run with --json; before it are the records of the log.
func lastLine(out string) string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return lines[len(lines)-1]
}

func testStressFiles(t *testing.T, l *upCluster) {
	dir := filepath.Dir(photos(t)[0])
	e := l.run("stress", "--json", "--quiet", "--images", dir, "--count", "12", "--user", "files", "--delivery", "relay", "--log", "files.jsonl")
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

// testStressAsks answers no to an extreme run, and looks at progress, on a terminal.
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
	cmd = program(t, l.dir, "stress", "--count", "4", "--min-pixels", "100", "--max-pixels", "200", "--log", "tty.jsonl")
	cmd.Stderr, cmd.Env = tty, append(os.Environ(), "TERM=xterm")
	out := seen(user)
	if err := cmd.Run(); err != nil && cmd.ProcessState.ExitCode() != exitVerdict {
		t.Fatal(err)
	}
	eventually(t, "a screen, and the last line of progress after it", func() bool {
		_, after, left := strings.Cut(out.String(), term.LeaveScreen)
		return left && strings.Contains(out.String(), term.EnterScreen) && regexp.MustCompile(`4 of 4 uploads, .* 0 failed\r\n`).MatchString(after)
	})
	cmd = program(t, l.dir, "stress", "--count", "4", "--min-pixels", "100", "--max-pixels", "200", "--log", "tty.jsonl")
	cmd.Stderr, cmd.Env = tty, append(os.Environ(), "TERM=dumb")
	before = []byte(out.String())
	if err := cmd.Run(); err != nil && cmd.ProcessState.ExitCode() != exitVerdict {
		t.Fatal(err)
	}
	eventually(t, "lines of progress", func() bool {
		return regexp.MustCompile(`\n4 of 4 uploads, .* 0 failed\r\n`).MatchString(out.String()[len(before):])
	})
	if text := out.String()[len(before):]; strings.Contains(text, "\x1b") {
		t.Errorf("a dumb terminal gets %q", text)
	}
}

// terminal returns the two ends of a pseudo terminal.
func terminal(t *testing.T) (user, program *os.File) {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no pseudo terminals here: %v", err)
	}
	t.Cleanup(func() { user.Close() })
	if err := unix.IoctlSetPointerInt(int(user.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(user.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	return user, program
}

// testStressInterrupted drains a run with Ctrl-C: the log is whole and the report is made. Whoever
// stopped it knows that it is incomplete: the exit status is not that of the verdict, here of a check
// that fails too.
func testStressInterrupted(t *testing.T, l *upCluster) {
	r := start(t, program(t, l.dir, "stress", "--json", "--count", "100000", "--min-pixels", "100", "--max-pixels", "200", "--user", "cut", "--log", "cut.jsonl", "--max-p99", "1ms"))
	r.awaitText(t, &r.out, `"type":"upload"`)
	status := r.interrupt(t)
	report := decode[report.Report](t, lastLine(r.out.String()))
	if report.Succeeded < 1 || report.Failed != 0 {
		t.Fatalf("%d succeeded, %d failed: %s", report.Succeeded, report.Failed, &r.err)
	}
	if status != exitFailed || report.Verdict.Passed || !strings.HasSuffix(report.Verdict.Incomplete, " of 100000 planned uploads") || !strings.Contains(report.Verdict.Text, "SYSTEM FAILED") {
		t.Errorf("exit status %d: %+v, %s", status, report.Verdict, &r.err)
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

// awaitLeaders is what status says once every shard has a leader: some move after the start.
func (l *upCluster) awaitLeaders(args ...string) (out string) {
	l.t.Helper()
	eventually(l.t, "every shard has a leader", func() bool {
		e := l.run(append([]string{"status"}, args...)...)
		out = e.out
		return e.status == 0
	})
	return out
}

// awaitState waits for what the cluster says of a node.
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
	if e.status != 1 || strings.Count(e.out, "\nnode 2  ") != 2 || !strings.Contains(e.out, ": 2 bad\n") || !strings.Contains(e.err, "hint: replace them with: imgcluster verify --repair") {
		t.Error(e)
	}
	lines := strings.Split(strings.TrimSpace(l.expectExit(0, "verify", "--json", "--repair", "--node", "2")), "\n")
	if end := decode[wire.VerifyLine](t, lines[len(lines)-1]); len(lines) != 3 || end.Type != wire.VerifyEnd || end.Bad != 2 || end.Repaired != 2 {
		t.Errorf("repair: %v", lines)
	}
	l.expectExit(0, "verify")
	for _, args := range [][]string{{"--sample", "0"}, {"--sample", "half"}, {"--node", "9"}} {
		if e := l.run(append([]string{"verify"}, args...)...); e.status != exitUsage || !strings.Contains(e.err, "hint: ") {
			t.Error(e)
		}
	}
}

// testNodeDies kills a node, goes on without it, and restarts it with the words that up prints.
func testNodeDies(t *testing.T, l *upCluster) {
	l.kill(2)
	hint := l.awaitText(t, &l.err, `imgcluster: node 2: .*killed\nhint: start it again with: imgcluster (.*)\n`)[1]
	l.awaitState(2, wire.NodeDown)
	photo := photos(t)[1]
	l.expectExit(0, "put", "--user", "bob", photo)
	back := start(t, program(t, l.dir, strings.Fields(hint)...))
	l.awaitState(2, wire.NodeUp)
	if e := l.run("stress", "--chaos", "--log", "none.jsonl"); e.status != exitUsage || !strings.Contains(e.err, "up does not run all nodes: it has nodes 1 3\nhint: ") || e.out != "" {
		t.Error(e)
	}
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
	eventually(t, "status says that there is no quorum", func() bool { return l.run("status").status == exitNobody })
	e := l.run("stress", "--count", "1")
	if e.status != exitNobody || e.out != "" || !strings.Contains(e.err, "imgcluster server --id") {
		t.Error(e)
	}
	l.kill(1)
	if status := l.status(); status != 1 || !strings.Contains(l.err.String(), "all nodes have ended") {
		t.Errorf("up ends with status %d: %s", status, &l.err)
	}
	if e := l.run("ls"); e.status != exitNobody || !strings.Contains(e.err, "hint: start them with: imgcluster up") {
		t.Error(e)
	}
}

// TestDemoInterrupted stops a demo in its run: nothing is left of it.
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
	if !strings.HasSuffix(strings.TrimSpace(strings.Split(r.err.String(), "imgcluster: ")[0]), "everything deleted") {
		t.Errorf("%s", &r.err)
	}
}

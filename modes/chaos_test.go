package modes

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"imgcluster/cluster/client"
	"imgcluster/cluster/wire"
	"imgcluster/genimg"
	"imgcluster/modes/report"
	"imgcluster/modes/runlog"
	"imgcluster/modes/stress"
)

// small are options for small images, so that the cluster soon recovers from faults.
var small = []string{"--min-pixels", "100", "--max-pixels", "300"}

// TestDemoChaos loses nodes in a demo, and no image.
func TestDemoChaos(t *testing.T) {
	t.Parallel()
	e := finish(t, program(t, t.TempDir(), append(small, "demo", "--chaos", "--json", "--count", "45")...))
	expectSurvived(t, expectRun(t, e, 45), "3 of 3 faults (1 kill, 1 pause, 1 restart)")
	e.expectErr(t, e.status, "Chaos: ", "45 of 45 images", "everything deleted")
}

func TestDemoChaosInterrupted(t *testing.T) {
	t.Parallel()
	args := append(small, "demo", "--chaos", "--count", "9000", "--faults", "900")
	testDemoInterrupted(t, `fault \d+ of 900`, args...)
}

// expectSurvived checks that all faults of a run were made and survived, and that each of its images was
// uploaded and read back with the same bytes. It does not ask whether the check of the report passes, or
// whether a node was down without a fault: on a busy machine pauses may be long.
func expectSurvived(t *testing.T, r report.Report, faults string) {
	t.Helper()
	evidence := r.Verdict.Checks[len(r.Verdict.Checks)-1].Evidence
	if !strings.Contains(evidence, "survived "+faults) {
		t.Errorf("no %q in %q", faults, evidence)
	}
	back := r.Readback
	if r.Failed > 0 || back == nil || back.Matched != int64(r.Attempted) || back.Images != back.Matched {
		t.Errorf("%d of %d uploads failed, read back: %+v", r.Failed, r.Attempted, back)
	}
}

// TestUpChaos makes chaos runs on the nodes of up. The path of the control socket is longer than sockets
// may have.
func TestUpChaos(t *testing.T) {
	t.Parallel()
	data := strings.Repeat("long", 30)
	l := up(t, "node: {data_dir: '"+data+"/node{id}'}")
	run := func(args ...string) ended {
		return finish(t, program(t, l.dir, slices.Concat([]string{"stress", "--json", "--chaos"}, small, args)...))
	}
	sockets, err := filepath.Glob(filepath.Join(l.dir, data, "up-*.sock"))
	if err != nil || len(sockets) != 1 {
		t.Fatalf("sockets %v, %v", sockets, err)
	}
	if info, err := os.Lstat(sockets[0]); err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("the socket has the mode %v, %v", info.Mode(), err)
	}
	testChaosRun(t, l, run("--count", "60", "--faults", "6", "--seed", "3"))
	testChaosReadBackResumed(t, l)
	testChaosKilled(t, l, run)
	testChaosUpEnds(t, l)
	if _, err := os.Lstat(sockets[0]); err == nil {
		t.Error("the socket is still there")
	}

	// An up that is killed leaves its socket behind.
	again := start(t, program(t, l.dir, "up"))
	again.awaitText(t, &again.out, `Stop +Ctrl-C`)
	again.cmd.Process.Kill()
	again.status()
	eventually(t, "its nodes have ended too", func() bool {
		return finish(t, program(t, l.dir, "status")).status == exitNobody
	})
	if _, err := os.Lstat(sockets[0]); err != nil {
		t.Error(err)
	}
	again = start(t, program(t, l.dir, "up"))
	again.awaitText(t, &again.out, `Stop +Ctrl-C`)
	expectSurvived(t, expectRun(t, run("--count", "9", "--faults", "1"), 9), "1 of 1 fault")
	if status := again.interrupt(t); status != 0 {
		t.Errorf("exit status %d: %s", status, &again.err)
	}
}

// testChaosRun checks the log of a run with six faults, and what up says.
func testChaosRun(t *testing.T, l *upCluster, e ended) {
	expectSurvived(t, expectRun(t, e, 60), "6 of 6 faults (2 kills, 2 pauses, 2 restarts)")
	log := logLines(t, filepath.Join(l.dir, "log.jsonl"))
	r := decode[runlog.Readback](t, log["readback"][0])
	if r.Images != 60 || r.Matched != 60 || r.Bytes < 60*20000 {
		t.Errorf("read back %+v", r)
	}
	if r := decode[runlog.Run](t, log["run"][0]); r.Faults != 6 || r.Seed != 3 {
		t.Errorf("run %+v", r)
	}
	count := map[string]int{}
	faulty := 0
	for _, line := range log["event"] {
		expectFields(t, line, "t_s", "kind")
		ev := decode[runlog.Event](t, line)
		count[ev.Kind]++
		switch ev.Kind {
		case runlog.EventKill, runlog.EventPause, runlog.EventStop:
			if faulty != 0 {
				t.Errorf("node %d fails before node %d has recovered: %s", ev.Node, faulty, log["event"])
			}
			faulty = ev.Node
		case runlog.EventHealed, runlog.EventUnhealed:
			faulty = 0
		}
	}
	for kind, n := range map[string]int{
		runlog.EventKill:    2,
		runlog.EventPause:   2,
		runlog.EventResume:  2,
		runlog.EventStop:    2,
		runlog.EventRestart: 4,
	} {
		if count[kind] != n {
			t.Errorf("%d events %s, want %d: %v", count[kind], kind, n, count)
		}
	}
	said := l.err.String()
	actions := regexp.MustCompile(`stress --chaos: \w+ node \d`).FindAllString(said, -1)
	if len(actions) != 12 || strings.Contains(said, "hint: ") {
		t.Errorf("up says %s", said)
	}
}

// testChaosReadBackResumed truncates the log of a chaos run before its images were read back, which is
// done when it is resumed. Truncated before the recovery from a fault, it cannot be resumed.
func testChaosReadBackResumed(t *testing.T, l *upCluster) {
	path := filepath.Join(l.dir, "log.jsonl")
	made, _, _ := strings.Cut(string(read(t, path)), `{"type":"readback"`)
	healed := strings.LastIndex(made, `"node_healed"`)
	unhealed := made[:strings.LastIndex(made[:healed], "\n")+1]
	for text, want := range map[string]string{
		made:     "no image read back, no end record",
		unhealed: "the recovery from 1 fault, no image read back, no end record",
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		e := finish(t, program(t, l.dir, "report", "log.jsonl", "--json"))
		if r := decode[report.Report](t, e.out); r.Verdict.Incomplete != want {
			t.Errorf("%+v, want %q", r.Verdict, want)
		}
		e = finish(t, program(t, l.dir, append([]string{"stress", "--resume", "log.jsonl", "--json"}, small...)...))
		if text == unhealed {
			e.expectErr(t, exitUsage, "cannot be resumed before all of them were made")
			continue
		}
		r := expectRun(t, e, 60)
		expectSurvived(t, r, "6 of 6 faults")
		if r.Verdict.Incomplete != "" {
			t.Errorf("%+v", r.Verdict)
		}
	}
}

// testChaosKilled kills a stress while a node is paused: up continues the node. A second stress is
// refused until then.
func testChaosKilled(t *testing.T, l *upCluster, run func(...string) ended) {
	r := startChaos(t, l)
	e := run("--count", "3", "--log", "other.jsonl")
	e.expectErr(t, exitUsage, "another stress --chaos is running")
	r.cmd.Process.Kill()
	r.status()
	eventually(t, "the paused node continues", func() bool {
		e := finish(t, program(t, l.dir, "status", "--json"))
		if e.status != 0 {
			return false
		}
		s := decode[wire.ClusterStatus](t, e.out)
		up := 0
		for _, n := range s.Nodes {
			if n.State == wire.NodeUp && n.Ready {
				up++
			}
		}
		return up == 3
	})
}

// testChaosUpEnds stops up while one of its nodes is paused. The stress continues without nodes.
func testChaosUpEnds(t *testing.T, l *upCluster) {
	r := startChaos(t, l)
	if status := l.interrupt(t); status != 0 || strings.Contains(l.err.String(), "was killed") {
		t.Errorf("exit status %d: %s", status, &l.err)
	}
	r.awaitText(t, &r.err, `No more faults`)
	if err := r.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.status()
}

// startChaos starts a run and returns when a node is paused.
func startChaos(t *testing.T, l *upCluster) *running {
	t.Helper()
	paused := func() int { return strings.Count(l.err.String(), "stress --chaos: pause") }
	before := paused()
	args := append(small, "stress", "--chaos", "--count", "9000", "--faults", "900", "--user", "long")
	r := start(t, program(t, l.dir, args...))
	eventually(t, "a node is paused", func() bool {
		if r.over() {
			t.Fatalf("stress ended: %s", &r.err)
		}
		return paused() > before
	})
	return r
}

// hookedView is a view that calls a function after the uploads, before the stages that follow.
type hookedView struct {
	*runView
	uploaded func()
}

func (v *hookedView) Uploaded(*stress.Tally) { v.uploaded() }

// testReadBack replaces an image and deletes another one before the images are read back, which must find
// both.
func testReadBack(t *testing.T, l *upCluster) {
	e := &env{err: &lines{}}
	cfg, c, err := e.connect()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	path := filepath.Join(l.dir, "back.jsonl")
	o := stress.Options{
		Profile:     "quick",
		Count:       12,
		Concurrency: 2,
		User:        "back",
		Delivery:    string(client.Broadcast),
		Log:         path,
		Verify:      true,
		Spec:        genimg.Spec{Seed: 1, MinPixels: 100, MaxPixels: 200},
	}
	replaced := o.Spec.Image(5).Name
	deleted := o.Spec.Image(7).Name
	run, err := stress.New(cfg, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Check(); err != nil {
		t.Fatal(err)
	}
	if _, err := run.OpenLog(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := run.Preflight(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	view := &hookedView{&runView{e.progress(), nil}, func() {
		other := o.Spec.Image(3).AppendTo(nil)
		put := client.Upload{
			User: o.User,
			Name: replaced,
			Size: int64(len(other)),
			Body: func() io.Reader { return bytes.NewReader(other) },
		}
		if _, err := c.Put(t.Context(), put); err != nil {
			t.Error(err)
		}
		if err := c.Delete(t.Context(), o.User, deleted, ""); err != nil {
			t.Error(err)
		}
	}}
	if err := run.Drive(t.Context(), view); err != nil {
		t.Fatal(err)
	}
	log := logLines(t, path)
	back := decode[runlog.Readback](t, log["readback"][0])
	if back.Images != 12 || back.Matched != 10 || back.Mismatched != 1 || back.Missing != 1 || back.Unread != 0 {
		t.Errorf("read back %+v", back)
	}
	found := map[string]string{}
	for _, line := range log["event"] {
		ev := decode[runlog.Event](t, line)
		found[ev.Kind], _, _ = strings.Cut(ev.Detail, ":")
	}
	if found[runlog.EventImageMismatched] != replaced || found[runlog.EventImageMissing] != deleted {
		t.Errorf("events %v", log["event"])
	}
}

package modes

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"regexp"
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

// small are images with which faults are soon over.
var small = []string{"--min-pixels", "100", "--max-pixels", "300"}

// TestDemoChaos loses nodes in a demo, and no image.
func TestDemoChaos(t *testing.T) {
	t.Parallel()
	e := finish(t, program(t, t.TempDir(), append(small, "demo", "--chaos", "--json", "--count", "45")...))
	expectSurvived(t, checkRun(t, e, 45), "3 of 3 faults (1 kill, 1 pause, 1 restart)")
	if !strings.Contains(e.err, "Chaos: ") || !strings.Contains(e.err, "45 of 45 images read back") || !strings.Contains(e.err, "everything deleted") {
		t.Error(e)
	}
}

func TestDemoChaosInterrupted(t *testing.T) {
	t.Parallel()
	demoInterrupted(t, `fault \d+ of 900`, append(small, "demo", "--chaos", "--count", "9000", "--faults", "900")...)
}

// expectSurvived checks that the faults that a run was to make were made and survived, and that each of its
// images was uploaded and read back the same. Whether the check of the report passes is not asked, nor
// whether a node was seen down without a fault: on a busy machine pauses may be long.
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

// TestUpChaos makes the nodes of up fail by stress. The path of the control socket is longer than
// the system takes.
func TestUpChaos(t *testing.T) {
	t.Parallel()
	data := strings.Repeat("long", 30)
	l := up(t, "node: {data_dir: '"+data+"/node{id}'}")
	run := func(args ...string) ended {
		return finish(t, program(t, l.dir, append(append([]string{"stress", "--json", "--chaos"}, small...), args...)...))
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

	// After an up that was killed there is its socket.
	again := start(t, program(t, l.dir, "up"))
	again.says(t, &again.out, `Stop +Ctrl-C`)
	again.cmd.Process.Kill()
	again.status()
	eventually(t, "its nodes are gone too", func() bool { return finish(t, program(t, l.dir, "status")).status == exitNobody })
	if _, err := os.Lstat(sockets[0]); err != nil {
		t.Error(err)
	}
	again = start(t, program(t, l.dir, "up"))
	again.says(t, &again.out, `Stop +Ctrl-C`)
	expectSurvived(t, checkRun(t, run("--count", "9", "--faults", "1"), 9), "1 of 1 fault")
	if status := again.interrupt(t); status != 0 {
		t.Errorf("exit status %d: %s", status, &again.err)
	}
}

// testChaosRun looks at the log of a run with six faults, and at what up says.
func testChaosRun(t *testing.T, l *upCluster, e ended) {
	expectSurvived(t, checkRun(t, e, 60), "6 of 6 faults (2 kills, 2 pauses, 2 restarts)")
	log := logLines(t, filepath.Join(l.dir, "log.jsonl"))
	if r := decode[runlog.Readback](t, log["readback"][0]); r.Images != 60 || r.Matched != 60 || r.Bytes < 60*20000 {
		t.Errorf("read back %+v", r)
	}
	if r := decode[runlog.Run](t, log["run"][0]); r.Faults != 6 || r.Seed != 3 {
		t.Errorf("run %+v", r)
	}
	count := map[string]int{}
	faulty := 0
	for _, line := range log["event"] {
		fields(t, line, "t_s", "kind")
		ev := decode[runlog.Event](t, line)
		count[ev.Kind]++
		switch ev.Kind {
		case runlog.EventKill, runlog.EventPause, runlog.EventStop:
			if faulty != 0 {
				t.Errorf("node %d fails while node %d does: %s", ev.Node, faulty, log["event"])
			}
			faulty = ev.Node
		case runlog.EventHealed, runlog.EventUnhealed:
			faulty = 0
		}
	}
	for kind, n := range map[string]int{runlog.EventKill: 2, runlog.EventPause: 2, runlog.EventResume: 2, runlog.EventStop: 2, runlog.EventRestart: 4} {
		if count[kind] != n {
			t.Errorf("%d events %s, want %d: %v", count[kind], kind, n, count)
		}
	}
	if said := regexp.MustCompile(`stress --chaos: \w+ node \d`).FindAllString(l.err.String(), -1); len(said) != 12 || strings.Contains(l.err.String(), "hint: ") {
		t.Errorf("up says %s", &l.err)
	}
}

// testChaosReadBackResumed cuts the log of a run with faults off before its images were read back, which is all that is
// missing then; without one of its faults it cannot be resumed.
func testChaosReadBackResumed(t *testing.T, l *upCluster) {
	path := filepath.Join(l.dir, "log.jsonl")
	made, _, _ := strings.Cut(string(read(t, path)), `{"type":"readback"`)
	healed := strings.LastIndex(made, `"node_healed"`)
	for text, want := range map[string]string{
		made: "no image read back, no end record",
		made[:strings.LastIndex(made[:healed], "\n")+1]: "the recovery from 1 fault, no image read back, no end record",
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if r := decode[report.Report](t, finish(t, program(t, l.dir, "report", "log.jsonl", "--json")).out); r.Verdict.Incomplete != want {
			t.Errorf("%+v, want %q", r.Verdict, want)
		}
		e := finish(t, program(t, l.dir, append([]string{"stress", "--resume", "log.jsonl", "--json"}, small...)...))
		if text != made {
			if e.status != exitUsage || !strings.Contains(e.err, "cannot be resumed before all of them were made") {
				t.Error(e)
			}
			continue
		}
		r := checkRun(t, e, 60)
		expectSurvived(t, r, "6 of 6 faults")
		if r.Verdict.Incomplete != "" {
			t.Errorf("%+v", r.Verdict)
		}
	}
}

// testChaosKilled kills a stress whose node is paused: up lets the node go on. A second stress has
// to wait until then.
func testChaosKilled(t *testing.T, l *upCluster, run func(...string) ended) {
	r := startChaos(t, l)
	if e := run("--count", "3", "--log", "other.jsonl"); e.status != exitUsage || !strings.Contains(e.err, "another stress --chaos is running") {
		t.Error(e)
	}
	r.cmd.Process.Kill()
	r.status()
	eventually(t, "the paused node to go on", func() bool {
		e := finish(t, program(t, l.dir, "status", "--json"))
		if e.status != 0 {
			return false
		}
		s, up := decode[wire.ClusterStatus](t, e.out), 0
		for _, n := range s.Nodes {
			if n.State == wire.NodeUp && n.Ready {
				up++
			}
		}
		return up == 3
	})
}

// testChaosUpEnds stops up while a node of it is paused, and its stress goes on without nodes.
func testChaosUpEnds(t *testing.T, l *upCluster) {
	r := startChaos(t, l)
	if status := l.interrupt(t); status != 0 || strings.Contains(l.err.String(), "was killed") {
		t.Errorf("exit status %d: %s", status, &l.err)
	}
	r.says(t, &r.err, `No more faults`)
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
	r := start(t, program(t, l.dir, append(small, "stress", "--chaos", "--count", "9000", "--faults", "900", "--user", "long")...))
	eventually(t, "a node is paused", func() bool {
		if r.over() {
			t.Fatalf("stress ended: %s", &r.err)
		}
		return paused() > before
	})
	return r
}

// between is a view that does something between the uploads and what follows them.
type between struct {
	*runView
	do func()
}

func (b *between) Uploaded(*stress.Tally) { b.do() }

// testReadBack replaces an image and deletes another between the uploads and their reading: it must
// find both.
func testReadBack(t *testing.T, l *upCluster) {
	e := &env{err: &lines{}}
	cfg, c, err := e.connect()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	path := filepath.Join(l.dir, "back.jsonl")
	o := stress.Options{
		Profile: "quick", Count: 12, Concurrency: 2, User: "back", Delivery: string(client.Broadcast), Log: path, Verify: true,
		Spec: genimg.Spec{Seed: 1, MinPixels: 100, MaxPixels: 200},
	}
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
	view := &between{&runView{e.progress(), nil}, func() {
		other := o.Spec.Image(3).AppendTo(nil)
		put := client.Upload{
			User: o.User, Name: o.Spec.Image(5).Name, Size: int64(len(other)), Body: func() io.Reader { return bytes.NewReader(other) },
		}
		if _, err := c.Put(t.Context(), put); err != nil {
			t.Error(err)
		}
		if err := c.Delete(t.Context(), o.User, o.Spec.Image(7).Name); err != nil {
			t.Error(err)
		}
	}}
	if err := run.Drive(t.Context(), view); err != nil {
		t.Fatal(err)
	}
	log := logLines(t, path)
	if r := decode[runlog.Readback](t, log["readback"][0]); r.Images != 12 || r.Matched != 10 || r.Mismatched != 1 || r.Missing != 1 || r.Unread != 0 {
		t.Errorf("read back %+v", r)
	}
	found := map[string]string{}
	for _, line := range log["event"] {
		ev := decode[runlog.Event](t, line)
		found[ev.Kind], _, _ = strings.Cut(ev.Detail, ":")
	}
	if found[runlog.EventImageMismatched] != o.Spec.Image(5).Name || found[runlog.EventImageMissing] != o.Spec.Image(7).Name {
		t.Errorf("events %v", log["event"])
	}
}

package modes

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imgcluster/cluster/wire"
	"imgcluster/modes/report"
	"imgcluster/modes/runlog"
)

// testDryRun looks at the cluster, uploads nothing and leaves no log; a run that is refused goes on
// with --force.
func testDryRun(t *testing.T, l *upCluster) {
	args := append([]string{"stress", "--dry-run", "--log", "dry.jsonl", "--user", "dry"}, small...)
	text := l.expectExit(0, args...)
	for _, want := range []string{"30 images, ", "\n  ok    nodes       3 of 3 answer\n", "\n  ok    leaders     13 of 13 shards have one\n", " on one disk: needs ", "node 3 "} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	doc := l.expectExit(0, append(args, "--json")...)
	expectFields(t, doc, "plan.uploads", "plan.sent_bytes", "preflight.0.check", "preflight.11.state")
	e := l.run("stress", "--dry-run", "--count", "50000000", "--log", "dry.jsonl")
	if e.status != exitFailed || !strings.Contains(e.out, "\n  fail  disks ") || !strings.Contains(e.err, "not started: disks: nodes 1, 2, 3 on one disk: needs ") || !strings.Contains(e.err, "--force") {
		t.Error(e)
	}
	if _, err := os.Stat(filepath.Join(l.dir, "dry.jsonl")); err == nil {
		t.Error("a dry run leaves a log")
	}
	if out := l.expectExit(0, "ls", "dry"); out != "" {
		t.Errorf("a dry run stores %s", out)
	}
	few := program(t, l.dir, append([]string{"-c", `ulimit -n 60; exec "$@"`, "sh", os.Args[0]}, "stress", "--count", "2", "--log", "few.jsonl")...)
	few.Path, few.Args[0] = "/bin/sh", "sh"
	if e := finish(t, few); e.status != exitFailed || !strings.Contains(e.err, "open files: this program: needs 96, may have 60") {
		t.Error(e)
	}
	few = program(t, l.dir, append([]string{"-c", `ulimit -n 60; exec "$@"`, "sh", os.Args[0]}, append(small, "stress", "--force", "--json", "--count", "2", "--log", "few.jsonl")...)...)
	few.Path, few.Args[0] = "/bin/sh", "sh"
	expectRun(t, finish(t, few), 2)
}

// testShapes makes an open loop with reads between, for two users, and reads all back.
func testShapes(t *testing.T, l *upCluster) {
	e := l.run(append([]string{
		"stress", "--quiet", "--rate", "40", "--arrivals", "poisson", "--duration", "3s", "--warmup", "500ms", "--mix", "read=30",
		"--users", "2", "--user", "shape", "--verify", "--log", "shape.jsonl", "--json",
	}, small...)...)
	if e.err != "" || e.status != 0 && e.status != exitVerdict {
		t.Fatal(e)
	}
	log := logLines(t, filepath.Join(l.dir, "shape.jsonl"))
	run := decode[runlog.Run](t, log["run"][0])
	if run.Rate != 40 || run.Arrivals != "poisson" || run.DurationS != 3 || run.WarmupS != 0.5 || run.ReadPercent != 30 || run.Users != 2 || run.Count != 0 || run.Concurrency != rateInFlight {
		t.Errorf("run %+v", run)
	}
	if run.Settings["cluster.replicas"] != "2" || !strings.Contains(run.Settings["cluster.nodes"], "127.0.0.1") {
		t.Errorf("settings %v", run.Settings)
	}
	if len(log["upload"]) == 0 || len(log["read"]) == 0 {
		t.Fatalf("%d uploads, %d reads", len(log["upload"]), len(log["read"]))
	}
	users := map[string]int{}
	warmup := 0
	for _, line := range log["upload"] {
		u := decode[runlog.Upload](t, line)
		users[u.User]++
		if u.ScheduledS == nil || u.StartS < *u.ScheduledS || u.Warmup != (*u.ScheduledS < 0.5) || !u.OK || u.FirstChoice == nil || *u.FirstChoice != (u.FirstNode == u.Owner) {
			t.Errorf("%s", line)
		}
		if u.Warmup {
			warmup++
		}
	}
	for _, line := range log["read"] {
		if r := decode[runlog.ReadOp](t, line); !r.OK || r.Bytes < 20_000 || r.ScheduledS == nil || users[r.User] == 0 {
			t.Errorf("%s", line)
		}
	}
	if len(users) != 2 || users["shape"] == 0 || users["shape-2"] == 0 || warmup == 0 {
		t.Errorf("users %v, %d of the warm-up", users, warmup)
	}
	if r := decode[runlog.Readback](t, log["readback"][0]); r.Images != int64(len(log["upload"])) || r.Matched != r.Images {
		t.Errorf("read back %+v of %d", r, len(log["upload"]))
	}
	last := decode[runlog.ClientSample](t, log["client"][len(log["client"])-1])
	if last.SentBytes == 0 || last.ReadBytes == 0 || last.SourceS == 0 {
		t.Errorf("client %+v", last)
	}
}

// testResume cuts a run off, as a lost client does, and goes on with it: each image is acknowledged
// once, all are read back, and the clock goes on.
func testResume(t *testing.T, l *upCluster) {
	args := append([]string{"stress", "--json", "--count", "60", "--seed", "9", "--user", "again", "--log", "again.jsonl"}, small...)
	e := l.run(args...)
	expectRun(t, e, 60)
	path := filepath.Join(l.dir, "again.jsonl")
	whole := read(t, path)
	refused := func(said string, args ...string) {
		t.Helper()
		if e := l.run(append([]string{"stress"}, args...)...); e.status != exitUsage || !strings.Contains(e.err, said) || !strings.Contains(e.err, "hint: ") || e.out != "" {
			t.Errorf("want %q of %v", said, e)
		}
	}
	refused("the run of again.jsonl is complete: all 60 uploads succeeded", "--resume", "again.jsonl")
	text := cutLogAfter(string(whole), 25)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	refused("--seed is 8 here, and 9 in the log", "--resume", "again.jsonl", "--seed", "8")
	refused("--concurrency is 3 here, and 8 in the log", "--resume", "again.jsonl", "--concurrency", "3")
	refused("leave out --log", "--resume", "again.jsonl", "--log", "other.jsonl")
	refused("--user is bob here, and again in the log", "--resume", "again.jsonl", "--user", "bob")
	other := strings.Replace(text, `"cluster.name":"imgcluster"`, `"cluster.name":"other"`, 1)
	if err := os.WriteFile(filepath.Join(l.dir, "other.jsonl"), []byte(other), 0o644); err != nil {
		t.Fatal(err)
	}
	refused("cluster.name was other in the interrupted run, and is imgcluster", "--resume", "other.jsonl")
	if string(read(t, path)) != text {
		t.Error("a refusal changed the log")
	}
	e = l.run("stress", "--json", "--resume", "again.jsonl", "--verify", "--seed", "9")
	expectRun(t, e, 60)
	now := read(t, path)
	if !strings.HasPrefix(string(now), text[:strings.LastIndex(text, "\n")+1]) {
		t.Error("what was there before is changed")
	}
	log := logLines(t, path)
	var seqs []int64
	end := 0.0
	for _, line := range log["upload"] {
		u := decode[runlog.Upload](t, line)
		if seqs = append(seqs, u.Seq); len(seqs) > 25 && u.StartS < end {
			t.Errorf("upload %d begins at %v s, before the end of the first part at %v s", u.Seq, u.StartS, end)
		}
		if len(seqs) <= 25 {
			end = max(end, u.StartS+u.LatencyS)
		}
		if u.User != "again" {
			t.Errorf("upload %d is of %q", u.Seq, u.User)
		}
	}
	slices.Sort(seqs)
	if len(seqs) != 60 || len(slices.Compact(seqs)) != 60 || len(log["run"]) != 1 || !strings.Contains(log["event"][0], `"resumed"`) {
		t.Errorf("%d uploads, events %v", len(seqs), log["event"])
	}
	if r := decode[runlog.Readback](t, log["readback"][0]); r.Images != 60 || r.Matched != 60 {
		t.Errorf("read back %+v", r)
	}
	// The images of the first part are gone: that is not the cluster of the log any more.
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	l.expectExit(0, "clean", "--user", "again", "--yes")
	refused("is not there, though the log says that it was stored", "--resume", "again.jsonl")
}

// testResumeRest cuts the log of a run with a read-back and a cleanup at every place where something is
// over: report has it as incomplete, and stress does what is missing and no more.
func testResumeRest(t *testing.T, l *upCluster) {
	args := append([]string{"stress", "--json", "--count", "20", "--user", "rest", "--verify", "--log", "rest.jsonl"}, small...)
	expectRun(t, l.run(args...), 20)
	path := filepath.Join(l.dir, "rest.jsonl")
	whole := strings.Replace(string(read(t, path)), `"cleanup":false`, `"cleanup":true`, 1)
	cut := func(text, before string) string {
		head, _, found := strings.Cut(text, before)
		if !found {
			t.Fatalf("no %s in %s", before, text)
		}
		return head[:strings.LastIndex(head, "\n")+1]
	}
	for _, c := range []struct {
		before  string // this line of what the step before left
		missing string
		read    int64 // in the end
		deleted int64 // now
		gone    int64 // before
	}{
		{`"type":"readback"`, "no image read back, no image deleted, no end record", 20, 20, 0},
		{`"type":"cleaned"`, "no image deleted, no end record", 20, 0, 20},
		{`"type":"end"`, "no end record", 20, 0, 20},
	} {
		whole = cut(whole, c.before)
		if err := os.WriteFile(path, []byte(whole+`{"type":"cle`), 0o644); err != nil {
			t.Fatal(err)
		}
		if r := decode[report.Report](t, l.expectExit(exitVerdict, "report", "rest.jsonl", "--json")); r.Verdict.Incomplete != c.missing || r.Verdict.Passed {
			t.Errorf("before %s: %+v", c.before, r.Verdict)
		}
		for _, not := range []string{"--verify=false", "--cleanup=false", "--keep"} {
			if e := l.run("stress", "--resume", "rest.jsonl", not); e.status != exitUsage || !strings.Contains(e.err, "leave it out: the log has what was planned") {
				t.Error(e)
			}
		}
		elapsed := decode[report.Report](t, l.run("report", "rest.jsonl", "--json").out).ElapsedS
		e := l.run("stress", "--json", "--resume", "rest.jsonl")
		r := expectRun(t, e, 20)
		if r.Verdict.Incomplete != "" || r.ElapsedS > elapsed+1 {
			t.Errorf("before %s: %.1f s, %.1f s so far: %+v", c.before, r.ElapsedS, elapsed, r.Verdict)
		}
		text := string(read(t, path))
		log := logLines(t, path)
		if len(log["upload"]) != 20 || len(log["readback"]) != 1 || len(log["cleaned"]) != 1 || len(log["end"]) != 1 || !strings.HasPrefix(text, whole) {
			t.Fatalf("before %s: %s", c.before, text)
		}
		back, done := decode[runlog.Readback](t, log["readback"][0]), decode[runlog.Cleaned](t, log["cleaned"][0])
		if back.Matched != c.read || done.Images+done.Missing != 20 || c.before != `"type":"end"` && (done.Images != c.deleted || done.Missing != c.gone) {
			t.Errorf("before %s: %+v, %+v", c.before, back, done)
		}
		if n := l.stored("rest"); n != 0 {
			t.Errorf("%d images are left", n)
		}
		whole = text
	}
	if e := l.run("stress", "--resume", "rest.jsonl"); e.status != exitUsage || !strings.Contains(e.err, "is complete") {
		t.Error(e)
	}
	// Its images are gone: what is not in the log can no longer be done.
	for _, c := range []string{cutLogAfter(whole, 10) + "\n", strings.Replace(whole, `"matched":20`, `"matched":19`, 1)} {
		at := strings.LastIndex(strings.TrimSuffix(c, "\n"), "\n") + 1
		if err := os.WriteFile(path, []byte(c[:at]+`{"type":"event","t_s":9,"kind":"cleaning"}`+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if e := l.run("stress", "--resume", "rest.jsonl"); e.status != exitUsage || !strings.Contains(e.err, "whose images were deleted") {
			t.Error(e)
		}
	}
}

// cutLogAfter is a log up to so many uploads, with a cut line at its end.
func cutLogAfter(log string, uploads int) string {
	text := ""
	for line := range strings.Lines(log) {
		if text += line; strings.Contains(line, `"type":"upload"`) {
			uploads--
		}
		if uploads == 0 {
			break
		}
	}
	text += `{"type":"upload","seq":99,"na`
	return text
}

// stored counts the images of a user.
func (l *upCluster) stored(user string) int {
	return strings.Count(l.expectExit(0, "ls", user, "--json"), "\n")
}

// testClean deletes what a run stored and nothing else, and the nodes' files go with it.
func testClean(t *testing.T, l *upCluster) {
	l.expectExit(0, "put", "--user", "clean", photos(t)[0])
	stress := append([]string{"stress", "--json", "--count", "20", "--user", "clean", "--log", "clean.jsonl"}, small...)
	expectRun(t, l.run(stress...), 20)
	if n := l.stored("clean"); n != 21 {
		t.Fatalf("%d images are there", n)
	}
	if e := l.run("clean", "--log", "clean.jsonl"); e.status != exitUsage || !strings.Contains(e.err, "hint: add --yes") || l.stored("clean") != 21 {
		t.Error(e)
	}
	// An image that somebody else stores under a name of the run is no image of the run.
	const other = "stress_image_7.png"
	put := program(t, l.dir, "put", "--user", "clean", "--name", other, "-")
	put.Stdin = strings.NewReader("not of the run")
	if e := finish(t, put); e.status != 0 {
		t.Fatal(e)
	}
	e := l.run("clean", "--log", "clean.jsonl", "--yes", "--json")
	var done struct {
		runlog.Cleaned
		Type string `json:"type"`
	}
	if err := json.Unmarshal([]byte(e.out), &done); err != nil || e.status != 0 || done.Type != "cleaned" || done.Images != 19 || done.Missing != 1 || done.WonBack < done.Bytes {
		t.Errorf("%v of %v", err, e)
	}
	if n := l.stored("clean"); n != 2 || l.expectExit(0, "get", "clean/"+other, "-o", "-") != "not of the run" {
		t.Errorf("%d images are left, not the two that no run stored", n)
	}
	l.expectExit(0, "rm", "clean/"+other)
	if out := l.run("clean", "--log", "clean.jsonl", "--yes", "--json").out; !strings.Contains(out, `"images":0,"bytes":0,"missing":20`) {
		t.Errorf("once more: %s", out)
	}
	// The run that cleans up after itself.
	e = l.run(append(stress, "--cleanup", "--verify")...)
	expectRun(t, e, 20)
	if n := l.stored("clean"); n != 1 || !strings.Contains(e.out, `"type":"cleaned","images":20`) {
		t.Errorf("%d images are left by %s", n, lastLine(e.out))
	}
	eventually(t, "the nodes have no file more than there are copies", func() bool {
		files, copies := int64(0), int64(0)
		for _, n := range decode[wire.ClusterStatus](t, l.run("status", "--json").out).Nodes {
			files, copies = files+n.Files, copies+n.StoredImages
		}
		return files <= copies+1 // testVerify took one away that its node counts
	})
	// All of a user, asked for on a terminal.
	user, tty := terminal(t)
	cmd := program(t, l.dir, "clean", "--user", "clean")
	cmd.Stdin = tty
	r := start(t, cmd)
	r.awaitText(t, &r.err, `Delete 1 image, .*, of clean in imgcluster\? \[y/N\] $`)
	fmt.Fprintln(user, "no")
	if status := r.status(); status != exitFailed || l.stored("clean") != 1 || !strings.Contains(r.err.String(), "nothing was deleted") {
		t.Errorf("status %d: %s", status, &r.err)
	}
	if e := l.run("clean", "--user", "clean", "--yes"); e.status != 0 || l.stored("clean") != 0 || !strings.Contains(e.err, "deleted 1 image, ") {
		t.Error(e)
	}
}

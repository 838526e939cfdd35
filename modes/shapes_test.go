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

// testDryRun makes the preflight without a run: it uploads nothing and leaves no log. A run that is
// refused starts with --force.
func testDryRun(t *testing.T, l *upCluster) {
	args := append([]string{"stress", "--dry-run", "--log", "dry.jsonl", "--user", "dry"}, small...)
	text := l.expectExit(0, args...)
	for _, want := range []string{
		"30 images, ",
		"\n  ok    nodes       3 of 3 answer\n",
		"\n  ok    leaders     13 of 13 shards have one\n",
		" on one disk: needs ",
		"node 3 ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	doc := l.expectExit(0, append(args, "--json")...)
	expectFields(t, doc, "plan.uploads", "plan.sent_bytes", "preflight.0.check", "preflight.11.state")
	e := l.run("stress", "--dry-run", "--count", "50000000", "--log", "dry.jsonl")
	e.expectOut(t, exitFailed, "\n  fail  disks ")
	e.expectErr(t, exitFailed, "disks: nodes 1, 2, 3 on one disk: needs ", "--force")
	if _, err := os.Stat(filepath.Join(l.dir, "dry.jsonl")); err == nil {
		t.Error("a dry run leaves a log")
	}
	if out := l.expectExit(0, "ls", "dry"); out != "" {
		t.Errorf("a dry run stores %s", out)
	}
	withFewFiles := func(args ...string) ended {
		shell := []string{"-c", `ulimit -n 60; exec "$@"`, "sh", os.Args[0]}
		args = append([]string{"stress", "--count", "2", "--log", "few.jsonl"}, args...)
		cmd := program(t, l.dir, append(shell, args...)...)
		cmd.Path = "/bin/sh"
		cmd.Args[0] = "sh"
		return finish(t, cmd)
	}
	withFewFiles().expectErr(t, exitFailed, "open files: this program: needs 96, may have 60")
	expectRun(t, withFewFiles(append(small, "--force", "--json")...), 2)
}

// testShapes makes an open loop with reads in between, for two users, and reads all images back.
func testShapes(t *testing.T, l *upCluster) {
	e := l.run(append(small, "stress", "--quiet", "--rate", "40", "--arrivals", "poisson", "--duration", "3s",
		"--warmup", "500ms", "--mix", "read=30", "--users", "2", "--user", "shape", "--verify",
		"--log", "shape.jsonl", "--json")...)
	if e.err != "" || e.status != 0 && e.status != exitVerdict {
		t.Fatal(e)
	}
	log := logLines(t, filepath.Join(l.dir, "shape.jsonl"))
	run := decode[runlog.Run](t, log["run"][0])
	if run.Rate != 40 || run.Arrivals != "poisson" || run.Concurrency != rateInFlight || run.Users != 2 {
		t.Errorf("run %+v", run)
	}
	if run.DurationS != 3 || run.WarmupS != 0.5 || run.ReadPercent != 30 || run.Count != 0 {
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
		if u.ScheduledS == nil || u.StartS < *u.ScheduledS || u.Warmup != (*u.ScheduledS < 0.5) {
			t.Errorf("times in %s", line)
		}
		if !u.OK || u.FirstChoice == nil || *u.FirstChoice != (u.FirstNode == u.Owner) {
			t.Errorf("outcome in %s", line)
		}
		if u.Warmup {
			warmup++
		}
	}
	for _, line := range log["read"] {
		r := decode[runlog.ReadOp](t, line)
		if !r.OK || r.Bytes < 20_000 || r.ScheduledS == nil || users[r.User] == 0 {
			t.Errorf("%s", line)
		}
	}
	if len(users) != 2 || users["shape"] == 0 || users["shape-2"] == 0 || warmup == 0 {
		t.Errorf("users %v, %d of the warm-up", users, warmup)
	}
	back := decode[runlog.Readback](t, log["readback"][0])
	if uploads := int64(len(log["upload"])); back.Images != uploads || back.Matched != uploads {
		t.Errorf("read back %+v of %d", back, uploads)
	}
	last := decode[runlog.ClientSample](t, log["client"][len(log["client"])-1])
	if last.SentBytes == 0 || last.ReadBytes == 0 || last.SourceS == 0 {
		t.Errorf("client %+v", last)
	}
}

// testResume truncates the log of a run, as if the client had been killed, and resumes it: each image is
// acknowledged once, all are read back, and the clock continues.
func testResume(t *testing.T, l *upCluster) {
	e := l.run(append(small, "stress", "--json", "--count", "60", "--seed", "9", "--user", "again",
		"--log", "again.jsonl")...)
	expectRun(t, e, 60)
	path := filepath.Join(l.dir, "again.jsonl")
	whole := read(t, path)
	expectRefused := func(said string, args ...string) {
		t.Helper()
		l.run(append([]string{"stress", "--resume"}, args...)...).expectRefused(t, exitUsage, said)
	}
	expectRefused("is complete: all 60 uploads succeeded", "again.jsonl")
	text := truncatedLog(string(whole), 25)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	expectRefused("--seed is 8 here, and 9 in the log", "again.jsonl", "--seed", "8")
	expectRefused("--concurrency is 3 here, and 8 in the log", "again.jsonl", "--concurrency", "3")
	expectRefused("leave out --log", "again.jsonl", "--log", "other.jsonl")
	expectRefused("--user is bob here, and again in the log", "again.jsonl", "--user", "bob")
	other := strings.Replace(text, `"cluster.name":"imgcluster"`, `"cluster.name":"other"`, 1)
	if err := os.WriteFile(filepath.Join(l.dir, "other.jsonl"), []byte(other), 0o644); err != nil {
		t.Fatal(err)
	}
	expectRefused("cluster.name was other in the interrupted run, and is imgcluster", "other.jsonl")
	if string(read(t, path)) != text {
		t.Error("a refusal changed the log")
	}
	e = l.run("stress", "--json", "--resume", "again.jsonl", "--verify", "--seed", "9")
	expectRun(t, e, 60)
	now := read(t, path)
	if !strings.HasPrefix(string(now), text[:strings.LastIndex(text, "\n")+1]) {
		t.Error("the records before the interruption were changed")
	}
	log := logLines(t, path)
	var seqs []int64
	end := 0.0
	for _, line := range log["upload"] {
		u := decode[runlog.Upload](t, line)
		if seqs = append(seqs, u.Seq); len(seqs) > 25 && u.StartS < end {
			t.Errorf("upload %d begins at %v s, before the interruption at %v s", u.Seq, u.StartS, end)
		}
		if len(seqs) <= 25 {
			end = max(end, u.StartS+u.LatencyS)
		}
		if u.User != "again" {
			t.Errorf("upload %d is of %q", u.Seq, u.User)
		}
	}
	slices.Sort(seqs)
	if len(seqs) != 60 || len(slices.Compact(seqs)) != 60 {
		t.Errorf("uploads %v, want 60 different ones", seqs)
	}
	if len(log["run"]) != 1 || !strings.Contains(log["event"][0], `"resumed"`) {
		t.Errorf("%d run records, events %v", len(log["run"]), log["event"])
	}
	if r := decode[runlog.Readback](t, log["readback"][0]); r.Images != 60 || r.Matched != 60 {
		t.Errorf("read back %+v", r)
	}
	// When the images of the log are not there, it is another cluster.
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	l.expectExit(0, "clean", "--user", "again", "--yes")
	expectRefused("is not there, though the log says that it was stored", "again.jsonl")
}

// testResumeRest truncates the log of a run with a read-back and a cleanup after each of its stages.
// Report has it as incomplete, and stress makes the missing stages and no other.
func testResumeRest(t *testing.T, l *upCluster) {
	expectRun(t, l.run(append(small, "stress", "--json", "--count", "20", "--user", "rest", "--verify",
		"--log", "rest.jsonl")...), 20)
	path := filepath.Join(l.dir, "rest.jsonl")
	whole := strings.Replace(string(read(t, path)), `"cleanup":false`, `"cleanup":true`, 1)
	for _, c := range []struct {
		before  string // the log is truncated before this record
		missing string
		deleted int64 // images deleted by the resumed run; -1: it deletes none
		earlier int64 // images deleted before that
	}{
		{`"type":"readback"`, "no image read back, no image deleted, no end record", 20, 0},
		{`"type":"cleaned"`, "no image deleted, no end record", 0, 20},
		{`"type":"end"`, "no end record", -1, -1},
	} {
		head, _, found := strings.Cut(whole, c.before)
		if !found {
			t.Fatalf("no %s in %s", c.before, whole)
		}
		whole = head[:strings.LastIndex(head, "\n")+1]
		must(t, os.WriteFile(path, []byte(whole+`{"type":"cle`), 0o644))
		r := decode[report.Report](t, l.expectExit(exitVerdict, "report", "rest.jsonl", "--json"))
		if r.Verdict.Incomplete != c.missing || r.Verdict.Passed {
			t.Errorf("before %s: %+v", c.before, r.Verdict)
		}
		for _, not := range []string{"--verify=false", "--cleanup=false", "--keep"} {
			e := l.run("stress", "--resume", "rest.jsonl", not)
			e.expectErr(t, exitUsage, "leave it out: the log has what was planned")
		}
		elapsed := r.ElapsedS
		r = expectRun(t, l.run("stress", "--json", "--resume", "rest.jsonl"), 20)
		if r.Verdict.Incomplete != "" || r.ElapsedS > elapsed+1 {
			t.Errorf("before %s: %.1f s, %.1f s so far: %+v", c.before, r.ElapsedS, elapsed, r.Verdict)
		}
		text := string(read(t, path))
		log := logLines(t, path)
		for typ, n := range map[string]int{"upload": 20, "readback": 1, "cleaned": 1, "end": 1} {
			if len(log[typ]) != n {
				t.Fatalf("before %s: %d records of type %s in %s", c.before, len(log[typ]), typ, text)
			}
		}
		if !strings.HasPrefix(text, whole) {
			t.Fatalf("before %s: the records before it were changed: %s", c.before, text)
		}
		back := decode[runlog.Readback](t, log["readback"][0])
		done := decode[runlog.Cleaned](t, log["cleaned"][0])
		if back.Matched != 20 || done.Images+done.Missing != 20 {
			t.Errorf("before %s: %+v, %+v", c.before, back, done)
		}
		if c.deleted >= 0 && (done.Images != c.deleted || done.Missing != c.earlier) {
			t.Errorf("before %s: %+v, want %d deleted", c.before, done, c.deleted)
		}
		if n := l.stored("rest"); n != 0 {
			t.Errorf("%d images are left", n)
		}
		whole = text
	}
	l.run("stress", "--resume", "rest.jsonl").expectErr(t, exitUsage, "is complete")
	// What needs the deleted images can no longer be done.
	for _, log := range []string{
		truncatedLog(whole, 10) + "\n",
		strings.Replace(whole, `"matched":20`, `"matched":19`, 1),
	} {
		at := strings.LastIndex(strings.TrimSuffix(log, "\n"), "\n") + 1
		cleaning := `{"type":"event","t_s":9,"kind":"cleaning"}` + "\n"
		must(t, os.WriteFile(path, []byte(log[:at]+cleaning), 0o644))
		l.run("stress", "--resume", "rest.jsonl").expectErr(t, exitUsage, "whose images were deleted")
	}
}

// truncatedLog returns a log up to so many uploads, with a part of a line at its end.
func truncatedLog(log string, uploads int) string {
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

// testClean deletes what a run has stored and nothing else, with the nodes' files.
func testClean(t *testing.T, l *upCluster) {
	l.expectExit(0, "put", "--user", "clean", photos(t)[0])
	stress := append(small, "stress", "--json", "--count", "20", "--user", "clean", "--log", "clean.jsonl")
	expectRun(t, l.run(stress...), 20)
	if n := l.stored("clean"); n != 21 {
		t.Fatalf("%d images are there", n)
	}
	l.run("clean", "--log", "clean.jsonl").expectErr(t, exitUsage, "hint: add --yes")
	if n := l.stored("clean"); n != 21 {
		t.Errorf("%d images after a refusal", n)
	}
	// An image that has replaced one of the run is not deleted.
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
	if err := json.Unmarshal([]byte(e.out), &done); err != nil || e.status != 0 || done.Type != "cleaned" {
		t.Errorf("%v of %v", err, e)
	}
	if done.Images != 19 || done.Missing != 1 || done.WonBack < done.Bytes {
		t.Errorf("%+v", done)
	}
	if n := l.stored("clean"); n != 2 || l.expectExit(0, "get", "clean/"+other, "-o", "-") != "not of the run" {
		t.Errorf("%d images are left, want the two that no run has stored", n)
	}
	l.expectExit(0, "rm", "clean/"+other)
	again := l.run("clean", "--log", "clean.jsonl", "--yes", "--json")
	again.expectOut(t, 0, `"images":0,"bytes":0,"missing":20`)
	// A run with --cleanup.
	e = l.run(append(stress, "--cleanup", "--verify")...)
	expectRun(t, e, 20)
	if n := l.stored("clean"); n != 1 || !strings.Contains(e.out, `"type":"cleaned","images":20`) {
		t.Errorf("%d images are left by %s", n, lastLine(e.out))
	}
	eventually(t, "the nodes have no more files than copies", func() bool {
		var files, copies int64
		for _, n := range decode[wire.ClusterStatus](t, l.run("status", "--json").out).Nodes {
			files += n.Files
			copies += n.StoredImages
		}
		return files <= copies+1 // testVerify removed a file that its node counts
	})
	// All images of a user, with a question on a terminal.
	user, tty := terminal(t)
	cmd := program(t, l.dir, "clean", "--user", "clean")
	cmd.Stdin = tty
	r := start(t, cmd)
	r.awaitText(t, &r.err, `Delete 1 image, .*, of clean in imgcluster\? \[y/N\] $`)
	fmt.Fprintln(user, "no")
	if status := r.status(); status != exitFailed || l.stored("clean") != 1 {
		t.Errorf("status %d: %s", status, &r.err)
	}
	l.run("clean", "--user", "clean", "--yes").expectErr(t, 0, "deleted 1 image, ")
	if n := l.stored("clean"); n != 0 {
		t.Errorf("%d images are left", n)
	}
}

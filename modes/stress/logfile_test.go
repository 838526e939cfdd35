package stress

import (
	"context"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"imgcluster/cluster/image"
	"imgcluster/config"
	"imgcluster/genimg"
	"imgcluster/modes/runlog"
	"imgcluster/modes/stress/load"
)

// opened opens a log for a run that leaves so many bytes of it.
func opened(t *testing.T, path string, keep int64) *logFile {
	t.Helper()
	l, err := openLog(path, keep)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// A run that is refused leaves the log as it was, one that starts keeps it under another name.
func TestOpenLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.jsonl")
	if err := opened(t, path, 0).discard(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a discarded log stays")
	}
	write(t, path, goodLog)
	if err := opened(t, path, 0).discard(); err != nil || string(read(t, path)) != goodLog {
		t.Errorf("the old log is lost: %v", err)
	}
	for _, text := range []string{failedLog, chaosLog, strings.Replace(goodLog, `"schema":1`, `"schema":9`, 1)} {
		write(t, path, text)
		l := opened(t, path, 0)
		older, err := l.start()
		if err != nil || older != path+".1" || string(read(t, older)) != text || len(read(t, path)) != 0 {
			t.Errorf("the old log is kept as %q: %v", older, err)
		}
		if _, err := l.WriteString("new"); err != nil || string(read(t, path)) != "new" {
			t.Errorf("the new log: %v", err)
		}
		l.Close()
	}
	// An empty file, as a run leaves that was killed at its start, hides no other.
	write(t, path, "")
	l := opened(t, path, 0)
	if older, err := l.start(); err != nil || older != "" {
		t.Errorf("an empty log is kept as %q: %v", older, err)
	}
	l.Close()
	write(t, path, cutLog)
	l = opened(t, path, int64(len(goodLog)))
	if older, err := l.start(); err != nil || older != "" || string(read(t, path)) != goodLog {
		t.Errorf("a run that goes on: %q, %v", older, err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// The log may be a link: it stays one.
func TestOpenLogLink(t *testing.T) {
	dir := t.TempDir()
	link, file := filepath.Join(dir, "link.jsonl"), filepath.Join(dir, "file.jsonl")
	write(t, file, goodLog)
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	l := opened(t, link, 0)
	if older, err := l.start(); err != nil || older != file+".1" || string(read(t, older)) != goodLog || len(read(t, link)) != 0 {
		t.Errorf("kept as %q, %v", older, err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("%v, %v", info, err)
	}
}

// What is no log is not replaced, neither as the log nor as the one before it.
func TestOpenLogRefuses(t *testing.T) {
	dir := t.TempDir()
	for i, text := range []string{
		"text", "\n" + "text\n", "1\n", `{"type":"run"}` + "\n", `{"type":"event","t_s":1,"kind":"other"}` + "\n", strings.TrimSuffix(chaosLog, "\n"), "\x89PNG\r\n",
	} {
		path := filepath.Join(dir, string(rune('a'+i)))
		write(t, path, text)
		write(t, path+"x", goodLog)
		write(t, path+"x.1", text)
		for _, path := range []string{path, path + "x"} {
			if l, err := openLog(path, 0); err == nil || image.KindOf(err) != image.KindInvalid || !strings.Contains(err.Error(), "is not the log of a run") {
				t.Errorf("%q: %v, %v", text, l, err)
			}
		}
		if string(read(t, path)) != text || string(read(t, path+"x.1")) != text {
			t.Errorf("%q is lost", text)
		}
	}
	path := filepath.Join(dir, "log")
	write(t, path, goodLog)
	if err := os.Mkdir(path+".1", 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := openLog(path, 0); err == nil {
		t.Error("a folder would be replaced")
	}
}

// A log that is written belongs to that run: from before its start, when the run began with a new file
// or with an old one, and to its end.
func TestOpenLogLocked(t *testing.T) {
	for _, before := range []string{"", goodLog} {
		path := filepath.Join(t.TempDir(), "log.jsonl")
		if before != "" {
			write(t, path, before)
		}
		refused := func(when string) {
			t.Helper()
			for _, keep := range []int64{0, int64(len(goodLog))} {
				if _, err := openLog(path, keep); err == nil || image.KindOf(err) != image.KindInvalid || !strings.Contains(err.Error(), "another stress is writing the log") {
					t.Errorf("%s: %v", when, err)
				} else if hint := hintOf(err); strings.Contains(hint, "--log") != (keep == 0) {
					t.Errorf("%s: the hint is %q", when, hint)
				}
			}
		}
		l := opened(t, path, 0)
		refused("before the start")
		if _, err := l.start(); err != nil {
			t.Fatal(err)
		}
		refused("after the start")
		if _, err := l.WriteString(failedLog); err != nil {
			t.Fatal(err)
		}
		refused("in the run")
		if string(read(t, path)) != failedLog {
			t.Error("the log is changed")
		}
		l.Close()
		opened(t, path, 0)
	}
}

// stores is a Target that takes everything.
type stores struct{ load.Target }

func (stores) Put(context.Context, load.Upload) (load.Outcome, error) {
	return load.Outcome{Owner: 1, Attempts: 1}, nil
}

func (stores) Status(context.Context) ([]runlog.NodeSample, error) { return nil, errDown }

// notes is a View that keeps what it is told in words.
type notes struct {
	said     []string
	uploaded int
}

func (*notes) Watch(*Tally)         {}
func (*notes) Update(*Tally)        {}
func (n *notes) Uploaded(*Tally)    { n.uploaded++ }
func (*notes) Record(runlog.Record) {}
func (*notes) Stage(Stage)          {}
func (n *notes) Note(text string)   { n.said = append(n.said, text) }
func (*notes) Crash()               {}

// A run says what became of the log before it.
func TestRunTellsOfOldLog(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(-1)) // Drive lowers it
	path := filepath.Join(t.TempDir(), "log.jsonl")
	for i, want := range []int{0, 1} {
		o := Options{
			Profile: "quick", Count: 1, Concurrency: 1, User: "u", Delivery: "relay", Log: path,
			Spec: genimg.Spec{Seed: 1, MinPixels: 16, MaxPixels: 16},
		}
		run, err := New(config.Default(), o)
		if err != nil {
			t.Fatal(err)
		}
		if err := run.Check(); err != nil {
			t.Fatal(err)
		}
		if older, err := run.OpenLog(); err != nil || (older != "") != (want == 1) {
			t.Fatalf("the log before becomes %q, %v", older, err)
		}
		run.load.Target = stores{}
		var view notes
		if err := run.Drive(t.Context(), &view); err != nil {
			t.Fatal(err)
		}
		if len(view.said) != want || want == 1 && !strings.Contains(view.said[0], path+".1") || view.uploaded != 1 {
			t.Errorf("run %d: %+v", i, view)
		}
		l := opened(t, path, 1)
		if !isLog(l.File) {
			t.Errorf("the log is %s", read(t, path))
		}
		l.Close()
	}
}

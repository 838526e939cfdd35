package runlog_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgcluster/cluster/image"
	"imgcluster/modes/runlog"
	"imgcluster/modes/runlog/logtest"
)

// Logs of runs: complete, with a failed upload, of a run killed in a record, and of a run killed at its
// start.
const (
	endLine   = `{"type":"end","elapsed_s":0.1}` + "\n"
	goodLog   = logtest.RunLine + logtest.UploadLine + endLine
	failedLog = logtest.RunLine + logtest.UploadLine + failedUpload + endLine
	cutLog    = goodLog + `{"type":"upl`
	chaosLog  = `{"type":"run","schema":1,"nodes":[1],"count":2,"concurrency":1,"replicas":1,"faults":1}` + "\n"

	failedUpload = `{"type":"upload","seq":2,"name":"b.png","class":"small","bytes":10,"start_s":0,` +
		`"latency_s":0.1,"ok":false,"error":"no quorum","attempts":3,"sent_bytes":0}` + "\n"
)

// opened opens a log for a run that leaves so many bytes of it.
func opened(t *testing.T, path string, keep int64) *runlog.File {
	t.Helper()
	l, err := runlog.OpenFile(path, keep)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// A run that is refused leaves the log as it was, one that starts keeps it under another name.
func TestOpenFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.jsonl")
	if err := opened(t, path, 0).Discard(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a discarded log stays")
	}
	write(t, path, goodLog)
	if err := opened(t, path, 0).Discard(); err != nil || logtest.File(t, path) != goodLog {
		t.Errorf("the old log is lost: %v", err)
	}
	newerLog := strings.Replace(goodLog, `"schema":1`, `"schema":9`, 1)
	for _, text := range []string{failedLog, chaosLog, newerLog} {
		write(t, path, text)
		l := opened(t, path, 0)
		older, err := l.Start()
		if err != nil || older != path+".1" || logtest.File(t, older) != text || len(logtest.File(t, path)) != 0 {
			t.Errorf("the old log is kept as %q: %v", older, err)
		}
		if _, err := l.WriteString("new"); err != nil || logtest.File(t, path) != "new" {
			t.Errorf("the new log: %v", err)
		}
		l.Close()
	}
	// An empty file, as a run leaves that was killed at its start, hides no other.
	write(t, path, "")
	l := opened(t, path, 0)
	if older, err := l.Start(); err != nil || older != "" {
		t.Errorf("an empty log is kept as %q: %v", older, err)
	}
	l.Close()
	write(t, path, cutLog)
	l = opened(t, path, int64(len(goodLog)))
	if older, err := l.Start(); err != nil || older != "" || logtest.File(t, path) != goodLog {
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
func TestOpenFileLink(t *testing.T) {
	dir := t.TempDir()
	link, file := filepath.Join(dir, "link.jsonl"), filepath.Join(dir, "file.jsonl")
	write(t, file, goodLog)
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	l := opened(t, link, 0)
	older, err := l.Start()
	if err != nil || older != file+".1" || logtest.File(t, older) != goodLog || len(logtest.File(t, link)) != 0 {
		t.Errorf("kept as %q, %v", older, err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("%v, %v", info, err)
	}
}

// What is no log is not replaced, neither as the log nor as the one before it.
func TestOpenFileRefuses(t *testing.T) {
	dir := t.TempDir()
	for i, text := range []string{
		"text",
		"\n" + "text\n",
		"1\n",
		`{"type":"run"}` + "\n",
		`{"type":"event","t_s":1,"kind":"other"}` + "\n",
		strings.TrimSuffix(chaosLog, "\n"),
		"\x89PNG\r\n",
	} {
		path := filepath.Join(dir, string(rune('a'+i)))
		write(t, path, text)
		write(t, path+"x", goodLog)
		write(t, path+"x.1", text)
		for _, path := range []string{path, path + "x"} {
			_, err := runlog.OpenFile(path, 0)
			if image.KindOf(err) != image.KindInvalid || !strings.Contains(err.Error(), "is not the log of a run") {
				t.Errorf("%q: %v", text, err)
			}
		}
		if logtest.File(t, path) != text || logtest.File(t, path+"x.1") != text {
			t.Errorf("%q is lost", text)
		}
	}
	path := filepath.Join(dir, "log")
	write(t, path, goodLog)
	if err := os.Mkdir(path+".1", 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := runlog.OpenFile(path, 0); err == nil {
		t.Error("a folder would be replaced")
	}
}

// A log that is written belongs to that run: from before its start, when the run began with a new file
// or with an old one, and to its end.
func TestOpenFileLocked(t *testing.T) {
	for _, before := range []string{"", goodLog} {
		path := filepath.Join(t.TempDir(), "log.jsonl")
		if before != "" {
			write(t, path, before)
		}
		expectRefused := func(when string) {
			t.Helper()
			for _, keep := range []int64{0, int64(len(goodLog))} {
				_, err := runlog.OpenFile(path, keep)
				var refused *image.Error
				if !errors.As(err, &refused) || refused.Kind != image.KindInvalid ||
					!strings.Contains(err.Error(), "is writing the log") {
					t.Errorf("%s: %v", when, err)
				} else if hint := refused.Hint(); strings.Contains(hint, "--log") != (keep == 0) {
					t.Errorf("%s: the hint is %q", when, hint)
				}
			}
		}
		l := opened(t, path, 0)
		expectRefused("before the start")
		if _, err := l.Start(); err != nil {
			t.Fatal(err)
		}
		expectRefused("after the start")
		if _, err := l.WriteString(failedLog); err != nil {
			t.Fatal(err)
		}
		expectRefused("in the run")
		if logtest.File(t, path) != failedLog {
			t.Error("the log is changed")
		}
		l.Close()
		opened(t, path, 0)
	}
}

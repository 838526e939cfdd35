package modes

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestOneFileTwice gives commands one file for two purposes, under all the names that a file can have.
// They are refused, and every file stays as it was.
func TestOneFileTwice(t *testing.T) {
	dir := badFolder(t)
	t.Chdir(dir)
	must(t,
		os.Symlink("good.jsonl", "link.jsonl"),
		os.Link("good.jsonl", "hard.jsonl"),
		os.Symlink("none.jsonl", "dangling.jsonl"),
		os.Mkdir("few", 0o755),
		os.WriteFile("few/log.jsonl", []byte(goodLog), 0o644),
		os.Symlink("few", "other"),
		os.Link("two.jsonl", "good.jsonl.1"),
	)
	before := contents(t, dir)
	for _, test := range []struct{ args, said string }{
		{"report good.jsonl --html good.jsonl", "--html good.jsonl is the same file as good.jsonl, which is read"},
		{"report good.jsonl --html ./sub/../good.jsonl", "the same file"},
		{"report good.jsonl --html " + filepath.Join(dir, "good.jsonl"), "the same file"},
		{"report good.jsonl --html link.jsonl", "the same file"},
		{"report link.jsonl --html good.jsonl", "the same file"},
		{"report good.jsonl --html hard.jsonl", "name another file with --html"},
		{"report failed.jsonl good.jsonl --html good.jsonl", "the same file"},
		{"report failed.jsonl --compare good.jsonl --html good.jsonl", "the same file as --compare good.jsonl"},
		{"report good.jsonl --html imgcluster.yaml", "the same file as the configuration imgcluster.yaml"},
		{"report good.jsonl --html -", "a page is not printed"},
		{"report good.jsonl --html=", "--html names nothing"},
		{"report good.jsonl --compare=", "a variable of the shell may be empty"},
		{"report good.jsonl --html /dev/null", "is not a file"},
		{"stress --log both --html both", "--log both and --html both are the same file"},
		{"stress --log both --html sub/../both", "are the same file"},
		{"stress --log few/both --html other/both", "are the same file"},
		{"stress --log dangling.jsonl --html none.jsonl", "are the same file"},
		{"stress --log good.jsonl --html hard.jsonl", "are the same file"},
		{"stress --log good.jsonl --html link.jsonl", "are the same file"},
		{"stress --log good.jsonl --compare good.jsonl", "is the log of this run, which replaces it"},
		{"stress --log good.jsonl --compare hard.jsonl", "name this run's log with --log, such as --log new.jsonl"},
		{"stress --resume two.jsonl --compare two.jsonl", "name the log of another run with --compare"},
		{"stress --compare broken.jsonl", "line 3"},
		{"stress --compare one.png", "one.png: not the log of a run"},
		{"stress --compare /dev/null", "is read twice"},
		{"stress --html good.jsonl --compare good.jsonl", "the same file as --compare good.jsonl"},
		{"stress --images few --log few/log.jsonl", "is one of the files in --images few"},
		{"stress --images few --html other/log.jsonl", "is one of the files in --images few"},
		{"stress --html=", "--html names nothing"},
		{"stress --compare=", "--compare names nothing"},
		{"stress --log good.jsonl --compare good.jsonl.1", "the same file as --compare good.jsonl.1"},
		{"stress --log good.jsonl --compare two.jsonl", "name another file with --log"},
		{"stress --log good.jsonl --html good.jsonl.1", "good.jsonl.1, are the same file"},
		{"stress --log one.png", "one.png is there, and is not the log of a run"},
		{"stress --log imgcluster.yaml --html other.html", "is not the log of a run"},
		{"stress --log=", "--log names nothing"},
		{"stress --log -", "the log is not printed"},
		{"stress --resume=", "--resume names nothing"},
		{"stress --images=", "--images names nothing"},
		{"demo --compare one.png", "one.png: not the log of a run"},
	} {
		call(t, strings.Fields(test.args)...).expectRefused(t, exitUsage, test.said)
	}
	if after := contents(t, dir); after != before {
		t.Errorf("the folder has now\n%s\ninstead of\n%s", after, before)
	}
}

// TestOutputIsInput redirects the output of a command to a file that it reads or writes.
func TestOutputIsInput(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeConfig(t, dir, "")
	path := filepath.Join(dir, "log.jsonl")
	if err := os.WriteFile(path, []byte(goodLog), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{"report log.jsonl", "stress", "report failed.jsonl --html log.jsonl"} {
		out, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		var errs strings.Builder
		cmd := program(t, dir, strings.Fields(args)...)
		cmd.Stdout = out
		cmd.Stderr = &errs
		cmd.Run() // the error is in its state
		out.Close()
		e := ended{line: args, err: errs.String(), status: cmd.ProcessState.ExitCode()}
		e.expectRefused(t, exitUsage, "hint: redirect standard output to another file")
		if text := string(read(t, path)); text != goodLog {
			t.Errorf("%s: the log is %s now", args, text)
		}
	}
}

// contents returns the names and texts of small files in a folder.
func contents(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		all.WriteString(path + "\n")
		if info.Mode().IsRegular() && info.Size() < 1<<20 {
			all.Write(read(t, path))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

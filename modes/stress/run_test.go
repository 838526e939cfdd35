package stress

import (
	"context"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"imgcluster/config"
	"imgcluster/genimg"
	"imgcluster/modes/runlog"
	"imgcluster/modes/runlog/logtest"
	"imgcluster/modes/stress/load"
)

// stores is a Target that takes everything.
type stores struct{ load.Target }

func (stores) Put(context.Context, load.Upload) (load.Outcome, error) {
	return load.Outcome{Owner: 1, Attempts: 1}, nil
}

func (stores) Status(context.Context) ([]runlog.NodeSample, error) { return nil, errDown }

// notes is a View that keeps the notes.
type notes struct {
	said     []string
	uploaded int // calls of Uploaded
}

func (*notes) Watch(*Tally)         {}
func (*notes) Update(*Tally)        {}
func (n *notes) Uploaded(*Tally)    { n.uploaded++ }
func (*notes) Record(runlog.Record) {}
func (*notes) Stage(Stage)          {}
func (n *notes) Note(text string)   { n.said = append(n.said, text) }
func (*notes) Crash()               {}

// A run keeps the log of the run before under another name, and says so.
func TestRunKeepsOldLog(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(-1)) // Drive lowers it
	path := filepath.Join(t.TempDir(), "log.jsonl")
	for i, want := range []int{0, 1} {
		o := Options{
			Profile:     "quick",
			Count:       1,
			Concurrency: 1,
			User:        "u",
			Delivery:    "relay",
			Log:         path,
			Spec:        genimg.Spec{Seed: 1, MinPixels: 16, MaxPixels: 16},
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
		if len(view.said) != want || view.uploaded != 1 {
			t.Errorf("run %d: %+v", i, view)
		}
		if want == 1 && !strings.Contains(view.said[0], path+".1") {
			t.Errorf("run %d says %q", i, view.said)
		}
		text := logtest.File(t, path)
		if log, err := runlog.Read(strings.NewReader(text)); err != nil || log.Run.Schema == 0 {
			t.Errorf("the log is %s: %v", text, err)
		}
		l, err := runlog.OpenFile(path, 1)
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
	}
}

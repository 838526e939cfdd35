// Package stress makes one run of the stress test: it estimates what the run needs, checks the cluster
// (preflight), uploads under load while nodes are made to fail, reads the images back and deletes them.
// It can resume an interrupted run. It writes the run's log and tells a View what to show.
package stress

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"

	"imgcluster/cluster/client"
	"imgcluster/cluster/printable"
	"imgcluster/config"
	"imgcluster/modes/runlog"
	"imgcluster/modes/stress/chaos"
	"imgcluster/modes/stress/load"
)

// clientHeapBytes is the soft limit of the client's heap, which does not hold images.
const clientHeapBytes = 64 << 20

// View shows a run under way. It is called from several goroutines at once.
type View interface {
	Watch(t *Tally)           // uploads are about to begin
	Update(t *Tally)          // the figures have changed
	Uploaded(t *Tally)        // all uploads have ended
	Record(rec runlog.Record) // a record was written; one call at a time
	Stage(s Stage)
	Note(text string)
	Crash() // the process is about to end by a panic
}

// Stage is the progress of a stage that follows the uploads.
type Stage struct {
	What        string // is done with the images
	Done, Total int64
	Text        string
}

// Run is one run: New, Check, OpenLog, Preflight, then Drive or Discard.
type Run struct {
	Options
	cfg    *config.Config
	load   load.Options
	faults []chaos.Fault
	c      *client.Client
	log    *runlog.File
}

// New opens the source of the run's images.
func New(cfg *config.Config, o Options) (*Run, error) {
	source, err := o.source(cfg)
	if err != nil {
		return nil, err
	}
	return &Run{Options: o, cfg: cfg, load: load.Options{Source: source}}, nil
}

// LeftOut returns how many entries of the folder of images are not sent, of how many, and for the first
// of them which and why.
func (r *Run) LeftOut() (count, of int, named []string) {
	if files, ok := r.load.Source.(*load.Files); ok {
		count, named = files.LeftOut()
		of = count + files.Len()
	}
	return count, of, named
}

// Sends reports whether a file is one of the run's images.
func (r *Run) Sends(file os.FileInfo) bool {
	files, ok := r.load.Source.(*load.Files)
	return ok && files.Has(file)
}

// Check refuses options that contradict each other.
func (r *Run) Check() error {
	r.load.Run = r.run(r.cfg)
	r.load.Users = r.owners()
	r.load.Resume = r.Past.resume()
	if err := r.load.Check(); err != nil {
		return err
	}
	faults, err := r.planFaults(r.cfg)
	if err != nil {
		return err
	}
	r.faults = faults
	r.load.Run.Faults = len(faults)
	if count, _, named := r.LeftOut(); count > 0 {
		r.load.Run.LeftOut = named
	}
	return nil
}

// Needs estimates what the run needs. Check comes first.
func (r *Run) Needs() Needs { return r.needs(r.cfg, &r.load) }

// OpenLog makes sure that the log can be written, and locks it. It returns the name that an existing log will
// get; empty when there is none, or when this run resumes it.
func (r *Run) OpenLog() (older string, err error) {
	if r.log, err = runlog.OpenFile(r.Log, r.Past.size()); err != nil {
		return "", err
	}
	return r.log.Older(), nil
}

// Discard gives up a run that has not begun: an existing log stays as it was.
func (r *Run) Discard() error { return r.log.Discard() }

// Preflight asks every node of the cluster, and returns what the run needs and the checks of that. It
// completes the first record of the log.
func (r *Run) Preflight(ctx context.Context, c *client.Client) (Needs, []Check, error) {
	r.c = c
	needs := r.Needs()
	found, err := preflight(ctx, c, r.cfg, filepath.Dir(r.Log))
	if err != nil {
		return needs, nil, err
	}
	found.version = r.Version
	if err := r.Past.checkCluster(ctx, r.cfg, c, found, r.Force); err != nil {
		return needs, nil, err
	}
	found.describe(r.cfg, &r.load.Run)
	r.load.Target = NewTarget(c, found.status, r.Delivery == string(client.Auto))
	return needs, found.judge(r.cfg, &r.Options, needs), nil
}

// Drive makes the uploads and the stages that follow, and writes the log. When ctx ends before that, the
// log is completed nevertheless and the error is load.ErrInterrupted.
func (r *Run) Drive(ctx context.Context, v View) (err error) {
	older, err := r.log.Start()
	if err != nil {
		return errors.Join(err, r.log.Close())
	}
	if older != "" {
		v.Note(fmt.Sprintf("The log of the run before is %s now.", older))
	}
	run := r.load
	run.Log = runlog.NewWriter(r.log)
	defer func() { err = errors.Join(err, run.Log.Close(), r.log.Close()) }()
	if r.Chaos || r.Verify {
		run.Stored = &load.Stored{}
		r.Past.stored(run.Stored)
	}
	tally := NewTally(run)
	run.Waiting = &tally.Waiting
	run.Observe = func(rec runlog.Record) {
		tally.Take(rec)
		v.Record(rec)
		if e, ok := rec.(runlog.Event); ok && e.Kind == runlog.EventDelivery {
			v.Note("Delivery: " + e.Detail + ".")
		}
		v.Update(tally)
	}
	if r.Chaos {
		faults := &chaosRun{
			cfg:     r.cfg,
			c:       r.c,
			plan:    r.faults,
			nodes:   r.Nodes,
			say:     v.Note,
			changed: func() { v.Update(tally) },
		}
		tally.faults = faults.String
		faults.addTo(&run)
	}
	v.Watch(tally)
	run.Crash = v.Crash
	stop := context.AfterFunc(ctx, func() {
		v.Note("Stopping when the running uploads have ended; Ctrl-C again stops at once.")
	})
	defer stop()
	debug.SetMemoryLimit(clientHeapBytes)
	run.After = func(ctx context.Context, l load.Recorder) error {
		v.Uploaded(tally)
		return r.after(ctx, &run, v, l)
	}
	return load.Run(ctx, run)
}

// after makes the stages that follow the uploads: all images are read back, then deleted. They are
// deleted also when the run was interrupted. A failure to delete them is a note, and makes the run
// incomplete.
func (r *Run) after(ctx context.Context, run *load.Options, v View, l load.Recorder) (err error) {
	if run.Stored != nil && !r.Past.readAll(run.Stored) {
		back := &readBack{c: r.c, source: run.Source, show: v.Stage}
		err = back.run(ctx, run.Stored.All(), l)
	}
	if r.Cleanup && !r.Past.cleanedAll() {
		if err := cleanRun(context.WithoutCancel(ctx), r.c, r.Log, v, l); err != nil {
			v.Note(fmt.Sprintf("images of the run are still there: %v; delete them with: imgcluster clean --log %s",
				err, printable.Argument(r.Log)))
		}
	}
	return err
}

package modes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"imgcluster/cluster/client"
	"imgcluster/cluster/image"
	"imgcluster/config"
	"imgcluster/genimg"
	"imgcluster/modes/chaos"
	"imgcluster/modes/load"
	"imgcluster/modes/result"
)

const (
	concurrencyDefault = 8
	stressUser         = "stresstest"

	preflightTimeout = 2500 * time.Millisecond // for a first answer of the cluster, and for its quorum
	preflightPoll    = 100 * time.Millisecond
	clientHeapBytes  = 64 << 20 // soft limit of the client's heap; images are outside of it
)

// profiles are the sizes of a run, in images.
var profiles = map[string]int64{"quick": 30, "demo": 50, "extreme": 1500}

type stressOptions struct {
	profile     string
	count       int64 // 0: the profile's
	spec        genimg.Spec
	images      string // folder of files to upload instead
	concurrency int
	user        string
	delivery    string
	log         string
	yes         bool
	chaos       bool
	faults      int         // 0: by the number of uploads
	nodes       chaos.Nodes // who can make nodes fail; nil: up, by its socket
}

func newStress(e *env) *cobra.Command {
	o := stressOptions{}
	cmd := &cobra.Command{
		Use:   "stress",
		Short: "Upload the test set, judge the run, and report",
		Long: `Upload images to a running cluster from several workers at once, record every upload
and the nodes' figures in a log, and end with the report. The images are made in memory,
the same for the same seed, unless --images names a folder.

Profiles: quick 30, demo 50, extreme 1500 images of 5 to 25 MB. The first Ctrl-C lets
running uploads end and reports on what was done, the second stops at once.

With --chaos, nodes that imgcluster up started on this machine are killed, paused and
restarted meanwhile, one at a time, as --seed decides. In the end every image is read
back and compared with what was sent.`,
		Example: "  imgcluster stress\n  imgcluster stress --profile extreme --yes\n  imgcluster stress --chaos\n  imgcluster stress --count 200 --min-pixels 200 --max-pixels 800",
		Args:    args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("count") && o.count < 1 {
				return usagef("give --count a number from 1, or leave it out", "a run of %d uploads", o.count)
			}
			return runStress(cmd.Context(), e, o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.profile, "profile", "quick", "quick, demo or extreme")
	f.Int64Var(&o.count, "count", 0, "number of uploads (default the profile's, or the files in --images)")
	f.IntVar(&o.concurrency, "concurrency", concurrencyDefault, "uploads at once")
	f.StringVar(&o.images, "images", "", "upload the files in this folder, of any format")
	f.StringVar(&o.user, "user", stressUser, "whose images they become")
	f.StringVar(&o.delivery, "delivery", string(client.Broadcast), "broadcast to all nodes, or relay through one")
	f.StringVar(&o.log, "log", "log.jsonl", "file for the run's log")
	f.BoolVar(&o.yes, "yes", false, "start the extreme profile without asking")
	specFlags(cmd, &o.spec)
	o.chaosFlags(cmd)
	return cmd
}

// chaosFlags are the options of faults.
func (o *stressOptions) chaosFlags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&o.chaos, "chaos", false, "kill, pause and restart single nodes meanwhile; then read all images back")
	cmd.Flags().IntVar(&o.faults, "faults", 0, "number of faults with --chaos (default one for 60 uploads, 3 at least)")
}

func runStress(ctx context.Context, e *env, o stressOptions) error {
	cfg, err := e.load()
	if err != nil {
		return err
	}
	source, err := o.source()
	if err != nil {
		return err
	}
	if err := checkUser(o.user); err != nil {
		return err
	}
	run := load.Options{Run: o.run(cfg), User: o.user, Source: source}
	if err := run.Check(); err != nil {
		return err
	}
	plan, err := o.plan(cfg)
	if err != nil {
		return err
	}
	run.Run.Faults = len(plan)
	c, err := e.client(cfg, client.Delivery(o.delivery))
	if err != nil {
		return err
	}
	defer c.Close()
	log, err := openLog(o.log)
	if err != nil {
		return err
	}
	status, err := preflight(ctx, c)
	if err == nil && o.chaos && o.nodes == nil {
		var up *session
		if up, err = openSession(ctx, e, cfg); err == nil {
			defer up.close()
			o.nodes = up
		}
	}
	if err == nil {
		err = e.confirm(o, cfg, status)
	}
	if err != nil {
		return errors.Join(err, log.discard())
	}
	p := e.progress()
	defer p.end()
	run.Target = target{c}
	var trial *trial
	if o.chaos {
		trial = newTrial(cfg, c, p, o, plan)
		trial.join(&run)
	}
	runErr := e.drive(ctx, run, log, p, trial)
	if runErr != nil && !errors.Is(runErr, load.ErrInterrupted) {
		return runErr
	}
	if err := runReport(e, o.log); err != nil {
		return err
	}
	return runErr
}

// source checks the options and opens where the images come from.
func (o *stressOptions) source() (load.Source, error) {
	count, ok := profiles[o.profile]
	if !ok {
		return nil, usagef("use one of "+strings.Join(slices.Sorted(maps.Keys(profiles)), ", "), "no profile is named %q", o.profile)
	}
	if o.delivery != string(client.Broadcast) && o.delivery != string(client.Relay) {
		return nil, usagef("use broadcast or relay", "no delivery is named %q", o.delivery)
	}
	if o.images != "" {
		files, err := load.OpenFiles(o.images)
		if err != nil {
			return nil, err
		}
		count = int64(files.Len())
		if o.count == 0 {
			o.count = count
		}
		return files, nil
	}
	if o.count == 0 {
		o.count = count
	}
	return load.Generated{Spec: o.spec}, o.spec.Validate()
}

// run is the first record of the log.
func (o stressOptions) run(cfg *config.Config) result.Run {
	run := result.Run{
		Profile: o.profile, Count: o.count, Concurrency: o.concurrency, Delivery: o.delivery,
		Replicas: cfg.Cluster.Replicas, Version: version(), Images: o.images,
	}
	if o.images == "" {
		run.Seed = o.spec.Seed
		if o.spec != genimg.Default(o.spec.Seed) {
			run.MinPixels, run.MaxPixels = o.spec.MinPixels, o.spec.MaxPixels
		}
	}
	for _, n := range cfg.Cluster.Nodes {
		run.Nodes = append(run.Nodes, int(n.ID))
	}
	return run
}

// preflight finds the cluster, and waits a little for its quorum: an election is over soon.
func preflight(ctx context.Context, c *client.Client) (image.ClusterStatus, error) {
	limited, cancel := context.WithTimeout(ctx, preflightTimeout)
	defer cancel()
	for {
		status, err := c.Cluster(limited)
		switch {
		case ctx.Err() != nil:
			return status, ctx.Err()
		case limited.Err() != nil && err != nil:
			return status, fmt.Errorf("%w within %s", client.ErrNobodyAnswers, preflightTimeout)
		case err != nil || status.Ready:
			return status, err
		}
		select {
		case <-limited.Done():
			return status, notReady(status)
		case <-time.After(preflightPoll):
		}
	}
}

// drive makes the uploads and writes the log, to its end also when the run is stopped.
func (e *env) drive(ctx context.Context, run load.Options, file *logFile, p *progress, t *trial) (err error) {
	if err := file.start(); err != nil {
		return err
	}
	run.Log = result.NewWriter(file)
	defer func() { err = errors.Join(err, run.Log.Close(), file.Close()) }()
	var last atomic.Pointer[load.Snapshot]
	show := func(s *load.Snapshot, final bool) {
		seconds := s.Elapsed.Seconds()
		p.show(final, "%d of %d uploads, %.1f/s, %s/s, %d failed%s", s.Done, s.Count, float64(s.Done)/seconds,
			formatBytes(int64(float64(s.Bytes)/seconds)), s.Failed, t.suffix())
	}
	run.Progress = func(s load.Snapshot) {
		last.Store(&s)
		show(&s, s.Done == s.Count)
	}
	t.onChange(func() {
		if s := last.Load(); s != nil {
			show(s, false)
		}
	})
	stop := context.AfterFunc(ctx, func() { p.note("Stopping when the running uploads have ended; Ctrl-C again stops at once.") })
	defer stop()
	debug.SetMemoryLimit(clientHeapBytes)
	if err := load.Run(ctx, run); err != nil || run.After == nil || ctx.Err() == nil {
		return err
	}
	return fmt.Errorf("%w while images were read back", load.ErrInterrupted)
}

// logFile is the run's log. What it held before stays until the run starts.
type logFile struct {
	*os.File
	fresh bool // was not there before
}

// openLog finds out that the log can be written.
func openLog(path string) (*logFile, error) {
	const hint = "name a file that can be written with --log"
	_, statErr := os.Stat(path)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, usagef(hint, "the log %s: %w", path, noPath(err))
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, usagef(hint, "the log %s is not a file", path)
	}
	return &logFile{f, errors.Is(statErr, fs.ErrNotExist)}, nil
}

// start empties the log.
func (l *logFile) start() error {
	if err := l.Truncate(0); err != nil {
		return fmt.Errorf("the log: %w", err)
	}
	return nil
}

// discard leaves the file as it was found.
func (l *logFile) discard() error {
	if l.fresh {
		os.Remove(l.Name()) // an empty file is all that stays
	}
	return l.Close()
}

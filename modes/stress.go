package modes

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"imgcluster/cluster/client"
	"imgcluster/cluster/printable"
	"imgcluster/config"
	"imgcluster/genimg"
	"imgcluster/modes/local"
	"imgcluster/modes/runlog"
	"imgcluster/modes/stress/chaos"
	"imgcluster/modes/stress/load"
)

const (
	concurrencyDefault = 8
	rateInFlight       = 64 // operations at once of an open loop: what a node takes by default
	stressUser         = load.DefaultUser

	clientHeapBytes = 64 << 20 // soft limit of the client's heap; images are outside of it
)

// profiles are the sizes of a run, in images.
var profiles = map[string]int64{"quick": 30, "demo": 50, "extreme": 1500}

type stressOptions struct {
	profile     string
	count       int64 // 0: the profile's
	spec        genimg.Spec
	images      string // folder of files to upload instead
	concurrency int
	rate        float64 // uploads/s of an open loop
	arrivals    string
	duration    time.Duration // instead of count
	warmup      time.Duration
	mix         mix
	user        string
	users       int // 0: 1
	delivery    string
	log         string
	resume      string   // the log of an interrupted run
	past        *pastRun // what it says
	yes         bool
	force       bool // goes on when the preflight finds a fault
	demo        bool // a demo, which has fewer options
	dryRun      bool
	verify      bool // reads all images back
	cleanup     bool // deletes them
	keep        bool
	chaos       bool
	faults      int         // 0: by the number of uploads
	nodes       chaos.Nodes // who can make nodes fail; nil: up, by its socket
	report      reportOptions
}

func newStress(e *env) *cobra.Command {
	o := stressOptions{}
	cmd := &cobra.Command{
		Use:   "stress",
		Short: "Upload the test set, judge the run, and report",
		Long: `Upload images to a running cluster from several workers at once, record every
upload and the nodes' figures in a log, and end with the report. The images are
made in memory, the same for the same seed, unless --images names a folder. The
log of the run before is kept, with .1 at the end of its name.

Profiles: quick 30, demo 50, extreme 1500 images of 5 to 25 MB. Before it
starts, a preflight checks the nodes, disks, memory, clocks and limits;
--dry-run ends there. The first Ctrl-C lets running uploads end and reports on
what was done, the second stops at once; --resume does what is missing then:
uploads, reading images back, deleting them.

With --rate, uploads begin at their time whether or not others have ended, and
latency counts from that time. With --json, the records of the log go to
standard output as they are made, and the report is the last line, of type
"report".

With --chaos, nodes that imgcluster up started on this machine are killed,
paused and restarted meanwhile, one at a time, as --seed decides. In the end
every image is read back and compared with what was sent, as with --verify.`,
		Example: "  imgcluster stress\n  imgcluster stress --profile extreme --yes\n  imgcluster stress --chaos\n" +
			"  imgcluster stress --rate 5 --arrivals poisson --duration 2m --mix read=20\n  imgcluster stress --resume log.jsonl",
		Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.complete(cmd.Flags()); err != nil {
				return err
			}
			return runStress(cmd.Context(), e, o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.profile, "profile", "quick", "quick, demo or extreme")
	f.Int64Var(&o.count, "count", 0, "number of uploads (default the profile's, or the files in --images)")
	f.DurationVar(&o.duration, "duration", 0, "upload for that long instead, such as 10m")
	f.DurationVar(&o.warmup, "warmup", 0, "leave what begins in the first part of the run out of the figures")
	f.IntVar(&o.concurrency, "concurrency", concurrencyDefault, "uploads at once; with --rate at most so many, 64 by default")
	f.Float64Var(&o.rate, "rate", 0, "uploads a second, each at its time (default: each when another has ended)")
	f.StringVar(&o.arrivals, "arrivals", "", "with --rate: constant or poisson (default constant)")
	f.Var(&o.mix, "mix", "part of the operations that read an earlier image, as `read=PERCENT`")
	f.StringVar(&o.images, "images", "", "upload the files in this folder, of any format")
	f.StringVar(&o.user, "user", stressUser, "whose images they become")
	f.IntVar(&o.users, "users", 1, "number of users, who take turns: USER, USER-2, ...")
	f.StringVar(&o.delivery, "delivery", string(client.Broadcast), "broadcast to all nodes, or relay through one")
	f.StringVar(&o.log, "log", "log.jsonl", "file for the run's log")
	f.StringVar(&o.resume, "resume", "", "do what is missing of the run of this log")
	f.BoolVar(&o.yes, "yes", false, "start the extreme profile without asking")
	f.BoolVar(&o.force, "force", false, "start although the preflight found something wrong")
	f.BoolVar(&o.dryRun, "dry-run", false, "show what the run takes and the preflight, but upload nothing")
	f.BoolVar(&o.verify, "verify", false, "read every image back after the uploads and compare")
	f.BoolVar(&o.cleanup, "cleanup", false, "delete the run's images in the end")
	f.BoolVar(&o.keep, "keep", false, "keep them, which is the default")
	specFlags(cmd, &o.spec)
	o.chaosFlags(cmd)
	o.report.flags(cmd)
	return cmd
}

// chaosFlags are the options of faults.
func (o *stressOptions) chaosFlags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&o.chaos, "chaos", false, "kill, pause and restart single nodes meanwhile; then read all images back")
	cmd.Flags().IntVar(&o.faults, "faults", 0, "number of faults with --chaos (default one for 60 uploads, 3 at least)")
}

// checkFaults refuses a number of faults that is none.
func (o *stressOptions) checkFaults(f *pflag.FlagSet) error {
	if f.Changed("faults") && o.faults < 1 {
		return usagef("give --faults a number from 1, or leave it out", "a run with %d faults", o.faults)
	}
	return nil
}

// mix is the part of operations that read, in percent.
type mix float64

// Set implements pflag.Value.
func (m *mix) Set(s string) error {
	percent, ok := strings.CutPrefix(s, "read=")
	v, err := strconv.ParseFloat(percent, 64)
	if !ok || err != nil {
		return errors.New("want read=PERCENT, such as read=20")
	}
	*m = mix(v)
	return nil
}

func (m *mix) String() string { return "read=" + strconv.FormatFloat(float64(*m), 'g', -1, 64) }

// Type implements pflag.Value.
func (m *mix) Type() string { return "read=PERCENT" }

// complete checks which options go together, and takes those of an interrupted run from its log.
func (o *stressOptions) complete(f *pflag.FlagSet) error {
	if err := o.checkFaults(f); err != nil {
		return err
	}
	switch {
	case o.cleanup && o.keep:
		return usagef("leave out one of them", "--cleanup and --keep contradict each other")
	case f.Changed("resume") && f.Changed("log"):
		return usagef("leave out --log", "--resume goes on in the log that it names")
	case f.Changed("resume") && o.chaos:
		return usagef("make a new run with --chaos", "a run with faults cannot be resumed")
	case f.Changed("resume"):
		past, err := readPast(o.resume)
		if err != nil {
			return err
		}
		o.past, o.log = past, o.resume
		return past.apply(f)
	case f.Changed("count") && o.count < 1:
		return usagef("give --count a number from 1, or leave it out", "a run of %d uploads", o.count)
	case f.Changed("count") && f.Changed("duration"):
		return usagef("leave out one of them", "--count and --duration both say when the run ends")
	case f.Changed("duration") && o.duration <= 0:
		return usagef("give --duration a time, such as 10m", "a run of %v", o.duration)
	case f.Changed("rate") && !(o.rate > 0):
		return usagef("give --rate a number above 0, or leave it out", "a rate of %v uploads/s", o.rate)
	case f.Changed("users") && o.users < 1:
		return usagef("give --users a number from 1, or leave it out", "a run of %d users", o.users)
	}
	if o.rate > 0 && !f.Changed("concurrency") {
		o.concurrency = rateInFlight
	}
	return nil
}

func runStress(ctx context.Context, e *env, o stressOptions) error {
	cfg, err := e.load()
	if err != nil {
		return err
	}
	source, err := o.source(cfg)
	if err != nil {
		return err
	}
	named, left := e.leftOut(o, source)
	if err := errors.Join(checkUser(o.user), o.report.check(e)); err != nil {
		return err
	}
	if err := e.checkOther(o.report); err != nil {
		return err
	}
	run := load.Options{Run: o.run(cfg), Users: o.owners(), Source: source, Resume: o.past.resume()}
	if err := run.Check(); err != nil {
		return err
	}
	plan, err := o.plan(cfg)
	if err != nil {
		return err
	}
	run.Run.Faults, run.Run.LeftOut = len(plan), named
	c, err := e.client(cfg, client.Delivery(o.delivery))
	if err != nil {
		return err
	}
	defer c.Close()
	log, err := openLog(o.log, o.past.size())
	if err != nil {
		return err
	}
	begin := false
	if err = e.runApart(o, log, source); err == nil {
		begin, err = e.prepare(ctx, cfg, c, &o, &run)
	}
	if err == nil && begin && o.chaos && o.nodes == nil {
		var up *local.Session
		if up, err = local.Connect(ctx, cfg, e.sameConfig()); err == nil {
			defer up.Close()
			o.nodes = up
		}
	}
	if err != nil || !begin {
		if err == nil {
			err = left
		}
		return errors.Join(err, log.discard())
	}
	p := e.progress()
	defer p.end()
	var trial *trial
	if o.chaos || o.verify {
		run.Stored = &load.Stored{}
		o.past.stored(run.Stored)
	}
	run.After = func(ctx context.Context, l load.Recorder) error { return o.after(ctx, c, &run, p, l) }
	if o.chaos {
		trial = newTrial(cfg, c, p, o, plan)
		trial.join(&run)
	}
	runErr := e.drive(ctx, run, log, p, trial)
	if runErr != nil && !errors.Is(runErr, load.ErrInterrupted) {
		return runErr
	}
	err = e.finalReport(o.report, o.log)
	if runErr != nil && (err == nil || errors.Is(err, errVerdict)) {
		return runErr // who stopped the run knows why it is incomplete
	}
	if err == nil {
		err = left
	}
	return err
}

// after does what comes after the uploads: all images are read back, then deleted. These go also when the run was
// stopped; that they could not be deleted is told at once, and makes the run incomplete.
func (o *stressOptions) after(ctx context.Context, c *client.Client, run *load.Options, p *progress, l load.Recorder) (err error) {
	if run.Stored != nil && (o.verify || o.chaos) && !o.past.readAll(run.Stored) {
		back := &readBack{c: c, source: run.Source, p: p}
		err = back.run(ctx, run.Stored.All(), l)
	}
	if o.cleanup && !o.past.cleanedAll() {
		if err := cleanRun(context.WithoutCancel(ctx), c, o.log, p, l); err != nil {
			p.note(fmt.Sprintf("images of the run are still there: %v; delete them with: imgcluster clean --log %s", err, printable.Argument(o.log)))
		}
	}
	return err
}

// leftOut says before the run what of the folder of images is not sent, for which the command fails in
// the end, and returns the same for the log.
func (e *env) leftOut(o stressOptions, source load.Source) (named []string, failed error) {
	files, ok := source.(*load.Files)
	if !ok {
		return nil, nil
	}
	count, named := files.LeftOut()
	if count == 0 {
		return nil, nil
	}
	text := fmt.Sprintf("%d of %d in --images %s are not sent", count, count+files.Len(), o.images)
	e.warn(text+":\n"+strings.Join(named, "\n"), "the others are; take these out of the folder, or repair them")
	return named, &partError{text, nil}
}

// prepare looks at the cluster before the run, and tells whether to go on. What the run's first record
// says of the cluster is known then.
func (e *env) prepare(ctx context.Context, cfg *config.Config, c *client.Client, o *stressOptions, run *load.Options) (bool, error) {
	if !o.dryRun {
		if err := e.mayAsk(*o); err != nil {
			return false, err
		}
	}
	takes := o.takes(cfg, run)
	found, err := look(ctx, c, cfg, filepath.Dir(o.log))
	if err != nil {
		return false, err
	}
	if err := o.past.checkCluster(ctx, cfg, c, found, o.force); err != nil {
		return false, err
	}
	found.describe(cfg, &run.Run)
	run.Target = newTarget(c, found.status)
	checks := found.judge(cfg, *o, takes)
	if o.dryRun {
		return false, e.dryRun(takes, checks)
	}
	if !e.quiet {
		writeChecks(e.err, checks, e.color(e.err))
	}
	if err := refusal(checks, !o.demo); err != nil && !o.force {
		return false, err
	}
	return true, e.confirm(*o, takes)
}

// source checks the options and opens where the images come from.
func (o *stressOptions) source(cfg *config.Config) (load.Source, error) {
	count, ok := profiles[o.profile]
	if !ok {
		return nil, usagef("use one of "+strings.Join(slices.Sorted(maps.Keys(profiles)), ", "), "no profile is named %q", o.profile)
	}
	if o.delivery != string(client.Broadcast) && o.delivery != string(client.Relay) {
		return nil, usagef("use broadcast or relay", "no delivery is named %q", o.delivery)
	}
	var source load.Source = load.Generated{Spec: o.spec}
	if o.images != "" {
		files, err := load.OpenFiles(o.images, int64(cfg.Limits.ImageBytes))
		if err != nil {
			return nil, err
		}
		source, count = files, int64(files.Len())
	} else if err := o.spec.Validate(); err != nil {
		return nil, err
	}
	if o.count == 0 && o.duration == 0 {
		o.count = count
	}
	return source, nil
}

// owners are the users of the run.
func (o stressOptions) owners() []string {
	users := []string{o.user}
	for n := 2; n <= o.users; n++ {
		users = append(users, fmt.Sprintf("%s-%d", o.user, n))
	}
	return users
}

// run is the first record of the log.
func (o stressOptions) run(cfg *config.Config) runlog.Run {
	run := runlog.Run{
		Profile: o.profile, Count: o.count, Concurrency: o.concurrency, Delivery: o.delivery,
		Replicas: cfg.Cluster.Replicas, Plan: runlog.Plan{Verify: o.verify || o.chaos, Chaos: o.chaos, Cleanup: o.cleanup},
		Version: version(), Images: o.images, Seed: o.spec.Seed,
		Rate: o.rate, Arrivals: o.arrivals, DurationS: o.duration.Seconds(), WarmupS: o.warmup.Seconds(), ReadPercent: float64(o.mix),
	}
	if o.users > 1 {
		run.Users = o.users
	}
	if o.images == "" && o.spec != genimg.Default(o.spec.Seed) {
		run.MinPixels, run.MaxPixels = o.spec.MinPixels, o.spec.MaxPixels
	}
	for _, n := range cfg.Cluster.Nodes {
		run.Nodes = append(run.Nodes, int(n.ID))
	}
	return run
}

// drive makes the uploads and writes the log, to its end also when the run is stopped.
func (e *env) drive(ctx context.Context, run load.Options, file *logFile, p *progress, t *trial) (err error) {
	older, err := file.start()
	if err != nil {
		return errors.Join(err, file.Close())
	}
	if older != "" {
		e.say("The log of the run before is %s now.", older)
	}
	run.Log = runlog.NewWriter(file)
	defer func() { err = errors.Join(err, run.Log.Close(), file.Close()) }()
	figures := newTally(run, t)
	run.Waiting = &figures.waiting
	stream := e.stream()
	run.Observe = func(rec runlog.Record) {
		figures.take(rec)
		stream.take(rec)
		p.run(false, figures)
	}
	t.onChange(func() { p.run(false, figures) })
	p.watch(figures)
	defer p.end()
	run.Crash = p.crash
	stop := context.AfterFunc(ctx, func() { p.note("Stopping when the running uploads have ended; Ctrl-C again stops at once.") })
	defer stop()
	debug.SetMemoryLimit(clientHeapBytes)
	after := run.After
	run.After = func(ctx context.Context, l load.Recorder) error {
		p.run(true, figures)
		if after == nil {
			return nil
		}
		return after(ctx, l)
	}
	return load.Run(ctx, run)
}

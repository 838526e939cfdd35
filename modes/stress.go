package modes

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"imgcluster/cluster/client"
	"imgcluster/modes/local"
	"imgcluster/modes/stress"
	"imgcluster/modes/stress/load"
)

const (
	concurrencyDefault = 8
	rateInFlight       = 64 // operations at once in an open loop: as many as a node takes by default
	stressUser         = load.DefaultUser
)

type stressOptions struct {
	stress.Options
	resume string // the log of an interrupted run
	yes    bool
	dryRun bool
	keep   bool
	report reportOptions
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
		Example: "  imgcluster stress\n" +
			"  imgcluster stress --profile extreme --yes\n" +
			"  imgcluster stress --chaos\n" +
			"  imgcluster stress --rate 5 --arrivals poisson --duration 2m --mix read=20\n" +
			"  imgcluster stress --resume log.jsonl",
		Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.complete(cmd.Flags()); err != nil {
				return err
			}
			return runStress(cmd.Context(), e, o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Profile, "profile", "quick", "quick, demo or extreme")
	f.Int64Var(&o.Count, "count", 0, "number of uploads (default the profile's, or the files in --images)")
	f.DurationVar(&o.Duration, "duration", 0, "upload for that long instead, such as 10m")
	f.DurationVar(&o.Warmup, "warmup", 0, "leave what begins in the first part of the run out of the figures")
	f.IntVar(&o.Concurrency, "concurrency", concurrencyDefault,
		"uploads at once; with --rate at most so many, 64 by default")
	f.Float64Var(&o.Rate, "rate", 0, "uploads a second, each at its time (default: each when another has ended)")
	f.StringVar(&o.Arrivals, "arrivals", "", "with --rate: constant or poisson (default constant)")
	f.Var((*mix)(&o.ReadPercent), "mix", "part of the operations that read an earlier image, as `read=PERCENT`")
	f.StringVar(&o.Images, "images", "", "upload the files in this folder, of any format")
	f.StringVar(&o.User, "user", stressUser, "whose images they become")
	f.IntVar(&o.Users, "users", 1, "number of users, who take turns: USER, USER-2, ...")
	deliveryFlag(f, &o.Delivery, client.Broadcast)
	f.StringVar(&o.Log, "log", "log.jsonl", "file for the run's log")
	f.StringVar(&o.resume, "resume", "", "do what is missing of the run of this log")
	f.BoolVar(&o.yes, "yes", false, "start the extreme profile without asking")
	f.BoolVar(&o.Force, "force", false, "start although the preflight found something wrong")
	f.BoolVar(&o.dryRun, "dry-run", false, "show what the run takes and the preflight, but upload nothing")
	f.BoolVar(&o.Verify, "verify", false, "read every image back after the uploads and compare")
	f.BoolVar(&o.Cleanup, "cleanup", false, "delete the run's images in the end")
	f.BoolVar(&o.keep, "keep", false, "keep them, which is the default")
	specFlags(cmd, &o.Spec)
	o.chaosFlags(cmd)
	o.report.flags(cmd)
	return cmd
}

// chaosFlags adds the options of a chaos run to a command.
func (o *stressOptions) chaosFlags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&o.Chaos, "chaos", false,
		"kill, pause and restart single nodes meanwhile; then read all images back")
	cmd.Flags().IntVar(&o.Faults, "faults", 0,
		"number of faults with --chaos (default one for 60 uploads, 3 at least)")
}

// checkFaults refuses fewer than one fault.
func (o *stressOptions) checkFaults(f *pflag.FlagSet) error {
	if f.Changed("faults") && o.Faults < 1 {
		return usagef("give --faults a number from 1, or leave it out", "a run with %d faults", o.Faults)
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

// complete refuses options that contradict each other, and sets those of a resumed run from its log.
func (o *stressOptions) complete(f *pflag.FlagSet) error {
	if err := o.checkFaults(f); err != nil {
		return err
	}
	switch {
	case o.Cleanup && o.keep:
		return usagef("leave out one of them", "--cleanup and --keep contradict each other")
	case f.Changed("resume") && f.Changed("log"):
		return usagef("leave out --log", "--resume continues the log that it names")
	case f.Changed("resume") && o.Chaos:
		return usagef("make a new run with --chaos", "a run with faults cannot be resumed")
	case f.Changed("resume"):
		past, err := stress.ReadPast(o.resume)
		if err != nil {
			return err
		}
		o.Past = past
		o.Log = o.resume
		return applyPast(past, f)
	case f.Changed("count") && o.Count < 1:
		return usagef("give --count a number from 1, or leave it out", "a run of %d uploads", o.Count)
	case f.Changed("count") && f.Changed("duration"):
		return usagef("leave out one of them", "--count and --duration both say when the run ends")
	case f.Changed("duration") && o.Duration <= 0:
		return usagef("give --duration a time, such as 10m", "a run of %v", o.Duration)
	case f.Changed("rate") && !(o.Rate > 0):
		return usagef("give --rate a number above 0, or leave it out", "a rate of %v uploads/s", o.Rate)
	case f.Changed("users") && o.Users < 1:
		return usagef("give --users a number from 1, or leave it out", "a run of %d users", o.Users)
	}
	if o.Rate > 0 && !f.Changed("concurrency") {
		o.Concurrency = rateInFlight
	}
	return nil
}

func runStress(ctx context.Context, e *env, o stressOptions) error {
	cfg, err := e.load()
	if err != nil {
		return err
	}
	o.Version = version()
	run, err := stress.New(cfg, o.Options)
	if err != nil {
		return err
	}
	leftOut := e.leftOut(run)
	if err := errors.Join(checkUser(o.User), o.report.check(e)); err != nil {
		return err
	}
	if err := e.checkCompare(o.report); err != nil {
		return err
	}
	if err := run.Check(); err != nil {
		return err
	}
	c, err := e.client(cfg, client.Delivery(o.Delivery))
	if err != nil {
		return err
	}
	defer c.Close()
	older, err := run.OpenLog()
	if err != nil {
		return err
	}
	begin := false
	if err = e.checkRunFiles(o, run, older); err == nil {
		begin, err = e.prepare(ctx, c, o, run)
	}
	if err == nil && begin && o.Chaos && o.Nodes == nil {
		var up *local.Session
		if up, err = local.Connect(ctx, cfg, e.sameConfig()); err == nil {
			defer up.Close()
			run.Nodes = up
		}
	}
	if err != nil {
		return errors.Join(err, run.Discard())
	}
	if !begin {
		return errors.Join(leftOut, run.Discard())
	}
	p := e.progress()
	runErr := run.Drive(ctx, &runView{p, e.stream()})
	p.end()
	if runErr != nil && !errors.Is(runErr, load.ErrInterrupted) {
		return runErr
	}
	err = e.finalReport(o.report, o.Log)
	if runErr != nil && (err == nil || errors.Is(err, errVerdict)) {
		return runErr // in place of the verdict: the user, who stopped the run, knows why it is incomplete
	}
	if err == nil {
		err = leftOut
	}
	return err
}

// leftOut warns, before the run, of entries of the folder of images that are not sent. It returns the
// error with which the command ends for that.
func (e *env) leftOut(run *stress.Run) error {
	count, of, named := run.LeftOut()
	if count == 0 {
		return nil
	}
	text := fmt.Sprintf("%d of %d in --images %s are not sent", count, of, run.Images)
	e.warn(text+":\n"+strings.Join(named, "\n"), "the others are; take these out of the folder, or repair them")
	return &partError{text, nil}
}

// prepare makes the preflight and asks the user, and reports whether the run is to begin.
func (e *env) prepare(ctx context.Context, c *client.Client, o stressOptions, run *stress.Run) (bool, error) {
	if !o.dryRun {
		if err := e.mayAsk(o); err != nil {
			return false, err
		}
	}
	needs, checks, err := run.Preflight(ctx, c)
	if err != nil {
		return false, err
	}
	if o.dryRun {
		return false, e.dryRun(needs, checks)
	}
	if !e.quiet {
		writeChecks(e.err, checks, e.color(e.err))
	}
	if err := stress.Refusal(checks, !o.Demo); err != nil && !o.Force {
		return false, err
	}
	return true, e.confirm(o, needs)
}

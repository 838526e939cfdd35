package modes

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"imgcluster/cluster/client"
	"imgcluster/cluster/image"
	"imgcluster/config"
	"imgcluster/genimg"
	"imgcluster/modes/load"
	"imgcluster/modes/result"
)

const (
	concurrencyDefault = 8
	stressUser         = "stresstest"

	preflightTimeout = 3 * time.Second // for a first answer of the cluster
	clientHeapBytes  = 64 << 20        // soft limit of the client's heap; images are outside of it
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
running uploads end and reports on what was done, the second stops at once.`,
		Example: "  imgcluster stress\n  imgcluster stress --profile extreme --yes\n  imgcluster stress --count 200 --min-pixels 200 --max-pixels 800",
		Args:    usageArgs(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return runStress(cmd.Context(), e, o) },
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
	return cmd
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
	c, err := e.client(cfg, client.Delivery(o.delivery))
	if err != nil {
		return err
	}
	defer c.Close()
	status, err := preflight(ctx, c)
	if err != nil {
		return err
	}
	if err := e.confirm(o, cfg, status); err != nil {
		return err
	}
	debug.SetMemoryLimit(clientHeapBytes)
	runErr := e.drive(ctx, o, cfg, c, source)
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

// preflight finds the cluster and that it has a quorum.
func preflight(ctx context.Context, c *client.Client) (image.ClusterStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, preflightTimeout)
	defer cancel()
	status, err := c.Cluster(ctx)
	if err == nil && !status.Ready {
		err = image.Errorf(image.KindNoQuorum, "the cluster has no quorum").WithHint("start more of its nodes; imgcluster status shows who is missing")
	}
	return status, err
}

// confirm shows what an extreme run will take, and asks.
func (e *env) confirm(o stressOptions, cfg *config.Config, status image.ClusterStatus) error {
	if o.profile != "extreme" || o.images != "" {
		return nil
	}
	e.plan(o, cfg, status)
	if o.yes {
		return nil
	}
	if !isTerminal(e.in) {
		return usagef("add --yes to start it without a terminal", "the extreme profile asks before it starts")
	}
	fmt.Fprint(e.err, "Start? [y/N] ")
	answer, err := bufio.NewReader(e.in).ReadString('\n')
	if err != nil && err != io.EOF {
		return err
	}
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return usagef("nothing was sent", "not started")
	}
	return nil
}

// Rates between which a run's time is estimated, in bytes of images a second: a gigabit network, and
// local disks of two cores.
const (
	slowBytesPerSecond = 40e6
	fastBytesPerSecond = 500e6
)

func (e *env) plan(o stressOptions, cfg *config.Config, status image.ClusterStatus) {
	sum := o.spec.Summary(int(o.count))
	nodes := len(cfg.Cluster.Nodes)
	sent := sum.Broadcast(nodes)
	if o.delivery == string(client.Relay) {
		sent = sum.Bytes
	}
	stored := sum.Bytes * int64(cfg.Cluster.Replicas)
	free := int64(0)
	for _, n := range status.Nodes {
		free += n.DiskFree
	}
	e.say("%d images, %s, %s each on average", sum.Images, formatBytes(sum.Bytes), formatBytes(sum.Average()))
	e.say("  network  %s sent by this machine", formatBytes(sent))
	e.say("  disk     %s in %d copies, %s on each of %d nodes (%s free in all, counted once for each node)",
		formatBytes(stored), cfg.Cluster.Replicas, formatBytes(stored/int64(nodes)), nodes, formatBytes(free))
	e.say("  memory   up to 256 MiB here, 512 MiB on each node")
	e.say("  time     %s to %s", estimate(sum.Bytes, fastBytesPerSecond), estimate(sum.Bytes, slowBytesPerSecond))
}

func estimate(bytes int64, rate float64) time.Duration {
	return time.Duration(float64(bytes) / rate * float64(time.Second)).Round(time.Second)
}

// drive makes the uploads and writes the log.
func (e *env) drive(ctx context.Context, o stressOptions, cfg *config.Config, c *client.Client, source load.Source) (err error) {
	file, err := createLog(o.log)
	if err != nil {
		return err
	}
	log := result.NewWriter(file)
	defer func() { err = errors.Join(err, log.Close(), file.Close()) }()
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
	return load.Run(ctx, load.Options{
		Run: run, User: o.user, Source: source, Target: target{c}, Log: log, Progress: e.progress(),
	})
}

func createLog(path string) (*os.File, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, usagef("name a file that can be written with --log", "the log: %v", err)
	}
	return f, nil
}

// progress returns a function that prints how far a run is, at most every progressEvery.
func (e *env) progress() func(load.Snapshot) {
	last := time.Now()
	return func(s load.Snapshot) {
		if time.Since(last) < progressEvery && s.Done < s.Count {
			return
		}
		last = time.Now()
		seconds := s.Elapsed.Seconds()
		e.say("%d of %d uploads, %.1f/s, %s/s, %d failed", s.Done, s.Count, float64(s.Done)/seconds,
			formatBytes(int64(float64(s.Bytes)/seconds)), s.Failed)
	}
}

// target is the cluster as the load driver sees it.
type target struct{ c *client.Client }

// Put implements load.Target.
func (t target) Put(ctx context.Context, up load.Upload) (load.Outcome, error) {
	r, err := t.c.Put(ctx, client.Upload{User: up.User, Name: up.Name, Size: up.Size, Body: up.Body})
	o := load.Outcome{Owner: int(r.Receipt.Owner), Attempts: r.Attempts, Done: r.Done, SentBytes: r.SentBytes}
	for _, n := range r.Receipt.Replicas {
		o.Replicas = append(o.Replicas, int(n))
	}
	return o, err
}

// Status implements load.Target.
func (t target) Status(ctx context.Context) ([]result.NodeSample, error) {
	s, err := t.c.Cluster(ctx)
	if err != nil {
		return nil, err
	}
	samples := make([]result.NodeSample, len(s.Nodes))
	for i, n := range s.Nodes {
		samples[i] = result.NodeSample{
			ID: int(n.ID), Up: n.State != image.NodeDown, RSSBytes: n.RSSBytes, DiskFreeBytes: n.DiskFree,
			CPUS: n.CPUSeconds, NetRxBytes: n.NetRx, NetTxBytes: n.NetTx,
		}
	}
	return samples, nil
}

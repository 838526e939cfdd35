package stress

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"imgcluster/cluster/client"
	"imgcluster/cluster/image"
	"imgcluster/config"
	"imgcluster/genimg"
	"imgcluster/modes/runlog"
	"imgcluster/modes/stress/chaos"
	"imgcluster/modes/stress/load"
)

// Profiles are the sizes of a run, in images.
var Profiles = map[string]int64{"quick": 30, "demo": 50, "extreme": 1500}

// Options say what a run does.
type Options struct {
	Profile     string
	Count       int64 // 0: the profile's, or as many as fit in Duration
	Spec        genimg.Spec
	Images      string // folder of files to upload instead
	Concurrency int
	Rate        float64 // uploads/s of an open loop
	Arrivals    string
	Duration    time.Duration // instead of Count
	Warmup      time.Duration
	ReadPercent float64
	User        string
	Users       int // 0: 1
	Delivery    string
	Log         string
	Past        *Past // the interrupted run to resume; nil: a new one
	Force       bool  // resume it although settings of the cluster have changed
	Demo        bool  // the cluster is deleted after it
	Verify      bool  // read all images back
	Cleanup     bool  // delete them in the end
	Chaos       bool
	Faults      int         // 0: by the number of uploads
	Nodes       chaos.Nodes // the nodes' processes, for Chaos
	Version     string      // of this program
}

// refusef returns the error of options that cannot be carried out, with the next step.
func refusef(next, format string, args ...any) error {
	return image.Errorf(image.KindInvalid, format, args...).WithHint(next)
}

// source checks the options and opens the source of the images.
func (o *Options) source(cfg *config.Config) (load.Source, error) {
	count, ok := Profiles[o.Profile]
	if !ok {
		return nil, refusef("use one of "+strings.Join(slices.Sorted(maps.Keys(Profiles)), ", "),
			"no profile is named %q", o.Profile)
	}
	if err := client.Delivery(o.Delivery).Check(); err != nil {
		return nil, err
	}
	var source load.Source = load.Generated{Spec: o.Spec}
	if o.Images != "" {
		files, err := load.OpenFiles(o.Images, int64(cfg.Limits.ImageBytes))
		if err != nil {
			return nil, err
		}
		source = files
		count = int64(files.Len())
	} else if err := o.Spec.Validate(); err != nil {
		return nil, err
	}
	if o.Count == 0 && o.Duration == 0 {
		o.Count = count
	}
	return source, nil
}

// owners returns the users of the run.
func (o *Options) owners() []string {
	users := []string{o.User}
	for n := 2; n <= o.Users; n++ {
		users = append(users, fmt.Sprintf("%s-%d", o.User, n))
	}
	return users
}

// run returns the first record of the log.
func (o *Options) run(cfg *config.Config) runlog.Run {
	run := runlog.Run{
		Profile:     o.Profile,
		Count:       o.Count,
		Concurrency: o.Concurrency,
		Delivery:    o.Delivery,
		Replicas:    cfg.Cluster.Replicas,
		Plan:        runlog.Plan{Verify: o.Verify || o.Chaos, Chaos: o.Chaos, Cleanup: o.Cleanup},
		Demo:        o.Demo,
		Version:     o.Version,
		Images:      o.Images,
		Seed:        o.Spec.Seed,
		Rate:        o.Rate,
		Arrivals:    o.Arrivals,
		DurationS:   o.Duration.Seconds(),
		WarmupS:     o.Warmup.Seconds(),
		ReadPercent: o.ReadPercent,
	}
	if o.Users > 1 {
		run.Users = o.Users
	}
	if o.Images == "" && o.Spec != genimg.Default(o.Spec.Seed) {
		run.MinPixels = o.Spec.MinPixels
		run.MaxPixels = o.Spec.MaxPixels
	}
	for _, n := range cfg.Cluster.Nodes {
		run.Nodes = append(run.Nodes, int(n.ID))
	}
	return run
}

package modes

import (
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/pflag"

	"imgcluster/genimg"
	"imgcluster/modes/stress"
)

// applyPast sets the options of a resumed run from its log, and refuses options that differ from it.
func applyPast(p *stress.Past, f *pflag.FlagSet) error {
	number := func(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
	seconds := func(v float64) string { return time.Duration(v * float64(time.Second)).String() }
	r := &p.Run
	spec := genimg.Default(r.Seed)
	if r.MinPixels > 0 {
		spec.MinPixels = r.MinPixels
		spec.MaxPixels = r.MaxPixels
	}
	read := mix(r.ReadPercent)
	logged := map[string]string{
		"profile":     r.Profile,
		"count":       strconv.FormatInt(r.Count, 10),
		"concurrency": strconv.Itoa(r.Concurrency),
		"delivery":    r.Delivery,
		"images":      r.Images,
		"seed":        strconv.FormatUint(r.Seed, 10),
		"min-pixels":  strconv.Itoa(spec.MinPixels),
		"max-pixels":  strconv.Itoa(spec.MaxPixels),
		"rate":        number(r.Rate),
		"arrivals":    r.Arrivals,
		"duration":    seconds(r.DurationS),
		"warmup":      seconds(r.WarmupS),
		"mix":         read.String(),
		"user":        p.User,
		"users":       strconv.Itoa(max(r.Users, 1)),
	}
	for _, name := range slices.Sorted(maps.Keys(logged)) {
		flag := f.Lookup(name)
		switch given := flag.Value.String(); {
		case flag.Changed && given != logged[name]:
			return usagef("leave out --"+name+": the log has the settings of the run",
				"--%s is %s here, and %s in the log", name, given, logged[name])
		case !flag.Changed:
			if err := flag.Value.Set(logged[name]); err != nil {
				return usagef(stress.NoResume, "the log has --%s %s: %w", name, logged[name], err)
			}
		}
	}
	return applyPlan(p, f)
}

// applyPlan sets the options for the stages that were planned. More stages may be asked for, as long as
// the images are there.
func applyPlan(p *stress.Past, f *pflag.FlagSet) error {
	const hint = "leave it out: the log has what was planned"
	for _, plan := range []struct {
		flag    string
		planned bool
		against string // the flag that says the opposite
	}{{"verify", p.Run.Plan.Verify, ""}, {"cleanup", p.Run.Plan.Cleanup, "keep"}} {
		flag := f.Lookup(plan.flag)
		wanted := flag.Value.String() == "true"
		switch {
		case plan.planned && flag.Changed && !wanted:
			return usagef(hint, "--%s=false here, and --%s in the log", plan.flag, plan.flag)
		case plan.planned && plan.against != "" && f.Lookup(plan.against).Value.String() == "true":
			return usagef(hint, "--%s here, and --%s in the log", plan.against, plan.flag)
		case plan.planned:
			if err := flag.Value.Set("true"); err != nil {
				return err
			}
		case wanted && p.Cleaning && plan.flag == "verify":
			return usagef("leave out --verify", "--verify of a run whose images were deleted")
		}
	}
	return nil
}

package modes

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"imgcluster/cluster/client"
	"imgcluster/cluster/image"
	"imgcluster/cluster/printable"
	"imgcluster/config"
	"imgcluster/genimg"
	"imgcluster/modes/runlog"
	"imgcluster/modes/stress/load"
	"imgcluster/modes/term"
)

// pastRun is what the log of an interrupted run tells, so that it can go on. A nil one is no past.
type pastRun struct {
	run      runlog.Run
	user     string           // the first
	stores   map[int64]string // names of the images that were acknowledged, by seq
	at       float64          // the run's last moment
	uploaded float64          // when its uploads ended
	bytes    int64            // of whole lines
	since    time.Time        // the log was written last
	cleaning bool             // its images were deleted, or some of them
	missing  runlog.Missing
}

// pastLine is a line of the log, as far as it is needed.
type pastLine struct {
	Type     string  `json:"type"`
	Kind     string  `json:"kind"`
	Seq      int64   `json:"seq"`
	Name     string  `json:"name"`
	User     string  `json:"user"`
	OK       bool    `json:"ok"`
	StartS   float64 `json:"start_s"`
	LatencyS float64 `json:"latency_s"`
	TS       float64 `json:"t_s"`
	ElapsedS float64 `json:"elapsed_s"`
}

// readPast reads the log of a run that can go on.
func readPast(path string) (*pastRun, error) {
	p := &pastRun{}
	const hint = "name the log of an interrupted run with --resume"
	whole, err := eachLine(path, hint, p.take)
	if err != nil {
		return nil, err
	}
	p.bytes, p.since = whole.bytes, whole.written
	switch whole.form {
	case runlog.FormGzip:
		return nil, usagef("unpack it first: gzip -d "+printable.Argument(path),
			"%s is compressed, and a run goes on in a log as stress wrote it", path)
	case runlog.FormMark:
		return nil, usagef("make one without the mark: tail -c +4 "+printable.Argument(path)+" > plain.jsonl",
			"%s is %s, and a run goes on in a log as stress wrote it", path, whole.form)
	}
	if p.stores == nil {
		return nil, usagef(noResume, "%s does not say how the run was started", path)
	}
	f, err := openRegular(path)
	if err != nil {
		return nil, usagef(hint, "%s: %w", path, err)
	}
	defer f.Close()
	log, err := runlog.Read(io.NewSectionReader(f, 0, p.bytes)) // the last line goes, when it has no end
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	p.missing, p.run.Plan = log.Missing(), log.Run.Plan
	p.run.Plan.Verify = p.run.Plan.Verify || p.chaos() // faults end with it
	return p, p.refuse(path, log.Final())
}

// noResume is the next step when a run cannot be resumed.
const noResume = "make a new run, without --resume"

func (p *pastRun) take(text []byte) error {
	var l pastLine
	if err := json.Unmarshal(text, &l); err != nil {
		return err
	}
	switch l.Type {
	case "run":
		*p = pastRun{user: stressUser, stores: map[int64]string{}}
		return json.Unmarshal(text, &p.run)
	case "upload":
		if l.OK {
			p.stores[l.Seq] = l.Name
		}
		if l.User != "" {
			p.user = firstUser(l.User, l.Seq, p.run.Users)
		}
		p.uploaded = max(p.uploaded, l.StartS+l.LatencyS)
	case "read":
		p.uploaded = max(p.uploaded, l.StartS+l.LatencyS)
	case "end":
		p.uploaded = max(p.uploaded, l.ElapsedS)
	case "event":
		p.cleaning = p.cleaning || l.Kind == runlog.EventCleaning
	}
	p.at = max(p.at, p.uploaded, l.TS)
	return nil
}

// firstUser is the user that another one's name is made of.
func firstUser(user string, seq int64, users int) string {
	if turn := (seq - 1) % int64(max(users, 1)); turn > 0 {
		return strings.TrimSuffix(user, fmt.Sprintf("-%d", turn+1))
	}
	return user
}

// chaos reports whether the run made faults.
func (p *pastRun) chaos() bool { return p.run.Faults > 0 || p.run.Plan.Chaos }

// uploads reports whether some have to be made, again too, because they failed.
func (p *pastRun) uploads() bool {
	return p.missing.Uploads != "" || int64(len(p.stores)) < p.run.Count
}

// refuse says why the run cannot go on; final is what its log has against that.
func (p *pastRun) refuse(path, final string) error {
	switch {
	case final != "":
		return usagef(noResume, "%s %s", path, final)
	case p.uploads() && p.chaos():
		return usagef(noResume, "%s is of a run with faults, in which uploads failed", path)
	case p.uploads() && p.cleaning:
		return usagef(noResume, "%s is of a run whose images were deleted", path)
	case p.uploads() || p.missing.String() != "":
		return nil
	case p.run.Count > 0:
		return usagef(noResume, "the run of %s is complete: all %d uploads succeeded", path, p.run.Count)
	}
	return usagef(noResume, "the run of %s is complete: it took its %s", path, time.Duration(p.run.DurationS*float64(time.Second)))
}

// readAll reports whether all of these images were read back in an earlier part.
func (p *pastRun) readAll(images *load.Stored) bool {
	return p != nil && p.run.Plan.Verify && p.missing.Readback == "" && len(images.All()) == len(p.stores)
}

// cleanedAll reports whether all images were deleted in an earlier part.
func (p *pastRun) cleanedAll() bool { return p != nil && p.run.Plan.Cleanup && p.missing.Cleanup == "" }

// apply gives the options what the log says, and refuses those that say something else.
func (p *pastRun) apply(f *pflag.FlagSet) error {
	number := func(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
	seconds := func(v float64) string { return time.Duration(v * float64(time.Second)).String() }
	r, spec := &p.run, genimg.Default(p.run.Seed)
	if r.MinPixels > 0 {
		spec.MinPixels, spec.MaxPixels = r.MinPixels, r.MaxPixels
	}
	read := mix(r.ReadPercent)
	logged := map[string]string{
		"profile": r.Profile, "count": strconv.FormatInt(r.Count, 10), "concurrency": strconv.Itoa(r.Concurrency), "delivery": r.Delivery,
		"images": r.Images, "seed": strconv.FormatUint(r.Seed, 10), "min-pixels": strconv.Itoa(spec.MinPixels), "max-pixels": strconv.Itoa(spec.MaxPixels),
		"rate": number(r.Rate), "arrivals": r.Arrivals, "duration": seconds(r.DurationS), "warmup": seconds(r.WarmupS), "mix": read.String(),
		"user": p.user, "users": strconv.Itoa(max(r.Users, 1)),
	}
	for _, name := range slices.Sorted(maps.Keys(logged)) {
		flag := f.Lookup(name)
		switch given := flag.Value.String(); {
		case flag.Changed && given != logged[name]:
			return usagef("leave out --"+name+": the log has the settings of the run", "--%s is %s here, and %s in the log", name, given, logged[name])
		case !flag.Changed:
			if err := flag.Value.Set(logged[name]); err != nil {
				return usagef(noResume, "the log has --%s %s: %w", name, logged[name], err)
			}
		}
	}
	return p.applyPlan(f)
}

// applyPlan has all done that was planned. More may be asked for, as long as the images are there.
func (p *pastRun) applyPlan(f *pflag.FlagSet) error {
	const hint = "leave it out: the log has what was planned"
	for _, plan := range []struct {
		flag    string
		planned bool
		against string // the flag that says the opposite
	}{{"verify", p.run.Plan.Verify, ""}, {"cleanup", p.run.Plan.Cleanup, "keep"}} {
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
		case wanted && p.cleaning && plan.flag == "verify":
			return usagef("leave out --verify", "--verify of a run whose images were deleted")
		}
	}
	return nil
}

// resume is what the load driver has to know.
func (p *pastRun) resume() *load.Resume {
	if p == nil {
		return nil
	}
	done := make(map[int64]bool, len(p.stores))
	for seq := range p.stores {
		done[seq] = true
	}
	at := p.at
	if !p.uploads() { // what follows them has no part in their time
		at = p.uploaded
	}
	return &load.Resume{AtS: at, Done: done, Detail: fmt.Sprintf("after %s, %s are left out", time.Since(p.since).Round(time.Second), term.Plural(len(done), "image"))}
}

// size is how much of the log stays.
func (p *pastRun) size() int64 {
	if p == nil {
		return 0
	}
	return p.bytes
}

// stored adds the images of before to those that will be read back.
func (p *pastRun) stored(to *load.Stored) {
	if p == nil {
		return
	}
	users := stressOptions{user: p.user, users: p.run.Users}.owners()
	for _, seq := range slices.Sorted(maps.Keys(p.stores)) {
		to.Add(load.StoredImage{User: users[(seq-1)%int64(len(users))], Name: p.stores[seq], Seq: seq})
	}
}

// checkCluster refuses to go on with a run on another cluster, or on one that was changed.
func (p *pastRun) checkCluster(ctx context.Context, cfg *config.Config, c *client.Client, f *found, force bool) error {
	if p == nil {
		return nil
	}
	const hint = "use the configuration of the run that was interrupted, or make a new run without --resume"
	var now runlog.Run
	f.describe(cfg, &now)
	for _, key := range slices.Sorted(maps.Keys(p.run.Settings)) {
		then := p.run.Settings[key]
		if fixed := key == "cluster.name" || key == "cluster.nodes"; then != now.Settings[key] && (fixed || !force) {
			return usagef(hint, "%s was %s in the run that was interrupted, and is %s", key, then, now.Settings[key])
		}
	}
	if p.cleaning {
		return nil // they are gone, or some of them
	}
	all := &load.Stored{}
	p.stored(all)
	if images := all.All(); len(images) > 0 {
		last := images[len(images)-1]
		if _, err := c.Head(ctx, last.User, last.Name); image.KindOf(err) == image.KindNotFound {
			return usagef(hint, "%s/%s is not there, though the log says that it was stored: this is another cluster, or its images were deleted", last.User, last.Name)
		} else if err != nil {
			return err
		}
	}
	return nil
}

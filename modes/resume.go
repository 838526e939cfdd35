package modes

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"imgcluster/cluster/client"
	"imgcluster/cluster/image"
	"imgcluster/config"
	"imgcluster/genimg"
	"imgcluster/modes/load"
	"imgcluster/modes/result"
)

// pastRun is what the log of an interrupted run tells, so that it can go on. A nil one is no past.
type pastRun struct {
	run    result.Run
	user   string           // the first
	stores map[int64]string // names of the images that were acknowledged, by seq
	at     float64          // the run's last moment
	bytes  int64            // of whole lines
	since  time.Time        // the log was written last
}

// pastLine is a line of the log, as far as it is needed.
type pastLine struct {
	Type     string  `json:"type"`
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
	whole, written, err := eachLine(path, "name the log of an interrupted run with --resume", p.take)
	if err != nil {
		return nil, err
	}
	p.bytes, p.since = whole, written
	return p, p.refuse(path)
}

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
	}
	p.at = max(p.at, l.StartS+l.LatencyS, l.TS, l.ElapsedS)
	return nil
}

// firstUser is the user that another one's name is made of.
func firstUser(user string, seq int64, users int) string {
	if turn := (seq - 1) % int64(max(users, 1)); turn > 0 {
		return strings.TrimSuffix(user, fmt.Sprintf("-%d", turn+1))
	}
	return user
}

// refuse says why the run cannot go on.
func (p *pastRun) refuse(path string) error {
	const hint = "make a new run, without --resume"
	switch {
	case p.stores == nil:
		return usagef(hint, "%s does not tell how the run was started", path)
	case p.run.Faults > 0:
		return usagef(hint, "%s is of a run with faults, which cannot be resumed", path)
	case p.run.Count > 0 && int64(len(p.stores)) >= p.run.Count:
		return usagef(hint, "the run of %s is complete: all %d uploads succeeded", path, p.run.Count)
	case p.run.DurationS > 0 && p.at >= p.run.DurationS:
		return usagef(hint, "the run of %s is complete: it took its %s", path, time.Duration(p.run.DurationS*float64(time.Second)))
	}
	return nil
}

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
				return usagef("make a new run, without --resume", "the log has --%s %s: %w", name, logged[name], err)
			}
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
	return &load.Resume{AtS: p.at, Done: done, Detail: fmt.Sprintf("after %s, %s are left out", time.Since(p.since).Round(time.Second), plural(len(done), "image"))}
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
	var now result.Run
	f.describe(cfg, &now)
	for _, key := range slices.Sorted(maps.Keys(p.run.Settings)) {
		then := p.run.Settings[key]
		if fixed := key == "cluster.name" || key == "cluster.nodes"; then != now.Settings[key] && (fixed || !force) {
			return usagef(hint, "%s was %s in the run that was interrupted, and is %s", key, then, now.Settings[key])
		}
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

package stress

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"imgcluster/cluster/client"
	"imgcluster/cluster/image"
	"imgcluster/cluster/printable"
	"imgcluster/config"
	"imgcluster/modes/runlog"
	"imgcluster/modes/stress/load"
	"imgcluster/modes/term"
)

// Past is what the log of an interrupted run tells, so that it can go on. A nil one is no past.
type Past struct {
	Run      runlog.Run
	User     string           // the first
	stores   map[int64]string // names of the images that were acknowledged, by seq
	at       float64          // the run's last moment
	uploaded float64          // when its uploads ended
	bytes    int64            // of whole lines
	since    time.Time        // the log was written last
	Cleaning bool             // its images were deleted, or some of them
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

// ReadPast reads the log of a run that can go on.
func ReadPast(path string) (*Past, error) {
	p := &Past{}
	const hint = "name the log of an interrupted run with --resume"
	whole, err := eachLine(path, hint, p.take)
	if err != nil {
		return nil, err
	}
	p.bytes, p.since = whole.bytes, whole.written
	switch whole.form {
	case runlog.FormGzip:
		return nil, refusef("unpack it first: gzip -d "+printable.Argument(path),
			"%s is compressed, and a run goes on in a log as stress wrote it", path)
	case runlog.FormMark:
		return nil, refusef("make one without the mark: tail -c +4 "+printable.Argument(path)+" > plain.jsonl",
			"%s is %s, and a run goes on in a log as stress wrote it", path, whole.form)
	}
	if p.stores == nil {
		return nil, refusef(NoResume, "%s does not say how the run was started", path)
	}
	f, err := runlog.OpenRegular(path)
	if err != nil {
		return nil, refusef(hint, "%s: %w", path, err)
	}
	defer f.Close()
	log, err := runlog.Read(io.NewSectionReader(f, 0, p.bytes)) // the last line goes, when it has no end
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	p.missing, p.Run.Plan = log.Missing(), log.Run.Plan
	p.Run.Plan.Verify = p.Run.Plan.Verify || p.chaos() // faults end with it
	return p, p.refuse(path, log.Final())
}

// NoResume is the next step when a run cannot be resumed.
const NoResume = "make a new run, without --resume"

func (p *Past) take(text []byte) error {
	var l pastLine
	if err := json.Unmarshal(text, &l); err != nil {
		return err
	}
	switch l.Type {
	case "run":
		*p = Past{User: load.DefaultUser, stores: map[int64]string{}}
		return json.Unmarshal(text, &p.Run)
	case "upload":
		if l.OK {
			p.stores[l.Seq] = l.Name
		}
		if l.User != "" {
			p.User = firstUser(l.User, l.Seq, p.Run.Users)
		}
		p.uploaded = max(p.uploaded, l.StartS+l.LatencyS)
	case "read":
		p.uploaded = max(p.uploaded, l.StartS+l.LatencyS)
	case "end":
		p.uploaded = max(p.uploaded, l.ElapsedS)
	case "event":
		p.Cleaning = p.Cleaning || l.Kind == runlog.EventCleaning
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
func (p *Past) chaos() bool { return p.Run.Faults > 0 || p.Run.Plan.Chaos }

// uploads reports whether some have to be made, again too, because they failed.
func (p *Past) uploads() bool {
	return p.missing.Uploads != "" || int64(len(p.stores)) < p.Run.Count
}

// refuse says why the run cannot go on; final is what its log has against that.
func (p *Past) refuse(path, final string) error {
	switch {
	case final != "":
		return refusef(NoResume, "%s %s", path, final)
	case p.uploads() && p.chaos():
		return refusef(NoResume, "%s is of a run with faults, in which uploads failed", path)
	case p.uploads() && p.Cleaning:
		return refusef(NoResume, "%s is of a run whose images were deleted", path)
	case p.uploads() || p.missing.String() != "":
		return nil
	case p.Run.Count > 0:
		return refusef(NoResume, "the run of %s is complete: all %d uploads succeeded", path, p.Run.Count)
	}
	return refusef(NoResume, "the run of %s is complete: it took its %s", path, time.Duration(p.Run.DurationS*float64(time.Second)))
}

// readAll reports whether all of these images were read back in an earlier part.
func (p *Past) readAll(images *load.Stored) bool {
	return p != nil && p.Run.Plan.Verify && p.missing.Readback == "" && len(images.All()) == len(p.stores)
}

// cleanedAll reports whether all images were deleted in an earlier part.
func (p *Past) cleanedAll() bool { return p != nil && p.Run.Plan.Cleanup && p.missing.Cleanup == "" }

// resume is what the load driver has to know.
func (p *Past) resume() *load.Resume {
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
func (p *Past) size() int64 {
	if p == nil {
		return 0
	}
	return p.bytes
}

// stored adds the images of before to those that will be read back.
func (p *Past) stored(to *load.Stored) {
	if p == nil {
		return
	}
	of := Options{User: p.User, Users: p.Run.Users}
	users := of.owners()
	for _, seq := range slices.Sorted(maps.Keys(p.stores)) {
		to.Add(load.StoredImage{User: users[(seq-1)%int64(len(users))], Name: p.stores[seq], Seq: seq})
	}
}

// checkCluster refuses to go on with a run on another cluster, or on one that was changed.
func (p *Past) checkCluster(ctx context.Context, cfg *config.Config, c *client.Client, f *found, force bool) error {
	if p == nil {
		return nil
	}
	const hint = "use the configuration of the run that was interrupted, or make a new run without --resume"
	var now runlog.Run
	f.describe(cfg, &now)
	for _, key := range slices.Sorted(maps.Keys(p.Run.Settings)) {
		then := p.Run.Settings[key]
		if fixed := key == "cluster.name" || key == "cluster.nodes"; then != now.Settings[key] && (fixed || !force) {
			return refusef(hint, "%s was %s in the run that was interrupted, and is %s", key, then, now.Settings[key])
		}
	}
	if p.Cleaning {
		return nil // they are gone, or some of them
	}
	all := &load.Stored{}
	p.stored(all)
	if images := all.All(); len(images) > 0 {
		last := images[len(images)-1]
		if _, err := c.Head(ctx, last.User, last.Name); image.KindOf(err) == image.KindNotFound {
			return refusef(hint, "%s/%s is not there, though the log says that it was stored: this is another cluster, or its images were deleted", last.User, last.Name)
		} else if err != nil {
			return err
		}
	}
	return nil
}

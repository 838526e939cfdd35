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

// Past is an interrupted run that is to be resumed, by its log. Nil stands for a new run.
type Past struct {
	Run      runlog.Run
	User     string           // the first one
	stores   map[int64]string // names of the acknowledged images by the number of the upload
	at       float64          // last moment on the run's clock
	uploaded float64          // end of its uploads on the run's clock
	bytes    int64            // of the log's whole lines
	since    time.Time        // when the log was written last
	Cleaning bool             // some or all of its images were deleted
	missing  runlog.Missing
}

// pastLine has the fields of a line of the log that are needed.
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

// ReadPast reads the log of a run that can be resumed.
func ReadPast(path string) (*Past, error) {
	p := &Past{}
	const hint = "name the log of an interrupted run with --resume"
	whole, err := eachLine(path, hint, p.take)
	if err != nil {
		return nil, err
	}
	p.bytes = whole.bytes
	p.since = whole.written
	switch whole.form {
	case runlog.FormGzip:
		return nil, refusef("unpack it first: gzip -d "+printable.Argument(path),
			"%s is compressed, and a run is resumed in a log as stress wrote it", path)
	case runlog.FormMark:
		return nil, refusef("make one without the mark: tail -c +4 "+printable.Argument(path)+" > plain.jsonl",
			"%s is %s, and a run is resumed in a log as stress wrote it", path, whole.form)
	}
	if p.stores == nil {
		return nil, refusef(NoResume, "%s does not say how the run was started", path)
	}
	f, err := runlog.OpenRegular(path)
	if err != nil {
		return nil, refusef(hint, "%s: %w", path, err)
	}
	defer f.Close()
	log, err := runlog.Read(io.NewSectionReader(f, 0, p.bytes)) // a last line without its end is dropped
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	p.missing = log.Missing()
	p.Run.Plan = log.Run.Plan
	p.Run.Plan.Verify = p.Run.Plan.Verify || p.chaos() // a chaos run ends with it
	return p, p.refuse(path, log.Final())
}

// NoResume is the hint when a run cannot be resumed.
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

// firstUser returns the first user of a run: the one whose name the others' names begin with.
func firstUser(user string, seq int64, users int) string {
	if turn := (seq - 1) % int64(max(users, 1)); turn > 0 {
		return strings.TrimSuffix(user, fmt.Sprintf("-%d", turn+1))
	}
	return user
}

// chaos reports whether it was a chaos run.
func (p *Past) chaos() bool { return p.Run.Faults > 0 || p.Run.Plan.Chaos }

// mustUpload reports whether uploads are missing or have failed.
func (p *Past) mustUpload() bool {
	return p.missing.Uploads != "" || int64(len(p.stores)) < p.Run.Count
}

// refuse returns why the run cannot be resumed. final is what its log says against that.
func (p *Past) refuse(path, final string) error {
	switch {
	case final != "":
		return refusef(NoResume, "%s %s", path, final)
	case p.mustUpload() && p.chaos():
		return refusef(NoResume, "%s is of a run with faults, in which uploads failed", path)
	case p.mustUpload() && p.Cleaning:
		return refusef(NoResume, "%s is of a run whose images were deleted", path)
	case p.mustUpload() || p.missing.String() != "":
		return nil
	case p.Run.Count > 0:
		return refusef(NoResume, "the run of %s is complete: all %d uploads succeeded", path, p.Run.Count)
	}
	duration := time.Duration(p.Run.DurationS * float64(time.Second))
	return refusef(NoResume, "the run of %s is complete: it took its %s", path, duration)
}

// readAll reports whether all of these images were read back before the interruption.
func (p *Past) readAll(images *load.Stored) bool {
	return p != nil && p.Run.Plan.Verify && p.missing.Readback == "" && len(images.All()) == len(p.stores)
}

// cleanedAll reports whether all images were deleted before the interruption.
func (p *Past) cleanedAll() bool { return p != nil && p.Run.Plan.Cleanup && p.missing.Cleanup == "" }

// resume returns where the load driver resumes; nil for a new run.
func (p *Past) resume() *load.Resume {
	if p == nil {
		return nil
	}
	done := make(map[int64]bool, len(p.stores))
	for seq := range p.stores {
		done[seq] = true
	}
	at := p.at
	if !p.mustUpload() { // the stages after the uploads do not count for their duration
		at = p.uploaded
	}
	since := time.Since(p.since).Round(time.Second)
	return &load.Resume{
		AtS:    at,
		Done:   done,
		Detail: fmt.Sprintf("after %s, %s are left out", since, term.Plural(len(done), "image")),
	}
}

// size returns the bytes of the log that are kept; 0 for a new run.
func (p *Past) size() int64 {
	if p == nil {
		return 0
	}
	return p.bytes
}

// stored adds the acknowledged images to those that will be read back.
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

// checkCluster refuses to resume a run on another cluster, or on one whose settings have changed.
func (p *Past) checkCluster(
	ctx context.Context, cfg *config.Config, c *client.Client, f *found, force bool,
) error {
	if p == nil {
		return nil
	}
	const hint = "use the configuration of the interrupted run, or make a new run without --resume"
	var now runlog.Run
	f.describe(cfg, &now)
	for _, key := range slices.Sorted(maps.Keys(p.Run.Settings)) {
		then := p.Run.Settings[key]
		is := now.Settings[key]
		if fixed := key == "cluster.name" || key == "cluster.nodes"; then != is && (fixed || !force) {
			return refusef(hint, "%s was %s in the interrupted run, and is %s", key, then, is)
		}
	}
	if p.Cleaning {
		return nil // some or all of its images are deleted
	}
	all := &load.Stored{}
	p.stored(all)
	images := all.All()
	if len(images) == 0 {
		return nil
	}
	last := images[len(images)-1]
	_, err := c.Head(ctx, last.User, last.Name)
	if image.KindOf(err) == image.KindNotFound {
		return refusef(hint, "%s/%s is not there, though the log says that it was stored: "+
			"this is another cluster, or its images were deleted", last.User, last.Name)
	}
	return err
}

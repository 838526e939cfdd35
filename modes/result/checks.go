package result

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Status is a check's outcome.
type Status string

// The outcomes. Skipped means that the log has no evidence either way, or that the run was made
// such that the check does not apply.
const (
	Passed  Status = "passed"
	Failed  Status = "failed"
	Skipped Status = "skipped"
)

// Check is one question to the run, with the answer and what it rests on.
type Check struct {
	Name     string `json:"name"`
	Status   Status `json:"status"`
	Evidence string `json:"evidence"`
}

// What the checks ask for.
const (
	productionMinBytes     = 4_500_000 // no image below
	productionMaxBytes     = 26_000_000
	productionMeanMinBytes = 8_000_000
	productionMeanMaxBytes = 18_000_000
	defaultMinPixels       = 1600
	defaultMaxPixels       = 3500

	sustainedUploadsMin = 20  // successes
	sustainedHalfMin    = 3   // completions in each half
	sustainedSecondsMin = 2.0 // of the whole run
	sustainedRatioMin   = 0.5 // second half over first

	balancePercentMax = 0.15 // the promise for 1500 images, which is ...
	balanceImagesMax  = 2.25 // ... this many average images; fewer uploads are judged by it
	balancePerNodeMin = 6    // uploads

	nodeRSSMax      = 512 << 20
	clientRSSMax    = 256 << 20
	trendSamplesMin = 10
	trendRatioMax   = 1.25 // median of the last third over that of the middle third ...
	trendSlackBytes = 32 << 20

	broadcastNodesMax = 3    // a broadcast goes to the nodes of one shard
	resentMax         = 0.05 // of the bytes needed

	hashUploadsMin = 30
	hashPMin       = 0.01
)

// judgement is what the checks look at.
type judgement struct {
	log      *Log
	report   *Report
	members  []NodeShare // of the run's nodes
	finished []float64   // when the successful uploads ended, ascending
	faults   []fault     // by time
	held     []span      // when no upload could begin
}

// checks lists all checks in the order of the report.
var checks = []struct {
	name string
	ask  func(*judgement) (Status, string)
}{
	{"production_scale_files", (*judgement).productionScale},
	{"sustained_load", (*judgement).sustainedLoad},
	{"balance", (*judgement).balanced},
	{"memory_stable", (*judgement).memoryStable},
	{"network", (*judgement).network},
	{"hash_quality", (*judgement).hashQuality},
	{"fault_tolerance", (*judgement).faultTolerance},
}

func judge(l *Log, r *Report) Verdict {
	j := &judgement{log: l, report: r, members: l.ofMembers(r.Nodes), faults: l.faults(), held: l.held()}
	for i := range l.uploads {
		if l.uploads[i].ok {
			j.finished = append(j.finished, l.uploads[i].finish())
		}
	}
	slices.Sort(j.finished)
	v := Verdict{Passed: r.Failed == 0 && r.Attempted > 0}
	for _, c := range checks {
		status, evidence := c.ask(j)
		v.Passed = v.Passed && status != Failed
		v.Checks = append(v.Checks, Check{c.name, status, evidence})
	}
	v.Text = v.text(r)
	return v
}

// text puts the verdict into one sentence.
func (v *Verdict) text(r *Report) string {
	count := map[Status]int{}
	var failed []string
	for _, c := range v.Checks {
		count[c.Status]++
		if c.Status == Failed {
			failed = append(failed, c.Name)
		}
	}
	uploads := fmt.Sprintf("%d OF %d UPLOADS", r.Failed, r.Attempted)
	tests := fmt.Sprintf("%d OF %d TESTS (%s)", len(failed), len(v.Checks), strings.Join(failed, ", "))
	switch {
	case r.Attempted == 0:
		return "SYSTEM FAILED: NO UPLOAD WAS ATTEMPTED"
	case len(failed) > 0 && r.Failed > 0:
		return "SYSTEM FAILED " + tests + " AND " + uploads
	case len(failed) > 0:
		return "SYSTEM FAILED " + tests
	case r.Failed > 0:
		return "SYSTEM FAILED " + uploads
	case count[Passed] == 0:
		return fmt.Sprintf("ALL UPLOADS SUCCEEDED, NO TEST APPLIED (%d skipped)", count[Skipped])
	case count[Skipped] == 0:
		return fmt.Sprintf("SYSTEM PASSED ALL TESTS (%d passed)", count[Passed])
	}
	return fmt.Sprintf("SYSTEM PASSED ALL TESTS (%d passed, %d skipped)", count[Passed], count[Skipped])
}

// outcome is Passed when ok.
func outcome(ok bool) Status {
	if ok {
		return Passed
	}
	return Failed
}

// productionScale asks whether the images were those that the system is meant for. A run that was
// made with other images on purpose is not blamed for it.
func (j *judgement) productionScale() (Status, string) {
	var n, sum, lo, hi int64
	for i := range j.log.uploads {
		if b := j.log.uploads[i].bytes; b > 0 {
			if n == 0 || b < lo {
				lo = b
			}
			n, sum, hi = n+1, sum+b, max(hi, b)
		}
	}
	if n == 0 {
		return Skipped, "no image sizes in the log"
	}
	missing := slices.DeleteFunc(slices.Clone(defaultClasses), func(want string) bool {
		return slices.ContainsFunc(j.report.Classes, func(c Class) bool { return c.Class == want })
	})
	avg := sum / n
	sizes := fmt.Sprintf("%s of %s to %s, %s on average", plural(n, "image"), size(lo), size(hi), size(avg))
	run := &j.log.Run
	switch {
	case run.Images != "":
		return Skipped, sizes + ": given images"
	case run.MinPixels != 0 && run.MinPixels != defaultMinPixels, run.MaxPixels != 0 && run.MaxPixels != defaultMaxPixels:
		return Skipped, sizes + ": other sizes than the default were asked for"
	case n < int64(len(defaultClasses)):
		return Skipped, sizes + ": too few to cover the classes"
	case len(missing) > 0:
		return Failed, sizes + "; missing: " + strings.Join(missing, ", ")
	}
	ok := lo >= productionMinBytes && hi <= productionMaxBytes && avg >= productionMeanMinBytes && avg <= productionMeanMaxBytes
	evidence := sizes + ", all classes"
	if !ok {
		evidence += fmt.Sprintf("; wanted %s to %s, %s to %s on average", size(productionMinBytes), size(productionMaxBytes),
			size(productionMeanMinBytes), size(productionMeanMaxBytes))
	}
	return outcome(ok), evidence
}

// sustainedLoad compares the pace of the first and the second half of the completions. The first
// and last completions, as many as uploads run at once, are ramp and tail and left out.
func (j *judgement) sustainedLoad() (Status, string) {
	f := j.finished
	ramp := min(max(j.log.Run.Concurrency, 1), len(f)/3)
	half := (len(f) - 2*ramp) / 2
	if len(f) < sustainedUploadsMin || half < sustainedHalfMin || j.report.ElapsedS < sustainedSecondsMin {
		return Skipped, fmt.Sprintf("%s in %s s; needs %d and %g s", plural(int64(len(f)), "success"), seconds(j.report.ElapsedS),
			sustainedUploadsMin, sustainedSecondsMin)
	}
	start, middle, end := f[ramp-1], f[ramp+half-1], f[ramp+2*half-1]
	one, two := ratio(float64(half), j.underLoad(start, middle)), ratio(float64(half), j.underLoad(middle, end))
	if one == 0 || two == 0 {
		return Skipped, "too many uploads ended at the same moment to tell a pace"
	}
	evidence := fmt.Sprintf("%s uploads/s in the first half, %s in the second (%.0f %%)", digits3(one), digits3(two), 100*two/one)
	ok := two >= sustainedRatioMin*one
	if !ok && len(j.faults) > 0 {
		return Skipped, evidence + "; nodes were missing for a time"
	}
	return outcome(ok), evidence
}

// balanced asks for the promised standard deviation. While a node is down it owns nothing, so that
// a run with faults is not blamed for uneven shares.
func (j *judgement) balanced() (Status, string) {
	n, b := len(j.members), j.report.Balance
	switch {
	case n < 2:
		return Skipped, "needs two nodes or more"
	case j.report.Succeeded < balancePerNodeMin*n:
		return Skipped, fmt.Sprintf("%s on %d nodes; needs %d for each", plural(int64(j.report.Succeeded), "upload"), n, balancePerNodeMin)
	case j.log.unowned() > 0 || j.report.Bytes == 0:
		return Skipped, "the log does not say who owns the uploads, or their sizes"
	}
	limit := max(balancePercentMax, 100*balanceImagesMax/float64(j.report.Succeeded))
	evidence := fmt.Sprintf("standard deviation %.2f %% by uploads, %.2f %% by bytes; at most %.2f %%", b.StddevPercent, b.BytesStddevPercent, limit)
	if extra := len(j.report.Nodes) - n; extra > 0 {
		evidence += fmt.Sprintf("; %s not of the run", plural(int64(extra), "owner"))
	}
	ok := b.StddevPercent <= limit && b.BytesStddevPercent <= limit
	if !ok && len(j.faults) > 0 {
		return Skipped, evidence + "; nodes were missing for a time"
	}
	return outcome(ok), evidence
}

// memoryStable asks every node and the client for a peak below the limit and no lasting growth. A
// node that was lost for a time is not asked for the second: what it has then is not what it had.
func (j *judgement) memoryStable() (Status, string) {
	bySource := map[uint32][]float64{}
	for _, s := range j.log.samples {
		bySource[s.id] = append(bySource[s.id], float64(s.rss))
	}
	var trouble, unseen, peaks []string
	lost := map[uint32]bool{}
	for _, f := range j.faults {
		lost[f.node] = true
	}
	for _, n := range j.members {
		rss := bySource[uint32(n.ID)]
		if len(rss) == 0 {
			unseen = append(unseen, fmt.Sprint(n.ID))
			continue
		}
		peaks = append(peaks, mib(slices.Max(rss)))
		trouble = append(trouble, memoryTrouble(fmt.Sprintf("node %d: ", n.ID), rss, nodeRSSMax, !lost[uint32(n.ID)])...)
	}
	if len(peaks) == 0 {
		return Skipped, "no samples of the nodes' memory"
	}
	evidence := fmt.Sprintf("nodes' peaks %s of %s MiB", strings.Join(peaks, ", "), mib(nodeRSSMax))
	if rss := bySource[0]; len(rss) > 0 {
		evidence += fmt.Sprintf("; client's %s of %s MiB", mib(slices.Max(rss)), mib(clientRSSMax))
		trouble = append(trouble, memoryTrouble("client: ", rss, clientRSSMax, true)...)
	}
	switch {
	case len(trouble) > 0:
		return Failed, evidence + "; " + strings.Join(trouble, "; ")
	case len(unseen) > 0:
		return Skipped, evidence + "; no samples of node " + strings.Join(unseen, ", ")
	}
	return Passed, evidence
}

// memoryTrouble returns what is wrong with one process's memory over time, nothing or one phrase;
// trend tells whether growth is.
func memoryTrouble(who string, rss []float64, limit float64, trend bool) []string {
	var trouble []string
	if slices.Max(rss) >= limit {
		trouble = append(trouble, "over the limit")
	}
	if trend && len(rss) >= trendSamplesMin {
		third := len(rss) / 3
		middle, last := median(rss[third:2*third]), median(rss[2*third:])
		if last > middle*trendRatioMax+trendSlackBytes {
			trouble = append(trouble, fmt.Sprintf("grew from %s to %s MiB", mib(middle), mib(last)))
		}
	}
	if len(trouble) == 0 {
		return nil
	}
	return []string{who + strings.Join(trouble, ", ")}
}

// network asks whether the client sent much more than each image once to every receiver.
func (j *judgement) network() (Status, string) {
	receivers := j.receivers()
	if receivers == 0 {
		return Skipped, fmt.Sprintf("delivery %q: unknown how often an image is sent", printable(j.log.Run.Delivery))
	}
	var needed, sent, again float64
	retried := int64(0)
	for i := range j.log.uploads {
		u := &j.log.uploads[i]
		need := float64(u.bytes) * float64(receivers)
		needed += need
		sent += float64(u.sent)
		again += max(float64(u.sent)-need, 0)
		if u.attempts > 1 {
			retried++
		}
	}
	if needed == 0 || sent == 0 {
		return Skipped, "the log does not say what was sent"
	}
	return outcome(again <= resentMax*needed), fmt.Sprintf(
		"%s/s on the wire; %s sent for %s needed, %.1f %% sent again; %s retried", size(int64(ratio(sent, j.report.ElapsedS))),
		size(int64(sent)), size(int64(needed)), 100*again/needed, plural(retried, "upload"))
}

// receivers returns how many nodes get each image from the client, 0 when unknown.
func (j *judgement) receivers() int {
	switch j.log.Run.Delivery {
	case DeliveryBroadcast:
		return min(len(j.members), broadcastNodesMax)
	case DeliveryAnnounce:
		return min(len(j.members), j.log.Run.Replicas)
	case DeliveryRelay:
		return 1
	}
	return 0
}

// hashQuality asks whether the counts could be those of equal chances. Bounded loads make them more even
// than chance does, so that only a broken hash or a broken bound fails.
func (j *judgement) hashQuality() (Status, string) {
	n, p := j.report.Succeeded, j.report.Balance.ChiSquareP
	switch {
	case len(j.members) < 2:
		return Skipped, "needs two nodes or more"
	case n < hashUploadsMin:
		return Skipped, fmt.Sprintf("%s; needs %d", plural(int64(n), "upload"), hashUploadsMin)
	case j.log.unowned() > 0:
		return Skipped, "the log does not say who owns the uploads"
	}
	evidence := fmt.Sprintf("chi-square p = %.3f of the shares; at least %g", p, hashPMin)
	var known, firsts int
	for i := range j.log.uploads {
		if u := &j.log.uploads[i]; u.ok && u.choice != choiceUnknown {
			known++
			if u.choice == choiceFirst {
				firsts++
			}
		}
	}
	if known > 0 {
		evidence += fmt.Sprintf("; %.1f %% went to the hash's first choice", 100*float64(firsts)/float64(known))
	}
	if p < hashPMin && len(j.faults) > 0 {
		return Skipped, evidence + "; nodes were missing for a time"
	}
	return outcome(p >= hashPMin), evidence
}

// plural returns "1 upload", "2 uploads".
func plural(n int64, what string) string {
	switch {
	case n == 1:
		return fmt.Sprintf("%d %s", n, what)
	case strings.HasSuffix(what, "s"):
		return fmt.Sprintf("%d %ses", n, what)
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func mib(bytes float64) string { return fmt.Sprintf("%.0f", bytes/(1<<20)) }

// size returns bytes in decimal units with three digits.
func size(bytes int64) string {
	v := float64(bytes)
	units := []string{"B", "kB", "MB", "GB", "TB", "PB", "EB"}
	i := 0
	for ; v >= 999.5 && i+1 < len(units); i++ {
		v /= 1000
	}
	if i == 0 {
		return fmt.Sprintf("%d B", bytes)
	}
	return digits3(v) + " " + units[i]
}

// digits3 returns v with three digits, or all those before the point.
func digits3(v float64) string {
	switch {
	case v < 9.995:
		return fmt.Sprintf("%.2f", v)
	case v < 99.95:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", math.Round(v))
}

// seconds returns s to the millisecond where that matters.
func seconds(s float64) string {
	if s < 100 {
		return fmt.Sprintf("%.3f", s)
	}
	return fmt.Sprintf("%.0f", s)
}

package report

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"imgcluster/modes/runlog"
	"imgcluster/modes/term"
)

// What the checks of sizes and shares ask for, beside the Limits.
const (
	productionMinBytes     = 4_500_000 // no image below
	productionMaxBytes     = 26_000_000
	productionMeanMinBytes = 8_000_000
	productionMeanMaxBytes = 18_000_000
	defaultMinPixels       = 1600
	defaultMaxPixels       = 3500

	balanceImagesMax  = 2.25 // images by which any shares may differ: 0.15 % of 1500
	balancePerNodeMin = 6    // uploads
	balanceFewMax     = 1.0  // images by which the shares of fewer uploads may differ

	hashUploadsMin = 30
	sureDeviations = 3   // standard deviations of a share, by which it may miss its limit by chance
	hashFirstMin   = 100 // uploads whose first choice is known

	// hashShardNodesMax is the largest cluster in which the hash alone makes the first choices. In larger ones
	// they also depend on which nodes have the shard.
	hashShardNodesMax = runlog.BroadcastNodesMax
)

// productionScale requires images of the sizes that the system is meant for. A run that was made with other
// images on purpose does not fail for it.
func (j *judgement) productionScale() (Status, string) {
	var n, sum, largest int64
	smallest := int64(math.MaxInt64)
	for i := range j.log.Uploads {
		if b := j.log.Uploads[i].Bytes; b > 0 {
			n++
			sum += b
			smallest = min(smallest, b)
			largest = max(largest, b)
		}
	}
	if n == 0 {
		return Skipped, "no image sizes in the log"
	}
	missing := slices.DeleteFunc(slices.Clone(defaultClasses), func(class string) bool {
		return j.report.class(class) != nil
	})
	average := sum / n
	j.figure("images", float64(n))
	j.figure("min_bytes", float64(smallest))
	j.figure("max_bytes", float64(largest))
	j.figure("mean_bytes", float64(average))
	j.figure("classes", float64(len(j.report.Classes)))
	sizes := fmt.Sprintf("%s of %s to %s, %s on average", term.Plural(n, "image"), term.Bytes(smallest),
		term.Bytes(largest), term.Bytes(average))
	back, same := j.readBack()
	if j.log.Readback != nil || !same {
		sizes += "; " + back
	}
	run := &j.log.Run
	otherSizes := run.MinPixels != 0 && run.MinPixels != defaultMinPixels ||
		run.MaxPixels != 0 && run.MaxPixels != defaultMaxPixels
	switch {
	case !same:
		return Failed, sizes
	case run.Images != "":
		return Skipped, sizes + ": given images"
	case otherSizes:
		return Skipped, sizes + ": other sizes than the default were asked for"
	case n < int64(len(defaultClasses)):
		return Skipped, sizes + ": too few to cover the classes"
	case j.log.unsized() > 0:
		return Skipped, sizes + "; the log does not say the size of " + term.Plural(j.log.unsized(), "image")
	case len(missing) > 0 && j.missing.Uploads != "":
		return Skipped, sizes + "; so far without " + strings.Join(missing, ", ")
	case len(missing) > 0 && j.report.class("") != nil:
		return Skipped, sizes + "; the log does not say the class of all"
	case len(missing) > 0:
		return Failed, sizes + "; missing: " + strings.Join(missing, ", ")
	}
	ok := smallest >= productionMinBytes && largest <= productionMaxBytes &&
		average >= productionMeanMinBytes && average <= productionMeanMaxBytes
	evidence := sizes + ", all classes"
	if !ok {
		evidence += fmt.Sprintf("; wanted %s to %s, %s to %s on average",
			term.Bytes(productionMinBytes), term.Bytes(productionMaxBytes),
			term.Bytes(productionMeanMinBytes), term.Bytes(productionMeanMaxBytes))
	}
	return outcome(ok), evidence
}

// balanced requires the promised standard deviation: of the run's shares, or, where nodes owned images before
// it, of all that they own after it. A node that is down is given no images, so that a run with faults does
// not fail for uneven shares.
func (j *judgement) balanced() (Status, string) {
	n, b := len(j.nodes), j.report.Balance
	switch {
	case j.log.unnamed():
		return Skipped, skippedNodes
	case n < 2:
		return Skipped, "needs two nodes or more"
	case j.report.Succeeded < balancePerNodeMin*n:
		return Skipped, fmt.Sprintf("%s on %d nodes; needs %d for each",
			term.Plural(j.report.Succeeded, "upload"), n, balancePerNodeMin)
	case j.log.unowned() > 0 || j.log.unsized() > 0:
		return Skipped, "the log does not say who owns the uploads, or their sizes"
	}
	j.figure("stddev_percent", b.StddevPercent)
	j.figure("bytes_stddev_percent", b.BytesStddevPercent)
	evidence := fmt.Sprintf("standard deviation %.2f %% by uploads, %.2f %% by bytes; ", b.StddevPercent,
		b.BytesStddevPercent)
	var ok bool
	if before, owned := j.log.before(j.nodes); owned {
		var more string
		ok, more = j.balancedAfter(before)
		evidence += more
	} else {
		images, bytes := j.shareLimits(float64(j.report.Succeeded), float64(j.report.Bytes))
		j.figure("limit_percent", images)
		j.figure("bytes_limit_percent", bytes)
		ok = b.StddevPercent <= images && b.BytesStddevPercent <= bytes
		evidence += atMost(images, bytes)
	}
	if extra := len(j.report.Nodes) - n; extra > 0 {
		evidence += fmt.Sprintf("; %s not of the run", term.Plural(extra, "owner"))
	}
	if !ok && len(j.faults) > 0 {
		return Skipped, evidence + "; nodes were missing for a time"
	}
	return outcome(ok), evidence
}

// hashQuality requires an even hash and a bound that moves few images: the shares could be those of equal
// chances, and the first choices too. Bounded loads make the shares more even than chance does, so that only
// a broken hash or a broken bound fails; the first choices are the hash alone.
func (j *judgement) hashQuality() (Status, string) {
	n, p := j.report.Succeeded, j.report.Balance.ChiSquareP
	switch {
	case j.log.unnamed():
		return Skipped, skippedNodes
	case len(j.nodes) < 2:
		return Skipped, "needs two nodes or more"
	case n < hashUploadsMin:
		return Skipped, fmt.Sprintf("%s; needs %d", term.Plural(n, "upload"), hashUploadsMin)
	case j.log.unowned() > 0:
		return Skipped, "the log does not say who owns the uploads"
	}
	first, ok := j.firstChoices()
	var evidence string
	if _, owned := j.log.before(j.nodes); owned {
		evidence = "nodes owned images before, so that uneven shares of this run say nothing of the hash"
		if first == "" {
			return Skipped, evidence
		}
	} else {
		j.figure("shares_p", p)
		evidence = fmt.Sprintf("chi-square p = %.3f of the shares; at least %g", p, j.limits.HashP)
		ok = ok && p >= j.limits.HashP
	}
	if first != "" {
		evidence += "; " + first
	}
	if !ok && len(j.faults) > 0 {
		return Skipped, evidence + "; nodes were missing for a time"
	}
	return outcome(ok), evidence
}

// firstChoices judges where the hash alone would have put the uploads, as far as it is in the log.
func (j *judgement) firstChoices() (evidence string, ok bool) {
	counts := map[int]int64{} // by first node
	var named int64           // uploads whose first node is known
	var known, bytes int64    // uploads of which it is known whether they moved
	var moved, movedBytes int64
	for i := range j.log.Uploads {
		u := &j.log.Uploads[i]
		if !u.OK {
			continue
		}
		if u.FirstNode != 0 {
			counts[u.FirstNode]++
			named++
		}
		if u.Choice == runlog.ChoiceUnknown && u.FirstNode == 0 {
			continue
		}
		known++
		bytes += u.Bytes
		if u.Choice == runlog.ChoiceOther || u.Choice == runlog.ChoiceUnknown && u.FirstNode != u.Owner {
			moved++
			movedBytes += u.Bytes
		}
	}
	if known == 0 {
		return "", true
	}
	firsts := 100 * ratio(float64(known-moved), float64(known))
	j.figure("first_choice_percent", firsts)
	j.figure("moved_uploads", float64(moved))
	j.figure("moved_bytes", float64(movedBytes))
	of := term.Plural(known, "upload")
	if known < int64(j.report.Succeeded) {
		of += " whose first choice is known"
	}
	evidence = fmt.Sprintf("of %s, %.1f %% went to the hash's first choice, "+
		"%d (%.1f %% of the bytes) to another node for even shares",
		of, firsts, moved, 100*ratio(float64(movedBytes), float64(bytes)))
	j.figure("first_choice_known", float64(known))
	chance := 100 * math.Sqrt(firsts/100*(1-firsts/100)/float64(known)) // standard deviation of a share
	ok = known < hashFirstMin || firsts+sureDeviations*chance >= j.limits.FirstChoicePercent
	if named < hashFirstMin || len(j.nodes) > hashShardNodesMax {
		return evidence, ok
	}
	list := make([]int64, len(j.nodes))
	for i, n := range j.nodes {
		list[i] = counts[n.ID]
	}
	p := chiSquareP(list)
	j.figure("first_choices_p", p)
	return evidence + fmt.Sprintf("; chi-square p = %.3f of the first choices", p), ok && p >= j.limits.HashP
}

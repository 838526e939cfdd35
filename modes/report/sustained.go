package report

import (
	"fmt"
	"strings"

	"imgcluster/modes/term"
)

// What the check of sustained load asks for, beside the Limits.
const (
	sustainedUploadsMin = 20  // successes
	sustainedSecondsMin = 2.0 // of the measured time
	sustainedPartsMax   = 60  // into which the run is cut to look for a trend
	sustainedPerPart    = 5   // uploads in each, on average at least
	fallingPMax         = 0.01
	trendSecondsMin     = 30.0 // of a run whose trend is given with its interval
)

// sustainedLoad requires throughput and latency within the limits, and a throughput that does not fall: the
// test of Mann and Kendall says whether its trend over time is beyond noise.
func (j *judgement) sustainedLoad() (Status, string) {
	r := j.report
	if r.Succeeded == 0 {
		return Skipped, "no successful upload"
	}
	rate, limit := r.ThroughputPerS, j.throughputLimit()
	j.figure("uploads", float64(r.Succeeded))
	j.figure("seconds", r.MeasuredS)
	j.figure("throughput_per_s", rate)
	j.figure("p99_s", r.LatencyS.P99)
	evidence := fmt.Sprintf("%s in %s s, %s/s",
		term.Plural(r.Succeeded, "upload"), term.Seconds(r.MeasuredS), term.Digits3(rate))
	var bad []string
	if rate < limit && r.MeasuredS >= sustainedSecondsMin {
		bad = append(bad, fmt.Sprintf("at least %s/s wanted", term.Digits3(limit)))
	}
	if p99 := r.LatencyS.P99; j.limits.P99S > 0 {
		evidence += fmt.Sprintf("; p99 %s s of at most %g s", term.Seconds(p99), j.limits.P99S)
		if p99 > j.limits.P99S {
			bad = append(bad, "p99 over the limit")
		}
	}
	if len(bad) > 0 {
		return Failed, evidence + "; " + strings.Join(bad, ", ")
	}
	if r.Succeeded < sustainedUploadsMin || r.MeasuredS < sustainedSecondsMin {
		return Skipped, fmt.Sprintf("%s; needs %d uploads and %g s",
			evidence, sustainedUploadsMin, sustainedSecondsMin)
	}
	if n := j.log.untimed(); n > 0 {
		return Skipped, evidence + "; the log does not say how long " + term.Plural(n, "upload") + " took"
	}
	return j.pace(evidence)
}

// throughputLimit returns the limit, or less when the run asked for less.
func (j *judgement) throughputLimit() float64 {
	if rate := j.log.Run.UploadRate(); rate > 0 {
		return min(j.limits.ThroughputPerS, rate*rateReachedMin)
	}
	return j.limits.ThroughputPerS
}

// pace judges the trend of the throughput.
func (j *judgement) pace(evidence string) (Status, string) {
	parts := min(max(len(j.finished)/sustainedPerPart, trendPointsMin), sustainedPartsMax)
	points := j.log.pace(j.finished, parts)
	t, ok := findTrend(points)
	if !ok || t.level == 0 {
		return Skipped, evidence + "; too many uploads ended at the same moment to tell a pace"
	}
	for i, name := range []string{"first", "second", "last"} {
		var third []float64
		for _, p := range points[i*len(points)/3 : (i+1)*len(points)/3] {
			third = append(third, p.V)
		}
		j.figure(name+"_third_per_s", mean(third))
	}
	percent := func(slope float64) float64 { return 100 * slope * t.seconds / t.level }
	change, low, high := percent(t.slope), percent(t.low), percent(t.high)
	j.figure("trend_percent", change)
	j.figure("trend_low_percent", low)
	j.figure("trend_high_percent", high)
	j.figure("falling_p", t.pFalling)
	falls := t.pFalling < fallingPMax && -change > j.limits.SlowdownPercent
	switch {
	case j.report.MeasuredS >= trendSecondsMin:
		evidence += fmt.Sprintf("; throughput %+.1f %% from start to end, "+
			"95 %% interval %+.1f to %+.1f (Theil-Sen)", change, low, high)
	case falls:
		evidence += fmt.Sprintf("; throughput %+.1f %% from start to end (Theil-Sen)", change)
	default:
		evidence += fmt.Sprintf("; throughput: under %g s too short to tell a trend", trendSecondsMin)
	}
	evidence += fmt.Sprintf("; falling: p = %.3f (Mann-Kendall)", t.pFalling)
	if falls && len(j.faults) > 0 {
		return Skipped, evidence + "; nodes were missing for a time"
	}
	return outcome(!falls), evidence
}

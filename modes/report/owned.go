package report

import (
	"fmt"
	"math"

	"imgcluster/modes/runlog"
	"imgcluster/modes/term"
)

// before returns what each of the nodes owned before the run, by their first samples; false when one has no
// sample, or all owned nothing.
func (l log) before(nodes []NodeShare) (list []runlog.Load, owned bool) {
	own := map[int]runlog.Load{} // by node, of the run's images what those samples include
	for i := range l.Uploads {
		if u := &l.Uploads[i]; u.OK && u.FinishS() <= l.Owned[u.Owner].TS {
			o := own[u.Owner]
			o.Add(runlog.Load{Images: 1, Bytes: u.Bytes})
			own[u.Owner] = o
		}
	}
	for _, n := range nodes {
		first, ok := l.Owned[n.ID]
		if !ok {
			return nil, false
		}
		o := runlog.Load{
			Images: max(0, first.Images-own[n.ID].Images),
			Bytes:  max(0, first.Bytes-own[n.ID].Bytes),
		}
		owned = owned || o.Images > 0
		list = append(list, o)
	}
	return list, owned
}

// spread is how uneven the nodes' loads are.
type spread struct {
	images, bytes               float64 // of all nodes
	imagesStddev, bytesStddev   float64 // of the loads
	imagesPercent, bytesPercent float64 // standard deviations of the shares, in percentage points
}

func newSpread(list []runlog.Load) (s spread) {
	var images, bytes []float64
	for _, o := range list {
		s.images += float64(o.Images)
		s.bytes += float64(o.Bytes)
		images = append(images, float64(o.Images))
		bytes = append(bytes, float64(o.Bytes))
	}
	s.imagesStddev = stddev(images)
	s.bytesStddev = stddev(bytes)
	s.imagesPercent = 100 * ratio(s.imagesStddev, s.images)
	s.bytesPercent = 100 * ratio(s.bytesStddev, s.bytes)
	return s
}

// distance returns the distance from an even load, which placement makes shorter, in images of an average
// size.
func (s spread) distance(averageBytes float64) float64 {
	return math.Hypot(s.imagesStddev, ratio(s.bytesStddev, averageBytes))
}

// shareLimits returns the largest standard deviations of the shares of so many images with so many bytes.
// Shares can be even only to within some images, and by bytes to within a part of the largest image when it
// is far from the average.
func (j *judgement) shareLimits(images, bytes float64) (imagesPercent, bytesPercent float64) {
	fair := ratio(100*balanceImagesMax, images)
	largest := ratio(float64(j.log.largest()), ratio(bytes, images)) // in average images
	return max(j.limits.StddevPercent, fair), max(j.limits.StddevPercent, fair*max(1, largest-1))
}

// largest returns the size of the largest image that was stored.
func (l log) largest() (most int64) {
	for i := range l.Uploads {
		if u := &l.Uploads[i]; u.OK {
			most = max(most, u.Bytes)
		}
	}
	return most
}

func atMost(images, bytes float64) string {
	a, b := fmt.Sprintf("%.2f %%", images), fmt.Sprintf("%.2f %%", bytes)
	if a == b {
		return "at most " + a
	}
	return fmt.Sprintf("at most %s and %s", a, b)
}

// balancedAfter judges what the nodes own after a run on a cluster that had images before: placement gives a
// node that owned less more of the run.
func (j *judgement) balancedAfter(before []runlog.Load) (ok bool, evidence string) {
	after := make([]runlog.Load, len(before))
	for i, n := range j.nodes {
		after[i] = before[i]
		after[i].Add(runlog.Load{Images: n.Uploads, Bytes: n.Bytes})
		after[i].Add(j.log.Warmup.Owned[n.ID])
	}
	was, is := newSpread(before), newSpread(after)
	images, bytes := j.shareLimits(is.images, is.bytes)
	j.figure("owned_before_images", was.images)
	j.figure("owned_before_bytes", was.bytes)
	j.figure("owned_stddev_percent", is.imagesPercent)
	j.figure("owned_bytes_stddev_percent", is.bytesPercent)
	j.figure("limit_percent", images)
	j.figure("bytes_limit_percent", bytes)
	evidence = fmt.Sprintf("nodes owned %s before; "+
		"of all that they own after it %.2f %% by images, %.2f %% by bytes; %s",
		term.Plural(int(was.images), "image"), is.imagesPercent, is.bytesPercent, atMost(images, bytes))
	if is.imagesPercent <= images && is.bytesPercent <= bytes {
		return true, evidence
	}
	average := ratio(is.bytes, is.images)
	from, to := was.distance(average), is.distance(average)
	j.figure("spread_before_images", from)
	j.figure("spread_after_images", to)
	evidence += fmt.Sprintf(", or no further apart than before: %s images before, %s after",
		term.Digits3(from), term.Digits3(to))
	return to <= from, evidence
}

package report

import (
	"fmt"
	"math"

	"imgcluster/modes/runlog"
	"imgcluster/modes/term"
)

// before returns what each of the nodes owned before the run, by their first samples; false when one has
// none, or all owned nothing.
func (l log) before(nodes []NodeShare) (list []runlog.Load, any bool) {
	own := map[int]runlog.Load{} // of the run, in those samples already
	for i := range l.Uploads {
		if u := &l.Uploads[i]; u.OK && u.FinishS() <= l.Owned[u.Owner].TS {
			o := own[u.Owner]
			o.Add(runlog.Load{Images: 1, Bytes: u.Bytes})
			own[u.Owner] = o
		}
	}
	for _, n := range nodes {
		id := n.ID
		at, ok := l.Owned[id]
		if !ok {
			return nil, false
		}
		o := runlog.Load{Images: max(0, at.Images-own[id].Images), Bytes: max(0, at.Bytes-own[id].Bytes)}
		any = any || o.Images > 0
		list = append(list, o)
	}
	return list, any
}

// spread is how uneven the nodes' loads are.
type spread struct {
	n, sum          float64 // images and bytes of all
	images, bytes   float64 // standard deviations of the shares, in percentage points
	imagesN, bytesN float64 // of the loads themselves
}

func spreadOf(list []runlog.Load) (s spread) {
	var images, bytes []float64
	for _, o := range list {
		s.n += float64(o.Images)
		s.sum += float64(o.Bytes)
		images, bytes = append(images, float64(o.Images)), append(bytes, float64(o.Bytes))
	}
	s.imagesN, s.bytesN = stddev(images), stddev(bytes)
	s.images, s.bytes = 100*ratio(s.imagesN, s.n), 100*ratio(s.bytesN, s.sum)
	return s
}

// distance is the distance from an even load that placement makes shorter, in images of that size.
func (s spread) distance(average float64) float64 {
	return math.Hypot(s.imagesN, ratio(s.bytesN, average))
}

// shareLimits are the largest standard deviations of the shares in so many images of so many bytes. Shares
// can be even to within some images only, and by bytes to within a part of the largest one where that is far
// from the average.
func (j *judgement) shareLimits(n, sum float64) (images, bytes float64) {
	average := ratio(sum, n)
	fair := ratio(100*balanceImagesMax, n)
	unit := max(1, ratio(float64(j.log.largest()), average)-1) // in average images
	return max(j.limits.StddevPercent, fair), max(j.limits.StddevPercent, fair*unit)
}

// largest is the size of the largest image that was stored.
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

// balancedAfter judges what the nodes own after a run on a cluster that had images before: a node that owned
// less gets more of the run, on purpose.
func (j *judgement) balancedAfter(before []runlog.Load) (ok bool, evidence string) {
	after := make([]runlog.Load, len(before))
	for i, n := range j.members {
		after[i] = before[i]
		after[i].Add(runlog.Load{Images: n.Uploads, Bytes: n.Bytes})
		after[i].Add(j.log.Warmup.Owned[n.ID])
	}
	was, is := spreadOf(before), spreadOf(after)
	images, bytes := j.shareLimits(is.n, is.sum)
	j.figure("owned_before_images", was.n)
	j.figure("owned_before_bytes", was.sum)
	j.figure("owned_stddev_percent", is.images)
	j.figure("owned_bytes_stddev_percent", is.bytes)
	j.figure("limit_percent", images)
	j.figure("bytes_limit_percent", bytes)
	evidence = fmt.Sprintf("nodes owned %s before; of all that they own after it %.2f %% by images, %.2f %% by bytes; %s",
		term.Plural(int(was.n), "image"), is.images, is.bytes, atMost(images, bytes))
	if is.images <= images && is.bytes <= bytes {
		return true, evidence
	}
	average := ratio(is.sum, is.n)
	from, to := was.distance(average), is.distance(average)
	j.figure("spread_before_images", from)
	j.figure("spread_after_images", to)
	return to <= from, evidence + fmt.Sprintf(", or no further apart than before: %s images before, %s after",
		term.Digits3(from), term.Digits3(to))
}

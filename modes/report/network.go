package report

import (
	"fmt"

	"imgcluster/modes/runlog"
	"imgcluster/modes/term"
)

// network requires that the client did not send much more than each image once to every receiver, but for
// what the cluster asked for again.
func (j *judgement) network() (Status, string) {
	if j.log.unnamed() && j.log.Run.Delivery != runlog.DeliveryRelay {
		return Skipped, skippedNodes
	}
	w := j.log.wire(len(j.nodes))
	if !w.known {
		return Skipped, fmt.Sprintf("delivery %q: unknown how often an image is sent", j.log.Run.Delivery)
	}
	if w.needed == 0 || w.sent == 0 {
		return Skipped, "the log does not say what was sent"
	}
	again := 100 * w.again / w.needed
	j.figure("sent_bytes", w.sent)
	j.figure("needed_bytes", w.needed)
	j.figure("resent_percent", again)
	j.figure("retried_uploads", float64(w.retried))
	rate := ratio(w.sent, j.report.MeasuredS)
	j.figure("sent_bytes_per_s", rate)
	evidence := fmt.Sprintf("%s on the wire%s; %s sent for %s needed, %.1f %% sent again; %s retried",
		perSecond(rate), j.link(rate),
		term.Bytes(int64(w.sent)), term.Bytes(int64(w.needed)), again,
		term.Plural(w.retried, "upload"))
	if w.asked > 0 {
		j.figure("asked_again_bytes", w.asked)
		evidence += "; " + term.Bytes(int64(w.asked)) + " more for nodes that took an upload over"
	}
	if again <= j.limits.ResentPercent && w.unknown > 0 {
		return Skipped, evidence + "; the log does not say what was sent for " + term.Plural(w.unknown, "upload")
	}
	return outcome(again <= j.limits.ResentPercent), evidence
}

// link says what share of the client's link a rate in bytes is; it is empty when the log does not have the
// link.
func (j *judgement) link(rate float64) string {
	link := float64(j.log.Run.Hosts.Client.LinkBytesPS)
	if link == 0 {
		return ""
	}
	share := 100 * rate / link
	j.figure("link_percent", share)
	return fmt.Sprintf(", %s of the client's link of %s", term.Percent(share), perSecond(link))
}

// wire is what the client sent for the uploads.
type wire struct {
	needed, sent, again float64 // bytes
	asked               float64 // bytes, of sent, that nodes which took an upload over asked for
	retried             int64   // uploads
	unknown             int64   // uploads of which the log does not have what was sent or needed
	known               bool    // how often an image is sent
}

func (l log) wire(nodes int) (w wire) {
	w.known = l.Run.Delivery == runlog.DeliveryAuto ||
		runlog.Receivers(l.Run.Delivery, nodes, l.Run.Replicas) > 0
	for i := range l.Uploads {
		u := &l.Uploads[i]
		if u.Attempts > 1 {
			w.retried++
		}
		delivery := l.Run.Delivery
		if delivery == runlog.DeliveryAuto {
			delivery = u.By.String()
		}
		need := float64(u.Bytes) * float64(runlog.Receivers(delivery, nodes, l.Run.Replicas))
		if !u.Counted || need == 0 || u.OK && u.Sent == 0 {
			w.unknown++
			continue
		}
		w.needed += need
		w.sent += float64(u.Sent)
		w.asked += float64(u.Again)
		w.again += max(float64(u.Sent-u.Again)-need, 0)
	}
	return w
}

package commit

import (
	"slices"
	"time"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
)

// Moment is when an event happens to a participant.
type Moment struct {
	Now time.Time
	// Acted is the last entry of the shard's log of which this node's participants were told what it ended.
	Acted uint64
	// Leader is the shard's, as far as this node knows; 0: there is none.
	Leader image.NodeID
}

// Participant does one node's part of one upload.
type Participant struct {
	self     image.NodeID
	part     uint64
	shard    uint64
	req      image.Request
	times    Times
	decision Decision
	storing  bool
	copy     *Copy
	reported bool           // the copy was reported, and is kept until the log has decided
	passed   []image.NodeID // that this node sends its copy to
	problem  *image.Problem // why this node cannot store it
	fatal    bool           // nor any other
	over     *image.Problem // why the upload failed, without an entry in the log
	finished bool
	whole    time.Time // when all bytes had come
	said     time.Time // when it last reported, or began
}

// NewParticipant returns the participant of a node that receives an upload. part is a number that no other
// participant in that upload has had.
func NewParticipant(self image.NodeID, part, shard uint64, req image.Request, t Times) *Participant {
	return &Participant{self: self, part: part, shard: shard, req: req, times: t}
}

// Begin is the first event. Where the leader gets the header too, it decides unasked.
func (p *Participant) Begin(m Moment) []Action {
	p.said = m.Now
	told := slices.Contains(p.req.Broadcast, m.Leader)
	if told && m.Leader != p.self {
		return nil
	}
	return p.report(m)
}

// report tells the leader all that there is here.
func (p *Participant) report(m Moment) []Action { return p.send(m, false) }

// send tells the leader all that there is here; again: it was told before.
func (p *Participant) send(m Moment, again bool) []Action {
	p.said = m.Now
	if m.Leader == 0 || p.finished || p.over != nil {
		return nil
	}
	r := p.all(m)
	r.Problem, r.Fatal = p.problem, p.fatal
	r.Waits = !p.whole.IsZero() && m.Now.Sub(p.whole) >= p.times.Takeover
	answerDue := len(p.decision.Storing) == 0 || p.copy != nil || r.Waits
	return []Action{Send{To: m.Leader, Report: r, Again: again && answerDue}}
}

// all returns what every report says. It is sent: a copy in it is kept until the log has decided.
func (p *Participant) all(m Moment) Report {
	p.reported = p.reported || p.copy != nil
	r := Report{Node: p.self, Part: p.part, Request: p.req, Copy: p.copy, Index: m.Acted}
	if len(p.decision.Storing) > 0 {
		r.Round, r.Change = p.decision.Round, p.decision.Change
	}
	return r
}

// Decide takes what the coordinator on a node has decided.
func (p *Participant) Decide(m Moment, from image.NodeID, d Decision) []Action {
	if p.finished || p.over != nil || from != m.Leader {
		return nil
	}
	if d.Problem == nil && d.Round == p.decision.Round && d.Change < p.decision.Change {
		return nil // a newer one came before it
	}
	if d.Problem != nil && d.Part != 0 && d.Part != p.part {
		return nil // an earlier try
	}
	if d.Problem == nil && len(d.Storing) == 0 {
		return nil // of an earlier try
	}
	p.decision = d
	switch stores := slices.Contains(d.Storing, p.self); {
	case d.Problem != nil:
		return p.fail(m, d.Problem)
	case stores && (p.copy != nil || p.problem != nil):
		return append(p.report(m), p.pass()...)
	case stores && !p.storing:
		p.storing = true
		return []Action{Store{}}
	case !stores:
		return p.stop()
	}
	return nil
}

// Follows reports whether a decision is the one that this node follows.
func (p *Participant) Follows(d Decision) bool {
	return len(p.decision.Storing) > 0 && d.Round == p.decision.Round && d.Change == p.decision.Change
}

// stop ends storing, where that goes on.
func (p *Participant) stop() []Action {
	if !p.storing {
		return nil
	}
	p.storing = false
	return []Action{StopStoring{}}
}

// fail ends the upload here. When its copy was reported, the log has to say that it was taken back before it
// is deleted.
func (p *Participant) fail(m Moment, cause *image.Problem) (actions []Action) {
	p.over = cause
	actions = p.stop()
	if p.copy != nil && p.reported {
		return append(actions, p.abort(m))
	}
	if p.copy != nil {
		p.copy = nil
		actions = append(actions, DeleteCopy{})
	}
	return append(actions, p.finish(m, Finish{Problem: cause})...)
}

// finish ends the participant. Where that is without a record, the coordinator is told not to wait for it.
func (p *Participant) finish(m Moment, f Finish) (actions []Action) {
	p.finished = true
	if m.Leader != 0 && (f.Upload == nil || f.Upload.State == catalog.Failed) {
		gone := Report{
			Node: p.self, Part: p.part, Request: p.req, Index: m.Acted, Problem: f.Problem, Gone: true,
		}
		actions = append(actions, Send{To: m.Leader, Report: gone})
	}
	return append(actions, f)
}

// abort takes the report of the copy back.
func (p *Participant) abort(m Moment) Action {
	p.said = m.Now
	return Propose{p.req.ID, catalog.Command{Abort: &catalog.Abort{
		File: p.file(), User: p.req.User, Created: m.Now,
	}}}
}

func (p *Participant) file() image.FileID {
	return image.FileID{Image: p.req.ID, Shard: p.shard, Attempt: p.copy.Attempt}
}

// Aborted takes what the log says: no record names this copy, nor will one.
func (p *Participant) Aborted(m Moment, f image.FileID) []Action {
	if p.finished || p.copy == nil || p.file() != f {
		return nil
	}
	p.reported = false
	return p.fail(m, p.over)
}

// Skipped says that this node got the shard's state without the entries that made it, and that it says
// nothing of the upload. It may have been committed meanwhile, and its record deleted, and the copy with it:
// what was reported before is taken back. Or its user was removed, and the copy, reported or not, is under a
// key that is destroyed.
func (p *Participant) Skipped(m Moment) []Action {
	if p.finished || p.over != nil || p.copy == nil && !p.storing {
		return nil
	}
	problem := image.AsProblem(image.Errorf(image.KindAborted,
		"node %d does not know what became of upload %s", p.self, p.req.ID).WithHint("send the image again"))
	return p.fail(m, &problem)
}

// Stored takes this node's copy, which is durable.
func (p *Participant) Stored(m Moment, c Copy) []Action {
	if !p.storing {
		return nil // it was stopped, which deletes the file
	}
	p.storing, p.copy = false, &c
	return append(p.report(m), p.pass()...)
}

// pass sends this node's copy to those that get the bytes from it.
func (p *Participant) pass() (actions []Action) {
	if p.copy == nil || p.decision.Source != p.self {
		return nil
	}
	for _, n := range p.decision.Lacking {
		if !slices.Contains(p.passed, n) {
			p.passed = append(p.passed, n)
			actions = append(actions, Pass{n, p.decision.Storing})
		}
	}
	return actions
}

// CannotStore says that this node cannot store the upload; with fatal no node can.
func (p *Participant) CannotStore(m Moment, cause *image.Problem, fatal bool) (actions []Action) {
	if p.finished || p.over != nil || p.copy != nil && !fatal {
		return nil
	}
	actions = p.stop()
	p.problem, p.fatal = cause, fatal
	return append(actions, p.report(m)...)
}

// CannotSend says that a node which is to store the upload cannot be sent its bytes.
func (p *Participant) CannotSend(m Moment, to image.NodeID, cause *image.Problem) []Action {
	p.passed = slices.DeleteFunc(p.passed, func(n image.NodeID) bool { return n == to })
	if p.finished || p.over != nil || m.Leader == 0 {
		return nil
	}
	r := p.all(m)
	r.Lacks, r.Problem = to, cause
	return []Action{Send{To: m.Leader, Report: r}}
}

// Whole says that all bytes have come.
func (p *Participant) Whole(m Moment) { p.whole = m.Now }

// Led takes a new leader of the shard, which knows nothing of the upload.
func (p *Participant) Led(m Moment) []Action {
	p.decision.Storing = nil
	return p.report(m)
}

// Tick is called from time to time.
func (p *Participant) Tick(m Moment) []Action {
	if p.finished || m.Now.Sub(p.said) < p.times.Report {
		return nil
	}
	if p.over != nil {
		return []Action{p.abort(m)}
	}
	return p.send(m, true)
}

// GiveUp ends the upload here, since there is no progress or its client is gone.
func (p *Participant) GiveUp(m Moment, cause *image.Problem) []Action {
	if p.finished || p.over != nil {
		return nil
	}
	return p.fail(m, cause)
}

// Ended takes what the log says: the upload is finished. Copies that no record names are good for nothing.
func (p *Participant) Ended(m Moment, u *catalog.Upload) (actions []Action) {
	if !isOf(p.req, u.User, u.Name) {
		problem := image.AsProblem(catalog.Conflict(p.req.ID))
		return p.GiveUp(m, &problem)
	}
	if p.finished || !ends(u, p.decision.Round) {
		return nil
	}
	actions = p.stop()
	if p.copy != nil && (u.Record == nil || !u.Record.Has(p.self, p.copy.Attempt)) {
		actions = append(actions, DeleteCopy{})
	}
	return append(actions, p.finish(m, Finish{Upload: u})...)
}

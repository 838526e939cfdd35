package commit

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"time"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
)

// View is what a coordinator sees of the cluster at an event.
type View struct {
	Now time.Time
	// Up are the nodes that are up.
	Up []image.NodeID
	// Lookup returns what this node's state of the shard says of an upload, nil when it says nothing.
	Lookup func(image.ID) *catalog.Upload
	// Place chooses the nodes of an upload without those of out, those of keep first, and returns them in
	// their order: the storing ones, then the standbys. With too few nodes it fails.
	Place func(req image.Request, keep, out []image.NodeID) (order []image.NodeID, storing int, err error)
	// Needed is how many copies an upload has to have now, Wanted how many it should have.
	Needed, Wanted int
	// Random returns 64 random bits.
	Random func() uint64
	// Receives reports whether a node says that it is receiving the body of an upload.
	Receives func(image.NodeID, image.ID) bool
}

// Coordinator decides on the uploads of one shard while its node leads the shard.
type Coordinator struct {
	times   Times
	uploads map[image.ID]*deciding
}

// deciding is an upload that a coordinator has heard of.
type deciding struct {
	req      image.Request
	reports  map[image.NodeID]Report // the newest of each node
	out      []image.NodeID          // nodes that are not to store it
	could    []image.NodeID          // nodes that could store it: what is decided is load beside their own
	decision Decision
	created  time.Time
	decided  time.Time                  // when the decision last changed
	moved    time.Time                  // when the upload last made progress
	moving   map[image.NodeID]time.Time // when a node was last seen to receive the body
	heard    map[image.NodeID]time.Time // when a node last reported
	afar     map[image.NodeID]time.Time // likewise, of one that seems down from here, and reaches others
	proposed time.Time                  // when a command was proposed that has no answer yet; zero: none
	stale    map[image.NodeID]uint64    // entries as of which a node's report counts no more
	cause    error                      // why a node is out
}

// NewCoordinator returns the coordinator of a shard.
func NewCoordinator(t Times) *Coordinator {
	return &Coordinator{times: t, uploads: map[image.ID]*deciding{}}
}

// Busy reports whether there are uploads to decide on.
func (c *Coordinator) Busy() bool { return len(c.uploads) > 0 }

// Has reports whether it has an upload to decide on.
func (c *Coordinator) Has(id image.ID) bool { return c.uploads[id] != nil }

// Heard takes a report.
func (c *Coordinator) Heard(v View, r Report) []Action {
	id := r.Request.ID
	u, known := c.uploads[id], v.Lookup(id)
	if known != nil && !isOf(r.Request, known.User, known.Name) ||
		u != nil && (!isOf(r.Request, u.req.User, u.req.Name) || r.Request.Size != u.req.Size) {
		if r.Gone {
			return nil
		}
		p := image.AsProblem(catalog.Conflict(id))
		return []Action{Tell{r.Node, Decision{ID: id, Problem: &p}}}
	}
	if known != nil {
		if known.Final() {
			return nil // the node learns it from the log
		}
		if r.Copy != nil && r.Index < known.Index {
			return nil // of an earlier attempt
		}
	}
	if u == nil {
		if r.Gone {
			return nil
		}
		u = &deciding{
			req: r.Request, reports: map[image.NodeID]Report{}, created: v.Now, moved: v.Now,
			moving: map[image.NodeID]time.Time{}, heard: map[image.NodeID]time.Time{},
			afar:  map[image.NodeID]time.Time{},
			stale: map[image.NodeID]uint64{},
		}
		u.decision.ID, u.decision.Round, u.decision.Bytes = id, v.Random(), r.Request.Size
		if r.Request.Relayed { // Broadcast is whom another decision has named; the relay can send it to all
			u.req.Broadcast = nil
		}
		c.uploads[id] = u
	}
	if r.Request.Announced && !r.Request.Relayed { // its client may have announced it again
		u.sentTo(r.Request.Broadcast)
	}
	if r.Gone && r.Part != u.reports[r.Node].Part {
		return nil // it is of an earlier try
	}
	if !r.Gone {
		u.heard[r.Node] = v.Now
		if !slices.Contains(v.Up, r.Node) {
			u.afar[r.Node] = v.Now
		}
	}
	if at, is := u.stale[r.Node]; is && r.Copy != nil && r.Index <= at {
		return nil // it reports again
	}
	before := u.reports[r.Node]
	if before.Copy != nil && !r.Gone && (r.Copy == nil || r.Index < before.Index) {
		return u.tell(r.Node) // it was sent before
	}
	u.reports[r.Node] = r
	if before.Gone { // it tries again
		u.out = slices.DeleteFunc(u.out, func(n image.NodeID) bool { return n == r.Node })
	}
	if before.Copy == nil && r.Copy != nil {
		u.moved = v.Now
	}
	switch {
	case r.Gone && u.abandoned():
		delete(c.uploads, id)
		return u.withdraw()
	case r.Fatal:
		u.cause = r.Problem.Err()
		return c.fail(v, u)
	case r.Lacks != 0:
		if u.reports[r.Lacks].Copy == nil {
			u.drop(r.Lacks, r.Problem.Err())
		}
	case r.Problem != nil && r.Copy == nil:
		u.drop(r.Node, r.Problem.Err())
	case r.Gone:
		u.drop(r.Node, image.Errorf(image.KindAborted, "node %d gave upload %s up", r.Node, id))
	case r.Copy != nil:
		u.out = slices.DeleteFunc(u.out, func(n image.NodeID) bool { return n == r.Node }) // it was slow
		// Where no node stands by, which would complain, one that has stored its copy does.
		if r.Waits && u.decision.Standby == 0 {
			if n := u.slow(v, c.times); n != 0 && u.replaceable(v, n) {
				u.dropSlow(n)
			}
		}
	case r.Waits && !slices.Contains(u.decision.Storing, r.Node) && !slices.Contains(u.out, r.Node):
		if n := u.slow(v, c.times); n != 0 {
			u.dropSlow(n) // r.Node takes its place
		}
	}
	actions := c.decide(v, u)
	isNew := r.Round == u.decision.Round && r.Change == u.decision.Change
	if !isNew && !r.Gone && len(actions) == 0 {
		actions = u.tell(r.Node)
	}
	return actions
}

// isOf reports whether an upload is of an image's name. A client may use an ID twice.
func isOf(r image.Request, user, name string) bool { return r.User == user && r.Name == name }

// Tick looks over all uploads.
func (c *Coordinator) Tick(v View) (actions []Action) {
	byID := func(a, b image.ID) int { return bytes.Compare(a[:], b[:]) }
	for _, id := range slices.SortedFunc(maps.Keys(c.uploads), byID) {
		u := c.uploads[id]
		for _, n := range u.decision.Storing {
			switch {
			case u.reports[n].Copy != nil:
			case !slices.Contains(v.Up, n) && v.Now.Sub(u.afar[n]) > c.times.Takeover:
				u.drop(n, image.Errorf(image.KindAborted, "node %d went down before upload %s was stored", n, id))
			case u.receives(v, n):
			case v.Now.Sub(u.heard[n]) > c.times.Takeover && u.waited(v, n) > c.times.Takeover:
				u.drop(n, image.Errorf(image.KindAborted, "node %d says nothing of upload %s", n, id))
			}
		}
		if v.Now.Sub(u.moved) > c.times.Upload {
			u.cause = image.Errorf(image.KindAborted, "upload %s made no progress for %s (timeouts.upload)",
				id, c.times.Upload)
			actions = append(actions, c.fail(v, u)...)
			continue
		}
		actions = append(actions, c.decide(v, u)...)
	}
	return actions
}

// Ended takes what the log decided of an upload.
func (c *Coordinator) Ended(ended *catalog.Upload) {
	if u := c.uploads[ended.ID]; u != nil && ends(ended, u.decision.Round) {
		delete(c.uploads, ended.ID)
	}
}

// ends reports whether what the log says ends an upload of this round too: an End that came late, of an
// earlier try, does not.
func ends(u *catalog.Upload, round uint64) bool {
	return u.Final() || u.Round == round
}

// Proposed takes the answer to a Propose. With an error it is not known what became of the command.
func (c *Coordinator) Proposed(v View, id image.ID, r catalog.Result, err error) []Action {
	u := c.uploads[id]
	if u == nil {
		return nil
	}
	u.proposed = time.Time{}
	switch {
	case err != nil:
		return nil // the next tick proposes it again
	case r.Upload != nil && ends(r.Upload, u.decision.Round):
		delete(c.uploads, id)
		return nil
	case image.KindOf(r.Err()) == image.KindStale:
		// What the nodes have is to be reported again, as of a later entry.
		for n, report := range u.reports {
			u.stale[n] = report.Index
			report.Copy = nil
			u.reports[n] = report
		}
		return u.tell(u.nodes()...)
	case r.Err() != nil: // nothing of it gets into the log
		u.cause = r.Err()
		return c.dismiss(u)
	}
	return nil
}

// abandoned reports whether all nodes that reported have no part in it any more.
func (u *deciding) abandoned() bool {
	for _, r := range u.reports {
		if !r.Gone {
			return false
		}
	}
	return true
}

// withdraw tells the nodes that have no part in the upload, and may have been told of it, that it is over.
func (u *deciding) withdraw() (actions []Action) {
	for _, n := range u.nodes() {
		if _, has := u.reports[n]; !has {
			actions = append(actions, Tell{n, Decision{ID: u.req.ID, Round: u.decision.Round}})
		}
	}
	return actions
}

// receives reports whether a node is receiving the body, or is to get it from one that has not stored its own
// copy yet, and notes that.
func (u *deciding) receives(v View, n image.NodeID) bool {
	is := v.Receives(n, u.req.ID)
	if is {
		u.moved = v.Now
	}
	if is = is || slices.Contains(u.decision.Lacking, n) && u.reports[u.decision.Source].Copy == nil; is {
		u.moving[n] = v.Now
	}
	return is
}

// waited returns for how long a storing node has not received the body since that was decided.
func (u *deciding) waited(v View, n image.NodeID) time.Duration {
	return min(v.Now.Sub(u.decided), v.Now.Sub(u.moving[n]))
}

// drop takes the upload away from a node.
func (u *deciding) drop(n image.NodeID, cause error) {
	if !slices.Contains(u.out, n) {
		u.out = append(u.out, n)
		u.cause = cause
	}
}

// slow returns a storing node that neither has a copy nor receives the body, 0 when there is none.
func (u *deciding) slow(v View, t Times) image.NodeID {
	for _, n := range u.decision.Storing {
		if !u.receives(v, n) && u.reports[n].Copy == nil && u.waited(v, n) >= t.Takeover {
			return n
		}
	}
	return 0
}

// dropSlow takes the upload away from a node that is slow.
func (u *deciding) dropSlow(n image.NodeID) {
	u.drop(n, image.Errorf(image.KindAborted, "node %d did not store upload %s in time", n, u.req.ID))
}

// replaceable reports whether there is another node for a storing one, to send the bytes to.
func (u *deciding) replaceable(v View, n image.NodeID) bool {
	keep := slices.DeleteFunc(slices.Clone(u.decision.Storing), func(o image.NodeID) bool { return o == n })
	_, storing, err := v.Place(u.req, keep, append(slices.Clone(u.out), n))
	return err == nil && storing >= len(u.decision.Storing)
}

// decide brings the decision in line with who is there, and proposes the commit when all have stored.
func (c *Coordinator) decide(v View, u *deciding) []Action {
	isOut := func(n image.NodeID) bool { return slices.Contains(u.out, n) }
	keep := slices.DeleteFunc(slices.Clone(u.decision.Storing), isOut)
	if len(keep) > 0 && len(keep) == len(u.decision.Storing) {
		return c.commit(v, u)
	}
	reporters := slices.Sorted(maps.Keys(u.reports))
	for _, n := range reporters { // of an earlier decision, perhaps another leader's
		if u.reports[n].Copy != nil && !slices.Contains(keep, n) && !isOut(n) {
			keep = append(keep, n)
		}
	}
	for _, n := range reporters { // they have all bytes, also where they seem down from here
		if u.reports[n].Waits && len(keep) < v.Wanted && !slices.Contains(keep, n) && !isOut(n) {
			keep = append(keep, n)
		}
	}
	order, storing, err := v.Place(u.req, keep, u.out)
	if err != nil {
		if u.cause == nil {
			u.cause = err
		}
		return c.fail(v, u)
	}
	u.decision.Change++
	u.could = order
	u.decided, u.decision.Storing, u.decision.Standby = v.Now, order[:storing], 0
	u.decision.Lacking, u.decision.Source = nil, 0
	for _, n := range order[storing:] {
		if u.gets(n) {
			u.decision.Standby = n
			break
		}
	}
	if u.req.Announced && !u.supply() {
		u.cause = cmp.Or(u.cause, error(image.Errorf(image.KindAborted,
			"no node that is up has the bytes of upload %s", u.req.ID)))
		return c.fail(v, u) // the client announces it again
	}
	return append(u.tell(u.nodes()...), c.commit(v, u)...)
}

// sentTo takes note of nodes that the client of an announced upload sends it to.
func (u *deciding) sentTo(nodes []image.NodeID) {
	for _, n := range nodes {
		if !slices.Contains(u.req.Broadcast, n) {
			u.req.Broadcast = append(slices.Clip(u.req.Broadcast), n) // it may be a report's
		}
	}
}

// gets reports whether a node gets the bytes without a decision, or has some already.
func (u *deciding) gets(n image.NodeID) bool {
	r, heard := u.reports[n]
	return heard && !r.Gone || slices.Contains(u.req.Broadcast, n)
}

// supply finds the node that sends the bytes of an announced upload to those that the client does not send
// them to, where there are such, and reports whether all get them.
func (u *deciding) supply() bool {
	d := &u.decision
	for _, n := range d.Storing {
		switch {
		case !u.gets(n):
			d.Lacking = append(d.Lacking, n)
		case d.Source == 0, u.reports[n].Copy != nil && u.reports[d.Source].Copy == nil:
			d.Source = n
		}
	}
	if d.Source != 0 && len(d.Lacking) == 0 {
		d.Source = 0
		return true
	}
	return d.Source != 0
}

// nodes returns all nodes that have to do with the upload, or place others beside it.
func (u *deciding) nodes() []image.NodeID {
	all := slices.Concat(u.could, u.req.Broadcast, u.out, slices.Collect(maps.Keys(u.reports)))
	slices.Sort(all)
	return slices.Compact(all)
}

// tell tells nodes what is decided, if anything is.
func (u *deciding) tell(nodes ...image.NodeID) (actions []Action) {
	if len(u.decision.Storing) == 0 && u.decision.Problem == nil {
		return nil
	}
	for _, n := range nodes {
		d := u.decision
		d.Part = u.reports[n].Part
		actions = append(actions, Tell{n, d})
	}
	return actions
}

// proposes reports whether a command on the upload has been proposed that may have an answer yet.
func (c *Coordinator) proposes(v View, u *deciding) bool {
	return !u.proposed.IsZero() && v.Now.Sub(u.proposed) < c.times.Takeover
}

// commit proposes the commit when all storing nodes have durable copies of the same bytes.
func (c *Coordinator) commit(v View, u *deciding) []Action {
	if c.proposes(v, u) {
		return nil
	}
	cmd := catalog.Commit{
		ID: u.req.ID, User: u.req.User, Name: u.req.Name, Bytes: u.req.Size, Type: u.req.Type, If: u.req.If,
		Wanted: max(v.Wanted, len(u.decision.Storing)), Created: u.created,
	}
	for _, n := range u.decision.Storing {
		r := u.reports[n]
		if r.Copy == nil {
			return nil
		}
		if len(cmd.Copies) > 0 && r.Copy.Check != cmd.Check {
			u.cause = image.Errorf(image.KindConflict, "the nodes were sent different bytes of upload %s", u.req.ID)
			return c.end(v, u)
		}
		cmd.Check, cmd.Sealed = r.Copy.Check, cmp.Or(cmd.Sealed, r.Copy.Sealed)
		cmd.Copies = append(cmd.Copies, catalog.Reported{Copy: r.Copy.Copy, Index: r.Index})
	}
	if len(cmd.Copies) == 0 {
		return nil
	}
	u.proposed = v.Now
	return []Action{Propose{u.req.ID, catalog.Command{Commit: &cmd}}}
}

// fail ends an upload that no nodes are left for: with the copies that there are, when they are enough.
func (c *Coordinator) fail(v View, u *deciding) []Action {
	var stored []image.NodeID
	fatal := false
	for _, n := range slices.Sorted(maps.Keys(u.reports)) {
		fatal = fatal || u.reports[n].Fatal
		if u.reports[n].Copy != nil {
			stored = append(stored, n)
		}
	}
	switch {
	case !fatal && len(stored) >= max(v.Needed, 1) && v.Now.Sub(u.moved) <= c.times.Upload:
		u.decision.Change++
		u.decision.Storing = stored
		return c.commit(v, u)
	case len(stored) > 0:
		return c.end(v, u)
	}
	return c.dismiss(u)
}

// dismiss tells all nodes that an upload has failed. Those that have reported a copy take that back.
func (c *Coordinator) dismiss(u *deciding) []Action {
	p := image.AsProblem(u.cause)
	u.decision.Problem = &p
	delete(c.uploads, u.req.ID)
	return u.tell(u.nodes()...)
}

// end proposes the end of an upload of which there are copies.
func (c *Coordinator) end(v View, u *deciding) []Action {
	if c.proposes(v, u) {
		return nil
	}
	u.proposed = v.Now
	p := image.AsProblem(u.cause)
	return []Action{Propose{u.req.ID, catalog.Command{End: &catalog.End{
		ID: u.req.ID, User: u.req.User, Name: u.req.Name, Round: u.decision.Round,
		Cause: p.Code, Text: p.Detail, Created: u.created,
	}}}}
}

package catalog

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"imgcluster/cluster/image"
)

// model is what the documentation promises of a shard, in the plainest form: an upload is a struct, an
// image is a struct, and every sum is added up when it is asked for. TestModel compares the
// catalog with it.
type model struct {
	index   uint64
	uploads map[image.ID]*modelUpload
	images  map[string]*image.Record // by name, of one user
	deleted map[image.ID]image.Kind  // how each Delete was answered

	answers []modelAnswer  // to finished uploads and deletes, oldest first
	past    []*modelUpload // whose answers are forgotten
	clock   time.Time
	step    time.Duration // the most that one answer moves the clock on
}

// modelAnswer is kept for a while so that a repeated ID gets it again.
type modelAnswer struct {
	key  string // in the catalog
	id   image.ID
	user string
	at   time.Time // by the clock
}

type modelUpload struct {
	asked   Assign // the Assign that won
	state   State
	epoch   uint32
	owner   image.NodeID
	holders []image.NodeID // that were not taken away
	parts   []Slot         // who was asked to store a copy, in this order
	refused image.Kind     // failed because its conditions did not hold
	sums    *Stored        // Check and Sealed that copies must have; nil before the first
}

func newModel() *model {
	return &model{
		uploads: map[image.ID]*modelUpload{}, images: map[string]*image.Record{},
		deleted: map[image.ID]image.Kind{},
	}
}

// finish notes an answer. The latest time of all is the time, but one answer moves it by a step at most.
func (m *model) finish(table byte, id image.ID, user string, created time.Time) {
	if latest := m.clock.Add(m.step); created.After(latest) && !m.clock.IsZero() {
		created = latest
	}
	if created.After(m.clock) {
		m.clock = created
	}
	m.answers = append(m.answers, modelAnswer{key: string(idKey(table, id)), id: id, user: user, at: m.clock})
}

// forget forgets an answer: its ID is like a new one, unless there is an image of it.
func (m *model) forget(a modelAnswer) {
	m.answers = slices.DeleteFunc(m.answers, func(x modelAnswer) bool { return x == a })
	if a.key[0] == deletedTable {
		delete(m.deleted, a.id)
		return
	}
	m.past = append(m.past, m.uploads[a.id])
	delete(m.uploads, a.id)
}

// upload returns what is known of an ID: of an image all that is in its record, however old it is.
func (m *model) upload(id image.ID) *modelUpload {
	if u := m.uploads[id]; u != nil {
		return u
	}
	for _, rec := range m.images {
		if rec.ID != id {
			continue
		}
		u := &modelUpload{
			asked: Assign{Name: rec.Name, Bytes: rec.Bytes}, state: Committed, owner: rec.Owner,
			sums: &Stored{Check: rec.Check, Sealed: rec.Sealed},
		}
		for _, c := range rec.Copies {
			u.parts = append(u.parts, Slot{Node: c.Node, Attempt: c.Attempt, Key: c.Key})
		}
		return u
	}
	return nil
}

// do executes a command and returns the kind of its rejection, "" when it is accepted.
func (m *model) do(c Command) image.Kind {
	m.index++
	switch {
	case c.Assign != nil:
		return m.assign(*c.Assign)
	case c.Stored != nil:
		return m.stored(*c.Stored)
	case c.Reassign != nil:
		return m.reassign(c.Reassign)
	case c.Recopy != nil:
		return m.recopy(c.Recopy)
	}
	return m.delete(c.Delete)
}

// delete: the first answer stays the answer, and nothing more is deleted.
func (m *model) delete(d *Delete) image.Kind {
	first, ok := m.deleted[d.ID]
	if ok {
		return first
	}
	switch rec := m.images[d.Name]; {
	case rec == nil:
		first = image.KindNotFound
	case !meets(d.If, rec):
		first = refusal(d.If, rec)
	default:
		delete(m.images, d.Name)
	}
	m.deleted[d.ID] = first
	m.finish(deletedTable, d.ID, d.User, d.Created)
	return first
}

// names reports whether a list has the tag of an image's upload or of its digest.
func names(tags image.Tags, rec *image.Record) bool {
	return rec != nil && (slices.Contains(tags, "*") || slices.Contains(tags, `"`+rec.ID.String()+`"`) ||
		rec.Sealed != nil && slices.Contains(tags, `"`+sealedTag(rec.Sealed[0])+`"`))
}

func meets(c image.Conditions, rec *image.Record) bool {
	return (c.Match == nil || names(c.Match, rec)) && !names(c.NoneMatch, rec)
}

func refusal(c image.Conditions, rec *image.Record) image.Kind {
	if c.Match != nil && !names(c.Match, rec) {
		return image.KindChanged
	}
	return image.KindExists
}

// assign: the first one of an upload ID wins. Only a failed upload is assigned again, in a later epoch,
// unless it was refused for its conditions and still has any.
func (m *model) assign(a Assign) image.Kind {
	old := m.upload(a.ID)
	epoch := uint32(1)
	switch {
	case len(a.Holders) == 0 || a.Replicas < 1:
		return image.KindInvalid
	case old != nil && (old.asked.Name != a.Name || old.asked.Bytes != a.Bytes):
		return image.KindConflict
	case old != nil && old.state != Failed:
		return ""
	case old != nil && old.refused != "" && !a.If.IsZero():
		return old.refused
	case old != nil:
		epoch = old.epoch + 1
		m.answers = slices.DeleteFunc(m.answers, func(x modelAnswer) bool {
			return x.key == string(idKey(finishedTable, a.ID))
		})
	}
	if rec := m.images[a.Name]; !meets(a.If, rec) {
		m.uploads[a.ID] = &modelUpload{asked: a, state: Failed, epoch: epoch, refused: refusal(a.If, rec)}
		m.finish(finishedTable, a.ID, a.User, a.Created)
		return refusal(a.If, rec)
	}
	u := &modelUpload{asked: a, state: Pending, epoch: epoch, owner: a.Holders[0], holders: a.Holders}
	u.share()
	m.uploads[a.ID] = u
	return ""
}

// share asks holders to store until there are as many copies as wanted.
func (u *modelUpload) share() {
	for _, n := range u.holders {
		if u.part(n) == nil && len(u.parts) < u.asked.Replicas {
			u.parts = append(u.parts, Slot{Node: n, Epoch: u.epoch})
		}
	}
}

func (u *modelUpload) part(n image.NodeID) *Slot {
	for i := range u.parts {
		if u.parts[i].Node == n {
			return &u.parts[i]
		}
	}
	return nil
}

// stored: a copy counts when its node was asked for it in its epoch and has reported no other, and has the
// bytes of the others.
func (m *model) stored(s Stored) image.Kind {
	u := m.upload(s.ID)
	if u == nil {
		return image.KindStale
	}
	for _, c := range s.Copies {
		switch p := u.part(c.Node); {
		case p == nil, p.Attempt == image.Attempt{} && p.Epoch != c.Epoch:
			return image.KindStale
		case p.Attempt != image.Attempt{} && p.Attempt != c.Attempt:
			return image.KindStale
		}
	}
	otherDigest := u.sums != nil && u.sums.Sealed != nil && s.Sealed != nil && *u.sums.Sealed != *s.Sealed
	switch {
	case u.sums != nil && (u.sums.Check != s.Check || otherDigest):
		if u.state == Pending {
			m.fail(u)
		}
		return image.KindConflict
	case u.state == Committed:
		return ""
	case u.sums == nil:
		u.sums = &s
	}
	u.sums = &Stored{Check: s.Check, Sealed: cmp.Or(u.sums.Sealed, s.Sealed)}
	for _, c := range s.Copies {
		p := u.part(c.Node)
		p.Attempt, p.Key = c.Attempt, c.Key
	}
	return m.settle(u)
}

func (m *model) fail(u *modelUpload) {
	u.state, u.parts, u.holders = Failed, nil, nil
	m.finish(finishedTable, u.asked.ID, u.asked.User, u.asked.Created)
}

// settle commits an upload whose copies are all stored; the last to commit has the name.
func (m *model) settle(u *modelUpload) image.Kind {
	if slices.ContainsFunc(u.parts, func(p Slot) bool { return p.Attempt == image.Attempt{} }) {
		return ""
	}
	if rec := m.images[u.asked.Name]; !meets(u.asked.If, rec) {
		m.fail(u)
		u.refused = refusal(u.asked.If, rec)
		return u.refused
	}
	rec := &image.Record{
		User: u.asked.User, Name: u.asked.Name, ID: u.asked.ID, Bytes: u.asked.Bytes,
		Version: m.index, Shard: 2, Check: u.sums.Check, Sealed: u.sums.Sealed,
		Type: u.asked.Type, Owner: u.owner, Wanted: u.asked.Replicas, Created: u.asked.Created,
	}
	for _, p := range u.parts {
		rec.Copies = append(rec.Copies, image.Copy{Node: p.Node, Attempt: p.Attempt, Key: p.Key})
	}
	m.images[rec.Name] = rec
	u.state = Committed
	u.holders = nil
	m.finish(finishedTable, u.asked.ID, u.asked.User, u.asked.Created)
	return ""
}

// reassign: counts in its epoch only. A part that is stored stays, though its node is down.
func (m *model) reassign(r *Reassign) image.Kind {
	u := m.upload(r.ID)
	if u == nil || u.state != Pending || u.epoch != r.Epoch {
		return image.KindStale
	}
	u.epoch++
	var holders []image.NodeID
	for _, n := range u.holders {
		if !slices.Contains(r.Drop, n) {
			holders = append(holders, n)
		}
	}
	var parts []Slot
	for _, p := range u.parts {
		if p.Attempt != (image.Attempt{}) || !slices.Contains(r.Drop, p.Node) {
			parts = append(parts, p)
		}
	}
	u.holders = holders
	u.parts = parts
	u.share()
	if len(u.parts) == 0 || len(u.parts) < r.Min {
		m.fail(u)
		return r.Cause
	}
	if u.part(u.owner) == nil {
		u.owner = u.parts[0].Node
	}
	return m.settle(u)
}

// recopy: never fewer copies than before nor more than wanted, one a node, and what is done already
// stays done.
func (m *model) recopy(r *Recopy) image.Kind {
	rec := m.images[r.Name]
	if rec == nil || rec.ID != r.ID {
		return image.KindStale
	}
	todo := false
	left := slices.Clone(rec.Copies)
	for _, c := range r.Add {
		todo = todo || !slices.Contains(rec.Copies, c)
	}
	missing := false
	for _, c := range r.Drop {
		i := slices.Index(left, c)
		todo = todo || i >= 0
		if missing = missing || i < 0; i >= 0 {
			left = slices.Delete(left, i, i+1)
		}
	}
	if !todo {
		return ""
	}
	onNode := map[image.NodeID]bool{}
	left = append(left, r.Add...)
	for _, c := range left {
		onNode[c.Node] = true
	}
	if missing || len(onNode) < len(left) || len(left) < len(rec.Copies) || len(left) > rec.Wanted {
		return image.KindStale
	}
	next := *rec
	next.Copies = left
	if !onNode[rec.Owner] {
		next.Owner = left[0].Node
	}
	m.images[r.Name] = &next
	return ""
}

// wants: a file is garbage unless its upload has it or waits for one of the node, or its record names it.
func (m *model) wants(id image.ID, c image.Copy) bool {
	if u := m.uploads[id]; u != nil && u.state == Pending {
		p := u.part(c.Node)
		return p != nil && (p.Attempt == image.Attempt{} || p.Attempt == c.Attempt)
	}
	for _, rec := range m.images {
		if rec.ID == id && rec.Has(c.Node, c.Attempt) {
			return true
		}
	}
	return false
}

// load adds up one node's: uploads count where they were given to, unless they failed.
func (m *model) load(n image.NodeID) (l NodeTotals) {
	for _, u := range slices.AppendSeq(slices.Clone(m.past), maps.Values(m.uploads)) {
		if u.state != Failed && u.owner == n {
			l.Assigned.add(1, u.asked.Bytes)
		}
		if u.part(n) != nil {
			l.Storing.add(1, u.asked.Bytes)
		}
	}
	for _, rec := range m.images {
		if rec.Owner == n {
			l.Owned.add(1, rec.Bytes)
		}
		if slices.Contains(rec.Replicas(), n) {
			l.Stored.add(1, rec.Bytes)
		}
	}
	return l
}

// oldCopies counts the copies of a user's images that are under keys before least, by node.
func (m *model) oldCopies(user string, least uint32) map[image.NodeID]int64 {
	old := map[image.NodeID]int64{}
	for _, rec := range m.images {
		for _, c := range rec.Copies {
			if rec.User == user && c.Key < least {
				old[c.Node]++
			}
		}
	}
	return old
}

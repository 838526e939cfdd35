package catalog

import (
	"maps"
	"slices"
	"time"

	"imgcluster/cluster/image"
)

// model is what the documentation promises of a shard, in the plainest form: an upload is a struct, an
// image is a struct, and every sum is added up when it is asked for. TestModel compares the
// catalog with it.
type model struct {
	index    uint64
	uploads  map[image.ID]*modelUpload // what became of them, while that is known
	images   map[string]*image.Record  // by name
	deleted  map[image.ID]image.Kind   // how each Delete was answered
	taken    map[image.FileID]bool     // copies that were taken back
	restarts map[image.NodeID]uint64   // the last of each node
	removal  uint64                    // the last one that is complete
	loads    []*image.Record           // all that were ever committed

	answers   []modelAnswer // to uploads, deletes and aborts, oldest first
	forgotten uint64        // the newest entry that ended an upload or a copy and is not known any more
	clock     time.Time
	step      time.Duration // the most that one answer moves the clock on

	ended bool // the last command ended an upload
}

// modelAnswer is kept for a while so that a repeated ID gets it again.
type modelAnswer struct {
	key    string // in the catalog
	user   string
	at     time.Time // by the clock
	index  uint64    // of the command
	forget func()
}

type modelUpload struct {
	user, name string
	rec        *image.Record // nil: it failed
	cause      image.Kind    // then: why
	round      uint64
	index      uint64
}

func newModel() *model {
	return &model{
		uploads: map[image.ID]*modelUpload{}, images: map[string]*image.Record{},
		deleted: map[image.ID]image.Kind{}, taken: map[image.FileID]bool{},
		restarts: map[image.NodeID]uint64{},
	}
}

// keep notes an answer, and how it is forgotten. The latest time of all is the time, but one answer moves it
// by a step at most.
func (m *model) keep(key []byte, user string, created time.Time, forget func()) {
	if latest := m.clock.Add(m.step); created.After(latest) && !m.clock.IsZero() {
		created = latest
	}
	if created.After(m.clock) {
		m.clock = created
	}
	m.answers = append(m.answers, modelAnswer{string(key), user, m.clock, m.index, forget})
}

// drop takes an answer out of the list.
func (m *model) drop(key string) {
	m.answers = slices.DeleteFunc(m.answers, func(x modelAnswer) bool { return x.key == key })
}

// forget forgets an answer: its ID is like a new one, unless there is an image of it. Of copies that were
// reported before what it answered, nothing is known from here on.
func (m *model) forget(a modelAnswer) {
	m.drop(a.key)
	a.forget()
	if a.key[0] != deletedTable {
		m.forgotten = max(m.forgotten, a.index)
	}
}

// upload returns what is known of an ID: of an image all that is in its record, however old it is.
func (m *model) upload(id image.ID) *modelUpload {
	if u := m.uploads[id]; u != nil {
		return u
	}
	if rec := m.image(id); rec != nil {
		return &modelUpload{user: rec.User, name: rec.Name, rec: rec, index: rec.Version}
	}
	return nil
}

func (m *model) image(id image.ID) *image.Record {
	for _, rec := range m.images {
		if rec.ID == id {
			return rec
		}
	}
	return nil
}

// do executes a command and returns the kind of its rejection, "" when it is accepted.
func (m *model) do(c Command) image.Kind {
	m.index++
	m.ended = false
	switch {
	case c.Commit != nil:
		return m.commit(c.Commit)
	case c.End != nil:
		return m.end(c.End)
	case c.Abort != nil:
		return m.abort(c.Abort)
	case c.Restart != nil:
		m.restarts[c.Restart.Node] = m.index
		return ""
	case c.Recopy != nil:
		return m.recopy(c.Recopy)
	case c.Purge != nil:
		return m.purge(c.Purge)
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
	m.keep(idKey(deletedTable, d.ID), d.User, d.Created, func() { delete(m.deleted, d.ID) })
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

// known returns the answer to a command for an upload that has ended for good.
func (m *model) known(old *modelUpload, user, name string) (kind image.Kind, answered bool) {
	switch {
	case old == nil:
	case old.user != user || old.name != name:
		return image.KindConflict, true
	case old.rec != nil:
		return "", true
	case old.cause == image.KindExists || old.cause == image.KindChanged:
		return old.cause, true
	}
	return "", false
}

// commit: the first one of an upload ID makes its record, if all its copies are known to be there and its
// conditions hold.
func (m *model) commit(c *Commit) image.Kind {
	if len(c.Copies) == 0 || len(c.Copies) > c.Wanted {
		return image.KindInvalid
	}
	old := m.upload(c.ID)
	if kind, answered := m.known(old, c.User, c.Name); answered {
		if kind == "" && (old.rec.Check != c.Check || old.rec.Bytes != c.Bytes) {
			return image.KindConflict
		}
		return kind
	}
	for _, x := range c.Copies {
		if !m.counts(c.ID, x) || old != nil && x.Index < old.index {
			return image.KindStale
		}
	}
	u := &modelUpload{user: c.User, name: c.Name, index: m.index}
	if rec := m.images[c.Name]; !meets(c.If, rec) {
		u.cause = refusal(c.If, rec)
	} else {
		u.rec = &image.Record{
			User: c.User, Name: c.Name, ID: c.ID, Bytes: c.Bytes, Version: m.index, Shard: 2, Check: c.Check,
			Sealed: c.Sealed, Type: c.Type, Owner: c.Copies[0].Node, Wanted: c.Wanted, Created: c.Created,
		}
		for _, x := range c.Copies {
			u.rec.Copies = append(u.rec.Copies, x.Copy)
		}
		m.images[c.Name] = u.rec
		m.loads = append(m.loads, u.rec)
	}
	m.finish(c.ID, u, c.Created)
	return u.cause
}

// counts reports whether a copy is known to be on its node: it was not taken back, and reported after all
// that the node may have deleted it for.
func (m *model) counts(id image.ID, x Reported) bool {
	return !m.taken[image.FileID{Image: id, Attempt: x.Attempt}] && x.Index >= m.forgotten &&
		x.Index >= m.restarts[x.Node]
}

// finish notes what became of an upload, instead of what was known.
func (m *model) finish(id image.ID, u *modelUpload, created time.Time) {
	key := idKey(uploadTable, id)
	m.drop(string(key))
	m.uploads[id] = u
	m.ended = true
	m.keep(key, u.user, created, func() { delete(m.uploads, id) })
}

// end: an upload without a record has failed, for good when its conditions do not hold.
func (m *model) end(e *End) image.Kind {
	if kind, answered := m.known(m.upload(e.ID), e.User, e.Name); answered {
		return kind
	}
	u := &modelUpload{user: e.User, name: e.Name, index: m.index, round: e.Round, cause: e.Cause}
	if !e.If.IsZero() {
		rec := m.images[e.Name]
		if meets(e.If, rec) {
			return ""
		}
		u.cause = refusal(e.If, rec)
	}
	m.finish(e.ID, u, e.Created)
	return u.cause
}

// abort: the copy will not be named, unless it is.
func (m *model) abort(a *Abort) image.Kind {
	if rec := m.image(a.File.Image); rec != nil {
		if slices.ContainsFunc(rec.Copies, func(c image.Copy) bool { return c.Attempt == a.File.Attempt }) {
			return ""
		}
	}
	file := image.FileID{Image: a.File.Image, Attempt: a.File.Attempt}
	if !m.taken[file] {
		m.taken[file] = true
		m.keep(abortKey(a.File), a.User, a.Created, func() { delete(m.taken, file) })
	}
	return ""
}

// purge: all of a user is gone, and no copy that was reported before counts. Repeated it changes nothing.
func (m *model) purge(p *Purge) image.Kind {
	if p.Removal <= m.removal {
		return ""
	}
	m.removal = p.Removal
	maps.DeleteFunc(m.images, func(_ string, rec *image.Record) bool { return rec.User == p.User })
	for _, a := range slices.Clone(m.answers) {
		if a.user == p.User {
			m.forget(a)
		}
	}
	m.forgotten = m.index
	return ""
}

// recopy: never fewer copies than before nor more than wanted, one a node, and what is done already
// stays done. What is new was on its node after the record's last change.
func (m *model) recopy(r *Recopy) image.Kind {
	onNode := map[image.NodeID]bool{}
	for _, c := range r.Add {
		if onNode[c.Node] || slices.Contains(r.Drop, c.Copy) {
			return image.KindInvalid
		}
		onNode[c.Node] = true
	}
	rec := m.images[r.Name]
	if rec == nil || rec.ID != r.ID {
		return image.KindStale
	}
	todo, missing, counts := false, false, true
	left := slices.Clone(rec.Copies)
	for _, c := range r.Drop {
		i := slices.Index(left, c)
		todo = todo || i >= 0
		if missing = missing || i < 0; i >= 0 {
			left = slices.Delete(left, i, i+1)
		}
	}
	for _, c := range left {
		onNode[c.Node] = true
	}
	for _, c := range r.Add {
		todo = todo || !slices.Contains(rec.Copies, c.Copy)
		counts = counts && m.counts(r.ID, c) && c.Index >= rec.Version && c.Index >= rec.Recopied
		left = append(left, c.Copy)
	}
	if !todo {
		return ""
	}
	if missing || !counts || len(onNode) < len(left) || len(left) < len(rec.Copies) || len(left) > rec.Wanted {
		return image.KindStale
	}
	next := *rec
	next.Copies, next.Recopied = left, m.index
	if !slices.Contains(next.Replicas(), rec.Owner) {
		next.Owner = left[0].Node
	}
	m.images[r.Name] = &next
	return ""
}

// names: a file is garbage unless the record of its upload names it.
func (m *model) names(id image.ID, c image.Copy) bool {
	rec := m.image(id)
	return rec != nil && rec.Has(c.Node, c.Attempt)
}

// files returns all files that records name, by node.
func (m *model) files() map[modelFile]bool {
	all := map[modelFile]bool{}
	for _, rec := range m.images {
		for _, c := range rec.Copies {
			all[modelFile{c.Node, rec.File(c)}] = true
		}
	}
	return all
}

type modelFile struct {
	node image.NodeID
	file image.FileID
}

// load adds up one node's: what was given to it stays, whatever became of it.
func (m *model) load(n image.NodeID) (l NodeTotals) {
	for _, rec := range m.loads {
		if rec.Owner == n {
			l.Assigned.add(1, rec.Bytes)
		}
		if slices.Contains(rec.Replicas(), n) {
			l.Storing.add(1, rec.Bytes)
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

package catalog

import (
	"encoding/binary"
	"slices"
	"time"

	"imgcluster/cluster/image"
)

// Commit makes the record of an upload: all its copies are durable, and kept until the log says otherwise.
// The first Commit of an upload ID makes the record, and a later one is answered with it. One whose
// conditions do not hold ends the ID.
//
// What makes a Commit safe that comes late, or twice, is the place in the log of which each copy was
// reported: its node has not deleted it before, and deletes it only for what comes after. So a copy is
// refused, as KindStale, that was taken back, or reported before something in the log which its node may have
// deleted it for: the end of the ID, an answer that is forgotten, or a disk that was lost. Its node may
// report it again.
type Commit struct {
	ID   image.ID `json:"id"`
	User string   `json:"user"`
	Name string   `json:"name"`
	// Bytes is the plaintext length.
	Bytes int64 `json:"bytes"`
	// Type is the client's Content-Type, kept in the record.
	Type string `json:"type,omitempty"`
	// If is asked of the record that the name has now.
	If image.Conditions `json:"if,omitzero"`
	// Copies are on different nodes; the first is the owner's.
	Copies []Reported          `json:"copies"`
	Check  image.Check         `json:"check"`
	Sealed *image.SealedDigest `json:"sealed,omitempty"`
	// Wanted is how many copies there should be.
	Wanted int `json:"wanted"`
	// Created is the proposer's time, kept in the record. It moves the shard's clock on; see Retention.
	Created time.Time `json:"created"`
}

// Reported is a durable copy as its node reported it.
type Reported struct {
	image.Copy
	// Index is the last entry of the shard's log that the node had acted on when it looked whether it has the
	// copy.
	Index uint64 `json:"index"`
}

// End ends an upload ID without a record, unless it has one. Copies that were reported before are good for
// nothing then.
type End struct {
	ID   image.ID `json:"id"`
	User string   `json:"user"`
	Name string   `json:"name"`
	// Round is what the coordinator that ends the upload has given its decisions: participants of another one
	// go on.
	Round uint64 `json:"round,omitempty"`
	// If has the upload end only if these conditions do not hold for the record that the name has.
	If image.Conditions `json:"if,omitzero"`
	// Cause and Text say why, where it is not for If.
	Cause image.Kind `json:"cause,omitempty"`
	Text  string     `json:"text,omitempty"`
	// Created is the proposer's time. It moves the shard's clock on; see Retention.
	Created time.Time `json:"created"`
}

// Abort takes back a node's report of a copy: unless a record names it, none will. The upload goes on without
// that copy.
type Abort struct {
	File image.FileID `json:"file"`
	User string       `json:"user"`
	// Created is the proposer's time. It moves the shard's clock on; see Retention.
	Created time.Time `json:"created"`
}

// Restart says that a node has lost what its disk had: no copy that it reported before counts.
type Restart struct {
	Node image.NodeID `json:"node"`
}

func restartKey(n image.NodeID) []byte {
	return binary.BigEndian.AppendUint32([]byte{restartTable}, uint32(n))
}

func (c *Commit) check() error {
	if err := checkNamed(c.User, c.Name, c.Type, c.If); err != nil {
		return err
	}
	switch {
	case c.ID == image.ID{} || c.Bytes <= 0 || c.Bytes > imageBytesMax:
		return image.Errorf(image.KindInvalid, "commit of %d bytes, or without an upload ID", c.Bytes)
	case c.Created.UnixMilli() <= 0:
		return errNoTime
	case c.Wanted < 1 || c.Wanted > image.NodesMax || len(c.Copies) == 0 || len(c.Copies) > c.Wanted:
		return image.Errorf(image.KindInvalid, "commit of %d copies where %d are wanted", len(c.Copies), c.Wanted)
	}
	return checkCopies(c.Copies)
}

// checkCopies refuses copies of no node or of no attempt, and two on one node.
func checkCopies(copies []Reported) error {
	seen := map[image.NodeID]bool{}
	for _, x := range copies {
		if x.Node == 0 || x.Attempt.IsZero() || seen[x.Node] {
			return image.Errorf(image.KindInvalid, "a copy without node or attempt, or two on a node")
		}
		seen[x.Node] = true
	}
	return nil
}

func (t *txn) commit(c *Commit) (Result, error) {
	if err := c.check(); err != nil {
		return reject(err), nil
	}
	old, err := GetUpload(t.tx, c.ID)
	if err != nil {
		return Result{}, err
	}
	least := uint64(0)
	if old != nil {
		least = old.Index
		switch {
		case old.User != c.User || old.Name != c.Name:
			return reject(Conflict(c.ID)), nil
		case old.State == Committed && (old.Record.Check != c.Check || old.Record.Bytes != c.Bytes):
			return reject(Conflict(c.ID)), nil
		case old.State == Committed:
			return Result{Upload: old}, nil
		case old.Refused():
			return Result{Problem: old.Problem, Upload: old}, nil
		}
	}
	stale, err := t.reportedBefore(least, c.ID, c.Copies)
	if err != nil {
		return Result{}, err
	}
	if stale != nil {
		return reject(stale), nil
	}
	was, err := GetRecord(t.tx, c.User, c.Name)
	if err != nil {
		return Result{}, err
	}
	u := &Upload{ID: c.ID, User: c.User, Name: c.Name}
	if err := c.If.Check(was); err != nil {
		return t.fail(u, err, old, c.Created)
	}
	if was != nil {
		if err := t.remove(was); err != nil {
			return Result{}, err
		}
	}
	u.State, u.Record = Committed, c.record(t)
	if err := t.store(u.Record); err != nil {
		return Result{}, err
	}
	return Result{Upload: u}, t.save(u, old, c.Created)
}

func (c *Commit) record(t *txn) *image.Record {
	rec := &image.Record{
		User: c.User, Name: c.Name, Version: t.index, ID: c.ID, Bytes: c.Bytes, Check: c.Check,
		Sealed: c.Sealed, Type: c.Type, Owner: c.Copies[0].Node, Shard: t.shard, Wanted: c.Wanted,
		Created: c.Created,
	}
	for _, x := range c.Copies {
		rec.Copies = append(rec.Copies, x.Copy)
	}
	return rec
}

// store writes a new record and counts it.
func (t *txn) store(rec *image.Record) error {
	err := t.putRecord(rec)
	if err == nil {
		err = t.tx.Set(idKey(imageTable, rec.ID), nameKey(rec.User, rec.Name))
	}
	if err == nil {
		err = t.updateTotals(func(s *Totals) {
			s.count(rec, +1)
			s.Assign(rec.Replicas(), rec.Bytes)
		})
	}
	if err == nil {
		err = t.countCopies(+1, []*image.Record{rec})
	}
	return err
}

// Conflict is the answer to an upload under an ID that has another use.
func Conflict(id image.ID) error {
	return image.Errorf(image.KindConflict, "upload ID %s was used for other bytes or another name", id).
		WithHint("send each image under a fresh Idempotency-Key")
}

// fail ends an upload without a record; see save. That is kept, so that who asks later, from another node or
// by a command that comes again, gets the same answer.
func (t *txn) fail(u *Upload, cause error, old *Upload, created time.Time) (Result, error) {
	p := image.AsProblem(cause)
	u.State, u.Problem = Failed, &p
	return Result{Upload: u, Problem: &p}, t.save(u, old, created)
}

// save keeps what became of an upload, in place of what was known of its ID before, nil when that was
// nothing, and has the node notified.
func (t *txn) save(u, old *Upload, created time.Time) error {
	if old != nil {
		if err := t.forget(old); err != nil {
			return err
		}
	}
	t.events = append(t.events, Event{Upload: u})
	u.Index = t.index
	return t.keep(u.User, created, idKey(uploadTable, u.ID), func(seq uint64) any {
		u.Seq = seq
		return u
	})
}

// reportedBefore returns why one of an upload's copies counts no more, nil when all count: it was taken back,
// or reported before the entry least, or before something that its node may have deleted it for.
func (t *txn) reportedBefore(least uint64, id image.ID, copies []Reported) (stale, err error) {
	floor, err := forgotten(t.tx)
	if err != nil {
		return nil, err
	}
	for _, x := range copies {
		taken, err := t.tx.Get(abortKey(image.FileID{Image: id, Attempt: x.Attempt}))
		if err != nil {
			return nil, err
		}
		if taken != nil {
			return image.Errorf(image.KindStale, "node %d has taken its copy of upload %s back", x.Node, id), nil
		}
		var restart uint64
		if _, err := get(t.tx, restartKey(x.Node), &restart); err != nil {
			return nil, err
		}
		if first := max(least, floor, restart); x.Index < first {
			return image.Errorf(image.KindStale, "node %d reported its copy of upload %s at entry %d, before %d",
				x.Node, id, x.Index, first), nil
		}
	}
	return nil, nil
}

func (e *End) check() error {
	err := checkNamed(e.User, e.Name, "", e.If)
	switch {
	case err != nil:
		return err
	case e.Created.UnixMilli() <= 0:
		return errNoTime
	case e.ID == image.ID{}:
		return image.Errorf(image.KindInvalid, "end of an upload without an ID")
	case e.If.IsZero() && !e.Cause.Known():
		return image.Errorf(image.KindInvalid, "end of an upload for %.40q", e.Cause)
	}
	return nil
}

func (t *txn) end(e *End) (Result, error) {
	if err := e.check(); err != nil {
		return reject(err), nil
	}
	old, err := GetUpload(t.tx, e.ID)
	if err != nil {
		return Result{}, err
	}
	if old != nil {
		switch {
		case old.User != e.User || old.Name != e.Name:
			return reject(Conflict(e.ID)), nil
		case old.State != Failed || old.Refused():
			return Result{Problem: old.Problem, Upload: old}, nil
		}
	}
	var cause error = image.Errorf(e.Cause, "%.*s", textRunesMax, e.Text).WithHint("send the image again")
	if !e.If.IsZero() {
		rec, err := GetRecord(t.tx, e.User, e.Name)
		if err != nil {
			return Result{}, err
		}
		if cause = e.If.Check(rec); cause == nil {
			return Result{}, nil
		}
	}
	u := &Upload{ID: e.ID, User: e.User, Name: e.Name, Round: e.Round}
	return t.fail(u, cause, old, e.Created)
}

func abortKey(f image.FileID) []byte { return append(idKey(abortTable, f.Image), f.Attempt[:]...) }

func (t *txn) abort(a *Abort) (Result, error) {
	if err := image.CheckUser(a.User); err != nil {
		return reject(err), nil
	}
	if a.Created.UnixMilli() <= 0 {
		return reject(errNoTime), nil
	}
	rec, err := recordOf(t.tx, a.File.Image)
	if err != nil {
		return Result{}, err
	}
	isIt := func(c image.Copy) bool { return c.Attempt == a.File.Attempt }
	if rec != nil && slices.ContainsFunc(rec.Copies, isIt) {
		return Result{}, nil
	}
	t.events = append(t.events, Event{Aborted: a})
	key := abortKey(a.File)
	if known, err := t.tx.Get(key); known != nil || err != nil {
		return Result{}, err
	}
	return Result{}, t.keep(a.User, a.Created, key, func(uint64) any { return t.index })
}

func (t *txn) restart(c *Restart) (Result, error) {
	if c.Node == 0 {
		return reject(image.Errorf(image.KindInvalid, "restart of no node")), nil
	}
	return Result{}, t.put(restartKey(c.Node), t.index)
}

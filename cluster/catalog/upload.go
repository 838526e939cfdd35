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
	seen := map[image.NodeID]bool{}
	for _, x := range c.Copies {
		if x.Node == 0 || x.Attempt.IsZero() || seen[x.Node] {
			return image.Errorf(image.KindInvalid, "commit of a copy without node or attempt, or of two on a node")
		}
		seen[x.Node] = true
	}
	return nil
}

func (t *txn) commitUpload(c *Commit) (Result, error) {
	if err := c.check(); err != nil {
		return reject(err), nil
	}
	old, err := GetUpload(t.tx, c.ID)
	if err != nil {
		return Result{}, err
	}
	if old != nil {
		switch {
		case old.User != c.User || old.Name != c.Name:
			return reject(conflict(c.ID)), nil
		case old.State == Committed && (*old.Check != c.Check || old.Bytes != c.Bytes):
			return reject(conflict(c.ID)), nil
		case old.State == Committed:
			return Result{Upload: old}, nil
		case old.State == Pending || refused(old.Problem):
			return Result{Problem: old.Problem, Upload: old}, nil
		}
	}
	since, err := t.reportedSince(c, old)
	if err != nil {
		return Result{}, err
	}
	if since != nil {
		return reject(since), nil
	}
	u := &Upload{
		ID: c.ID, User: c.User, Name: c.Name, Bytes: c.Bytes, Type: c.Type, Owner: c.Copies[0].Node,
		Replicas: c.Wanted, Check: &c.Check, Sealed: c.Sealed, Created: c.Created,
	}
	for _, x := range c.Copies {
		u.Storing = append(u.Storing, Slot{Node: x.Node, Attempt: x.Attempt, Key: x.Key})
	}
	if old != nil {
		if err := t.forget(old); err != nil {
			return Result{}, err
		}
	}
	was, err := GetRecord(t.tx, c.User, c.Name)
	if err != nil {
		return Result{}, err
	}
	if err := c.If.Check(was); err != nil {
		return t.end(u, err)
	}
	if was != nil {
		if err := t.remove(was); err != nil {
			return Result{}, err
		}
	}
	if err := t.updateTotals(func(s *Totals) { s.Reserve(u, +1) }); err != nil {
		return Result{}, err
	}
	return t.commit(u)
}

// reportedSince returns why a copy of c counts no more, nil when all count. ended is the failed upload of the
// same ID, if there is one.
func (t *txn) reportedSince(c *Commit, ended *Upload) (stale, err error) {
	floor, err := forgotten(t.tx)
	if err != nil {
		return nil, err
	}
	if ended != nil {
		floor = max(floor, ended.Index)
	}
	for _, x := range c.Copies {
		taken, err := t.tx.Get(abortKey(image.FileID{Image: c.ID, Attempt: x.Attempt}))
		if err != nil {
			return nil, err
		}
		if taken != nil {
			return image.Errorf(image.KindStale, "node %d has taken its copy of upload %s back", x.Node, c.ID), nil
		}
		var restart uint64
		if _, err := get(t.tx, restartKey(x.Node), &restart); err != nil {
			return nil, err
		}
		if least := max(floor, restart); x.Index < least {
			return image.Errorf(image.KindStale, "node %d reported its copy of upload %s at entry %d, before entry %d",
				x.Node, c.ID, x.Index, least), nil
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

func (t *txn) endUpload(e *End) (Result, error) {
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
			return reject(conflict(e.ID)), nil
		case old.State != Failed || refused(old.Problem):
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
	if old != nil { // this end takes its place
		if err := t.forget(old); err != nil {
			return Result{}, err
		}
	}
	return t.end(&Upload{ID: e.ID, User: e.User, Name: e.Name, Round: e.Round, Created: e.Created}, cause)
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

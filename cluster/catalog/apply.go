package catalog

import (
	"cmp"
	"encoding/json"
	"slices"

	"imgcluster/cluster/image"
)

// Event is what a node acts on after a command: an upload that changed (assigned, reassigned,
// committed or failed), or a record that is no more (replaced or deleted), or the copies that a
// record no longer names, whose files are garbage, or new members or layouts.
// Events of commands that are applied again after a restart come again.
type Event struct {
	Upload  *Upload
	Removed *image.Record
	Aborted *Abort // no record names this copy, nor will one
	Members *Membership

	AccessKey        *AccessKey // added
	AccessKeyRemoved string     // its ID
	Removal          *Removal   // begun, or a part of it done
	UserKey          *PutKey    // a newer one of a user
	Rewrap           *Rewrap    // of a user
	Purge            *Purge     // in a data shard: no upload is assigned to a key of this user from here on
}

// Apply executes one command of a shard's log on tx. index is the command's place in the log.
// result answers the proposer (DecodeResult). An error means that tx failed, not the command: the
// node must not go on.
func Apply(tx Tx, shard, index uint64, command []byte) (result []byte, events []Event, err error) {
	return ApplyKeeping(finishedKept, tx, shard, index, command)
}

// ApplyKeeping is Apply for tests that cannot wait until a shard forgets.
func ApplyKeeping(kept Retention, tx Tx, shard, index uint64, command []byte) ([]byte, []Event, error) {
	m := txn{tx: tx, shard: shard, index: index, kept: kept}
	c, err := decode(command)
	if err != nil {
		return reject(err).encode(), nil, nil
	}
	r, err := m.apply(c)
	if err != nil {
		return nil, nil, err
	}
	return r.encode(), m.events, nil
}

// txn is one command being applied.
type txn struct {
	tx     Tx
	shard  uint64
	index  uint64
	kept   Retention
	events []Event
}

func reject(err error) Result {
	p := image.AsProblem(err)
	return Result{Problem: &p}
}

func (t *txn) apply(c Command) (Result, error) {
	if c.ofImages() == (t.shard == SystemShard) {
		return reject(image.Errorf(image.KindInvalid, "shard %d does not take this command", t.shard).
			WithHint("run the same imgcluster version on every node")), nil
	}
	switch {
	case c.Assign != nil:
		return t.assign(c.Assign)
	case c.Stored != nil:
		return t.stored(c.Stored)
	case c.Reassign != nil:
		return t.reassign(c.Reassign)
	case c.Delete != nil:
		return t.delete(c.Delete)
	case c.Recopy != nil:
		return t.recopy(c.Recopy)
	case c.Commit != nil:
		return t.commitUpload(c.Commit)
	case c.End != nil:
		return t.endUpload(c.End)
	case c.Abort != nil:
		return t.abort(c.Abort)
	case c.Restart != nil:
		return t.restart(c.Restart)
	case c.Join != nil:
		return t.join(c.Join)
	case c.PutKey != nil:
		return t.putKey(c.PutKey)
	case c.AddMember != nil:
		return t.addMember(c.AddMember)
	case c.DrainMember != nil:
		return t.drainMember(c.DrainMember)
	case c.RemoveMember != nil:
		return t.removeMember(c.RemoveMember)
	case c.Settle != nil:
		return t.settle(c.Settle)
	case c.AddAccessKey != nil:
		return t.addAccessKey(c.AddAccessKey)
	case c.RemoveAccessKey != nil:
		return t.removeAccessKey(c.RemoveAccessKey)
	case c.RemoveUser != nil:
		return t.removeUser(c.RemoveUser)
	case c.Removed != nil:
		return t.removed(c.Removed)
	case c.Purge != nil:
		return t.purge(c.Purge)
	case c.RotateMaster != nil:
		return t.rotateMaster(c.RotateMaster)
	case c.Reseal != nil:
		return t.reseal(c.Reseal)
	case c.EndRotation != nil:
		return t.endRotation(c.EndRotation)
	case c.AddUserKey != nil:
		return t.addUserKey(c.AddUserKey)
	case c.Rewrap != nil:
		return t.rewrap(c.Rewrap)
	}
	return reject(image.Errorf(image.KindInvalid, "empty command")), nil
}

func (t *txn) put(key []byte, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return t.tx.Set(key, b)
}

func (t *txn) updateTotals(change func(*Totals)) error {
	totals, err := GetTotals(t.tx)
	if err != nil {
		return err
	}
	change(totals)
	return t.put([]byte{totalsKey}, totals)
}

// count adds records of one user to the sums, or takes them out with a sign of -1.
func (t *txn) count(sign int64, recs ...*image.Record) error {
	err := t.updateTotals(func(s *Totals) {
		for _, rec := range recs {
			s.count(rec, sign)
		}
	})
	if err != nil {
		return err
	}
	return t.countCopies(sign, recs)
}

func (a *Assign) check() error {
	if err := checkNamed(a.User, a.Name, a.Type, a.If); err != nil {
		return err
	}
	sorted := slices.Clone(a.Holders)
	slices.Sort(sorted)
	switch {
	case a.ID == image.ID{} || a.Bytes <= 0 || a.Bytes > imageBytesMax:
		return image.Errorf(image.KindInvalid, "assignment of %d bytes, or without an upload ID", a.Bytes)
	case a.Created.UnixMilli() <= 0:
		return errNoTime
	case a.Replicas < 1 || a.Replicas > image.NodesMax || len(a.Holders) == 0 ||
		len(a.Holders) > image.NodesMax || slices.Contains(a.Holders, 0):
		return image.Errorf(image.KindInvalid, "assignment of %d replicas to nodes %v", a.Replicas, a.Holders)
	case len(slices.Compact(sorted)) != len(a.Holders):
		return image.Errorf(image.KindInvalid, "assignment names a node twice: %v", a.Holders)
	}
	return nil
}

func (t *txn) assign(a *Assign) (Result, error) {
	if err := a.check(); err != nil {
		return reject(err), nil
	}
	old, err := GetUpload(t.tx, a.ID)
	if err != nil {
		return Result{}, err
	}
	epoch := uint32(1)
	if old != nil {
		if old.User != a.User || old.Name != a.Name || old.Bytes != a.Bytes {
			return reject(conflict(a.ID)), nil
		}
		if old.State != Failed {
			return Result{Upload: old}, nil
		}
		if !a.If.IsZero() && refused(old.Problem) {
			return Result{Problem: old.Problem, Upload: old}, nil
		}
		epoch = old.Epoch + 1
		if err := t.forget(old); err != nil {
			return Result{}, err
		}
	}
	u := &Upload{
		ID: a.ID, User: a.User, Name: a.Name, Bytes: a.Bytes, Type: a.Type, If: a.If, State: Pending,
		Epoch: epoch, Holders: a.Holders, Replicas: a.Replicas, Created: a.Created,
	}
	if !a.If.IsZero() {
		rec, err := GetRecord(t.tx, a.User, a.Name)
		if err != nil {
			return Result{}, err
		}
		if err := a.If.Check(rec); err != nil {
			return t.end(u, err)
		}
	}
	u.fill(epoch)
	u.Owner = u.Storing[0].Node
	if err := t.updateTotals(func(t *Totals) { t.Reserve(u, +1) }); err != nil {
		return Result{}, err
	}
	return t.save(u)
}

func conflict(id image.ID) error {
	return image.Errorf(image.KindConflict, "upload ID %s was used for other bytes or another name", id).
		WithHint("send each image under a fresh Idempotency-Key")
}

// refused reports whether an upload ended because its conditions did not hold.
func refused(p *image.Problem) bool { return p.Code == image.KindExists || p.Code == image.KindChanged }

// save writes a pending or finished upload and has the node notified.
func (t *txn) save(u *Upload) (Result, error) {
	t.events = append(t.events, Event{Upload: u})
	if !u.Finished() {
		return Result{Upload: u}, t.put(idKey(pendingTable, u.ID), u)
	}
	u.If = image.Conditions{} // they have been asked
	u.Index = t.index
	if err := t.tx.Delete(idKey(pendingTable, u.ID)); err != nil {
		return Result{}, err
	}
	err := t.keep(u.User, u.Created, idKey(finishedTable, u.ID), func(seq uint64) any {
		u.Seq = seq
		return u
	})
	return Result{Upload: u}, err
}

func (t *txn) stored(s *Stored) (Result, error) {
	u, err := GetUpload(t.tx, s.ID)
	if err != nil {
		return Result{}, err
	}
	if u == nil {
		return reject(image.Errorf(image.KindStale, "upload %s is not known", s.ID)), nil
	}
	for _, c := range s.Copies {
		if c.Attempt.IsZero() {
			return reject(image.Errorf(image.KindInvalid, "copy of upload %s without an attempt ID", s.ID)), nil
		}
		slot := u.Slot(c.Node)
		if slot == nil || !slot.takes(c) || u.State == Failed {
			r := reject(image.Errorf(image.KindStale,
				"node %d no longer stores upload %s in epoch %d", c.Node, s.ID, c.Epoch))
			r.Upload = u
			return r, nil
		}
	}
	if u.Check != nil && *u.Check != s.Check ||
		u.Sealed != nil && s.Sealed != nil && *u.Sealed != *s.Sealed {
		if u.State == Committed {
			return reject(conflict(u.ID)), nil
		}
		return t.fail(u, conflict(u.ID))
	}
	if u.State == Committed {
		return Result{Upload: u}, nil
	}
	u.Check = &s.Check
	if u.Sealed == nil {
		u.Sealed = s.Sealed
	}
	for _, c := range s.Copies {
		slot := u.Slot(c.Node)
		slot.Attempt, slot.Key = c.Attempt, c.Key
	}
	return t.advance(u)
}

// advance commits u when every storing node has stored, else saves it as it is.
func (t *txn) advance(u *Upload) (Result, error) {
	for _, s := range u.Storing {
		if !s.Stored() {
			return t.save(u)
		}
	}
	old, err := GetRecord(t.tx, u.User, u.Name)
	if err != nil {
		return Result{}, err
	}
	if err := u.If.Check(old); err != nil {
		return t.fail(u, err)
	}
	if old != nil {
		if err := t.remove(old); err != nil {
			return Result{}, err
		}
	}
	return t.commit(u)
}

func (t *txn) commit(u *Upload) (Result, error) {
	rec := &image.Record{
		User: u.User, Name: u.Name, Version: t.index, ID: u.ID, Bytes: u.Bytes,
		Check: *u.Check, Sealed: u.Sealed,
		Type: u.Type, Owner: u.Owner, Shard: t.shard, Wanted: u.Replicas, Created: u.Created,
	}
	for _, s := range u.Storing {
		rec.Copies = append(rec.Copies, image.Copy{Node: s.Node, Attempt: s.Attempt, Key: s.Key})
	}
	key := nameKey(u.User, u.Name)
	err := t.put(key, rec)
	if err == nil {
		err = t.tx.Set(idKey(imageTable, u.ID), key)
	}
	if err == nil {
		err = t.count(+1, rec)
	}
	if err != nil {
		return Result{}, err
	}
	u.State, u.Record, u.Holders = Committed, rec, nil
	return t.save(u)
}

// fail ends a pending upload without a record and gives its reservation back.
func (t *txn) fail(u *Upload, cause error) (Result, error) {
	if err := t.updateTotals(func(t *Totals) { t.Reserve(u, -1) }); err != nil {
		return Result{}, err
	}
	return t.end(u, cause)
}

// end makes an upload without a reservation a failed one. That is kept, so that who asks later, from
// another node or by a command that comes again, gets the same answer.
func (t *txn) end(u *Upload, cause error) (Result, error) {
	p := image.AsProblem(cause)
	u.State, u.Problem, u.Holders, u.Storing = Failed, &p, nil, nil
	r, err := t.save(u)
	r.Problem = &p
	return r, err
}

func (t *txn) reassign(a *Reassign) (Result, error) {
	if !a.Cause.Known() {
		return reject(image.Errorf(image.KindInvalid, "reassignment for %.40q", a.Cause)), nil
	}
	u, err := GetUpload(t.tx, a.ID)
	if err != nil {
		return Result{}, err
	}
	if u == nil || u.Finished() || u.Epoch != a.Epoch {
		r := reject(image.Errorf(image.KindStale, "upload %s is no longer in epoch %d", a.ID, a.Epoch))
		r.Upload = u
		return r, nil
	}
	if err := t.updateTotals(func(t *Totals) { t.Reserve(u, -1) }); err != nil {
		return Result{}, err
	}
	dropped := func(n image.NodeID) bool { return slices.Contains(a.Drop, n) }
	u.Epoch++
	u.Holders = slices.DeleteFunc(u.Holders, dropped)
	u.Storing = slices.DeleteFunc(u.Storing, func(s Slot) bool { return dropped(s.Node) && !s.Stored() })
	u.fill(u.Epoch)
	if u.Slot(u.Owner) == nil && len(u.Storing) > 0 {
		u.Owner = u.Storing[0].Node
	}
	if err := t.updateTotals(func(t *Totals) { t.Reserve(u, +1) }); err != nil {
		return Result{}, err
	}
	if len(u.Storing) < max(a.Min, 1) {
		return t.fail(u, image.Errorf(a.Cause, "%.*s", textRunesMax, a.Text).WithHint("send the image again"))
	}
	return t.advance(u)
}

// remove deletes records of one user and has the node notified that their files are garbage.
func (t *txn) remove(recs ...*image.Record) error {
	if len(recs) == 0 {
		return nil
	}
	for _, rec := range recs {
		t.events = append(t.events, Event{Removed: rec})
		err := t.tx.Delete(nameKey(rec.User, rec.Name))
		if err == nil {
			err = t.tx.Delete(idKey(imageTable, rec.ID))
		}
		if err != nil {
			return err
		}
	}
	return t.count(-1, recs...)
}

func (t *txn) delete(d *Delete) (Result, error) {
	if err := d.checkRequest(); err != nil {
		return reject(err), nil
	}
	var was deleted
	known, err := get(t.tx, idKey(deletedTable, d.ID), &was)
	if err != nil {
		return Result{}, err
	}
	if known {
		if was.User != d.User || was.Name != d.Name {
			return reject(image.Errorf(image.KindConflict, "ID %s was used to delete another name", d.ID).
				WithHint("send each request under a fresh Idempotency-Key")), nil
		}
		return was.result(), nil
	}
	rec, err := GetRecord(t.tx, d.User, d.Name)
	if err != nil {
		return Result{}, err
	}
	now := deleted{User: d.User, Name: d.Name}
	if refusal := d.check(rec); refusal != nil {
		p := image.AsProblem(refusal)
		now.Problem = &p
	} else if err := t.remove(rec); err != nil {
		return Result{}, err
	}
	if d.ID != (image.ID{}) {
		err = t.keep(d.User, d.Created, idKey(deletedTable, d.ID), func(uint64) any { return now })
	}
	return now.result(), err
}

// errNoTime is the answer to a command that is to be kept but does not move the shard's clock.
var errNoTime = image.Errorf(image.KindInvalid, "command without its time")

func (d *Delete) checkRequest() error {
	if d.ID != (image.ID{}) && d.Created.UnixMilli() <= 0 {
		return errNoTime
	}
	return cmp.Or(image.CheckUser(d.User), image.CheckName(d.Name))
}

func (d *Delete) check(rec *image.Record) error {
	if rec == nil {
		return image.Errorf(image.KindNotFound, "user %q has no image %q", d.User, d.Name)
	}
	return d.If.Check(rec)
}

func (d deleted) result() Result { return Result{Problem: d.Problem} }

func (t *txn) recopy(c *Recopy) (Result, error) {
	rec, err := GetRecord(t.tx, c.User, c.Name)
	if err != nil {
		return Result{}, err
	}
	stale := reject(image.Errorf(image.KindStale, "image %s has other copies now", c.ID))
	if rec == nil || rec.ID != c.ID {
		return stale, nil
	}
	has := func(x image.Copy) bool { return slices.Contains(rec.Copies, x) }
	if !slices.ContainsFunc(c.Add, func(x image.Copy) bool { return !has(x) }) &&
		!slices.ContainsFunc(c.Drop, has) {
		return Result{}, nil
	}
	copies := slices.Clone(rec.Copies)
	for _, drop := range c.Drop {
		i := slices.Index(copies, drop)
		if i < 0 {
			return stale, nil
		}
		copies = slices.Delete(copies, i, i+1)
	}
	for _, add := range c.Add {
		if slices.ContainsFunc(copies, func(x image.Copy) bool { return x.Node == add.Node }) {
			return stale, nil
		}
		copies = append(copies, add)
	}
	if len(copies) < len(rec.Copies) || len(copies) > rec.Wanted {
		return stale, nil
	}
	if err := t.count(-1, rec); err != nil {
		return Result{}, err
	}
	rec.Copies = copies
	if !slices.Contains(rec.Replicas(), rec.Owner) {
		rec.Owner = copies[0].Node
	}
	if err := t.count(+1, rec); err != nil {
		return Result{}, err
	}
	if len(c.Drop) > 0 {
		dropped := *rec
		dropped.Copies = c.Drop
		t.events = append(t.events, Event{Removed: &dropped})
	}
	return Result{}, t.put(nameKey(rec.User, rec.Name), rec)
}

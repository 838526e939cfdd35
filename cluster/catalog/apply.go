package catalog

import (
	"cmp"
	"errors"

	"imgcluster/cluster/image"
)

// Event is what a node acts on after a command: an upload that has ended, or a record that is no more
// (replaced or deleted), or the copies that a record no longer names, whose files are garbage, or new
// members or layouts.
// Events of commands that are applied again after a restart come again.
type Event struct {
	Upload  *Upload // committed or failed
	Removed *image.Record
	Aborted *Abort // no record names this copy, nor will one
	Members *Membership

	AccessKey        *AccessKey // added
	AccessKeyRemoved string     // its ID
	Removal          *Removal   // begun, or a part of it done
	UserKey          *PutKey    // a newer one of a user
	Rewrap           *Rewrap    // of a user
	Purge            *Purge     // in a data shard: no copy that this user's uploads have by now will be named
}

// ImagesOf returns the user whose images the event has changed; empty when it has changed none.
func (e Event) ImagesOf() string {
	switch {
	case e.Upload != nil && e.Upload.State == Committed:
		return e.Upload.User
	case e.Removed != nil:
		return e.Removed.User
	}
	return ""
}

// Apply executes one command of a shard's log on tx. index is the command's place in the log.
// result answers the proposer (DecodeResult). An error means that tx failed, not the command, or is ErrNewer:
// the node must not go on.
func Apply(tx Tx, shard, index uint64, command []byte) (result []byte, events []Event, err error) {
	return ApplyKeeping(finishedKept, tx, shard, index, command)
}

// ApplyKeeping is Apply for tests that cannot wait until a shard forgets.
func ApplyKeeping(kept Retention, tx Tx, shard, index uint64, command []byte) ([]byte, []Event, error) {
	m := txn{tx: tx, shard: shard, index: index, kept: kept}
	c, err := decode(command)
	if errors.Is(err, ErrNewer) {
		return nil, nil, err
	}
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
	case c.Delete != nil:
		return t.delete(c.Delete)
	case c.Recopy != nil:
		return t.recopy(c.Recopy)
	case c.Commit != nil:
		return t.commit(c.Commit)
	case c.End != nil:
		return t.end(c.End)
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
	return t.tx.Set(key, encode(v))
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

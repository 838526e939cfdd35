package catalog

import (
	"slices"

	"imgcluster/cluster/image"
)

// Recopy changes where the copies of a stored image are, once new ones are durable: to heal a record
// that has too few, or to put one in the place of another that is damaged or out of reach. It never
// leaves a record with fewer copies than before, nor with more than are wanted. Applied again it
// changes nothing.
//
// One that comes late must not name a copy that its node has deleted, since a later change of the record did
// not name it any more: a copy counts only if it was reported after the record's last change. See Commit for
// what else makes it count no more.
type Recopy struct {
	User string       `json:"user"`
	Name string       `json:"name"`
	ID   image.ID     `json:"id"` // of the record; another one has other copies
	Add  []Reported   `json:"add"`
	Drop []image.Copy `json:"drop,omitempty"`
}

// change returns the copies that a record has after c, and reports whether c may change it so. A record that
// has them already stays as it is.
func (c *Recopy) change(rec *image.Record) (copies []image.Copy, fits bool) {
	if rec == nil || rec.ID != c.ID {
		return nil, false
	}
	has := func(x image.Copy) bool { return slices.Contains(rec.Copies, x) }
	lacks := func(x Reported) bool { return !has(x.Copy) }
	if !slices.ContainsFunc(c.Add, lacks) && !slices.ContainsFunc(c.Drop, has) {
		return rec.Copies, true
	}
	copies = slices.Clone(rec.Copies)
	for _, drop := range c.Drop {
		i := slices.Index(copies, drop)
		if i < 0 {
			return nil, false
		}
		copies = slices.Delete(copies, i, i+1)
	}
	for _, add := range c.Add {
		if slices.ContainsFunc(copies, func(x image.Copy) bool { return x.Node == add.Node }) {
			return nil, false
		}
		copies = append(copies, add.Copy)
	}
	return copies, len(copies) >= len(rec.Copies) && len(copies) <= rec.Wanted
}

func (c *Recopy) check() error {
	for _, x := range c.Add {
		if slices.Contains(c.Drop, x.Copy) {
			return image.Errorf(image.KindInvalid, "node %d's copy of image %s is to stay and to go", x.Node, c.ID)
		}
	}
	return checkCopies(c.Add)
}

func (t *txn) recopy(c *Recopy) (Result, error) {
	if err := c.check(); err != nil {
		return reject(err), nil
	}
	rec, err := GetRecord(t.tx, c.User, c.Name)
	if err != nil {
		return Result{}, err
	}
	copies, fits := c.change(rec)
	if !fits {
		return reject(image.Errorf(image.KindStale, "image %s has other copies now", c.ID)), nil
	}
	if slices.Equal(copies, rec.Copies) {
		return Result{}, nil
	}
	stale, err := t.reportedBefore(rec.Changed(), c.ID, c.Add)
	if err != nil {
		return Result{}, err
	}
	if stale != nil {
		return reject(stale), nil
	}
	if err := t.count(-1, rec); err != nil {
		return Result{}, err
	}
	rec.Copies, rec.Recopied = copies, t.index
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
	return Result{}, t.putRecord(rec)
}

package catalog

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"imgcluster/cluster/image"
)

// State is where an upload stands.
type State string

// The states of an upload. Failed is not final: the same upload ID may be assigned again, in a
// later epoch; but one that was refused because of its conditions stays so (KindExists, KindChanged),
// for its client has been told.
const (
	Pending   State = "pending"
	Committed State = "committed"
	Failed    State = "failed"
)

// Slot is one node's part in an upload: to store a copy, in the epoch it was asked in.
type Slot struct {
	Node    image.NodeID  `json:"node"`
	Epoch   uint32        `json:"epoch,omitempty"`
	Attempt image.Attempt `json:"attempt,omitzero"` // of its file, once that is stored
	Key     uint32        `json:"key,omitempty"`    // likewise: of the user, that the file is encrypted under
}

// Stored reports whether the copy is durable.
func (s *Slot) Stored() bool { return !s.Attempt.IsZero() }

// takes reports whether a copy fills the slot: any that was asked for, and once it is there only that one.
func (s *Slot) takes(c StoredCopy) bool {
	if s.Stored() {
		return s.Attempt == c.Attempt
	}
	return s.Epoch == c.Epoch
}

// Upload is what a shard knows of one upload ID.
type Upload struct {
	ID       image.ID            `json:"id"`
	User     string              `json:"user"`
	Name     string              `json:"name"`
	Bytes    int64               `json:"bytes"`
	Type     string              `json:"type,omitempty"`
	If       image.Conditions    `json:"if,omitzero"`
	State    State               `json:"state"`
	Epoch    uint32              `json:"epoch"` // of the last assignment; only grows; 0: not known any more
	Owner    image.NodeID        `json:"owner"`
	Holders  []image.NodeID      `json:"holders,omitempty"` // who holds the bytes, best first
	Storing  []Slot              `json:"storing,omitempty"` // it commits when all of these stored
	Replicas int                 `json:"replicas"`
	Check    *image.Check        `json:"check,omitempty"`  // from the first Stored
	Sealed   *image.SealedDigest `json:"sealed,omitempty"` // from the first Stored that has one
	Created  time.Time           `json:"created"`
	Record   *image.Record       `json:"record,omitempty"`  // when committed
	Problem  *image.Problem      `json:"problem,omitempty"` // when failed
	Seq      uint64              `json:"seq,omitempty"`     // when finished: its place among the user's answers
	Index    uint64              `json:"index,omitempty"`   // when finished: the log's entry that did it
	Round    uint64              `json:"round,omitempty"`   // of the End that did it
}

// Slot returns the node's slot, nil when the node does not store this upload.
func (u *Upload) Slot(node image.NodeID) *Slot {
	for i := range u.Storing {
		if u.Storing[i].Node == node {
			return &u.Storing[i]
		}
	}
	return nil
}

// deleted is what a shard keeps of a Delete.
type deleted struct {
	User    string         `json:"user"`
	Name    string         `json:"name"`
	Problem *image.Problem `json:"problem,omitempty"` // why nothing was removed
}

// Finished reports whether the upload is committed or has failed.
func (u *Upload) Finished() bool { return u.State != Pending }

// Refused reports whether the upload has failed for good, since its conditions did not hold.
func (u *Upload) Refused() bool { return u.State == Failed && refused(u.Problem) }

// Load is an amount of work: images and their plaintext bytes.
type Load struct {
	Images int64 `json:"images"`
	Bytes  int64 `json:"bytes"`
}

func (l *Load) add(images, bytes int64) { l.Images += images; l.Bytes += bytes }

// NodeTotals sums up one node over a shard.
type NodeTotals struct {
	Assigned Load `json:"assigned"` // uploads ever given to it as owner, less the failed ones
	Storing  Load `json:"storing"`  // the same for every copy it was asked to store
	Owned    Load `json:"owned"`    // committed images whose owner it is
	Stored   Load `json:"stored"`   // committed copies it holds
}

// Totals sums up one shard.
type Totals struct {
	Images          int64                        `json:"images"`
	Bytes           int64                        `json:"bytes"`
	UnderReplicated int64                        `json:"under_replicated"`
	Nodes           map[image.NodeID]*NodeTotals `json:"nodes"`
}

func (t *Totals) node(id image.NodeID) *NodeTotals {
	n := t.Nodes[id]
	if n == nil {
		n = &NodeTotals{}
		t.Nodes[id] = n
	}
	return n
}

// Keys of a shard's part of the database, by their first byte.
const (
	recordTable   = 'r' // user NUL name -> image.Record
	imageTable    = 'i' // image ID -> user NUL name, for committed images
	pendingTable  = 'p' // upload ID -> Upload
	finishedTable = 'u' // upload ID -> Upload
	deletedTable  = 'd' // ID of a Delete -> deleted
	totalsKey     = 't' // Totals
	memberKey     = 'm' // Membership
	userKeyTable  = 'k' // user NUL key ID, 4 bytes -> PutKey

	accessKeyTable = 'a' // user NUL ID -> AccessKey
	accessIDTable  = 'b' // ID of an access key -> user
	accountsKey    = 'c' // accounts
	removalTable   = 'x' // number, 8 bytes -> Removal
	purgedKey      = 'y' // in a data shard: number of the last removal that is complete there
	restartTable   = 's' // in a data shard: node, 4 bytes -> place in the log of its last Restart
	abortTable     = 'e' // upload ID, attempt -> place in the log of its Abort
	copiesTable    = 'w' // in a data shard: user -> copyCounts
	rewrapTable    = 'z' // in the system shard: user -> the least number of a key that copies may be under

	// What is kept of finished uploads and deletes, and for how long; see Retention.
	queueKey       = 'n' // finishedQueue
	orderTable     = 'f' // sequence, 8 bytes -> orderRow
	userOrderTable = 'o' // user NUL sequence, 8 bytes -> userRow
	userQueueTable = 'q' // user -> userQueue
	heavyTable     = 'h' // class of bytes, the heaviest first, user -> 1
)

// ofUser is what the keys of a user's rows in a table begin with.
func ofUser(table byte, user string) []byte { return append(append([]byte{table}, user...), 0) }

func nameKey(user, name string) []byte { return append(ofUser(recordTable, user), name...) }

func idKey(table byte, id image.ID) []byte { return append([]byte{table}, id[:]...) }

func userKeyKey(user string, id uint32) []byte {
	return binary.BigEndian.AppendUint32(ofUser(userKeyTable, user), id)
}

// get reads the JSON value of key into v and reports whether there was one.
func get(r Reader, key []byte, v any) (bool, error) {
	b, err := r.Get(key)
	if err != nil || b == nil {
		return false, err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return false, fmt.Errorf("catalog: value of key %q: %w", key, err)
	}
	return true, nil
}

// find returns the JSON value of key, nil when there is none.
func find[T any](r Reader, key []byte) (*T, error) {
	v := new(T)
	if ok, err := get(r, key, v); !ok {
		return nil, err
	}
	return v, nil
}

// GetRecord returns the record of a name, nil when there is none.
func GetRecord(r Reader, user, name string) (*image.Record, error) {
	return find[image.Record](r, nameKey(user, name))
}

// GetUpload returns what the shard knows of an upload ID, nil when nothing. Of a stored image it
// knows the record, even when the upload itself is no longer kept.
func GetUpload(r Reader, id image.ID) (*Upload, error) {
	for _, table := range []byte{pendingTable, finishedTable} {
		var u Upload
		ok, err := get(r, idKey(table, id), &u)
		if err != nil {
			return nil, err
		}
		if ok {
			return &u, nil
		}
	}
	rec, err := recordOf(r, id)
	if rec == nil {
		return nil, err
	}
	u := &Upload{
		ID: id, User: rec.User, Name: rec.Name, Bytes: rec.Bytes, Type: rec.Type,
		State: Committed, Owner: rec.Owner, Replicas: rec.Wanted,
		Check: &rec.Check, Sealed: rec.Sealed, Created: rec.Created, Record: rec,
	}
	for _, c := range rec.Copies {
		u.Storing = append(u.Storing, Slot{Node: c.Node, Attempt: c.Attempt, Key: c.Key})
	}
	return u, nil
}

// recordOf returns the record of a stored image by its upload ID, nil when there is none.
func recordOf(r Reader, id image.ID) (*image.Record, error) {
	key, err := r.Get(idKey(imageTable, id))
	if err != nil || key == nil {
		return nil, err
	}
	rec := &image.Record{}
	ok, err := get(r, key, rec)
	if !ok || rec.ID != id {
		return nil, err
	}
	return rec, nil
}

// PendingUploads returns the uploads that are not finished.
func PendingUploads(r Reader) (all []*Upload, err error) {
	err = scan(r, []byte{pendingTable}, nil, func(_ []byte, u *Upload) bool {
		all = append(all, u)
		return true
	})
	return all, err
}

// Wants reports whether the shard of a node's file has a use for it: a record names it, or an upload on its
// way does or may yet, since it waits for this node's report. A file that its shard does not want is garbage.
func Wants(r Reader, node image.NodeID, f image.FileID) (bool, error) {
	id := f.Image
	var pending Upload
	if ok, err := get(r, idKey(pendingTable, id), &pending); err != nil || ok {
		s := pending.Slot(node)
		return ok && s != nil && (!s.Stored() || s.Attempt == f.Attempt), err
	}
	rec, err := recordOf(r, id)
	if rec == nil {
		return false, err
	}
	return rec.Has(node, f.Attempt), nil
}

// ListRecords calls fn with the user's records whose names start with prefix and come after the
// name `after` (empty: from the first), in byte order of the names, until fn returns false.
func ListRecords(r Reader, user, prefix, after string, fn func(*image.Record) bool) error {
	var place []byte
	if after != "" && after >= prefix {
		place = nameKey(user, after)
	}
	return scan(r, nameKey(user, prefix), place, func(_ []byte, rec *image.Record) bool { return fn(rec) })
}

// RawRecord is a record as the catalog has it. It is valid until the next one is read.
type RawRecord []byte

// Listed returns what lists say of a record: its name, version, length, type, owner, nodes of copies, time,
// and sealed digest with its key. To decode the other fields would take as long again.
func (b RawRecord) Listed() (*image.Record, error) {
	var l struct {
		Name    string              `json:"name"`
		Version uint64              `json:"version"`
		Bytes   int64               `json:"bytes"`
		Sealed  *image.SealedDigest `json:"sealed"`
		Type    string              `json:"type"`
		Owner   image.NodeID        `json:"owner"`
		Created time.Time           `json:"created"`
		Check   struct {
			Key uint32 `json:"key"`
		} `json:"check"`
		Copies []struct {
			Node image.NodeID `json:"node"`
		} `json:"copies"`
	}
	if err := json.Unmarshal(b, &l); err != nil {
		return nil, fmt.Errorf("catalog: a record: %w", err)
	}
	rec := &image.Record{
		Name: l.Name, Version: l.Version, Bytes: l.Bytes, Check: image.Check{Key: l.Check.Key},
		Sealed: l.Sealed, Type: l.Type, Owner: l.Owner, Created: l.Created,
		Copies: make([]image.Copy, len(l.Copies)),
	}
	for i, c := range l.Copies {
		rec.Copies[i].Node = c.Node
	}
	return rec, nil
}

// ListRaw is ListRecords with records that are not decoded.
func ListRaw(r Reader, user, prefix, after string, fn func(name string, rec RawRecord) bool) error {
	from, end := nameKey(user, prefix), prefixEnd(nameKey(user, prefix))
	if after != "" && after >= prefix {
		from = append(nameKey(user, after), 0)
	}
	names := len(nameKey(user, ""))
	return r.Scan(from, end, func(k, b []byte) bool { return fn(string(k[names:]), b) })
}

// Records returns up to limit records of all users that come after the place `after` (nil: from the
// first), in the order of users and names, and the place of the last one; nil when there are no more.
func Records(r Reader, after []byte, limit int) (recs []*image.Record, last []byte, err error) {
	err = scan(r, []byte{recordTable}, after, func(k []byte, rec *image.Record) bool {
		recs, last = append(recs, rec), slices.Clone(k)
		return len(recs) < limit
	})
	if len(recs) < limit {
		last = nil
	}
	return recs, last, err
}

// recordFiles is what EachFile reads of a record.
type recordFiles struct {
	ID     image.ID     `json:"id"`
	Shard  uint64       `json:"shard"`
	Copies []image.Copy `json:"copies"`
}

// filesBatch is how many records EachFile reads with one view.
const filesBatch = 1024

// EachFile calls fn with the files that a shard's records name on a node, in the order of users and names,
// until fn returns an error. The shard is read in batches, so that it is not held: what changes meanwhile may
// be missing.
func EachFile(
	view func(shard uint64, fn func(Reader) error) error, shard uint64, node image.NodeID,
	fn func(image.FileID) error,
) error {
	var after []byte
	batch := make([]image.FileID, 0, filesBatch)
	for more := true; more; {
		batch = batch[:0]
		err := view(shard, func(r Reader) error {
			n := 0
			err := scan(r, []byte{recordTable}, after, func(k []byte, rec *recordFiles) bool {
				for _, c := range rec.Copies {
					if c.Node == node {
						batch = append(batch, image.FileID{Image: rec.ID, Shard: rec.Shard, Attempt: c.Attempt})
					}
				}
				if n++; n == filesBatch {
					after = slices.Clone(k)
				}
				return n < filesBatch
			})
			more = n == filesBatch
			return err
		})
		if err != nil {
			return err
		}
		for _, f := range batch {
			if err := fn(f); err != nil {
				return err
			}
		}
	}
	return nil
}

// prefixEnd returns the first key after all keys with this prefix, whose first byte is a table and
// so never 0xff.
func prefixEnd(prefix []byte) []byte {
	end := slices.Clone(prefix)
	for end[len(end)-1] == 0xff {
		end = end[:len(end)-1]
	}
	end[len(end)-1]++
	return end
}

// GetTotals returns the shard's sums.
func GetTotals(r Reader) (*Totals, error) {
	t := &Totals{}
	_, err := get(r, []byte{totalsKey}, t)
	if t.Nodes == nil {
		t.Nodes = map[image.NodeID]*NodeTotals{}
	}
	return t, err
}

// ViewTotals returns the sums of a shard that view shows.
func ViewTotals(view func(shard uint64, fn func(Reader) error) error, shard uint64) (t *Totals, err error) {
	err = view(shard, func(r Reader) (err error) {
		t, err = GetTotals(r)
		return err
	})
	return t, err
}

// GetUserKey returns a user's wrapped key from the system shard, nil when there is none.
func GetUserKey(r Reader, user string, id uint32) (*PutKey, error) {
	return find[PutKey](r, userKeyKey(user, id))
}

// Add adds the sums of another shard.
func (t *Totals) Add(other *Totals) {
	t.Images += other.Images
	t.Bytes += other.Bytes
	t.UnderReplicated += other.UnderReplicated
	for id, o := range other.Nodes {
		n := t.node(id)
		n.Assigned.add(o.Assigned.Images, o.Assigned.Bytes)
		n.Storing.add(o.Storing.Images, o.Storing.Bytes)
		n.Owned.add(o.Owned.Images, o.Owned.Bytes)
		n.Stored.add(o.Stored.Images, o.Stored.Bytes)
	}
}

// fill gives free parts of u to holders without one, in their order, in the given epoch.
func (u *Upload) fill(epoch uint32) {
	for _, n := range u.Holders {
		if len(u.Storing) >= u.Replicas {
			return
		}
		if u.Slot(n) == nil {
			u.Storing = append(u.Storing, Slot{Node: n, Epoch: epoch})
		}
	}
}

// Reserve counts an upload in (sign +1) or out (-1) of the loads.
func (t *Totals) Reserve(u *Upload, sign int64) {
	t.node(u.Owner).Assigned.add(sign, sign*u.Bytes)
	for _, s := range u.Storing {
		t.node(s.Node).Storing.add(sign, sign*u.Bytes)
	}
}

// count takes a record in (sign +1) or out (-1) of the totals.
func (t *Totals) count(rec *image.Record, sign int64) {
	t.Images += sign
	t.Bytes += sign * rec.Bytes
	if len(rec.Copies) < rec.Wanted {
		t.UnderReplicated += sign
	}
	t.node(rec.Owner).Owned.add(sign, sign*rec.Bytes)
	for _, c := range rec.Copies {
		t.node(c.Node).Stored.add(sign, sign*rec.Bytes)
	}
}

package catalog

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"

	"imgcluster/cluster/image"
)

// State is how an upload ended.
type State string

// The states of an upload. Failed is not final: the upload may be sent again under its ID; but one that was
// refused because of its conditions stays so (KindExists, KindChanged), for its client has been told.
const (
	Committed State = "committed"
	Failed    State = "failed"
)

// Upload is what a shard knows of an upload ID that has ended.
type Upload struct {
	ID      image.ID       `json:"id"`
	User    string         `json:"user"`
	Name    string         `json:"name"`
	State   State          `json:"state"`
	Record  *image.Record  `json:"record,omitempty"`  // as it was committed
	Problem *image.Problem `json:"problem,omitempty"` // why it failed
	Index   uint64         `json:"index"`             // the log's entry that ended it
	Round   uint64         `json:"round,omitempty"`   // of the End that did
	Seq     uint64         `json:"seq"`               // its place among the user's answers
}

// deleted is what a shard keeps of a Delete.
type deleted struct {
	User    string         `json:"user"`
	Name    string         `json:"name"`
	Problem *image.Problem `json:"problem,omitempty"` // why nothing was removed
}

// Refused reports whether the upload has failed for good, since its conditions did not hold.
func (u *Upload) Refused() bool {
	return u.State == Failed && (u.Problem.Code == image.KindExists || u.Problem.Code == image.KindChanged)
}

// Final reports whether what became of the upload stays so: it has a record, or has failed for good.
func (u *Upload) Final() bool { return u.State == Committed || u.Refused() }

// Load is an amount of work: images and their plaintext bytes.
type Load struct {
	Images int64 `json:"images"`
	Bytes  int64 `json:"bytes"`
}

func (l *Load) add(images, bytes int64) { l.Images += images; l.Bytes += bytes }

// NodeTotals sums up one node over a shard.
type NodeTotals struct {
	Assigned Load `json:"assigned"` // images ever committed with it as owner: what placement balances
	Storing  Load `json:"storing"`  // the same for every copy that it stored for a commit
	Owned    Load `json:"owned"`    // images whose owner it is now
	Stored   Load `json:"stored"`   // copies that it holds now
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
	recordTable  = 'r' // user NUL name -> image.Record, see EncodeRecord
	imageTable   = 'i' // image ID -> user NUL name, for committed images
	uploadTable  = 'u' // upload ID -> Upload
	deletedTable = 'd' // ID of a Delete -> deleted
	totalsKey    = 't' // Totals
	memberKey    = 'm' // Membership
	userKeyTable = 'k' // user NUL key ID, 4 bytes -> PutKey

	accessKeyTable = 'a' // user NUL ID -> AccessKey
	accessIDTable  = 'b' // ID of an access key -> user
	accountsKey    = 'c' // accounts
	removalTable   = 'x' // number, 8 bytes -> Removal
	purgedKey      = 'y' // in a data shard: number of the last removal that is complete there
	restartTable   = 's' // in a data shard: node, 4 bytes -> place in the log of its last Restart
	abortTable     = 'e' // upload ID, attempt -> place in the log of its Abort
	copiesTable    = 'w' // in a data shard: user -> copyCounts
	rewrapTable    = 'z' // in the system shard: user -> the least number of a key that copies may be under

	// What is kept of uploads and deletes, and for how long; see Retention.
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

// get reads the value of key into v, a row or else what is kept as JSON, and reports whether there was one.
func get(r Reader, key []byte, v any) (bool, error) {
	b, err := r.Get(key)
	if err != nil || b == nil {
		return false, err
	}
	if v, ok := v.(row); ok {
		return true, decodeRow(key, b, v)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return false, fmt.Errorf("catalog: value of key %q: %w", key, err)
	}
	return true, nil
}

// find returns the value of key, nil when there is none.
func find[T any](r Reader, key []byte) (*T, error) {
	v := new(T)
	if ok, err := get(r, key, v); !ok {
		return nil, err
	}
	return v, nil
}

// GetRecord returns the record of a name, nil when there is none.
func GetRecord(r Reader, user, name string) (*image.Record, error) {
	return getRecord(r, nameKey(user, name))
}

// GetUpload returns what the shard knows of an upload ID, nil when nothing. Of a stored image it
// knows the record, even when the upload itself is no longer kept.
func GetUpload(r Reader, id image.ID) (*Upload, error) {
	u, err := find[Upload](r, idKey(uploadTable, id))
	if u != nil || err != nil {
		return u, err
	}
	rec, err := recordOf(r, id)
	if rec == nil {
		return nil, err
	}
	return &Upload{
		ID: id, User: rec.User, Name: rec.Name, State: Committed, Record: rec, Index: rec.Version,
	}, nil
}

// recordOf returns the record of a stored image by its upload ID, nil when there is none.
func recordOf(r Reader, id image.ID) (*image.Record, error) {
	key, err := r.Get(idKey(imageTable, id))
	if err != nil || key == nil {
		return nil, err
	}
	rec, err := getRecord(r, key)
	if rec == nil || rec.ID != id {
		return nil, err
	}
	return rec, nil
}

// Names reports whether a record of a file's shard names it as a copy on a node. A file that none names is
// garbage, unless it was stored for an upload or a repair that goes on.
func Names(r Reader, node image.NodeID, f image.FileID) (bool, error) {
	rec, err := recordOf(r, f.Image)
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
	return scanRecords(r, nameKey(user, prefix), place, func(_ []byte, rec *image.Record) bool {
		return fn(rec)
	})
}

// Records returns up to limit records of all users that come after the place `after` (nil: from the
// first), in the order of users and names, and the place of the last one; nil when there are no more.
func Records(r Reader, after []byte, limit int) (recs []*image.Record, last []byte, err error) {
	err = scanRecords(r, []byte{recordTable}, after, func(k []byte, rec *image.Record) bool {
		recs, last = append(recs, rec), slices.Clone(k)
		return len(recs) < limit
	})
	if len(recs) < limit {
		last = nil
	}
	return recs, last, err
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
			err := scanRecords(r, []byte{recordTable}, after, func(k []byte, rec *image.Record) bool {
				for _, c := range rec.Copies {
					if c.Node == node {
						batch = append(batch, rec.File(c))
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

// Assign counts an upload of so many bytes in the loads that placement balances: storing are the nodes of its
// copies, the owner first.
func (t *Totals) Assign(storing []image.NodeID, bytes int64) {
	t.node(storing[0]).Assigned.add(1, bytes)
	for _, n := range storing {
		t.node(n).Storing.add(1, bytes)
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

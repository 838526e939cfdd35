package consensus

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"

	"imgcluster/cluster/image"
	"imgcluster/cluster/witness"
	"imgcluster/crypto"
)

// logDBs makes dragonboat's own log, with a witness of it.
type logDBs struct {
	w      *witness.Witness
	sealer *crypto.Sealer
	dir    string // the data directory

	compactions *compactions

	made   *logDB // the last one
	failed error  // why there is none
}

// Name implements config.LogDBFactory: that of dragonboat's own, which it compares at each start.
func (*logDBs) Name() string { return "sharded-pebble" }

// Create implements config.LogDBFactory.
func (f *logDBs) Create(
	c config.NodeHostConfig, cb config.LogDBCallback, dirs, low []string,
) (made raftio.ILogDB, err error) {
	defer func() { f.failed = err }()
	defer recovered(&err)
	db, err := newDefaultLogDB(c, cb, dirs, low)
	if err != nil {
		return nil, damaged(err)
	}
	l := &logDB{ILogDB: db, w: f.w, sealer: f.sealer, dir: f.dir, fs: c.Expert.FS, compactions: f.compactions}
	if err := l.check(); err != nil {
		// Left open, it would keep the log from being opened again in this process.
		return nil, errors.Join(damaged(err), db.Close())
	}
	f.made = l
	return l, nil
}

// logDB is dragonboat's log, with its commands sealed. Before it returns, the witness has what the node may
// then send to others.
type logDB struct {
	raftio.ILogDB
	w      *witness.Witness
	sealer *crypto.Sealer
	dir    string // the data directory
	fs     config.IFS

	compactions *compactions
}

// CompactEntriesTo implements raftio.ILogDB.
func (l *logDB) CompactEntriesTo(shard, replica, index uint64) (<-chan struct{}, error) {
	done, err := l.ILogDB.CompactEntriesTo(shard, replica, index)
	if err == nil {
		l.compactions.begun(shard, index, done)
	}
	return done, err
}

// SaveRaftState implements raftio.ILogDB.
func (l *logDB) SaveRaftState(updates []raftpb.Update, worker uint64) error {
	// Where entries go that were never committed, the witness must not outlast a loss of power that knows
	// of them still.
	for _, u := range updates {
		replica := witness.Replica{Shard: u.ShardID, ID: u.ReplicaID}
		known := l.w.Log(replica)
		if last := after(known, u).Last; last < known.Last {
			known.Last = last
			if err := l.w.UpdateLogDurably(replica, known); err != nil {
				return err
			}
		}
	}
	if err := l.ILogDB.SaveRaftState(sealEntries(l.sealer, updates), worker); err != nil {
		return err
	}
	for _, u := range updates {
		replica := witness.Replica{Shard: u.ShardID, ID: u.ReplicaID}
		before := l.w.Log(replica)
		if now := after(before, u); now != before {
			l.w.UpdateLog(replica, now)
		}
	}
	return nil
}

// IterateEntries implements raftio.ILogDB.
func (l *logDB) IterateEntries(
	entries []raftpb.Entry, size, shard, replica, low, high, maxBytes uint64,
) ([]raftpb.Entry, uint64, error) {
	had := len(entries)
	entries, size, err := l.ILogDB.IterateEntries(entries, size, shard, replica, low, high, maxBytes)
	if err == nil {
		err = openEntries(l.sealer, shard, replica, entries[had:])
	}
	return entries, size, damaged(err)
}

// after returns what the log has of a replica after an update.
func after(log witness.Log, u raftpb.Update) witness.Log {
	if !raftpb.IsEmptyState(u.State) {
		log.Term = u.Term
		log.Vote = u.Vote
	}
	if !raftpb.IsEmptySnapshot(u.Snapshot) {
		log.Last = u.Snapshot.Index
	}
	if n := len(u.EntriesToSave); n > 0 {
		log.Last = u.EntriesToSave[n-1].Index // these replace all from the first of them on
	}
	return log
}

// RemoveNodeData implements raftio.ILogDB.
func (l *logDB) RemoveNodeData(shard, replica uint64) error {
	if err := l.w.RemoveLog(witness.Replica{Shard: shard, ID: replica}); err != nil {
		return err
	}
	return l.ILogDB.RemoveNodeData(shard, replica)
}

// check refuses a log that has lost what the node has sent to others. Where the files were not
// compared, it also reads all entries and the snapshot: they have checksums, which are checked when a
// part is read, and that may be years from now, or by a goroutine that ends the process.
func (l *logDB) check() (err error) {
	defer recovered(&err)
	for replica, known := range l.w.Logs() {
		snapshot, err := l.GetSnapshot(replica.Shard, replica.ID)
		if err != nil {
			return err
		}
		have, err := l.ReadRaftState(replica.Shard, replica.ID, snapshot.Index)
		if err != nil && !errors.Is(err, raftio.ErrNoSavedLog) {
			return err
		}
		last := max(snapshot.Index, have.FirstIndex+have.EntryCount-min(1, have.EntryCount))
		now := witness.Log{Last: last, Term: have.State.Term, Vote: have.State.Vote}
		if lost := lostSince(known, now); lost != "" {
			return image.Errorf(image.KindDamaged, "the Raft log of shard %d in %s has forgotten %s: %w",
				replica.Shard, l.dir, lost, ErrDamaged).WithHint(replaceHint)
		}
		if l.w.Sealed() {
			continue
		}
		if err := l.readAll(replica.Shard, replica.ID, snapshot.Filepath, have); err != nil {
			return err
		}
	}
	return nil
}

// lostSince returns what a log no longer has of what is known of it, empty when it has all, or more.
func lostSince(known, have witness.Log) string {
	switch {
	case have.Last < known.Last:
		return fmt.Sprintf("its entries after %d of %d", have.Last, known.Last)
	case have.Term < known.Term:
		return fmt.Sprintf("term %d", known.Term)
	case have.Term == known.Term && known.Vote != 0 && have.Vote != known.Vote:
		return fmt.Sprintf("its vote in term %d", known.Term)
	}
	return ""
}

// readBytes is how much of the entries is read at once.
const readBytes = 4 << 20

func (l *logDB) readAll(shard, replica uint64, snapshot string, have raftio.RaftState) error {
	switch _, err := os.Stat(snapshot); {
	case errors.Is(err, fs.ErrNotExist): // the data directory was moved, which is fine
	case err != nil:
		return err
	default:
		if _, err := isShrunkSnapshotFile(snapshot, l.fs); err != nil {
			return fmt.Errorf("snapshot %s: %w", snapshot, err)
		}
	}
	end := have.FirstIndex + have.EntryCount
	for next := have.FirstIndex; next < end; {
		some, _, err := l.IterateEntries(nil, 0, shard, replica, next, end, readBytes)
		if err != nil {
			return err
		}
		if len(some) == 0 {
			return fmt.Errorf("the Raft log of shard %d has no entry %d", shard, next)
		}
		next = some[len(some)-1].Index + 1
	}
	return nil
}

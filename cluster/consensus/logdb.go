package consensus

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	_ "unsafe" // for go:linkname

	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"

	"imgcluster/cluster/image"
)

// newDefaultLogDB is dragonboat's own log, which it has no public name for.
//
//go:linkname newDefaultLogDB github.com/lni/dragonboat/v4/internal/logdb.NewDefaultLogDB
func newDefaultLogDB(config.NodeHostConfig, config.LogDBCallback, []string, []string) (raftio.ILogDB, error)

// isShrunkSnapshotFile is dragonboat's look into a snapshot, which checks what it reads. A snapshot of
// this program's shards has nothing in it once it was applied.
//
//go:linkname isShrunkSnapshotFile github.com/lni/dragonboat/v4/internal/rsm.IsShrunkSnapshotFile
func isShrunkSnapshotFile(path string, fs config.IFS) (bool, error)

// logPrefix begins the names of replicas in the witness.
const logPrefix = "log/"

func logName(shard, replica uint64) string { return fmt.Sprintf("%s%d/%d", logPrefix, shard, replica) }

// logDBs makes dragonboat's own log, with a witness of it.
type logDBs struct {
	w      *witness
	failed *error // why there is none
}

// Name implements config.LogDBFactory: that of dragonboat's own, which it compares at each start.
func (logDBs) Name() string { return "sharded-pebble" }

// Create implements config.LogDBFactory.
func (f logDBs) Create(c config.NodeHostConfig, cb config.LogDBCallback, dirs, low []string) (made raftio.ILogDB, err error) {
	defer func() { *f.failed = err }()
	defer recovered(&err)
	db, err := newDefaultLogDB(c, cb, dirs, low)
	if err != nil {
		return nil, damaged(err)
	}
	l := &logDB{ILogDB: db, w: f.w, fs: c.Expert.FS}
	if err := l.expect(); err != nil {
		// Left open, it would keep the log from being opened anew in this process.
		return nil, errors.Join(damaged(err), db.Close())
	}
	return l, nil
}

// logDB is dragonboat's log. What others may be told of once it returned is in the witness by then.
type logDB struct {
	raftio.ILogDB
	w  *witness
	fs config.IFS
}

// The numbers of a replica's mark.
const (
	markLast = iota
	markTerm
	markVote
)

// SaveRaftState implements raftio.ILogDB.
func (l *logDB) SaveRaftState(updates []raftpb.Update, worker uint64) error {
	// Where entries go that were never committed, the witness must not outlast a loss of power that knows
	// of them still.
	for _, u := range updates {
		name := logName(u.ShardID, u.ReplicaID)
		m := l.w.mark(name)
		if last := after(m, u)[markLast]; last < m[markLast] {
			m[markLast] = last
			if err := l.w.noteDurably(name, m); err != nil {
				return err
			}
		}
	}
	if err := l.ILogDB.SaveRaftState(updates, worker); err != nil {
		return err
	}
	for _, u := range updates {
		name := logName(u.ShardID, u.ReplicaID)
		before := l.w.mark(name)
		if m := after(before, u); m != before {
			l.w.note(name, m)
		}
	}
	return nil
}

// after is a replica's mark after an update.
func after(m mark, u raftpb.Update) mark {
	if !raftpb.IsEmptyState(u.State) {
		m[markTerm], m[markVote] = u.Term, u.Vote
	}
	if !raftpb.IsEmptySnapshot(u.Snapshot) {
		m[markLast] = u.Snapshot.Index
	}
	if n := len(u.EntriesToSave); n > 0 {
		m[markLast] = u.EntriesToSave[n-1].Index // these replace all from the first of them on
	}
	return m
}

// RemoveNodeData implements raftio.ILogDB.
func (l *logDB) RemoveNodeData(shard, replica uint64) error {
	if err := l.w.forget(true, logName(shard, replica)); err != nil {
		return err
	}
	return l.ILogDB.RemoveNodeData(shard, replica)
}

// expect refuses a log that has forgotten what the node has told others. Where the files were not
// compared, it also reads all entries and the snapshot: they have checksums, which are looked at when a
// part is read, and that may be years from now, or by a goroutine that ends the process.
func (l *logDB) expect() (err error) {
	defer recovered(&err)
	for name, m := range l.w.marks() {
		var shard, replica uint64
		if !strings.HasPrefix(name, logPrefix) {
			continue
		}
		if _, err := fmt.Sscanf(name, logPrefix+"%d/%d", &shard, &replica); err != nil {
			continue
		}
		snapshot, err := l.GetSnapshot(shard, replica)
		if err != nil {
			return err
		}
		have, err := l.ReadRaftState(shard, replica, snapshot.Index)
		if err != nil && !errors.Is(err, raftio.ErrNoSavedLog) {
			return err
		}
		last := max(snapshot.Index, have.FirstIndex+have.EntryCount-min(1, have.EntryCount))
		forgot := ""
		switch {
		case last < m[markLast]:
			forgot = fmt.Sprintf("its entries after %d of %d", last, m[markLast])
		case have.State.Term < m[markTerm]:
			forgot = fmt.Sprintf("term %d", m[markTerm])
		case have.State.Term == m[markTerm] && m[markVote] != 0 && have.State.Vote != m[markVote]:
			forgot = fmt.Sprintf("its vote in term %d", m[markTerm])
		case l.w.sealed:
			continue
		default:
			if err := l.readAll(shard, replica, snapshot.Filepath, have); err != nil {
				return err
			}
			continue
		}
		return image.Errorf(image.KindDamaged, "the Raft log of shard %d in %s has forgotten %s: %w", shard, l.w.root, forgot, ErrDamaged).
			WithHint(replaceHint)
	}
	return nil
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

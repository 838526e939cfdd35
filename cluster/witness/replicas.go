package witness

import (
	"fmt"
	"strings"
)

// replicaPrefix begins the names of replicas in the witness.
const replicaPrefix = "log/"

// Replica names a replica of a shard in Raft's log.
type Replica struct{ Shard, ID uint64 }

func (r Replica) name() string { return fmt.Sprintf("%s%d/%d", replicaPrefix, r.Shard, r.ID) }

// Log is what Raft's log has of a replica, durably.
type Log struct {
	Last uint64 // index of the last entry, or of the snapshot that holds it
	Term uint64
	Vote uint64 // in that term; zero is none
}

func (l Log) mark() mark { return mark{l.Last, l.Term, l.Vote} }

func (m mark) log() Log { return Log{m[0], m[1], m[2]} }

// Log returns what is known of a replica, all zero when that is nothing.
func (w *Witness) Log(r Replica) Log { return w.markOf(r.name()).log() }

// Logs returns what is known of each replica.
func (w *Witness) Logs() map[Replica]Log {
	logs := map[Replica]Log{}
	for name, m := range w.marks() {
		var r Replica
		if !strings.HasPrefix(name, replicaPrefix) {
			continue
		}
		if _, err := fmt.Sscanf(name, replicaPrefix+"%d/%d", &r.Shard, &r.ID); err == nil {
			logs[r] = m.log()
		}
	}
	return logs
}

// UpdateLog says what is durable of a replica now. When it cannot be written down, what was written down
// before stays right.
func (w *Witness) UpdateLog(r Replica, l Log) { w.update(r.name(), l.mark()) }

// UpdateLogDurably says what is going to hold of a replica before it does. It must not go on after an error.
func (w *Witness) UpdateLogDurably(r Replica, l Log) error {
	return w.updateDurably(r.name(), l.mark())
}

// RemoveLog says, durably, that a replica is about to be removed from the log. It must not go on after an
// error.
func (w *Witness) RemoveLog(r Replica) error { return w.remove(true, r.name()) }

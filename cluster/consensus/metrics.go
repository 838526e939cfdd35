package consensus

import (
	"fmt"
	"io"
	"sync/atomic"

	"github.com/lni/dragonboat/v4"
)

// counters grow from the start of the node.
type counters struct {
	proposals, reads, retries, noQuorum atomic.Uint64
	leaderChanges, transfers            atomic.Uint64
	snapshotsSent, snapshotsReceived    atomic.Uint64
}

// WriteMetrics writes this node's figures as Prometheus text, dragonboat's included. The latter
// are of the whole process.
func (c *Consensus) WriteMetrics(w io.Writer) {
	for _, m := range []struct {
		name string
		v    *atomic.Uint64
	}{
		{"proposals", &c.counters.proposals},
		{"reads", &c.counters.reads},
		{"retries", &c.counters.retries},
		{"no_quorum", &c.counters.noQuorum},
		{"leader_changes", &c.counters.leaderChanges},
		{"leader_transfers", &c.counters.transfers},
		{"snapshots_sent", &c.counters.snapshotsSent},
		{"snapshots_received", &c.counters.snapshotsReceived},
	} {
		name := "imgcluster_consensus_" + m.name + "_total"
		fmt.Fprintf(w, "# TYPE %s counter\n%s %d\n", name, name, m.v.Load())
	}
	led := 0
	for _, shard := range c.Hosted() {
		if c.LeaderOf(shard) {
			led++
		}
	}
	fmt.Fprintf(w, "# TYPE imgcluster_consensus_shards_led gauge\nimgcluster_consensus_shards_led %d\n", led)
	dragonboat.WriteHealthMetrics(w)
}

package membership

import (
	"fmt"
	"slices"
	"time"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
)

// lostRetry is when a node that may not be rebuilt yet should ask again.
const lostRetry = time.Second

// CheckQuorum returns an error when a shard's Raft group would have no quorum once the replica of one node
// is lost: of the others, those count whose nodes serve the shard, and not those that replaced lost ones
// and have not caught up.
func CheckQuorum(
	shard uint64, group []catalog.Replica, l *catalog.Layout, lost image.NodeID,
	serves func(image.NodeID) bool,
) error {
	left := 0
	var missing []image.NodeID
	for _, r := range group {
		switch {
		case r.Node == lost:
		case serves(r.Node) && !slices.Contains(l.New, r):
			left++
		default:
			missing = append(missing, r.Node)
		}
	}
	need := catalog.Quorum(len(group))
	if left >= need {
		return nil
	}
	slices.Sort(missing)
	return image.Errorf(image.KindNoQuorum, "node %d cannot be rebuilt now: without it, %d of the %d replicas "+
		"of shard %d are up to date, and %d are needed; those on nodes %v are not", lost, left, len(group),
		shard, need, missing).
		WithHint(fmt.Sprintf("start those nodes, or wait until they are ready (imgcluster status); then start "+
			"node %d with --replace", lost)).WithRetry(lostRetry)
}

package stress

import (
	"fmt"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// NoLeader returns the error of a cluster that has no quorum, by its status.
func NoLeader(s wire.ClusterStatus) error {
	const hint = "wait for the election; if it does not end, start the nodes that are down, " +
		"with: imgcluster server --id N"
	shards := len(s.Shards)
	return image.Errorf(image.KindNoQuorum, "%d of %d shards have no leader", shards-s.Leaders(), shards).
		WithHint(hint)
}

// NotMember returns what is wrong with a node of the configuration that is not a member, and the next step.
func NotMember(id image.NodeID) string {
	return fmt.Sprintf("node %d is not a member of the cluster: it was removed, or not added yet; "+
		"take it out of the configuration, or add it with imgcluster member add", id)
}

package wire

import "testing"

// TestFiguresOfStatuses holds that the types have the figures that their tables name.
func TestFiguresOfStatuses(t *testing.T) {
	node := NodeFigures.Values(NodeStatus{DiskFull: true, Uploads: 3})
	if node[NodeFigures.Index("disk_full")] != 1 || node[NodeFigures.Index("uploads")] != 3 {
		t.Errorf("%v", node)
	}
	cluster := ClusterFigures.Values(ClusterStatus{Images: 7})
	if cluster[ClusterFigures.Index("images")] != 7 {
		t.Errorf("%v", cluster)
	}
}

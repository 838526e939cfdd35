package wire

import (
	"strings"
	"testing"
	"time"

	"imgcluster/cluster/image"
)

// healthy returns a cluster of three nodes with two shards that lacks nothing.
func healthy() *ClusterStatus {
	s := &ClusterStatus{Replicas: 2, Images: 10}
	all := []image.NodeID{1, 2, 3}
	for _, id := range all {
		s.Nodes = append(s.Nodes, NodeStatus{
			ID: id, State: NodeUp, Ready: true, Version: "v1", StoredImages: 7, Files: 7,
		})
	}
	s.Shards = []ShardStatus{{ID: 1, Leader: 1, Nodes: all}, {ID: 2, Leader: 2, Nodes: all}}
	return s
}

func TestHealth(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		change func(*ClusterStatus)
		want   Health
		says   string // in a warning
	}{
		"nothing":     {func(*ClusterStatus) {}, Healthy, ""},
		"no leader":   {func(s *ClusterStatus) { s.Shards[1].Leader = 0 }, Unavailable, "without a leader: [2]"},
		"down":        {func(s *ClusterStatus) { s.Nodes[2].State = NodeDown }, Degraded, "node 3 is down"},
		"draining":    {func(s *ClusterStatus) { s.Nodes[0].State = NodeDraining }, Degraded, "node 1 is draining"},
		"starting":    {func(s *ClusterStatus) { s.Nodes[0].Ready = false }, Degraded, "node 1 is starting"},
		"disk failed": {func(s *ClusterStatus) { s.Nodes[1].Problem = "EIO" }, Degraded, "stores nothing: EIO"},
		"disk full":   {func(s *ClusterStatus) { s.Nodes[1].DiskFull = true }, Degraded, "node 2 is full"},
		"copies":      {func(s *ClusterStatus) { s.UnderReplicated = 4 }, Degraded, "4 images have fewer than 2"},
		"missing":     {func(s *ClusterStatus) { s.Nodes[1].MissingCopies = 4 }, Degraded, "2 misses 4 copies"},
		"versions":    {func(s *ClusterStatus) { s.Nodes[1].Version = "v2" }, Degraded, "[v1 v2]"},
		"clock":       {func(s *ClusterStatus) { s.Nodes[1].ClockOffS = 60 }, Degraded, "node 2 is off by 60 s"},
		"clocks":      {func(s *ClusterStatus) { s.Nodes[1].ClockOffS = 1 }, Healthy, ""},
		"expired": {func(s *ClusterStatus) {
			s.Nodes[1].CertificateUntil = now.Add(-time.Second)
		}, Degraded, "certificate of node 2 has expired"},
		"expires": {func(s *ClusterStatus) {
			s.Nodes[1].CertificateUntil = now.Add(3 * time.Hour)
		}, Degraded, "certificate of node 2 ends in 3 hours"},
		"certificate": {func(s *ClusterStatus) { s.Nodes[1].CertificateUntil = now.AddDate(1, 0, 0) }, Healthy, ""},
		"insecure":    {func(s *ClusterStatus) { s.Insecure = true }, Healthy, "security.insecure"},
		"all at once": {func(s *ClusterStatus) {
			s.Nodes[0].State, s.Shards[0].Leader = NodeDown, 0
		}, Unavailable, "node 1 is down"},
	} {
		s := healthy()
		c.change(s)
		s.Judge(now)
		if text := strings.Join(s.Warnings, "; "); s.Health != c.want || !strings.Contains(text, c.says) ||
			(c.says == "") != (text == "") {
			t.Errorf("%s: %s: %s", name, s.Health, text)
		}
	}
}

// TestKeepUp: a node is to be kept up where a shard would lose its majority without it, or an image its last
// copy.
func TestKeepUp(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*ClusterStatus)
		want   [3]string // part of the reason, by node
	}{
		"all are up": {func(*ClusterStatus) {}, [3]string{}},
		"one is down": {
			func(s *ClusterStatus) { s.Nodes[2].State = NodeDown },
			[3]string{"shard 1 would have no majority", "shard 1 would have no majority", ""},
		},
		"one starts": {
			func(s *ClusterStatus) { s.Nodes[2].Ready = false },
			[3]string{"shard 1 would have no majority", "shard 1 would have no majority", ""},
		},
		"copies are missing": {
			func(s *ClusterStatus) { s.UnderReplicated = 3 },
			[3]string{"3 images have", "3 images have", "3 images have"},
		},
		"on two of them": {func(s *ClusterStatus) {
			s.UnderReplicated, s.Nodes[1].StoredImages, s.Nodes[1].Files = 3, 0, 0
		}, [3]string{"3 images have", "", "3 images have"}},
		"one copy of each": {
			func(s *ClusterStatus) { s.Replicas = 1 },
			[3]string{"cluster.replicas", "cluster.replicas", "cluster.replicas"},
		},
		"another shard's node is down": {func(s *ClusterStatus) {
			s.Nodes = append(s.Nodes, NodeStatus{ID: 4, State: NodeDown})
			s.Shards[1].Nodes = []image.NodeID{2, 3, 4}
		}, [3]string{"", "shard 2 would have no majority", "shard 2 would have no majority"}},
	} {
		s := healthy()
		c.change(s)
		s.Judge(time.Now())
		for i, want := range c.want {
			if got := s.Nodes[i].KeepUp; !strings.Contains(got, want) || (got == "") != (want == "") {
				t.Errorf("%s: node %d: %q, want %q", name, i+1, got, want)
			}
		}
	}
}

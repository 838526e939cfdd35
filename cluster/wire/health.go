package wire

import (
	"fmt"
	"slices"
	"time"

	"imgcluster/cluster/image"
)

// Health is the state of a cluster in one word.
type Health string

// The states of a cluster.
const (
	Healthy     Health = "healthy"
	Degraded    Health = "degraded"    // it serves all images; something is to be done, or is being done
	Unavailable Health = "unavailable" // some images can be neither stored nor read
)

// shardsNamedMax bounds how many shards a warning names.
const shardsNamedMax = 5

const (
	// clockOffMax is how far clocks may be apart, in seconds: certificates, access keys and sessions end by
	// them.
	clockOffMax = 5
	// certificateSoon is how long before its end a certificate is warned of.
	certificateSoon = 14 * 24 * time.Hour
)

// Judge sets Health, the Warnings that it comes from, and KeepUp of the nodes, by the rest of the status.
func (s *ClusterStatus) Judge(now time.Time) {
	for i := range s.Nodes {
		s.Nodes[i].KeepUp = s.keepUp(s.Nodes[i])
	}
	s.Health, s.Warnings = Healthy, nil
	warn := func(to Health, format string, args ...any) {
		if to == Unavailable || s.Health == Healthy {
			s.Health = to
		}
		s.Warnings = append(s.Warnings, fmt.Sprintf(format, args...))
	}
	var leaderless []uint64
	for _, shard := range s.Shards {
		if shard.Leader == 0 {
			leaderless = append(leaderless, shard.ID)
		}
	}
	switch n := len(leaderless); {
	case n > shardsNamedMax:
		warn(Unavailable, "%d of %d shards have no leader", n, len(s.Shards))
	case n > 0:
		warn(Unavailable, "shards without a leader: %v", leaderless)
	}
	var versions []string
	for _, n := range s.Nodes {
		if n.Version != "" && !slices.Contains(versions, n.Version) {
			versions = append(versions, n.Version)
		}
		switch {
		case n.State == NodeDown:
			warn(Degraded, "node %d is down", n.ID)
			continue
		case n.State == NodeDraining:
			warn(Degraded, "node %d is draining", n.ID)
		case !n.Ready:
			warn(Degraded, "node %d is starting", n.ID)
		}
		switch {
		case n.Problem != "":
			warn(Degraded, "node %d stores nothing: %s", n.ID, n.Problem)
		case n.DiskLacks == LacksInodes:
			warn(Degraded, "node %d has no free inodes and is given no more images", n.ID)
		case n.DiskFull:
			warn(Degraded, "the disk of node %d is full and it is given no more images", n.ID)
		}
		if n.ClockOffS > clockOffMax {
			warn(Degraded, "the clock of node %d is off by %.0f s from that of the node that says so",
				n.ID, n.ClockOffS)
		}
		switch left := n.CertificateUntil.Sub(now); {
		case n.CertificateUntil.IsZero():
		case left <= 0:
			warn(Degraded, "the certificate of node %d has expired, and clients refuse it (tls.cert_file)", n.ID)
		case left < certificateSoon:
			warn(Degraded, "the certificate of node %d ends in %.0f hours (tls.cert_file)", n.ID, left.Hours())
		}
		if n.MissingCopies > 0 {
			warn(Degraded, "node %d misses %d copies, which are being restored", n.ID, n.MissingCopies)
		}
	}
	if s.UnderReplicated > 0 {
		warn(Degraded, "%d images have fewer than %d copies", s.UnderReplicated, s.Replicas)
	}
	if len(versions) > 1 {
		warn(Degraded, "nodes run different versions: %v", versions)
	}
	if s.Insecure {
		warn(s.Health, "plain HTTP without access keys, on addresses that other hosts reach (security.insecure)")
	}
}

// keepUp returns why a node should not be stopped now: without it a shard would have no majority, or an image
// no copy. Empty when it may be, as when it is down.
func (s *ClusterStatus) keepUp(n NodeStatus) string {
	if n.State == NodeDown {
		return ""
	}
	others := map[image.NodeID]bool{} // that would be left
	for _, x := range s.Nodes {
		others[x.ID] = x.ID != n.ID && x.State != NodeDown && x.Ready
	}
	for _, shard := range s.Shards {
		left := 0
		for _, id := range shard.Nodes {
			if others[id] {
				left++
			}
		}
		if slices.Contains(shard.Nodes, n.ID) && left <= len(shard.Nodes)/2 {
			return fmt.Sprintf("shard %d would have no majority", shard.ID)
		}
	}
	switch {
	case n.StoredImages == 0 && n.Files == 0:
		return ""
	case s.Replicas < 2:
		return "its images have no other copy (cluster.replicas)"
	case s.UnderReplicated > 0:
		return fmt.Sprintf("%d images have fewer than %d copies", s.UnderReplicated, s.Replicas)
	}
	return ""
}

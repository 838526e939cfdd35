package peerconn

import (
	"container/list"
	"net"
	"net/netip"
	"time"

	"imgcluster/cluster/image"
)

const (
	// handshakesMax bounds the connections that have not shown a certificate yet. Each holds some KiB, and
	// at most the 256 KiB that TLS takes for a certificate.
	handshakesMax = 256
	// handshakeAge is how long a connection has at least to show its certificate before it makes room for
	// another one.
	handshakeAge = 100 * time.Millisecond
)

// handshake is a connection whose other end has not shown who it is.
type handshake struct {
	conn  net.Conn
	from  netip.Prefix // see connlimit.Address
	since time.Time
	at    *list.Element // in its network's list; nil once it is in none
}

// handshakes are those under way. When there are too many, the network that has most of them gives one up,
// and one from which no node has come before one from which nodes have come: strangers do not keep nodes out.
type handshakes struct {
	count int
	from  map[netip.Prefix]*list.List   // of *handshake, oldest first
	nodes map[image.NodeID]netip.Prefix // where each node has last come from
}

func newHandshakes() handshakes {
	return handshakes{from: map[netip.Prefix]*list.List{}, nodes: map[image.NodeID]netip.Prefix{}}
}

// add adds a handshake, and reports whether there was room for it, after another one was closed if necessary.
func (s *handshakes) add(h *handshake) bool {
	if s.count >= handshakesMax {
		oldest := s.crowded(s.known(h.from))
		if oldest == nil || time.Since(oldest.since) < handshakeAge {
			return false
		}
		s.remove(oldest)
		oldest.conn.Close() // its handshake fails
	}
	if s.from[h.from] == nil {
		s.from[h.from] = list.New()
	}
	h.at = s.from[h.from].PushBack(h)
	s.count++
	return true
}

// crowded returns the oldest handshake of the network that has most of them, among those from which no node
// has come; of networks that have as many, the oldest of all. Where nodes have come from all of them, it
// takes any when all is set, else none.
func (s *handshakes) crowded(all bool) (oldest *handshake) {
	most := 0
	for _, known := range []bool{false, true} {
		for network, l := range s.from {
			first := l.Front().Value.(*handshake)
			more := l.Len() > most || l.Len() == most && first.since.Before(oldest.since)
			if s.known(network) == known && more {
				most, oldest = l.Len(), first
			}
		}
		if oldest != nil || !all {
			return oldest
		}
	}
	return oldest
}

// remove removes a handshake, if it is still among them.
func (s *handshakes) remove(h *handshake) {
	if h.at == nil {
		return
	}
	l := s.from[h.from]
	l.Remove(h.at)
	h.at = nil
	s.count--
	if l.Len() == 0 {
		delete(s.from, h.from)
	}
}

// know keeps where a node has come from.
func (s *handshakes) know(node image.NodeID, from netip.Prefix) { s.nodes[node] = from }

func (s *handshakes) known(from netip.Prefix) bool {
	for _, network := range s.nodes {
		if network == from {
			return true
		}
	}
	return false
}

// closeAll closes the connections of all handshakes.
func (s *handshakes) closeAll() {
	for _, l := range s.from {
		for at := l.Front(); at != nil; at = at.Next() {
			at.Value.(*handshake).conn.Close()
		}
	}
}

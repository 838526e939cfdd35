package consensus

import (
	"net"
	"sync"
	"time"

	"imgcluster/cluster/image"
)

// probeTimeout bounds one look at a node's Raft port.
const probeTimeout = 200 * time.Millisecond

// probe tells whose Raft port answers. It asks all at once.
func probe(nodes map[image.NodeID]string) map[image.NodeID]bool {
	var mu sync.Mutex
	answers := map[image.NodeID]bool{}
	var all sync.WaitGroup
	for id, address := range nodes {
		all.Go(func() {
			conn, err := net.DialTimeout("tcp", address, probeTimeout)
			if err != nil {
				return
			}
			conn.Close()
			mu.Lock()
			defer mu.Unlock()
			answers[id] = true
		})
	}
	all.Wait()
	return answers
}

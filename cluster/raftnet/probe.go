package raftnet

import (
	"net"
	"sync"
	"time"
)

// probeTimeout bounds one probe of a node's Raft port.
const probeTimeout = 200 * time.Millisecond

// Probe returns those of addresses, each host:port, on which something takes connections. It asks all at
// once.
func Probe(addresses []string) map[string]bool {
	var mu sync.Mutex
	answers := map[string]bool{}
	var all sync.WaitGroup
	for _, address := range addresses {
		all.Go(func() {
			conn, err := net.DialTimeout("tcp", address, probeTimeout)
			if err != nil {
				return
			}
			conn.Close()
			mu.Lock()
			defer mu.Unlock()
			answers[address] = true
		})
	}
	all.Wait()
	return answers
}

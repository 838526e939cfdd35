package config

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// The ports that FreePorts picks from lie below those that systems give to outgoing connections.
const (
	freePortMin   = 10_000
	freePortMax   = 32_000
	freePortTries = 1000
)

// FreePorts finds n different ports of 127.0.0.1 that nobody listens on, for a cluster that is not
// to meet another. They are free until someone takes them: servers say so if that happens first.
func FreePorts(n int) ([]int, error) {
	var ports []int
	for range freePortTries {
		if len(ports) == n {
			return ports, nil
		}
		port := freePortMin + rand.IntN(freePortMax-freePortMin)
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		defer l.Close() // all at the end, so that they differ
		ports = append(ports, port)
	}
	return nil, fmt.Errorf("found %d of %d free ports from %d to %d on 127.0.0.1", len(ports), n, freePortMin, freePortMax)
}

package config

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"sync/atomic"
)

// The ports that FreePorts picks from lie below those that systems give to outgoing connections.
const (
	freePortMin   = 10_000
	freePortMax   = 32_000
	freePortTries = 1000
)

// freePortStride is a prime, so that processes with neighbouring IDs begin far apart.
const freePortStride = 7919

// portsTried counts. Each process begins somewhere else, and tries no port twice before it has tried all:
// clusters that start at once do not try each other's.
var portsTried atomic.Uint64

// FreePorts finds n different ports of 127.0.0.1 that nobody listens on. Another process may take them before
// the caller does, whose server then fails to listen.
func FreePorts(n int) ([]int, error) {
	var ports []int
	for range freePortTries {
		if len(ports) == n {
			return ports, nil
		}
		try := uint64(os.Getpid())*freePortStride + portsTried.Add(1)
		port := freePortMin + int(try%(freePortMax-freePortMin))
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		defer l.Close() // all at the end, so that they differ
		ports = append(ports, port)
	}
	return nil, fmt.Errorf("found %d of %d free ports from %d to %d on 127.0.0.1", len(ports), n, freePortMin,
		freePortMax)
}

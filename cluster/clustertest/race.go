//go:build race

package clustertest

// slowdown is what the times of a cluster are multiplied by: the race detector makes a node several times
// slower.
const slowdown = 2

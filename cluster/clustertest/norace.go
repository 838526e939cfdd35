//go:build !race

package clustertest

// slowdown is what the times of a cluster are multiplied by.
const slowdown = 1

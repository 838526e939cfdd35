//go:build linux

package main

import (
	"fmt"
	"strings"

	"imgcluster/cluster/client"
)

// delivery is a way in which an upload reaches the nodes, and what it costs on links.
type delivery struct {
	name client.Delivery
	// sent is how often the client sends an image, inbound which part of all images' bytes comes in at one of
	// three nodes, with two copies.
	sent, inbound float64
}

// deliveries are all that are measured.
var deliveries = []delivery{
	{client.Broadcast, 3, 1},
	{client.Announce, 2, 2. / 3},
	{client.Relay, 1, 1./3 + 2./3*2/3}, // from the client, or as one of the storing nodes from another
}

// What a cell measures, and on what.
const (
	opPut   = "put"
	opGet   = "get"
	opRange = "range" // a GET of rangeBytes

	onBare    = "bare"  // processes that discard images, or some of them write and fsync
	onFiles   = "files" // a file server
	onCluster = "cluster"
)

const (
	smallBytes = 10_000
	rangeBytes = 1 << 20
)

// Cell is one load on one target. Fields that make no difference to it are zero.
type Cell struct {
	Op          string          `json:"op"`
	On          string          `json:"on"`
	Bytes       int             `json:"bytes,omitempty"` // of an image; 0: the test set's, 13 MB
	Concurrency int             `json:"concurrency"`
	Writers     int             `json:"writers,omitempty"` // bare processes that write
	Delivery    client.Delivery `json:"delivery,omitempty"`
	Copies      int             `json:"copies,omitempty"`
	Secured     bool            `json:"secured,omitempty"` // TLS and access keys
	Elsewhere   bool            `json:"elsewhere,omitempty"`
}

// cells returns all cells.
func cells() (all []Cell) {
	for _, n := range []int{1, 4, 8, 16} {
		for writers := range 3 {
			all = append(all, Cell{Op: opPut, On: onBare, Writers: writers, Concurrency: n})
		}
		for _, copies := range []int{1, 2} {
			all = append(all, puts(Cell{Copies: copies, Concurrency: n})...)
		}
	}
	for _, n := range []int{1, 8} {
		for _, op := range []string{opGet, opRange} {
			all = append(all, Cell{Op: op, On: onFiles, Concurrency: n})
			for _, elsewhere := range []bool{false, true} {
				c := Cell{Op: op, On: onCluster, Copies: 2, Concurrency: n, Elsewhere: elsewhere}
				all = append(all, c, c.secured())
			}
		}
	}
	for _, n := range []int{32, 64} {
		all = append(all, Cell{Op: opPut, On: onBare, Bytes: smallBytes, Concurrency: n})
		all = append(all, puts(Cell{Copies: 2, Bytes: smallBytes, Concurrency: n})...)
		all = append(all, Cell{Op: opGet, On: onFiles, Bytes: smallBytes, Concurrency: n})
		c := Cell{Op: opGet, On: onCluster, Copies: 2, Bytes: smallBytes, Concurrency: n}
		all = append(all, c, c.secured())
	}
	return all
}

// puts returns the cells of a put by each delivery, without and with TLS.
func puts(c Cell) (all []Cell) {
	c.Op, c.On = opPut, onCluster
	for _, d := range deliveries {
		c.Delivery = d.name
		all = append(all, c, c.secured())
	}
	return all
}

func (c Cell) secured() Cell {
	c.Secured = true
	return c
}

// plain returns the same cell without TLS and access keys.
func (c Cell) plain() Cell {
	c.Secured = false
	return c
}

// base returns the cell that c is compared with: the bare broadcast of the same images, or the file server.
func (c Cell) base() Cell {
	b := Cell{Op: c.Op, On: onFiles, Bytes: c.Bytes, Concurrency: c.Concurrency}
	if c.Op == opPut {
		b.On = onBare
	}
	return b
}

// name returns what a table calls the cell. No two have the same.
func (c Cell) name() string {
	size := "13 MB"
	if c.Bytes > 0 {
		size = fmt.Sprintf("%g KB", float64(c.Bytes)/1000)
	}
	parts := []string{c.Op + " " + size}
	if c.Op == opRange {
		parts[0] = "get 1 MiB of " + size
	}
	add := func(when bool, format string, args ...any) {
		if when {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	add(c.On == onFiles, "file server")
	add(c.On == onBare, "bare")
	add(c.On == onBare && c.Writers > 0, "%d writing", c.Writers)
	add(c.Delivery != "", "%s", c.Delivery)
	add(c.On == onCluster && c.Op == opPut, "copies %d", c.Copies)
	add(c.On == onCluster && c.Op != opPut && !c.Elsewhere, "own copy")
	add(c.Elsewhere, "no copy there")
	add(c.Secured, "TLS")
	add(true, "%d at once", c.Concurrency)
	return strings.Join(parts, ", ")
}

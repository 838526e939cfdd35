//go:build linux

package main

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"imgcluster/cluster/client"
	"imgcluster/cluster/clustertest"
)

// testSetBytes is the mean size of the test set's images, for which rates are given.
const testSetBytes = 13.2e6

// shareWanted is how much of what a link allows is wanted, usedMax how much of it can be used, which shows
// that it is limited: headers of Ethernet, IP and TCP take 66 bytes of each 1514, and a little is let through
// at once at the beginning.
const (
	shareWanted = 0.93
	usedMax     = 0.965
)

// link is what limits uploads: the link of the client or of a node, which has this bandwidth.
type link struct {
	mbit   int
	atNode bool // node 2's; the client's is of clientMbit then
	plain  bool // without TLS
	bytes  int  // of an image; 0: the test set's
}

// clientMbit is the bandwidth of a link that is not to limit.
const clientMbit = 1000

// fullLinks are those of make networks. Images are small where one of the test set would take half a minute.
var fullLinks = []link{
	{mbit: 1000},
	{mbit: 1000, plain: true},
	{mbit: 100},
	{mbit: 10, bytes: 1_320_000},
	{mbit: 100, atNode: true},
}

func (l link) String() string {
	at := "client"
	if l.atNode {
		at = "node 2"
	}
	if l.plain {
		at = "plain " + at
	}
	return fmt.Sprintf("%s %d Mbit/s", at, l.mbit)
}

// allows returns how many images of this size a second a delivery could get through the link, headers not
// counted.
func (l link) allows(d delivery, size float64) float64 {
	each := d.sent * size
	if l.atNode {
		each = d.inbound * size
	}
	return float64(l.mbit) * 1e6 / 8 / each
}

// TestNetworks uploads with each delivery over links of several bandwidths: three nodes and a client in
// network namespaces, most with TLS and an access key. With NETWORKS=full (make networks) it measures all
// links for a minute each, else one for seconds, with small images.
func TestNetworks(t *testing.T) {
	links, seconds, share := []link{{mbit: 40, bytes: 264_000}}, 5.0, 0.75 // beside other tests
	if os.Getenv("NETWORKS") == "full" {
		links, seconds, share = fullLinks, 60, shareWanted
	}
	var hosts []netip.Addr
	for i := range byte(4) {
		hosts = append(hosts, netip.AddrFrom4([4]byte{10, 40, 9, i + 1}))
	}
	network := clustertest.NewNetwork(t, hosts...)
	var machines []machine
	for _, h := range hosts {
		machines = append(machines, machine{addr: h, netns: network.Name(h)})
	}
	dir := t.TempDir()
	program, err := build(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	rows := [][]string{{
		"link", "delivery", "images", "uploads/s", "allowed", "share", "1500 images", "p50 s", "p99 s", "CPU ms",
		"sent", "between nodes",
	}}
	for _, l := range links {
		for _, d := range append(slices.Clone(deliveries), auto) {
			t.Run(fmt.Sprintf("%v/%s", l, d.name), func(t *testing.T) {
				network.Heal()
				network.Link(clientMbit, hosts...)
				at := hosts[3]
				if l.atNode {
					at = hosts[1]
				}
				network.Link(l.mbit, at)
				uploading := seconds
				if d == auto {
					uploading *= 3 // it may need a hundred images to choose
				}
				f, did := overLink(t, program, filepath.Join(dir, "data"), machines, l, d, uploading)
				rows = append(rows, l.row(t, d, f, did, share))
				t.Log(rows[len(rows)-1])
			})
		}
	}
	var out bytes.Buffer
	markdown(&out, rows)
	t.Logf("uploads/s of images of 13.2 MB, 8 at once; sent, and between nodes, for each byte\n%s",
		&out)
}

// auto is the delivery that the client chooses: by announce where its link is what limits. Its first images
// are for that, and are sent by broadcast too.
var auto = delivery{client.Auto, 2, 2. / 3}

// row returns the row of a table, and fails the test when the client's link was used too little.
func (l link) row(t *testing.T, d delivery, f Figures, did done, share float64) []string {
	rate, allowed := float64(did.Bytes)/did.Seconds/testSetBytes, l.allows(d, testSetBytes)
	got := rate / allowed
	switch {
	case l.atNode:
	case d == auto && did.Chosen != client.Announce:
		t.Errorf("%q was chosen where the client's link is what limits", did.Chosen)
	case d != auto && got < share:
		t.Errorf("%.3f of what the link allows, want %v", got, share)
	}
	used := f[clientWire] * float64(did.Bytes) / did.All / (float64(l.mbit) * 1e6 / 8)
	if !l.atNode && used > usedMax {
		t.Errorf("%.3f of the link was used, which cannot be", used)
	}
	number := func(format string, v float64) string { return fmt.Sprintf(format, v) }
	return []string{
		l.String(), strings.TrimSuffix(string(d.name)+", "+string(did.Chosen), ", "),
		fmt.Sprintf("%d of %.2g MB", did.Count, float64(did.Bytes)/float64(did.Count)/1e6),
		number("%.3g", rate), number("%.3g", allowed), number("%.3f", got),
		(time.Duration(1500/rate) * time.Second).String(),
		number("%.2f", did.P50MS/1000), number("%.2f", did.P99MS/1000),
		number("%.0f", f[clientCPU]+f[nodesCPU]), number("%.3f", f[clientWire]), number("%.3f", f[nodesWire]),
	}
}

// overLinkMax is how many images are uploaded at most: 3 GB.
const overLinkMax = 240

// overLink uploads over a network what takes some seconds at the speed of the link.
func overLink(
	t *testing.T, program, dir string, machines []machine, l link, d delivery, seconds float64,
) (Figures, done) {
	c := Cell{
		Op: opPut, On: onCluster, Delivery: d.name, Copies: 2, Concurrency: 8, Bytes: l.bytes,
		Secured: !l.plain,
	}
	nodes := len(machines) - 1
	target, err := startCluster(t.Context(), program, c, dir, machines[:nodes])
	defer target.stop()
	if err != nil {
		t.Fatal(err, target.said())
	}
	size := testSetBytes
	if l.bytes > 0 {
		size = float64(l.bytes)
	}
	target.work.Cell, target.work.Count = c, min(int64(seconds*l.allows(d, size)), overLinkMax)
	f, did, err := target.measure(t.Context(), machines[nodes])
	if err != nil {
		t.Fatal(err, target.said())
	}
	return f, did
}

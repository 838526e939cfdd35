package cluster_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"imgcluster/cluster/client"
	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/image"
	"imgcluster/config"
)

// logged returns the messages that a node has logged, of warnings and errors with their level and fields.
func logged(logs *observer.ObservedLogs, node image.NodeID) (lines []string) {
	for _, e := range logs.FilterField(zap.Uint32("node", uint32(node))).All() {
		line := e.Message
		if e.Level > zap.InfoLevel {
			line = fmt.Sprint(e.Level, " ", e.LoggerName, ": ", e.Message, " ", e.ContextMap())
		}
		lines = append(lines, line)
	}
	return lines
}

// TestLogFromStartToShutdown: what the nodes log at their start, of uploads and at their shutdown, and
// nothing else.
func TestLogFromStartToShutdown(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	c := clustertest.Start(t, clustertest.Options{Log: core})
	const each = 3
	owned := map[image.NodeID]int{}
	for i, d := range []client.Delivery{client.Broadcast, client.Relay} {
		cl := c.Client(t, d)
		for j := range each {
			body := clustertest.Image(uint64(each*i+j), 200_000)
			owned[put(t, cl, fmt.Sprintf("%d/%d.png", i, j), body).Owner]++
		}
	}
	lines := func() *observer.ObservedLogs { return logs.FilterMessage("image owned") }
	clustertest.Poll(t, "a line for each image", func() bool { return lines().Len() == 2*each })
	c.Stop(3)
	c.WaitReady(1, 2)
	c.Start(3)
	c.WaitReady(1, 2, 3)
	c.Stop(1)
	c.Stop(2)
	c.Stop(3)

	for _, id := range c.IDs() {
		var rest []string
		count := map[string]int{}
		for _, line := range logged(logs, id) {
			count[line]++
			switch line {
			case "API listens", "ready", "peer is up", "peer is stopping", "peer has stopped", "image owned":
			default:
				rest = append(rest, line)
			}
		}
		if len(rest) > 0 {
			t.Errorf("node %d also logs\n%s", id, strings.Join(rest, "\n"))
		}
		starts := map[bool]int{true: 2, false: 1}[id == 3]
		if count["API listens"] != starts || count["ready"] != starts || count["image owned"] != owned[id] {
			t.Errorf("node %d owns %d images and logs %v", id, owned[id], count)
		}
		// Every node has logged all that stopped before it, node 3 twice.
		if want := map[image.NodeID]int{1: 1, 2: 2, 3: 2}[id]; count["peer has stopped"] != want {
			t.Errorf("node %d: %d times a peer has stopped, want %d", id, count["peer has stopped"], want)
		}
	}
	for _, e := range lines().All() {
		m := e.ContextMap()
		delivery := "relay"
		if strings.HasPrefix(m["image"].(string), "alice/0/") {
			delivery = "broadcast"
		}
		copies := m["copies"].([]any)
		if m["bytes"] != int64(200_000) || m["took_s"].(float64) <= 0 || m["delivery"] != delivery ||
			len(copies) != 2 || copies[0] == copies[1] || len(m["live"].([]any)) != 3 {
			t.Errorf("%v", m)
		}
		want := regexp.MustCompile(
			`^owns alice/\d/\d\.png: 200\.0 kB on \d,\d, live 1,2,3, [\d.]+m?s, ` + delivery + `$`)
		if text := sentence(e); !want.MatchString(text) {
			t.Errorf("%q is not %s", text, want)
		}
	}
}

// sentence returns what a console shows of an entry.
func sentence(e observer.LoggedEntry) string {
	return e.Context[len(e.Context)-1].Interface.(fmt.Stringer).String()
}

// TestLogOfATakeover cuts the bodies that one node gets, until it should have become the owner of an image.
func TestLogOfATakeover(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	c := clustertest.Start(t, clustertest.Options{Log: core})
	const cut = 2
	put := func(id image.NodeID, name string, upload image.ID, body []byte) {
		sent := io.Reader(bytes.NewReader(body))
		if id == cut {
			sent = io.MultiReader(bytes.NewReader(body[:len(body)/2]), iotest.ErrReader(io.ErrClosedPipe))
		}
		url := c.URL(id, clustertest.Path("alice", name))
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, url, io.NopCloser(sent))
		if err != nil {
			t.Error(err)
			return
		}
		req.ContentLength = int64(len(body))
		req.Header = http.Header{"Idempotency-Key": {upload.String()}, "Imgcluster-Broadcast": {"1,2,3"}}
		if resp, err := c.HTTP.Do(req); err == nil {
			clustertest.ReadResponse(resp)
		}
	}
	taken := 0
	for i := range 20 {
		body := clustertest.Image(uint64(i), 400_000)
		upload := image.NewID()
		var all sync.WaitGroup
		for _, id := range c.IDs() {
			all.Go(func() { put(id, fmt.Sprint(i), upload, body) })
		}
		all.Wait()
		clustertest.Poll(t, "a line", func() bool { return logs.FilterMessage("image owned").Len() > i })
		taken = logs.Filter(func(e observer.LoggedEntry) bool {
			return e.ContextMap()["taken_over_from"] == uint32(cut)
		}).Len()
		if taken > 0 {
			break
		}
	}
	if taken != 1 {
		t.Errorf("%d images were taken over from node %d", taken, cut)
	}
}

// TestLogOfManyImages: log.images_per_second lines a second, the other images counted, and the node's share
// at every hundredth. No name can control a terminal.
func TestLogOfManyImages(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	c := clustertest.Start(t, clustertest.Options{Nodes: 1, Log: core, Change: func(c *config.Config) {
		c.Cluster.Replicas = 1
		c.Log.ImagesPerSecond = 1
	}})
	const images = 200
	body := []byte("an image")
	for i := range images {
		c.Put(t, 1, "alice", fmt.Sprintf("\u202e%d.png", i), body, nil)
	}
	clustertest.Poll(t, "the share", func() bool { return logs.FilterMessage("share of images").Len() == 2 })
	c.Stop(1)
	lines := logs.FilterMessage("image owned")
	left := int64(0)
	const more = "images owned without a line: more came than log.images_per_second"
	for _, e := range logs.FilterMessage(more).All() {
		left += e.ContextMap()["images"].(int64)
	}
	if left == 0 || left+int64(lines.Len()) != images {
		t.Errorf("%d lines, and %d images left out", lines.Len(), left)
	}
	first := lines.All()[0]
	if name := first.ContextMap()["image"]; name != "alice/\u202e0.png" { // as it is: the encoder escapes it
		t.Errorf("name %q", name)
	}
	if want := `owns alice/\u202e0.png: `; !strings.HasPrefix(sentence(first), want) {
		t.Errorf("%q does not begin with %q", sentence(first), want)
	}
	share := regexp.MustCompile(`^owns \d+ of \d+ images \(100\.0 %\), \d\.\d kB of \d\.\d kB \(100\.0 %\)$`)
	for i, e := range logs.FilterMessage("share of images").All() {
		m := e.ContextMap()
		// Uploads that follow may be in the catalog by then.
		n := m["images"].(int64)
		if n < int64(100*(i+1)) || n > images || m["of_images"] != n ||
			m["bytes"] != n*int64(len(body)) || m["of_bytes"] != m["bytes"] {
			t.Errorf("share %v", m)
		}
		if !share.MatchString(sentence(e)) {
			t.Errorf("%q is not %s", sentence(e), share)
		}
	}
}

func TestLogWithoutImages(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	c := clustertest.Start(t, clustertest.Options{Nodes: 1, Log: core, Change: func(c *config.Config) {
		c.Cluster.Replicas = 1
		c.Log.ImagesPerSecond = 0
	}})
	for i := range 100 {
		c.Put(t, 1, "alice", fmt.Sprintf("%d.png", i), []byte("an image"), nil)
	}
	c.Stop(1)
	if got := logged(logs, 1); !slices.Equal(got, []string{"API listens", "ready"}) {
		t.Errorf("logs %q", got)
	}
}

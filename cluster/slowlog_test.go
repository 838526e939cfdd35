package cluster_test

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/image"
	"imgcluster/cluster/trace"
	"imgcluster/cluster/wire"
	"imgcluster/config"
)

// TestSteps: where the time of an upload and a read goes is in /metrics, and in a line of each that is slow,
// on every node under the ID of the request that the client sent to one.
func TestSteps(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zap.InfoLevel)
	c := clustertest.Start(t, clustertest.Options{Log: core, Change: func(c *config.Config) {
		c.Log.Slow = time.Nanosecond
	}})
	const id = "from-the-client.1"
	body := clustertest.Image(1, 3_000_000)
	c.Put(t, 1, "alice", "a.png", body, http.Header{wire.RequestField: {id}})
	got := c.Do(http.MethodGet, 1, clustertest.Path("alice", "a.png"), nil, http.Header{wire.RequestField: {id}})
	if got.Status != http.StatusOK || len(got.Body) != len(body) {
		t.Fatalf("%d with %d bytes", got.Status, len(got.Body))
	}
	of := func(message string) *observer.ObservedLogs {
		return logs.FilterMessage(message).Filter(func(e observer.LoggedEntry) bool {
			return e.ContextMap()["request"] == id
		})
	}
	// Relayed: node 1 and those that store it, at least two in all.
	clustertest.Poll(t, "lines of the upload", func() bool { return of("slow upload").Len() >= 2 })
	clustertest.Poll(t, "a line of the read", func() bool { return of("slow read").Len() == 1 })
	clustertest.Poll(t, "the owner's line", func() bool { return of("image owned").Len() == 1 })
	took := map[string]bool{}
	for _, line := range of("slow upload").All() {
		m := line.ContextMap()
		if m["image"] != "alice/a.png" || m["bytes"] != int64(len(body)) || !(m["took_s"].(float64) >= 0) {
			t.Errorf("logged %v", m)
		}
		for _, s := range trace.Upload.Steps() {
			if v, ok := m[s.String()+"_s"].(float64); ok && v > 0 {
				took[s.String()] = true
			}
		}
	}
	for _, s := range []trace.Step{trace.Receive, trace.Fsync} {
		if !took[s.String()] {
			t.Errorf("no upload's line has %s_s, of 3 MB", s)
		}
	}

	counts := map[string]int{}
	for _, node := range []image.NodeID{1, 2, 3} {
		text := c.Do(http.MethodGet, node, wire.MetricsPath, nil, nil).Body
		for _, m := range stepCount.FindAllStringSubmatch(string(text), -1) {
			n, err := strconv.Atoi(m[3])
			if err != nil {
				t.Fatal(err)
			}
			counts[m[1]+" "+m[2]] += n
		}
	}
	for _, op := range trace.Ops {
		if n := counts[string(op)+" "]; n < 1 {
			t.Errorf("%d of %s in all, of %v", n, op, counts)
		}
		for _, s := range op.Steps() {
			n, ok := counts[fmt.Sprintf("%s %s", op, s)]
			if wanted := slices.Contains(alwaysTake, s); !ok || wanted && n < 1 {
				t.Errorf("%d of step %s of %s, of %v", n, s, op, counts)
			}
		}
	}
}

// alwaysTake are the steps that no request skips, however fast it is.
var alwaysTake = []trace.Step{
	trace.Receive, trace.Seal, trace.Write, trace.Fsync, trace.Log, trace.Open, trace.Answer,
}

var stepCount = regexp.MustCompile(
	`(?m)^imgcluster_(upload|read)(?:_step)?_seconds_count(?:\{step="([a-z]+)"\})? (\d+)$`)

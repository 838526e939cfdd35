package consensus

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/lni/dragonboat/v4"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
)

// TestCluster is one life of a three-node cluster; its steps build on each other.
func TestCluster(t *testing.T) {
	t.Parallel() // most of it is waiting
	c := newCluster(t, 3, 13, nil)
	c.startAll()
	if got := c.expectBalanced(); !maps.Equal(got, map[image.NodeID]int{1: 5, 2: 4, 3: 4}) {
		t.Fatalf("13 shards are led %v", got)
	}
	t.Run("proposals and reads on every node", func(t *testing.T) { everyNode(t, c) })
	t.Run("order and events", func(t *testing.T) { orderAndEvents(t, c) })
	t.Run("a panic in Apply", func(t *testing.T) { panicInApply(t, c) })
	t.Run("status and metrics", func(t *testing.T) { statusAndMetrics(t, c) })
	t.Run("a node restarts", func(t *testing.T) { stopAndRestart(t, c) })
}

func everyNode(t *testing.T, c *toyCluster) {
	for i := range c.nodes {
		for shard := uint64(1); shard <= 13; shard++ {
			key := fmt.Sprintf("key%d", i)
			if got := c.propose(i, shard, "set "+key+" v"+strconv.Itoa(i)); got != "was set" {
				t.Errorf("node %d, shard %d: result %q", i+1, shard, got)
			}
			for j := range c.nodes {
				if got := c.read(j, shard, key); got != "v"+strconv.Itoa(i) {
					t.Errorf("node %d reads %q right after node %d wrote it", j+1, got, i+1)
				}
			}
		}
	}
	refused := errors.New("the reader's own error")
	if err := c.nodes[1].Read(t.Context(), 2, func(catalog.Reader) error { return refused }); err != refused {
		t.Errorf("Read returned %v", err)
	}
	if err := c.nodes[1].View(2, func(catalog.Reader) error { return refused }); err != refused {
		t.Errorf("View returned %v", err)
	}
}

func orderAndEvents(t *testing.T, c *toyCluster) {
	const each = 50
	results := make([]map[string]bool, len(c.nodes))
	var all sync.WaitGroup
	for i := range c.nodes {
		results[i] = map[string]bool{}
		all.Go(func() {
			for range each {
				b, err := c.nodes[i].Propose(t.Context(), 4, []byte("add counter"))
				if err != nil {
					t.Error(err)
				}
				results[i][string(b)] = true
			}
		})
	}
	all.Wait()
	seen := map[string]bool{}
	for _, r := range results {
		maps.Copy(seen, r)
	}
	if len(seen) < len(c.nodes)*each { // a retried "add" counts twice but answers once
		t.Errorf("%d different results of %d proposals", len(seen), len(c.nodes)*each)
	}
	c.expectSameEverywhere()
	var first []string
	for i, n := range c.nodes {
		n.mu.Lock()
		events := slices.Clone(n.events[4])
		n.mu.Unlock()
		if first == nil {
			first = events
		}
		if !slices.Equal(events, first) {
			t.Errorf("node %d got other events than node 1", i+1)
		}
	}
	var last uint64
	for _, e := range first {
		_, at, _ := strings.Cut(e, "@")
		index, err := strconv.ParseUint(at, 10, 64)
		if err != nil || index <= last {
			t.Fatalf("event %v after index %d", e, last)
		}
		last = index
	}
	if len(first) < len(c.nodes)*each {
		t.Errorf("%d events", len(first))
	}
}

func panicInApply(t *testing.T, c *toyCluster) {
	c.propose(0, 5, "set kept yes")
	for _, cmd := range []string{"half x", "big x", "malformed"} {
		_, err := c.nodes[1].Propose(t.Context(), 5, []byte(cmd))
		var e *image.Error
		if !errors.As(err, &e) || e.Kind != image.KindInternal || e.Hint() == "" {
			t.Errorf("%q: %v", cmd, err)
		}
	}
	c.propose(2, 5, "set after yes")
	for i := range c.nodes {
		x := c.read(i, 5, "x")
		kept := c.read(i, 5, "kept")
		after := c.read(i, 5, "after")
		if x != "" || kept != "yes" || after != "yes" {
			t.Errorf("node %d keeps half a command or misses one: x %q, kept %q, after %q",
				i+1, x, kept, after)
		}
	}
	c.expectSameEverywhere()
}

func statusAndMetrics(t *testing.T, c *toyCluster) {
	for i, shard := range c.nodes[1].Hosted() {
		group, err := c.nodes[1].Group(t.Context(), shard)
		if err != nil || shard != uint64(i+1) || len(group) != 3 ||
			!slices.Contains(group, catalog.Replica{Node: 3}) {
			t.Errorf("shard %d: group %v, %v", shard, group, err)
		}
	}
	if _, _, ok := c.nodes[1].Leader(99); ok || c.nodes[1].LeaderOf(99) {
		t.Error("shard 99 has a leader")
	}
	for _, want := range []string{
		"imgcluster_consensus_proposals_total", "imgcluster_consensus_shards_led 4\n",
		"dragonboat_raftnode_has_leader",
	} {
		until(t, "metrics have "+want, func() bool { // leaders may be on their way back to it
			var b strings.Builder
			c.nodes[1].WriteMetrics(&b)
			return strings.Contains(b.String(), want)
		})
	}
}

func stopAndRestart(t *testing.T, c *toyCluster) {
	stopped := c.nodes[0].Consensus
	c.stop(0)
	if _, err := stopped.Propose(t.Context(), 1, []byte("add a")); image.KindOf(err) != image.KindNoQuorum {
		t.Errorf("a closed node answers %v", err)
	}
	nothing := func(catalog.Reader) error { return nil }
	if err := stopped.View(1, nothing); image.KindOf(err) != image.KindNoQuorum {
		t.Errorf("a closed node shows its state: %v", err)
	}
	if err := stopped.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
	for shard := uint64(1); shard <= 13; shard++ {
		c.propose(1+int(shard)%2, shard, "set while-away "+strconv.Itoa(int(shard)))
	}
	if got := c.expectBalanced(); !maps.Equal(got, map[image.NodeID]int{2: 7, 3: 6}) {
		t.Errorf("13 shards are led %v with node 1 away", got)
	}
	c.start(0)
	c.expectSameEverywhere()
	if got := c.read(0, 13, "while-away"); got != "13" {
		t.Errorf("the restarted node reads %q", got)
	}
	if got := c.expectBalanced(); !maps.Equal(got, map[image.NodeID]int{1: 5, 2: 4, 3: 4}) {
		t.Errorf("13 shards are led %v with node 1 back", got)
	}
}

// TestFarBehind lets a node miss more than the others keep, so that it needs a snapshot.
func TestFarBehind(t *testing.T) {
	t.Parallel() // most of it is waiting
	c := newCluster(t, 3, 2, func(o *Options) { o.SnapshotEntries, o.CompactionOverhead = 20, 5 })
	c.startAll()
	c.propose(0, 1, "set gone-later x")
	c.expectSameEverywhere()
	c.stop(2)
	c.propose(0, 1, "del gone-later")
	for i := range 90 {
		c.propose(i%2, 1, fmt.Sprintf("set k%d %d", i%60, i))
	}
	c.start(2)
	c.expectRestored(2, 1)
	c.expectSameEverywhere()
	if got := c.read(2, 1, "gone-later") + c.read(2, 1, "k29"); got != "89" {
		t.Errorf("node 3 reads %q", got)
	}
	c.propose(2, 1, "set after snapshot")
	c.stop(2) // what came by snapshot is there after a restart
	c.start(2)
	c.expectSameEverywhere()
	if got := c.read(2, 1, "after"); got != "snapshot" {
		t.Errorf("node 3 reads %q after a restart", got)
	}
}

// TestNoQuorum runs one node of three.
func TestNoQuorum(t *testing.T) {
	t.Parallel() // most of it is waiting
	c := newCluster(t, 3, 1, func(o *Options) { o.ProposalAttempt, o.ProposalTimeout = o.RTT*3, o.RTT*10 })
	c.start(0)
	n := c.nodes[0]
	fn := func(catalog.Reader) error { return nil }
	_, err := n.Propose(t.Context(), 1, []byte("add a"))
	for _, err := range []error{err, n.Read(t.Context(), 1, fn)} {
		var e *image.Error
		if !errors.As(err, &e) || e.Kind != image.KindNoQuorum || e.RetryAfter == 0 || e.Hint() == "" {
			t.Errorf("without a majority: %v", err)
		}
	}
	expectReasons(t, n.Consensus)
	must(t, n.View(1, fn))
	if n.Ready() {
		t.Error("ready without a leader")
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := n.Propose(cancelled, 1, []byte("add a")); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	large := make([]byte, CommandBytesMax+1)
	if _, err := n.Propose(t.Context(), 1, large); image.KindOf(err) != image.KindTooLarge {
		t.Errorf("a large command: %v", err)
	}
	for _, err := range []error{n.View(9, fn), n.Read(t.Context(), 9, fn)} {
		if image.KindOf(err) != image.KindNoQuorum {
			t.Errorf("an unknown shard: %v", err)
		}
	}
}

// expectReasons expects that a call that ran out of time says why: that it timed out, or what else there was,
// each in words of its own.
func expectReasons(t *testing.T, n *Consensus) {
	t.Helper()
	timedOut := n.giveUp(t.Context(), 1, nil).Error()
	said := map[string]error{}
	for _, c := range []struct {
		last     error
		timedOut bool
	}{
		{context.DeadlineExceeded, true},
		{dragonboat.ErrTimeout, true},
		{dragonboat.ErrTimeoutTooSmall, true},
		{dragonboat.ErrShardNotReady, false},
		{dragonboat.ErrSystemBusy, false},
		{dragonboat.ErrAborted, false},
	} {
		err := n.giveUp(t.Context(), 1, c.last)
		text := err.Error()
		if !errors.Is(err, c.last) || image.KindOf(err) != image.KindNoQuorum || (text == timedOut) != c.timedOut {
			t.Errorf("%v becomes %v", c.last, err)
		}
		if before := said[text]; before != nil && !c.timedOut {
			t.Errorf("%v and %v both become %v", before, c.last, err)
		}
		said[text] = c.last
	}
}

// TestCloseEndsProposals closes a node while proposals wait for a majority that never comes.
func TestCloseEndsProposals(t *testing.T) {
	t.Parallel()                  // most of it is waiting
	c := newCluster(t, 3, 1, nil) // ProposalTimeout is the deadline
	c.start(0)
	n := c.nodes[0].Consensus
	done := make(chan error)
	go func() {
		_, err := n.Propose(context.Background(), 1, []byte("add a"))
		done <- err
	}()
	until(t, "the proposal was tried", func() bool { return n.counters.retries.Load() > 0 })
	c.stop(0)
	if err := <-done; image.KindOf(err) != image.KindNoQuorum || err.Error() != errStopping().Error() {
		t.Errorf("the waiting proposal ended with %v", err)
	}
}

package cluster_test

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"path"
	"slices"
	"testing"
	"time"

	"imgcluster/cluster/client"
	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
	"imgcluster/config"
)

// The hosts of the clients: one on the side of the majority, one on that of the minority.
var (
	nearMajority = netip.MustParseAddr("10.40.1.1")
	nearMinority = netip.MustParseAddr("10.40.1.2")
)

// minority is the node that the faults cut off.
const minority = 1

// What a fault has to show before it ends.
const (
	healthyEach  = 5  // acknowledgements of each load before the fault
	acknowledged = 60 // by the majority, of uploads that began in the fault
	refusals     = 8  // by the minority

	acknowledgedSlowly = 30 // when the network loses much
)

// loadSizes are the sizes of a load's images, in turn.
var loadSizes = []int{20_000, 150_000, 60_000, 300_000}

// The tests of networks inject their faults into clusters with the addresses and the timeouts of the sample
// configuration.

func TestNetworkPartition(t *testing.T) {
	n := startNetwork(t)
	t.Run("Partition", func(t *testing.T) {
		n.cutOff(t, true, func() { n.net.Partition(n.sideA(), n.sideB()) })
	})
	t.Run("Rate", func(t *testing.T) {
		n.degrade(t, n.start(t, 0), acknowledged, func() { n.net.Rate(10, n.everyone()...) })
	})
	t.Run("OneWayIn", func(t *testing.T) {
		n.cutOff(t, false, func() { n.net.OneWay(n.sideB(), n.sideA()) })
	})
	if clustertest.FullNetwork() {
		t.Run("OneWayOut", func(t *testing.T) {
			n.cutOff(t, false, func() { n.net.OneWay(n.sideA(), n.sideB()) })
		})
	}
}

func TestNetworkLoss(t *testing.T) {
	n := startNetwork(t)
	t.Run("One", func(t *testing.T) { // of what comes to one node
		n.degrade(t, n.start(t, 0), acknowledged, func() { n.net.Loss(30, n.host(minority)) })
	})
	t.Run("All", func(t *testing.T) { // of what comes to every host: half of all round trips fail
		count := acknowledgedSlowly
		if !clustertest.FullNetwork() {
			count /= 5
		}
		n.degrade(t, n.startProduct(t), count, func() { n.net.Loss(30, n.everyone()...) })
	})
}

// noticedMax bounds the time until a dead connection is noticed. The design says 15 s; the host that runs the
// tests may be busy.
const noticedMax = 30 * time.Second

// TestNetworkHalfOpen has one end of connections vanish without closing them.
func TestNetworkHalfOpen(t *testing.T) {
	n := startNetwork(t)
	t.Run("Client", n.clientVanishes)
	t.Run("Node", n.nodeVanishes)
	t.Run("Peer", n.peerStalls)
}

// clientVanishes drops a client's packets in the middle of its body.
func (n *network) clientVanishes(t *testing.T) {
	t.Cleanup(n.net.Heal)
	const node = 2
	conn, err := n.net.DialFrom(t.Context(), nearMinority, n.c.Addr(node))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn = n.c.Secure(t, conn, node)
	body := clustertest.Image(1, 400_000)
	io.WriteString(conn, head(clustertest.Path("vanished", "half.png"), len(body)))
	conn.Write(body[:len(body)/2])
	uploads := func() int { return n.c.Status(node).Nodes[node-1].Uploads }
	clustertest.Poll(t, "the upload has begun", func() bool { return uploads() == 1 })
	n.net.OneWay([]netip.Addr{nearMinority}, []netip.Addr{n.host(node)})
	expectNoticed(t, "a client that vanished in mid-body", time.Now(), func() bool { return uploads() == 0 })
	n.net.Heal()
	n.c.ExpectSettled(t)
}

// nodeVanishes drops all packets from a node to its client.
func (n *network) nodeVanishes(t *testing.T) {
	load := n.c.StartLoad(t, nearMajority, clustertest.LoadOptions{
		User: "relay", Delivery: client.Relay, Nodes: []image.NodeID{2, 3}, Workers: 2, Sizes: []int{500_000},
	})
	l := &loads{major: []*clustertest.Load{load}}
	n.await(t, l, healthyEach)
	n.net.OneWay([]netip.Addr{n.host(2)}, []netip.Addr{nearMajority})
	began := time.Now()
	expectNoticed(t, "a node that vanished for its client", began, func() bool {
		done := map[bool]int{} // by worker: one has its upload on a dead connection
		for _, s := range sent(l.major, since(began, true)) {
			done[s.Seed%2 == 0]++
		}
		return done[true] > 1 && done[false] > 1
	})
	healed := time.Now()
	n.net.Heal()
	n.expectRecovery(t, l, began, healed)
}

// peerStalls drops the bodies that one node sends to another, but not its heartbeats.
func (n *network) peerStalls(t *testing.T) {
	const from, to, other = 1, 2, 3
	load := n.c.StartLoad(t, nearMajority, clustertest.LoadOptions{
		User: "peer", To: from, Workers: 3, Sizes: []int{90_000},
	})
	l := &loads{major: []*clustertest.Load{load}}
	n.await(t, l, healthyEach)
	var name string // of an image whose record reaches `to`, and whose first copy does not
	looked := 0
	clustertest.Poll(t, "an image to read across the black hole", func() bool {
		leaders := n.c.Status(other).Shards
		for _, s := range sent(l.major, since(time.Time{}, true))[looked:] {
			looked++
			h := n.c.Do(http.MethodHead, other, clustertest.Path(s.User, s.Name), nil, nil).Header
			led := slices.ContainsFunc(leaders, func(sh wire.ShardStatus) bool {
				return fmt.Sprint(sh.ID) == h.Get("Imgcluster-Shard") && sh.Leader != from
			})
			if h.Get("Imgcluster-Replicas") == fmt.Sprintf("%d,%d", from, other) && led {
				name = s.Name
				return true
			}
		}
		return false
	})
	n.net.BlackHole([]netip.Addr{n.host(from)}, []netip.Addr{n.host(to)})
	began := time.Now()
	expectNoticed(t, "a storing node that receives nothing from the relaying one", began, func() bool {
		return l.each(healthyEach, since(began, true))
	})
	read := time.Now()
	expectNoticed(t, "a first copy that does not arrive at the reading node", read, func() bool {
		r := n.c.Do(http.MethodGet, to, clustertest.Path("peer", name), nil, nil)
		return r.Status == http.StatusOK && r.Err == nil
	})
	healed := time.Now()
	n.net.Heal()
	n.expectRecovery(t, l, began, healed)
}

// expectNoticed expects what shows that a dead connection was noticed, within noticedMax.
func expectNoticed(t *testing.T, what string, began time.Time, ok func() bool) {
	t.Helper()
	clustertest.Poll(t, what, ok)
	took := time.Since(began)
	t.Logf("%s noticed within %v", what, took.Round(10*time.Millisecond))
	if took > noticedMax {
		t.Errorf("%s noticed only after %v", what, took)
	}
}

// network is a cluster whose nodes are hosts of a network.
type network struct {
	net *clustertest.Network
	c   *clustertest.Cluster
}

func startNetwork(t *testing.T) *network {
	t.Helper()
	if testing.Short() {
		t.Skip("starts processes")
	}
	t.Parallel()
	sample, err := config.Load(config.Options{Path: "../testdata/cluster.yaml"})
	if err != nil {
		t.Fatal(err)
	}
	hosts := []netip.Addr{nearMajority, nearMinority}
	for _, n := range sample.Cluster.Nodes {
		hosts = append(hosts, netip.MustParseAddr(n.Host))
	}
	n := &network{net: clustertest.NewNetwork(t, hosts...)}
	n.c = clustertest.Start(t, clustertest.Options{Network: n.net, Change: func(cfg *config.Config) {
		cfg.Cluster = sample.Cluster
		cfg.Timeouts = sample.Timeouts
		cfg.Raft = sample.Raft
		cfg.Client = sample.Client
		cfg.Security.Insecure = true // of clients; what nodes send each other is sealed all the same
		// Else the end of a test waits for these, and for an upload whose client has ended.
		cfg.Repair.Every = time.Second
		cfg.Timeouts.Sweep = time.Second
		cfg.Timeouts.Upload = 30 * time.Second
	}})
	return n
}

func (n *network) host(id image.NodeID) netip.Addr {
	return netip.MustParseAddrPort(n.c.Addr(id)).Addr()
}

func (n *network) sideA() []netip.Addr { return []netip.Addr{n.host(minority), nearMinority} }

func (n *network) sideB() []netip.Addr {
	side := []netip.Addr{nearMajority}
	for _, id := range n.c.Others(minority) {
		side = append(side, n.host(id))
	}
	return side
}

func (n *network) everyone() []netip.Addr { return append(n.sideA(), n.sideB()...) }

// loads are the clients of one fault.
type loads struct {
	major, minor []*clustertest.Load
}

func sent(list []*clustertest.Load, ok func(clustertest.Sent) bool) (found []clustertest.Sent) {
	for _, l := range list {
		found = append(found, slices.DeleteFunc(l.Sent(), func(s clustertest.Sent) bool { return !ok(s) })...)
	}
	return found
}

// since selects the uploads that began after a time, acknowledged or not.
func since(at time.Time, acknowledged bool) func(clustertest.Sent) bool {
	return func(s clustertest.Sent) bool { return s.Began.After(at) && s.Acknowledged == acknowledged }
}

// start starts clients on both sides and waits until each has stored some images.
func (n *network) start(t *testing.T, attempts int) *loads {
	t.Helper()
	load := func(at netip.Addr, user string, o clustertest.LoadOptions) *clustertest.Load {
		o.User = user + "-" + path.Base(t.Name())
		o.Sizes = loadSizes
		return n.c.StartLoad(t, at, o)
	}
	l := &loads{
		major: []*clustertest.Load{
			load(nearMajority, "a", clustertest.LoadOptions{Delivery: client.Broadcast, Workers: 2}),
			load(nearMajority, "b", clustertest.LoadOptions{To: 2, Workers: 1}),
		},
		minor: []*clustertest.Load{
			load(nearMinority, "c", clustertest.LoadOptions{
				Delivery: client.Broadcast, Attempts: attempts, Workers: 1,
			}),
			load(nearMinority, "d", clustertest.LoadOptions{To: minority, Workers: 4}),
		},
	}
	n.await(t, l, healthyEach)
	return l
}

// startProduct starts loads of imgcluster's client alone, of which no upload may fail: how other clients
// survive a fault is not up to it.
func (n *network) startProduct(t *testing.T) *loads {
	t.Helper()
	l := &loads{}
	for _, delivery := range []client.Delivery{client.Broadcast, client.Announce, client.Relay} {
		for i, at := range []netip.Addr{nearMajority, nearMinority} {
			l.major = append(l.major, n.c.StartLoad(t, at, clustertest.LoadOptions{
				User:     fmt.Sprintf("%s-%d-%s", delivery, i, path.Base(t.Name())),
				Delivery: delivery, Workers: 2, Sizes: loadSizes,
			}))
		}
	}
	n.await(t, l, healthyEach)
	return l
}

// await waits until each load has stored some images.
func (n *network) await(t *testing.T, l *loads, count int) {
	t.Helper()
	t.Cleanup(func() {
		n.net.Heal() // for what comes next, when this failed
		if t.Failed() {
			l.log(t)
		}
	})
	clustertest.Poll(t, "every load is served", func() bool { return l.each(count, since(time.Time{}, true)) })
}

func (l *loads) all() []*clustertest.Load { return slices.Concat(l.major, l.minor) }

// log logs the outcome of the loads' last uploads.
func (l *loads) log(t *testing.T) {
	for i, one := range l.all() {
		all := one.Sent()
		acknowledged := sent([]*clustertest.Load{one}, since(time.Time{}, true))
		t.Logf("load %d: %d of %d acknowledged", i, len(acknowledged), len(all))
		for _, s := range all[max(0, len(all)-5):] {
			t.Logf("load %d: %s/%s at %v after %v: %d %s",
				i, s.User, s.Name, s.Began.Format(time.StampMilli), s.Took(), s.Status, s.Failure)
		}
	}
}

// each reports whether every load has so many uploads of that kind.
func (l *loads) each(count int, ok func(clustertest.Sent) bool) bool {
	return !slices.ContainsFunc(l.all(), func(one *clustertest.Load) bool {
		return len(sent([]*clustertest.Load{one}, ok)) < count
	})
}

// cutOff cuts the minority off under load, until it has refused plain uploads, and with whole those of
// imgcluster's client too, which first has to notice that its connections are dead.
func (n *network) cutOff(t *testing.T, whole bool, fault func()) {
	l := n.start(t, 1)
	fault()
	began := time.Now()
	clustertest.Poll(t, "the majority serves and the minority refuses", func() bool {
		no := sent(l.minor, since(began, false))
		byClient := slices.ContainsFunc(no, func(s clustertest.Sent) bool { return s.Status == 0 })
		return len(sent(l.major, since(began, true))) >= acknowledged && len(no) >= refusals && (byClient || !whole)
	})
	n.expectReadRefused(t)
	healed := time.Now()
	n.net.Heal()
	during := func(s clustertest.Sent) bool { return s.Began.After(began) && s.Ended.Before(healed) }
	for _, s := range sent(l.minor, during) {
		promised := s.Status == http.StatusServiceUnavailable && s.Promised
		switch {
		case s.Acknowledged:
			t.Errorf("the minority acknowledged %s/%s in the fault", s.User, s.Name)
		case s.Code != string(image.KindNoQuorum), s.Status != 0 && !promised:
			t.Errorf("refusal of %s/%s after %v: %+v", s.User, s.Name, s.Took(), s)
		}
	}
	n.expectRecovery(t, l, began, healed)
}

// expectReadRefused expects that the minority refuses a read, since its catalog may be out of date.
func (n *network) expectReadRefused(t *testing.T) {
	t.Helper()
	name := clustertest.Path("a-"+path.Base(t.Name()), "0.png")
	clustertest.ExpectProblem(t, n.c.Do(http.MethodGet, minority, name, nil, nil), image.KindNoQuorum)
}

// degrade makes the network bad for everybody under load.
func (n *network) degrade(t *testing.T, l *loads, count int, fault func()) {
	t.Helper()
	fault()
	began := time.Now()
	clustertest.Poll(t, "the cluster serves", func() bool {
		return len(sent(l.all(), since(began, true))) >= count
	})
	healed := time.Now()
	n.net.Heal()
	n.expectRecovery(t, l, began, healed)
}

// expectRecovery expects, after the fault, that every client is served again, and the invariants.
func (n *network) expectRecovery(t *testing.T, l *loads, began, healed time.Time) {
	t.Helper()
	clustertest.Poll(t, "every load is served again", func() bool {
		return l.each(1, since(healed, true))
	})
	served := time.Since(healed)
	for _, one := range l.all() {
		one.Stop()
	}
	n.c.WaitReady(n.c.IDs()...)
	n.c.ExpectEqualCatalogs(t)
	equal := time.Since(healed)

	during := func(list []*clustertest.Load, ok bool) []clustertest.Sent {
		return sent(list, func(s clustertest.Sent) bool {
			return s.Acknowledged == ok && s.Ended.After(began) && s.Ended.Before(healed)
		})
	}
	round := func(d time.Duration) time.Duration { return d.Round(10 * time.Millisecond) }
	major := during(l.major, true)
	t.Logf("fault of %v: majority %d acknowledged, %d failed, longest pause %v, longest upload %v",
		round(healed.Sub(began)), len(major), len(during(l.major, false)),
		round(longestPause(major, began, healed)), round(longestUpload(major)))
	t.Logf("minority %d acknowledged, %d refused; after healing all served in %v, catalogs equal in %v",
		len(during(l.minor, true)), len(during(l.minor, false)), round(served), round(equal))
	// A client of one node may be asked to send again; the one that broadcasts never is.
	failed := func(s clustertest.Sent) bool { return !s.Acknowledged && !s.Promised }
	for _, s := range sent(l.major, failed) {
		t.Errorf("upload %s/%s by the majority failed after %v: %s", s.User, s.Name, s.Took(), s.Failure)
	}
	n.expectAll(t, l)
}

// longestPause returns the longest time in a fault without an acknowledgement.
func longestPause(list []clustertest.Sent, from, to time.Time) (longest time.Duration) {
	slices.SortFunc(list, func(a, b clustertest.Sent) int { return a.Ended.Compare(b.Ended) })
	for _, s := range list {
		longest = max(longest, s.Ended.Sub(from))
		from = s.Ended
	}
	return max(longest, to.Sub(from))
}

func longestUpload(list []clustertest.Sent) (longest time.Duration) {
	for _, s := range list {
		longest = max(longest, s.Took())
	}
	return longest
}

// expectAll expects the invariants: every acknowledged image reads back through every node and is listed, and
// files, records and nodes agree.
func (n *network) expectAll(t *testing.T, l *loads) {
	t.Helper()
	for _, one := range l.all() {
		all := one.Sent()
		listed := map[string]bool{}
		for _, i := range n.c.List(t, 1, all[0].User) {
			listed[i.Name] = true
		}
		for _, s := range all {
			if !s.Acknowledged {
				continue
			}
			if !listed[s.Name] {
				t.Errorf("%s/%s was acknowledged and is not listed", s.User, s.Name)
			}
			n.c.ExpectImage(t, s.User, s.Name, s.Image(), n.c.IDs()...)
		}
	}
	n.c.ExpectSettled(t)
	n.c.ExpectNoPlaintext(t)
	n.c.ExpectUniqueKeys(t)
}

package cluster_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"imgcluster/cluster/bootstrap"
	"imgcluster/cluster/client"
	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/image"
	"imgcluster/config"
	"imgcluster/crypto"
)

// put stores an image of alice.
func put(t *testing.T, cl *client.Client, name string, body []byte) image.Receipt {
	t.Helper()
	r, err := cl.Put(t.Context(), uploadOf(name, body))
	if err != nil {
		t.Fatal(err)
	}
	return r.Receipt
}

// masterKey makes the key where nodes do not make it, since they listen beyond loopback.
func masterKey(t *testing.T, path string) {
	t.Helper()
	if _, err := crypto.LoadOrCreateMasterKey(path); err != nil {
		t.Fatal(err)
	}
}

// TestIPv6 runs a cluster on ::1, through a restart, and adds a node.
func TestIPv6(t *testing.T) {
	if l, err := net.Listen("tcp", "[::1]:0"); err != nil {
		t.Skip("no IPv6: ", err)
	} else {
		l.Close()
	}
	c := clustertest.Start(t, clustertest.Options{Change: func(c *config.Config) {
		for i := range c.Cluster.Nodes {
			c.Cluster.Nodes[i].Host = "::1"
		}
	}})
	bodies := map[string][]byte{}
	for i, d := range []client.Delivery{client.Broadcast, client.Relay} {
		name := fmt.Sprint(d)
		bodies[name] = clustertest.Image(uint64(i), 300_000)
		put(t, c.Client(t, d), name, bodies[name])
	}
	c.Restart(c.IDs()...)
	four := c.Grow()
	four.Host = "::1"
	c.Config.Cluster.Nodes[3] = four
	if _, err := c.Client(t, client.Relay).ChangeMember(t.Context(), addition(four)); err != nil {
		t.Fatal(err)
	}
	c.Start(four.ID)
	c.WaitReady(c.IDs()...)
	for name, body := range bodies {
		c.ExpectImage(t, "alice", name, body, c.IDs()...)
	}
	m := awaitMembers(t, c.Client(t, client.Relay), 4)
	if m[3].API != four.APIAddr() || !strings.HasPrefix(m[3].Raft, "[::1]:") {
		t.Errorf("member %+v", m[3])
	}
}

// forward forwards connections to one address to another, as NAT does.
func forward(t *testing.T, from, to string) {
	t.Helper()
	l, err := net.Listen("tcp", from)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			pipe := func(to, from net.Conn) {
				io.Copy(to, from)
				to.Close()
				from.Close()
			}
			go pipe(in, out)
			go pipe(out, in)
		}
	}()
}

// TestListenElsewhere runs nodes that listen on other ports and addresses than those in cluster.nodes. What a
// node listens on may change from one start to the next; its address in cluster.nodes may not.
func TestListenElsewhere(t *testing.T) {
	c := clustertest.New(t, clustertest.Options{Secured: true}) // so is a node beyond loopback
	masterKey(t, c.Config.Local.MasterKeyFile)
	ports := clustertest.FreePorts(t, 4)
	listen := map[image.NodeID]string{
		1: "0.0.0.0",
		2: fmt.Sprintf("0.0.0.0:%d:%d", ports[0], ports[1]),
		3: config.NodeHost,
	}
	two := c.Config.Cluster.Nodes[1]
	forward(t, two.APIAddr(), fmt.Sprintf("127.0.0.1:%d", ports[0]))
	forward(t, two.RaftAddr(), fmt.Sprintf("127.0.0.1:%d", ports[1]))
	start := func(id image.NodeID) error {
		return c.TryStart(with(c, func(cfg *config.Config) { cfg.Local.Listen = listen[id] }), id)
	}
	for _, id := range c.IDs() {
		if err := start(id); err != nil {
			t.Fatal(err)
		}
	}
	c.WaitReady(c.IDs()...)
	body := clustertest.Image(1, 300_000)
	put(t, c.Client(t, client.Broadcast), "a.png", body)
	c.ExpectImage(t, "alice", "a.png", body, c.IDs()...)

	c.Stop(1)
	host := c.Config.Cluster.Nodes[0]
	listen[1] = fmt.Sprintf("*:%d:%d", ports[2], ports[3])
	forward(t, host.APIAddr(), fmt.Sprintf("127.0.0.1:%d", ports[2]))
	forward(t, host.RaftAddr(), fmt.Sprintf("127.0.0.1:%d", ports[3]))
	if err := start(1); err != nil {
		t.Fatal(err)
	}
	c.WaitReady(c.IDs()...)
	c.ExpectImage(t, "alice", "a.png", body, c.IDs()...)
}

// TestRaftPortClosed forwards the API port of a node and not the Raft port: the others log that, once.
func TestRaftPortClosed(t *testing.T) {
	t.Parallel() // most of it is waiting
	core, logs := observer.New(zap.InfoLevel)
	c := clustertest.New(t, clustertest.Options{Log: core})
	masterKey(t, c.Config.Local.MasterKeyFile)
	ports := clustertest.FreePorts(t, 2)
	two := c.Config.Cluster.Nodes[1]
	forward(t, two.APIAddr(), fmt.Sprintf("127.0.0.1:%d", ports[0]))
	c.Start(1, 3)
	listen := fmt.Sprintf("127.0.0.1:%d:%d", ports[0], ports[1])
	if err := c.TryStart(with(c, func(cfg *config.Config) { cfg.Local.Listen = listen }), 2); err != nil {
		t.Fatal(err)
	}
	closed := func() *observer.ObservedLogs {
		return logs.FilterMessage("peer is up, but not reached at its raft_port")
	}
	clustertest.Poll(t, "the others to log it", func() bool { return closed().Len() == 2 })
	forward(t, two.RaftAddr(), fmt.Sprintf("127.0.0.1:%d", ports[1]))
	c.WaitReady(c.IDs()...)
	again := func() int { return logs.FilterMessage("peer is reached at its raft_port again").Len() }
	clustertest.Poll(t, "the others to log that it is reached", func() bool { return again() == 2 })
	if n := closed().FilterField(zap.String("address", two.RaftAddr())).Len(); n != 2 || closed().Len() != 2 {
		t.Errorf("%d warnings, %d of node 2", closed().Len(), n)
	}
}

// TestListenRefused: a node that cannot listen on its address names the setting to change.
func TestListenRefused(t *testing.T) {
	c := clustertest.New(t, clustertest.Options{})
	for name, x := range map[string]struct{ host, listen, hint string }{
		"unknown name":          {"no-such-host.invalid", config.NodeHost, "set node.listen"},
		"another host's":        {"192.0.2.1", config.NodeHost, "set node.listen"},
		"another one to listen": {"127.0.0.1", "192.0.2.1", "correct node.listen"},
		"unknown one to listen": {"127.0.0.1", "no-such-host.invalid", "correct node.listen"},
	} {
		cfg := with(c, func(cfg *config.Config) {
			cfg.Cluster.Nodes[0].Host = x.host
			cfg.Local.Listen = x.listen
		})
		masterKey(t, cfg.Local.MasterKeyFile)
		err := c.TryStart(cfg, 1)
		var r *bootstrap.RefusedError
		if !errors.As(err, &r) || !strings.Contains(r.Hint(), x.hint) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestListenOnLoopbackOnly: a node warns when it listens on a loopback address while others are elsewhere.
func TestListenOnLoopbackOnly(t *testing.T) {
	for name, x := range map[string]struct {
		others, listen string
		warned         bool
	}{
		"others elsewhere":       {"192.0.2.%d", config.NodeHost, true},
		"others unknown here":    {"no-such-host-%d.invalid", config.NodeHost, true},
		"all here":               {"127.0.0.%d", config.NodeHost, false},
		"on all, others not":     {"192.0.2.%d", "0.0.0.0", false},
		"here, others elsewhere": {"192.0.2.%d", "127.0.0.1", true},
	} {
		core, logs := observer.New(zap.WarnLevel)
		c := clustertest.New(t, clustertest.Options{Log: core, Change: func(c *config.Config) {
			c.Cluster.Nodes[0].Host = "localhost"
			c.Local.Listen = x.listen
			c.Client.Dial = 200 * time.Millisecond
			for i := range c.Cluster.Nodes[1:] {
				c.Cluster.Nodes[i+1].Host = fmt.Sprintf(x.others, i+2)
			}
		}})
		masterKey(t, c.Config.Local.MasterKeyFile)
		if err := c.TryStart(c.Config, 1); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		c.Stop(1)
		warnings := logs.FilterMessage("no other host reaches this node: it listens on a loopback address").All()
		if (len(warnings) == 1) != x.warned || x.warned && warnings[0].ContextMap()["hint"] == "" {
			t.Errorf("%s: %v", name, warnings)
		}
		unknown := logs.FilterMessage("a peer's host does not resolve here").Len()
		if most := map[bool]int{true: 2, false: 0}[strings.HasSuffix(x.others, "invalid")]; unknown > most {
			t.Errorf("%s: %d times a peer is unknown", name, unknown)
		}
	}
}

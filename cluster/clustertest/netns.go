package clustertest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// Network is an isolated Ethernet: every host is a network namespace with a veth link to a bridge, which has
// a namespace too. It has no route to or from the network of the machine. It is removed when the test ends.
//
// Faults act on the packets that come in at a host (by classic BPF programs of tc) or leave it, or the bridge
// to it (by token buckets). They accumulate until Heal.
type Network struct {
	t     testing.TB
	name  string // of the bridge's namespace; those of hosts begin with it
	hosts map[netip.Addr]*host
}

// host is one namespace with one address, and the faults of its link.
type host struct {
	addr  netip.Addr
	name  string   // of the namespace
	port  string   // the bridge's end of its link
	ns    *os.File // the namespace
	drop  []netip.Addr
	large []netip.Addr // whose packets of more than smallBytes are dropped
	loss  int          // percent
}

const (
	netnsDir    = "/run/netns" // where iproute2 keeps the names
	netnsPrefix = "imgctest-"  // of all namespaces of all tests
	networkBits = 16
	smallBytes  = 600 // largest packet that passes a black hole of large ones

	packetsAtOnce  = "44"        // of 64 KiB
	cardQueueBytes = 1000 * 1514 // the packets that Linux queues for a network card
)

// envNetwork is the variable that, set to "full", selects all tests of networks and makes them fail, not
// skip, where namespaces are not allowed.
const envNetwork = "IMGCLUSTER_TEST_NETWORK"

// FullNetwork reports whether all tests of networks are selected, also those that take long.
func FullNetwork() bool { return os.Getenv(envNetwork) == "full" }

var networks atomic.Int64

// NewNetwork makes hosts with the given addresses, all of one /16. Where the machine does not allow it the
// test is skipped, with FullNetwork it fails.
func NewNetwork(t testing.TB, addrs ...netip.Addr) *Network {
	t.Helper()
	n := &Network{
		t: t, hosts: map[netip.Addr]*host{},
		name: fmt.Sprintf("%s%d-%d", netnsPrefix, os.Getpid(), networks.Add(1)),
	}
	removeStale()
	t.Cleanup(n.remove)
	if err := n.make(addrs); err != nil {
		if FullNetwork() {
			t.Fatalf("network namespaces are required here: %v", err)
		}
		t.Skipf("this machine does not allow network namespaces (root and iproute2 are needed): %v", err)
	}
	return n
}

// removeStale removes, once, the namespaces of tests whose process has ended. This process has made none yet.
var removeStale = sync.OnceFunc(func() {
	paths, _ := filepath.Glob(filepath.Join(netnsDir, netnsPrefix+"*")) // the pattern is good
	for _, path := range paths {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(path), netnsPrefix), "-")
		number, err := strconv.Atoi(pid)
		if err == nil && number != os.Getpid() && !errors.Is(unix.Kill(number, 0), unix.ESRCH) {
			continue
		}
		run("", "ip", "netns", "del", filepath.Base(path)) // another test may do so at the same time
	}
})

// make sets up the bridge, the hosts and their links. Every host has the others' hardware addresses, so that
// address resolution does not interfere with faults.
func (n *Network) make(addrs []netip.Addr) error {
	names := []string{"netns add " + n.name}
	links := []string{"link add br0 type bridge", "link set br0 up"}
	for i, a := range addrs {
		h := &host{addr: a, name: fmt.Sprintf("%s-%d", n.name, i+1), port: fmt.Sprintf("port%d", i)}
		n.hosts[a] = h
		names = append(names, "netns add "+h.name)
		links = append(links,
			fmt.Sprintf("link add %s type veth peer name eth0 netns %s", h.port, h.name),
			fmt.Sprintf("link set %s master br0 up gso_max_segs 1", h.port))
	}
	if err := run(strings.Join(names, "\n"), "ip", "-batch", "-"); err != nil {
		return err
	}
	if err := run(strings.Join(links, "\n"), "ip", "-n", n.name, "-batch", "-"); err != nil {
		return err
	}
	for _, h := range n.hosts {
		if err := n.connect(h); err != nil {
			return err
		}
	}
	return nil
}

func (n *Network) connect(h *host) (err error) {
	if h.ns, err = os.Open(filepath.Join(netnsDir, h.name)); err != nil {
		return err
	}
	// Packets are as small as on a wire (gso_max_segs): otherwise each lost one would be of up to 64 KiB.
	setup := []string{
		"link set lo up",
		fmt.Sprintf("link set eth0 address %s gso_max_segs 1 up", hardware(h.addr)),
		fmt.Sprintf("addr add %s/%d dev eth0", h.addr, networkBits),
	}
	for a := range n.hosts {
		if a != h.addr {
			setup = append(setup,
				fmt.Sprintf("neigh replace %s lladdr %s dev eth0 nud permanent", a, hardware(a)))
		}
	}
	if err := run(strings.Join(setup, "\n"), "ip", "-n", h.name, "-batch", "-"); err != nil {
		return err
	}
	if err := run("", "tc", "-n", h.name, "qdisc", "add", "dev", "eth0", "clsact"); err != nil {
		return err
	}
	return h.filter()
}

// remove removes the network, also an incomplete one.
func (n *Network) remove() {
	names := []string{n.name}
	for _, h := range n.hosts {
		names = append(names, h.name)
		if h.ns != nil {
			h.ns.Close()
		}
	}
	for _, name := range names {
		if _, err := os.Stat(filepath.Join(netnsDir, name)); err != nil {
			continue // not made
		}
		if err := run("", "ip", "netns", "del", name); err != nil {
			n.t.Error(err)
		}
	}
}

// Name returns the name of a host's namespace.
func (n *Network) Name(at netip.Addr) string { return n.host(at).name }

// Command returns a command that runs on a host.
func (n *Network) Command(at netip.Addr, name string, args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", n.host(at).name, name}, args...)...)
}

// DialFrom connects from a host to a TCP address, which must be a literal one.
func (n *Network) DialFrom(ctx context.Context, from netip.Addr, address string) (conn net.Conn, err error) {
	err = n.host(from).inside(func() error {
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", address)
		return err
	})
	return conn, err
}

// dialOwn connects to a host from that host itself, so that faults of the network have no effect.
func (n *Network) dialOwn(ctx context.Context, _, address string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	return n.DialFrom(ctx, to.Addr(), address)
}

func (n *Network) host(a netip.Addr) *host {
	h := n.hosts[a]
	if h == nil {
		n.t.Fatalf("%v is not a host of the network", a)
	}
	return h
}

// Partition cuts the hosts of one side off from those of the other.
func (n *Network) Partition(side, other []netip.Addr) {
	n.t.Helper()
	n.OneWay(side, other)
	n.OneWay(other, side)
}

// OneWay drops every packet from the hosts from to the hosts to.
func (n *Network) OneWay(from, to []netip.Addr) {
	n.t.Helper()
	n.change(to, func(h *host) { h.drop = append(h.drop, from...) })
}

// BlackHole drops packets of more than smallBytes from the hosts from to the hosts to. Handshakes and
// heartbeats pass, bodies do not.
func (n *Network) BlackHole(from, to []netip.Addr) {
	n.t.Helper()
	n.change(to, func(h *host) { h.large = append(h.large, from...) })
}

// Loss drops this percentage of the packets that come to the hosts, at random.
func (n *Network) Loss(percent int, at ...netip.Addr) {
	n.t.Helper()
	n.change(at, func(h *host) { h.loss = percent })
}

// Rate limits the traffic that leaves each of the hosts, in Mbit/s.
func (n *Network) Rate(mbit int, at ...netip.Addr) {
	n.t.Helper()
	for _, a := range at {
		n.must(limit(n.host(a).name, "eth0", mbit, 0))
	}
}

// Link gives the link of each of the hosts this bandwidth, in Mbit/s, in either direction. From then on the
// kernel hands packets of one stream over many at once, as network cards do: one at a time, they take more
// CPU than a fast link leaves. What a host sends waits on it as for a card of this speed, and is not dropped
// there: TCP bounds what it has in that queue. Its congestion control is Linux's default, cubic, whatever
// this machine's is: BBR takes the first round trip of a network in memory for that of the link.
func (n *Network) Link(mbit int, at ...netip.Addr) {
	n.t.Helper()
	for _, a := range at {
		h := n.host(a)
		n.must(run("", "ip", "-n", h.name, "link", "set", "eth0", "gso_max_segs", packetsAtOnce))
		n.must(limit(h.name, "eth0", mbit, cardQueueBytes))
		neighbours := netip.PrefixFrom(a, networkBits).Masked().String()
		n.must(run("", "ip", "-n", h.name, "route", "replace", neighbours, "dev", "eth0", "src", a.String(),
			"congctl", "cubic"))
		n.must(run("", "ip", "-n", n.name, "link", "set", h.port, "gso_max_segs", packetsAtOnce))
		n.must(limit(n.name, h.port, mbit, 0))
	}
}

// limit limits what leaves a device of a namespace. What comes in faster waits in a queue of this many bytes,
// or of 100 ms where that is more; what does not fit is dropped. At high rates the kernel's timers are too
// late for a small burst.
func limit(namespace, device string, mbit, queue int) error {
	const burstMin, burstMillis, queueMillis = 16_000, 1, 100
	bytesMilli := mbit * 1_000_000 / 8 / 1000
	burst := max(burstMin, burstMillis*bytesMilli)
	return run("", "tc", "-n", namespace, "qdisc", "replace", "dev", device, "root",
		"tbf", "rate", fmt.Sprintf("%dmbit", mbit), "burst", strconv.Itoa(burst),
		"limit", strconv.Itoa(burst+max(queue, queueMillis*bytesMilli)))
}

// Heal ends all faults.
func (n *Network) Heal() {
	n.t.Helper()
	for a, h := range n.hosts {
		n.change([]netip.Addr{a}, func(h *host) {
			h.drop = nil
			h.large = nil
			h.loss = 0
		})
		run("", "tc", "-n", h.name, "qdisc", "del", "dev", "eth0", "root") // there may be none
		run("", "tc", "-n", n.name, "qdisc", "del", "dev", h.port, "root")
	}
}

func (n *Network) change(at []netip.Addr, change func(*host)) {
	n.t.Helper()
	for _, a := range at {
		h := n.host(a)
		change(h)
		n.must(h.filter())
	}
}

func (n *Network) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

// filter replaces the host's filter in the kernel, atomically, by one with its current faults.
func (h *host) filter() error {
	return run("", "tc", "-n", h.name, "filter", "replace", "dev", "eth0", "ingress",
		"protocol", "all", "pref", "1", "handle", "1",
		"bpf", "da", "bytecode", program(h.drop, h.large, h.loss))
}

// The instructions of classic BPF in use, and the results of a program of tc.
const (
	bpfLoadWord, bpfLoadLength, bpfReturn = 0x20, 0x80, 0x06
	bpfEqual, bpfGreater, bpfAtLeast      = 0x15, 0x25, 0x35

	bpfRandom       = 0xfffff000 + 56 // SKF_AD_OFF + SKF_AD_RANDOM: load a random word
	senderAt        = 8               // the last four bytes of the sender's hardware address
	tcPass, tcDrop  = 0, 2
	bpfInstructions = 255 // reach of a jump
)

// program returns a BPF program in the text form of tc. It drops packets from the senders in drop, large
// packets from those in large, and loss percent of the others at random.
func program(drop, large []netip.Addr, loss int) string {
	type instruction struct {
		code    int
		yes, no int // instructions to skip; toDrop stands for a jump to the end
		k       uint32
	}
	const toDrop = -1
	list := []instruction{{code: bpfLoadWord, k: senderAt}}
	for _, a := range drop {
		list = append(list, instruction{bpfEqual, toDrop, 0, sender(a)})
	}
	for _, a := range large {
		list = append(list,
			instruction{bpfEqual, 0, 3, sender(a)},
			instruction{code: bpfLoadLength},
			instruction{bpfGreater, toDrop, 0, smallBytes},
			instruction{code: bpfLoadWord, k: senderAt})
	}
	if loss > 0 {
		list = append(list,
			instruction{code: bpfLoadWord, k: bpfRandom},
			instruction{bpfAtLeast, 0, toDrop, uint32(uint64(loss) << 32 / 100)})
	}
	list = append(list, instruction{code: bpfReturn, k: tcPass}, instruction{code: bpfReturn, k: tcDrop})
	if len(list) > bpfInstructions {
		panic("too many faults for one program")
	}
	text := strconv.Itoa(len(list))
	for i, in := range list {
		for _, jump := range []*int{&in.yes, &in.no} {
			if *jump == toDrop {
				*jump = len(list) - 1 - (i + 1)
			}
		}
		text += fmt.Sprintf(",%d %d %d %d", in.code, in.yes, in.no, in.k)
	}
	return text
}

// hardware returns the hardware address of a host: a local one that ends in its IPv4 address, so that one
// word of a packet of any protocol identifies the sender.
func hardware(a netip.Addr) net.HardwareAddr {
	ip := a.As4()
	return slices.Concat([]byte{2, 0}, ip[:])
}

func sender(a netip.Addr) uint32 {
	ip := a.As4()
	return binary.BigEndian.Uint32(ip[:])
}

// run runs a command with this input and waits for it.
func run(input, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

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
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// Network is an Ethernet of its own: every host is a network namespace with one veth cable to a
// bridge, which is in a namespace too. Nothing of it can be reached from the machine's own network,
// nor the other way. It is gone when the test ends.
//
// A fault is made where packets come in at a host (by classic BPF programs of tc) or leave it (by a
// token bucket). Several faults add up until Heal.
type Network struct {
	t     testing.TB
	name  string // of the bridge's namespace; those of hosts begin with it
	hosts map[netip.Addr]*host
}

// host is one namespace with one address, and what is wrong with its cable.
type host struct {
	addr  netip.Addr
	name  string   // of the namespace
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
)

// envNetwork names the variable that, when it is "full", asks for all tests of networks, and makes a
// machine without namespaces a failure, not a skip.
const envNetwork = "IMGCLUSTER_TEST_NETWORK"

// FullNetwork tells whether all tests of networks are asked for, also those that take long.
func FullNetwork() bool { return os.Getenv(envNetwork) == "full" }

var networks atomic.Int64

// NewNetwork makes hosts with the given addresses, all of one /16. The test is skipped where the
// machine does not allow it, unless FullNetwork.
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

// removeStale removes, once, what tests left behind whose process is no more. One that runs in this
// process has made nothing yet.
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

// make sets up the bridge, the hosts and their cables. Every host knows the others' hardware
// addresses, so that no fault is blurred by address resolution.
func (n *Network) make(addrs []netip.Addr) error {
	names := []string{"netns add " + n.name}
	cables := []string{"link add br0 type bridge", "link set br0 up"}
	for i, a := range addrs {
		h := &host{addr: a, name: fmt.Sprintf("%s-%d", n.name, i+1)}
		n.hosts[a] = h
		names = append(names, "netns add "+h.name)
		cables = append(cables,
			fmt.Sprintf("link add port%d type veth peer name eth0 netns %s", i, h.name),
			fmt.Sprintf("link set port%d master br0 up gso_max_segs 1", i))
	}
	if err := run(strings.Join(names, "\n"), "ip", "-batch", "-"); err != nil {
		return err
	}
	if err := run(strings.Join(cables, "\n"), "ip", "-n", n.name, "-batch", "-"); err != nil {
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
	// Packets stay as small as on a wire (gso_max_segs): else one that is lost takes 64 KiB with it.
	setup := []string{
		"link set lo up",
		fmt.Sprintf("link set eth0 address %s gso_max_segs 1 up", hardware(h.addr)),
		fmt.Sprintf("addr add %s/%d dev eth0", h.addr, networkBits),
	}
	for a := range n.hosts {
		if a != h.addr {
			setup = append(setup, fmt.Sprintf("neigh replace %s lladdr %s dev eth0 nud permanent", a, hardware(a)))
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

// remove ends the network, whatever of it there is.
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

// Command returns a command that runs at a host.
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

// dialOwn connects to a host from that host itself, for which the network does not matter.
func (n *Network) dialOwn(ctx context.Context, _, address string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	return n.DialFrom(ctx, to.Addr(), address)
}

// inside calls fn on a thread that is in the host's namespace: sockets that fn makes are the host's.
func (h *host) inside(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		own, err := os.Open("/proc/thread-self/ns/net")
		if err == nil {
			defer own.Close()
			err = unix.Setns(int(h.ns.Fd()), unix.CLONE_NEWNET)
		}
		if err != nil {
			done <- fmt.Errorf("enter namespace %s: %w", h.name, err)
			return // and the thread with it
		}
		err = fn()
		if unix.Setns(int(own.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

func (n *Network) host(a netip.Addr) *host {
	h := n.hosts[a]
	if h == nil {
		n.t.Fatalf("%v is no host of the network", a)
	}
	return h
}

// Partition cuts the hosts of one side off from those of the other.
func (n *Network) Partition(side, other []netip.Addr) {
	n.t.Helper()
	n.OneWay(side, other)
	n.OneWay(other, side)
}

// OneWay loses every packet on its way from these hosts to those.
func (n *Network) OneWay(from, to []netip.Addr) {
	n.t.Helper()
	n.change(to, func(h *host) { h.drop = append(h.drop, from...) })
}

// BlackHole loses the large packets on their way from these hosts to those. Connections can be made
// and signs of life pass, but bodies do not.
func (n *Network) BlackHole(from, to []netip.Addr) {
	n.t.Helper()
	n.change(to, func(h *host) { h.large = append(h.large, from...) })
}

// Loss loses this share of the packets that come to the hosts, by chance.
func (n *Network) Loss(percent int, at ...netip.Addr) {
	n.t.Helper()
	n.change(at, func(h *host) { h.loss = percent })
}

// Rate limits what leaves each of the hosts to so many Mbit/s.
func (n *Network) Rate(mbit int, at ...netip.Addr) {
	n.t.Helper()
	for _, a := range at {
		n.must(run("", "tc", "-n", n.host(a).name, "qdisc", "replace", "dev", "eth0", "root",
			"tbf", "rate", fmt.Sprintf("%dmbit", mbit), "burst", "16kb", "latency", "100ms"))
	}
}

// Heal ends all faults.
func (n *Network) Heal() {
	n.t.Helper()
	for a, h := range n.hosts {
		n.change([]netip.Addr{a}, func(h *host) { h.drop, h.large, h.loss = nil, nil, 0 })
		run("", "tc", "-n", h.name, "qdisc", "del", "dev", "eth0", "root") // there may be none
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

// filter puts the host's faults into the kernel, in place of the former ones at once.
func (h *host) filter() error {
	return run("", "tc", "-n", h.name, "filter", "replace", "dev", "eth0", "ingress", "protocol", "all", "pref", "1", "handle", "1",
		"bpf", "da", "bytecode", program(h.drop, h.large, h.loss))
}

// The instructions of classic BPF that are used, and what a program of tc returns.
const (
	bpfLoadWord, bpfLoadLength, bpfReturn = 0x20, 0x80, 0x06
	bpfEqual, bpfGreater, bpfAtLeast      = 0x15, 0x25, 0x35

	bpfRandom       = 0xfffff000 + 56 // SKF_AD_OFF + SKF_AD_RANDOM: load a random word
	senderAt        = 8               // the last four bytes of the sender's hardware address
	tcPass, tcDrop  = 0, 2
	bpfInstructions = 255 // that a jump reaches
)

// program is a BPF program in the text form of tc: it drops packets from some senders, large packets
// from others, and of the rest this share.
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

// hardware is the hardware address of a host: a local one that ends in its IPv4 address, so that one
// word of a packet, of whatever protocol, tells who sent it.
func hardware(a netip.Addr) net.HardwareAddr {
	ip := a.As4()
	return slices.Concat([]byte{2, 0}, ip[:])
}

func sender(a netip.Addr) uint32 {
	ip := a.As4()
	return binary.BigEndian.Uint32(ip[:])
}

// run runs a command to its end, with this input.
func run(input, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

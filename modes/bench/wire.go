//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// traffic counts bytes of TCP streams, in both directions.
type traffic struct{ client, nodes int64 }

func (t *traffic) add(o traffic, sign int64) {
	t.client += sign * o.client
	t.nodes += sign * o.nodes
}

// wireCount counts what the connections to a target's ports carry, at the servers' sockets: of those that end
// by the kernel's notice of it, of the others by what they had carried at the beginning and at the end.
type wireCount struct {
	t       *target
	watches []*watch // of each network namespace
	first   traffic
}

// watch is the kernel's notices of sockets that end, as ss prints them.
type watch struct {
	at  machine
	cmd *exec.Cmd
	out bytes.Buffer
}

// eventsGrace is how long the kernel may take to give notice of a socket that has ended.
const eventsGrace = 100 * time.Millisecond

// watchWire begins to count. It returns nil where this process may not: the notices are for root.
func (t *target) watchWire(ctx context.Context) (*wireCount, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	w := &wireCount{t: t}
	for _, m := range t.networks() {
		one := &watch{at: m, cmd: m.command(ctx, "stdbuf", "-oL", "ss", "-EtinHO")}
		one.cmd.Stdout = &one.out
		if err := one.cmd.Start(); err != nil {
			w.end()
			return nil, err
		}
		w.watches = append(w.watches, one)
		if err := poll(ctx, one.subscribed); err != nil {
			w.end()
			return nil, err
		}
	}
	var err error
	w.first, err = t.open(ctx)
	return w, err
}

// subscribed returns nil once the kernel gives notice to ss.
func (w *watch) subscribed() error {
	sockets, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/netlink", w.cmd.Process.Pid))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(sockets)) {
		f := strings.Fields(line) // sk Eth Pid Groups ...
		if len(f) > 3 && f[1] == fmt.Sprint(unix.NETLINK_SOCK_DIAG) && f[2] == fmt.Sprint(w.cmd.Process.Pid) &&
			strings.Trim(f[3], "0") != "" {
			return nil
		}
	}
	return errors.New("ss gets no notice of sockets that end")
}

// end returns what was carried since the beginning. A nil one has counted nothing.
func (w *wireCount) end() (sum traffic, err error) {
	if w == nil {
		return sum, nil
	}
	sum, err = w.t.open(context.Background())
	sum.add(w.first, -1)
	time.Sleep(eventsGrace)
	for _, one := range w.watches {
		one.cmd.Process.Kill()
		one.cmd.Wait()
		for line := range bytes.Lines(one.out.Bytes()) {
			sum.add(w.t.carried(one.at, line), 1)
		}
	}
	return sum, err
}

// networks returns a machine of each network namespace of the servers.
func (t *target) networks() (all []machine) {
	seen := map[string]bool{}
	for _, s := range t.servers {
		if !seen[s.netns] {
			all = append(all, s.machine)
		}
		seen[s.netns] = true
	}
	return all
}

// open returns what the open connections have carried.
func (t *target) open(ctx context.Context) (sum traffic, err error) {
	for _, m := range t.networks() {
		out, err := m.command(ctx, "ss", "-tinHO", "state", "connected").Output()
		if err != nil {
			return sum, fmt.Errorf("ss: %w", err)
		}
		for line := range bytes.Lines(out) {
			sum.add(t.carried(m, line), 1)
		}
	}
	return sum, nil
}

var (
	localPort     = regexp.MustCompile(`^\S+ +\d+ +\d+ +\S+:(\d+) `)
	bytesSent     = regexp.MustCompile(` bytes_sent:(\d+)`)
	bytesReceived = regexp.MustCompile(` bytes_received:(\d+)`)
)

// carried returns what a socket has carried, by a line of ss, if it is one of a server on this machine.
func (t *target) carried(at machine, line []byte) traffic {
	port, n := number(localPort, line), number(bytesSent, line)+number(bytesReceived, line)
	for _, s := range t.servers {
		switch {
		case s.netns != at.netns || port == 0:
		case port == int64(s.api):
			return traffic{client: n}
		case port == int64(s.raft):
			return traffic{nodes: n}
		}
	}
	return traffic{}
}

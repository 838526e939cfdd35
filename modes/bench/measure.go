//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// The figures of a round, by their names in JSON. Bytes are for each byte of an image.
const (
	perSecond   = "per_s"
	toBase      = "to_base" // perSecond to that of the bare broadcast or the file server in the same round
	p50         = "p50_ms"
	p99         = "p99_ms"
	clientCPU   = "client_cpu_ms" // of one image or range
	nodesCPU    = "nodes_cpu_ms"
	cpuToPlain  = "cpu_to_plain" // CPU of client and nodes to that without TLS in the same round
	clientPeak  = "client_peak_bytes"
	nodesPeak   = "nodes_peak_bytes" // of all together
	nodePeak    = "node_peak_bytes"  // of the largest
	clientWire  = "client_wire"      // between client and nodes
	nodesWire   = "nodes_wire"       // between nodes
	diskPerByte = "disk"
)

// Figures are those of one cell in one round.
type Figures map[string]float64

// run measures the cell once.
func (c Cell) run(ctx context.Context, program, dir string, seconds float64) (Figures, error) {
	t, err := c.start(ctx, program, dir)
	if t != nil {
		defer t.stop()
	}
	if err != nil {
		return nil, errors.Join(err, t.said())
	}
	t.work.Cell, t.work.Seconds = c, seconds
	f, _, err := t.measure(ctx, loopback()[0])
	return f, errors.Join(err, t.said())
}

// start starts the cell's target and stores what is to be read.
func (c Cell) start(ctx context.Context, program, dir string) (*target, error) {
	switch c.On {
	case onBare:
		return startBare(ctx, c, dir)
	case onFiles:
		return startFiles(ctx, c, dir)
	}
	t, err := startCluster(ctx, program, c, dir, loopback())
	if err != nil || c.Op == opPut {
		return t, err
	}
	w := t.work
	w.Cell, w.Count = Cell{Op: opPut, Bytes: c.Bytes, Concurrency: imageCount}, imageCount
	p, err := prepare(ctx, loopback()[0], w)
	if err != nil {
		return t, err
	}
	defer p.end()
	d, err := p.begin()
	t.work.URLs = t.urls(d.Replicas, c.Elsewhere)
	return t, err
}

// said returns what servers that have ended said, as an error.
func (t *target) said() (err error) {
	for _, s := range t.servers {
		if s.ended() {
			err = errors.Join(err, fmt.Errorf("server %d has ended: %s", s.node.ID, &s.stderr))
		}
	}
	return err
}

// ended reports whether the process has ended: it is a zombie until stop waits for it.
func (s *server) ended() bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	return err != nil || bytes.HasPrefix(stat[bytes.LastIndexByte(stat, ')')+1:], []byte(" Z"))
}

// measure runs the work of a target from a machine and returns the figures.
func (t *target) measure(ctx context.Context, from machine) (Figures, done, error) {
	p, err := prepare(ctx, from, t.work)
	if err != nil {
		return nil, done{}, err
	}
	defer p.end()
	counted, err := t.watchWire(ctx)
	if err != nil {
		return nil, done{}, err
	}
	before := t.look()
	d, err := p.begin()
	after := t.look()
	carried, wireErr := counted.end()
	if err := errors.Join(err, wireErr); err != nil {
		return nil, d, err
	}
	if d.Count == 0 {
		return nil, d, errors.New("nothing was done")
	}
	count, size := float64(d.Count), float64(d.Bytes)
	f := Figures{
		perSecond:  count / d.Seconds,
		p50:        d.P50MS,
		p99:        d.P99MS,
		clientCPU:  d.CPUMS / count,
		nodesCPU:   (after.cpu - before.cpu) / count,
		clientPeak: float64(d.Peak),
		nodesPeak:  float64(after.peaks),
		nodePeak:   float64(after.peak),
	}
	if counted != nil {
		f[clientWire] = float64(carried.client) / size
	}
	if counted != nil && t.work.On == onCluster {
		f[nodesWire] = float64(carried.nodes) / size
	}
	if t.work.Op == opPut && (t.work.On == onCluster || t.work.Writers > 0) {
		f[diskPerByte] = float64(after.disk-before.disk) / size
	}
	return f, d, nil
}

// sight is the state of a target's processes.
type sight struct {
	cpu         float64 // ms
	peak, peaks int64   // of the largest process, and the sum
	disk        int64
}

func (t *target) look() (s sight) {
	for _, p := range t.servers {
		s.cpu += cpu(p.cmd.Process.Pid)
		_, peak := memory(p.cmd.Process.Pid)
		s.peak = max(s.peak, peak)
		s.peaks += peak
	}
	filepath.WalkDir(t.dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // files come and go
		}
		if info, err := d.Info(); err == nil {
			s.disk += 512 * info.Sys().(*syscall.Stat_t).Blocks
		}
		return nil
	})
	return s
}

// cpu returns the CPU time of a process so far in milliseconds, by the clock that the kernel keeps for it
// (clock_getcpuclockid).
func cpu(pid int) float64 {
	var t unix.Timespec
	if unix.ClockGettime(int32(^pid<<3|2), &t) != nil {
		return 0
	}
	return float64(t.Nano()) / 1e6
}

var (
	residentNow  = regexp.MustCompile(`VmRSS:\s+(\d+) kB`)
	residentPeak = regexp.MustCompile(`VmHWM:\s+(\d+) kB`)
)

// memory returns the resident bytes of a process, now and at most.
func memory(pid int) (now, peak int64) {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)) // of a process that has ended: none
	return 1024 * number(residentNow, status), 1024 * number(residentPeak, status)
}

// number returns the number that an expression finds first, 0 when it finds none.
func number(in *regexp.Regexp, text []byte) int64 {
	m := in.FindSubmatch(text)
	if m == nil {
		return 0
	}
	n, _ := strconv.ParseInt(string(m[1]), 10, 64) // digits
	return n
}

// resetPeak makes the kernel measure the peak of this process's memory from now on.
func resetPeak() { os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) }

func dial(addr string) error {
	c, err := net.Dial("tcp", addr)
	if err == nil {
		c.Close()
	}
	return err
}

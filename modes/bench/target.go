//go:build linux

package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"imgcluster/cluster/client"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
	"imgcluster/config"
)

const startTimeout = 30 * time.Second

// machine is where a process runs.
type machine struct {
	addr  netip.Addr
	netns string // its network namespace; empty: that of this process
}

// loopback are three machines that are this one.
func loopback() []machine {
	m := machine{addr: netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	return []machine{m, m, m}
}

// command returns a command that runs on the machine and is killed when this process ends.
func (m machine) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	if m.netns != "" {
		name, args = "ip", append([]string{"netns", "exec", m.netns, name}, args...)
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// part returns the command of a process of this program.
func (m machine) part(ctx context.Context, part string, args ...string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := m.command(ctx, self, args...)
	cmd.Env = append(os.Environ(), childEnv+"="+part)
	return cmd, nil
}

// server is a process of a target.
type server struct {
	machine
	cmd       *exec.Cmd
	node      client.Node
	api, raft int // ports; raft 0: it has none
	stderr    bytes.Buffer
}

// target is what a load goes to.
type target struct {
	servers []*server
	dir     string
	work    work // what the load must know of it
}

// start starts a process that listens.
func (t *target) start(s *server, cmd *exec.Cmd) error {
	s.cmd, cmd.Stderr = cmd, &s.stderr
	s.node = client.Node{
		ID:   image.NodeID(len(t.servers) + 1),
		Addr: netip.AddrPortFrom(s.addr, uint16(s.api)).String(),
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	t.servers = append(t.servers, s)
	t.work.Nodes = append(t.work.Nodes, s.node)
	return nil
}

// stop kills the processes and removes what they have written.
func (t *target) stop() {
	for _, s := range t.servers {
		s.cmd.Process.Kill()
		s.cmd.Wait()
	}
	os.RemoveAll(t.dir)
}

// poll tries until there is no error.
func poll(ctx context.Context, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// startBare starts three processes, some of which write what they get.
func startBare(ctx context.Context, c Cell, dir string) (*target, error) {
	t := &target{dir: dir}
	t.work.All = c.Writers > 0
	args := make([][]string, 3)
	for i := range c.Writers {
		args[i] = []string{filepath.Join(dir, fmt.Sprint("writer", i))}
		if err := os.MkdirAll(args[i][0], 0o700); err != nil {
			return t, err
		}
	}
	for i := c.Writers; i < len(args); i++ {
		args[i] = []string{""}
	}
	return t, t.startParts(ctx, onBare, args)
}

// startFiles starts a file server.
func startFiles(ctx context.Context, c Cell, dir string) (*target, error) {
	t := &target{dir: dir}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return t, err
	}
	if err := t.startParts(ctx, onFiles, [][]string{{dir, strconv.Itoa(c.Bytes)}}); err != nil {
		return t, err
	}
	for i := range imageCount {
		t.work.URLs = append(t.work.URLs, fmt.Sprintf("http://%s/%d", t.servers[0].node.Addr, i))
	}
	return t, nil
}

// startParts starts processes of this program, each with an address and these arguments.
func (t *target) startParts(ctx context.Context, part string, args [][]string) error {
	ports, err := config.FreePorts(len(args))
	if err != nil {
		return err
	}
	for i, more := range args {
		s := &server{machine: loopback()[i], api: ports[i]}
		addr := netip.AddrPortFrom(s.addr, uint16(s.api)).String()
		cmd, err := s.part(ctx, part, append([]string{addr}, more...)...)
		if err == nil {
			err = t.start(s, cmd)
		}
		if err == nil {
			err = poll(ctx, func() error { return dial(addr) })
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// startCluster starts a node on each machine.
func startCluster(
	ctx context.Context, program string, c Cell, dir string, machines []machine,
) (*target, error) {
	t := &target{dir: dir}
	ports, err := config.FreePorts(2 * len(machines))
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return t, err
	}
	settings := fmt.Sprintf("cluster:\n  replicas: %d\n  nodes:\n", c.Copies)
	for i, m := range machines {
		settings += fmt.Sprintf("    - {id: %d, host: %s, api_port: %d, raft_port: %d}\n",
			i+1, m.addr, ports[2*i], ports[2*i+1])
	}
	settings += fmt.Sprintf("security:\n  always: %t\n  insecure: %t\n", c.Secured, !c.Secured)
	path := filepath.Join(dir, "imgcluster.yaml")
	if err := os.WriteFile(path, []byte(settings), 0o600); err != nil {
		return t, err
	}
	// Environment variables of a user's cluster must not change this one.
	own := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "IMGCLUSTER_") })
	command := func(m machine, args ...string) *exec.Cmd {
		cmd := m.command(ctx, program, append([]string{"--config", path}, args...)...)
		cmd.Dir, cmd.Env = dir, own
		return cmd
	}
	if err := quietly(command(machines[0], "init")); err != nil {
		return t, err
	}
	for i, m := range machines {
		s := &server{machine: m, api: ports[2*i], raft: ports[2*i+1]}
		err := t.start(s, command(m, "server", "--id", strconv.Itoa(i+1), "--log-level", "error"))
		if err != nil {
			return t, err
		}
	}
	err = poll(ctx, func() error {
		out, err := command(machines[0], "status", "--json").Output()
		var status wire.ClusterStatus
		if err = cmp.Or(err, json.Unmarshal(out, &status)); err == nil && !status.Ready {
			err = fmt.Errorf("the cluster is not ready")
		}
		return err
	})
	if err != nil || !c.Secured {
		return t, err
	}
	out, err := command(machines[0], "key", "add", "--json", "--user", user, "--role", "write").Output()
	if err != nil {
		return t, err
	}
	var key wire.NewKey
	if err := json.Unmarshal(out, &key); err != nil {
		return t, err
	}
	t.work.KeyID, t.work.Secret = key.ID, key.Secret
	t.work.CA, err = os.ReadFile(filepath.Join(dir, "ca.crt"))
	return t, err
}

// quietly runs a command, whose output is a part of the error.
func quietly(cmd *exec.Cmd) error {
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return nil
}

// urls returns the addresses of stored images: at a node that has a copy, or at one that has none.
func (t *target) urls(stored map[string][]image.NodeID, elsewhere bool) (urls []string) {
	scheme := "http://"
	if t.work.CA != nil {
		scheme = "https://"
	}
	for i, name := range slices.Sorted(maps.Keys(stored)) {
		at := slices.DeleteFunc(slices.Clone(t.servers), func(s *server) bool {
			return slices.Contains(stored[name], s.node.ID) == elsewhere
		})
		urls = append(urls, scheme+at[i%len(at)].node.Addr+wire.ImagePath(user, name))
	}
	return urls
}

// process is a load process that waits for its beginning.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

// prepare starts a load process on a machine, and returns when it is ready to begin.
func prepare(ctx context.Context, m machine, w work) (*process, error) {
	cmd, err := m.part(ctx, "load")
	if err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	p := &process{cmd: cmd}
	if p.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = json.NewDecoder(out)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	if err := json.NewEncoder(p.in).Encode(w); err != nil {
		p.end()
		return nil, err
	}
	if _, err := p.result(); err != nil {
		p.end()
		return nil, err
	}
	return p, nil
}

// begin lets the load begin and returns what it measured at its end.
func (p *process) begin() (done, error) {
	if err := json.NewEncoder(p.in).Encode(true); err != nil {
		return done{}, err
	}
	return p.result()
}

func (p *process) result() (d done, err error) {
	if err = p.out.Decode(&d); err != nil {
		err = fmt.Errorf("the load process has ended: %w", err)
	}
	return d, err
}

// end closes the connections of the load, which keeps them until then.
func (p *process) end() {
	p.in.Close()
	p.cmd.Wait()
}

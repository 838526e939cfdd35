//go:build !windows

package modes

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"imgcluster/cluster/client"
	"imgcluster/cluster/image"
	"imgcluster/cluster/oserr"
	"imgcluster/cluster/wire"
	"imgcluster/config"
	"imgcluster/modes/stress"
	"imgcluster/modes/term"
)

func newDoctor(e *env) *cobra.Command {
	var id int
	cmd := &cobra.Command{
		Use:   "doctor [--id N]",
		Short: "Look at a machine before a node starts on it",
		Long: `Look at what a node needs of this machine: the configuration and the master key,
addresses and ports, room, inodes, open files and memory, the disk's speed and
how long an fsync takes, the clock; and at the other nodes: whether they are
reached, run the same version, and have the same time. What is wrong or slow is
said with what to do.

It changes nothing, and writes up to 64 MiB into the data directory's folder,
which it removes again. It may be run beside a node that runs.`,
		Example: "  imgcluster doctor\n  imgcluster doctor --id 2 --json",
		Args:    args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("id") {
				id = idUnknown
			}
			return runDoctor(cmd.Context(), e, id)
		},
	}
	cmd.Flags().IntVar(&id, "id", 0, "the node's ID in the configuration (default: of the node on this machine)")
	config.AddFlag(cmd.Flags(), "node.data_dir", "data-dir")
	config.AddFlag(cmd.Flags(), "node.listen", "listen")
	return cmd
}

func runDoctor(ctx context.Context, e *env, id int) error {
	cfg, err := e.settings() // prints no warnings: they are findings
	if err != nil {
		return err
	}
	if id, err = e.ownID(ctx, cfg, id); err != nil {
		return err
	}
	self, err := cfg.Node(image.NodeID(id))
	if err != nil {
		return err
	}
	checks := append(examine(ctx, cfg, self), e.examinePeers(ctx, cfg, self)...)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if e.json {
		err = e.printJSON(map[string]any{"node": id, "checks": checks})
	} else {
		err = e.writeFindings(checks)
	}
	failed := 0
	for _, c := range checks {
		if c.State == stress.CheckFail {
			failed++
		}
	}
	if failed > 0 && err == nil {
		err = &hintedError{
			fmt.Errorf("%s: node %d would not work here", term.Plural(failed, "check")+" failed", id),
			"do what the hints above say, and look again",
		}
	}
	return err
}

// writeFindings prints the checks, each with what to do.
func (e *env) writeFindings(checks []stress.Check) error {
	var out strings.Builder
	for _, c := range checks {
		writeChecks(&out, []stress.Check{c}, e.color(e.out))
		if c.Hint != "" {
			const indent = "                    "
			out.WriteString(term.Indent(indent, "hint: "+c.Hint) + "\n")
		}
	}
	_, err := io.WriteString(e.out, out.String())
	return err
}

// clocksApartMax is how far the nodes' clocks may be apart: as far as status warns of.
const clocksApartMax = 5 * time.Second

// examinePeers looks at the other nodes from here.
func (e *env) examinePeers(ctx context.Context, cfg *config.Config, self config.Node) []stress.Check {
	peers := stress.Check{Name: "peers", State: stress.CheckOK}
	versions := stress.Check{Name: "versions", State: stress.CheckOK}
	c, err := e.userClient(cfg, client.Relay)
	if err != nil {
		peers.State, peers.Said, peers.Hint = stress.CheckFail, err.Error(), image.HintOf(err)
		return []stress.Check{peers}
	}
	defer c.Close()
	var all sync.WaitGroup
	seen := make([]peerSeen, len(cfg.Cluster.Nodes))
	for i, n := range cfg.Cluster.Nodes {
		if n.ID != self.ID {
			all.Go(func() { seen[i] = lookAt(ctx, cfg, c, n) })
		}
	}
	all.Wait()
	running, reached := 0, 0
	for i, n := range cfg.Cluster.Nodes {
		s := seen[i]
		switch {
		case n.ID == self.ID:
			continue
		case s.unreached != nil:
			worse(&peers, stress.CheckWarn, fmt.Sprintf("node %d at %s is not reached: %v", n.ID, n.APIAddr(),
				oserr.NoPath(s.unreached)), "check the address, the firewall (both ports, TCP; the Raft port UDP too) "+
				"and the network; a machine that is not there yet does no harm")
			continue
		case s.err != nil:
			worse(&peers, stress.CheckFail, fmt.Sprintf("node %d: %v", n.ID, s.err), image.HintOf(s.err))
		}
		reached++
		if !s.runs {
			continue
		}
		running++
		if own := version(); s.info.Version != own {
			worse(&versions, stress.CheckWarn, fmt.Sprintf("node %d runs %s, this is %s", n.ID, s.info.Version, own),
				"run the same version on all nodes; one after the other, while an upgrade lasts")
		}
		if s.apart.Abs() > clocksApartMax {
			worse(&versions, stress.CheckWarn, fmt.Sprintf("the clock of node %d is %s from this one", n.ID,
				s.apart.Round(time.Second)), "have chrony or systemd-timesyncd set the clocks")
		}
	}
	others := len(cfg.Cluster.Nodes) - 1
	peers.Said = cmp.Or(peers.Said, fmt.Sprintf("%d of %d are reached, %d run", reached, others, running))
	versions.Said = cmp.Or(versions.Said, fmt.Sprintf("this is %s", version()))
	if others == 0 {
		return []stress.Check{versions}
	}
	return []stress.Check{peers, versions}
}

// peerSeen is what is seen of another node.
type peerSeen struct {
	unreached error // its machine does not answer
	runs      bool
	err       error // what answers is no node of ours, or refuses
	info      wire.NodeInfo
	apart     time.Duration // of its clock from this one
}

// lookAt looks at another node: whether its machine answers, and then the node.
func lookAt(ctx context.Context, cfg *config.Config, c *client.Client, n config.Node) (s peerSeen) {
	ctx, cancel := context.WithTimeout(ctx, 2*cfg.Client.Dial)
	defer cancel()
	d := net.Dialer{Timeout: cfg.Client.Dial}
	for _, addr := range []string{n.APIAddr(), n.RaftAddr()} {
		conn, err := d.DialContext(ctx, "tcp", addr)
		switch {
		case errors.Is(err, syscall.ECONNREFUSED): // the machine is there, and the node does not run
			return s
		case err != nil:
			s.unreached = err
			return s
		}
		conn.Close()
	}
	before := time.Now()
	info, err := c.NodeInfo(ctx, n.ID)
	s.info, s.runs, s.err = info, err == nil, err
	s.apart = info.Clock.Sub(before.Add(time.Since(before) / 2))
	return s
}

// worse adds a finding to a check.
func worse(c *stress.Check, state stress.CheckState, said, hint string) {
	if c.State != stress.CheckFail {
		c.State = state
	}
	c.Said = strings.TrimPrefix(c.Said+"; "+said, "; ")
	if hint != "" && !strings.Contains(c.Hint, hint) {
		c.Hint = strings.TrimPrefix(c.Hint+"; "+hint, "; ")
	}
}

// settingsCheck has what the configuration warns of.
func settingsCheck(cfg *config.Config) stress.Check {
	c := stress.Check{Name: "settings", State: stress.CheckOK}
	for _, w := range cfg.Warnings() {
		worse(&c, stress.CheckWarn, w.String(), w.Hint)
	}
	c.Said = cmp.Or(c.Said, fmt.Sprintf("cluster %s of nodes %s", cfg.Cluster.Name, nodeIDs(cfg)))
	return c
}

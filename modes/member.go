package modes

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/client"
	"imgcluster/cluster/image"
	"imgcluster/cluster/placement"
	"imgcluster/cluster/printable"
	"imgcluster/cluster/wait"
	"imgcluster/cluster/wire"
	"imgcluster/config"
	"imgcluster/modes/term"
)

func newMember(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "member",
		Short: "List, add, drain or remove nodes of a running cluster",
		Args:  onlyCommands,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newMemberList(e), newMemberAdd(e), newMemberDrain(e), newMemberRemove(e))
	return cmd
}

func newMemberList(e *env) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the members and what they hold",
		Example: "  imgcluster member list",
		Args:    args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, c, err := e.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			list, err := c.Members(cmd.Context())
			if err != nil {
				return err
			}
			return writeMembers(e, list)
		},
	}
}

type memberAddFlags struct {
	id, apiPort, raftPort int
	host                  string
}

func newMemberAdd(e *env) *cobra.Command {
	var f memberAddFlags
	cmd := &cobra.Command{
		Use:   "add --id N --host HOST --api-port P --raft-port P",
		Short: "Take a new node into the cluster",
		Long: `Take a new node into the cluster. After that start it: on its machine, with the
cluster's master key file and a configuration that lists it beside the others,
run imgcluster server --id N. Shards move to it while the cluster works.`,
		Example: "  imgcluster member add --id 4 --host 10.40.45.207 --api-port 8001 \\\n    --raft-port 9001",
		Args:    args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.id > nodeIDMax {
				return usagef("give a number up to "+strconv.Itoa(nodeIDMax), "--id %d", f.id)
			}
			if f.id <= 0 || f.host == "" || f.apiPort <= 0 || f.raftPort <= 0 {
				return usagef("give --id, --host, --api-port and --raft-port", "which node is to be added?")
			}
			node := config.Node{
				ID:       image.NodeID(f.id),
				Host:     config.Host(f.host),
				APIPort:  f.apiPort,
				RaftPort: f.raftPort,
			}
			change := wire.MemberChange{
				Op:   wire.MemberAdd,
				ID:   node.ID,
				API:  node.APIAddr(),
				Raft: node.RaftAddr(),
			}
			if err := runMemberChange(cmd.Context(), e, change, nil); err != nil {
				return err
			}
			e.say("now start it on its machine, with the cluster's master key and a configuration that lists it: "+
				"imgcluster server --id %d", f.id)
			return nil
		},
	}
	cmd.Flags().IntVar(&f.id, "id", 0, "ID of the new node, never used before")
	cmd.Flags().StringVar(&f.host, "host", "", "address that all nodes and clients reach it by")
	cmd.Flags().IntVar(&f.apiPort, "api-port", 0, "port of its HTTP API")
	cmd.Flags().IntVar(&f.raftPort, "raft-port", 0, "port of its Raft transport")
	return cmd
}

func newMemberDrain(e *env) *cobra.Command {
	var undo, detach bool
	cmd := &cobra.Command{
		Use:   "drain ID",
		Short: "Take leaders, work and copies away from a node",
		Long: `Take a node's leaders and all new work away, then its copies, and wait until it
has none. It goes on answering requests. With --undo it takes on work again.`,
		Example:           "  imgcluster member drain 3\n  imgcluster member drain 3 --undo",
		Args:              args(1, 1),
		ValidArgsFunction: first(e.completeNode),
		RunE: func(cmd *cobra.Command, ids []string) error {
			change, err := memberChange(wire.MemberDrain, ids[0])
			if err != nil {
				return err
			}
			done := drained
			if undo {
				change.Op = wire.MemberResume
			}
			if undo || detach {
				done = nil
			}
			return runMemberChange(cmd.Context(), e, change, done)
		},
	}
	cmd.Flags().BoolVar(&undo, "undo", false, "let a drained node take on work again")
	cmd.Flags().BoolVar(&detach, "no-wait", false, "do not wait until it is empty")
	return cmd
}

func newMemberRemove(e *env) *cobra.Command {
	var detach bool
	cmd := &cobra.Command{
		Use:   "remove ID",
		Short: "Take a node out of the cluster for good",
		Long: `Take a node out of the cluster for good, dead or alive, and wait until it is
out: the copies that it has are made on others first, from it or from the nodes
that have the other copies. Its ID cannot be used again.`,
		Example:           "  imgcluster member remove 3",
		Args:              args(1, 1),
		ValidArgsFunction: first(e.completeNode),
		RunE: func(cmd *cobra.Command, ids []string) error {
			change, err := memberChange(wire.MemberRemove, ids[0])
			if err != nil {
				return err
			}
			done := removed
			if detach {
				done = nil
			}
			return runMemberChange(cmd.Context(), e, change, done)
		},
	}
	cmd.Flags().BoolVar(&detach, "no-wait", false, "do not wait until it is out")
	return cmd
}

// nodeIDMax is the largest possible ID of a node.
const nodeIDMax = math.MaxUint32

func memberChange(op wire.MemberOp, text string) (wire.MemberChange, error) {
	id, err := strconv.ParseUint(text, 10, 32)
	if err != nil || id == 0 {
		return wire.MemberChange{}, usagef("see the IDs with: imgcluster member list", "%q is not a node ID", text)
	}
	return wire.MemberChange{Op: op, ID: image.NodeID(id)}, nil
}

// changed reports whether the change of a member is complete, by the list of members.
type changed func(list []wire.Member, id image.NodeID) bool

func drained(list []wire.Member, id image.NodeID) bool {
	m := memberOf(list, id)
	if m == nil {
		return true
	}
	if m.Images > 0 || m.Leads > 0 {
		return false
	}
	active := 0
	for _, x := range list {
		if x.State == string(catalog.MemberActive) {
			active++
		}
	}
	return m.Shards == 0 || m.Moving == 0 && active < placement.ShardNodes // no node can take its shards
}

func removed(list []wire.Member, id image.NodeID) bool { return memberOf(list, id) == nil }

func memberOf(list []wire.Member, id image.NodeID) *wire.Member {
	for i := range list {
		if list[i].ID == id {
			return &list[i]
		}
	}
	return nil
}

// awaited returns what an incomplete change of a member waits for.
func awaited(list []wire.Member, id image.NodeID) string {
	m := memberOf(list, id)
	text := fmt.Sprintf("node %d is %s: %s, %s, %s to lead", id, m.State, term.Plural(m.Shards, "shard"),
		term.Plural(m.Images, "copy"), term.Plural(m.Leads, "shard"))
	for _, x := range list {
		switch {
		case x.Up:
		case x.ID == id:
			text += "; it does not answer: its copies are made from others"
		case x.Moving > 0:
			text += fmt.Sprintf("; node %d does not answer, and %s on the way wait for it: "+
				"start it with imgcluster server --id %d", x.ID, term.Plural(x.Moving, "shard"), x.ID)
		default:
			text += fmt.Sprintf("; node %d does not answer", x.ID)
		}
	}
	return text
}

// memberEvery is the time between two requests for the progress of a change.
const memberEvery = time.Second

// runMemberChange makes a change, and unless done is nil waits until the change is complete.
func runMemberChange(ctx context.Context, e *env, change wire.MemberChange, done changed) error {
	_, c, err := e.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	list, err := c.ChangeMember(ctx, change)
	if err != nil {
		return err
	}
	if done != nil {
		if list, err = awaitMember(ctx, e, c, change.ID, list, done); err != nil {
			return err
		}
	}
	return writeMembers(e, list)
}

// awaitMember says what a change waits for until it is complete, and returns the members then.
func awaitMember(
	ctx context.Context, e *env, c *client.Client, id image.NodeID, list []wire.Member, done changed,
) ([]wire.Member, error) {
	said := ""
	last := time.Now()
	for !done(list, id) {
		switch text := awaited(list, id); {
		case text != said:
			e.say("%s", text)
			said = text
			last = time.Now()
		case time.Since(last) >= term.ProgressEvery:
			e.say("still waiting: %s", text)
			last = time.Now()
		}
		if !wait.For(ctx, memberEvery) {
			return nil, fmt.Errorf("the change continues without this command; see imgcluster member list: %w",
				context.Cause(ctx))
		}
		next, err := c.Members(ctx)
		if err != nil {
			return nil, fmt.Errorf("the change continues without this command: %w", err)
		}
		list = next
	}
	return list, nil
}

func writeMembers(e *env, list []wire.Member) error {
	if e.json {
		for _, m := range list {
			if err := e.printJSON(m); err != nil {
				return err
			}
		}
		return nil
	}
	t := tabwriter.NewWriter(printable.Writer(e.out), 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "node\tstate\tAPI\tRaft\tshards\tcopies\tleads")
	for _, m := range list {
		state := m.State
		if !m.Up {
			state += ", down"
		} else if m.State == string(catalog.MemberActive) && m.Moving > 0 {
			state += fmt.Sprintf(", %s moving", term.Plural(m.Moving, "shard"))
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%d\t%d\t%d\n",
			m.ID, state, m.API, m.Raft, m.Shards, m.Images, m.Leads)
	}
	return t.Flush()
}

package modes

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"imgcluster/cluster/client"
	"imgcluster/cluster/image"
	"imgcluster/cluster/printable"
	"imgcluster/cluster/wire"
	"imgcluster/config"

	"imgcluster/modes/stress"
	"imgcluster/modes/term"
)

type verifyFlags struct {
	nodes  []int
	sample string
	repair bool
}

func newVerify(e *env) *cobra.Command {
	var f verifyFlags
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Read stored copies and find damaged ones",
		Long: `Have all members of the cluster, also those that the configuration does not
list, read their copies of all images and authenticate every byte of them, and
list those that are damaged or missing. With --repair they are replaced by good
ones.`,
		Example: "  imgcluster verify\n  imgcluster verify --node 2 --repair\n  imgcluster verify --sample 5%",
		Args:    args(0, 0),
		RunE:    func(cmd *cobra.Command, _ []string) error { return runVerify(cmd.Context(), e, f) },
	}
	cmd.Flags().IntSliceVar(&f.nodes, "node", nil, "only this `ID`; repeat for more (default all nodes)")
	cmd.Flags().StringVar(&f.sample, "sample", "100%",
		"the `share` of the copies that is read, chosen at random")
	cmd.Flags().BoolVar(&f.repair, "repair", false, "replace bad copies by good ones")
	return cmd
}

// parseShare parses a share such as 5% or 0.05.
func parseShare(text string) (float64, error) {
	number, percent := strings.CutSuffix(text, "%")
	v, err := strconv.ParseFloat(number, 64)
	if percent {
		v /= 100
	}
	if err != nil || !(v > 0 && v <= 1) {
		return 0, usagef("give a share above 0, up to 100%, such as 5%", "%q is not a share", text)
	}
	return v, nil
}

func runVerify(ctx context.Context, e *env, f verifyFlags) error {
	sample, err := parseShare(f.sample)
	if err != nil {
		return err
	}
	c, nodes, err := e.membersOf(ctx, f.nodes)
	if err != nil {
		return err
	}
	defer c.Close()
	v := newVerification(e, nodes)
	var all sync.WaitGroup
	for _, n := range nodes {
		all.Go(func() {
			line := func(l wire.VerifyLine) error { return v.line(n.ID, l) }
			sum, err := c.Verify(ctx, n, sample, f.repair, line)
			v.end(n.ID, sum, err)
		})
	}
	all.Wait()
	v.progress.end()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return v.outcome(len(nodes), f.repair, e.sameConfig())
}

// membersOf connects to the cluster, and returns the members to ask: all, or those with these IDs. A node of
// the configuration that is not a member is reported and left out. Close the client.
func (e *env) membersOf(ctx context.Context, ids []int) (c *client.Client, nodes []client.Node, err error) {
	cfg, c, err := e.connect()
	if err != nil {
		return nil, nil, err
	}
	members, err := c.Members(ctx)
	if err == nil {
		nodes, err = e.choose(cfg, members, ids)
	}
	if err != nil {
		c.Close()
		return nil, nil, err
	}
	return c, nodes, nil
}

// choose is membersOf without the client.
func (e *env) choose(
	cfg *config.Config, members []wire.Member, ids []int,
) (nodes []client.Node, err error) {
	isMember := func(id image.NodeID) bool {
		return slices.ContainsFunc(members, func(m wire.Member) bool { return m.ID == id })
	}
	for _, id := range ids {
		if id < 1 || id > nodeIDMax || !isMember(image.NodeID(id)) {
			return nil, usagef("see the members with: imgcluster member list"+e.sameConfig(),
				"node %d is not a member of the cluster", id)
		}
	}
	for _, n := range cfg.Cluster.Nodes {
		if len(ids) == 0 && !isMember(n.ID) {
			e.say("%s", stress.NotMember(n.ID))
		}
	}
	for _, m := range members {
		if len(ids) == 0 || slices.Contains(ids, int(m.ID)) {
			nodes = append(nodes, client.Node{ID: m.ID, Addr: m.API})
		}
	}
	return nodes, nil
}

// verification collects the results of the nodes. Its methods are safe for concurrent use.
type verification struct {
	e        *env
	progress *progress
	mu       sync.Mutex
	sums     map[image.NodeID]wire.VerifySummary
	failed   []error
	order    []image.NodeID // nodes whose lines are not all printed; those of the first are printed as they come
	pending  map[image.NodeID][]resultLine
	ended    map[image.NodeID]bool
	written  error // of standard output
}

// resultLine is a line to print, as JSON and as text.
type resultLine struct {
	line wire.VerifyLine
	text string
}

func newVerification(e *env, nodes []client.Node) *verification {
	v := &verification{
		e:        e,
		progress: e.progress(),
		sums:     map[image.NodeID]wire.VerifySummary{},
		pending:  map[image.NodeID][]resultLine{},
		ended:    map[image.NodeID]bool{},
	}
	for _, n := range nodes {
		v.order = append(v.order, n.ID)
	}
	return v
}

// line takes a line of a node: it prints bad copies, and shows how far all nodes are.
func (v *verification) line(id image.NodeID, l wire.VerifyLine) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	l.Node = id
	v.sums[id] = l.VerifySummary
	if l.Type == wire.VerifyBad {
		replaced := ""
		if l.Fixed {
			replaced = "; replaced"
		}
		v.add(l, "node %d  %s/%s  %s%s\n", id, l.User, l.Name, l.Problem, replaced)
		return v.written
	}
	var all wire.VerifySummary
	for _, s := range v.sums {
		all.Images += s.Images
		all.OfImages += s.OfImages
		all.Bytes += s.Bytes
		all.Bad += s.Bad
	}
	v.progress.show(false, "%d of %d copies, %s, %d bad",
		all.Images, all.OfImages, term.Bytes(all.Bytes), all.Bad)
	return nil
}

// add prints a line when all lines of the nodes before have been printed.
func (v *verification) add(l wire.VerifyLine, format string, args ...any) {
	v.pending[l.Node] = append(v.pending[l.Node], resultLine{l, fmt.Sprintf(format, args...)})
	for len(v.order) > 0 {
		id := v.order[0]
		for _, r := range v.pending[id] {
			v.print(r)
		}
		delete(v.pending, id)
		if !v.ended[id] {
			return
		}
		v.order = v.order[1:]
	}
}

func (v *verification) print(r resultLine) {
	v.progress.end()
	var err error
	if v.e.json {
		err = v.e.printJSON(r.line)
	} else {
		_, err = fmt.Fprint(printable.Writer(v.e.out), r.text)
	}
	v.written = errors.Join(v.written, err)
}

// end takes the result of a node.
func (v *verification) end(id image.NodeID, s wire.VerifySummary, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	s.Node = id
	v.sums[id] = s
	v.ended[id] = true
	line := wire.VerifyLine{Type: wire.VerifyEnd, VerifySummary: s}
	if err != nil {
		v.failed = append(v.failed, err)
		line.Type = wire.VerifyFailed
		line.Problem = err.Error()
		v.add(line, "node %d  not verified: %v\n", id, err)
		return
	}
	v.add(line, "node %d  %s\n", id, verified(s))
}

// verified returns the result of a node in words.
func verified(s wire.VerifySummary) string {
	what := term.Plural(s.Images, "copy") + ", " + term.Bytes(s.Bytes) + ": "
	switch {
	case s.Images == 0 && s.OfImages == 0:
		what = "has no copies"
	case s.Images == 0 && s.Bad == 0:
		what = fmt.Sprintf("nothing was read of %s", term.Plural(s.OfImages, "copy"))
	case s.Bad == 0:
		what += "all good"
	case s.Repaired == 0:
		what += fmt.Sprintf("%d bad", s.Bad)
	default:
		what += fmt.Sprintf("%d bad, %d replaced", s.Bad, s.Repaired)
	}
	if s.Skipped > 0 {
		what += fmt.Sprintf("; %d could not be judged", s.Skipped)
	}
	return what
}

// outcome returns the error of the command: nil when all copies are good.
func (v *verification) outcome(asked int, repair bool, sameConfig string) error {
	if v.written != nil {
		return v.written
	}
	var bad, skipped int64
	for _, s := range v.sums {
		bad += s.Bad - s.Repaired
		skipped += s.Skipped
	}
	switch {
	case len(v.failed) == asked:
		return v.failed[0]
	case bad > 0 && !repair:
		return &hintedError{
			fmt.Errorf("bad: %s", term.Plural(bad, "copy")),
			"replace them with: imgcluster verify --repair" + sameConfig,
		}
	case bad > 0:
		return &hintedError{
			fmt.Errorf("stay bad, for no good copy can be reached: %s", term.Plural(bad, "copy")),
			"start the nodes that are down, and verify again",
		}
	case len(v.failed) > 0 || skipped > 0:
		return &hintedError{errors.New("not all copies were verified"), "see imgcluster status, and verify again"}
	}
	return nil
}

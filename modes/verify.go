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
ones.

Exit status 1 when a copy stays bad or a node could not be asked.`,
		Example: "  imgcluster verify\n  imgcluster verify --node 2 --repair\n  imgcluster verify --sample 5%",
		Args:    args(0, 0),
		RunE:    func(cmd *cobra.Command, _ []string) error { return runVerify(cmd.Context(), e, f) },
	}
	cmd.Flags().IntSliceVar(&f.nodes, "node", nil, "only this `ID`; repeat for more (default all nodes)")
	cmd.Flags().StringVar(&f.sample, "sample", "100%", "the `share` of the copies that is read, chosen at random")
	cmd.Flags().BoolVar(&f.repair, "repair", false, "replace bad copies by good ones")
	return cmd
}

// parseShare reads a share such as 5% or 0.05.
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
	cfg, c, err := e.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	members, err := c.Members(ctx)
	if err != nil {
		return err
	}
	nodes, err := f.choose(e, cfg, members)
	if err != nil {
		return err
	}
	v := newVerification(e, nodes)
	var all sync.WaitGroup
	for _, n := range nodes {
		all.Go(func() {
			sum, err := c.Verify(ctx, n, sample, f.repair, func(l wire.VerifyLine) error { return v.line(n.ID, l) })
			v.end(n.ID, sum, err)
		})
	}
	all.Wait()
	v.progress.end()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return v.verdict(len(nodes), f.repair, e.sameConfig())
}

// choose returns the members to ask, by ID. A node of the configuration that is no member is no failure.
func (f verifyFlags) choose(e *env, cfg *config.Config, members []wire.Member) (nodes []client.Node, err error) {
	is := func(id image.NodeID) bool {
		return slices.ContainsFunc(members, func(m wire.Member) bool { return m.ID == id })
	}
	for _, id := range f.nodes {
		if id < 1 || id > nodeIDMax || !is(image.NodeID(id)) {
			return nil, usagef("see the members with: imgcluster member list"+e.sameConfig(), "node %d is not a member of the cluster", id)
		}
	}
	for _, n := range cfg.Cluster.Nodes {
		if len(f.nodes) == 0 && !is(n.ID) {
			e.say("%s", client.NotMember(n.ID))
		}
	}
	for _, m := range members {
		if len(f.nodes) == 0 || containsID(f.nodes, m.ID) {
			nodes = append(nodes, client.Node{ID: m.ID, Addr: m.API})
		}
	}
	return nodes, nil
}

func containsID(ids []int, id image.NodeID) bool {
	for _, x := range ids {
		if image.NodeID(x) == id {
			return true
		}
	}
	return false
}

// verification gathers what the nodes say. Its methods may be called at once.
type verification struct {
	e        *env
	progress *progress
	mu       sync.Mutex
	sums     map[image.NodeID]wire.VerifySummary
	failed   []error
	order    []image.NodeID // whose lines are not all printed yet: those of the first are as they come
	said     map[image.NodeID][]saidLine
	ended    map[image.NodeID]bool
	written  error // to stdout
}

// saidLine is a line to print, in both forms.
type saidLine struct {
	line wire.VerifyLine
	text string
}

func newVerification(e *env, nodes []client.Node) *verification {
	v := &verification{
		e: e, progress: e.progress(), sums: map[image.NodeID]wire.VerifySummary{},
		said: map[image.NodeID][]saidLine{}, ended: map[image.NodeID]bool{},
	}
	for _, n := range nodes {
		v.order = append(v.order, n.ID)
	}
	return v
}

// line takes a line of a node: it prints bad copies and shows how far all nodes are.
func (v *verification) line(id image.NodeID, l wire.VerifyLine) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	l.Node = id
	v.sums[id] = l.VerifySummary
	if l.Type == wire.VerifyBad {
		v.say(l, "node %d  %s/%s  %s%s\n", id, l.User, l.Name, l.Problem, map[bool]string{true: "; replaced"}[l.Fixed])
		return v.written
	}
	var images, of, bytes, bad int64
	for _, s := range v.sums {
		images, of, bytes, bad = images+s.Images, of+s.OfImages, bytes+s.Bytes, bad+s.Bad
	}
	v.progress.show(false, "%d of %d copies, %s, %d bad", images, of, term.Bytes(bytes), bad)
	return nil
}

// say prints a line when those of the nodes before have all been printed.
func (v *verification) say(l wire.VerifyLine, format string, args ...any) {
	v.said[l.Node] = append(v.said[l.Node], saidLine{l, fmt.Sprintf(format, args...)})
	for len(v.order) > 0 {
		id := v.order[0]
		for _, s := range v.said[id] {
			v.print(s)
		}
		delete(v.said, id)
		if !v.ended[id] {
			return
		}
		v.order = v.order[1:]
	}
}

func (v *verification) print(s saidLine) {
	v.progress.end()
	var err error
	if v.e.json {
		err = v.e.printJSON(s.line)
	} else {
		_, err = fmt.Fprint(printable.Writer(v.e.out), s.text)
	}
	v.written = errors.Join(v.written, err)
}

// end takes a node's last word.
func (v *verification) end(id image.NodeID, s wire.VerifySummary, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	s.Node = id
	v.sums[id] = s
	v.ended[id] = true
	line := wire.VerifyLine{Type: wire.VerifyEnd, VerifySummary: s}
	if err != nil {
		v.failed = append(v.failed, err)
		line.Type, line.Problem = wire.VerifyFailed, err.Error()
		v.say(line, "node %d  not verified: %v\n", id, err)
		return
	}
	v.say(line, "node %d  %s\n", id, verified(s))
}

// verified words what a node has read.
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

// verdict reports whether all is well.
func (v *verification) verdict(asked int, repair bool, sameConfig string) error {
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
		return &hintedError{fmt.Errorf("bad: %s", term.Plural(bad, "copy")), "replace them with: imgcluster verify --repair" + sameConfig}
	case bad > 0:
		return &hintedError{fmt.Errorf("stay bad, for no good copy can be reached: %s", term.Plural(bad, "copy")), "start the nodes that are down, and verify again"}
	case len(v.failed) > 0 || skipped > 0:
		return &hintedError{errors.New("not all copies were verified"), "see imgcluster status, and verify again"}
	}
	return nil
}

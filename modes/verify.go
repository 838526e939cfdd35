package modes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"imgcluster/cluster/client"
	"imgcluster/cluster/image"
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
		Long: `Have the nodes read their copies of all images and authenticate every byte of them, and
list those that are damaged or missing. With --repair they are replaced by good ones.

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
	v := &verification{e: e, progress: e.progress(), sums: map[image.NodeID]image.VerifySummary{}}
	var all sync.WaitGroup
	for _, id := range f.nodes {
		if _, err := cfg.Node(image.NodeID(id)); err != nil {
			return err
		}
	}
	asked := 0
	for _, n := range cfg.Cluster.Nodes {
		if len(f.nodes) > 0 && !containsID(f.nodes, n.ID) {
			continue
		}
		asked++
		all.Go(func() {
			sum, err := c.Verify(ctx, client.Node{ID: n.ID, Addr: n.APIAddr()}, sample, f.repair, v.line)
			v.end(n.ID, sum, err)
		})
	}
	all.Wait()
	v.progress.end()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return v.verdict(asked, f.repair, e.sameConfig())
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
	sums     map[image.NodeID]image.VerifySummary
	failed   []error
	written  error // to stdout
}

// line takes a line of a node: it prints bad copies and shows how far all nodes are.
func (v *verification) line(l image.VerifyLine) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.sums[l.Node] = l.VerifySummary
	if l.Type == image.VerifyBad {
		v.progress.end()
		v.print(l, "node %d  %s/%s  %s%s\n", l.Node, l.User, l.Name, l.Problem, map[bool]string{true: "; replaced"}[l.Fixed])
		return v.written
	}
	var images, of, bytes, bad int64
	for _, s := range v.sums {
		images, of, bytes, bad = images+s.Images, of+s.OfImages, bytes+s.Bytes, bad+s.Bad
	}
	v.progress.show(false, "%d of %d copies, %s, %d bad", images, of, formatBytes(bytes), bad)
	return nil
}

func (v *verification) print(l image.VerifyLine, format string, args ...any) {
	var err error
	if v.e.json {
		err = json.NewEncoder(v.e.out).Encode(l)
	} else {
		_, err = fmt.Fprintf(v.e.out, format, args...)
	}
	v.written = errors.Join(v.written, err)
}

// end takes a node's last word.
func (v *verification) end(id image.NodeID, s image.VerifySummary, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	s.Node = id
	v.sums[id] = s
	line := image.VerifyLine{Type: image.VerifyEnd, VerifySummary: s}
	v.progress.end()
	if err != nil {
		v.failed = append(v.failed, err)
		line.Type, line.Problem = image.VerifyFailed, err.Error()
		v.print(line, "node %d  not verified: %v\n", id, err)
		return
	}
	what := copies(int(s.Images)) + ", " + formatBytes(s.Bytes) + ": "
	switch {
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
	v.print(line, "node %d  %s\n", id, what)
}

// verdict tells whether all is well.
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
		return &hintedError{fmt.Errorf("bad: %s", copies(int(bad))), "replace them with: imgcluster verify --repair" + sameConfig}
	case bad > 0:
		return &hintedError{fmt.Errorf("stay bad, for no good copy can be reached: %s", copies(int(bad))), "start the nodes that are down, and verify again"}
	case len(v.failed) > 0 || skipped > 0:
		return &hintedError{errors.New("not all copies were verified"), "see imgcluster status, and verify again"}
	}
	return nil
}

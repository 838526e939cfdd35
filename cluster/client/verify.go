package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// verifySilence is how long a node that verifies may send nothing: longer than it takes to repair one
// image.
const verifySilence = 3 * time.Minute

// Verify has one node read and authenticate its copies, or a sample of that share of them, up to 1,
// and calls fn with each line it sends: progress, and the copies that are bad. With repair it replaces
// these. It is tried once; the summary is what the node had done when it ended.
func (c *Client) Verify(
	ctx context.Context, n Node, sample float64, repair bool, fn func(wire.VerifyLine) error,
) (wire.VerifySummary, error) {
	var sum wire.VerifySummary
	w := c.wait(nil)
	defer w.end()
	w.asked(n)
	r, f := c.askNode(ctx, n, http.MethodPost,
		wire.VerifyPath+"?"+wire.VerifyQuery{Sample: sample, Repair: repair}.String(), nil, nil)
	if f != nil {
		err, _ := c.summarize([]failure{*f})
		return sum, err
	}
	quiet := time.AfterFunc(verifySilence, r.cancel)
	defer quiet.Stop()
	defer r.cancel() // first: what is left of the answer is not waited for
	for d := json.NewDecoder(r.resp.Body); ; {
		var line wire.VerifyLine
		if err := d.Decode(&line); err != nil {
			if ctx.Err() != nil {
				return sum, context.Cause(ctx)
			}
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return sum, image.Errorf(image.KindAborted, "node %d did not finish: %w", n.ID, err).
				WithHint("run verify again when the node is up")
		}
		quiet.Reset(verifySilence)
		w.touch()
		sum = line.VerifySummary
		switch line.Type {
		case wire.VerifyEnd:
			return sum, nil
		case wire.VerifyFailed:
			return sum, image.Errorf(image.KindAborted, "node %d: %s", n.ID, line.Problem).
				WithHint("run verify again")
		}
		if err := fn(line); err != nil {
			return sum, err
		}
	}
}

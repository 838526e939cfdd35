package api

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"imgcluster/cluster/wire"
)

// verify has the node read its copies, and streams what it finds as wire.VerifyLine, a JSON object a
// line. Progress comes once every StatusEvery.
func (h *Handler) verify(w http.ResponseWriter, r *http.Request) {
	q, err := wire.ParseVerify(r.URL.Query())
	if err == nil {
		err = h.Node.Await(r.Context(), "", "")
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(h.shutdown, cancel)()
	control, enc := http.NewResponseController(w), json.NewEncoder(w)
	begun, next := false, time.Time{}
	say := func(line wire.VerifyLine) error {
		if !begun {
			begun = true
			w.Header().Set("Content-Type", "application/x-ndjson")
		}
		h.extend(w)
		if err := enc.Encode(line); err != nil {
			return err
		}
		return control.Flush()
	}
	sum, err := h.Node.Verify(ctx, q.Sample, q.Repair, func(line wire.VerifyLine) error {
		if line.Type == wire.VerifyProgress && time.Now().Before(next) {
			return nil
		}
		next = time.Now().Add(h.StatusEvery)
		return say(line)
	})
	switch {
	case err == nil:
		say(wire.VerifyLine{Type: wire.VerifyEnd, VerifySummary: sum})
	case !begun:
		h.fail(w, r, err)
	default:
		say(wire.VerifyLine{Type: wire.VerifyFailed, VerifySummary: sum, Problem: err.Error()})
	}
}

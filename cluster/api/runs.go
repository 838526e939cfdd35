package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// Runs makes the reports of runs of the stress test, and starts runs where client and nodes are one machine.
type Runs interface {
	// Report returns the page of a run's report, from its log.
	Report(ctx context.Context, log io.Reader) (page []byte, err error)
	// Start begins a run. The error is KindConflict while there is one.
	Start(profile string) error
	// State returns how far the run is that was started last.
	State() wire.Run
	// Page returns the report of the run that was started last, nil before there is one.
	Page() []byte
	// ScriptHash returns the hash of the script in those pages, as a Content-Security-Policy names it.
	ScriptHash() string
}

const (
	logBytesMax   = 128 << 20 // of a log that a report is made of
	reportsMax    = 1         // made at once
	reportWait    = 10 * time.Second
	logField      = "log" // of the form that has the log
	formFieldsMax = 4
)

// reportPolicy is for the page of a report: it stands alone, with its own style and script in it, and is
// locked away from the dashboard and from the API. No other script runs in it than the one with that hash.
const reportPolicy = "sandbox allow-scripts; default-src 'none'; style-src 'unsafe-inline'; " +
	"script-src '%s'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"

// report answers with the report of the log that a form has.
func (h *Handler) report(w http.ResponseWriter, r *http.Request) {
	if !h.hasRuns(w, r) {
		return
	}
	leave, err := h.reports.enter(r.Context(), holder(r, ""), 0, nil)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	defer leave()
	page, err := h.readReport(w, r)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.sendReport(w, page)
}

func (h *Handler) readReport(w http.ResponseWriter, r *http.Request) (page []byte, err error) {
	hint := "send a form (multipart/form-data) with the file in its field \"log\""
	r.Body = http.MaxBytesReader(w, r.Body, logBytesMax)
	parts, err := r.MultipartReader()
	if err != nil {
		return nil, image.Errorf(image.KindMedia, "%w", err).WithHint(hint)
	}
	for range formFieldsMax {
		part, err := parts.NextPart()
		if err != nil {
			return nil, image.Errorf(image.KindInvalid, "no log in the form: %w", err).WithHint(hint)
		}
		if part.FormName() != logField {
			continue
		}
		page, err = h.Runs.Report(r.Context(), part)
		if too := (*http.MaxBytesError)(nil); errors.As(err, &too) {
			return nil, image.Errorf(image.KindTooLarge, "a log of more than %d bytes", too.Limit).
				WithHint("make the report of it by imgcluster report")
		}
		return page, err
	}
	return nil, image.Errorf(image.KindInvalid, "no log in the form").WithHint(hint)
}

func (h *Handler) sendReport(w http.ResponseWriter, page []byte) {
	header := w.Header()
	header.Set("Content-Security-Policy", fmt.Sprintf(reportPolicy, h.Runs.ScriptHash()))
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Cache-Control", "no-store")
	h.extend(w)
	w.Write(page)
}

// run answers how far the run is that was started here.
func (h *Handler) run(w http.ResponseWriter, r *http.Request) {
	state := wire.Run{State: wire.RunNone}
	if h.Runs != nil {
		state = h.Runs.State()
	}
	h.answer(w, r, http.StatusOK, state, nil)
}

func (h *Handler) startRun(w http.ResponseWriter, r *http.Request) {
	var q wire.RunRequest
	if !h.hasRuns(w, r) || !h.decode(w, r, &q, `{"profile":"quick"}`) {
		return
	}
	err := h.Runs.Start(q.Profile)
	h.answer(w, r, http.StatusAccepted, h.Runs.State(), err)
}

// runReport answers with the report of that run.
func (h *Handler) runReport(w http.ResponseWriter, r *http.Request) {
	if !h.hasRuns(w, r) {
		return
	}
	page := h.Runs.Page()
	if page == nil {
		h.fail(w, r, image.Errorf(image.KindNotFound, "no run that was started here has ended").
			WithHint("start one, or make the report of a log"))
		return
	}
	h.sendReport(w, page)
}

// hasRuns reports whether this node has runs; else the client is told so.
func (h *Handler) hasRuns(w http.ResponseWriter, r *http.Request) bool {
	if h.Runs == nil {
		h.fail(w, r, image.Errorf(image.KindNotFound, "this node makes no reports and starts no runs").
			WithHint("use imgcluster report and imgcluster stress"))
	}
	return h.Runs != nil
}

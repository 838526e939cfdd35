package api

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// verify has the node read its copies, and streams what it finds as wire.VerifyLine, a JSON object a
// line. Progress comes once every StatusEvery.
func (h *Handler) verify(w http.ResponseWriter, r *http.Request) {
	sample, fix, err := parseVerify(r)
	if err == nil {
		err = h.Node.Await(r.Context(), "", "")
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(h.leave, cancel)()
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
	sum, err := h.Node.Verify(ctx, sample, fix, func(line wire.VerifyLine) error {
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

func parseVerify(r *http.Request) (sample float64, fix bool, err error) {
	sample = 1
	q := r.URL.Query()
	if s := q.Get("sample"); s != "" {
		if sample, err = strconv.ParseFloat(s, 64); err != nil || !(sample > 0 && sample <= 1) {
			return 0, false, image.Errorf(image.KindInvalid, "sample %.20q is not a share", s).WithHint("give a number above 0 and up to 1")
		}
	}
	if s := q.Get("repair"); s != "" {
		if fix, err = strconv.ParseBool(s); err != nil {
			return 0, false, image.Errorf(image.KindInvalid, "repair %.20q is neither true nor false", s).WithHint("give true or false")
		}
	}
	return sample, fix, nil
}

// suspect has the node look at its copy of an image that another node could not read.
func (h *Handler) suspect(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	user, name := q.Get("user"), q.Get("name")
	err := image.CheckUser(user)
	if err == nil {
		err = image.CheckName(name)
	}
	if err == nil {
		err = h.Peers.Suspect(user, name)
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusAccepted)
}

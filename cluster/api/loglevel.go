package api

import (
	"net/http"
	"slices"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"imgcluster/cluster/image"
	"imgcluster/cluster/trace"
	"imgcluster/cluster/wire"
)

// logLevel says what the node logs.
func (h *Handler) logLevel(w http.ResponseWriter, r *http.Request) {
	h.answer(w, r, http.StatusOK, wire.LogLevel{Node: uint32(h.ID), Level: h.Level.Level().String()}, nil)
}

// setLogLevel changes what the node logs, until it is started again.
func (h *Handler) setLogLevel(w http.ResponseWriter, r *http.Request) {
	var q wire.LogLevel
	hint := `{"level":"..."} with ` + strings.Join(wire.LogLevels, ", ")
	if !h.decode(w, r, &q, hint) {
		return
	}
	to, err := zapcore.ParseLevel(q.Level)
	if err != nil || !slices.Contains(wire.LogLevels, q.Level) {
		h.fail(w, r, image.Errorf(image.KindInvalid, "there is no log level %.20q", q.Level).WithHint("send "+hint))
		return
	}
	from := h.Level.Level()
	h.Level.SetLevel(min(from, to, zap.InfoLevel)) // for this line
	h.Logger.Info("log level changed", zap.Stringer("from", from), zap.Stringer("to", to),
		trace.From(r.Context()).Field())
	h.Level.SetLevel(to)
	h.logLevel(w, r)
}

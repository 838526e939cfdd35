package api

import (
	"io"
	"net/http"

	"go.uber.org/zap"

	"imgcluster/cluster/image"
	"imgcluster/cluster/trace"
	"imgcluster/cluster/wire"
)

// backup sends a backup. One is made at a time.
func (h *Handler) backup(w http.ResponseWriter, r *http.Request) {
	leave, err := h.backups.enter(r.Context(), holder(r, ""), 0, nil)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	defer leave()
	h.sendStream(w, r, wire.BackupType, func(w io.Writer) error { return h.Node.WriteBackup(r.Context(), w) })
}

// shard sends the state of a shard to another node.
func (h *Handler) shard(w http.ResponseWriter, r *http.Request) {
	shard, err := wire.ParseShardPath(r)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	write, behind, err := h.Peers.OpenShard(r.Context(), shard)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	if behind {
		w.Header().Set(wire.BehindField, "1")
	}
	h.sendStream(w, r, image.DefaultMediaType, write)
}

// sendStream sends what write writes. Where that fails after its beginning, the connection is cut, by which
// its reader knows that it is not complete.
func (h *Handler) sendStream(
	w http.ResponseWriter, r *http.Request, mediaType string, write func(io.Writer) error,
) {
	out := &streamed{h: h, w: w, mediaType: mediaType}
	err := write(out)
	switch {
	case err == nil:
	case !out.begun:
		h.fail(w, r, err)
	default:
		h.Logger.Warn("answer cut off", zap.String("path", r.URL.Path), zap.Error(err),
			trace.From(r.Context()).Field())
		panic(http.ErrAbortHandler)
	}
}

// streamed gives the other end BodyIdle for each part that is written.
type streamed struct {
	h         *Handler
	w         http.ResponseWriter
	mediaType string
	begun     bool
}

func (s *streamed) Write(p []byte) (int, error) {
	if !s.begun {
		s.begun = true
		s.w.Header().Set("Content-Type", s.mediaType)
	}
	s.h.extend(s.w)
	return s.w.Write(p)
}

package api

import (
	"net/http"
	"time"

	"imgcluster/cluster/access"
	"imgcluster/cluster/watch"
	"imgcluster/cluster/wire"
)

// Watch is what happened and what happens, see watch.Hub.
type Watch interface {
	Watch(admin bool, user string) *watch.Watcher
	Leave(*watch.Watcher)
	History() wire.History
}

const (
	eventsMax   = 512 // event streams at once
	eventsPace  = 10 * time.Second
	eventsRetry = "retry: 1000\n\n" // a browser comes back after so many ms
)

// history answers what this node saw during the last hour.
func (h *Handler) history(w http.ResponseWriter, r *http.Request) {
	h.answer(w, r, http.StatusOK, h.Watch.History(), nil)
}

// events streams what happens until the client leaves or the node shuts down. `user` asks for the changes of
// that user's images too.
func (h *Handler) events(w http.ResponseWriter, r *http.Request) {
	p, user := access.From(r.Context()), r.URL.Query().Get("user")
	if user != "" && !p.Reads(user) {
		h.fail(w, r, access.ErrRole(r.Method, r.URL.Path, p))
		return
	}
	leave, err := h.watchers.enter(r.Context(), holder(r, ""), 0, nil)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	defer leave()
	watcher := h.Watch.Watch(p.Admin(), user)
	defer h.Watch.Leave(watcher)
	w.Header().Set("Content-Type", wire.EventsType)
	w.Header().Set("Cache-Control", "no-store")
	if r.Method == http.MethodHead { // its answer ends here
		return
	}
	out := stream{h: h, w: w}
	out.send([]byte(eventsRetry))
	check := time.NewTicker(eventsPace)
	defer check.Stop()
	for out.err == nil {
		select {
		case text, ok := <-watcher.Events():
			if !ok { // too slow
				return
			}
			out.send(text)
		case <-check.C: // its key may have been removed
			if again, err := h.Authenticate(r); err != nil || again != p {
				return
			}
		case <-h.shutdown.Done():
			return
		case <-r.Context().Done():
			return
		}
	}
}

// stream is an answer that is sent as it is made, until that fails. It is for one goroutine.
type stream struct {
	h   *Handler
	w   http.ResponseWriter
	err error
}

// Write implements io.Writer.
func (s *stream) Write(p []byte) (n int, err error) {
	if s.err == nil {
		s.h.extend(s.w)
		n, s.err = s.w.Write(p)
	}
	return n, s.err
}

func (s *stream) flush() {
	if s.err == nil {
		s.err = http.NewResponseController(s.w).Flush()
	}
}

func (s *stream) send(p []byte) {
	s.Write(p)
	s.flush()
}

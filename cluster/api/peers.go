package api

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"time"

	"imgcluster/cluster/access"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// helloBytesMax bounds the body of a handshake or a join.
const helloBytesMax = 64 << 10

func (h *Handler) hello(w http.ResponseWriter, r *http.Request) { h.handshake(w, r, h.Peers.Hello) }

func (h *Handler) join(w http.ResponseWriter, r *http.Request) { h.handshake(w, r, h.Peers.Join) }

func (h *Handler) group(w http.ResponseWriter, r *http.Request) { h.handshake(w, r, h.Peers.Group) }

// handshake reads what a node says of itself, and sends what answer returns.
func (h *Handler) handshake(
	w http.ResponseWriter, r *http.Request, answer func(context.Context, image.NodeID, []byte) ([]byte, error),
) {
	if err := checkJSON(r); err != nil {
		h.fail(w, r, err)
		return
	}
	theirs, err := io.ReadAll(http.MaxBytesReader(w, r.Body, helloBytesMax))
	if err != nil {
		h.fail(w, r, image.Errorf(image.KindInvalid, "unreadable handshake: %w", err))
		return
	}
	ours, err := answer(r.Context(), access.From(r.Context()).Node, theirs)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", wire.DocumentType)
	w.Write(ours)
}

// messagesAtOnce are sent before the stream is flushed.
const messagesAtOnce = 64

// status streams this node's figures, and what it has to say to the peer, a wire.StatusLine a line, until the
// peer leaves. An open stream is how peers know that a node is up: it ends with the process.
func (h *Handler) status(w http.ResponseWriter, r *http.Request) {
	release := h.stream(r)
	if release == nil {
		h.fail(w, r, image.Errorf(image.KindOverload,
			"%d status streams to this address are open, the limit (limits.status_streams)", h.Streams).
			WithHint("end some").WithRetry(time.Second))
		return
	}
	defer release()
	messages, unsubscribe := h.Peers.Messages(access.From(r.Context()).Node)
	defer unsubscribe()
	ticker := time.NewTicker(h.StatusEvery)
	defer ticker.Stop()
	s := statusStream{stream: stream{h: h, w: w}}
	for last := h.shutdown.Err() != nil; s.err == nil && !last; {
		last = h.shutdown.Err() != nil // then this is the last line of the stream
		changed := *h.changed.Load()   // before the status is taken
		status := h.Peers.Status()
		s.write(wire.StatusLine{Status: &status})
		s.flush()
		for due := last; !due && s.err == nil; {
			select {
			case <-r.Context().Done():
				return
			case m := <-messages:
				s.writeAll(m, messages)
				s.flush()
			case <-h.shutdown.Done():
				due = true
			case <-changed:
				due = true
			case <-ticker.C:
				due = true
			}
		}
	}
}

// statusStream writes the lines of a status stream.
type statusStream struct{ stream }

func (s *statusStream) write(l wire.StatusLine) {
	if err := json.NewEncoder(&s.stream).Encode(l); s.err == nil {
		s.err = err
	}
}

// writeAll writes a message, and those that wait behind it.
func (s *statusStream) writeAll(m []byte, more <-chan []byte) {
	s.write(wire.StatusLine{Message: m})
	for range messagesAtOnce {
		select {
		case m = <-more:
			s.write(wire.StatusLine{Message: m})
		default:
			return
		}
	}
}

func (h *Handler) copy(w http.ResponseWriter, r *http.Request) {
	f, err := wire.ParseCopyPath(r)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	c, err := h.Peers.OpenCopy(f)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	header := http.Header{"Content-Type": {image.DefaultMediaType}}
	if _, err := h.serve(w, r, c, image.Conditions{}, nil, header); err != nil {
		h.fail(w, r, err)
	}
}

// suspect has the node look at its copy of an image that another node could not read.
func (h *Handler) suspect(w http.ResponseWriter, r *http.Request) {
	user, name, err := wire.ParseName(r.URL.Query())
	if err == nil {
		err = h.Peers.Suspect(user, name)
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusAccepted)
}

// listShards lists what some shards have, for another node.
func (h *Handler) listShards(w http.ResponseWriter, r *http.Request) {
	h.page(w, r, h.shardLists, func(q wire.ListQuery) (wire.List, error) {
		of, err := wire.ParseShards(r.URL.Query())
		if err != nil {
			return wire.List{}, err
		}
		return h.Peers.ListShards(r.Context(), of.Shards, of.User, q.Prefix, q.After, q.Limit)
	})
}

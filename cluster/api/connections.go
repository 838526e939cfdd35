package api

import (
	"net/http"
	"time"

	"imgcluster/cluster/connlimit"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// ConnectionClass returns the class of a request: which are answered even while all connections are busy.
// They are probes and the cluster's state. None of them has a body.
func ConnectionClass(r *http.Request) connlimit.Class {
	if r.ContentLength != 0 || r.Method != http.MethodGet && r.Method != http.MethodHead {
		return connlimit.Refused
	}
	switch r.URL.Path {
	case wire.LivePath, wire.ReadyPath, wire.MetricsPath, wire.ClusterPath, wire.NodePath:
		return connlimit.Short
	}
	return connlimit.Refused
}

// refusedRead is how long a refused client's body is read, so that it sees the answer.
const refusedRead = time.Second

// RefuseConnection answers a request for which there is no connection left.
func (h *Handler) RefuseConnection(w http.ResponseWriter, r *http.Request) {
	h.withPace(w, r, func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		control.EnableFullDuplex()
		control.SetReadDeadline(time.Now().Add(refusedRead))
		r.Body = http.NoBody
		h.fail(w, r, image.Errorf(image.KindOverload,
			"all connections of node %d, or all that it gives your address, are busy (limits.connections, "+
				"limits.connections_per_address)", h.ID).
			WithHint("try again with fewer connections, or ask another node").WithRetry(time.Second))
	})
}

// stream takes one of an address's status streams and returns what gives it back; nil when none is left.
func (h *Handler) stream(r *http.Request) (release func()) {
	address := connlimit.Address(r.RemoteAddr)
	h.streamsMu.Lock()
	defer h.streamsMu.Unlock()
	if h.streams[address] >= h.Streams {
		return nil
	}
	h.streams[address]++
	return func() {
		h.streamsMu.Lock()
		defer h.streamsMu.Unlock()
		if h.streams[address]--; h.streams[address] == 0 {
			delete(h.streams, address)
		}
	}
}

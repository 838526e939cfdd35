package cluster_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"imgcluster/cluster/client"
	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/image"
)

func historyName(prefix string, n int) string { return fmt.Sprintf("%s/%d.png", prefix, n) }

// client makes one client's operations, each through any node.
func (r *histories) client(t *testing.T, h *history, who int, rng *rand.Rand, prefix string) {
	for range callsPerClient {
		in := call{name: historyName(prefix, rng.IntN(namesPerHistory))}
		called := h.now()
		var out answer
		answered := true
		switch n := rng.IntN(10); {
		case n < 4:
			in.act = actGet
			out, answered = r.get(t, in.name, r.node(rng))
		case n < 6:
			in.act = actDelete
			out = r.delete(t, in.name, rng)
		case n < 8:
			in.act = actPutNew
			in.value, out = r.put(t, in, rng)
		default:
			in.act = actPut
			in.value, out = r.put(t, in, rng)
		}
		if answered {
			h.add(who, called, in, out)
			r.count(in, out)
		}
		r.ended.Add(1)
	}
}

func (r *histories) node(rng *rand.Rand) image.NodeID { return r.c.IDs()[rng.IntN(len(r.c.IDs()))] }

func (r *histories) count(in call, out answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	what := [...]string{": unknown", ": done", ": refused"}[out.outcome]
	if in.act == actGet && out.value == absent {
		what = ": no image"
	}
	r.counts[string(in.act)+what]++
}

// limited is the time that a client gives an operation.
func limited(t *testing.T, rng *rand.Rand) (context.Context, context.CancelFunc) {
	d := patience
	if rng != nil && rng.IntN(cutOneIn) == 0 {
		d = time.Duration(rng.Int64N(int64(cutAfterMax)))
	}
	return context.WithTimeout(t.Context(), d)
}

// ask sends one request, like clustertest's Do, until ctx ends. A refusal must be a typed problem (invariant
// I9).
func (r *histories) ask(
	ctx context.Context, t *testing.T, method string, id image.NodeID, name string, body []byte,
	header http.Header,
) clustertest.Response {
	url := r.c.URL(id, clustertest.Path("alice", name))
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return clustertest.Response{Err: err}
	}
	maps.Copy(req.Header, header)
	resp, err := r.c.HTTP.Do(req)
	if err != nil {
		return clustertest.Response{Err: err}
	}
	answer := clustertest.ReadResponse(resp)
	if answer.Err == nil && answer.Status >= http.StatusBadRequest && answer.Problem.Code == "" {
		t.Errorf("node %d answered %s %s with %d and no kind: %q", id, method, name, answer.Status, answer.Body)
	}
	return answer
}

// get reads a name; ok is false when there was no answer.
func (r *histories) get(t *testing.T, name string, id image.NodeID) (out answer, ok bool) {
	ctx, cancel := limited(t, nil)
	defer cancel()
	resp := r.ask(ctx, t, http.MethodGet, id, name, nil, nil)
	switch {
	case resp.Err == nil && resp.Status == http.StatusNotFound:
		return answer{outcome: outDone, value: absent}, true
	case resp.Err != nil || resp.Status != http.StatusOK:
		return answer{}, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	value := r.values[sha256.Sum256(resp.Body)]
	if value == 0 {
		t.Errorf("node %d returned %d bytes as %s that nobody has put", id, len(resp.Body), name)
	}
	return answer{outcome: outDone, value: value}, true
}

// delete deletes a name; like put it may ask again.
func (r *histories) delete(t *testing.T, name string, rng *rand.Rand) answer {
	key := http.Header{"Idempotency-Key": {image.NewID().String()}}
	for range 1 + rng.IntN(2) {
		ctx, cancel := limited(t, rng)
		resp := r.ask(ctx, t, http.MethodDelete, r.node(rng), name, nil, key)
		cancel()
		switch {
		case resp.Err == nil && resp.Status == http.StatusNoContent:
			return answer{outcome: outDone}
		case resp.Err == nil && resp.Status == http.StatusNotFound:
			return answer{outcome: outRefused}
		}
	}
	return answer{}
}

// body makes an image that was never before.
func (r *histories) body(rng *rand.Rand) (value int, body []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	value = len(r.values) + 1
	body = clustertest.Image(uint64(value), 100+rng.IntN(bodyBytesMax-100))
	r.values[sha256.Sum256(body)] = value
	return value, body
}

// put stores an image, as a broadcast, announced, or through one node. Without a clear answer it may send it
// again under the same upload ID, in any way: both together are one operation.
func (r *histories) put(t *testing.T, in call, rng *rand.Rand) (value int, out answer) {
	value, body := r.body(rng)
	id := image.NewID()
	for range 1 + rng.IntN(2) {
		switch rng.IntN(4) {
		case 0:
			out.outcome = r.upload(t, r.cl, in, id, body, rng)
		case 1:
			out.outcome = r.upload(t, r.announcer, in, id, body, rng)
		default:
			out.outcome = r.relay(t, in, id, body, rng)
		}
		if out.outcome != outUnknown {
			break
		}
	}
	return value, out
}

func (r *histories) upload(
	t *testing.T, cl *client.Client, in call, id image.ID, body []byte, rng *rand.Rand,
) outcome {
	ctx, cancel := limited(t, rng)
	defer cancel()
	up := uploadOf(in.name, body)
	up.ID = id
	up.IfNoneMatch = in.act == actPutNew
	_, err := cl.Put(ctx, up)
	switch {
	case err == nil:
		return outDone
	case image.KindOf(err) == image.KindExists:
		return outRefused
	}
	return outUnknown
}

func (r *histories) relay(t *testing.T, in call, id image.ID, body []byte, rng *rand.Rand) outcome {
	ctx, cancel := limited(t, rng)
	defer cancel()
	header := http.Header{"Idempotency-Key": {id.String()}}
	if in.act == actPutNew {
		header.Set("If-None-Match", "*")
	}
	resp := r.ask(ctx, t, http.MethodPut, r.node(rng), in.name, body, header)
	switch {
	case resp.Err != nil:
	case resp.Status == http.StatusOK || resp.Status == http.StatusCreated:
		return outDone
	case resp.Status == http.StatusPreconditionFailed:
		return outRefused
	}
	return outUnknown
}

// readAll gets every name through every node, once it serves again.
func (r *histories) readAll(t *testing.T, h *history, prefix string) {
	for i, id := range r.c.IDs() {
		for n := range namesPerHistory {
			in := call{act: actGet, name: historyName(prefix, n)}
			clustertest.Poll(t, fmt.Sprintf("node %d answers for %s", id, in.name), func() bool {
				called := h.now()
				out, ok := r.get(t, in.name, id)
				if ok {
					h.add(clientsPerHistory+i, called, in, out)
					r.count(in, out)
				}
				return ok
			})
		}
	}
}

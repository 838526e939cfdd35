package api

import (
	"errors"
	"io"
	"math"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/bulkio"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// pace judges whether a body moves. The other end may fall behind the least rate by grace; what moves faster
// makes up for it again. Only time counts in which this node waits for the other end: it may have to wait for
// memory or a disk itself.
type pace struct {
	rate        int64 // bytes a second; 0: any
	grace, idle time.Duration
	leftMax     time.Duration
	left        time.Duration // how long the other end may still do nothing
	bytes       int64         // since left was last leftMax
	waited      time.Duration // likewise
}

// urgency judges whether a body moves as it must to keep its place while others wait for one. Unlike pace it
// may be asked at any time.
type urgency struct {
	pace  pace                    // changed by whoever reads or writes
	left  atomic.Int64            // of pace
	since atomic.Int64            // when the read or write in progress began, ns; 0 between two
	out   atomic.Bool             // it is to give way
	cut   func(t time.Time) error // sets the deadline of the read or write in progress
}

func (u *urgency) begin(rate int64, grace, window time.Duration, cut func(time.Time) error) {
	u.pace = pace{rate: rate, leftMax: grace + window, left: grace + window}
	u.left.Store(int64(u.pace.left))
	u.cut = cut
	if rate == 0 {
		u.done()
	}
}

// Late implements connlimit.Mover.
func (u *urgency) Late(now time.Time) time.Duration {
	late := -time.Duration(u.left.Load())
	if since := u.since.Load(); since != 0 {
		late += now.Sub(time.Unix(0, since))
	}
	return late
}

// GiveWay implements connlimit.Mover.
func (u *urgency) GiveWay() {
	u.out.Store(true)
	u.cut(time.Unix(1, 0))
}

// moved counts n bytes that took from began to now.
func (u *urgency) moved(n int, began time.Time) {
	u.since.Store(0)
	if u.pace.rate != 0 {
		u.pace.moved(n, time.Since(began))
		u.left.Store(int64(u.pace.left))
	}
}

// done makes it never late again.
func (u *urgency) done() { u.left.Store(math.MaxInt64) }

// gaveWay is the error of a body that gives way.
func (u *urgency) gaveWay() error {
	return image.Errorf(image.KindOverload, "the body came too slowly to keep its place while others wait "+
		"for one: at less than %d bytes a second (limits.busy_rate)", u.pace.rate).
		WithHint("send it again, with the same Idempotency-Key, when the node is less busy").
		WithRetry(gaveWayRetry)
}

// gaveWayRetry is when a body that gave way should be sent again.
const gaveWayRetry = 5 * time.Second

// newPace returns the pace for one body of a request. One that another node forwards or relays gets twice the
// time: it is that node, to which the client speaks, that ends it.
func (h *Handler) newPace(r *http.Request) pace {
	p := pace{rate: h.BodyRate, grace: h.BodyGrace, idle: h.BodyIdle}
	if wire.FromNode(r) {
		p.grace, p.idle = 2*p.grace, 2*p.idle
	}
	p.leftMax, p.left = p.grace, p.grace
	return p
}

// timeout returns how long the next bytes may take.
func (p *pace) timeout() time.Duration {
	if p.rate == 0 {
		return p.idle
	}
	return min(p.idle, p.left)
}

// moved counts n bytes that took so long. It returns an error when the other end is too slow.
func (p *pace) moved(n int, took time.Duration) error {
	if p.rate == 0 {
		return nil
	}
	p.bytes += int64(n)
	p.waited += took
	p.left += time.Duration(n)*time.Second/time.Duration(p.rate) - took
	if p.left >= p.leftMax {
		p.left = p.leftMax
		p.bytes = 0
		p.waited = 0
	}
	if p.left <= 0 {
		return p.tooSlow()
	}
	return nil
}

// stopped returns the error of a read or write that failed with err: a KindTooSlow when it timed out.
func (p *pace) stopped(err error) error {
	switch {
	case !errors.Is(err, os.ErrDeadlineExceeded):
		return err
	case p.rate != 0 && p.left <= 0:
		return p.tooSlow()
	}
	return image.Errorf(image.KindTooSlow, "nothing moved for %s (timeouts.body_idle)", p.idle).
		WithHint("send it again, with the same Idempotency-Key; " +
			"raise timeouts.body_idle on every node for links that pause for longer")
}

func (p *pace) tooSlow() error {
	measured := float64(p.bytes) / max(p.waited.Seconds(), 1e-3)
	return image.Errorf(image.KindTooSlow,
		"%.0f bytes a second over %s are less than %d (limits.body_rate), "+
			"for longer than %s (timeouts.body_grace)",
		measured, p.waited.Round(10*time.Millisecond), p.rate, p.grace).
		WithHint("send it again over a faster link, with the same Idempotency-Key, " +
			"or lower limits.body_rate on every node")
}

// readWaitMax is how long at most a read waits for many bytes at once, where some have come. Where they come
// too slowly for that it does not wait.
const readWaitMax = 100 * time.Millisecond

// body is a request's body. It fails when it does not move as pace asks.
type body struct {
	r       io.Reader
	control *http.ResponseController
	count   *atomic.Int64
	mu      sync.Mutex // net/http reads on in a goroutine of its own when it passes a body on
	pace    pace
	urgency
	remaining int64 // bytes still to be read; none where the length is unknown
	conn      *bulkio.Conn
	end       time.Time   // by which it must have come; zero: any
	head      []byte      // what came first, until it is read
	asked     atomic.Bool // the client was asked for something
	read      atomic.Bool // something was read
	ended     atomic.Bool // all of it came
}

// await waits for the first n bytes, which Read returns. What it holds grows with what came.
func (b *body) await(n int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	piece := make([]byte, min(n, headPieceBytes))
	for int64(len(b.head)) < n {
		m, err := b.receive(piece[:min(n-int64(len(b.head)), int64(len(piece)))])
		b.head = append(b.head, piece[:m]...)
		if err != nil && int64(len(b.head)) < n {
			return cutOff(err, len(b.head))
		}
	}
	return nil
}

// headPieceBytes is how much of it is received at once.
const headPieceBytes = 4 << 10

// cutOff is the error of a body whose first bytes did not come.
func cutOff(cause error, got int) error {
	if errors.As(cause, new(*image.Error)) {
		return cause
	}
	return image.Errorf(image.KindIncomplete, "the body ended after %d bytes: %w", got, cause).
		WithHint("send the image again, with the same Idempotency-Key")
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.read.Store(true)
	if len(b.head) > 0 {
		n := copy(p, b.head)
		if b.head = b.head[n:]; len(b.head) == 0 {
			b.head = nil
		}
		return n, nil
	}
	return b.receive(p)
}

// receive reads from the connection. The caller holds mu.
func (b *body) receive(p []byte) (int, error) {
	b.asked.Store(true)
	if b.ended.Load() { // net/http asks once more, maybe only when the connection has its next request
		return 0, io.EOF
	}
	began := time.Now()
	deadline := began.Add(b.pace.timeout())
	if !b.end.IsZero() && b.end.Before(deadline) {
		deadline = b.end
	}
	b.since.Store(began.UnixNano())
	if err := b.control.SetReadDeadline(deadline); err != nil {
		return 0, err
	}
	if b.out.Load() {
		return 0, b.gaveWay()
	}
	b.conn.Expect(b.remaining, min(readWaitMax, deadline.Sub(began)/4))
	n, err := b.r.Read(p)
	b.remaining -= int64(n)
	b.count.Add(int64(n))
	slow := b.pace.moved(n, time.Since(began))
	b.moved(n, began)
	switch {
	case err == io.EOF:
		b.ended.Store(true)
		b.done()
		b.control.SetReadDeadline(time.Time{}) // net/http goes on reading to notice that the client left
	case b.out.Load():
		err = b.gaveWay()
	case err != nil:
		err = b.pace.stopped(err)
	default:
		err = slow
	}
	return n, err
}

// endBy makes reads fail from t on.
func (b *body) endBy(t time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.end = t
}

// Close implements io.Closer. What is left of a body is net/http's to deal with, or drain's.
func (b *body) Close() error { return nil }

// body returns the request's body as ServeHTTP has wrapped it.
func (h *Handler) body(w http.ResponseWriter, r *http.Request) *body {
	if b, ok := r.Body.(*body); ok {
		return b
	}
	b := &body{
		r: r.Body, control: http.NewResponseController(w), count: &h.rx, pace: h.newPace(r),
		remaining: r.ContentLength, conn: bulkio.From(r.Context()),
	}
	b.begin(h.BusyRate, h.BusyGrace, 0, b.control.SetReadDeadline)
	return b
}

// pacedWriter is an answer that fails when the client does not take it as pace asks.
type pacedWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	conn    *bulkio.Conn
	piece   int // bytes
	pace    pace
	urgency
	logger *zap.Logger
	path   string
}

// windowBytesMax is what the other end's kernel takes at once for a program that reads it later. Until that
// has read most of it, nothing is seen to move here, though it may read as it should.
const windowBytesMax = 8 << 20

func (h *Handler) paced(w http.ResponseWriter, r *http.Request) *pacedWriter {
	p := h.newPace(r)
	if p.rate != 0 {
		p.leftMax += windowBytesMax * time.Second / time.Duration(p.rate)
		p.idle = p.leftMax
	}
	paced := &pacedWriter{
		ResponseWriter: w, control: http.NewResponseController(w), conn: bulkio.From(r.Context()),
		piece: writePieceBytes, pace: p, logger: h.Logger, path: r.URL.Path,
	}
	if r.TLS != nil {
		paced.piece = tlsPieceBytes
	}
	window := windowBytesMax * time.Second / time.Duration(max(h.BusyRate, 1))
	paced.begin(h.BusyRate, h.BusyGrace, window, paced.control.SetWriteDeadline)
	return paced
}

// The units in which an answer is written, and its progress measured. Larger ones cost the Go scheduler more
// than they save the kernel, but TLS has many small writes in each.
const (
	writePieceBytes = 32 << 10
	tlsPieceBytes   = 128 << 10
)

// Write implements io.Writer.
func (p *pacedWriter) Write(b []byte) (n int, err error) {
	for first := true; first || n < len(b); first = false {
		began := time.Now()
		p.since.Store(began.UnixNano())
		p.control.SetWriteDeadline(began.Add(p.pace.timeout())) // an error: not a real connection
		if p.out.Load() {
			return n, p.gaveWay()
		}
		p.conn.Hold()
		m, err := p.ResponseWriter.Write(b[n:min(len(b), n+p.piece)])
		if failed := p.conn.Release(); err == nil {
			err = failed
		}
		n += m
		slow := p.pace.moved(m, time.Since(began))
		p.moved(m, began)
		switch {
		case err != nil && p.out.Load():
			err = p.gaveWay()
		case err != nil:
			err = p.pace.stopped(err)
		default:
			err = slow
		}
		if err != nil {
			if kind := image.KindOf(err); kind == image.KindTooSlow || kind == image.KindOverload {
				p.logger.Info("a client takes its answer too slowly", zap.String("path", p.path),
					zap.Error(err))
			}
			return n, err
		}
	}
	return n, nil
}

// Unwrap is for http.ResponseController.
func (p *pacedWriter) Unwrap() http.ResponseWriter { return p.ResponseWriter }

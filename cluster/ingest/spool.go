package ingest

import (
	"cmp"
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"imgcluster/cluster/image"
)

// pieces are the parts that an upload's bytes are held in: each in a chunk of its own, which it need not
// fill.
type pieces struct{ first, further int64 } // bytes

// at returns the piece that has the byte at pos, and its place in that.
func (p pieces) at(pos int64) (piece, off int) {
	if pos < p.first {
		return 0, int(pos)
	}
	pos -= p.first
	return 1 + int(pos/p.further), int(pos % p.further)
}

// end returns where a piece ends.
func (p pieces) end(piece int) int64 { return p.first + int64(piece)*p.further }

// wakeEvery is how long bytes wait at most for the rest of their chunk while more come.
const wakeEvery = time.Second

// errNotHeld: the first bytes were already released.
var errNotHeld = image.Errorf(image.KindAborted, "a node does not hold the bytes of the upload any more").
	WithHint("send the image again")

// errSpoolClosed ends readers and writers of an upload that is over.
var errSpoolClosed = errors.New("the upload is over")

// spool holds one upload's bytes on this node while they are needed. One goroutine fills it from
// the network; cursors read it from the start, each at its own pace. Until settle is called nothing
// is released; from then on a chunk is released once every cursor is past it, unless the spool keeps
// all for a takeover. All methods may be called at once.
type spool struct {
	arena  *arena
	pieces pieces
	size   int64 // bytes
	// relayed: another node sends the body, not a client.
	relayed bool
	began   time.Time

	mu        sync.Mutex
	wake      *sync.Cond
	chunks    [][]byte // chunks[0] is chunk number `first`
	first     int
	quota     int       // chunks it may have
	whole     bool      // the quota had room for all bytes
	keep      bool      // all bytes, for a takeover
	roleKnown bool      // see settle
	filled    int64     // bytes that came
	moved     time.Time // bytes came last
	err       error     // why no more bytes come, nil while they do or when all came
	closed    bool
	cursors   []*cursor
}

func newSpool(a *arena, p pieces, size int64) *spool {
	now := time.Now()
	s := &spool{arena: a, pieces: p, size: size, quota: windowChunks, began: now, moved: now}
	s.wake = sync.NewCond(&s.mu)
	last, _ := p.at(size - 1)
	if n := last + 1; a.reserve(n) {
		s.quota, s.whole, s.keep = n, true, true
	}
	return s
}

// fill reads the body, all of size and not a byte more. A short body is KindIncomplete, a slow one
// KindTooSlow, or KindOverload where others waited. When the spool is closed it ends with errSpoolClosed.
func (s *spool) fill(body io.Reader) error {
	var c []byte
	woke := time.Now()
	for s.filled < s.size {
		if c == nil {
			if c = s.grow(); c == nil {
				return errSpoolClosed
			}
		}
		piece, at := s.pieces.at(s.filled)
		end := at + int(min(s.pieces.end(piece), s.size)-s.filled)
		n, err := body.Read(c[at:end])
		full := at+n == end
		s.mu.Lock()
		s.filled += int64(n)
		if n > 0 {
			s.moved = time.Now()
		}
		if s.filled == s.size {
			err = nil
		}
		if err != nil {
			s.err = incomplete(s.relayed, s.filled, s.size, err)
		}
		if err = s.err; err == nil && s.closed && s.filled < s.size {
			err = errSpoolClosed
		}
		// Waking for less costs more than it gains, but a node that the bytes are sent on to must not take a
		// slow client for one that is gone.
		if err != nil || full || time.Since(woke) > wakeEvery {
			s.wake.Broadcast()
			woke = time.Now()
		}
		s.mu.Unlock()
		if err != nil {
			return err
		}
		if full {
			c = nil
		}
	}
	return nil
}

// drain reads and drops the rest of the body. fill has ended.
func (s *spool) drain(body io.Reader) error {
	n, err := io.Copy(io.Discard, io.LimitReader(body, s.size-s.filled))
	if err != nil || n < s.size-s.filled {
		return incomplete(s.relayed, s.filled+n, s.size, cmp.Or(err, io.ErrUnexpectedEOF))
	}
	return nil
}

// incomplete is the error of a body that ended early. That one does between nodes is no mistake of the
// client, who may send it again at once.
func incomplete(relayed bool, got, want int64, cause error) error {
	slow := (*image.Error)(nil)
	if errors.As(cause, &slow) && (slow.Kind == image.KindTooSlow || slow.Kind == image.KindOverload) {
		return image.Errorf(slow.Kind, "the body was cut after %d of %d bytes: %w", got, want, cause).
			WithHint(slow.Hint()).WithRetry(slow.RetryAfter)
	}
	if relayed {
		return image.Errorf(image.KindAborted, "the body from another node ended after %d of %d bytes: %w", got,
			want, cause).WithHint("send the image again, with the same Idempotency-Key")
	}
	return image.Errorf(image.KindIncomplete, "the body ended after %d of %d bytes: %w", got, want, cause).
		WithHint("send the image again, with the same Idempotency-Key")
}

// grow waits until the quota has room and appends a chunk; nil when there is no need to.
func (s *spool) grow() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.release()
	for len(s.chunks) >= s.quota && !s.closed {
		s.wake.Wait()
	}
	if s.closed {
		return nil
	}
	c := s.arena.take()
	s.chunks = append(s.chunks, c)
	return c
}

// retain ends the time in which all bytes are kept because this node's role is not known yet. With keep set
// it goes on keeping them, for a takeover or a relay, if there was room for all of them.
func (s *spool) retain(keep bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.roleKnown, s.keep = true, keep && s.whole
	s.release()
	s.wake.Broadcast()
}

// release lets chunks go that nobody needs. The caller holds mu.
func (s *spool) release() {
	if !s.roleKnown || s.keep {
		return
	}
	done := s.first + len(s.chunks)
	if done > 0 && s.pieces.end(done-1) > s.filled && s.filled < s.size {
		done-- // the last chunk is being filled
	}
	for _, c := range s.cursors {
		done = min(done, c.next)
	}
	n := 0
	for s.first < done {
		s.arena.give(s.chunks[n])
		n++
		s.first++
	}
	s.chunks = append(s.chunks[:0], s.chunks[n:]...)
	if s.whole && n > 0 {
		give := min(n, s.quota-windowChunks)
		if give > 0 {
			s.quota -= give
			s.arena.unreserve(give)
		}
	}
}

// close ends all cursors and fill, and wakes whoever waits. The memory stays until free.
func (s *spool) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	s.wake.Broadcast()
}

// free gives the memory back. Nothing may use the spool or its cursors any more.
func (s *spool) free() {
	for _, c := range s.chunks {
		s.arena.give(c)
	}
	if s.whole {
		s.arena.unreserve(s.quota)
	}
	s.chunks = nil
}

// complete reports whether all bytes came.
func (s *spool) complete() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.filled == s.size
}

// progress returns when bytes came last, and whether no more come.
func (s *spool) progress() (moved time.Time, ended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.moved, s.filled == s.size || s.err != nil || s.closed
}

// failed returns why no more bytes come.
func (s *spool) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// cursor reads a spool from the start. It is used by one goroutine at a time, but may be closed while
// it is read: net/http goes on reading a body after it has answered, when the other end did so early.
type cursor struct {
	s    *spool
	next int   // the chunk it reads; earlier ones it needs no more
	pos  int64 // bytes read
	stop func() bool
	ctx  context.Context

	closed  bool       // held: the spool's mu
	reading sync.Mutex // held by Read, which copies from chunks that close lets go
}

// cursor returns a reader of the whole upload that ends with ctx. Close it. The error is why the body ended
// early, or errNotHeld when the beginning was released.
func (s *spool) cursor(ctx context.Context) (*cursor, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.err != nil: // the sender is told why, not that this node lacks bytes
		return nil, s.err
	case s.first > 0 || s.closed:
		return nil, errNotHeld
	}
	c := &cursor{s: s, ctx: ctx}
	c.stop = context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.wake.Broadcast()
	})
	s.cursors = append(s.cursors, c)
	return c, nil
}

// chunk waits for bytes that were not read so far, and returns what there is of one chunk; io.EOF
// after the last. The bytes are valid until the next call.
func (c *cursor) chunk() ([]byte, error) {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	piece, at := s.pieces.at(c.pos)
	c.next = piece
	s.release()
	s.wake.Broadcast()
	if c.pos == s.size {
		return nil, io.EOF
	}
	for s.filled == c.pos && s.err == nil && !s.closed && !c.closed && c.ctx.Err() == nil {
		s.wake.Wait()
	}
	switch {
	case c.closed:
		return nil, errSpoolClosed
	case c.ctx.Err() != nil:
		return nil, context.Cause(c.ctx)
	case s.closed:
		return nil, errSpoolClosed
	case s.filled == c.pos:
		return nil, s.err
	}
	n := int(min(s.pieces.end(piece), s.filled) - c.pos)
	b := s.chunks[piece-s.first][at : at+n]
	c.pos += int64(n)
	return b, nil
}

// WriteTo writes all bytes to w as they come.
func (c *cursor) WriteTo(w io.Writer) (int64, error) {
	var written int64
	for {
		b, err := c.chunk()
		if err == io.EOF {
			return written, nil
		}
		if err != nil {
			return written, err
		}
		n, err := w.Write(b)
		written += int64(n)
		if err != nil {
			return written, err
		}
	}
}

// Read implements io.Reader for the sender to another node. It may return fewer bytes than there
// are; what it copies stays valid.
func (c *cursor) Read(p []byte) (int, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	b, err := c.chunk()
	if err != nil {
		return 0, err
	}
	n := copy(p, b)
	c.pos -= int64(len(b) - n)
	return n, nil
}

// Close ends the cursor, and a Read that waits; bytes that only it needed are released.
func (c *cursor) Close() error {
	c.stop()
	s := c.s
	s.mu.Lock()
	c.closed = true
	s.wake.Broadcast()
	s.mu.Unlock()
	c.reading.Lock()
	defer c.reading.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, x := range s.cursors {
		if x == c {
			s.cursors = append(s.cursors[:i], s.cursors[i+1:]...)
			break
		}
	}
	s.release()
	s.wake.Broadcast()
	return nil
}

// Package ingest takes one upload from its header to its receipt on this node: it holds the bytes,
// learns its part from the log, encrypts and stores or stands by, and takes over when another node
// fails. What it needs of the node around it are the interfaces Log, Vault and Peers.
package ingest

import (
	"context"
	"io"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/failpoint"
	"imgcluster/cluster/image"
)

// Log is the replicated catalog.
type Log interface {
	// Propose appends a command to a shard's log and returns its result once applied here. A rejected
	// command is a result, not an error.
	Propose(ctx context.Context, shard uint64, c catalog.Command) (catalog.Result, error)
	// View reads this node's state of a shard, which may lag behind.
	View(shard uint64, fn func(catalog.Reader) error) error
	// Leader returns the shard's leader, 0 when it is not known.
	Leader(shard uint64) image.NodeID
}

// Vault stores encrypted copies.
type Vault interface {
	// Create starts the file of one copy; size is the plaintext's.
	Create(ctx context.Context, user string, id image.ID, epoch uint32, size int64) (CopyWriter, error)
	// Remove deletes a copy's file, if there is one.
	Remove(id image.ID, epoch uint32) error
}

// CopyWriter takes the plaintext of one copy. Commit makes it durable; Abort after Commit does nothing.
type CopyWriter interface {
	io.Writer
	Commit() error
	Abort()
}

// Peers sends an upload on to another node.
type Peers interface {
	// Send returns when the node has answered: nil once the upload is committed.
	Send(ctx context.Context, to image.NodeID, req image.Request, body io.Reader) error
}

// Owned is an upload that has committed with this node as its owner.
type Owned struct {
	*image.Record
	Relayed bool          // by a node; else its client sent it to all
	From    image.NodeID  // whom it was taken over from, 0: nobody
	Took    time.Duration // from its header here to the commit
}

// Options says how a Service works. All fields are needed.
type Options struct {
	Node   image.NodeID
	Log    Log
	Vault  Vault
	Peers  Peers
	Logger *zap.Logger
	// Shards are the data shards that this node has the newest state of; ShardOf maps a name to its
	// shard.
	Shards  func() []uint64
	ShardOf func(user, name string) uint64
	// Members are the nodes of a shard; Up are the nodes that are up, Live those of them that take on
	// uploads, Room those of the live ones whose disks take more images, Current those of the live ones
	// that have the newest state of a shard.
	Members        func(shard uint64) []image.NodeID
	Up, Live, Room func() []image.NodeID
	Current        func(shard uint64) []image.NodeID
	// Owned is told of each upload that this node owns. Its client does not wait for that.
	Owned func(Owned)
	// ReceivedBy reports whether another node says that the body of an upload comes in there; see Service.Receiving.
	ReceivedBy func(node image.NodeID, id image.ID) bool

	Replicas, MinReplicas int

	UploadsMax   int   // uploads at once
	StagingBytes int64 // memory for image bytes
	ImageBytes   int64 // the largest image

	AssignTimeout   time.Duration // a follower without an assignment proposes one itself
	TakeoverTimeout time.Duration // with all bytes here, a node that receives none and has not stored loses the upload
	UploadTimeout   time.Duration // no upload is pending for longer without progress
	QuorumTimeout   time.Duration // with a shard without a leader for this long, its uploads are told to be sent again
}

// Service runs the uploads of one node.
type Service struct {
	Options
	arena *arena
	ctx   context.Context // ends the uploads' goroutines
	stop  context.CancelFunc
	wg    sync.WaitGroup

	placing sync.Mutex // one decision at a time
	decided map[image.ID]*catalog.Upload

	mu      sync.Mutex
	closed  bool
	idle    chan struct{} // made by Drain, closed when no upload is left
	uploads map[image.ID]*upload
	running int                          // uploads, and failed attempts that are being cleared away while a newer one has their place in uploads
	pending map[pendingKey]*watched      // in the log
	changed map[uint64]map[image.ID]bool // by shard, uploads that changed since its Recover began
	kick    chan struct{}
	remove  chan image.Record
	left    atomic.Bool   // a file did not fit in remove
	swept   chan struct{} // see Leftover
}

// removalsMax bounds the queue of files to delete; what does not fit is left to the sweep.
const removalsMax = 1024

// New returns a Service; Close it.
func New(o Options) (*Service, error) {
	a, err := newArena(o.StagingBytes, o.UploadsMax)
	if err != nil {
		return nil, err
	}
	s := &Service{
		Options: o, arena: a,
		decided: map[image.ID]*catalog.Upload{},
		uploads: map[image.ID]*upload{}, pending: map[pendingKey]*watched{}, changed: map[uint64]map[image.ID]bool{},
		kick: make(chan struct{}, 1), remove: make(chan image.Record, removalsMax), swept: make(chan struct{}, 1),
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.wg.Go(s.watch)
	s.wg.Go(s.collect)
	return s, nil
}

// Drain refuses new uploads and returns when those on their way have ended or ctx is done.
func (s *Service) Drain(ctx context.Context) {
	s.mu.Lock()
	s.idle = make(chan struct{})
	if len(s.uploads) == 0 {
		close(s.idle)
	}
	s.mu.Unlock()
	s.Kick()
	select {
	case <-s.idle:
	case <-ctx.Done():
	}
}

// draining tells whether Drain was called. Held: mu.
func (s *Service) draining() bool { return s.idle != nil }

// Close ends all uploads and waits for their goroutines. The handlers that call Receive must have
// returned or be about to.
func (s *Service) Close() error {
	s.mu.Lock()
	s.closed = true
	for _, u := range s.uploads {
		u.spool.close()
	}
	s.mu.Unlock()
	s.stop()
	s.wg.Wait()
	return s.arena.close()
}

// Stats returns how many uploads are on their way here and the memory that their bytes take.
func (s *Service) Stats() (uploads int, stagingBytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.uploads), s.arena.bytes()
}

// receivingMax bounds the uploads that a node tells the others of.
const receivingMax = 1024

// Receiving lists the uploads whose bodies have been coming in for a while and still do: no other node
// may take the slowness of their clients for this node's.
func (s *Service) Receiving() (ids []image.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, u := range s.uploads {
		if len(ids) < receivingMax && time.Since(u.spool.began) > s.TakeoverTimeout/receivingPart && u.receives() {
			ids = append(ids, id)
		}
	}
	return ids
}

// receivingPart of a TakeoverTimeout is how long a body comes in before the others are told.
const receivingPart = 4

// receives reports whether the body of an upload comes in on a node.
func (s *Service) receives(node image.NodeID, shard uint64, id image.ID) bool {
	if node != s.Node {
		return s.ReceivedBy(node, id)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.here(shard, id)
	return u != nil && u.receives()
}

// Receive takes one upload from its header to its record. body must be at least req.Size long and
// fail in bounded time when the sender is gone or too slow. The errors are *image.Error.
func (s *Service) Receive(ctx context.Context, req image.Request, body io.Reader) (*image.Record, error) {
	if err := s.check(req); err != nil {
		return nil, err
	}
	u, err := s.register(req)
	if err != nil {
		return nil, err
	}
	if u == nil {
		return s.replay(ctx, req, body)
	}
	known, err := s.lookup(u.shard, req.ID)
	if err != nil {
		s.unregister(u)
		return nil, err
	}
	if known != nil && known.State == catalog.Committed {
		s.unregister(u)
		return s.replay(ctx, req, body)
	}
	if known != nil {
		u.join(known)
	}
	s.wg.Go(func() { s.run(u) })
	err = u.spool.fill(body)
	u.signal()
	u.filling.Done()
	if err == errSpoolClosed { // all is decided before all came
		err = s.readOn(u, body)
	}
	if err != nil {
		return nil, err
	}
	rec, err := s.wait(ctx, u)
	if ctx.Err() != nil {
		close(u.left)
	}
	return rec, err
}

// readOn reads what comes after an upload was committed, so that the connection stays usable. One that failed
// is answered at once.
func (s *Service) readOn(u *upload, body io.Reader) error {
	if state := u.latest(); state == nil || state.State != catalog.Committed {
		return nil
	}
	return u.spool.drain(body)
}

func (s *Service) check(req image.Request) error {
	if err := image.CheckUser(req.User); err != nil {
		return err
	}
	if err := image.CheckName(req.Name); err != nil {
		return err
	}
	switch {
	case req.Size == 0:
		return image.Errorf(image.KindInvalid, "the image is empty").WithHint("send the image's bytes as the body")
	case req.Size < 0:
		return image.Errorf(image.KindLengthRequired, "no Content-Length").WithHint("send the length of the body in Content-Length")
	case req.Size > s.ImageBytes:
		return image.Errorf(image.KindTooLarge, "%d bytes are more than the limit of %d", req.Size, s.ImageBytes).
			WithHint("raise limits.image_bytes on every node, or send a smaller image")
	}
	return nil
}

// register makes the local upload; nil when this ID is on its way here already,
// and not as an attempt that failed and is only being cleared away.
func (s *Service) register(req image.Request) (*upload, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.draining() && s.uploads[req.ID] == nil {
		return nil, image.Errorf(image.KindNoQuorum, "node %d is stopping", s.Node).WithHint("send to another node")
	}
	if old := s.uploads[req.ID]; old != nil && !old.failed() {
		if old.req.User != req.User || old.req.Name != req.Name || old.req.Size != req.Size {
			return nil, image.Errorf(image.KindConflict, "upload ID %s is on its way with other bytes or another name", req.ID).
				WithHint("send each image under a fresh Idempotency-Key")
		}
		return nil, nil
	}
	if s.running >= s.UploadsMax { // each has a part of the arena, and it has no more parts
		return nil, image.Errorf(image.KindOverload, "node %d has %d uploads on their way, its limit", s.Node, s.UploadsMax).
			WithHint("send fewer at once").WithRetry(time.Second)
	}
	u := newUpload(s, req)
	s.uploads[req.ID] = u
	s.running++
	return u, nil
}

func (s *Service) unregister(u *upload) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.uploads[u.req.ID] == u {
		delete(s.uploads, u.req.ID)
		if s.draining() && len(s.uploads) == 0 {
			close(s.idle)
		}
	}
	u.spool.close()
	u.spool.free()
	u.cancel(nil)
	s.running--
}

func (s *Service) lookup(shard uint64, id image.ID) (u *catalog.Upload, err error) {
	err = s.Log.View(shard, func(r catalog.Reader) error {
		u, err = catalog.GetUpload(r, id)
		return err
	})
	return u, err
}

// Applied takes the events of a shard's log, in order. It does not block.
func (s *Service) Applied(shard uint64, events []catalog.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range events {
		if e.Removed != nil {
			select {
			case s.remove <- *e.Removed:
			default:
				s.left.Store(true)
			}
		}
		if e.Upload == nil {
			continue
		}
		if changed := s.changed[shard]; changed != nil {
			changed[e.Upload.ID] = true
		}
		s.abandon(shard, e.Upload)
		if e.Upload.Finished() {
			delete(s.pending, pendingKey{shard, e.Upload.ID})
		} else {
			s.track(shard, e.Upload)
		}
		if u := s.here(shard, e.Upload.ID); u != nil {
			u.update(e.Upload)
		}
	}
}

// Forget stops watching over the uploads of a shard that leaves this node.
func (s *Service) Forget(shard uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.pending, func(k pendingKey, _ *watched) bool { return k.shard == shard })
}

// abandon has the file of an upload deleted that an earlier process of this node may have left, when
// the part that it was for is given to another node. Before, the sweep had to keep it. That the upload
// is sent to this process again changes nothing: it knows of no file but its own. Held: mu.
func (s *Service) abandon(shard uint64, now *catalog.Upload) {
	w := s.pending[pendingKey{shard, now.ID}]
	if w == nil {
		return
	}
	slot, next := w.state.Slot(s.Node), now.Slot(s.Node)
	if slot == nil || next != nil && next.Epoch == slot.Epoch {
		return
	}
	select {
	case s.remove <- image.Record{ID: now.ID, Copies: []image.Copy{{Node: s.Node, Epoch: slot.Epoch}}}:
	default:
		s.left.Store(true)
	}
}

// here returns the upload that is on its way to this node, nil when there is none. A client may have
// used its ID for a name of another shard before: that is another upload. Held: mu.
func (s *Service) here(shard uint64, id image.ID) *upload {
	if u := s.uploads[id]; u != nil && u.shard == shard {
		return u
	}
	return nil
}

// collect deletes the files of records that are no more.
func (s *Service) collect() {
	for {
		select {
		case <-s.ctx.Done():
			return
		case rec := <-s.remove:
			for _, c := range rec.Copies {
				if c.Node == s.Node {
					s.discard(rec.ID, c.Epoch)
				}
			}
			if len(s.remove) == 0 && s.left.Swap(false) {
				select {
				case s.swept <- struct{}{}:
				default: // one is told already
				}
			}
		}
	}
}

// Leftover tells when files are left to the sweep, since more had to be deleted at once than are queued.
func (s *Service) Leftover() <-chan struct{} { return s.swept }

func (s *Service) discard(id image.ID, epoch uint32) {
	failpoint.Here("upload/before-discard")
	if err := s.Vault.Remove(id, epoch); err != nil {
		s.Logger.Warn("a copy was not deleted; the sweep will try again", zap.Stringer("image", id), zap.Error(err))
	}
	failpoint.Here("upload/discarded")
}

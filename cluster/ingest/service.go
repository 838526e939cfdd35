// Package ingest takes one upload from its header to its receipt on this node: it holds the bytes in memory,
// follows what is decided, encrypts and stores a copy or stands by, and takes over when another node fails.
// Package api calls Receive; the log, the store and the other nodes are behind the interfaces Log, Store and
// Peers, and Options.Mail.
//
// Package commit decides what the nodes do: a Service has an upload with a participant for each body that is
// coming in, and an agreement with a coordinator for each shard that this node leads. The placer chooses the
// nodes of an upload, and the collector deletes files that are good for nothing.
package ingest

import (
	"context"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/commit"
	"imgcluster/cluster/image"
	"imgcluster/cluster/trace"
	"imgcluster/cluster/wait"
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

// Store stores encrypted copies.
type Store interface {
	// Create starts the file of one copy; size is the plaintext's, in bytes.
	Create(ctx context.Context, user string, f image.FileID, size int64) (CopyWriter, error)
	// Remove deletes a file, if there is one.
	Remove(f image.FileID) error
}

// CopyWriter takes the plaintext of one copy.
type CopyWriter interface {
	io.Writer
	// Commit makes the copy durable.
	Commit() error
	// UserKey returns the number of the user's key that the copy is encrypted under.
	UserKey() uint32
	// Abort drops the copy; after Commit it does nothing.
	Abort()
}

// Sealer computes what the log gets to know of the bytes of images: nothing without their users' keys.
type Sealer interface {
	// Check returns what computes the check of an upload.
	Check(ctx context.Context, user string, id image.ID) (Check, error)
	// Seal seals the SHA-256 of one of the user's images.
	Seal(ctx context.Context, user string, d image.Digest) (image.SealedDigest, error)
}

// Check takes the plaintext of an upload.
type Check interface {
	io.Writer
	// Sum ends the plaintext. It is called once.
	Sum() image.Check
}

// Peers sends an upload on to another node.
type Peers interface {
	// Send returns when the node has answered: nil once the upload is committed.
	Send(ctx context.Context, to image.NodeID, req image.Request, body io.Reader) error
}

// Owned is an upload that has committed with this node as its owner.
type Owned struct {
	*image.Record
	Trace     *trace.Request
	Announced bool          // its client asked where to send it, and sent it there
	Relayed   bool          // by a node; else its client sent it to all
	From      image.NodeID  // the first owner, whom it was taken over from; 0: this node was the first
	Took      time.Duration // from its header here to the commit
}

// Options says how a Service works. All fields are needed.
type Options struct {
	Node   image.NodeID
	Log    Log
	Store  Store
	Sealer Sealer
	Peers  Peers
	// OpenCopy returns the plaintext of this node's copy of an upload, which need not have been committed.
	OpenCopy func(ctx context.Context, rec *image.Record) io.ReadCloser
	// Mail sends a message to another node. It does not block, and may lose the message.
	Mail   func(to image.NodeID, m Message)
	Logger *zap.Logger

	// Shards returns the data shards of which this node has the newest state; Serves reports whether it has
	// that of one.
	Shards func() []uint64
	Serves func(shard uint64) bool
	// ShardOf returns the shard of a name.
	ShardOf func(user, name string) uint64
	// ShardNodes returns the nodes of a shard.
	ShardNodes func(shard uint64) []image.NodeID
	// Up returns the nodes that are up.
	Up func() []image.NodeID
	// Live returns the nodes of Up that take on uploads.
	Live func() []image.NodeID
	// Room returns the nodes of Live whose disks take more images.
	Room func() []image.NodeID
	// UpToDate returns the nodes of Live that have the newest state of a shard.
	UpToDate func(shard uint64) []image.NodeID
	// Owned is called for each upload that this node owns. Its client does not wait for that.
	Owned func(Owned)
	// ReceivedBy reports whether another node says that it is receiving the body of an upload; see
	// Service.Receiving.
	ReceivedBy func(node image.NodeID, id image.ID) bool

	Replicas    int // copies that an upload is to have
	MinReplicas int // copies without which no upload is committed

	UploadsMax   int   // uploads at once
	StagingBytes int64 // memory for image bytes
	// Pieces are the lengths in bytes of the first and of each further piece in which Store's writers take
	// images best, up to ChunkBytes.
	Pieces [2]int

	// ReportTimeout is how long a node hears nothing of an upload before it reports it again.
	ReportTimeout time.Duration
	// TakeoverTimeout is how long a node that has all bytes waits for one that receives none and has not
	// stored its copy, before it takes the upload away from that one.
	TakeoverTimeout time.Duration
	// UploadTimeout is how long an upload is pending without progress before it fails.
	UploadTimeout time.Duration
	// QuorumTimeout is how long a shard has no leader before the senders of its uploads are asked to try
	// again.
	QuorumTimeout time.Duration
}

// Service runs the uploads of one node. All methods may be called at once.
type Service struct {
	Options
	arena     *arena
	pieces    pieces
	placer    *placer
	agreement *agreement
	collector *collector
	ctx       context.Context // ends the uploads' goroutines
	stop      context.CancelFunc
	wg        wait.Group

	mu      sync.Mutex
	closed  bool
	idle    chan struct{} // made by Drain, closed when no upload is left
	uploads map[image.ID]*upload
	// running counts uploads, and failed attempts that are being cleared away while a newer one has their
	// place in uploads.
	running int
}

// New returns a Service; Close it. It fails when the staging memory cannot be had or is too small for
// UploadsMax.
func New(o Options) (*Service, error) {
	a, err := newArena(o.StagingBytes, o.UploadsMax)
	if err != nil {
		return nil, err
	}
	s := &Service{
		Options: o, arena: a, pieces: pieces{int64(o.Pieces[0]), int64(o.Pieces[1])},
		uploads: map[image.ID]*upload{},
	}
	s.placer = newPlacer(&s.Options, s.Acted)
	s.agreement = newAgreement(s)
	s.collector = newCollector(&s.Options)
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.wg.Go(func() { s.agreement.run(s.ctx) })
	s.wg.Go(func() { s.collector.run(s.ctx) })
	return s, nil
}

// Drain refuses new uploads and returns when those in progress have ended or ctx is done.
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

// draining reports whether Drain was called. The caller holds mu.
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
	s.wg.Close()
	return s.arena.close()
}

// Acted returns the last entry of a shard's log that this node has acted on.
func (s *Service) Acted(shard uint64) uint64 { return s.agreement.of(shard).acted.Load() }

// Stats returns how many uploads are in progress here and the memory that their bytes take.
func (s *Service) Stats() (uploads int, stagingBytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.uploads), s.arena.bytes()
}

// receivingMax bounds the uploads that a node lists in Receiving.
const receivingMax = 1024

// receivingPart of a TakeoverTimeout is how long a body comes in before Receiving lists it.
const receivingPart = 4

// Uses reports whether an upload in progress here may need a file of this node yet.
func (s *Service) Uses(f image.FileID) bool { return s.local(f.Shard, f.Image) != nil }

// Receiving returns the uploads whose bodies have been coming in for a while and still do: no other
// node may take the slowness of their clients for this node's.
func (s *Service) Receiving() (ids []image.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, u := range s.uploads {
		long := time.Since(u.spool.began) > s.TakeoverTimeout/receivingPart
		if len(ids) < receivingMax && long && u.receives() {
			ids = append(ids, id)
		}
	}
	return ids
}

// receives reports whether the body of an upload comes in on a node.
func (s *Service) receives(node image.NodeID, shard uint64, id image.ID) bool {
	if node != s.Node {
		return s.ReceivedBy(node, id)
	}
	u := s.local(shard, id)
	return u != nil && u.receives()
}

// local returns the upload that is in progress on this node, nil when there is none. A client may have
// used its ID for a name of another shard before: that is another upload.
func (s *Service) local(shard uint64, id image.ID) *upload {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u := s.uploads[id]; u != nil && u.shard == shard {
		return u
	}
	return nil
}

// lookup returns what this node's state of a shard says of an upload, nil when it says nothing.
func (s *Service) lookup(shard uint64, id image.ID) (u *catalog.Upload, err error) {
	err = s.Log.View(shard, func(r catalog.Reader) error {
		u, err = catalog.GetUpload(r, id)
		return err
	})
	return u, err
}

// times are how long coordinators and participants wait.
func (s *Service) times() commit.Times {
	return commit.Times{Report: s.ReportTimeout, Takeover: s.TakeoverTimeout, Upload: s.UploadTimeout}
}

// all returns the uploads in progress here.
func (s *Service) all() []*upload {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.uploads))
}

// Take takes a message of another node, which is who it says, or passes it on. It does not block.
func (s *Service) Take(from image.NodeID, m Message) {
	if r := m.Route; r != nil {
		if r.To != s.Node {
			if r.From == from && r.To != from {
				s.Mail(r.To, m)
			}
			return
		}
		from = r.From
		s.agreement.heardAfar(from)
	}
	if m.Report != nil {
		s.agreement.heard(from, m.Shard, *m.Report)
	}
	if m.Decision != nil {
		s.told(from, m.Shard, *m.Decision)
	}
}

// told takes what a node has decided of an upload.
func (s *Service) told(from image.NodeID, shard uint64, d commit.Decision) {
	u := s.local(shard, d.ID)
	if u != nil {
		u.decide(from, d)
		return
	}
	s.agreement.keepEarly(from, shard, d)
	if from == s.Node || from != s.Log.Leader(shard) {
		return
	}
	s.placer.heard(shard, d)
	// It may have ended before that: looked up afterwards, in case it does meanwhile.
	known, err := s.lookup(shard, d.ID)
	if err != nil || known != nil && known.Final() {
		s.placer.landed(d.ID)
	}
}

// Applied takes the events of a shard's log up to the entry index, in order. It does not block.
func (s *Service) Applied(shard, index uint64, events []catalog.Event) {
	for _, e := range events {
		if e.Removed != nil {
			s.collector.remove(e.Removed)
		}
		if f := e.Aborted; f != nil {
			if u := s.local(shard, f.File.Image); u != nil {
				u.step(func(m commit.Moment) []commit.Action { return u.part.Aborted(m, f.File) })
			}
		}
		if e.Purge != nil {
			s.purged(shard, e.Purge.User)
		}
		if ended := e.Upload; ended != nil {
			s.agreement.ended(shard, ended)
			if u := s.local(shard, ended.ID); u != nil {
				u.step(func(m commit.Moment) []commit.Action { return u.part.Ended(m, ended) })
			}
			s.placer.landed(ended.ID) // last: no decision is counted after it, see decide
		}
	}
	s.agreement.acted(shard, index)
}

// purged gives up a removed user's uploads to a shard: their copies are under a key that is destroyed.
func (s *Service) purged(shard uint64, user string) {
	for _, u := range s.all() {
		if u.shard == shard && u.req.User == user {
			u.giveUp(image.Errorf(image.KindForbidden, "user %q was removed during the upload", user))
		}
	}
}

// Forget drops what is known of a shard that leaves this node.
func (s *Service) Forget(shard uint64) { s.agreement.forget(shard) }

// Kick makes the service look over all uploads at once. It does not block.
func (s *Service) Kick() {
	select {
	case s.agreement.kick <- struct{}{}:
	default:
	}
}

// Restored says that this node got the state of a shard as of the entry index, without the entries before it.
// It does not block.
func (s *Service) Restored(shard, index uint64) {
	s.agreement.skip(shard, index)
	s.wg.Start(func() {
		for s.ctx.Err() == nil {
			err := s.lookUpSkipped(shard)
			if err == nil {
				s.agreement.skipped(shard, index)
				s.collector.leave()
				return
			}
			s.Logger.Warn("uploads of a restored shard not looked up", zap.Uint64("shard", shard), zap.Error(err))
			wait.For(s.ctx, s.ReportTimeout)
		}
	})
}

// lookUpSkipped tells the uploads of a shard what its state says of them.
func (s *Service) lookUpSkipped(shard uint64) error {
	for _, u := range s.all() {
		if u.shard != shard {
			continue
		}
		known, err := s.lookup(shard, u.req.ID)
		if err != nil {
			return err
		}
		u.step(func(m commit.Moment) (actions []commit.Action) {
			if known != nil {
				actions = u.part.Ended(m, known)
			}
			return append(actions, u.part.Skipped(m)...)
		})
	}
	return nil
}

// Leftover receives a value when files are left to the sweep: since more had to be deleted at once than are
// queued, or since this node has missed entries of a log that have removed records.
func (s *Service) Leftover() <-chan struct{} { return s.collector.leftover }

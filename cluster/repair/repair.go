// Package repair gives images their copies back: it makes those that are missing, replaces those that
// are damaged, and reads all of this node's over from time to time to find such.
//
// Each node repairs what is its own: it fetches the ciphertext from a node that has it, authenticates
// every byte on the way, and names the copy in the log once it is durable. Two nodes that fetch for
// the same image need not know of each other, for the log takes no more copies than are wanted.
package repair

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/failpoint"
	"imgcluster/cluster/image"
	"imgcluster/cluster/placement"
	"imgcluster/cluster/sample"
	"imgcluster/cluster/wait"
)

// Log is the replicated catalog; see package ingest.
type Log interface {
	Propose(ctx context.Context, shard uint64, c catalog.Command) (catalog.Result, error)
	View(shard uint64, fn func(catalog.Reader) error) error
}

// Copies are the stored files of this node, and a way to those of others.
type Copies interface {
	// Verify reads this node's copy of an image to its end and authenticates every byte. A copy that is not
	// there is KindNotFound, a bad one KindDamaged; any other error says nothing about the copy.
	Verify(ctx context.Context, rec *image.Record, epoch uint32) error
	// Has tells whether there is a file of this node's copy.
	Has(id image.ID, epoch uint32) (bool, error)
	// Fetch makes a copy on this node, of the same epoch, from the one that another node has. It is
	// authenticated, and durable when Fetch returns.
	Fetch(ctx context.Context, rec *image.Record, from image.Copy) error
	// Keep protects the file of a copy that the log does not name yet from being swept.
	Keep(id image.ID, epoch uint32) (release func())
	// Remove deletes the file of a copy unless the log has a use for it.
	Remove(id image.ID, epoch uint32) error
	// Suspect asks another node to look at its copy of an image.
	Suspect(ctx context.Context, node image.NodeID, rec *image.Record) error
}

// Options says how a Service works. All fields are needed.
type Options struct {
	Node   image.NodeID
	Log    Log
	Copies Copies
	Logger *zap.Logger
	// Shards are the data shards that this node has the newest state of.
	Shards func() []uint64
	// Members are the nodes of a shard; Up are the nodes that answer, Room those of them that take on
	// images of a shard, Leaving those whose copies must go to others: that drain, or have been down for
	// long.
	Members     func(shard uint64) []image.NodeID
	Up, Leaving func() []image.NodeID
	Room        func(shard uint64) []image.NodeID

	Every      time.Duration // between two looks for missing copies
	Rate       int64         // bytes a second that are fetched
	ScrubEvery time.Duration // between the starts of two scrubs
	ScrubRate  int64         // bytes a second that a scrub reads
}

// Stats counts since the start of the service.
type Stats struct {
	Made     int64 `json:"made"`     // copies that were missing
	Replaced int64 `json:"replaced"` // copies that were damaged
	Damaged  int64 `json:"damaged"`  // copies that were found damaged
	Bytes    int64 `json:"bytes"`    // fetched, plaintext length
	Scrubbed int64 `json:"scrubbed"` // copies read over in the background
	Missing  int64 `json:"missing"`  // copies that should be on this node and are not, now
}

// Figures are those of Stats; a node's status has the missing copies.
var Figures = sample.Figures{
	{Name: "made", Counter: true, Metric: "repair_copies_made_total", Help: "Missing copies that this node made."},
	{
		Name: "replaced", Counter: true, Metric: "repair_copies_replaced_total",
		Help: "Damaged copies of this node that were replaced.",
	},
	{
		Name: "damaged", Counter: true, Metric: "repair_copies_damaged_total",
		Help: "Copies of this node that were found damaged or missing.",
	},
	{
		Name: "bytes", Counter: true, Metric: "repair_bytes_total",
		Help: "Plaintext bytes of the copies that this node fetched to repair.",
	},
	{
		Name: "scrubbed", Counter: true, Metric: "scrubbed_copies_total",
		Help: "Copies that the background check has read.",
	},
}

// Service repairs the copies of one node.
type Service struct {
	Options
	ctx      context.Context
	stop     context.CancelFunc
	wg       sync.WaitGroup
	kick     chan struct{}
	suspects chan suspect
	fixing   chan struct{} // capacity 1: one repair at a time
	pace     pace          // of fetching

	mu    sync.Mutex
	asked map[suspectKey]time.Time // when a copy was last suspected

	scanned map[uint64]bool // shards whose copies on this node were looked for; healLoop's own

	made, replaced, damaged, bytes, scrubbed, missing atomic.Int64
}

type suspect struct {
	rec  image.Record
	node image.NodeID
}

type suspectKey struct {
	id   image.ID
	node image.NodeID
}

const (
	// suspectsMax bounds the copies waiting to be looked at; the scrub comes by those that do not fit.
	suspectsMax = 256
	// suspectPause is how long a copy is not suspected again: it may be read often, and two nodes with
	// bad copies point at each other.
	suspectPause = 5 * time.Second
	// askedMax bounds what is remembered of that.
	askedMax = 4096
	// pageRecords is how many records are read from the catalog at once.
	pageRecords = 256
	// scrubGrace is how long after the start the first scrub begins, at most.
	scrubGrace = 10 * time.Minute
	// retryPause is the wait before a command is proposed again whose fate is not known.
	retryPause = time.Second
)

// New returns a Service, which does nothing before Start but take suspects; Close it.
func New(o Options) *Service {
	s := &Service{
		Options: o, kick: make(chan struct{}, 1), suspects: make(chan suspect, suspectsMax), fixing: make(chan struct{}, 1),
		pace: pace{rate: o.Rate}, asked: map[suspectKey]time.Time{}, scanned: map[uint64]bool{},
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s
}

// Start begins to repair: the catalog is up to date on this node.
func (s *Service) Start() {
	s.Kick()
	s.wg.Go(s.healLoop)
	s.wg.Go(s.scrubLoop)
	s.wg.Go(s.suspectLoop)
}

// Close ends all repairs and waits for them. What was not finished is taken up at the next start.
func (s *Service) Close() {
	s.stop()
	s.wg.Wait()
}

// Stats returns what was done so far.
func (s *Service) Stats() Stats {
	return Stats{
		Made: s.made.Load(), Replaced: s.replaced.Load(), Damaged: s.damaged.Load(), Bytes: s.bytes.Load(), Scrubbed: s.scrubbed.Load(),
		Missing: s.missing.Load(),
	}
}

// Kick makes the service look for missing copies at once. It does not block.
func (s *Service) Kick() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// Suspect has a copy looked at that could not be read, and repaired when it is damaged. It does not
// block.
func (s *Service) Suspect(rec *image.Record, node image.NodeID) {
	key := suspectKey{rec.ID, node}
	s.mu.Lock()
	last, known := s.asked[key]
	if known && time.Since(last) < suspectPause {
		s.mu.Unlock()
		return
	}
	if len(s.asked) >= askedMax {
		clear(s.asked)
	}
	s.asked[key] = time.Now()
	s.mu.Unlock()
	select {
	case s.suspects <- suspect{*rec, node}:
	default:
	}
}

func (s *Service) suspectLoop() {
	for {
		select {
		case <-s.ctx.Done():
			return
		case x := <-s.suspects:
			if x.node != s.Node {
				if err := s.Copies.Suspect(s.ctx, x.node, &x.rec); err != nil {
					s.Logger.Warn("a node did not hear that its copy is suspect", zap.Uint32("peer", uint32(x.node)), zap.Stringer("image", x.rec.ID), zap.Error(err))
				}
				continue
			}
			s.check(s.ctx, &x.rec, true)
		}
	}
}

func (s *Service) healLoop() {
	ticker := time.NewTicker(s.Every)
	defer ticker.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-ticker.C:
		case <-s.kick:
		}
		if err := s.heal(s.ctx); err != nil && s.ctx.Err() == nil {
			s.Logger.Warn("images with too few copies", zap.Error(err))
		}
	}
}

// heal looks once at all shards that have something to repair.
func (s *Service) heal(ctx context.Context) error {
	if err := s.recover(ctx); err != nil {
		return err
	}
	leaving := s.Leaving()
	for _, shard := range s.Shards() {
		t, err := catalog.ViewTotals(s.Log.View, shard)
		if err != nil {
			return err
		}
		todo := t.UnderReplicated > 0
		for id, sum := range t.Nodes {
			todo = todo || sum.Stored.Images > 0 && (slices.Contains(leaving, id) || !slices.Contains(s.Members(shard), id))
		}
		if !todo {
			continue
		}
		err = s.records(ctx, shard, func(rec *image.Record) error {
			s.healOne(ctx, rec, leaving)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// recover makes the copies anew that the log has on this node and that are not there, as when its
// disk is new. It looks once at each shard.
func (s *Service) recover(ctx context.Context) error {
	type lost struct {
		rec *image.Record
		c   image.Copy
	}
	var all []lost
	var shards []uint64
	for _, shard := range s.Shards() {
		if s.scanned[shard] {
			continue
		}
		err := s.records(ctx, shard, func(rec *image.Record) error {
			i := slices.Index(rec.Replicas(), s.Node)
			if i < 0 {
				return nil
			}
			has, err := s.Copies.Has(rec.ID, rec.Copies[i].Epoch)
			if err == nil && !has {
				all = append(all, lost{rec, rec.Copies[i]})
			}
			return err
		})
		if err != nil {
			return err
		}
		shards = append(shards, shard)
	}
	if len(all) > 0 {
		s.Logger.Warn("copies are missing on this node", zap.Int("images", len(all)))
	}
	s.missing.Store(int64(len(all)))
	for _, x := range all {
		// Damaged or out of reach elsewhere: reading, the scrub and the next start look again.
		if s.make(ctx, x.rec, []image.Copy{x.c}) {
			s.made.Add(1)
			s.missing.Add(-1)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	if s.missing.Load() == 0 {
		for _, shard := range shards {
			s.scanned[shard] = true
		}
	}
	return nil
}

// records calls fn with all records of a shard, page by page, until it fails or ctx is done.
func (s *Service) records(ctx context.Context, shard uint64, fn func(*image.Record) error) error {
	for after := []byte(nil); ; {
		var page []*image.Record
		err := s.Log.View(shard, func(r catalog.Reader) (err error) {
			page, after, err = catalog.Records(r, after, pageRecords)
			return err
		})
		if err != nil {
			return err
		}
		for _, rec := range page {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err := fn(rec); err != nil {
				return err
			}
		}
		if after == nil {
			return nil
		}
	}
}

// healOne makes a copy of an image on this node if it is the one to do so.
func (s *Service) healOne(ctx context.Context, rec *image.Record, leaving []image.NodeID) {
	drop, mine := missing(rec, s.Node, s.Members(rec.Shard), s.Room(rec.Shard), leaving)
	if !mine {
		return
	}
	if s.make(ctx, rec, drop) {
		s.made.Add(1)
	}
}

// missing tells whether a node is to make one of an image's missing copies, and which copy it
// replaces: one of a node that leaves, or that does not hold the shard any more. All nodes come to the
// same answer from the same view, but nothing
// is wrong when they do not.
func missing(rec *image.Record, self image.NodeID, members, room, leaving []image.NodeID) (drop []image.Copy, mine bool) {
	var lost []image.Copy
	var free []image.NodeID
	for _, c := range rec.Copies {
		if slices.Contains(leaving, c.Node) || !slices.Contains(members, c.Node) {
			lost = append(lost, c)
		}
	}
	for _, n := range placement.Rank(rec.User, rec.Name, members) {
		if slices.Contains(room, n) && !slices.Contains(rec.Replicas(), n) {
			free = append(free, n)
		}
	}
	place := slices.Index(free, self)
	fresh := max(0, rec.Wanted-len(rec.Copies))
	switch {
	case place < 0 || place >= fresh+len(lost):
		return nil, false
	case place < fresh:
		return nil, true
	}
	return lost[place-fresh : place-fresh+1], true
}

// make fetches a copy of an image and names it in the log in place of those in drop. It tells whether
// the image now has this copy. Failures are logged and tried again by the next look.
func (s *Service) make(ctx context.Context, rec *image.Record, drop []image.Copy) bool {
	select {
	case s.fixing <- struct{}{}:
		defer func() { <-s.fixing }()
	case <-ctx.Done():
		return false
	}
	up := s.Up()
	for _, from := range rec.Copies {
		if from.Node == s.Node || !slices.Contains(up, from.Node) {
			continue
		}
		err := s.makeFrom(ctx, rec, from, drop)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		s.Logger.Warn("a copy was not made", zap.String("user", rec.User), zap.Stringer("image", rec.ID), zap.Uint32("from", uint32(from.Node)), zap.Error(err))
		if kind := image.KindOf(err); kind == image.KindDamaged {
			s.Suspect(rec, from.Node)
		} else if kind == image.KindStale || kind == image.KindDiskFull {
			return false
		}
	}
	return false
}

func (s *Service) makeFrom(ctx context.Context, rec *image.Record, from image.Copy, drop []image.Copy) error {
	to := image.Copy{Node: s.Node, Epoch: from.Epoch}
	release := s.Copies.Keep(rec.ID, to.Epoch)
	defer release()
	s.pace.wait(ctx, rec.Bytes)
	failpoint.Here("repair/before-fetch")
	if err := s.Copies.Fetch(ctx, rec, from); err != nil {
		return err
	}
	failpoint.Here("repair/fetched")
	s.bytes.Add(rec.Bytes)
	if slices.Contains(rec.Copies, to) {
		return nil // its file was replaced by one of the same name
	}
	cmd := catalog.Command{Recopy: &catalog.Recopy{User: rec.User, Name: rec.Name, ID: rec.ID, Add: []image.Copy{to}, Drop: drop}}
	for {
		r, err := s.Log.Propose(ctx, rec.Shard, cmd)
		if err == nil {
			failpoint.Here("repair/recopied")
			if err = r.Err(); err != nil {
				release()
				failpoint.Here("repair/before-remove")
				return errors.Join(err, s.Copies.Remove(rec.ID, to.Epoch))
			}
			s.Logger.Info("a copy was made", zap.String("user", rec.User), zap.Stringer("image", rec.ID),
				zap.Uint32("from", uint32(from.Node)), zap.Any("dropped", drop))
			return nil
		}
		// It may be committed all the same: the file stays until that is known, or this node has nothing to do
		// with the shard any more.
		if !slices.Contains(s.Shards(), rec.Shard) || !wait.For(ctx, retryPause) {
			return err
		}
	}
}

// Finding is a copy of this node that is damaged or missing.
type Finding struct {
	Record   *image.Record
	Copy     image.Copy
	Err      error
	Repaired bool
}

// check verifies this node's copy of an image, and replaces it when it is bad and fix is set. It
// returns nil when there is no copy, the copy is good, or that could not be found out, which ok tells.
func (s *Service) check(ctx context.Context, rec *image.Record, fix bool) (f *Finding, ok bool) {
	i := slices.Index(rec.Replicas(), s.Node)
	if i < 0 {
		return nil, true
	}
	c := rec.Copies[i]
	err := s.Copies.Verify(ctx, rec, c.Epoch)
	if err == nil {
		return nil, true
	}
	if kind := image.KindOf(err); ctx.Err() != nil || kind != image.KindNotFound && kind != image.KindDamaged {
		if ctx.Err() == nil && kind != image.KindNoQuorum {
			s.Logger.Warn("a copy was not looked at", zap.String("user", rec.User), zap.Stringer("image", rec.ID), zap.Uint32("epoch", c.Epoch), zap.Error(err))
		}
		return nil, false
	}
	var now *image.Record
	viewErr := s.Log.View(rec.Shard, func(r catalog.Reader) (err error) {
		now, err = catalog.GetRecord(r, rec.User, rec.Name)
		return err
	})
	if viewErr != nil {
		return nil, false
	}
	if now == nil || now.ID != rec.ID || !slices.Contains(now.Copies, c) {
		return nil, true // deleted or replaced meanwhile
	}
	s.damaged.Add(1)
	s.Logger.Error("a copy is damaged", zap.String("user", rec.User), zap.Stringer("image", rec.ID), zap.Uint32("epoch", c.Epoch), zap.Error(err))
	f = &Finding{Record: now, Copy: c, Err: err}
	if fix && s.make(ctx, now, []image.Copy{c}) {
		f.Repaired = true
		s.replaced.Add(1)
	}
	return f, true
}

// pace spreads work over time, so that it does not exceed rate on average.
type pace struct {
	rate int64 // bytes a second
	mu   sync.Mutex
	next time.Time
}

// wait returns when n more bytes may be worked on, or ctx is done.
func (p *pace) wait(ctx context.Context, n int64) {
	p.mu.Lock()
	now := time.Now()
	if p.next.Before(now) {
		p.next = now
	}
	until := p.next
	p.next = p.next.Add(time.Duration(float64(n) / float64(p.rate) * float64(time.Second)))
	p.mu.Unlock()
	wait.For(ctx, until.Sub(now))
}

package ingest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/clustertest/memkv"
	"imgcluster/cluster/clustertest/poll"
	"imgcluster/cluster/image"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testShard = 2

// fakeLog is one shard's log in memory, with the real catalog behind it. Every node applies at once,
// but for those that fall behind.
type fakeLog struct {
	mu     sync.Mutex
	db     memkv.KV
	index  uint64
	leader image.NodeID
	nodes  map[image.NodeID]*Service
	hold   map[string]chan struct{} // proposals of this kind wait, until the channel is closed
	cut    bool                     // no quorum
	behind map[image.NodeID]*replica
}

// replica is what a node that has fallen behind sees, and what it is yet to hear.
type replica struct {
	db     memkv.KV
	events [][]catalog.Event
}

// nodeLog is the log as one node sees it.
type nodeLog struct {
	*fakeLog
	node image.NodeID
}

func (l nodeLog) View(shard uint64, fn func(catalog.Reader) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.behind[l.node]; r != nil {
		return fn(r.db)
	}
	return fn(l.db)
}

// fallBehind keeps what is committed from now on from a node, until catchUp.
func (l *fakeLog) fallBehind(id image.NodeID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.behind[id] = &replica{db: maps.Clone(l.db)}
}

func (l *fakeLog) catchUp(id image.NodeID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, events := range l.behind[id].events {
		l.nodes[id].Applied(testShard, events)
	}
	delete(l.behind, id)
}

func kindOf(c catalog.Command) string {
	switch {
	case c.Assign != nil:
		return "assign"
	case c.Stored != nil:
		return "stored"
	}
	return "other"
}

func (l *fakeLog) Propose(ctx context.Context, shard uint64, c catalog.Command) (catalog.Result, error) {
	l.mu.Lock()
	gate := l.hold[kindOf(c)]
	l.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return catalog.Result{}, context.Cause(ctx)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		return catalog.Result{}, image.Errorf(image.KindNoQuorum, "no quorum")
	}
	l.index++
	b, events, err := catalog.Apply(l.db, shard, l.index, c.Encode())
	if err != nil {
		return catalog.Result{}, err
	}
	for id, s := range l.nodes {
		if r := l.behind[id]; r != nil {
			r.events = append(r.events, events)
			continue
		}
		s.Applied(shard, events)
	}
	return catalog.DecodeResult(b)
}

func (l *fakeLog) Leader(uint64) image.NodeID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leader
}

// fakeVault keeps "encrypted" copies in memory.
type fakeVault struct {
	mu    sync.Mutex
	files map[image.Copy][]byte // by epoch; Node is unused
	fail  error                 // of Create
	stall chan struct{}         // Commit waits for it
	lose  error                 // of Commit: nothing is durable
}

type fakeFile struct {
	bytes.Buffer
	v     *fakeVault
	epoch uint32
}

func (v *fakeVault) Create(_ context.Context, _ string, _ image.ID, epoch uint32, _ int64) (CopyWriter, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.fail != nil {
		return nil, v.fail
	}
	return &fakeFile{v: v, epoch: epoch}, nil
}

func (v *fakeVault) Remove(_ image.ID, epoch uint32) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.files, image.Copy{Epoch: epoch})
	return nil
}

func (v *fakeVault) count() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.files)
}

func (f *fakeFile) Commit() error {
	if f.v.stall != nil {
		<-f.v.stall
	}
	f.v.mu.Lock()
	defer f.v.mu.Unlock()
	if f.v.lose != nil {
		return f.v.lose
	}
	f.v.files[image.Copy{Epoch: f.epoch}] = slices.Clone(f.Bytes())
	return nil
}

func (f *fakeFile) Abort() {}

// fleet is three nodes' services on one fake log.
type fleet struct {
	t      *testing.T
	log    *fakeLog
	nodes  map[image.NodeID]*Service
	vaults map[image.NodeID]*fakeVault
	mu     sync.Mutex
	live   []image.NodeID
	full   []image.NodeID
	paused []image.NodeID // take nothing and say nothing

	owned map[image.ID][]Owned // what the nodes told of; mu guards it
}

// Send implements Peers by a call.
func (f *fleet) Send(ctx context.Context, to image.NodeID, req image.Request, body io.Reader) error {
	f.mu.Lock()
	paused := slices.Contains(f.paused, to)
	f.mu.Unlock()
	if paused {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	_, err := f.nodes[to].Receive(ctx, req, body)
	return err
}

// receives implements Options.ReceivedBy.
func (f *fleet) receives(node image.NodeID, id image.ID) bool {
	return slices.Contains(f.alive(), node) && slices.Contains(f.nodes[node].Receiving(), id)
}

func (f *fleet) alive() []image.NodeID {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.live)
}

func (f *fleet) roomy() []image.NodeID {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(f.live), func(n image.NodeID) bool { return slices.Contains(f.full, n) })
}

func (f *fleet) fill(ids ...image.NodeID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.full = ids
}

func (f *fleet) kill(id image.NodeID) {
	f.mu.Lock()
	f.live = slices.DeleteFunc(f.live, func(n image.NodeID) bool { return n == id })
	f.mu.Unlock()
	for _, s := range f.nodes {
		s.Kick()
	}
}

// quickTakeover is for tests of takeovers. In all others a busy machine must not look like a slow node.
func quickTakeover(o *Options) { o.TakeoverTimeout = 200 * time.Millisecond }

func newFleet(t *testing.T, change func(*Options)) *fleet {
	f := &fleet{
		t: t, nodes: map[image.NodeID]*Service{}, vaults: map[image.NodeID]*fakeVault{}, owned: map[image.ID][]Owned{}, live: []image.NodeID{1, 2, 3},
		log: &fakeLog{db: memkv.KV{}, leader: 1, nodes: map[image.NodeID]*Service{}, hold: map[string]chan struct{}{}, behind: map[image.NodeID]*replica{}},
	}
	for _, id := range f.live {
		f.vaults[id] = &fakeVault{files: map[image.Copy][]byte{}}
		o := Options{
			Node: id, Log: nodeLog{f.log, id}, Vault: f.vaults[id], Peers: f, Logger: zap.NewNop(), Shards: func() []uint64 { return []uint64{testShard} },
			ShardOf: func(string, string) uint64 { return testShard },
			Members: func(uint64) []image.NodeID { return []image.NodeID{1, 2, 3} }, Up: f.alive, Live: f.alive, Room: f.roomy, Current: func(uint64) []image.NodeID { return f.alive() },
			Owned: f.own, Replicas: 2, MinReplicas: 1, UploadsMax: 8, StagingBytes: 16 << 20, ImageBytes: 64 << 20,
			ReceivedBy: f.receives, AssignTimeout: 50 * time.Millisecond, TakeoverTimeout: 5 * time.Second, UploadTimeout: time.Minute, QuorumTimeout: time.Minute,
		}
		if change != nil {
			change(&o)
		}
		s, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		f.nodes[id] = s
	}
	f.log.mu.Lock()
	f.log.nodes = f.nodes
	f.log.mu.Unlock()
	t.Cleanup(func() {
		for _, s := range f.nodes {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if _, staging := s.Stats(); staging != 0 {
				t.Errorf("node %d leaked %d bytes of staging", s.Node, staging)
			}
		}
	})
	return f
}

func (f *fleet) own(o Owned) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.owned[o.ID] = append(f.owned[o.ID], o)
}

// told waits until the owner of a record has told of it, which it does once.
func (f *fleet) told(rec *image.Record) Owned {
	f.t.Helper()
	eventually(f.t, "the owner to tell", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.owned[rec.ID]) > 0
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	o := f.owned[rec.ID][0]
	if len(f.owned[rec.ID]) > 1 || o.Owner != rec.Owner || o.Took <= 0 {
		f.t.Errorf("told of %+v", f.owned[rec.ID])
	}
	return o
}

// answer is what one node said.
type answer struct {
	node image.NodeID
	rec  *image.Record
	err  error
}

// broadcast sends a body to the nodes at once; bodies has another reader for some of them.
func (f *fleet) broadcast(req image.Request, body []byte, bodies map[image.NodeID]io.Reader) []answer {
	f.t.Helper()
	req.Size = int64(len(body))
	req.Broadcast = []image.NodeID{1, 2, 3}
	answers := make(chan answer)
	for id, s := range f.nodes {
		go func() {
			r := bodies[id]
			if r == nil {
				r = bytes.NewReader(body)
			}
			rec, err := s.Receive(f.t.Context(), req, r)
			answers <- answer{id, rec, err}
		}()
	}
	var all []answer
	for range f.nodes {
		select {
		case a := <-answers:
			all = append(all, a)
		case <-time.After(90 * time.Second):
			f.t.Fatalf("no answer; so far %+v", all)
		}
	}
	return all
}

// record returns the one record that all successful answers agree on.
func (f *fleet) record(answers []answer, dead ...image.NodeID) *image.Record {
	f.t.Helper()
	var rec *image.Record
	for _, a := range answers {
		if slices.Contains(dead, a.node) {
			continue
		}
		if a.err != nil {
			f.t.Fatalf("node %d: %v", a.node, a.err)
		}
		if rec == nil {
			rec = a.rec
		}
		if a.rec.ID != rec.ID || a.rec.Version != rec.Version || !slices.Equal(a.rec.Copies, rec.Copies) {
			f.t.Fatalf("node %d says %+v, another %+v", a.node, a.rec, rec)
		}
	}
	return rec
}

// stored checks that the copies of a record are on its nodes, whole, and nothing else is anywhere.
func (f *fleet) stored(rec *image.Record, body []byte) {
	f.t.Helper()
	if rec.Check != xxhash.Sum64(body) || rec.SHA256 != nil && *rec.SHA256 != sha256.Sum256(body) {
		f.t.Errorf("the record's check or digest is not the body's")
	}
	for id, v := range f.vaults {
		i := slices.IndexFunc(rec.Copies, func(c image.Copy) bool { return c.Node == id })
		if i < 0 {
			eventually(f.t, "files of a node without a copy to go", func() bool { return v.count() == 0 })
			continue
		}
		v.mu.Lock()
		if !bytes.Equal(v.files[image.Copy{Epoch: rec.Copies[i].Epoch}], body) {
			f.t.Errorf("node %d has not the whole image", id)
		}
		v.mu.Unlock()
	}
}

// eventually polls until ok, with a deadline.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	poll.Until(t, 20*time.Second, what, ok)
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n)}).Read(b)
	return b
}

func request(name string) image.Request {
	return image.Request{ID: image.NewID(), User: "alice", Name: name}
}

// errCut is a broken connection.
var errCut = errors.New("connection reset")

// cutAfter reads the first n bytes of b and then fails.
func cutAfter(b []byte, n int) io.Reader {
	return io.MultiReader(bytes.NewReader(b[:n]), errReader{errCut})
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }

// gated gives no byte after the first n before open is closed.
func gated(b []byte, n int, open <-chan struct{}) io.Reader {
	return io.MultiReader(bytes.NewReader(b[:n]), waitReader{open}, bytes.NewReader(b[n:]))
}

type waitReader struct{ open <-chan struct{} }

func (w waitReader) Read([]byte) (int, error) {
	<-w.open
	return 0, io.EOF
}

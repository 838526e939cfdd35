package ingest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"go.uber.org/goleak"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/clustertest/memkv"
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
	text   []byte // of all commands
}

// replica is what a node that has fallen behind sees, and the events that it has yet to get.
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
	l.text = append(l.text, c.Encode()...)
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

// changingLog has a change, where there is one, come between a read of the log and what is made of it.
type changingLog struct {
	Log
	change *atomic.Pointer[func()]
}

func (l changingLog) View(shard uint64, fn func(catalog.Reader) error) error {
	err := l.Log.View(shard, fn)
	if change := l.change.Load(); change != nil {
		(*change)()
	}
	return err
}

// fakeVault keeps "encrypted" copies in memory.
type fakeVault struct {
	mu         sync.Mutex
	files      map[image.FileID][]byte
	digestOnly bool          // keeps the SHA-256 of each file in place of its bytes
	fail       error         // of Create
	stall      chan struct{} // Commit waits for it
	lose       error         // of Commit: nothing is durable
}

type fakeFile struct {
	io.Writer
	kept func() []byte // of all that was written
	v    *fakeVault
	key  image.FileID
}

func (v *fakeVault) Create(
	_ context.Context, _ string, file image.FileID, _ int64,
) (CopyWriter, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.fail != nil {
		return nil, v.fail
	}
	f := &fakeFile{v: v, key: file} // of the user's key 0
	if v.digestOnly {
		h := sha256.New()
		f.Writer = h
		f.kept = func() []byte { return h.Sum(nil) }
	} else {
		b := &bytes.Buffer{}
		f.Writer = b
		f.kept = b.Bytes
	}
	return f, nil
}

func (v *fakeVault) Remove(file image.FileID) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.files, file)
	return nil
}

func (v *fakeVault) Of(shard uint64, upload image.ID) (files []image.FileID, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for f := range v.files {
		if f.Shard == shard && f.Image == upload {
			files = append(files, f)
		}
	}
	return files, nil
}

// count returns the number of files.
func (v *fakeVault) count() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.files)
}

// file returns what is kept of a file, nil when there is none.
func (v *fakeVault) file(f image.FileID) []byte {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.files[f]
}

// leave puts a file there, as an earlier process has left it.
func (v *fakeVault) leave(upload image.ID, text string) image.FileID {
	f := image.FileID{Image: upload, Shard: testShard, Attempt: image.NewAttempt()}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.files[f] = []byte(text)
	return f
}

func (f *fakeFile) UserKey() uint32 { return 0 }

func (f *fakeFile) Commit() error {
	if f.v.stall != nil {
		<-f.v.stall
	}
	f.v.mu.Lock()
	defer f.v.mu.Unlock()
	if f.v.lose != nil {
		return f.v.lose
	}
	f.v.files[f.key] = slices.Clone(f.kept())
	return nil
}

func (f *fakeFile) Abort() {}

// fakeSealer needs no key.
type fakeSealer struct{}

type fakeCheck struct{ hash.Hash }

func (fakeSealer) Check(_ context.Context, _ string, id image.ID) (Check, error) {
	c := fakeCheck{sha256.New()}
	c.Write(id[:])
	return c, nil
}

func (c fakeCheck) Sum() image.Check {
	return image.Check{Key: 1, MAC: image.MAC(c.Hash.Sum(nil)[:16])}
}

func (fakeSealer) Seal(_ context.Context, _ string, d image.Digest) (image.SealedDigest, error) {
	return sealed(d), nil
}

func sealed(d image.Digest) (s image.SealedDigest) {
	for i, b := range d {
		s[i] = ^b
	}
	return s
}

// checkOf returns the check of an upload's bytes.
func checkOf(id image.ID, body []byte) image.Check {
	c, _ := fakeSealer{}.Check(context.Background(), "", id)
	c.Write(body)
	return c.Sum()
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n)}).Read(b)
	return b
}

func request(name string) image.Request {
	return image.Request{ID: image.NewID(), User: "alice", Name: name}
}

// together returns a body for each node; none gives a byte before all of them have taken the upload in.
func together(body []byte, ids ...image.NodeID) map[image.NodeID]io.Reader {
	var taken sync.WaitGroup
	taken.Add(len(ids))
	open := make(chan struct{})
	go func() {
		taken.Wait()
		close(open)
	}()
	bodies := map[image.NodeID]io.Reader{}
	for _, id := range ids {
		bodies[id] = io.MultiReader(callReader(taken.Done), gated(body, 0, open))
	}
	return bodies
}

// callReader is an empty body that calls a function when it is read.
type callReader func()

func (c callReader) Read([]byte) (int, error) {
	c()
	return 0, io.EOF
}

// errCut is a broken connection.
var errCut = errors.New("connection reset")

// cutAfter reads the first n bytes of b and then fails.
func cutAfter(b []byte, n int) io.Reader {
	return io.MultiReader(bytes.NewReader(b[:n]), iotest.ErrReader(errCut))
}

// gated gives no byte after the first n before open is closed.
func gated(b []byte, n int, open <-chan struct{}) io.Reader {
	return io.MultiReader(bytes.NewReader(b[:n]), waitReader{open}, bytes.NewReader(b[n:]))
}

type waitReader struct{ open <-chan struct{} }

func (w waitReader) Read([]byte) (int, error) {
	<-w.open
	return 0, io.EOF
}

// slowly gives a body in `steps` parts, one after each wait of `every`.
func slowly(b []byte, steps int, every time.Duration) io.Reader {
	var parts []io.Reader
	for part := range slices.Chunk(b, (len(b)+steps-1)/steps) {
		parts = append(parts, afterReader{every}, bytes.NewReader(part))
	}
	return io.MultiReader(parts...)
}

type afterReader struct{ d time.Duration }

func (a afterReader) Read([]byte) (int, error) {
	<-time.After(a.d)
	return 0, io.EOF
}

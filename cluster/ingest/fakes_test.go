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

// fakeLog is one shard's log in memory, with the real catalog behind it. Every node applies at once, but for
// those that fall behind.
type fakeLog struct {
	entry sync.Mutex // held while an entry is applied and acted on

	mu       sync.Mutex
	db       memkv.KV
	index    uint64
	commands []catalog.Command // one an entry
	leader   image.NodeID
	nodes    map[image.NodeID]*Service
	hold     map[string]chan struct{} // proposals of this kind wait, until the channel is closed
	cut      bool                     // no quorum
	dead     []image.NodeID           // see no leader, and cannot propose
	behind   map[image.NodeID]*replica
	blind    image.NodeID // cannot read its state
	text     []byte       // of all commands
}

// replica is what a node that has fallen behind sees, and the entries that it has yet to get.
type replica struct {
	db     memkv.KV
	missed []missed
}

type missed struct {
	index  uint64
	events []catalog.Event
}

// nodeLog is the log as one node sees it.
type nodeLog struct {
	*fakeLog
	node image.NodeID
}

func (l nodeLog) View(shard uint64, fn func(catalog.Reader) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.blind == l.node {
		return errors.New("the state cannot be read")
	}
	if r := l.behind[l.node]; r != nil {
		return fn(r.db)
	}
	return fn(l.db)
}

func (l nodeLog) Leader(uint64) image.NodeID {
	l.mu.Lock()
	defer l.mu.Unlock()
	if slices.Contains(l.dead, l.node) {
		return 0
	}
	return l.leader
}

func (l nodeLog) Propose(ctx context.Context, shard uint64, c catalog.Command) (catalog.Result, error) {
	if err := l.wait(ctx, c); err != nil {
		return catalog.Result{}, err
	}
	l.mu.Lock()
	dead := slices.Contains(l.dead, l.node)
	l.mu.Unlock()
	if dead {
		return catalog.Result{}, image.Errorf(image.KindNoQuorum, "node %d is down", l.node)
	}
	return l.append(shard, c)
}

// fallBehind keeps what is committed from now on from a node, until catchUp or restore.
func (l *fakeLog) fallBehind(id image.NodeID) {
	l.entry.Lock()
	defer l.entry.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.behind[id] = &replica{db: maps.Clone(l.db)}
}

// catchUp gives a node all entries that it has missed.
func (l *fakeLog) catchUp(id image.NodeID) {
	l.entry.Lock()
	defer l.entry.Unlock()
	for _, m := range l.back(id).missed {
		l.nodes[id].Applied(testShard, m.index, m.events)
	}
}

// restore gives a node the state without the entries that it has missed, as a snapshot does.
func (l *fakeLog) restore(id image.NodeID) {
	l.entry.Lock()
	defer l.entry.Unlock()
	l.back(id)
	l.nodes[id].Restored(testShard, l.index)
}

// back ends fallBehind. The caller holds entry.
func (l *fakeLog) back(id image.NodeID) *replica {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.behind[id]
	delete(l.behind, id)
	return r
}

// kindOf names a command.
func kindOf(c catalog.Command) string {
	switch {
	case c.Commit != nil:
		return "commit"
	case c.End != nil:
		return "end"
	case c.Abort != nil:
		return "abort"
	}
	return "other"
}

// wait waits while proposals like c are held.
func (l *fakeLog) wait(ctx context.Context, c catalog.Command) error {
	l.mu.Lock()
	gate := l.hold[kindOf(c)]
	l.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// holdBack has proposals of a kind wait until the function that it returns is called.
func (l *fakeLog) holdBack(kind string) (release func()) {
	gate := make(chan struct{})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hold[kind] = gate
	return sync.OnceFunc(func() { close(gate) })
}

// append puts a command into the log, and has the nodes apply it and act on it.
func (l *fakeLog) append(shard uint64, c catalog.Command) (catalog.Result, error) {
	l.entry.Lock()
	defer l.entry.Unlock()
	b, events, err := l.apply(shard, c)
	if err != nil {
		return catalog.Result{}, err
	}
	for id, s := range l.nodes {
		l.mu.Lock()
		r := l.behind[id]
		if r != nil {
			r.missed = append(r.missed, missed{l.index, events})
		}
		l.mu.Unlock()
		if r == nil {
			s.Applied(shard, l.index, events)
		}
	}
	return catalog.DecodeResult(b)
}

func (l *fakeLog) apply(shard uint64, c catalog.Command) (result []byte, events []catalog.Event, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		return nil, nil, image.Errorf(image.KindNoQuorum, "no quorum")
	}
	l.index++
	l.commands = append(l.commands, c)
	l.text = append(l.text, c.Encode()...)
	return catalog.Apply(l.db, shard, l.index, c.Encode())
}

// blindfold has a node that cannot read its state, 0: none.
func (l *fakeLog) blindfold(id image.NodeID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.blind = id
}

// cutOff has the log without a quorum, or with one again.
func (l *fakeLog) cutOff(is bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = is
}

// entries returns the kinds of the log's entries.
func (l *fakeLog) entries() (kinds []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.commands {
		kinds = append(kinds, kindOf(c))
	}
	return kinds
}

// fakeVault keeps "encrypted" copies in memory.
type fakeVault struct {
	mu         sync.Mutex
	files      map[image.FileID][]byte
	digestOnly bool          // keeps the SHA-256 of each file in place of its bytes
	fail       error         // of Create
	open       chan struct{} // Create waits for it
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
	if v.open != nil {
		<-v.open
	}
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

// refuse has Create fail from now on.
func (v *fakeVault) refuse(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.fail = err
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

// openCopy implements Options.OpenCopy.
func (v *fakeVault) openCopy(_ context.Context, rec *image.Record) io.ReadCloser {
	return io.NopCloser(bytes.NewReader(v.file(rec.File(rec.Copies[0]))))
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

package ingest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/clustertest/memkv"
	"imgcluster/cluster/clustertest/poll"
	"imgcluster/cluster/image"
)

// fleet is three nodes' services on one fake log.
type fleet struct {
	t      *testing.T
	log    *fakeLog
	nodes  map[image.NodeID]*Service
	vaults map[image.NodeID]*fakeVault

	mu     sync.Mutex
	live   []image.NodeID
	full   []image.NodeID
	paused []image.NodeID       // take nothing and say nothing
	behind bool                 // the nodes have not caught up with the log of their shard since their start
	owned  map[image.ID][]Owned // the calls of Options.Owned
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
	return slices.DeleteFunc(slices.Clone(f.live),
		func(n image.NodeID) bool { return slices.Contains(f.full, n) })
}

// serves implements Options.Shards.
func (f *fleet) serves() []uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.behind {
		return nil
	}
	return []uint64{testShard}
}

// catchUp has the nodes be up to date with their shard, or not.
func (f *fleet) catchUp(is bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.behind = !is
}

// wanted implements Options.Wanted.
func (f *fleet) wanted(id image.NodeID, file image.FileID) (wanted bool, err error) {
	err = f.nodes[id].Log.View(file.Shard, func(r catalog.Reader) (err error) {
		wanted, err = catalog.Wants(r, id, file)
		return err
	})
	return wanted, err
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

// quickTakeover is for tests of takeovers. In all others a busy host must not look like a slow node.
func quickTakeover(o *Options) { o.TakeoverTimeout = 200 * time.Millisecond }

func (f *fleet) options(id image.NodeID) Options {
	return Options{
		Node:            id,
		Log:             nodeLog{f.log, id},
		Store:           f.vaults[id],
		Sealer:          fakeSealer{},
		Peers:           f,
		Logger:          zap.NewNop(),
		Shards:          f.serves,
		Serves:          func(shard uint64) bool { return slices.Contains(f.serves(), shard) },
		Wanted:          func(file image.FileID) (bool, error) { return f.wanted(id, file) },
		ShardOf:         func(string, string) uint64 { return testShard },
		ShardNodes:      func(uint64) []image.NodeID { return []image.NodeID{1, 2, 3} },
		Up:              f.alive,
		Live:            f.alive,
		Room:            f.roomy,
		UpToDate:        func(uint64) []image.NodeID { return f.alive() },
		Owned:           f.own,
		ReceivedBy:      f.receives,
		Replicas:        2,
		MinReplicas:     1,
		UploadsMax:      8,
		StagingBytes:    16 << 20,
		Pieces:          [2]int{ChunkBytes - 40, ChunkBytes - 32},
		AssignTimeout:   50 * time.Millisecond,
		TakeoverTimeout: 5 * time.Second,
		UploadTimeout:   time.Minute,
		QuorumTimeout:   time.Minute,
	}
}

func newFleet(t *testing.T, change func(*Options)) *fleet {
	f := &fleet{
		t:      t,
		nodes:  map[image.NodeID]*Service{},
		vaults: map[image.NodeID]*fakeVault{},
		owned:  map[image.ID][]Owned{},
		live:   []image.NodeID{1, 2, 3},
		log: &fakeLog{
			db: memkv.KV{}, leader: 1, nodes: map[image.NodeID]*Service{},
			hold: map[string]chan struct{}{}, behind: map[image.NodeID]*replica{},
		},
	}
	for _, id := range f.live {
		f.vaults[id] = &fakeVault{files: map[image.FileID][]byte{}}
		o := f.options(id)
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

// relay sends an upload to one node alone.
func (f *fleet) relay(to image.NodeID, req image.Request, body []byte) (*image.Record, error) {
	req.Size = int64(len(body))
	return f.nodes[to].Receive(f.t.Context(), req, bytes.NewReader(body))
}

// propose puts a command into the log, which has to accept it.
func (f *fleet) propose(c catalog.Command) {
	f.t.Helper()
	if r, err := f.log.Propose(f.t.Context(), testShard, c); err != nil || r.Err() != nil {
		f.t.Fatal(err, r.Err())
	}
}

// assign puts the assignment of an upload into the log that no node has received.
func (f *fleet) assign(req image.Request, replicas int, holders ...image.NodeID) {
	f.t.Helper()
	f.propose(catalog.Command{Assign: &catalog.Assign{
		ID: req.ID, User: req.User, Name: req.Name, Bytes: 10,
		Holders: holders, Replicas: replicas, Created: time.Unix(1, 0),
	}})
}

// reassign takes an upload away from a node.
func (f *fleet) reassign(id image.ID, epoch uint32, drop image.NodeID) {
	f.t.Helper()
	f.propose(catalog.Command{Reassign: &catalog.Reassign{
		ID: id, Epoch: epoch, Drop: []image.NodeID{drop}, Min: 1, Cause: image.KindAborted, Text: "test",
	}})
}

// answer is what one node answered.
type answer struct {
	node image.NodeID
	rec  *image.Record
	err  error
}

// broadcast sends a body to the nodes at once; bodies has another reader for some of them.
func (f *fleet) broadcast(req image.Request, body []byte, bodies map[image.NodeID]io.Reader) []answer {
	f.t.Helper()
	req.Size = int64(len(body))
	return f.broadcastOf(req, func(id image.NodeID) io.Reader {
		if r := bodies[id]; r != nil {
			return r
		}
		return bytes.NewReader(body)
	})
}

// broadcastOf sends each node its own body of req.Size bytes.
func (f *fleet) broadcastOf(req image.Request, body func(image.NodeID) io.Reader) []answer {
	f.t.Helper()
	req.Broadcast = []image.NodeID{1, 2, 3}
	answers := make(chan answer)
	for id, s := range f.nodes {
		go func() {
			rec, err := s.Receive(f.t.Context(), req, body(id))
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

// assigned waits for the assignment of an upload and returns its newest state.
func (f *fleet) assigned(id image.ID) (u *catalog.Upload) {
	f.t.Helper()
	eventually(f.t, "an assignment", func() bool {
		f.log.mu.Lock()
		defer f.log.mu.Unlock()
		u, _ = catalog.GetUpload(f.log.db, id)
		return u != nil
	})
	return u
}

// expectRecord returns the one record on which all answers but those of dead nodes agree.
func (f *fleet) expectRecord(answers []answer, dead ...image.NodeID) *image.Record {
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
			f.t.Fatalf("node %d answers %+v, another %+v", a.node, a.rec, rec)
		}
	}
	return rec
}

// expectKind checks that all nodes refused an upload in the same way.
func (f *fleet) expectKind(answers []answer, want image.Kind) {
	f.t.Helper()
	for _, a := range answers {
		if image.KindOf(a.err) != want {
			f.t.Errorf("node %d: %+v, %v, want %s", a.node, a.rec, a.err, want)
		}
	}
}

// expectUploads waits until a node has n uploads in progress.
func (f *fleet) expectUploads(node image.NodeID, n int) {
	f.t.Helper()
	eventually(f.t, fmt.Sprintf("%d uploads in progress on node %d", n, node), func() bool {
		uploads, _ := f.nodes[node].Stats()
		return uploads == n
	})
}

// expectNoFile waits until a node has no file.
func (f *fleet) expectNoFile(node image.NodeID) {
	f.t.Helper()
	eventually(f.t, fmt.Sprintf("node %d without a file", node),
		func() bool { return f.vaults[node].count() == 0 })
}

// expectStored checks that the copies of a record are on its nodes, byte for byte, and that no node has
// another file of the upload.
func (f *fleet) expectStored(rec *image.Record, body []byte) {
	f.t.Helper()
	if rec.Check != checkOf(rec.ID, body) || rec.Sealed != nil && *rec.Sealed != sealed(sha256.Sum256(body)) {
		f.t.Errorf("the record's check or digest is not the body's")
	}
	f.expectCopies(rec, body)
}

// expectCopies checks that the nodes of a record keep `kept` of it, and that no node has another file of the
// upload.
func (f *fleet) expectCopies(rec *image.Record, kept []byte) {
	f.t.Helper()
	for id, v := range f.vaults {
		var want []image.FileID
		for _, c := range rec.Copies {
			if c.Node == id {
				want = append(want, rec.File(c))
			}
		}
		eventually(f.t, fmt.Sprintf("node %d to have the files %v of the upload", id, want), func() bool {
			have, _ := v.Of(testShard, rec.ID)
			return slices.Equal(have, want)
		})
		for _, file := range want {
			if !bytes.Equal(v.file(file), kept) {
				f.t.Errorf("node %d does not have the whole image", id)
			}
		}
	}
}

// expectOwned waits for the call of Options.Owned at the owner of a record, which comes once.
func (f *fleet) expectOwned(rec *image.Record) Owned {
	f.t.Helper()
	eventually(f.t, "the call of Owned", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.owned[rec.ID]) > 0
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	o := f.owned[rec.ID][0]
	if len(f.owned[rec.ID]) > 1 || o.Owner != rec.Owner || o.Took <= 0 {
		f.t.Errorf("calls of Owned for one upload: %+v", f.owned[rec.ID])
	}
	return o
}

// expectNothing checks that a failed upload left no record and no file.
func (f *fleet) expectNothing(name string) {
	f.t.Helper()
	f.log.mu.Lock()
	rec, err := catalog.GetRecord(f.log.db, "alice", name)
	f.log.mu.Unlock()
	if rec != nil || err != nil {
		f.t.Errorf("a failed upload has the record %+v, %v", rec, err)
	}
	for id := range f.nodes {
		f.expectUploads(id, 0)
	}
}

// eventually polls until ok, with a deadline.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	poll.Until(t, 20*time.Second, what, ok)
}

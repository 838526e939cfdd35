package ingest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
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
	"imgcluster/cluster/commit"
	"imgcluster/cluster/image"
	"imgcluster/cluster/placement"
)

// fleet is three nodes' services on one fake log.
type fleet struct {
	t      *testing.T
	log    *fakeLog
	nodes  map[image.NodeID]*Service
	vaults map[image.NodeID]*fakeVault

	goes  sync.WaitGroup                 // messages and bodies on their way from one node to another
	downs map[image.NodeID]chan struct{} // closed by kill

	mu      sync.Mutex
	live    []image.NodeID
	full    []image.NodeID
	drains  []image.NodeID                              // take on nothing new
	paused  []image.NodeID                              // take nothing and say nothing
	loses   func(from, to image.NodeID, m Message) bool // whether a message is lost; nil: none is
	closed  bool                                        // no more messages
	owned   map[image.ID][]Owned                        // the calls of Options.Owned
	decided map[image.ID][]commit.Decision              // that a leader has told others, oldest first
}

// Send implements Peers by a call.
func (f *fleet) Send(ctx context.Context, to image.NodeID, req image.Request, body io.Reader) error {
	f.mu.Lock()
	paused, down := slices.Contains(f.paused, to), f.downs[to]
	f.mu.Unlock()
	if paused {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	answered := make(chan error, 1)
	f.goes.Go(func() {
		_, err := f.nodes[to].Receive(ctx, req, body)
		answered <- err
	})
	select {
	case err := <-answered:
		return err
	case <-down:
		return image.Errorf(image.KindAborted, "node %d went down", to)
	}
}

// mail implements Options.Mail of a node: each message comes by itself, in any order.
func (f *fleet) mail(from, to image.NodeID, m Message) {
	b, err := json.Marshal(m)
	if err != nil {
		f.t.Error(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if m.Decision != nil {
		f.decided[m.Decision.ID] = append(f.decided[m.Decision.ID], *m.Decision)
	}
	away := func(n image.NodeID) bool { return !slices.Contains(f.live, n) || slices.Contains(f.paused, n) }
	if f.closed || away(from) || away(to) || f.loses != nil && f.loses(from, to, m) {
		return
	}
	f.goes.Go(func() {
		var m Message
		if err := json.Unmarshal(b, &m); err != nil {
			f.t.Error(err)
		}
		f.nodes[to].Take(from, m)
	})
}

// lose has messages lost from now on; nil: none.
func (f *fleet) lose(which func(from, to image.NodeID, m Message) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.loses = which
}

// receives implements Options.ReceivedBy.
func (f *fleet) receives(node image.NodeID, id image.ID) bool {
	return slices.Contains(f.up(), node) && slices.Contains(f.nodes[node].Receiving(), id)
}

// up returns the nodes that are up.
func (f *fleet) up() []image.NodeID {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.live)
}

// takesOn returns the nodes that take on uploads.
func (f *fleet) takesOn() []image.NodeID {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(f.live),
		func(n image.NodeID) bool { return slices.Contains(f.drains, n) })
}

// roomy returns the nodes that take on uploads and have room for them.
func (f *fleet) roomy() []image.NodeID {
	return slices.DeleteFunc(f.takesOn(), func(n image.NodeID) bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return slices.Contains(f.full, n)
	})
}

func (f *fleet) fill(ids ...image.NodeID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.full = ids
}

// kill has the others see that a node is down, and nothing of it comes to them any more. It still applies the
// log, as it would once it is up again. When it led the shard, another node does.
func (f *fleet) kill(id image.NodeID) {
	f.mu.Lock()
	f.live = slices.DeleteFunc(f.live, func(n image.NodeID) bool { return n == id })
	next := f.live[0]
	close(f.downs[id])
	f.mu.Unlock()
	f.log.mu.Lock()
	f.log.dead = append(f.log.dead, id)
	led := f.log.leader == id
	f.log.mu.Unlock()
	if led {
		f.lead(next)
		return
	}
	f.kick()
}

// pause stops a node; the others do not see it as down. When it led the shard, another node does.
func (f *fleet) pause(id image.NodeID) {
	f.mu.Lock()
	f.paused = []image.NodeID{id}
	f.mu.Unlock()
	f.log.fallBehind(id)
	f.log.mu.Lock()
	f.log.dead = []image.NodeID{id}
	led := f.log.leader == id
	f.log.mu.Unlock()
	if led {
		f.lead(1 + id%3)
	}
}

// resume ends a pause.
func (f *fleet) resume(id image.NodeID) {
	f.mu.Lock()
	f.paused = nil
	f.mu.Unlock()
	f.log.mu.Lock()
	f.log.dead = nil
	f.log.mu.Unlock()
	f.log.catchUp(id)
}

// lead has a node lead the shard, 0: none.
func (f *fleet) lead(id image.NodeID) {
	f.log.mu.Lock()
	f.log.leader = id
	f.log.mu.Unlock()
	f.kick()
}

// kick has the nodes see what has changed.
func (f *fleet) kick() {
	for _, s := range f.nodes {
		s.Kick()
	}
}

func (f *fleet) options(id image.NodeID) Options {
	return Options{
		Node:            id,
		Log:             nodeLog{f.log, id},
		Store:           f.vaults[id],
		Sealer:          fakeSealer{},
		Peers:           f,
		OpenCopy:        f.vaults[id].openCopy,
		Mail:            func(to image.NodeID, m Message) { f.mail(id, to, m) },
		Logger:          zap.NewNop(),
		Shards:          func() []uint64 { return []uint64{testShard} },
		Serves:          func(shard uint64) bool { return shard == testShard },
		ShardOf:         func(string, string) uint64 { return testShard },
		ShardNodes:      func(uint64) []image.NodeID { return []image.NodeID{1, 2, 3} },
		Up:              f.up,
		Live:            f.takesOn,
		Room:            f.roomy,
		UpToDate:        func(uint64) []image.NodeID { return f.takesOn() },
		Owned:           f.own,
		ReceivedBy:      f.receives,
		Replicas:        2,
		MinReplicas:     1,
		UploadsMax:      8,
		StagingBytes:    16 << 20,
		Pieces:          [2]int{ChunkBytes - 40, ChunkBytes - 32},
		ReportTimeout:   50 * time.Millisecond,
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

		downs:   map[image.NodeID]chan struct{}{},
		decided: map[image.ID][]commit.Decision{},
		log: &fakeLog{
			db: memkv.KV{}, leader: 1, nodes: map[image.NodeID]*Service{},
			hold: map[string]chan struct{}{}, behind: map[image.NodeID]*replica{},
		},
	}
	for _, id := range f.live {
		f.downs[id] = make(chan struct{})
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
		f.mu.Lock()
		f.closed = true
		f.mu.Unlock()
		for _, s := range f.nodes {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
		f.goes.Wait()
		for _, s := range f.nodes {
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
	if r, err := f.log.append(testShard, c); err != nil || r.Err() != nil {
		f.t.Fatal(err, r.Err())
	}
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
	return f.sendAll(req, body, 1, 2, 3)
}

// broadcastTo sends a body to some nodes at once.
func (f *fleet) broadcastTo(req image.Request, body []byte, to ...image.NodeID) []answer {
	f.t.Helper()
	req.Size = int64(len(body))
	return f.sendAll(req, func(image.NodeID) io.Reader { return bytes.NewReader(body) }, to...)
}

func (f *fleet) sendAll(
	req image.Request, body func(image.NodeID) io.Reader, to ...image.NodeID,
) []answer {
	f.t.Helper()
	req.Broadcast = to
	answers := make(chan answer, len(to))
	for _, id := range to {
		go func() {
			rec, err := f.nodes[id].Receive(f.t.Context(), req, body(id))
			answers <- answer{id, rec, err}
		}()
	}
	var all []answer
	for range to {
		select {
		case a := <-answers:
			all = append(all, a)
		case <-time.After(90 * time.Second):
			f.t.Fatalf("no answer; so far %+v", all)
		}
	}
	return all
}

// decision waits for a decision on an upload and returns the newest one.
func (f *fleet) decision(id image.ID) (d commit.Decision) {
	f.t.Helper()
	eventually(f.t, "a decision", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		all := f.decided[id]
		if len(all) > 0 {
			d = all[len(all)-1]
		}
		return len(all) > 0
	})
	return d
}

// decisions returns which nodes were to store an upload, each change once.
func (f *fleet) decisions(id image.ID) (storing [][]image.NodeID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range f.decided[id] {
		storing = append(storing, d.Storing)
	}
	return slices.CompactFunc(storing, slices.Equal)
}

// named returns an upload of a body that these nodes are to store while no node has stored anything, the
// owner first.
func (f *fleet) named(body []byte, storing ...image.NodeID) image.Request {
	f.t.Helper()
	for i := range 1000 {
		req := request(fmt.Sprint("image-", i))
		req.Size = int64(len(body))
		nodes := []placement.Candidate{{ID: 1}, {ID: 2}, {ID: 3}}
		order, err := placement.Place(req.User, req.Name, req.Size, nodes, len(storing))
		if err == nil && slices.Equal(order[:len(storing)], storing) {
			return req
		}
	}
	f.t.Fatalf("no name is for the nodes %v", storing)
	return image.Request{}
}

// expectEntries checks of which kinds the log's entries are.
func (f *fleet) expectEntries(kinds ...string) {
	f.t.Helper()
	if got := f.log.entries(); !slices.Equal(got, kinds) {
		f.t.Errorf("the log has the entries %v, want %v", got, kinds)
	}
}

// expectNothingLeft waits until no node knows of an upload any more. A decision that comes to a node after
// its upload has failed there is load until it expires.
func (f *fleet) expectNothingLeft() {
	f.t.Helper()
	for id, s := range f.nodes {
		f.expectUploads(id, 0)
		poll.Until(f.t, 3*s.UploadTimeout, fmt.Sprintf("node %d to forget all uploads", id), func() bool {
			s.agreement.mu.Lock()
			early := len(s.agreement.early)
			s.agreement.mu.Unlock()
			return f.counted(id) == 0 && early == 0 && !s.decides()
		})
	}
}

// counted returns how many decisions a node counts as load.
func (f *fleet) counted(id image.NodeID) int {
	p := f.nodes[id].placer
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.flying)
}

// decides reports whether this node has uploads to decide on, as the shard's leader.
func (s *Service) decides() bool {
	x := s.agreement.shard(testShard)
	defer x.mu.Unlock()
	return x.coordinator != nil && x.coordinator.Busy()
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
	if len(f.owned[rec.ID]) > 1 || o.Owner != rec.Owner || o.Took < 0 {
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

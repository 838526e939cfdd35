package ingest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
)

func TestBroadcastStoresOnOwnerAndReplica(t *testing.T) {
	for _, size := range []int{1, chunkBytes - 1, chunkBytes, chunkBytes + 1, 3*chunkBytes + 7, 5 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			f := newFleet(t, nil)
			body := randomBytes(size)
			rec := f.record(f.broadcast(request("a.png"), body, nil))
			if len(rec.Copies) != 2 || rec.Owner != rec.Copies[0].Node {
				t.Fatalf("record %+v", rec)
			}
			f.stored(rec, body)
			if o := f.told(rec); o.Relayed || o.From != 0 {
				t.Errorf("told of %+v", o)
			}
		})
	}
}

func TestRelayAtAnyNode(t *testing.T) {
	f := newFleet(t, nil)
	body := randomBytes(3 << 20)
	for id, s := range f.nodes {
		for i := range 4 { // so that each node is owner, replica and outsider
			req := request(fmt.Sprintf("relay-%d-%d", id, i))
			req.Size = int64(len(body))
			rec, err := s.Receive(t.Context(), req, bytes.NewReader(body))
			if err != nil {
				t.Fatalf("node %d: %v", id, err)
			}
			if len(rec.Copies) != 2 {
				t.Fatalf("record %+v", rec)
			}
			if o := f.told(rec); !o.Relayed || o.From != 0 {
				t.Errorf("told of %+v", o)
			}
		}
	}
}

// TestRelayToANodeThatIsBehind passes bytes on to the leader of the shard before it has heard of the
// assignment: it waits for that and decides nothing itself.
func TestRelayToANodeThatIsBehind(t *testing.T) {
	f := newFleet(t, nil)
	f.kill(2)
	f.log.fallBehind(1)
	req, body, open := request("a.png"), randomBytes(1<<20), make(chan struct{})
	req.Size = int64(len(body))
	type result struct {
		rec *image.Record
		err error
	}
	done := make(chan result)
	go func() {
		rec, err := f.nodes[3].Receive(t.Context(), req, gated(body, 1000, open))
		done <- result{rec, err}
	}()
	eventually(t, "the bytes to reach node 1", func() bool {
		uploads, _ := f.nodes[1].Stats()
		return uploads == 1
	})
	time.Sleep(3 * f.nodes[1].AssignTimeout) // in which a broadcast's receiver would have decided
	f.log.mu.Lock()
	if f.log.index != 1 {
		t.Errorf("%d commands were proposed, want the assignment alone", f.log.index)
	}
	f.log.mu.Unlock()
	f.log.catchUp(1)
	close(open)
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	f.stored(r.rec, body)
}

// TestNewsOfAnotherShard uses an ID that an upload of another shard has: the news of the one are not
// those of the other, neither where it is on its way nor where it is waited for.
func TestNewsOfAnotherShard(t *testing.T) {
	f := newFleet(t, quickTakeover)
	req, body, open := request("a.png"), randomBytes(1<<20), make(chan struct{})
	other := func(state catalog.State) {
		u := &catalog.Upload{ID: req.ID, User: "alice", Name: "b.png", Bytes: 5, State: state, Epoch: 9, Owner: 1, Replicas: 2, Problem: &image.Problem{Code: image.KindAborted}}
		for _, s := range f.nodes {
			s.Applied(testShard+1, []catalog.Event{{Upload: u}})
		}
	}
	other(catalog.Pending)
	answers := make(chan []answer)
	go func() {
		answers <- f.broadcast(req, body, map[image.NodeID]io.Reader{1: gated(body, 1000, open), 2: gated(body, 1000, open), 3: cutAfter(body, 0)})
	}()
	eventually(t, "the assignment", func() bool { return f.assigned(req.ID) != nil })
	other(catalog.Failed)
	close(open)
	f.stored(f.record(<-answers, 3), body)
}

// TestLargerThanMemory sends more at once than the nodes can hold: uploads go through the window.
func TestLargerThanMemory(t *testing.T) {
	f := newFleet(t, func(o *Options) { o.StagingBytes = 8 * windowChunks * chunkBytes })
	body := randomBytes(5 << 20)
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			if i%2 == 0 {
				f.record(f.broadcast(request(fmt.Sprint(i)), body, nil))
				return
			}
			req := request(fmt.Sprint(i))
			req.Size = int64(len(body))
			if _, err := f.nodes[1].Receive(t.Context(), req, bytes.NewReader(body)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestOwnerDiesBeforeStored(t *testing.T) {
	f := newFleet(t, nil)
	body := randomBytes(2 << 20)
	gate := make(chan struct{})
	for _, v := range f.vaults {
		v.stall = gate
	}
	done := make(chan []answer)
	req := request("a.png")
	go func() { done <- f.broadcast(req, body, nil) }()
	owner := f.assigned(req.ID).Owner
	f.kill(owner)
	eventually(t, "a reassignment", func() bool { return f.assigned(req.ID).Epoch > 1 })
	close(gate)
	rec := f.record(<-done, owner)
	if len(rec.Copies) != 2 || slices.Contains(rec.Replicas(), owner) {
		t.Fatalf("the dead owner %d is in the record %+v", owner, rec)
	}
	f.stored(rec, body) // its late file is gone too
	if o := f.told(rec); o.From != owner {
		t.Errorf("told of %+v, taken over from %d", o, owner)
	}
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

func TestSlowReplicaLosesItsPart(t *testing.T) {
	f := newFleet(t, quickTakeover)
	body := randomBytes(1 << 20)
	gate := make(chan struct{})
	req := request("a.png")
	hold := make(chan struct{}) // nobody stores before the slow node is chosen
	f.log.mu.Lock()
	f.log.hold["assign"] = hold
	f.log.mu.Unlock()
	done := make(chan []answer)
	go func() { done <- f.broadcast(req, body, nil) }()
	f.vaults[3].stall = gate
	f.vaults[2].stall = gate
	close(hold)
	slow := func() (n int) {
		for _, s := range f.assigned(req.ID).Storing {
			if s.Node != 1 && s.Epoch == 1 {
				n++
			}
		}
		return n
	}
	before := slow()
	eventually(t, "the standby to take a slow node's part", func() bool { return slow() < before || before == 1 && f.assigned(req.ID).Epoch > 1 })
	close(gate)
	rec := f.record(<-done)
	f.stored(rec, body)
}

func TestAssignNeverComesFromTheLeader(t *testing.T) {
	f := newFleet(t, nil)
	f.log.leader = 9 // a leader that is not among the receivers, and then none at all
	body := randomBytes(1 << 20)
	f.stored(f.record(f.broadcast(request("a.png"), body, nil)), body)
	f.log.leader = 0
	f.vaults[1].files, f.vaults[2].files, f.vaults[3].files = map[image.Copy][]byte{}, map[image.Copy][]byte{}, map[image.Copy][]byte{}
	f.stored(f.record(f.broadcast(request("b.png"), body, nil)), body)
}

func TestDiskFullGoesToTheStandby(t *testing.T) {
	f := newFleet(t, nil)
	full := image.Errorf(image.KindDiskFull, "disk full")
	f.vaults[2].fail = full
	body := randomBytes(1 << 20)
	for i := range 6 {
		rec := f.record(f.broadcast(request(fmt.Sprint(i)), body, nil))
		if slices.Contains(rec.Replicas(), 2) || len(rec.Copies) != 2 {
			t.Fatalf("record %+v", rec)
		}
	}
	req := request("relayed")
	req.Size = int64(len(body))
	for _, id := range []image.NodeID{1, 2, 3} { // the third node is sent the bytes when the second refuses
		req.ID, req.Name = image.NewID(), fmt.Sprint("relayed by ", id)
		rec, err := f.nodes[id].Receive(t.Context(), req, bytes.NewReader(body))
		if err != nil || slices.Contains(rec.Replicas(), 2) || len(rec.Copies) != 2 {
			t.Errorf("relayed by node %d: record %+v, %v", id, rec, err)
		}
	}
	f.vaults[3].fail = full
	for _, a := range f.broadcast(request("too many"), body, nil) {
		if image.KindOf(a.err) != image.KindDiskFull {
			t.Errorf("node %d: %v, want disk-full", a.node, a.err)
		}
	}
	f.empty("too many")
}

// TestNothingIsSaidBeforeItIsDurable: a node whose disk does not keep the file has no part in the
// record, whatever it was given.
func TestNothingIsSaidBeforeItIsDurable(t *testing.T) {
	f := newFleet(t, nil)
	f.vaults[2].lose = image.Errorf(image.KindAborted, "the disk failed")
	body := randomBytes(1 << 20)
	for i := range 6 {
		f.stored(f.record(f.broadcast(request(fmt.Sprint(i)), body, nil)), body)
	}
}

// TestFullNodesAreLeftOut: nodes that say that they are full get nothing, whoever is asked, and an
// upload is refused only when too few others are left.
func TestFullNodesAreLeftOut(t *testing.T) {
	f := newFleet(t, nil)
	body := randomBytes(1 << 20)
	f.fill(2)
	for i := range 6 {
		if rec := f.record(f.broadcast(request(fmt.Sprint(i)), body, nil)); slices.Contains(rec.Replicas(), 2) || len(rec.Copies) != 2 {
			t.Fatalf("record %+v", rec)
		}
	}
	req := request("relayed")
	req.Size = int64(len(body))
	rec, err := f.nodes[2].Receive(t.Context(), req, bytes.NewReader(body))
	if err != nil || slices.Contains(rec.Replicas(), 2) || len(rec.Copies) != 2 {
		t.Fatalf("record %+v, %v", rec, err)
	}
	if n := f.vaults[2].count(); n != 0 {
		t.Errorf("the full node has %d files", n)
	}
	f.fill(2, 3)
	for _, a := range f.broadcast(request("too many"), body, nil) {
		if image.KindOf(a.err) != image.KindDiskFull {
			t.Errorf("node %d: %v, want disk-full", a.node, a.err)
		}
	}
	f.empty("too many")
	f.fill()
	f.kill(2)
	f.kill(3)
	req = request("alone")
	if rec, err := f.nodes[1].Receive(t.Context(), image.Request{ID: req.ID, User: "alice", Name: "alone", Size: 10}, bytes.NewReader(body[:10])); err != nil || len(rec.Copies) != 1 {
		t.Fatalf("%+v, %v", rec, err)
	}
}

// empty checks that a failed upload left no record and no file.
func (f *fleet) empty(name string) {
	f.t.Helper()
	f.log.mu.Lock()
	rec, err := catalog.GetRecord(f.log.db, "alice", name)
	f.log.mu.Unlock()
	if rec != nil || err != nil {
		f.t.Errorf("a failed upload has the record %+v, %v", rec, err)
	}
	for _, s := range f.nodes {
		eventually(f.t, "the upload to leave node", func() bool { n, _ := s.Stats(); return n == 0 })
	}
}

func TestConnectionCut(t *testing.T) {
	body := randomBytes(2 << 20)
	t.Run("to the storing nodes", func(t *testing.T) {
		for _, node := range []image.NodeID{1, 2, 3} {
			f := newFleet(t, nil)
			answers := f.broadcast(request("a.png"), body, map[image.NodeID]io.Reader{node: cutAfter(body, 1<<20)})
			rec := f.record(answers, node)
			if slices.Contains(rec.Replicas(), node) || len(rec.Copies) != 2 {
				t.Errorf("cut to node %d: record %+v", node, rec)
			}
			f.stored(rec, body)
		}
	})
	t.Run("everywhere", func(t *testing.T) {
		f := newFleet(t, nil)
		req := request("a.png")
		cut := map[image.NodeID]io.Reader{}
		for n := range f.nodes {
			cut[n] = cutAfter(body, 1<<20)
		}
		for _, a := range f.broadcast(req, body, cut) {
			if image.KindOf(a.err) != image.KindIncomplete {
				t.Errorf("node %d: %v, want incomplete-body", a.node, a.err)
			}
		}
		f.empty("a.png")
		for id, v := range f.vaults {
			if v.count() != 0 {
				t.Errorf("node %d kept a file", id)
			}
		}
		rec := f.record(f.broadcast(req, body, nil)) // the client's retry, same ID
		f.stored(rec, body)
	})
}

func TestWrongDigestLeavesNothing(t *testing.T) {
	f := newFleet(t, nil)
	body := randomBytes(1 << 20)
	req := request("a.png")
	req.Digest = &image.Digest{1}
	for _, a := range f.broadcast(req, body, together(body, 1, 2, 3)) {
		if image.KindOf(a.err) != image.KindDigest {
			t.Errorf("node %d: %v, want digest-mismatch", a.node, a.err)
		}
	}
	f.empty("a.png")
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

// A part of a broadcast that comes when the others have been refused counts as a new attempt: it ends in
// bounded time too, and leaves nothing.
func TestWrongDigestComesLate(t *testing.T) {
	for _, late := range []image.NodeID{1, 2, 3} { // the leader and others
		t.Run(fmt.Sprint(late), func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, quickTakeover)
			body := randomBytes(1 << 20)
			req := request("a.png")
			req.Digest = &image.Digest{1}
			req.Size = int64(len(body))
			req.Broadcast = []image.NodeID{1, 2, 3}
			// A machine that is busy for longer than TakeoverTimeout looks like nodes that do not store, and
			// the upload may be given up for that first.
			refused := func(err error) bool {
				kind := image.KindOf(err)
				return kind == image.KindDigest || kind == image.KindAborted
			}
			var early sync.WaitGroup
			for id, b := range together(body, slices.DeleteFunc([]image.NodeID{1, 2, 3}, func(id image.NodeID) bool { return id == late })...) {
				early.Go(func() {
					if _, err := f.nodes[id].Receive(t.Context(), req, b); !refused(err) {
						t.Errorf("node %d: %v, want digest-mismatch or aborted", id, err)
					}
				})
			}
			early.Wait()
			if _, err := f.nodes[late].Receive(t.Context(), req, bytes.NewReader(body)); !refused(err) {
				t.Errorf("node %d, late: %v, want digest-mismatch or aborted", late, err)
			}
			f.empty("a.png")
		})
	}
}

func TestSameIDAgain(t *testing.T) {
	f := newFleet(t, nil)
	body := randomBytes(1 << 20)
	req := request("a.png")
	first := f.record(f.broadcast(req, body, nil))
	again := f.record(f.broadcast(req, body, nil))
	if again.Version != first.Version {
		t.Errorf("the repeated upload became version %d after %d", again.Version, first.Version)
	}
	other := slices.Clone(body)
	other[0]++
	for _, b := range [][]byte{other, body[1:]} {
		for _, a := range f.broadcast(req, b, nil) {
			if image.KindOf(a.err) != image.KindConflict {
				t.Errorf("node %d: %v, want upload-conflict", a.node, a.err)
			}
		}
	}
	f.stored(first, body)
}

func TestDifferentBytesToTheNodes(t *testing.T) {
	f := newFleet(t, nil)
	body := randomBytes(1 << 20)
	other := slices.Clone(body)
	other[len(other)-1]++
	third := slices.Clone(body)
	third[1]++
	answers := f.broadcast(request("a.png"), body, map[image.NodeID]io.Reader{2: bytes.NewReader(other), 3: bytes.NewReader(third)})
	for _, a := range answers {
		if image.KindOf(a.err) != image.KindConflict {
			t.Errorf("node %d: %v, want upload-conflict", a.node, a.err)
		}
	}
	f.empty("a.png")
}

func TestIfAbsent(t *testing.T) {
	f := newFleet(t, nil)
	body := randomBytes(1 << 20)
	f.record(f.broadcast(request("a.png"), body, nil))
	req := request("a.png")
	req.If.NoneMatch = image.Tags{image.AnyTag}
	for _, a := range f.broadcast(req, body, nil) {
		if image.KindOf(a.err) != image.KindExists {
			t.Errorf("node %d: %v, want exists", a.node, a.err)
		}
	}
}

func TestRefusedBeforeAnything(t *testing.T) {
	f := newFleet(t, nil)
	for _, c := range []struct {
		req  image.Request
		want image.Kind
	}{
		{image.Request{ID: image.NewID(), User: "alice", Name: "a", Size: 0}, image.KindInvalid},
		{image.Request{ID: image.NewID(), User: "alice", Name: "a", Size: -1}, image.KindLengthRequired},
		{image.Request{ID: image.NewID(), User: "alice", Name: "a", Size: 65 << 20}, image.KindTooLarge},
		{image.Request{ID: image.NewID(), User: "alice", Name: "../a", Size: 1}, image.KindInvalid},
		{image.Request{ID: image.NewID(), User: "", Name: "a", Size: 1}, image.KindInvalid},
		{image.Request{ID: image.NewID(), User: "alice", Name: "a", Size: 1, Broadcast: []image.NodeID{1}}, image.KindMisplaced},
	} {
		if _, err := f.nodes[1].Receive(t.Context(), c.req, bytes.NewReader([]byte{1})); image.KindOf(err) != c.want {
			t.Errorf("%+v: %v, want %s", c.req, err, c.want)
		}
	}
	if f.log.index != 0 {
		t.Errorf("%d commands were proposed", f.log.index)
	}
}

func TestTooManyUploads(t *testing.T) {
	f := newFleet(t, func(o *Options) { o.UploadsMax = 1 })
	open := make(chan struct{})
	body := randomBytes(1 << 20)
	first := make(chan error)
	go func() {
		req := request("a.png")
		req.Size = int64(len(body))
		_, err := f.nodes[1].Receive(t.Context(), req, gated(body, 1000, open))
		first <- err
	}()
	eventually(t, "the first upload", func() bool { n, _ := f.nodes[1].Stats(); return n == 1 })
	req := request("b.png")
	req.Size = 10
	if _, err := f.nodes[1].Receive(t.Context(), req, bytes.NewReader(body)); image.KindOf(err) != image.KindOverload {
		t.Errorf("%v, want overload", err)
	}
	close(open)
	if err := <-first; err != nil {
		t.Error(err)
	}
}

func TestNoQuorumIsSaid(t *testing.T) {
	f := newFleet(t, nil)
	f.log.cut = true
	for _, a := range f.broadcast(request("a.png"), randomBytes(1000), nil) {
		if image.KindOf(a.err) != image.KindNoQuorum {
			t.Errorf("node %d: %v, want no-quorum", a.node, a.err)
		}
	}
}

func TestOneNodeLeftCommitsWithOneCopy(t *testing.T) {
	f := newFleet(t, nil)
	f.live = []image.NodeID{1}
	body := randomBytes(1000)
	req := request("a.png")
	req.Size = int64(len(body))
	rec, err := f.nodes[1].Receive(t.Context(), req, bytes.NewReader(body))
	if err != nil || len(rec.Copies) != 1 || rec.Wanted != 2 {
		t.Fatalf("%+v, %v", rec, err)
	}
}

func TestRestartGivesUpOldParts(t *testing.T) {
	f := newFleet(t, nil)
	id := image.NewID()
	r, err := f.log.Propose(t.Context(), testShard, catalog.Command{Assign: &catalog.Assign{
		ID: id, User: "alice", Name: "a.png", Bytes: 10, Holders: []image.NodeID{2}, Replicas: 1, Created: time.Unix(0, 0),
	}})
	if err != nil || r.Err() != nil {
		t.Fatal(err, r.Err())
	}
	f.vaults[2].mu.Lock()
	f.vaults[2].files[image.Copy{Epoch: 1}] = []byte("durable, but Stored was not said")
	f.vaults[2].mu.Unlock()
	if err := f.nodes[2].Recover(t.Context(), testShard); err != nil {
		t.Fatal(err)
	}
	if u := f.assigned(id); u.State != catalog.Failed {
		t.Errorf("the upload is %+v", u)
	}
	eventually(t, "the file of the old part to go", func() bool { return f.vaults[2].count() == 0 })
}

// TestUploadReachesOneNodeOnly is a broadcast that two nodes refused: the third must not wait for
// them for ever, and the client's retry under the same ID succeeds.
func TestUploadReachesOneNodeOnly(t *testing.T) {
	f := newFleet(t, func(o *Options) { o.TakeoverTimeout = 2 * time.Second })
	body := randomBytes(1 << 20)
	req := request("a.png")
	req.Size, req.Broadcast = int64(len(body)), []image.NodeID{1, 2, 3}
	if _, err := f.nodes[2].Receive(t.Context(), req, bytes.NewReader(body)); image.KindOf(err) != image.KindAborted {
		t.Fatalf("%v, want aborted", err)
	}
	for id, s := range f.nodes { // one that has not heard of the failure yet takes the retry for a late part of the first try
		eventually(t, fmt.Sprintf("node %d to hear that the upload failed", id), func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return len(s.pending) == 0
		})
	}
	f.stored(f.record(f.broadcast(req, body, nil)), body)
}

// TestLateNewsOfAnUploadThatIsOver is an upload that failed, and was sent again under its ID: the
// second attempt's news reach what is left of the first one here.
func TestLateNewsOfAnUploadThatIsOver(t *testing.T) {
	f := newFleet(t, nil)
	s := f.nodes[1]
	req := request("a.png")
	req.Size = 10
	u, err := s.register(req)
	if err != nil {
		t.Fatal(err)
	}
	defer s.unregister(u)
	for _, state := range []catalog.Upload{
		{ID: req.ID, Epoch: 1, State: catalog.Pending},
		{ID: req.ID, Epoch: 1, State: catalog.Failed},
		{ID: req.ID, Epoch: 2, State: catalog.Pending},
		{ID: req.ID, Epoch: 2, State: catalog.Committed},
	} {
		s.Applied(testShard, []catalog.Event{{Upload: &state}})
	}
	if got := u.latest(); got.State != catalog.Failed || got.Epoch != 1 {
		t.Errorf("the failed upload became %s in epoch %d", got.State, got.Epoch)
	}
	again, err := s.register(req)
	if err != nil || again == nil {
		t.Fatalf("sent again: %v, %v", again, err)
	}
	defer s.unregister(again)
	again.join(&catalog.Upload{ID: req.ID, Epoch: 1, State: catalog.Failed})
	s.Applied(testShard, []catalog.Event{{Upload: &catalog.Upload{ID: req.ID, Epoch: 1, State: catalog.Failed}}})
	if got := again.latest(); got != nil {
		t.Errorf("the second attempt hears of the first: %+v", got)
	}
}

// TestFileOfEarlierProcess is a part of an upload that a node had begun before it started again: its file
// is there and the client sends the upload again, when the part is given to another node.
func TestFileOfEarlierProcess(t *testing.T) {
	f := newFleet(t, nil)
	s, req := f.nodes[2], request("a.png")
	req.Size = 10
	f.vaults[2].files[image.Copy{Epoch: 1}] = randomBytes(10)
	_, err := f.log.Propose(t.Context(), testShard, catalog.Command{Assign: &catalog.Assign{
		ID: req.ID, User: req.User, Name: req.Name, Bytes: req.Size, Holders: []image.NodeID{2, 3}, Replicas: 2, Created: time.Unix(0, 0),
	}})
	if err != nil {
		t.Fatal(err)
	}
	u, err := s.register(req)
	if err != nil {
		t.Fatal(err)
	}
	defer s.unregister(u)
	_, err = f.log.Propose(t.Context(), testShard, catalog.Command{Reassign: &catalog.Reassign{ID: req.ID, Epoch: 1, Drop: []image.NodeID{2}, Min: 1}})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the file to go", func() bool { return f.vaults[2].count() == 0 })
}

// TestFileOfLostPart has a part of an upload given to another node while its file is becoming durable,
// and the upload end here before it is decided: the file goes, although nobody asks for it any more.
func TestFileOfLostPart(t *testing.T) {
	f := newFleet(t, nil)
	s, v, req := f.nodes[2], f.vaults[2], request("a.png")
	body := randomBytes(1000)
	req.Size, req.Broadcast, v.stall = int64(len(body)), []image.NodeID{2, 3}, make(chan struct{})
	f.log.hold["stored"] = make(chan struct{}) // of the log it hears nothing
	u, err := s.register(req)
	if err != nil {
		t.Fatal(err)
	}
	p := &part{s: s, u: u}
	if err := u.spool.fill(bytes.NewReader(body)); err != nil {
		t.Fatal(err)
	}
	slot := catalog.Slot{Node: 2, Epoch: 1}
	p.follow(&catalog.Upload{ID: req.ID, Epoch: 1, State: catalog.Pending, Owner: 2, Holders: req.Broadcast, Storing: []catalog.Slot{slot}})
	v.stall <- struct{}{} // it is about to become durable
	p.follow(&catalog.Upload{ID: req.ID, Epoch: 2, State: catalog.Pending, Owner: 3, Holders: []image.NodeID{3}})
	close(v.stall)
	p.wg.Wait()
	if v.count() != 0 {
		t.Error("the file of a part that was lost is still there")
	}
	s.unregister(u)
}

func TestAbandonedUploadIsFailed(t *testing.T) {
	f := newFleet(t, func(o *Options) { o.UploadTimeout = 100 * time.Millisecond })
	id := image.NewID()
	_, err := f.log.Propose(t.Context(), testShard, catalog.Command{Assign: &catalog.Assign{
		ID: id, User: "alice", Name: "a.png", Bytes: 10, Holders: []image.NodeID{2, 3}, Replicas: 2, Created: time.Unix(0, 0),
	}})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the leader to fail it", func() bool { return f.assigned(id).State == catalog.Failed })
}

func TestDeletedFilesGo(t *testing.T) {
	f := newFleet(t, nil)
	body := randomBytes(1000)
	f.record(f.broadcast(request("a.png"), body, nil))
	if _, err := f.log.Propose(t.Context(), testShard, catalog.Command{Delete: &catalog.Delete{User: "alice", Name: "a.png"}}); err != nil {
		t.Fatal(err)
	}
	for _, v := range f.vaults {
		eventually(t, "the file to go", func() bool { return v.count() == 0 })
	}
}

func TestShareIsBalanced(t *testing.T) {
	f := newFleet(t, nil)
	owners := map[image.NodeID]int{}
	for i := range 60 {
		rec := f.record(f.broadcast(request(fmt.Sprint(i)), randomBytes(1000), nil))
		owners[rec.Owner]++
	}
	for n := range f.nodes {
		if owners[n] < 18 || owners[n] > 22 {
			t.Errorf("owners %v of 60 uploads", owners)
			break
		}
	}
}

// TestDrain lets an upload end that a node has begun, and gives up at once what does not reach it.
func TestDrain(t *testing.T) {
	f := newFleet(t, func(o *Options) { o.TakeoverTimeout = time.Hour })
	s, body, open := f.nodes[1], randomBytes(1<<20), make(chan struct{})
	begun := make(chan []answer)
	go func() {
		begun <- f.broadcast(request("begun.png"), body, map[image.NodeID]io.Reader{1: gated(body, 1000, open)})
	}()
	eventually(t, "the upload to begin", func() bool { n, _ := s.Stats(); return n == 1 })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.Drain(ctx)
	late := f.broadcast(request("late.png"), body, nil)
	rec := f.record(late, 1)
	f.stored(rec, body)
	if i := slices.IndexFunc(late, func(a answer) bool { return a.node == 1 }); image.KindOf(late[i].err) != image.KindNoQuorum {
		t.Errorf("a node that drains answers %v", late[i].err)
	}
	close(open)
	f.record(<-begun)
	s.Drain(t.Context())
	if n, _ := s.Stats(); n != 0 {
		t.Errorf("%d uploads after draining", n)
	}
}

func TestCloseEndsUploads(t *testing.T) {
	f := newFleet(t, nil)
	open := make(chan struct{})
	defer close(open)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	hold := make(chan struct{})
	defer close(hold)
	f.log.hold["stored"] = hold
	result := make(chan error)
	go func() {
		req := request("a.png")
		req.Size = 1000
		_, err := f.nodes[1].Receive(ctx, req, bytes.NewReader(randomBytes(1000)))
		result <- err
	}()
	eventually(t, "the upload", func() bool { n, _ := f.nodes[1].Stats(); return n == 1 })
	cancel()
	if err := <-result; err == nil {
		t.Error("an upload that was not decided succeeded")
	}
}

// On the small side of a partition an upload that has begun is not decided. Its client is told so, and
// when the shard has a leader again it has the upload's outcome for sending it again.
func TestLeaderlessUploadIsAnswered(t *testing.T) {
	f := newFleet(t, func(o *Options) { o.QuorumTimeout = 50 * time.Millisecond })
	gate := make(chan struct{})
	f.log.mu.Lock()
	f.log.leader = 0
	f.log.hold = map[string]chan struct{}{"stored": gate}
	f.log.mu.Unlock()
	req, body := request("a.png"), randomBytes(1000)
	for _, a := range f.broadcast(req, body, nil) {
		if image.KindOf(a.err) != image.KindNoQuorum {
			t.Errorf("node %d without a leader: %+v, %v", a.node, a.rec, a.err)
		}
	}
	f.log.mu.Lock()
	f.log.leader = 1
	f.log.mu.Unlock()
	close(gate)
	f.record(f.broadcast(req, body, nil))
}

// TestCopiesAreNotSavedAtStart lets only one of three live nodes have the newest state yet: an upload
// waits for another one instead of being kept once.
func TestCopiesAreNotSavedAtStart(t *testing.T) {
	f := newFleet(t, func(o *Options) { o.Current = func(uint64) []image.NodeID { return []image.NodeID{1} } })
	_, err := f.nodes[1].Receive(t.Context(), image.Request{ID: image.NewID(), User: "alice", Name: "a", Size: 1}, bytes.NewReader([]byte{1}))
	if image.KindOf(err) != image.KindNoQuorum {
		t.Errorf("with one current node of three: %v", err)
	}
	if f.log.index != 0 {
		t.Errorf("%d commands were proposed", f.log.index)
	}
}

// changingLog has a change come between a look at the log and what is made of it.
type changingLog struct {
	Log
	change func()
}

func (l changingLog) View(shard uint64, fn func(catalog.Reader) error) error {
	err := l.Log.View(shard, fn)
	l.change()
	return err
}

// TestChangeWhileTakenUp is an upload that is given to another node while a node takes up what is
// pending. One that went by what was before would try for ever to change an epoch that is over.
func TestChangeWhileTakenUp(t *testing.T) {
	f := newFleet(t, nil)
	s, id := f.nodes[1], image.NewID()
	propose := func(c catalog.Command) {
		if r, err := f.log.Propose(t.Context(), testShard, c); err != nil || r.Err() != nil {
			t.Error(err, r.Err())
		}
	}
	propose(catalog.Command{Assign: &catalog.Assign{
		ID: id, User: "alice", Name: "a.png", Bytes: 10, Holders: []image.NodeID{2, 3}, Replicas: 1, Created: time.Unix(0, 0),
	}})
	inner := s.Log
	s.Log = changingLog{inner, func() {
		propose(catalog.Command{Reassign: &catalog.Reassign{ID: id, Epoch: 1, Drop: []image.NodeID{2}, Min: 1, Cause: image.KindAborted, Text: "test"}})
	}}
	_, err := s.takeUp(testShard)
	s.Log = inner
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := s.pending[pendingKey{testShard, id}]; w == nil || w.state.Epoch != 2 {
		t.Errorf("the node watches over %+v", w)
	}
}

// TestFailedAttemptsCount sends the same upload again and again while its failed attempts are being
// cleared away: they have their parts of the arena still, and count against the limit.
func TestFailedAttemptsCount(t *testing.T) {
	f := newFleet(t, func(o *Options) {
		o.UploadsMax, o.StagingBytes, o.AssignTimeout = 2, 2*windowChunks*chunkBytes, 200*time.Millisecond
	})
	body := randomBytes(4 << 20)
	req := request("a.png")
	req.Size, req.Broadcast = int64(len(body)), []image.NodeID{1, 2, 3}
	kinds := map[image.Kind]int{}
	for range 6 {
		_, err := f.nodes[2].Receive(t.Context(), req, cutAfter(body, 2*chunkBytes-1))
		kinds[image.KindOf(err)]++
	}
	if kinds[image.KindIncomplete] < 2 || kinds[image.KindOverload] == 0 || len(kinds) != 2 {
		t.Errorf("answers %v, want the limit's number of incomplete-body and then overload", kinds)
	}
	f.empty("a.png")
	eventually(t, "room for another upload", func() bool {
		req := request("b.png")
		req.Size = int64(len(body))
		_, err := f.nodes[2].Receive(t.Context(), req, bytes.NewReader(body))
		return err == nil
	})
}

// slowly gives a body in `steps` parts, one after each tick.
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

// TestSlowClient: a body that moves takes as long as it takes, far beyond the time for a takeover and the time
// without progress, whether it goes to one node or to all, and nobody loses it for that.
func TestSlowClient(t *testing.T) {
	f := newFleet(t, func(o *Options) { o.TakeoverTimeout, o.UploadTimeout = time.Second, 2*time.Second })
	body := randomBytes(3 << 20)
	for name, bodies := range map[string]map[image.NodeID]io.Reader{
		"to all, slow everywhere": {1: slowly(body, 30, 200*time.Millisecond), 2: slowly(body, 30, 200*time.Millisecond), 3: slowly(body, 30, 200*time.Millisecond)},
		// Whichever stands by has all bytes long before one that stores.
		"to all, one fast": {1: slowly(body, 30, 200*time.Millisecond), 2: slowly(body, 30, 150*time.Millisecond)},
		"to one":           nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			req := request(name)
			if bodies != nil {
				f.record(f.broadcast(req, body, bodies))
			} else {
				req.Size = int64(len(body))
				if _, err := f.nodes[1].Receive(t.Context(), req, slowly(body, 30, 200*time.Millisecond)); err != nil {
					t.Error(err)
				}
			}
			if u := f.assigned(req.ID); u.Epoch != 1 {
				t.Errorf("it was given to others: %+v", u)
			}
		})
	}
}

// TestRelayedThatNobodyAssigns has all places taken by uploads that claim to come from another node. They are free
// again at once when the senders are gone, and soon when they are not.
func TestRelayedThatNobodyAssigns(t *testing.T) {
	f := newFleet(t, func(o *Options) { o.QuorumTimeout = 2 * time.Second })
	s := f.nodes[1]
	send := func(ctx context.Context) chan error {
		answers := make(chan error, s.UploadsMax)
		for i := range s.UploadsMax {
			req := request(fmt.Sprint(i))
			req.Size, req.Relayed, req.Broadcast = 170, true, []image.NodeID{1, 2, 3}
			go func() {
				_, err := s.Receive(ctx, req, bytes.NewReader(randomBytes(170)))
				answers <- err
			}()
		}
		eventually(t, "all places to be taken", func() bool { n, _ := s.Stats(); return n == s.UploadsMax })
		return answers
	}
	free := func() {
		t.Helper()
		eventually(t, "the places to be free", func() bool { n, _ := s.Stats(); return n == 0 })
	}
	ctx, cancel := context.WithCancel(t.Context())
	answers, began := send(ctx), time.Now()
	cancel()
	free()
	if took := time.Since(began); took > s.QuorumTimeout {
		t.Errorf("the places of senders that are gone were free after %v", took)
	}
	for range s.UploadsMax {
		<-answers
	}
	answers = send(t.Context())
	for range s.UploadsMax {
		if err := <-answers; image.KindOf(err) != image.KindAborted {
			t.Errorf("an upload that nobody assigned: %v", err)
		}
	}
	free()
}

// TestStoredIsToldWhenTheQuorumIsBack: nodes that have stored while there was no quorum say so once there
// is one again.
func TestStoredIsToldWhenTheQuorumIsBack(t *testing.T) {
	f := newFleet(t, nil)
	body := randomBytes(1 << 20)
	gate := make(chan struct{})
	for _, v := range f.vaults {
		v.stall = gate
	}
	cut := func(is bool) {
		f.log.mu.Lock()
		defer f.log.mu.Unlock()
		f.log.cut = is
	}
	req := request("a.png")
	done := make(chan []answer)
	go func() { done <- f.broadcast(req, body, nil) }()
	f.assigned(req.ID)
	cut(true)
	close(gate)
	eventually(t, "copies", func() bool { return f.vaults[1].count()+f.vaults[2].count()+f.vaults[3].count() == 2 })
	time.Sleep(50 * time.Millisecond) // the nodes have said so, in vain
	began := time.Now()
	cut(false)
	f.stored(f.record(<-done), body)
	if took := time.Since(began); took > 4*time.Second { // before that nobody takes over
		t.Errorf("committed after %v", took)
	}
	if u := f.assigned(req.ID); u.Record.Copies[0].Epoch != 1 {
		t.Errorf("the upload was given to others: %+v", u)
	}
}

// TestPausedReceiver relays, through little memory, to a node that takes nothing: once it is seen to be
// down the others must not wait for it, nor the client for UploadTimeout.
func TestPausedReceiver(t *testing.T) {
	f := newFleet(t, func(o *Options) { o.StagingBytes = 8 * windowChunks * chunkBytes })
	body := randomBytes(4 << 20)
	for i := range 6 {
		req := request(fmt.Sprint(i))
		req.Size = int64(len(body))
		f.mu.Lock()
		f.live, f.paused = []image.NodeID{1, 2, 3}, []image.NodeID{2}
		f.mu.Unlock()
		done := make(chan error)
		go func() {
			_, err := f.nodes[1].Receive(t.Context(), req, bytes.NewReader(body))
			done <- err
		}()
		f.assigned(req.ID)
		time.Sleep(50 * time.Millisecond)
		f.kill(2)
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("no answer, with the upload at %+v", f.assigned(req.ID))
		}
	}
}

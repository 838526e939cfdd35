package ingest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/commit"
	"imgcluster/cluster/image"
)

// TestLostMessages: with half of all messages lost, and the others in any order, each upload is committed
// once, whether a node can store it or not.
func TestLostMessages(t *testing.T) {
	for _, full := range []image.NodeID{0, 2} {
		t.Run(fmt.Sprint("full: ", full), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, nil)
				if full != 0 {
					f.vaults[full].refuse(image.Errorf(image.KindDiskFull, "disk full"))
				}
				lostMessages(t, f)
			})
		})
	}
}

func lostMessages(t *testing.T, f *fleet) {
	r := rand.New(rand.NewPCG(1, 2))
	f.lose(func(image.NodeID, image.NodeID, Message) bool { return r.IntN(2) == 0 })
	body := randomBytes(100_000)
	var entries []string
	for i := range 20 {
		f.lead(image.NodeID(1 + i%3))
		f.expectStored(f.expectRecord(f.broadcast(request(fmt.Sprint(i)), body, nil)), body)
		rec, err := f.relay(image.NodeID(1+i/3%3), request(fmt.Sprint("relayed ", i)), body)
		if err != nil {
			t.Fatal(err)
		}
		f.expectStored(rec, body)
		entries = append(entries, "commit", "commit")
	}
	f.expectEntries(entries...)
	f.expectNothingLeft()
}

// TestLostDecision: what a node was not told of a takeover, since the message was lost, it is told again, and
// an older decision that comes late changes nothing.
func TestLostDecision(t *testing.T) { synctest.Test(t, lostDecision) }

func lostDecision(t *testing.T) {
	f := newFleet(t, nil)
	f.vaults[2].refuse(image.Errorf(image.KindDiskFull, "disk full"))
	body := randomBytes(1 << 20)
	var lost atomic.Int32
	f.lose(func(_, _ image.NodeID, m Message) bool {
		return m.Decision != nil && m.Decision.Change == 2 && lost.Add(1) <= 3
	})
	release := f.stalled(3)
	req := f.named(body, 2, 1)
	began := time.Now()
	done := f.begin(req, body)
	synctest.Wait()
	first := commit.Decision{ID: req.ID, Change: 1, Storing: []image.NodeID{2, 1}, Standby: 3}
	f.mu.Lock()
	first.Round = f.decided[req.ID][0].Round
	f.mu.Unlock()
	time.AfterFunc(5*f.nodes[1].ReportTimeout, func() {
		for _, s := range f.nodes {
			s.Take(1, Message{Shard: testShard, Decision: &first})
		}
	})
	time.AfterFunc(10*f.nodes[1].ReportTimeout, release)
	rec := f.expectRecord(<-done)
	expectCopiesWithout(t, 2, rec)
	f.expectStored(rec, body)
	if took := time.Since(began); took > time.Second {
		t.Errorf("committed after %v", took)
	}
	f.expectEntries("commit")
	f.expectNothingLeft()
}

// TestNewLeader: a leader that has just become it hears of the uploads on their way, from the nodes that have
// to do with them, and decides.
func TestNewLeader(t *testing.T) {
	each(t, func(t *testing.T, before, after image.NodeID) {
		f := newFleet(t, nil)
		f.lead(before)
		body := randomBytes(1 << 20)
		release := f.stalled(1, 2, 3)
		req := f.named(body, 1, 2)
		relayed := request("relayed")
		open := make(chan struct{})
		relayed.Size = int64(len(body))
		alone := make(chan answer)
		go func() {
			rec, err := f.nodes[3].Receive(t.Context(), relayed, gated(body, 1000, open))
			alone <- answer{3, rec, err}
		}()
		done := f.begin(req, body)
		synctest.Wait()
		f.lead(0)
		time.Sleep(time.Second) // of the bubble's clock
		f.lead(after)
		synctest.Wait()
		release()
		close(open)
		for _, answers := range [][]answer{<-done, {<-alone}} {
			f.expectStored(f.expectRecord(answers), body)
		}
		f.expectEntries("commit", "commit")
		f.expectNothingLeft()
	})
}

// TestTwoLeadersCommit: a leader that is deposed has proposed a commit, and so does the next one. There is
// one record, and all nodes answer with it.
func TestTwoLeadersCommit(t *testing.T) { synctest.Test(t, twoLeadersCommit) }

func twoLeadersCommit(t *testing.T) {
	f := newFleet(t, nil)
	body := randomBytes(1 << 20)
	release := f.log.holdBack("commit")
	done := f.begin(request("a.png"), body)
	synctest.Wait()
	f.lead(2)
	synctest.Wait()
	release()
	rec := f.expectRecord(<-done)
	f.expectStored(rec, body)
	f.expectOwned(rec)
	f.expectEntries("commit", "commit")
	f.expectNothingLeft()
}

// TestDecisionBeforeTheHeader: what is decided on an upload may come to a node before the upload's header. It
// is kept, and the node need not ask.
func TestDecisionBeforeTheHeader(t *testing.T) { synctest.Test(t, decisionBeforeTheHeader) }

func decisionBeforeTheHeader(t *testing.T) {
	f := newFleet(t, nil)
	body := randomBytes(1 << 20)
	req := f.named(body, 1, 2)
	req.Broadcast = []image.NodeID{1, 2, 3}
	done := make(chan answer)
	send := func(n image.NodeID) {
		go func() {
			rec, err := f.nodes[n].Receive(t.Context(), req, bytes.NewReader(body))
			done <- answer{n, rec, err}
		}()
	}
	send(1)
	synctest.Wait()
	f.lose(func(_, _ image.NodeID, m Message) bool { return m.Decision != nil })
	began := time.Now()
	send(2)
	send(3)
	f.expectStored(f.expectRecord([]answer{<-done, <-done, <-done}), body)
	if took := time.Since(began); took > 0 {
		t.Errorf("committed after %v", took)
	}
	f.expectEntries("commit")
	f.expectNothingLeft()
}

// TestEarlyDecisionsAreBounded: decisions on uploads that never come are forgotten, and more of them than
// there is room for are lost.
func TestEarlyDecisionsAreBounded(t *testing.T) { synctest.Test(t, earlyDecisionsAreBounded) }

func earlyDecisionsAreBounded(t *testing.T) {
	f := newFleet(t, nil)
	for range max(earlyMax, flyingMax) + 10 {
		d := commit.Decision{ID: image.NewID(), Round: 1, Storing: []image.NodeID{2, 3}}
		f.nodes[2].Take(1, Message{Shard: testShard, Decision: &d})
	}
	a := f.nodes[2].agreement
	a.mu.Lock()
	kept := len(a.early)
	a.mu.Unlock()
	if counted := f.counted(2); kept != earlyMax || counted != flyingMax {
		t.Errorf("%d decisions are kept, %d counted as load", kept, counted)
	}
	f.expectNothingLeft()
}

// TestMessagesOfOthers: a node believes another one what it says of itself, and the shard's leader what it
// decides.
func TestMessagesOfOthers(t *testing.T) { synctest.Test(t, messagesOfOthers) }

func messagesOfOthers(t *testing.T) {
	f := newFleet(t, nil)
	req := request("a.png")
	req.Size = 1000
	forged := commit.Copy{Copy: image.Copy{Node: 2, Attempt: image.NewAttempt()}, Check: checkOf(req.ID, nil)}
	report := commit.Report{Node: 2, Request: req, Copy: &forged}
	f.nodes[1].Take(3, Message{Shard: testShard, Report: &report})     // of another node
	f.nodes[1].Take(2, Message{Shard: testShard + 1, Report: &report}) // of another shard
	f.nodes[3].Take(2, Message{Shard: testShard, Report: &report})     // to a node that does not lead
	for id, s := range f.nodes {
		if s.decides() {
			t.Errorf("node %d decides on an upload that nobody sends", id)
		}
	}

	body := randomBytes(1000)
	release := f.stalled(1, 2, 3)
	done := f.begin(req, body)
	synctest.Wait()
	over := commit.Decision{ID: req.ID, Round: 1, Problem: &image.Problem{Code: image.KindAborted}}
	for _, s := range f.nodes {
		s.Take(3, Message{Shard: testShard, Decision: &over})     // of a node that does not lead
		s.Take(1, Message{Shard: testShard + 1, Decision: &over}) // of another shard
	}
	release()
	f.expectStored(f.expectRecord(<-done), body)
	f.expectNothingLeft()
}

// restoring begins an upload that nodes 1 and 2 are to store, and has node 2 miss what the log says until it
// gets a snapshot.
func restoring(f *fleet, body []byte) (req image.Request, done <-chan []answer) {
	f.lead(3)
	f.propose(catalog.Command{Restart: &catalog.Restart{Node: 9}}) // so that there is a state
	req = f.named(body, 1, 2)
	done = f.begin(req, body)
	synctest.Wait()
	f.log.fallBehind(2)
	return req, done
}

// TestRestored: a node gets a snapshot, and so does not hear what became of its copies. Where the state does
// not say it either, what was reported is taken back.
func TestRestored(t *testing.T) {
	body := randomBytes(1 << 20)
	run := func(name string, test func(t *testing.T, f *fleet)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, newFleet(t, nil)) })
		})
	}
	// withoutNode2 expects that node 2 has taken its copy back, and that the others have committed without
	// it.
	withoutNode2 := func(f *fleet, answers []answer) {
		for _, a := range answers {
			if a.node == 2 && image.KindOf(a.err) != image.KindAborted {
				f.t.Errorf("node 2 answers %+v, %v", a.rec, a.err)
			}
		}
		rec := f.expectRecord(answers, 2)
		expectCopiesWithout(f.t, 2, rec)
		f.expectStored(rec, body)
		f.expectNothingLeft()
	}
	run("committed", func(t *testing.T, f *fleet) {
		release := f.log.holdBack("commit")
		_, done := restoring(f, body)
		release()
		f.expectUploads(1, 0)
		f.log.restore(2)
		f.expectStored(f.expectRecord(<-done), body)
		f.expectEntries("other", "commit")
		f.expectNothingLeft()
	})
	// A file of a record that is no more is left to the sweep.
	run("committed and deleted", func(t *testing.T, f *fleet) {
		release := f.log.holdBack("commit")
		req, done := restoring(f, body)
		release()
		f.expectUploads(1, 0)
		f.propose(catalog.Command{Delete: &catalog.Delete{User: req.User, Name: req.Name}})
		f.log.restore(2)
		f.expectRecord(<-done)
		<-f.nodes[2].Leftover()
		f.expectEntries("other", "commit", "other")
		f.expectNothingLeft()
	})
	// A commit with its copy is on its way, and is refused: node 1 reports again.
	run("undecided", func(t *testing.T, f *fleet) {
		release := f.log.holdBack("commit")
		_, done := restoring(f, body)
		f.log.restore(2)
		f.expectNoFile(2)
		f.expectEntries("other", "abort")
		release()
		withoutNode2(f, <-done)
		f.expectEntries("other", "abort", "commit", "commit")
	})
	// Until the snapshot is looked at, node 2 says nothing: what it has reported would be reported again.
	run("not looked at yet", func(t *testing.T, f *fleet) {
		release := f.log.holdBack("commit")
		_, done := restoring(f, body)
		f.log.blindfold(2)
		f.log.restore(2)
		var reports atomic.Int32
		f.lose(func(from, _ image.NodeID, m Message) bool {
			if from == 2 && m.Report != nil && m.Report.Node == 2 && !m.Report.Gone {
				reports.Add(1)
			}
			return false
		})
		time.Sleep(time.Second) // of the bubble's clock
		if n := reports.Load(); n != 0 || f.vaults[2].count() != 1 {
			t.Errorf("node 2 has reported %d times, and has %d files", n, f.vaults[2].count())
		}
		f.log.blindfold(0)
		f.expectNoFile(2)
		release()
		withoutNode2(f, <-done)
	})
	// A copy that was not reported need not be taken back.
	run("not reported", func(t *testing.T, f *fleet) {
		release := f.stalled(2)
		_, done := restoring(f, body)
		f.log.blindfold(2)
		f.log.restore(2)
		release()
		time.Sleep(time.Second) // of the bubble's clock
		f.expectEntries("other")
		f.log.blindfold(0)
		withoutNode2(f, <-done)
		f.expectEntries("other", "commit")
	})
}

// TestUserIsRemoved: uploads of a removed user end on all nodes, and leave no file, whether copies are
// reported or not.
func TestUserIsRemoved(t *testing.T) {
	body := randomBytes(1 << 20)
	purge := catalog.Command{Purge: &catalog.Purge{Removal: 1, User: "alice"}}
	run := func(name string, test func(t *testing.T, f *fleet) (<-chan []answer, func())) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, nil)
				done, release := test(t, f)
				f.propose(purge)
				f.expectKind(<-done, image.KindForbidden)
				release()
				for id := range f.nodes {
					f.expectNoFile(id)
				}
				f.expectNothing("a.png")
				f.expectNothingLeft()
			})
		})
	}
	run("reported", func(t *testing.T, f *fleet) (<-chan []answer, func()) {
		release := f.log.holdBack("commit")
		done := f.begin(request("a.png"), body)
		synctest.Wait()
		return done, release
	})
	run("not stored", func(t *testing.T, f *fleet) (<-chan []answer, func()) {
		release := f.stalled(1, 2, 3)
		done := f.begin(request("a.png"), body)
		synctest.Wait()
		return done, release
	})
	run("body on its way", func(t *testing.T, f *fleet) (<-chan []answer, func()) {
		open := make(chan struct{})
		bodies := map[image.NodeID]io.Reader{}
		for id := range f.nodes {
			bodies[id] = gated(body, 1000, open)
		}
		done := make(chan []answer)
		go func() { done <- f.broadcast(request("a.png"), body, bodies) }()
		synctest.Wait()
		time.AfterFunc(time.Second, func() { close(open) })
		return done, func() {}
	})
}

// TestStaleCommit: a commit of copies that count no more, since a node has lost its disk meanwhile, is
// refused. The nodes report again what they have.
func TestStaleCommit(t *testing.T) { synctest.Test(t, staleCommit) }

func staleCommit(t *testing.T) {
	f := newFleet(t, nil)
	body := randomBytes(1 << 20)
	release := f.log.holdBack("commit")
	done := f.begin(request("a.png"), body)
	synctest.Wait()
	for id := range f.nodes {
		f.propose(catalog.Command{Restart: &catalog.Restart{Node: id}})
	}
	began := time.Now()
	release()
	f.expectStored(f.expectRecord(<-done), body)
	f.expectEntries("other", "other", "other", "commit", "commit")
	if took := time.Since(began); took > f.nodes[1].ReportTimeout {
		t.Errorf("committed after %v", took)
	}
	f.expectNothingLeft()
}

// TestStaleCommitOfANodeThatLags: a report counts again as soon as its node has acted on what the earlier one
// was refused for, and not before.
func TestStaleCommitOfANodeThatLags(t *testing.T) { synctest.Test(t, staleCommitOfANodeThatLags) }

func staleCommitOfANodeThatLags(t *testing.T) {
	f := newFleet(t, nil)
	body := randomBytes(1 << 20)
	release := f.log.holdBack("commit")
	done := f.begin(f.named(body, 1, 2), body)
	synctest.Wait()
	f.log.fallBehind(2)
	f.propose(catalog.Command{Restart: &catalog.Restart{Node: 2}})
	release()
	time.Sleep(time.Second) // of the bubble's clock
	f.expectEntries("other", "commit")
	f.log.catchUp(2)
	rec := f.expectRecord(<-done)
	if !slices.Equal(rec.Replicas(), []image.NodeID{1, 2}) {
		t.Errorf("record %+v", rec)
	}
	f.expectStored(rec, body)
	f.expectEntries("other", "commit", "commit")
	f.expectNothingLeft()
}

// TestReportIsAsOfWhatWasActedOn: what a node reports is as of an entry that it has acted on, not of one that
// is only in its state.
func TestReportIsAsOfWhatWasActedOn(t *testing.T) { synctest.Test(t, reportIsAsOfWhatWasActedOn) }

func reportIsAsOfWhatWasActedOn(t *testing.T) {
	var index atomic.Uint64 // of the newest report of a copy
	acting, goOn := make(chan struct{}), make(chan struct{})
	f := newFleet(t, func(o *Options) {
		if o.Node != 2 {
			return
		}
		o.Mail = func(_ image.NodeID, m Message) {
			switch r := m.Report; {
			case r.Gone:
				acting <- struct{}{}
				<-goOn
			case r.Copy != nil:
				index.Store(r.Index)
			}
		}
	})
	f.lead(3)
	s := f.nodes[2]
	body := randomBytes(1000)
	release := f.stalled(2)
	receive := func(req image.Request) <-chan error {
		req.Size = int64(len(body))
		req.Broadcast = []image.NodeID{2}
		done := make(chan error, 1)
		go func() {
			_, err := s.Receive(t.Context(), req, bytes.NewReader(body))
			done <- err
		}()
		synctest.Wait()
		return done
	}
	stored, refused := request("stored"), request("refused")
	storedDone, refusedDone := receive(stored), receive(refused)
	d := commit.Decision{ID: stored.ID, Round: 1, Storing: []image.NodeID{2}}
	s.Take(3, Message{Shard: testShard, Decision: &d})
	s.Applied(testShard, 7, nil)
	go s.Applied(testShard, 9, []catalog.Event{{Upload: &catalog.Upload{
		ID: refused.ID, User: refused.User, Name: refused.Name, State: catalog.Failed,
		Problem: &image.Problem{Code: image.KindExists},
	}}})
	<-acting // on what comes before entry 9
	release()
	synctest.Wait()
	if got := index.Load(); got != 7 {
		t.Errorf("the copy is reported as of entry %d, and 7 is the last that was acted on", got)
	}
	close(goOn)
	if err := <-refusedDone; image.KindOf(err) != image.KindExists {
		t.Errorf("the refused upload: %v", err)
	}
	time.Sleep(2 * s.ReportTimeout) // of the bubble's clock
	if got := index.Load(); got != 9 {
		t.Errorf("the copy is reported as of entry %d, and 9 is the last that was acted on", got)
	}
	s.local(testShard, stored.ID).cancel(errors.New("test"))
	<-storedDone
}

// TestSameIDInAnotherShard uses an ID that an upload of another shard has: the events of the one are not
// those of the other.
func TestSameIDInAnotherShard(t *testing.T) { synctest.Test(t, sameIDInAnotherShard) }

func sameIDInAnotherShard(t *testing.T) {
	f := newFleet(t, nil)
	body := randomBytes(1 << 20)
	req := request("a.png")
	release := f.stalled(1, 2, 3)
	done := f.begin(req, body)
	synctest.Wait()
	other := catalog.Upload{
		ID: req.ID, User: "alice", Name: "b.png", State: catalog.Failed,
		Problem: &image.Problem{Code: image.KindExists},
	}
	for _, s := range f.nodes {
		s.Applied(testShard+1, 1, []catalog.Event{{Upload: &other}})
	}
	release()
	f.expectStored(f.expectRecord(<-done), body)
	f.expectEntries("commit")
}

// TestEndOfAnEarlierTry: an end that comes late, of an earlier try of an upload, does not end this one. The
// copies that were reported before it count no more, and are reported again.
func TestEndOfAnEarlierTry(t *testing.T) { synctest.Test(t, endOfAnEarlierTry) }

func endOfAnEarlierTry(t *testing.T) {
	f := newFleet(t, nil)
	body := randomBytes(1 << 20)
	release := f.log.holdBack("commit")
	req := request("a.png")
	done := f.begin(req, body)
	synctest.Wait()
	end := catalog.End{
		ID: req.ID, User: req.User, Name: req.Name, Round: 1, Cause: image.KindAborted, Text: "test",
		Created: time.Now(),
	}
	if _, err := f.log.append(testShard, catalog.Command{End: &end}); err != nil {
		t.Fatal(err)
	}
	release()
	f.expectStored(f.expectRecord(<-done), body)
	f.expectEntries("end", "commit", "commit")
	f.expectNothingLeft()
}

// TestNoProgress: an upload whose copies do not become durable fails, and its late files go.
func TestNoProgress(t *testing.T) { synctest.Test(t, noProgress) }

func noProgress(t *testing.T) {
	f := newFleet(t, func(o *Options) { o.UploadTimeout = 20 * time.Second })
	release := f.stalled(1, 2, 3)
	began := time.Now()
	for _, a := range f.broadcast(request("a.png"), randomBytes(1<<20), nil) {
		if a.err == nil {
			t.Errorf("node %d answers %+v", a.node, a.rec)
		}
	}
	if took := time.Since(began); took > 21*time.Second {
		t.Errorf("answered after %v", took)
	}
	time.Sleep(time.Second) // of the bubble's clock: the leader has no more patience than the clients
	release()
	f.expectNothing("a.png")
	for id := range f.nodes {
		f.expectNoFile(id)
	}
	f.expectNothingLeft()
}

// TestEndsUndecided has an upload end on a node, which shuts down, with its copy reported and before the log
// has decided: the file stays, since the log may name it.
func TestEndsUndecided(t *testing.T) { synctest.Test(t, endsUndecided) }

func endsUndecided(t *testing.T) {
	f := newFleet(t, nil)
	body := randomBytes(1 << 20)
	release := f.log.holdBack("commit")
	req := f.named(body, 1, 2)
	done := f.begin(req, body)
	synctest.Wait()
	f.nodes[2].local(testShard, req.ID).cancel(errors.New("test"))
	f.expectUploads(2, 0)
	if f.vaults[2].count() != 1 {
		t.Fatal("the file is gone, and the log may name it")
	}
	release()
	rec := f.expectRecord(<-done, 2)
	if !slices.Equal(rec.Replicas(), []image.NodeID{1, 2}) {
		t.Errorf("record %+v", rec)
	}
	f.expectStored(rec, body)
}

// TestStoringAgain has an upload's part taken from a node, and given back to it, while its first file becomes
// durable: that one goes, and the second one counts.
func TestStoringAgain(t *testing.T) { synctest.Test(t, storingAgain) }

func storingAgain(t *testing.T) {
	f := newFleet(t, nil)
	f.lose(func(image.NodeID, image.NodeID, Message) bool { return true })
	body := randomBytes(1 << 20)
	req := f.named(body, 2, 3)
	req.Broadcast = []image.NodeID{1, 2}
	release := f.stalled(2)
	done := make(chan answer)
	go func() {
		rec, err := f.nodes[2].Receive(t.Context(), req, bytes.NewReader(body))
		done <- answer{2, rec, err}
	}()
	synctest.Wait()
	decide := func(storing ...image.NodeID) {
		d := commit.Decision{ID: req.ID, Round: 1, Storing: storing, Standby: 2}
		f.nodes[2].Take(1, Message{Shard: testShard, Decision: &d})
		synctest.Wait()
	}
	decide(2, 3)
	first := f.nodes[2].local(testShard, req.ID).attempt.file
	decide(1, 3)
	decide(2, 3)
	second := f.nodes[2].local(testShard, req.ID).attempt.file
	if first == second {
		t.Fatal("the part was not begun again")
	}
	release()
	synctest.Wait()
	if f.vaults[2].file(first) != nil || f.vaults[2].file(second) == nil {
		t.Errorf("%d files, want the second alone", f.vaults[2].count())
	}
	f.propose(catalog.Command{Commit: &catalog.Commit{
		ID: req.ID, User: req.User, Name: req.Name, Bytes: req.Size, Wanted: 2, Created: time.Now(),
		Copies: []catalog.Reported{{Copy: image.Copy{Node: 2, Attempt: second.Attempt}}},
		Check:  checkOf(req.ID, body),
	}})
	f.expectStored(f.expectRecord([]answer{<-done}), body)
}

// TestNodesThatDoNotHearEachOther: where messages between a node and the shard's leader are lost, in one
// direction or both, they go by way of the third.
func TestNodesThatDoNotHearEachOther(t *testing.T) {
	synctest.Test(t, nodesThatDoNotHearEachOther)
}

func nodesThatDoNotHearEachOther(t *testing.T) {
	f := newFleet(t, nil)
	f.lead(1)
	body := randomBytes(100_000)
	for _, deaf := range [][]image.NodeID{{3}, {1}, {1, 3}} { // whose messages to the other one are lost
		f.lose(func(from, to image.NodeID, _ Message) bool {
			return slices.Contains(deaf, from) && from+to == 1+3
		})
		rec, err := f.relay(3, request(fmt.Sprint("relayed ", deaf)), body)
		if err != nil {
			t.Fatalf("messages of %v are lost: %v", deaf, err)
		}
		f.expectStored(rec, body)
		f.expectStored(f.expectRecord(f.broadcast(request(fmt.Sprint(deaf)), body, nil)), body)
	}
	f.expectNothingLeft()
}

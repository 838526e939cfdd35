package repair

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/clustertest/memkv"
	"imgcluster/cluster/image"
)

// slowLog is a shard's log that gives no answer while it is silent. What was proposed then may come late.
type slowLog struct {
	t      *testing.T
	mu     sync.Mutex
	kv     memkv.KV
	index  uint64
	silent bool
	late   []catalog.Command
}

func (l *slowLog) answers(is bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.silent = !is
}

// unanswered are the commands that were given no answer.
func (l *slowLog) unanswered() []catalog.Command {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.late)
}

func (l *slowLog) Propose(_ context.Context, _ uint64, c catalog.Command) (catalog.Result, error) {
	l.mu.Lock()
	silent := l.silent
	if silent {
		l.late = append(l.late, c)
	}
	l.mu.Unlock()
	if silent {
		return catalog.Result{}, errors.New("no answer")
	}
	return l.apply(c), nil
}

func (l *slowLog) apply(c catalog.Command) catalog.Result {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.index++
	b, _, err := catalog.Apply(l.kv, 2, l.index, c.Encode())
	if err != nil {
		l.t.Fatal(err)
	}
	r, err := catalog.DecodeResult(b)
	if err != nil {
		l.t.Fatal(err)
	}
	return r
}

func (l *slowLog) View(_ uint64, fn func(catalog.Reader) error) error { return fn(l.kv) }

// pinnedCopies are the files of node 1.
type pinnedCopies struct {
	Copies
	log   *slowLog
	pins  map[image.FileID]bool
	files map[image.FileID]bool
}

func (p *pinnedCopies) Pin(f image.FileID) (release func()) {
	p.pins[f] = true
	return func() { delete(p.pins, f) }
}

func (p *pinnedCopies) Make(
	_ context.Context, rec *image.Record, _ image.Copy, to image.Attempt,
) (image.Copy, error) {
	c := image.Copy{Node: 1, Attempt: to, Key: 1}
	p.files[rec.File(c)] = true
	return c, nil
}

// Remove deletes what the sweep would delete.
func (p *pinnedCopies) Remove(f image.FileID) error {
	named, err := catalog.Names(p.log.kv, 1, f)
	if !named && !p.pins[f] {
		delete(p.files, f)
	}
	return err
}

// TestUnknownOutcome: a copy of which it is not known whether the log names it stays until the log has taken
// it back, so that a Recopy that comes late, before or after that, names no file that is gone.
func TestUnknownOutcome(t *testing.T) {
	for _, early := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			log := &slowLog{t: t, kv: memkv.KV{}}
			copies := &pinnedCopies{log: log, pins: map[image.FileID]bool{}, files: map[image.FileID]bool{}}
			s := New(Options{
				Node: 1, Log: log, Copies: copies, Logger: zap.NewNop(), Rate: 1 << 30,
				Acted:  func(uint64) uint64 { return log.index },
				Up:     func() []image.NodeID { return []image.NodeID{1, 2} },
				Shards: func() []uint64 { return []uint64{2} },
			})
			defer s.Close()
			id := image.NewID()
			log.apply(catalog.Command{Commit: &catalog.Commit{
				ID: id, User: "alice", Name: "a.png", Bytes: 1, Check: image.Check{Key: 1}, Wanted: 2,
				Copies:  []catalog.Reported{{Copy: image.Copy{Node: 2, Attempt: image.NewAttempt(), Key: 1}}},
				Created: time.Now(),
			}})
			rec, err := catalog.GetRecord(log.kv, "alice", "a.png")
			if err != nil {
				t.Fatal(err)
			}

			log.answers(false)
			ctx, cancel := context.WithTimeout(t.Context(), retryPause/2)
			defer cancel()
			if s.makeCopy(ctx, rec, nil) || len(log.unanswered()) == 0 {
				t.Fatal("a copy was made without an answer of the log")
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			if len(copies.files) != 1 || len(copies.pins) != 1 {
				t.Fatalf("files %v, pins %v while nothing is known", copies.files, copies.pins)
			}
			recopy := log.unanswered()[0]
			if early {
				log.apply(recopy)
			}
			log.answers(true)
			time.Sleep(time.Minute)
			synctest.Wait()
			if len(copies.pins) != 0 || s.unknown.Load() != 0 {
				t.Fatalf("pins %v, %d unknown", copies.pins, s.unknown.Load())
			}
			log.apply(recopy)
			rec, err = catalog.GetRecord(log.kv, "alice", "a.png")
			if err != nil {
				t.Fatal(err)
			}
			named := 0
			for _, c := range rec.Copies {
				if c.Node == 1 {
					named++
					if !copies.files[rec.File(c)] {
						t.Errorf("the record names %v, which is gone", c)
					}
				}
			}
			if named != len(copies.files) || early != (named == 1) {
				t.Errorf("%d copies are named, of %v", named, copies.files)
			}
		})
	}
}

// TestProposalsAsOfOneEntry: what is proposed again is as of the entry of the first proposal, which the log
// may have executed, and undone, meanwhile.
func TestProposalsAsOfOneEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &slowLog{t: t, kv: memkv.KV{}, silent: true}
		acted := uint64(7)
		s := New(Options{
			Node: 1, Log: log, Logger: zap.NewNop(), Rate: 1,
			Acted:  func(uint64) uint64 { acted++; return acted },
			Shards: func() []uint64 { return []uint64{2} },
		})
		defer s.Close()
		rec := &image.Record{ID: image.NewID(), User: "alice", Name: "a.png", Shard: 2}
		made := image.Copy{Node: 1, Attempt: image.NewAttempt()}
		if _, err := s.proposeCopy(t.Context(), rec, made, nil); err == nil {
			t.Fatal("an answer of a log that gives none")
		}
		if len(log.late) != proposalsMax {
			t.Errorf("proposed %d times", len(log.late))
		}
		for _, c := range log.late {
			if c.Recopy.Add[0].Index != 8 {
				t.Errorf("proposed as of entry %d", c.Recopy.Add[0].Index)
			}
		}
	})
}

package catalog

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"imgcluster/cluster/image"
)

// idOf returns the n-th of a kind of upload IDs.
func idOf(kind byte, n int) image.ID {
	return image.ID{0: kind, 12: byte(n >> 24), 13: byte(n >> 16), 14: byte(n >> 8), 15: byte(n)}
}

// putOf stores an image of a user, created at a time, and returns what was answered.
func (s *shard) putOf(user, name string, id image.ID, created time.Time) Result {
	s.t.Helper()
	c := commitOf(0, name, s.now(1), s.now(2))
	c.Commit.User, c.Commit.ID, c.Commit.Created = user, id, created
	r := s.do(c)
	s.log, s.events = nil, nil
	return r
}

// deleteOf deletes an image of a user that has none of that name, which is answered too.
func (s *shard) deleteOf(user string, id image.ID, created time.Time) {
	s.t.Helper()
	s.expectKind(s.do(Command{Delete: &Delete{ID: id, User: user, Name: "none.png", Created: created}}),
		image.KindNotFound)
	s.log = nil
}

func (s *shard) rows(table byte) (n int) {
	s.db.Scan([]byte{table}, []byte{table + 1}, func(_, _ []byte) bool { n++; return true })
	return n
}

func (s *shard) queue() (q finishedQueue) {
	s.t.Helper()
	if _, err := get(s.db, []byte{queueKey}, &q); err != nil {
		s.t.Fatal(err)
	}
	return q
}

// small bounds the answers so tightly that a test fills them: memkv sorts its keys for every scan.
var small = Retention{Time: time.Hour, Step: time.Second, User: 64 << 10, Total: 256 << 10}

// TestOneUserCannotFlushAnothersAnswers tries what once worked: another user's deletes push an answer out,
// and a retry of the old upload then replaces the newer image.
func TestOneUserCannotFlushAnothersAnswers(t *testing.T) {
	s := newShard(t)
	s.kept = small
	s.putOf("alice", "a.png", idOf(1, 1), clock)
	s.putOf("alice", "a.png", idOf(1, 2), clock)
	for n := range 4200 {
		s.deleteOf("mallory", idOf(2, n), clock.Add(time.Duration(n)*time.Millisecond))
	}
	if r := s.putOf("alice", "a.png", idOf(1, 1), clock); r.Upload.State != Committed ||
		s.record("a.png").ID != idOf(1, 2) {
		t.Fatalf("the retry of an upload replaced a newer image: %+v", s.record("a.png"))
	}
	if q := s.queue(); q.Bytes > small.User+2000 {
		t.Errorf("answers have %d bytes", q.Bytes)
	}
}

// TestAnswersOfManyUsersAreBounded fills the room for all: those with most make room, not who has few.
func TestAnswersOfManyUsersAreBounded(t *testing.T) {
	s := newShard(t)
	s.kept = small
	s.putOf("alice", "a.png", idOf(1, 1), clock)
	s.putOf("alice", "a.png", idOf(1, 2), clock)
	for n := range 3000 {
		s.deleteOf(fmt.Sprint("user", n%6), idOf(2, n), clock)
	}
	if q := s.queue(); q.Bytes > small.Total || q.Bytes < small.Total-2000 {
		t.Errorf("answers have %d bytes, want almost %d", q.Bytes, small.Total)
	}
	var of [6]int
	s.db.Scan([]byte{userOrderTable}, []byte{userOrderTable + 1}, func(k, _ []byte) bool {
		if n := k[len("ouser")]; k[1] == 'u' {
			of[n-'0']++
		}
		return true
	})
	if slices.Min(of[:])*4 < slices.Max(of[:]) {
		t.Errorf("the users have %v answers", of)
	}
	s.putOf("alice", "a.png", idOf(1, 1), clock)
	if s.record("a.png").ID != idOf(1, 2) {
		t.Error("the user with fewest answers lost one")
	}
	answers := s.rows(uploadTable) + s.rows(deletedTable)
	if s.rows(orderTable) != answers || s.rows(userOrderTable) != answers || s.rows(userQueueTable) != 7 ||
		s.rows(heavyTable) != 7 {
		t.Errorf("%d answers have %d and %d places of %d and %d users", answers, s.rows(orderTable),
			s.rows(userOrderTable), s.rows(userQueueTable), s.rows(heavyTable))
	}
}

// TestAnswersExpire lets time pass in the log. Nothing is left of answers that are too old.
func TestAnswersExpire(t *testing.T) {
	s := newShard(t)
	s.putOf("alice", "a.png", idOf(1, 1), clock)
	s.putOf("alice", "a.png", idOf(1, 2), clock)
	now := clock
	for n := range 3600 {
		s.deleteOf("bob", idOf(2, n), now)
		now = now.Add(time.Second)
		if known, _ := GetUpload(s.db, idOf(1, 1)); known == nil {
			t.Fatalf("forgotten after %s", now.Sub(clock))
		}
	}
	for n := 3600; n < 3610; n++ {
		s.deleteOf("bob", idOf(2, n), now)
		now = now.Add(time.Second)
	}
	if known, _ := GetUpload(s.db, idOf(1, 1)); known != nil {
		t.Errorf("kept for %s: %+v", now.Sub(clock), known)
	}
	if u, _ := GetUpload(s.db, idOf(1, 2)); u == nil || u.State != Committed {
		t.Error("the ID of a stored image is not known")
	}
	if s.rows(userQueueTable) != 1 || s.rows(heavyTable) != 1 || s.rows(orderTable) != s.rows(deletedTable) {
		t.Errorf("%d users, %d classes, %d places of %d answers are left", s.rows(userQueueTable),
			s.rows(heavyTable), s.rows(orderTable), s.rows(deletedTable))
	}
}

// TestFarAwayTimesForgetNothing has a node whose clock is years ahead, and one years behind, decide.
func TestFarAwayTimesForgetNothing(t *testing.T) {
	s := newShard(t)
	s.putOf("alice", "a.png", idOf(1, 1), clock)
	s.putOf("alice", "a.png", idOf(1, 2), clock)
	for n := range 1000 {
		created := time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
		if n%3 == 0 {
			created = time.Unix(1, 0)
		}
		s.deleteOf("bob", idOf(2, n), created)
	}
	if known, _ := GetUpload(s.db, idOf(1, 1)); known == nil {
		t.Error("a clock that is ahead made the shard forget an answer")
	}
	if got := time.UnixMilli(s.queue().Clock); got.Sub(clock) > 1000*finishedKept.Step {
		t.Errorf("1000 commands moved the clock from %s to %s", clock, got)
	}
}

// TestFailuresAgainLeaveNoPlaces has one upload fail again and again between two answers.
func TestFailuresAgainLeaveNoPlaces(t *testing.T) {
	s := newShard(t)
	s.deleteOf("alice", idOf(2, 1), clock)
	for range 500 {
		s.expectKind(s.do(endOf(1, "a.png")), image.KindAborted)
	}
	if s.rows(orderTable) != 2 || s.rows(userOrderTable) != 2 {
		t.Errorf("two answers have %d and %d places", s.rows(orderTable), s.rows(userOrderTable))
	}
	later := clock
	for n := range 3800 {
		later = later.Add(time.Second)
		s.deleteOf("alice", idOf(3, n), later)
	}
	if q := s.queue(); q.Next-q.First > 3620 || s.rows(uploadTable) != 0 {
		t.Errorf("the order goes from %d to %d, %d failures are kept", q.First, q.Next, s.rows(uploadTable))
	}
}

package catalog

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"time"
)

// Retention bounds what a shard keeps of uploads and deletes so that a repeated ID gets its first
// answer. They are the same on every node, since apply obeys them: constants, not settings.
//
// An answer goes when it is older than Time, on the shard's clock. Before that it goes only to make room:
// the user's oldest when the user has more than User, and an answer of one of the users who have most when
// there is more than Total. So a user pushes out its own answers alone, as long as it has more than others.
type Retention struct {
	Time  time.Duration
	Step  time.Duration // the most that one command moves the shard's clock on
	User  int64         // bytes of one user's answers
	Total int64         // bytes of all
}

// finishedKept is the Retention of a shard. With Step the clock of one node that is far ahead makes no
// answer older than Time before some 3,600 more commands; a shard with fewer than one a second keeps its
// answers longer. User is room for some 10,000 uploads, or 15,000 deletes.
var finishedKept = Retention{Time: time.Hour, Step: time.Second, User: 4 << 20, Total: 16 << 20}

// finishedRowBytes is what an answer counts beside its value and twice its user's name: keys and rows.
const finishedRowBytes = 160

// expiredPerAnswer is how many rows of the order are looked at, for age, whenever one is added: more than
// one, so that the order never grows for want of looking.
const expiredPerAnswer = 4

// finishedQueue is the order of all answers of a shard, oldest first, and its clock.
type finishedQueue struct {
	First uint64 // rows before it are gone
	Next  uint64
	Bytes int64
	Clock int64 // ms since 1970
	// Floor is the newest entry of the log that ended an upload, or took a copy back, and is forgotten.
	Floor uint64
}

// userQueue is the order of one user's answers.
type userQueue struct {
	First uint64
	Next  uint64
	Bytes int64
	Class int // where it stands in heavyTable
}

// orderRow is a place in the order of all: whose answer it is, and which of that user's.
type orderRow struct {
	User string
	Seq  uint64
	At   int64 // on the shard's clock
}

// userRow is a place in a user's order.
type userRow struct {
	Answer []byte // its key, in uploadTable, deletedTable or abortTable
	Order  uint64 // its place in the order of all
	Bytes  int64
	Index  uint64 // of the entry of the log that it answers
}

// forgotten returns the newest entry of the log that ended an upload, or took a copy back, and is forgotten:
// of copies that were reported before it, the shard cannot know whether they are there.
func forgotten(r Reader) (uint64, error) {
	q := finishedQueue{}
	_, err := get(r, []byte{queueKey}, &q)
	return q.Floor, err
}

func seqKey(seq uint64) []byte { return binary.BigEndian.AppendUint64([]byte{orderTable}, seq) }

func userSeqKey(user string, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(ofUser(userOrderTable, user), seq)
}

func userQueueKey(user string) []byte { return append([]byte{userQueueTable}, user...) }

// heavyKey sorts the users with most first.
func heavyKey(class int, user string) []byte {
	return append([]byte{heavyTable, ^byte(class)}, user...)
}

// finished is the answers of a shard while a command changes them.
type finished struct {
	*txn
	queue finishedQueue
}

// tick moves the shard's clock to the time that a command names, at most a step, and never back. The first
// one sets it.
func (f *finished) tick(created time.Time) {
	switch now := created.UnixMilli(); {
	case f.queue.Clock == 0:
		f.queue.Clock = now
	case now > f.queue.Clock:
		f.queue.Clock = min(now, f.queue.Clock+f.kept.Step.Milliseconds())
	}
}

// keep stores a user's answer to a request of the time created under key, and drops what is too old or too
// much then. answer makes the value once it is known which of the user's answers it is.
func (t *txn) keep(user string, created time.Time, key []byte, answer func(seq uint64) any) error {
	return t.changeFinished(user, func(f *finished, u *userQueue) error {
		f.tick(created)
		value := encode(answer(u.Next))
		err := t.tx.Set(key, value)
		if err == nil {
			err = f.add(user, u, key, int64(len(value)))
		}
		for err == nil && u.Bytes > t.kept.User {
			err = f.dropFirst(user, u)
		}
		return err
	}, (*finished).expire, (*finished).shrink)
}

// add appends the answer under key, of so many bytes, to the orders.
func (f *finished) add(user string, u *userQueue, key []byte, bytes int64) error {
	row := userRow{
		Answer: key, Order: f.queue.Next, Bytes: bytes + int64(2*len(user)) + finishedRowBytes, Index: f.index,
	}
	err := f.put(seqKey(row.Order), &orderRow{user, u.Next, f.queue.Clock})
	if err == nil {
		err = f.put(userSeqKey(user, u.Next), &row)
	}
	f.queue.Next++
	u.Next++
	f.queue.Bytes += row.Bytes
	u.Bytes += row.Bytes
	return err
}

// changeFinished changes a user's answers, then those of all, and writes what became of them.
func (t *txn) changeFinished(
	user string, change func(*finished, *userQueue) error, then ...func(*finished) error,
) error {
	f := &finished{txn: t}
	_, err := get(t.tx, []byte{queueKey}, &f.queue)
	if err == nil {
		err = f.change(user, func(u *userQueue) error { return change(f, u) })
	}
	for _, step := range then {
		if err == nil {
			err = step(f)
		}
	}
	if err == nil {
		err = f.put([]byte{queueKey}, &f.queue)
	}
	return err
}

// change reads a user's queue, changes it and writes it.
func (f *finished) change(user string, fn func(u *userQueue) error) error {
	u := &userQueue{}
	_, err := get(f.tx, userQueueKey(user), u)
	if err == nil {
		err = fn(u)
	}
	if err == nil {
		err = f.save(user, u)
	}
	return err
}

// forget takes a failed upload out of the answers, for another of its ID is to take its place.
func (t *txn) forget(old *Upload) error {
	return t.changeFinished(old.User, func(f *finished, u *userQueue) error {
		_, err := f.drop(old.User, u, old.Seq)
		return err
	})
}

// expire drops the oldest answers when they are too old, and skips places whose answers are gone.
func (f *finished) expire() error {
	for range expiredPerAnswer {
		if f.queue.First == f.queue.Next {
			return nil
		}
		var at orderRow
		ok, err := get(f.tx, seqKey(f.queue.First), &at)
		if err != nil || ok && at.At > f.queue.Clock-f.kept.Time.Milliseconds() {
			return err
		}
		if ok {
			err = f.change(at.User, func(u *userQueue) error {
				_, err := f.lose(at.User, u, at.Seq)
				return err
			})
		}
		if err != nil {
			return err
		}
		f.queue.First++
	}
	return nil
}

// forgetUser drops up to limit answers of a user, and reports whether there are more.
func (t *txn) forgetUser(user string, limit int) (more bool, err error) {
	err = t.changeFinished(user, func(f *finished, u *userQueue) error {
		for ; limit > 0 && u.Bytes > 0; limit-- {
			if err := f.dropFirst(user, u); err != nil {
				return err
			}
		}
		more = u.Bytes > 0
		return nil
	})
	return more, err
}

// shrink drops the oldest answers of the users with most until all are within the limit.
func (f *finished) shrink() error {
	for f.queue.Bytes > f.kept.Total {
		var user string
		err := f.tx.Scan([]byte{heavyTable}, []byte{heavyTable + 1}, func(k, _ []byte) bool {
			user = string(k[2:])
			return false
		})
		if err == nil {
			err = f.change(user, func(u *userQueue) error { return f.dropFirst(user, u) })
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// dropFirst drops a user's oldest answer. Places whose answers are gone are passed once.
func (f *finished) dropFirst(user string, u *userQueue) error {
	for u.First < u.Next {
		ok, err := f.lose(user, u, u.First)
		u.First++
		if ok || err != nil {
			return err
		}
	}
	return fmt.Errorf("catalog: the answers of user %q add up to %d bytes but there are none", user, u.Bytes)
}

// lose drops an answer for good, and reports whether it was there: what it answered is not known any more.
func (f *finished) lose(user string, u *userQueue, seq uint64) (bool, error) {
	row, err := f.drop(user, u, seq)
	if row != nil && row.Answer[0] != deletedTable {
		f.queue.Floor = max(f.queue.Floor, row.Index)
	}
	return row != nil, err
}

// drop deletes one answer of a user and returns its place, nil when it is not there.
func (f *finished) drop(user string, u *userQueue, seq uint64) (*userRow, error) {
	row, err := find[userRow](f.tx, userSeqKey(user, seq))
	if err != nil || row == nil {
		return nil, err
	}
	f.queue.Bytes -= row.Bytes
	u.Bytes -= row.Bytes
	for _, key := range [][]byte{row.Answer, seqKey(row.Order), userSeqKey(user, seq)} {
		if err := f.tx.Delete(key); err != nil {
			return nil, err
		}
	}
	return row, nil
}

// save writes a user's queue, and its class when that changed: at once upwards, downwards only from less
// than half of the class, so that the table of heavy users changes seldom.
func (f *finished) save(user string, u *userQueue) error {
	was, class := u.Class, bits.Len64(uint64(u.Bytes))
	if class > was || class < was-1 || class == 0 {
		u.Class = class
	}
	if u.Class != was && was > 0 {
		if err := f.tx.Delete(heavyKey(was, user)); err != nil {
			return err
		}
	}
	if u.Bytes == 0 {
		return f.tx.Delete(userQueueKey(user))
	}
	if u.Class != was {
		if err := f.tx.Set(heavyKey(u.Class, user), []byte{1}); err != nil {
			return err
		}
	}
	return f.put(userQueueKey(user), u)
}

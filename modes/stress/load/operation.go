package load

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"time"

	"imgcluster/modes/runlog"
)

// prepareAhead is how long before it is due the image of an open loop is made: late enough that not all
// workers hold one, early enough that it is ready.
const prepareAhead = time.Second

func (r *run) work() {
	mem := &Memory{budget: r.budget, most: r.o.Memory, waiting: r.o.Waiting}
	defer mem.unmap()
	for ok := true; ok && r.ctx.Err() == nil; {
		if r.o.Run.Rate > 0 {
			mem.unmap() // its pages count for nobody until there is an image again
		}
		var op *operation
		if op, ok = r.next(); !ok {
			return
		}
		if op.read {
			mem.unmap()
			ok = r.readOne(op, mem)
		} else {
			ok = r.uploadOne(op, mem)
		}
	}
}

// next returns a worker's next operation; false when there is none any more. Those of an open loop are
// given out when the image has to be made and no earlier, so that their kind goes by what is stored then.
func (r *run) next() (*operation, bool) {
	if r.o.Run.Rate > 0 {
		select {
		case r.turn <- struct{}{}:
			defer func() { <-r.turn }()
		case <-r.ctx.Done():
			return nil, false
		}
		if due, ok := r.schedule.nextDue(); !ok || !r.until(due-prepareAhead.Seconds()) {
			return nil, false
		}
	}
	return r.schedule.next(r.now(), r.stored)
}

// begin waits until an operation is due and takes it as started.
func (r *run) begin(op *operation) (start float64, ok bool) {
	if op.open && !r.until(op.due) {
		return 0, false
	}
	r.schedule.began(op)
	return r.now(), true
}

// warmup reports whether an operation belongs to the warm-up.
func (r *run) warmup(op *operation, start float64) bool {
	if op.open {
		start = op.due
	}
	return start < r.o.Run.WarmupS
}

// user returns whose image seq becomes, and what its record says of that.
func (r *run) user(seq int64) (user, recorded string) {
	user = r.o.Users[(seq-1)%int64(len(r.o.Users))]
	if len(r.o.Users) > 1 || user != DefaultUser {
		recorded = user
	}
	return user, recorded
}

// uploadOne makes one image and uploads it. The latency is from the upload's start to its receipt: the
// time to make the image is not in it, nor is that for the other nodes to end. It returns false when
// the upload may not begin any more.
func (r *run) uploadOne(op *operation, mem *Memory) bool {
	if r.o.Begin != nil {
		if r.o.Begin(r.ctx, op.seq); r.ctx.Err() != nil {
			return false
		}
	}
	rec := runlog.Upload{Seq: op.seq, ScheduledS: op.scheduled()}
	user, recorded := r.user(op.seq)
	rec.User = recorded
	making, before := time.Now(), mem.waited
	img, err := r.o.Source.Open(r.hard, op.seq, mem)
	waited := mem.waited - before
	r.source.Add(int64(time.Since(making) - waited))
	r.short(op, waited)
	defer mem.release()
	if img.Close != nil {
		defer img.Close() // was only read
	}
	rec.Name, rec.Class, rec.Bytes = img.Name, img.Class, img.Size
	start, ok := r.begin(op)
	if !ok {
		return false
	}
	r.flying.Add(1)
	defer r.flying.Add(-1)
	rec.StartS, rec.Warmup = start, r.warmup(op, start)
	if err == nil {
		err = r.put(&rec, Upload{User: user, Name: img.Name, Size: img.Size, Body: img.Body})
	}
	if err != nil {
		rec.Error = err.Error()
	}
	rec.OK = err == nil
	r.write(rec)
	return true
}

// short counts a wait for memory; in an open loop only the part that made the upload late.
func (r *run) short(op *operation, waited time.Duration) {
	if op.open {
		waited = min(waited, time.Duration(max(r.now()-op.due, 0)*float64(time.Second)))
	}
	r.waited.Add(int64(waited))
}

// tellShort writes that the uploads waited for memory, when it was for long.
func (r *run) tellShort() {
	if waited := time.Duration(r.waited.Load()); waited >= shortTold {
		Recorder{r}.Event(runlog.Event{
			Kind:   runlog.EventMemory,
			Detail: fmt.Sprintf("uploads waited %.1f s in all, since at most %d MiB of images are in memory at once", waited.Seconds(), r.o.Memory>>20),
		})
	}
}

// put uploads an image and completes its record.
func (r *run) put(rec *runlog.Upload, up Upload) error {
	var sum chan [sha256.Size]byte
	if r.stored != nil {
		sum = make(chan [sha256.Size]byte, 1)
		go func() { sum <- digest(up.Body()) }()
	}
	out, err := r.o.Target.Put(r.hard, up)
	rec.LatencyS = r.now() - rec.StartS
	if out.Done != nil {
		<-out.Done
	}
	if out.SentBytes != nil {
		rec.SentBytes = out.SentBytes()
	}
	r.sent.Add(rec.SentBytes)
	rec.ID, rec.Attempts = out.ID, out.Attempts
	stored := StoredImage{User: up.User, Name: up.Name, Seq: rec.Seq}
	if sum != nil {
		stored.Sum, stored.Known = <-sum, true
	}
	if err != nil {
		return err
	}
	rec.Owner, rec.Replicas, rec.FirstChoice, rec.FirstNode = out.Owner, out.Replicas, out.FirstChoice, out.FirstNode
	if r.stored != nil {
		r.stored.add(stored)
	}
	return nil
}

// digest hashes a body. When it cannot be read to its end the upload fails, or the images differ.
func digest(body io.Reader) [sha256.Size]byte {
	h := sha256.New()
	io.Copy(h, body)
	return [sha256.Size]byte(h.Sum(nil))
}

// readOne reads an image that the run stored, and compares. When none is stored at the time it uploads one.
func (r *run) readOne(op *operation, mem *Memory) bool {
	if op.open && !r.until(op.due) {
		return false
	}
	want, ok := r.schedule.choose(op, r.stored)
	switch {
	case !ok:
		return true
	case want == nil:
		return r.uploadOne(op, mem)
	}
	start, ok := r.begin(op)
	if !ok {
		return false
	}
	r.flying.Add(1)
	defer r.flying.Add(-1)
	_, recorded := r.user(want.Seq)
	rec := runlog.ReadOp{Name: want.Name, User: recorded, StartS: start, ScheduledS: op.scheduled(), Warmup: r.warmup(op, start)}
	sum, n, err := r.o.Target.Get(r.hard, want.User, want.Name)
	rec.LatencyS, rec.Bytes = r.now()-start, n
	r.read.Add(n)
	if err == nil && sum != want.Sum {
		err = fmt.Errorf("other bytes: the SHA-256 is %x, %x was sent", sum, want.Sum)
		Recorder{r}.Event(runlog.Event{Kind: runlog.EventImageMismatched, Detail: want.Name + ": " + err.Error()})
	}
	if err != nil {
		rec.Error = err.Error()
	}
	rec.OK = err == nil
	r.write(rec)
	return true
}

// Digest returns the SHA-256 of image seq of a source, which it makes again for that.
func Digest(ctx context.Context, s Source, seq int64) (sum [sha256.Size]byte, err error) {
	mem := newMemory()
	defer mem.unmap()
	img, err := s.Open(ctx, seq, mem)
	if err != nil {
		return sum, err
	}
	if img.Close != nil {
		defer img.Close()
	}
	return digest(img.Body()), nil
}

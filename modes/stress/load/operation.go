package load

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"time"

	"imgcluster/modes/runlog"
)

// prepareAhead is how long before an upload of an open loop is due its image is generated: early enough
// that it is ready, late enough that not all workers hold one.
const prepareAhead = time.Second

func (r *run) work() {
	mem := &Memory{budget: r.budget, max: r.o.Memory, waiting: r.o.Waiting}
	defer mem.unmap()
	for ok := true; ok && r.ctx.Err() == nil; {
		if r.o.Run.Rate > 0 {
			mem.unmap() // its pages are not in the budget until the next image
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

// next returns a worker's next operation; false when there is none any more. In an open loop it waits
// until the image has to be generated, so that what is stored then decides whether the operation reads.
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

// begin waits until an operation is due, and starts it.
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

// user returns the owner of image seq, and the user in its record.
func (r *run) user(seq int64) (user, recorded string) {
	user = r.o.Users[(seq-1)%int64(len(r.o.Users))]
	if len(r.o.Users) > 1 || user != DefaultUser {
		recorded = user
	}
	return user, recorded
}

// uploadOne generates one image and uploads it. The latency is from the start of the upload to its
// receipt, without the time to generate the image and without the wait for the other nodes to end. It
// returns false when the upload may not begin any more.
func (r *run) uploadOne(op *operation, mem *Memory) bool {
	if r.o.Begin != nil {
		if r.o.Begin(r.ctx, op.seq); r.ctx.Err() != nil {
			return false
		}
	}
	user, recorded := r.user(op.seq)
	begun := time.Now()
	before := mem.waited
	img, err := r.o.Source.Open(r.uploads, op.seq, mem)
	defer mem.release()
	waited := mem.waited - before
	r.source.Add(int64(time.Since(begun) - waited))
	r.addMemoryWait(op, waited)
	if img.Close != nil {
		defer img.Close() // was only read
	}
	start, ok := r.begin(op)
	if !ok {
		return false
	}
	r.inFlight.Add(1)
	defer r.inFlight.Add(-1)
	rec := runlog.Upload{
		Seq:        op.seq,
		ScheduledS: op.scheduled(),
		User:       recorded,
		Name:       img.Name,
		Class:      img.Class,
		Bytes:      img.Size,
		StartS:     start,
		Warmup:     r.warmup(op, start),
	}
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

// addMemoryWait counts a wait for memory, in an open loop only the part that made the upload late.
func (r *run) addMemoryWait(op *operation, waited time.Duration) {
	if op.open {
		waited = min(waited, time.Duration(max(r.now()-op.due, 0)*float64(time.Second)))
	}
	r.waited.Add(int64(waited))
}

// recordMemoryWait records how long uploads waited for memory, unless that was a moment only.
func (r *run) recordMemoryWait() {
	waited := time.Duration(r.waited.Load())
	if waited < memoryWaitMin {
		return
	}
	Recorder{r}.Event(runlog.Event{
		Kind: runlog.EventMemory,
		Detail: fmt.Sprintf("uploads waited %.1f s in all, since at most %d MiB of images are in memory at once",
			waited.Seconds(), r.o.Memory>>20),
	})
}

// put uploads an image and completes its record.
func (r *run) put(rec *runlog.Upload, up Upload) error {
	var sum chan [sha256.Size]byte
	if r.stored != nil {
		sum = make(chan [sha256.Size]byte, 1)
		go func() { sum <- digest(up.Body()) }()
	}
	out, err := r.o.Target.Put(r.uploads, up)
	rec.LatencyS = r.now() - rec.StartS
	if out.Done != nil {
		<-out.Done
	}
	if out.SentBytes != nil {
		rec.SentBytes = out.SentBytes()
	}
	if out.AgainBytes != nil {
		rec.AgainBytes = out.AgainBytes()
	}
	if rec.Delivery = out.Delivery; out.Chosen != nil {
		if chosen := out.Chosen(); chosen != "" {
			Recorder{r}.Event(runlog.Event{Kind: runlog.EventDelivery, Detail: chosen})
		}
	}
	r.sent.Add(rec.SentBytes)
	rec.ID = out.ID
	rec.Attempts = out.Attempts
	stored := StoredImage{User: up.User, Name: up.Name, Seq: rec.Seq}
	if sum != nil {
		stored.Sum = <-sum
		stored.Known = true
	}
	if err != nil {
		return err
	}
	rec.Owner = out.Owner
	rec.Replicas = out.Replicas
	rec.FirstChoice = out.FirstChoice
	rec.FirstNode = out.FirstNode
	if r.stored != nil {
		r.stored.Add(stored)
	}
	return nil
}

// digest hashes a body. An error of a read is ignored: the upload fails too, or the digests will differ.
func digest(body io.Reader) [sha256.Size]byte {
	h := sha256.New()
	io.Copy(h, body)
	return [sha256.Size]byte(h.Sum(nil))
}

// readOne reads an image that the run has stored and compares it. When none is stored yet, it uploads one.
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
	r.inFlight.Add(1)
	defer r.inFlight.Add(-1)
	_, recorded := r.user(want.Seq)
	sum, n, err := r.o.Target.Get(r.uploads, want.User, want.Name)
	rec := runlog.ReadOp{
		Name:       want.Name,
		User:       recorded,
		ScheduledS: op.scheduled(),
		StartS:     start,
		LatencyS:   r.now() - start,
		Bytes:      n,
		Warmup:     r.warmup(op, start),
	}
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

// Digest returns the SHA-256 of image seq of a source, which it opens again for that.
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

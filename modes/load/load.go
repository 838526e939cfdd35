// Package load drives the uploads of a stress run: a fixed number of workers, each making the next
// image and uploading it when its last upload has ended (a closed loop), while a sampler looks at
// the nodes and at itself every second. All that happens is written as records of package result.
// Where the uploads go is behind Target.
package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"imgcluster/cluster/image"
	"imgcluster/modes/result"
)

const (
	concurrencyMax = 1024
	countMax       = 100_000_000
	sampleInterval = time.Second
	sampleTimeout  = 2 * time.Second // of one look at the nodes
	memoryBytesMax = 192 << 20       // of images in memory: eight of the largest class
)

// ErrInterrupted is in the chain of the error of a run that was stopped before its last upload.
var ErrInterrupted = errors.New("the run was stopped")

// Target is the cluster under test. It is used by many goroutines at once.
type Target interface {
	// Put uploads an image, with its own retries. The Outcome counts for a failed upload too.
	Put(ctx context.Context, up Upload) (Outcome, error)
	// Status returns the figures of every node; TS is not looked at.
	Status(ctx context.Context) ([]result.NodeSample, error)
}

// Upload is one image on its way. Body gives a new reader of all of it at each call.
type Upload struct {
	User, Name string
	Size       int64
	Body       func() io.Reader
}

// Outcome is what became of an upload. SentBytes is called once Done is closed; until then the
// image's memory stays as it is. A nil Done is taken as closed, a nil SentBytes as 0.
type Outcome struct {
	Owner     int
	Replicas  []int
	Attempts  int
	Done      <-chan struct{}
	SentBytes func() int64
}

// Options describe a run. Run is its first record; Run.Count is the number of uploads and
// Run.Concurrency that of workers, Run.Started is set by Run.
type Options struct {
	Run      result.Run
	User     string
	Source   Source
	Target   Target
	Log      *result.Writer
	Memory   int64           // bytes of images in memory at most, 0: 192 MiB
	Progress func(Snapshot)  // called after each upload, one call at a time; may be nil
	Abort    <-chan struct{} // closed: uploads under way are cut off; may be nil

	// What follows may be nil. The context of all three ends when no upload may begin any more.
	Begin  func(ctx context.Context, seq int64)  // called before each upload, returns when it may begin
	Beside func(ctx context.Context, l Recorder) // runs beside the uploads; Run waits for its end
	After  func(ctx context.Context, l Recorder) // runs when the uploads and Beside have ended
}

// Recorder writes records into the log of a run under way.
type Recorder struct{ r *run }

// Write appends a record. That the log cannot be written ends the run.
func (l Recorder) Write(rec result.Record) { l.r.write(rec) }

// Event appends an event of this moment.
func (l Recorder) Event(e result.Event) {
	e.TS = l.r.now()
	l.r.write(e)
}

// Snapshot is how far a run is.
type Snapshot struct {
	Count, Done, Failed int64
	Retried             int64 // uploads that took more than one attempt
	Bytes               int64 // of the images stored
	SentBytes           int64
	Elapsed             time.Duration
}

// Run makes the uploads and writes the log up to its end record, without closing it. Cancelling ctx
// drains: no upload begins any more, those under way end, and the error is ErrInterrupted. Failed
// uploads are records, not errors; a log that cannot be written ends the run.
func Run(ctx context.Context, o Options) error {
	if err := o.Check(); err != nil {
		return err
	}
	r := &run{o: o, begun: time.Now(), budget: semaphore.NewWeighted(o.Memory)}
	r.shot.Count = o.Run.Count
	r.o.Run.Started = r.begun.UTC()
	var cut context.CancelFunc
	r.ctx, r.stop = context.WithCancel(ctx)
	defer r.stop()
	r.hard, cut = context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	r.write(r.o.Run)
	ended := make(chan struct{})
	go r.watchAbort(ended, func() { r.stop(); cut() })
	sampled := r.startSampler(ended)
	var workers, beside sync.WaitGroup
	if o.Beside != nil {
		beside.Go(func() { o.Beside(r.ctx, Recorder{r}) })
	}
	for range min(int64(o.Run.Concurrency), o.Run.Count) {
		workers.Go(r.work)
	}
	workers.Wait()
	elapsed := r.now()
	beside.Wait()
	close(ended)
	<-sampled
	if o.After != nil {
		o.After(r.ctx, Recorder{r})
	}
	r.write(result.End{ElapsedS: elapsed})
	return r.outcome()
}

// Check refuses what Run would refuse, and sets the defaults. Run calls it too.
func (o *Options) Check() error {
	bad := func(format string, args ...any) *image.Error { return image.Errorf(image.KindInvalid, format, args...) }
	if o.Memory <= 0 {
		o.Memory = memoryBytesMax
	}
	switch {
	case o.Run.Count < 1 || o.Run.Count > countMax:
		return bad("a run of %d uploads", o.Run.Count).WithHint("give --count between 1 and 100000000")
	case o.Run.Concurrency < 1 || o.Run.Concurrency > concurrencyMax:
		return bad("%d uploads at once", o.Run.Concurrency).WithHint("give --concurrency between 1 and 1024")
	}
	return image.CheckUser(o.User)
}

// run is one run under way.
type run struct {
	o      Options
	begun  time.Time
	ctx    context.Context    // ends when no upload may begin any more
	stop   context.CancelFunc // ends ctx
	hard   context.Context    // ends when uploads are cut off
	budget *semaphore.Weighted
	taken  atomic.Int64 // numbers given to workers

	mu   sync.Mutex
	shot Snapshot
	err  error // the log's
}

func (r *run) now() float64 { return time.Since(r.begun).Seconds() }

func (r *run) watchAbort(ended <-chan struct{}, abort func()) {
	select {
	case <-r.o.Abort:
		abort()
	case <-ended:
	}
}

func (r *run) outcome() error {
	if err := r.o.Log.Flush(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return r.err
	}
	if r.shot.Done < r.shot.Count || r.hard.Err() != nil {
		return fmt.Errorf("%w after %d of %d uploads", ErrInterrupted, r.shot.Done, r.shot.Count)
	}
	return nil
}

// write appends a record. A log with a hole is no evidence, so the first failure ends the run.
func (r *run) write(rec result.Record) {
	err := r.o.Log.Write(rec)
	if err == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.err = err
	}
	r.stop()
}

func (r *run) work() {
	mem := &Memory{budget: r.budget, most: r.o.Memory}
	defer mem.unmap()
	for r.ctx.Err() == nil {
		seq := r.taken.Add(1)
		if seq > r.o.Run.Count {
			return
		}
		if r.o.Begin != nil {
			if r.o.Begin(r.ctx, seq); r.ctx.Err() != nil {
				return
			}
		}
		r.finish(r.upload(seq, mem))
	}
}

// upload makes one image and uploads it. The latency is from the upload's start to its receipt: the
// time to make the image is not in it, nor is that for the other nodes to end.
func (r *run) upload(seq int64, mem *Memory) result.Upload {
	rec := result.Upload{Seq: seq}
	img, err := r.o.Source.Open(r.hard, seq, mem)
	defer mem.release()
	rec.Name, rec.Class, rec.Bytes = img.Name, img.Class, img.Size
	rec.StartS = r.now()
	if err != nil {
		rec.Error = err.Error()
		return rec
	}
	if img.Close != nil {
		defer img.Close() // was only read
	}
	out, err := r.o.Target.Put(r.hard, Upload{User: r.o.User, Name: img.Name, Size: img.Size, Body: img.Body})
	rec.LatencyS = r.now() - rec.StartS
	if out.Done != nil {
		<-out.Done
	}
	if out.SentBytes != nil {
		rec.SentBytes = out.SentBytes()
	}
	rec.Attempts, rec.OK = out.Attempts, err == nil
	if err != nil {
		rec.Error = err.Error()
		return rec
	}
	rec.Owner, rec.Replicas = out.Owner, out.Replicas
	return rec
}

func (r *run) finish(rec result.Upload) {
	r.write(rec)
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &r.shot
	s.Done++
	s.SentBytes += rec.SentBytes
	s.Elapsed = time.Since(r.begun)
	if rec.Attempts > 1 {
		s.Retried++
	}
	if rec.OK {
		s.Bytes += rec.Bytes
	} else {
		s.Failed++
	}
	if r.o.Progress != nil {
		r.o.Progress(*s)
	}
}

// Package load drives a stress run: workers that each make the next image and upload it when their last
// one has ended (a closed loop) or when it is due (an open loop), and that read images back in between,
// while a sampler looks at the nodes and at itself every second. All that happens is written as records
// of package result. Where the uploads go is behind Target.
package load

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"imgcluster/cluster/image"
	"imgcluster/modes/runlog"
)

const (
	concurrencyMax = 1024
	countMax       = 100_000_000
	usersMax       = 10_000
	rateMax        = 100_000 // operations a second
	durationMax    = 30 * 24 * 3600
	sampleInterval = time.Second
	sampleTimeout  = 2 * time.Second // of one look at the nodes
	memoryBytesMax = 192 << 20       // of images in memory: eight of the largest class
	shortTold      = time.Second     // of waits for memory, from which on the log has them
)

// DefaultUser is whose the images of a run become when nobody is named. Records tell the user only where
// it is another.
const DefaultUser = "stresstest"

// ErrInterrupted is in the chain of the error of a run that was stopped before its end.
var ErrInterrupted = errors.New("the run was stopped")

// Target is the cluster under test. It is used by many goroutines at once.
type Target interface {
	// Put uploads an image, with its own retries. The Outcome counts for a failed upload too.
	Put(ctx context.Context, up Upload) (Outcome, error)
	// Get reads an image to its end and returns the SHA-256 of its bytes and how many there were; how
	// many there were counts for a failed read too.
	Get(ctx context.Context, user, name string) (sum [sha256.Size]byte, bytes int64, err error)
	// Status returns the figures of every node; TS is not looked at.
	Status(ctx context.Context) ([]runlog.NodeSample, error)
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
	ID          string // of the upload
	Owner       int
	Replicas    []int
	FirstChoice *bool // the owner is the first in the hash's rank; nil: not known
	FirstNode   int   // that first; 0: not known
	Attempts    int
	Done        <-chan struct{}
	SentBytes   func() int64
}

// Options describe a run. Run is its first record, and says how much load there is: Count uploads, or
// those of DurationS; Concurrency at once at most; at Rate, or each worker's next when its last has
// ended. Run.Started is set by Run.
type Options struct {
	Run     runlog.Run
	Users   []string // whose the images become, in turn
	Source  Source
	Target  Target
	Log     *runlog.Writer
	Memory  int64               // bytes of images in memory at most, 0: 192 MiB
	Stored  *Stored             // is told every image that was acknowledged; may be nil
	Resume  *Resume             // the run goes on after an interruption; may be nil
	Observe func(runlog.Record) // called after each record, one call at a time; may be nil
	Waiting *atomic.Int64       // how many workers wait for memory; may be nil
	Abort   <-chan struct{}     // closed: uploads under way are cut off; may be nil
	Crash   func()              // called before the process ends by a panic; may be nil

	// What follows may be nil. The context of all three ends when no upload may begin any more.
	Begin  func(ctx context.Context, seq int64)        // called before each upload, returns when it may begin
	Beside func(ctx context.Context, l Recorder)       // runs beside the uploads; Run waits for its end
	After  func(ctx context.Context, l Recorder) error // runs when the uploads and Beside have ended
}

// Resume is where an interrupted run goes on.
type Resume struct {
	AtS    float64        // on the run's clock
	Done   map[int64]bool // uploads that succeeded, by seq
	Detail string         // of the event
}

// Recorder writes records into the log of a run under way.
type Recorder struct{ r *run }

// Write appends a record. That the log cannot be written ends the run.
func (l Recorder) Write(rec runlog.Record) { l.r.write(rec) }

// Flush hands all records to the system, which keeps them when this process ends at once.
func (l Recorder) Flush() error { return l.r.o.Log.Flush() }

// Event appends an event of this moment.
func (l Recorder) Event(e runlog.Event) {
	e.TS = l.r.now()
	l.r.write(e)
}

// Run makes the uploads and writes the log up to its end record, without closing it. Cancelling ctx
// drains: no upload begins any more, those under way end, and the error is ErrInterrupted. Failed
// uploads are records, not errors; a log that cannot be written ends the run. The end record is the last: what the
// run was to do is done then, or never was.
func Run(ctx context.Context, o Options) error {
	if err := o.Check(); err != nil {
		return err
	}
	r := newRun(o)
	var cut context.CancelFunc
	r.ctx, r.stop = context.WithCancel(ctx)
	defer r.stop()
	r.hard, cut = context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	r.open()
	ended := make(chan struct{})
	go r.watchAbort(ended, func() { r.stop(); cut() })
	sampled := r.startSampler(ended)
	var workers, beside sync.WaitGroup
	if o.Beside != nil {
		beside.Go(r.guarded(func() { o.Beside(r.ctx, Recorder{r}) }))
	}
	for range r.workers() {
		workers.Go(r.guarded(r.work))
	}
	workers.Wait()
	elapsed := r.now()
	stopped := ctx.Err() != nil
	beside.Wait()
	close(ended)
	<-sampled
	r.tellShort()
	var after error
	if o.After != nil {
		after = o.After(r.ctx, Recorder{r})
	}
	r.write(runlog.End{ElapsedS: elapsed})
	if err := r.outcome(stopped); err != nil {
		return err
	}
	return after
}

// Check refuses what Run would refuse, and sets the defaults. Run calls it too.
func (o *Options) Check() error {
	if o.Memory <= 0 {
		o.Memory = memoryBytesMax
	}
	run := &o.Run
	if run.Arrivals == "" && run.Rate > 0 {
		run.Arrivals = runlog.ArrivalsConstant
	}
	for _, c := range []struct {
		bad        bool
		said, hint string
	}{
		{run.DurationS == 0 && (run.Count < 1 || run.Count > countMax), fmt.Sprintf("a run of %d uploads", run.Count), "give --count between 1 and 100000000"},
		{run.DurationS != 0 && run.Count != 0, "a run with a count and a duration", "give --count or --duration"},
		{!(run.DurationS >= 0 && run.DurationS <= durationMax), fmt.Sprintf("a run of %v s", run.DurationS), "give --duration up to 720h"},
		{run.Concurrency < 1 || run.Concurrency > concurrencyMax, fmt.Sprintf("%d uploads at once", run.Concurrency), "give --concurrency between 1 and 1024"},
		{!(run.Rate >= 0 && run.Rate <= rateMax), fmt.Sprintf("a rate of %v uploads/s", run.Rate), "give --rate above 0 and up to 100000, or leave it out"},
		{run.Arrivals != "" && run.Arrivals != runlog.ArrivalsConstant && run.Arrivals != runlog.ArrivalsPoisson, fmt.Sprintf("no arrivals are named %q", run.Arrivals), "use --arrivals constant or poisson"},
		{run.Arrivals != "" && run.Rate == 0, "--arrivals without --rate", "add --rate, such as --rate 10"},
		{!(run.WarmupS >= 0) || run.DurationS > 0 && run.WarmupS >= run.DurationS, fmt.Sprintf("a warm-up of %v s", run.WarmupS), "give --warmup less than --duration: it is a part of it"},
		{!(run.ReadPercent >= 0 && run.ReadPercent < 100), fmt.Sprintf("%v %% of reads", run.ReadPercent), "give --mix read=0 to read=99: some operations must upload"},
		{len(o.Users) < 1 || len(o.Users) > usersMax, fmt.Sprintf("a run with %d users", len(o.Users)), "give --users between 1 and 10000"},
	} {
		if c.bad {
			return image.Errorf(image.KindInvalid, "%s", c.said).WithHint(c.hint)
		}
	}
	for _, u := range o.Users {
		if err := image.CheckUser(u); err != nil {
			return err
		}
	}
	return nil
}

// run is one run under way.
type run struct {
	o        Options
	begun    time.Time          // 0 of the run's clock
	ctx      context.Context    // ends when no upload may begin any more
	stop     context.CancelFunc // ends ctx
	hard     context.Context    // ends when uploads are cut off
	budget   *semaphore.Weighted
	schedule *schedule
	stored   *Stored       // nil when nothing is read
	turn     chan struct{} // who has it waits for the next operation of an open loop

	flying     atomic.Int64 // operations under way
	source     atomic.Int64 // nanoseconds in which images were made
	waited     atomic.Int64 // nanoseconds in which uploads waited for memory
	sent, read atomic.Int64 // bytes

	mu   sync.Mutex
	done int64 // uploads that ended, those of before an interruption included
	err  error // the log's
}

func newRun(o Options) *run {
	r := &run{o: o, begun: time.Now(), budget: semaphore.NewWeighted(o.Memory), stored: o.Stored, turn: make(chan struct{}, 1)}
	if o.Resume != nil {
		r.begun = r.begun.Add(-time.Duration(o.Resume.AtS * float64(time.Second)))
		r.done = int64(len(o.Resume.Done))
	} else {
		r.o.Run.Started = r.begun.UTC()
	}
	if r.stored == nil && o.Run.ReadPercent > 0 {
		r.stored = &Stored{most: readImagesMax}
	}
	r.schedule = newSchedule(&r.o)
	return r
}

// open writes the first record.
func (r *run) open() {
	if r.o.Resume != nil {
		r.write(runlog.Event{TS: r.o.Resume.AtS, Kind: runlog.EventResumed, Detail: r.o.Resume.Detail})
		r.write(r.o.Run.Plan)
		return
	}
	r.write(r.o.Run)
}

// workers is how many are needed.
func (r *run) workers() int64 {
	n := int64(r.o.Run.Concurrency)
	if count := r.o.Run.Count; count > 0 {
		n = min(n, max(count-r.done, 0))
	}
	return n
}

// guarded makes a panic in f call Crash before it goes its way.
func (r *run) guarded(f func()) func() {
	return func() {
		defer func() {
			if p := recover(); p != nil {
				if r.o.Crash != nil {
					r.o.Crash()
				}
				panic(p)
			}
		}()
		f()
	}
}

func (r *run) now() float64 { return time.Since(r.begun).Seconds() }

// until waits for a time of the run's clock, and reports whether uploads may still begin then.
func (r *run) until(t float64) bool {
	wait := time.Duration((t - r.now()) * float64(time.Second))
	if wait <= 0 {
		return r.ctx.Err() == nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return r.ctx.Err() == nil
	case <-r.ctx.Done():
		return false
	}
}

func (r *run) watchAbort(ended <-chan struct{}, abort func()) {
	select {
	case <-r.o.Abort:
		abort()
	case <-ended:
	}
}

func (r *run) outcome(stopped bool) error {
	if err := r.o.Log.Flush(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch count := r.o.Run.Count; {
	case r.err != nil:
		return r.err
	case count > 0 && (r.done < count || r.hard.Err() != nil):
		return fmt.Errorf("%w after %d of %d uploads", ErrInterrupted, r.done, count)
	case count == 0 && (stopped || r.hard.Err() != nil):
		return fmt.Errorf("%w after %d uploads", ErrInterrupted, r.done)
	}
	return nil
}

// write appends a record. A log with a hole is no evidence, so the first failure ends the run.
func (r *run) write(rec runlog.Record) {
	r.mu.Lock() // what is observed comes in the order of the log
	defer r.mu.Unlock()
	if err := r.o.Log.Write(rec); err != nil {
		if r.err == nil {
			r.err = err
		}
		r.stop()
		return
	}
	if _, upload := rec.(runlog.Upload); upload {
		r.done++
	}
	if r.o.Observe != nil {
		r.o.Observe(rec)
	}
}

// Package load drives a stress run. Each worker generates an image and uploads it when its last upload
// has ended (a closed loop) or when the next is due (an open loop), and reads images back in between. A
// sampler records the figures of the nodes and of this process every second. All that happens is written
// as records of package runlog. The cluster is behind Target.
package load

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wait"
	"imgcluster/modes/runlog"
)

const (
	concurrencyMax = 1024
	countMax       = 100_000_000
	usersMax       = 10_000
	rateMax        = 100_000 // operations a second
	durationMax    = 30 * 24 * 3600
	sampleInterval = time.Second
	sampleTimeout  = 2 * time.Second // for the status of all nodes
	memoryBytesMax = 192 << 20       // of images in memory: eight of the largest class
	memoryWaitMin  = time.Second     // total wait for memory from which on it is recorded
)

// DefaultUser owns the images of a run when no user is named. Records name the user only when it is another.
const DefaultUser = "stresstest"

// ErrInterrupted is wrapped by the error of a run that was stopped before its end.
var ErrInterrupted = errors.New("the run was stopped")

// Target is the cluster under test. It is used by many goroutines at once.
type Target interface {
	// Put uploads an image, with retries of its own. A failed upload has an Outcome too.
	Put(ctx context.Context, up Upload) (Outcome, error)
	// Get reads an image to its end and returns the SHA-256 and the number of its bytes. The number is
	// returned for a failed read too.
	Get(ctx context.Context, user, name string) (sum [sha256.Size]byte, bytes int64, err error)
	// Status returns the figures of every node. Their TS is ignored.
	Status(ctx context.Context) ([]runlog.NodeSample, error)
}

// Upload is an image to be uploaded. Each call of Body returns a new reader of all of it.
type Upload struct {
	User, Name string
	Size       int64
	Body       func() io.Reader
}

// Outcome is the result of an upload. Its functions are called once Done is closed; until then the image's
// memory is not changed. A nil Done counts as closed, a nil function as one that returns nothing.
type Outcome struct {
	ID          string // of the upload
	Owner       int
	Replicas    []int
	FirstChoice *bool // whether the owner ranks first in the hash; nil: not known
	FirstNode   int   // the node that ranks first; 0: not known
	Attempts    int
	Done        <-chan struct{}
	SentBytes   func() int64
	AgainBytes  func() int64  // of SentBytes, see runlog.Upload
	Delivery    string        // where the target has chosen it; else empty
	Chosen      func() string // what the target has chosen by this upload; else empty
}

// Options describe a run. Run is its first record, which says how much load there is: Count uploads, or
// as many as begin within DurationS; at most Concurrency at once; at Rate, or each when the worker's last
// has ended. Run.Started is set by the function Run.
type Options struct {
	Run     runlog.Run
	Users   []string // the owners of the images, in turn
	Source  Source
	Target  Target
	Log     *runlog.Writer
	Memory  int64               // bytes of images in memory at most, 0: 192 MiB
	Stored  *Stored             // gets every acknowledged image; may be nil
	Resume  *Resume             // resume an interrupted run; may be nil
	Observe func(runlog.Record) // called after each record, one call at a time; may be nil
	Waiting *atomic.Int64       // counts the workers that wait for memory; may be nil
	Abort   <-chan struct{}     // closed to abort the uploads in flight; may be nil
	Crash   func()              // called before the process ends by a panic; may be nil

	// These may be nil. Their context ends when no upload may begin any more.
	Begin  func(ctx context.Context, seq int64)        // called before each upload, returns when it may begin
	Beside func(ctx context.Context, l Recorder)       // runs beside the uploads; Run waits for its end
	After  func(ctx context.Context, l Recorder) error // runs when the uploads and Beside have ended
}

// Resume is where an interrupted run is resumed.
type Resume struct {
	AtS    float64        // on the run's clock
	Done   map[int64]bool // uploads that succeeded, by seq
	Detail string         // of the event
}

// Recorder writes records into the log of a run under way.
type Recorder struct{ r *run }

// Write appends a record. A failure to write ends the run.
func (l Recorder) Write(rec runlog.Record) { l.r.write(rec) }

// Flush hands all records to the operating system, which keeps them when this process is killed.
func (l Recorder) Flush() error { return l.r.o.Log.Flush() }

// Event appends an event, whose time is now.
func (l Recorder) Event(e runlog.Event) {
	e.TS = l.r.now()
	l.r.write(e)
}

// Run makes the uploads and writes the log up to its end record, without closing it. When ctx ends, the
// run is drained: no upload begins any more, those in flight end, and the error is ErrInterrupted. Failed
// uploads are records, not errors. A log that cannot be written ends the run. The end record is written
// last, after After.
func Run(ctx context.Context, o Options) error {
	if err := o.Check(); err != nil {
		return err
	}
	r := newRun(o)
	r.ctx, r.stop = context.WithCancel(ctx)
	defer r.stop()
	r.uploads, r.abort = context.WithCancel(context.WithoutCancel(ctx))
	defer r.abort()
	r.writeFirst()
	ended := make(chan struct{})
	go r.watchAbort(ended)
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
	r.recordMemoryWait()
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
	if o.Run.Arrivals == "" && o.Run.Rate > 0 {
		o.Run.Arrivals = runlog.ArrivalsConstant
	}
	if err := checkRun(&o.Run); err != nil {
		return err
	}
	if n := len(o.Users); n < 1 || n > usersMax {
		return invalidf("give --users between 1 and 10000", "a run with %d users", n)
	}
	for _, u := range o.Users {
		if err := image.CheckUser(u); err != nil {
			return err
		}
	}
	return nil
}

// checkRun refuses a load that cannot be. The comparisons refuse NaN too.
func checkRun(run *runlog.Run) error {
	switch {
	case run.DurationS == 0 && (run.Count < 1 || run.Count > countMax):
		return invalidf("give --count between 1 and 100000000", "a run of %d uploads", run.Count)
	case run.DurationS != 0 && run.Count != 0:
		return invalidf("give --count or --duration", "a run with a count and a duration")
	case !(run.DurationS >= 0 && run.DurationS <= durationMax):
		return invalidf("give --duration up to 720h", "a run of %v s", run.DurationS)
	case run.Concurrency < 1 || run.Concurrency > concurrencyMax:
		return invalidf("give --concurrency between 1 and 1024", "%d uploads at once", run.Concurrency)
	case !(run.Rate >= 0 && run.Rate <= rateMax):
		return invalidf("give --rate above 0 and up to 100000, or leave it out",
			"a rate of %v uploads/s", run.Rate)
	case !slices.Contains([]string{"", runlog.ArrivalsConstant, runlog.ArrivalsPoisson}, run.Arrivals):
		return invalidf("use --arrivals constant or poisson", "no arrivals are named %q", run.Arrivals)
	case run.Arrivals != "" && run.Rate == 0:
		return invalidf("add --rate, such as --rate 10", "--arrivals without --rate")
	case !(run.WarmupS >= 0) || run.DurationS > 0 && run.WarmupS >= run.DurationS:
		return invalidf("give --warmup less than --duration: it is a part of it", "a warm-up of %v s", run.WarmupS)
	case !(run.ReadPercent >= 0 && run.ReadPercent < 100):
		return invalidf("give --mix read=0 to read=99: some operations must upload",
			"%v %% of reads", run.ReadPercent)
	}
	return nil
}

func invalidf(hint, format string, args ...any) error {
	return image.Errorf(image.KindInvalid, format, args...).WithHint(hint)
}

// run is one run under way.
type run struct {
	o        Options
	begun    time.Time          // 0 of the run's clock
	ctx      context.Context    // ends when no upload may begin any more
	stop     context.CancelFunc // ends ctx
	uploads  context.Context    // of the uploads; ends to abort those in flight
	abort    context.CancelFunc // ends uploads
	budget   *semaphore.Weighted
	schedule *schedule
	stored   *Stored       // nil when nothing is read
	turn     chan struct{} // held by the worker that waits for the next operation of an open loop

	inFlight   atomic.Int64 // operations
	source     atomic.Int64 // nanoseconds in which images were generated
	waited     atomic.Int64 // nanoseconds in which uploads waited for memory
	sent, read atomic.Int64 // bytes

	mu   sync.Mutex
	done int64 // uploads that ended, those before an interruption included
	err  error // of the log
}

func newRun(o Options) *run {
	r := &run{
		o:      o,
		begun:  time.Now(),
		budget: semaphore.NewWeighted(o.Memory),
		stored: o.Stored,
		turn:   make(chan struct{}, 1),
	}
	if o.Resume != nil {
		r.begun = r.begun.Add(-time.Duration(o.Resume.AtS * float64(time.Second)))
		r.done = int64(len(o.Resume.Done))
	} else {
		r.o.Run.Started = r.begun.UTC()
	}
	if r.stored == nil && o.Run.ReadPercent > 0 {
		r.stored = &Stored{max: readImagesMax}
	}
	r.schedule = newSchedule(&r.o)
	return r
}

// writeFirst writes the first records of the run, or of its resumption.
func (r *run) writeFirst() {
	if resume := r.o.Resume; resume != nil {
		r.write(runlog.Event{TS: resume.AtS, Kind: runlog.EventResumed, Detail: resume.Detail})
		r.write(r.o.Run.Plan)
		return
	}
	r.write(r.o.Run)
}

// workers returns how many workers are needed.
func (r *run) workers() int64 {
	n := int64(r.o.Run.Concurrency)
	if count := r.o.Run.Count; count > 0 {
		n = min(n, max(count-r.done, 0))
	}
	return n
}

// guarded returns f with a call of Crash before a panic in f ends the process.
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

// until waits for a time on the run's clock, and reports whether uploads may still begin then.
func (r *run) until(t float64) bool {
	d := time.Duration((t - r.now()) * float64(time.Second))
	return (d <= 0 || wait.For(r.ctx, d)) && r.ctx.Err() == nil
}

func (r *run) watchAbort(ended <-chan struct{}) {
	select {
	case <-r.o.Abort:
		r.stop()
		r.abort()
	case <-ended:
	}
}

// outcome returns the error of the run. stopped says that its context ended before the uploads did.
func (r *run) outcome(stopped bool) error {
	if err := r.o.Log.Flush(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch count := r.o.Run.Count; {
	case r.err != nil:
		return r.err
	case count > 0 && (r.done < count || r.uploads.Err() != nil):
		return fmt.Errorf("%w after %d of %d uploads", ErrInterrupted, r.done, count)
	case count == 0 && (stopped || r.uploads.Err() != nil):
		return fmt.Errorf("%w after %d uploads", ErrInterrupted, r.done)
	}
	return nil
}

// write appends a record. The first failure ends the run, since a log with a gap is no evidence.
func (r *run) write(rec runlog.Record) {
	r.mu.Lock() // so that Observe gets the records in the order of the log
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

package load

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"imgcluster/cluster/image"
	"imgcluster/cluster/sample"
	"imgcluster/genimg"
	"imgcluster/modes/report"
	"imgcluster/modes/runlog"
)

// target is a fake cluster. Without status, no node answers.
type target struct {
	put    func(ctx context.Context, up Upload) (Outcome, error)
	status func(ctx context.Context) ([]runlog.NodeSample, error)
	get    func(user, name string) ([32]byte, int64, error)
}

func (t target) Put(ctx context.Context, up Upload) (Outcome, error) { return t.put(ctx, up) }

func (t target) Get(_ context.Context, user, name string) ([32]byte, int64, error) {
	return t.get(user, name)
}

func (t target) Status(ctx context.Context) ([]runlog.NodeSample, error) {
	if t.status == nil {
		return nil, errDown
	}
	return t.status(ctx)
}

// errDown is the error of a cluster that does not answer.
var errDown = errors.New("no node answers")

// putGood is a put that succeeds at once.
func putGood(_ context.Context, up Upload) (Outcome, error) { return good(up), nil }

var spec = genimg.Spec{Seed: 1, MinPixels: 16, MaxPixels: 200}

// good returns the outcome of an upload that three nodes got.
func good(up Upload) Outcome {
	return Outcome{Owner: 2, Replicas: []int{2, 3}, Attempts: 1, SentBytes: func() int64 { return 3 * up.Size }}
}

// line is a record of any type.
type line struct {
	Type string `json:"type"`
	Kind string `json:"kind"`
	ID   int    `json:"id"`
	Up   bool   `json:"up"`
	Node int    `json:"node"`
	runlog.Upload
	Count    int64     `json:"count"`
	Started  time.Time `json:"started"`
	TS       float64   `json:"t_s"`
	ElapsedS float64   `json:"elapsed_s"`
	RSSBytes int64     `json:"rss_bytes"`
	Replicas any       `json:"replicas"` // a number in run, a list in upload
	InFlight int       `json:"in_flight"`
	LateS    float64   `json:"late_s"`
	SourceS  float64   `json:"source_s"`
	SentTx   int64     `json:"net_tx_bytes"`
	ReadRx   int64     `json:"net_rx_bytes"`
	Detail   string    `json:"detail"`
}

// drive makes a run and returns its records by type. It checks that the log begins with its only run
// record and ends with its only end record.
func drive(t *testing.T, ctx context.Context, o Options) (map[string][]line, error) {
	t.Helper()
	byType, types, err := logOf(t, ctx, o)
	n := len(types)
	if n < 2 || types[0] != "run" || types[n-1] != "end" || len(byType["run"]) != 1 || len(byType["end"]) != 1 {
		t.Errorf("the log has the records %v", types)
	}
	return byType, err
}

// resume makes a run that resumes another, and returns its records by type.
func resume(t *testing.T, o Options) map[string][]line {
	t.Helper()
	byType, _, err := logOf(t, t.Context(), o)
	if err != nil {
		t.Error(err)
	}
	return byType
}

// logOf makes a run and returns its records by type, and the types in their order.
func logOf(t *testing.T, ctx context.Context, o Options) (map[string][]line, []string, error) {
	t.Helper()
	var buf bytes.Buffer
	o.Log = runlog.NewWriter(&buf)
	if o.Users == nil {
		o.Users = []string{DefaultUser}
	}
	if o.Source == nil {
		o.Source = Generated{spec}
	}
	err := Run(ctx, o)
	text := buf.String()
	if _, err := runlog.Read(strings.NewReader(text)); err != nil {
		t.Errorf("the log cannot be read: %v", err)
	}
	byType := map[string][]line{}
	var types []string
	for row := range strings.Lines(text) {
		var l line
		if err := json.Unmarshal([]byte(row), &l); err != nil {
			t.Fatal(err)
		}
		byType[l.Type] = append(byType[l.Type], l)
		types = append(types, l.Type)
	}
	return byType, types, err
}

// bodyOf returns a Body of this text.
func bodyOf(text string) func() io.Reader {
	return func() io.Reader { return strings.NewReader(text) }
}

// peak is the largest sum of what is added and not yet removed.
type peak struct {
	mu       sync.Mutex
	now, max int64
}

// add adds n and returns what removes it.
func (p *peak) add(n int64) (remove func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now += n
	p.max = max(p.max, p.now)
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.now -= n
	}
}

// Every image arrives whole and is not changed before Done: the fake cluster reads it again after the
// receipt.
func TestRun(t *testing.T) {
	const count, workers = 100, 8
	var inFlight peak
	var mu sync.Mutex
	sums := map[string][32]byte{}
	put := func(_ context.Context, up Upload) (Outcome, error) {
		defer inFlight.add(1)()
		sum := whole(up)
		mu.Lock()
		sums[up.Name] = sum
		mu.Unlock()
		done := make(chan struct{})
		go func() {
			defer close(done)
			if whole(up) != sum {
				t.Errorf("%s changed before Done", up.Name)
			}
		}()
		out := good(up)
		out.Done = done
		return out, nil
	}
	observed := 0
	logged, err := drive(t, t.Context(), Options{
		Run:    runlog.Run{Count: count, Concurrency: workers, Nodes: []int{1, 2, 3}},
		Target: target{put: put},
		Observe: func(rec runlog.Record) {
			if _, upload := rec.(runlog.Upload); upload {
				observed++
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if run := logged["run"][0]; run.Count != count || run.Started.IsZero() {
		t.Errorf("record %+v", run)
	}
	samples := logged["client"]
	if len(samples) < 2 || samples[0].RSSBytes < 1<<20 {
		t.Fatalf("samples of the client %+v", samples)
	}
	seen := map[int64]bool{}
	var total int64
	for _, u := range logged["upload"] {
		img := spec.Image(int(u.Seq))
		if u.Name != img.Name || u.Class != img.Class || u.Bytes != img.Size {
			t.Errorf("record %+v of image %+v", u, img)
		}
		placed := u.Owner == 2 && fmt.Sprint(u.Replicas) == "[2 3]"
		if !u.OK || !placed || u.SentBytes != 3*img.Size || u.Attempts != 1 {
			t.Errorf("record %+v, want the outcome of good", u)
		}
		if sha256.Sum256(img.AppendTo(nil)) != sums[img.Name] {
			t.Errorf("%s arrived with other bytes", img.Name)
		}
		seen[u.Seq] = true
		total += u.Bytes
	}
	if uploads := len(logged["upload"]); len(seen) != count || uploads != count || observed != count {
		t.Errorf("%d uploads of %d images, %d observed, want %d", uploads, len(seen), observed, count)
	}
	if inFlight.max > workers {
		t.Errorf("%d uploads at once by %d workers", inFlight.max, workers)
	}
	if last := samples[len(samples)-1]; last.SentTx != 3*total || last.InFlight != 0 || last.SourceS <= 0 {
		t.Errorf("the client's last sample is %+v, want %d bytes sent", last, 3*total)
	}
}

// whole returns the digest of an upload's body. It panics when the body has another size.
func whole(up Upload) [32]byte {
	b, err := io.ReadAll(up.Body())
	if err != nil || int64(len(b)) != up.Size {
		panic(fmt.Sprintf("%s has %d of %d bytes, %v", up.Name, len(b), up.Size, err))
	}
	return sha256.Sum256(b)
}

// event is the kind of an event, its node, and its time in whole seconds.
type event struct {
	second int
	kind   string
	node   int
}

// slowPut returns a put that takes d of a bubble's time.
func slowPut(d time.Duration) func(context.Context, Upload) (Outcome, error) {
	return func(_ context.Context, up Upload) (Outcome, error) {
		<-time.After(d)
		return good(up), nil
	}
}

// In a bubble's time: uploads take 4 s and their Done another second, node 2 is down from 3 s to 6 s, and
// no node answers from 8 s to 10 s.
func TestSamples(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		status := func(context.Context) ([]runlog.NodeSample, error) {
			at := time.Since(begun).Seconds()
			if at > 7.5 && at < 9.5 {
				return nil, errDown
			}
			return []runlog.NodeSample{
				{ID: 1, Up: true, Node: sample.Node{RSSBytes: 5}},
				{ID: 2, Up: at < 2.5 || at > 5.5, Node: sample.Node{RSSBytes: 6}},
			}, nil
		}
		put := func(ctx context.Context, up Upload) (Outcome, error) {
			out, err := slowPut(4*time.Second)(ctx, up)
			done := make(chan struct{})
			time.AfterFunc(time.Second, func() { close(done) })
			out.Done = done
			return out, err
		}
		logged, err := drive(t, t.Context(), Options{
			Run:    runlog.Run{Count: 6, Concurrency: 3},
			Target: target{put: put, status: status},
		})
		if err != nil {
			t.Fatal(err)
		}
		var got []event
		for _, e := range logged["event"] {
			got = append(got, event{int(math.Round(e.TS)), e.Kind, e.Node})
		}
		want := []event{
			{3, runlog.EventNodeDown, 2},
			{6, runlog.EventNodeUp, 2},
			{8, runlog.EventNodeDown, 1},
			{8, runlog.EventNodeDown, 2},
			{10, runlog.EventNodeUp, 1},
			{10, runlog.EventNodeUp, 2},
		}
		if !slices.Equal(got, want) {
			t.Errorf("events %v, want %v", got, want)
		}
		at := map[int]int{}
		for _, n := range logged["node"] {
			at[int(n.TS+0.5)]++
			if n.Up != (n.RSSBytes > 0) {
				t.Errorf("sample %+v", n)
			}
		}
		for s := range 11 {
			if at[s] < 2 {
				t.Errorf("%d node samples at %d s", at[s], s)
			}
		}
		for _, u := range logged["upload"] {
			if u.LatencyS != 4 || u.StartS != float64((u.Seq-1)/3*5) {
				t.Errorf("upload %d: start %v, latency %v", u.Seq, u.StartS, u.LatencyS)
			}
		}
		if e := logged["end"][0].ElapsedS; e != 10 {
			t.Errorf("elapsed %v s, want 10", e)
		}
	})
}

// In a bubble's time: the nodes freeze in the middle of the run, and the uploads in flight wait for them.
// After the run no node has to answer.
func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const from, to, over = 5.2, 11.2, 19.5
		begun := time.Now()
		frozen := func() time.Duration {
			if at := time.Since(begun).Seconds(); at > from && at < to {
				return time.Duration((to - at) * float64(time.Second))
			}
			return 0
		}
		status := func(ctx context.Context) ([]runlog.NodeSample, error) {
			select {
			case <-time.After(frozen()):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			if time.Since(begun).Seconds() > over {
				return nil, errDown
			}
			return []runlog.NodeSample{
				{ID: 1, Up: true, Node: sample.Node{RSSBytes: 5}},
				{ID: 2, Up: true, Node: sample.Node{RSSBytes: 6}},
			}, nil
		}
		put := func(_ context.Context, up Upload) (Outcome, error) {
			<-time.After(200 * time.Millisecond)
			<-time.After(frozen())
			return good(up), nil
		}
		var log bytes.Buffer
		o := Options{
			Run:    runlog.Run{DurationS: over, Concurrency: 2, Nodes: []int{1, 2}},
			Users:  []string{DefaultUser},
			Source: Generated{spec},
			Target: target{put: put, status: status},
			Log:    runlog.NewWriter(&log),
		}
		if err := Run(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		l, err := runlog.Read(&log)
		if err != nil {
			t.Fatal(err)
		}
		r := report.Compute(l, report.DefaultLimits())
		var got []event
		for _, e := range r.Events {
			got = append(got, event{int(math.Round(e.TS)), e.Kind, e.Node})
		}
		want := []event{
			{8, runlog.EventNodeDown, 1},
			{8, runlog.EventNodeDown, 2},
			{11, runlog.EventNodeUp, 1},
			{11, runlog.EventNodeUp, 2},
		}
		if !slices.Equal(got, want) {
			t.Errorf("events %v, want %v", got, want)
		}
		for _, n := range r.Nodes {
			if n.DownS < 3 || n.DownS > 4 {
				t.Errorf("node %d was down for %v s", n.ID, n.DownS)
			}
		}
		for _, c := range r.Verdict.Checks {
			if c.Name != "fault_tolerance" {
				continue
			}
			if c.Figures["faults"] != 2 || c.Figures["longest_pause_s"] < to-from-0.01 {
				t.Errorf("%s: %s", c.Name, c.Evidence)
			}
		}
	})
}

func TestFailedUploads(t *testing.T) {
	failure := image.Errorf(image.KindNoQuorum, "no quorum")
	put := func(_ context.Context, up Upload) (Outcome, error) {
		if strings.HasSuffix(up.Name, "_3.png") {
			return Outcome{Attempts: 6, SentBytes: func() int64 { return 11 }}, failure
		}
		return good(up), nil
	}
	logged, err := drive(t, t.Context(), Options{
		Run:    runlog.Run{Count: 5, Concurrency: 2},
		Target: target{put: put},
	})
	if err != nil || len(logged["upload"]) != 5 {
		t.Errorf("%v, %+v", err, logged["upload"])
	}
	for _, u := range logged["upload"] {
		if u.OK != (u.Seq != 3) {
			t.Errorf("record %+v", u)
		}
		if !u.OK && (u.Error != failure.Error() || u.Attempts != 6 || u.SentBytes != 11 || u.Owner != 0) {
			t.Errorf("record of the failure %+v", u)
		}
	}
}

func TestDrain(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var puts atomic.Int64
	put := func(ctx context.Context, up Upload) (Outcome, error) {
		if puts.Add(1) == 5 {
			cancel()
		}
		return good(up), ctx.Err()
	}
	logged, err := drive(t, ctx, Options{
		Run:    runlog.Run{Count: 1000, Concurrency: 4},
		Target: target{put: put},
	})
	if !errors.Is(err, ErrInterrupted) {
		t.Errorf("%v", err)
	}
	if n := len(logged["upload"]); n != int(puts.Load()) || n < 5 || n > 5+4 {
		t.Errorf("%d records of %d uploads", n, puts.Load())
	}
	for _, u := range logged["upload"] {
		if !u.OK {
			t.Errorf("an upload in flight was aborted: %+v", u)
		}
	}
}

func TestAbort(t *testing.T) {
	abort := make(chan struct{})
	var puts atomic.Int64
	put := func(ctx context.Context, up Upload) (Outcome, error) {
		if puts.Add(1) == 4 {
			close(abort)
		}
		<-ctx.Done()
		return Outcome{Attempts: 1}, ctx.Err()
	}
	logged, err := drive(t, t.Context(), Options{
		Run:    runlog.Run{Count: 1000, Concurrency: 4},
		Target: target{put: put},
		Abort:  abort,
	})
	if !errors.Is(err, ErrInterrupted) || len(logged["upload"]) != 4 || logged["upload"][0].OK {
		t.Errorf("%v, %d records", err, len(logged["upload"]))
	}
}

// fullDisk is a disk that is full after n more bytes.
type fullDisk struct{ left int }

var errFull = errors.New("disk full")

func (f *fullDisk) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestLogCannotBeWritten(t *testing.T) {
	for _, left := range []int{0, 100_000} {
		var puts atomic.Int64
		put := func(_ context.Context, up Upload) (Outcome, error) {
			puts.Add(1)
			return good(up), nil
		}
		err := Run(t.Context(), Options{
			Run:    runlog.Run{Count: 20_000, Concurrency: 2},
			Users:  []string{"u"},
			Source: Generated{genimg.Spec{MinPixels: 16, MaxPixels: 16}},
			Target: target{put: put},
			Log:    runlog.NewWriter(&fullDisk{left}),
		})
		if !errors.Is(err, errFull) || puts.Load() == 20_000 {
			t.Errorf("%v after %d uploads", err, puts.Load())
		}
	}
}

func TestBadOptions(t *testing.T) {
	good := runlog.Run{Count: 1, Concurrency: 1}
	for name, change := range map[string]func(o *Options){
		"no uploads":        func(o *Options) { o.Run.Count = 0 },
		"no workers":        func(o *Options) { o.Run.Concurrency = 0 },
		"many workers":      func(o *Options) { o.Run.Concurrency = concurrencyMax + 1 },
		"no user":           func(o *Options) { o.Users = nil },
		"an empty user":     func(o *Options) { o.Users = []string{"u", ""} },
		"count, duration":   func(o *Options) { o.Run.DurationS = 1 },
		"endless":           func(o *Options) { o.Run.Count, o.Run.DurationS = 0, math.NaN() },
		"negative duration": func(o *Options) { o.Run.Count, o.Run.DurationS = 0, -1 },
		"negative rate":     func(o *Options) { o.Run.Rate = -1 },
		"no rate":           func(o *Options) { o.Run.Arrivals = "constant" },
		"infinite rate":     func(o *Options) { o.Run.Rate = math.Inf(1) },
		"odd arrivals":      func(o *Options) { o.Run.Rate, o.Run.Arrivals = 1, "late" },
		"only warm-up":      func(o *Options) { o.Run.Count, o.Run.DurationS, o.Run.WarmupS = 0, 5, 5 },
		"only reads":        func(o *Options) { o.Run.ReadPercent = 100 },
	} {
		o := Options{Run: good, Users: []string{"u"}, Log: runlog.NewWriter(io.Discard)}
		change(&o)
		if err := Run(t.Context(), o); image.KindOf(err) != image.KindInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Beside can hold uploads back and write records. After runs when the uploads and Beside have ended.
func TestBeside(t *testing.T) {
	open, wrote := make(chan struct{}), make(chan struct{})
	var begun sync.Map
	var after atomic.Bool
	var ended atomic.Int64
	event := func(l Recorder, kind string) { l.Event(runlog.Event{Kind: kind, Node: 2}) }
	logged, err := drive(t, t.Context(), Options{
		Run:    runlog.Run{Count: 20, Concurrency: 4},
		Target: target{put: putGood},
		Begin: func(ctx context.Context, seq int64) {
			if _, twice := begun.LoadOrStore(seq, true); twice || ctx.Err() != nil {
				t.Errorf("upload %d begins twice, or after the end", seq)
			}
			if seq > 10 {
				<-open
			}
		},
		Beside: func(_ context.Context, l Recorder) {
			event(l, "one")
			close(open)
			<-wrote
			event(l, "two")
		},
		Observe: func(rec runlog.Record) {
			if _, upload := rec.(runlog.Upload); upload && ended.Add(1) == 20 {
				close(wrote)
			}
		},
		After: func(ctx context.Context, l Recorder) error {
			after.Store(ctx.Err() == nil)
			l.Write(runlog.Readback{Images: 20})
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(logged["upload"]) != 20 || len(logged["event"]) != 2 {
		t.Errorf("%d uploads, events %+v", len(logged["upload"]), logged["event"])
	}
	if len(logged["readback"]) != 1 || !after.Load() {
		t.Errorf("%d records of After, its context was alive: %v", len(logged["readback"]), after.Load())
	}
	for _, e := range logged["event"] {
		if e.Node != 2 || e.TS <= 0 {
			t.Errorf("event %+v", e)
		}
	}
}

// An interrupted run begins no upload that was held back.
func TestBesideInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var ended atomic.Int64
	logged, err := drive(t, ctx, Options{
		Run:    runlog.Run{Count: 20, Concurrency: 4},
		Target: target{put: putGood},
		Begin: func(ctx context.Context, seq int64) {
			if seq > 10 {
				<-ctx.Done()
			}
		},
		Observe: func(rec runlog.Record) {
			if _, upload := rec.(runlog.Upload); upload && ended.Add(1) == 10 {
				cancel()
			}
		},
		Beside: func(ctx context.Context, _ Recorder) { <-ctx.Done() },
	})
	if !errors.Is(err, ErrInterrupted) || len(logged["upload"]) != 10 {
		t.Errorf("%d uploads, %v", len(logged["upload"]), err)
	}
}

// After may be interrupted too. The log has its end record, and the error is that of After, or of the
// uploads when these were interrupted.
func TestAfterInterrupted(t *testing.T) {
	errAfter := fmt.Errorf("%w while images were read back", ErrInterrupted)
	for count, wantAfter := range map[int64]bool{3: true, 20: false} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var ended atomic.Int64
		logged, err := drive(t, ctx, Options{
			Run:    runlog.Run{Count: count, Concurrency: 1},
			Target: target{put: putGood},
			Observe: func(rec runlog.Record) {
				if _, upload := rec.(runlog.Upload); upload && ended.Add(1) == 3 {
					cancel()
				}
			},
			After: func(context.Context, Recorder) error { return errAfter },
		})
		if !errors.Is(err, ErrInterrupted) || errors.Is(err, errAfter) != wantAfter || len(logged["upload"]) != 3 {
			t.Errorf("%d uploads of %d, %v", len(logged["upload"]), count, err)
		}
	}
}

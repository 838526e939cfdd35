package load

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"imgcluster/modes/runlog"
)

// An open loop in a bubble's time: ten uploads a second that take 50 ms, but the fifth takes a second.
// Those that are due meanwhile begin late, which is not in their own latency.
func TestOpenLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		put := func(ctx context.Context, up Upload) (Outcome, error) {
			if strings.HasSuffix(up.Name, "_5.png") {
				return slowPut(time.Second)(ctx, up)
			}
			return slowPut(50*time.Millisecond)(ctx, up)
		}
		logged, err := drive(t, t.Context(), Options{
			Run:    runlog.Run{Count: 20, Concurrency: 1, Rate: 10},
			Target: target{put: put},
		})
		if err != nil {
			t.Fatal(err)
		}
		for i, u := range logged["upload"] {
			due := float64(i) / 10
			if u.ScheduledS == nil || math.Abs(*u.ScheduledS-due) > 1e-5 || u.StartS < *u.ScheduledS {
				t.Fatalf("upload %d: due at %v, began at %v", u.Seq, u.ScheduledS, u.StartS)
			}
			want := map[bool]float64{true: 1, false: 0.05}[u.Seq == 5]
			if math.Abs(u.LatencyS-want) > 1e-5 {
				t.Errorf("upload %d took %v s", u.Seq, u.LatencyS)
			}
			// The fifth begins at 0.4 s and ends at 1.4 s. From then on one begins every 50 ms until none is
			// late, which takes 18 uploads after 0.9 s of delay.
			late := u.StartS - due
			wantLate := max(0, 0.9-0.05*float64(i-5))
			if u.Seq > 5 && math.Abs(late-wantLate) > 1e-5 {
				t.Errorf("upload %d is %v s late, not %v", u.Seq, late, wantLate)
			}
		}
		if late := logged["client"][1].LateS; math.Abs(late-0.5) > 1e-5 {
			t.Errorf("at 1 s the run is %v s behind, not 0.5", late)
		}
		if first := logged["client"][0]; first.LateS != 0 {
			t.Errorf("at first: %+v", first)
		}
	})
}

// Poisson arrivals have exponential gaps, whose standard deviation is their mean. The same seed gives the
// same arrivals.
func TestPoisson(t *testing.T) {
	const count, rate = 3000, 100.0
	arrivals := func(seed uint64) (due []float64) {
		synctest.Test(t, func(t *testing.T) {
			logged, err := drive(t, t.Context(), Options{
				Run: runlog.Run{
					Count:       count,
					Concurrency: 4,
					Rate:        rate,
					Arrivals:    runlog.ArrivalsPoisson,
					Seed:        seed,
				},
				Source: tiny{},
				Target: target{put: putGood},
			})
			if err != nil {
				t.Fatal(err)
			}
			due = make([]float64, count)
			for _, u := range logged["upload"] {
				due[u.Seq-1] = *u.ScheduledS
			}
		})
		return due
	}
	a := arrivals(1)
	if !slices.Equal(a, arrivals(1)) || slices.Equal(a, arrivals(2)) {
		t.Error("arrivals do not follow from the seed")
	}
	sum, squares := 0.0, 0.0
	for i := range a[1:] {
		gap := a[i+1] - a[i]
		sum += gap
		squares += gap * gap
	}
	mean := sum / (count - 1)
	deviation := math.Sqrt(squares/(count-1) - mean*mean)
	if math.Abs(mean*rate-1) > 0.1 || math.Abs(deviation/mean-1) > 0.1 {
		t.Errorf("gaps have the mean %v s and the deviation %v s", mean, deviation)
	}
}

// tiny is a Source of images of one byte.
type tiny struct{}

func (tiny) Open(_ context.Context, n int64, _ *Memory) (Image, error) {
	return Image{Name: fmt.Sprint(n), Class: "tiny", Size: 1, Body: bodyOf(fmt.Sprint(n % 10))}, nil
}

// A run of a duration with a warm-up, in which three users take turns.
func TestDuration(t *testing.T) {
	users := []string{"a", "b", "c"}
	for _, rate := range []float64{0, 20} {
		synctest.Test(t, func(t *testing.T) {
			logged, err := drive(t, t.Context(), Options{
				Run:    runlog.Run{DurationS: 3.01, WarmupS: 0.95, Concurrency: 2, Rate: rate, Users: 3},
				Users:  users,
				Source: tiny{},
				Target: target{put: slowPut(100 * time.Millisecond)},
			})
			if err != nil {
				t.Fatal(err)
			}
			uploads := logged["upload"]
			if n := len(uploads); n < 61 || n > 62 {
				t.Errorf("%d uploads of 0.1 s in 3 s by 2 workers", n)
			}
			for _, u := range uploads {
				began := u.StartS
				if rate > 0 {
					began = *u.ScheduledS
				}
				if began >= 3.01 || u.Warmup != (began < 0.95) || u.User != users[(u.Seq-1)%3] {
					t.Errorf("rate %v: %+v", rate, u.Upload)
				}
			}
			if e := logged["end"][0].ElapsedS; e < 3.01 || e > 3.12 {
				t.Errorf("elapsed %v s", e)
			}
		})
	}
}

// With reads between the uploads, these are the given part of the operations, only of images that are
// stored, and compared. Here the third read gets other bytes and the fifth fails.
func TestMix(t *testing.T) {
	var mu sync.Mutex
	sums := map[string][32]byte{}
	reads := 0
	put := func(_ context.Context, up Upload) (Outcome, error) {
		mu.Lock()
		defer mu.Unlock()
		sums[up.User+"/"+up.Name] = whole(up)
		return good(up), nil
	}
	get := func(user, name string) ([32]byte, int64, error) {
		mu.Lock()
		defer mu.Unlock()
		sum, ok := sums[user+"/"+name]
		if !ok {
			t.Errorf("%s/%s is read and not stored", user, name)
		}
		switch reads++; reads {
		case 3:
			sum[0]++
		case 5:
			return sum, 0, errDown
		}
		return sum, 1, nil
	}
	logged, err := drive(t, t.Context(), Options{
		Run:    runlog.Run{Count: 1000, Concurrency: 4, ReadPercent: 20},
		Source: tiny{},
		Target: target{put: put, get: get},
	})
	if err != nil {
		t.Fatal(err)
	}
	var failed []string
	for _, r := range logged["read"] {
		if !r.OK {
			failed = append(failed, r.Error)
		}
	}
	if n := len(logged["read"]); n < 190 || n > 310 || len(logged["upload"]) != 1000 || len(failed) != 2 {
		t.Errorf("%d uploads, %d reads, of which failed %v", len(logged["upload"]), n, failed)
	}
	if e := logged["event"]; len(e) != 1 || e[0].Kind != runlog.EventImageMismatched {
		t.Errorf("events %+v", e)
	}
	if last := logged["client"][len(logged["client"])-1]; last.ReadRx != int64(len(logged["read"])-1) {
		t.Errorf("%d bytes read, %+v", len(logged["read"])-1, last)
	}
}

// kinds returns the operations of an open loop in the order in which they were due: u for an upload, r
// for a read.
func kinds(logged map[string][]line) string {
	type op struct {
		due  float64
		kind string
	}
	var ops []op
	for _, kind := range []string{"upload", "read"} {
		for _, l := range logged[kind] {
			ops = append(ops, op{*l.ScheduledS, kind[:1]})
		}
	}
	slices.SortFunc(ops, func(a, b op) int { return cmp.Compare(a.due, b.due) })
	all := ""
	for _, o := range ops {
		all += o.kind
	}
	return all
}

// In an open loop too the reads are the given part of the run, although its workers wait for their next
// operation long before anything is stored. No operation is late because of that: a read that is due
// before anything is stored becomes an upload, and an upload after that becomes a read.
func TestMixOpenLoop(t *testing.T) {
	for _, test := range []struct {
		percent float64
		takes   time.Duration
	}{
		{50, 50 * time.Millisecond},
		{50, 500 * time.Millisecond},
		{20, time.Second},
		{90, time.Second},
		{50, 3950 * time.Millisecond},
	} {
		one := func(seed uint64) (all string) {
			synctest.Test(t, func(t *testing.T) {
				get := func(_, name string) ([32]byte, int64, error) {
					return sha256.Sum256([]byte(name[len(name)-1:])), 1, nil
				}
				logged, err := drive(t, t.Context(), Options{
					Run: runlog.Run{
						DurationS:   12,
						Concurrency: 64,
						Rate:        5,
						ReadPercent: test.percent,
						Seed:        seed,
					},
					Source: tiny{},
					Target: target{put: slowPut(test.takes), get: get},
				})
				if err != nil {
					t.Fatal(err)
				}
				seqs := map[int64]bool{}
				for _, l := range append(logged["upload"], logged["read"]...) {
					if !l.OK || math.Abs(l.StartS-*l.ScheduledS) > 1e-5 || seqs[l.Seq] && l.Seq != 0 {
						t.Errorf("%+v", l)
					}
					seqs[l.Seq] = true
				}
				if n := len(logged["upload"]); !seqs[int64(n)] {
					t.Errorf("%d uploads, none of which has this number", n)
				}
				for _, c := range logged["client"] {
					if c.LateS > 0 {
						t.Errorf("at %v s it is %v s behind", c.TS, c.LateS)
					}
				}
				all = kinds(logged)
			})
			return all
		}
		reads := 0
		for seed := range uint64(10) {
			all := one(seed)
			reads += strings.Count(all, "r")
			if first := strings.IndexByte(all, 'r'); len(all) != 60 || first < int(test.takes.Seconds()*5) {
				t.Errorf("%v, seed %d: %s", test, seed, all)
			}
		}
		if part := float64(reads) / 6; math.Abs(part-test.percent) > 5 {
			t.Errorf("%v: %.1f %% are reads", test, part)
		}
		if a := one(1); a != one(1) || a == one(2) {
			t.Errorf("%v: the kinds do not follow from the seed: %s", test, a)
		}
	}
}

// An open loop ends with its last upload, not when another one would be due.
func TestOpenLoopEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logged, err := drive(t, t.Context(), Options{
			Run:    runlog.Run{Count: 3, Concurrency: 8, Rate: 0.01, ReadPercent: 1},
			Source: tiny{},
			Target: target{put: putGood},
		})
		if e := logged["end"][0].ElapsedS; err != nil || e != 200 || len(logged["upload"]) != 3 {
			t.Errorf("%d uploads in %v s, %v", len(logged["upload"]), e, err)
		}
	})
}

// A resumed run makes the missing uploads, on the clock of the run that was interrupted.
func TestResume(t *testing.T) {
	var names sync.Map
	put := func(_ context.Context, up Upload) (Outcome, error) {
		names.Store(up.Name, true)
		return good(up), nil
	}
	logged := resume(t, Options{
		Run:    runlog.Run{Count: 6, Concurrency: 2},
		Source: tiny{},
		Target: target{put: put},
		Resume: &Resume{AtS: 100, Done: map[int64]bool{1: true, 2: true, 4: true}, Detail: "later"},
	})
	var seqs []int64
	for _, u := range logged["upload"] {
		seqs = append(seqs, u.Seq)
		if u.StartS < 100 || u.StartS > 200 {
			t.Errorf("upload %d began at %v s", u.Seq, u.StartS)
		}
	}
	if len(seqs) != 3 || len(logged["run"]) != 0 {
		t.Errorf("uploads %v, run records %+v", seqs, logged["run"])
	}
	e := logged["event"]
	if len(e) != 1 || e[0].Kind != runlog.EventResumed || e[0].TS != 100 || e[0].Detail != "later" {
		t.Errorf("events %+v", e)
	}
	for _, n := range []string{"3", "5", "6"} {
		if _, ok := names.Load(n); !ok {
			t.Errorf("%s was not uploaded", n)
		}
	}
}

// Crash is called before a panic ends the process.
func TestCrash(t *testing.T) {
	called := false
	r := &run{o: Options{Crash: func() { called = true }}}
	defer func() {
		if p := recover(); p != "boom" || !called {
			t.Errorf("panic %v, Crash was called: %v", p, called)
		}
	}()
	r.guarded(func() { panic("boom") })()
}

func TestStored(t *testing.T) {
	s := Stored{max: 3}
	for i := range int64(5) {
		s.Add(StoredImage{Seq: i})
	}
	if got := s.All(); len(got) != 3 || got[0].Seq != 3 || got[1].Seq != 4 || got[2].Seq != 2 {
		t.Errorf("kept %+v", got)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	if s.readable() || s.random(rng) != nil {
		t.Error("no digest is known")
	}
	s.Add(StoredImage{Seq: 5, Known: true})
	if img := s.random(rng); !s.readable() || img == nil || img.Seq != 5 {
		t.Errorf("read %+v", img)
	}
	for i := range int64(3) {
		s.Add(StoredImage{Seq: 6 + i})
	}
	if s.readable() {
		t.Error("the image whose digest was known should have been replaced")
	}
}

func TestDigest(t *testing.T) {
	img := spec.Image(2)
	want := whole(Upload{Name: img.Name, Size: img.Size, Body: bodyOf(string(img.AppendTo(nil)))})
	if got, err := Digest(t.Context(), Generated{spec}, 2); err != nil || got != want {
		t.Errorf("%x, %v", got, err)
	}
}

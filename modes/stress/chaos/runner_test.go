package chaos

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"imgcluster/modes/local"
	"imgcluster/modes/runlog"
)

// fakeCluster is ready a second after a node came back, and healed another second later. It fails the
// test when two nodes are faulty at once.
type fakeCluster struct {
	t       *testing.T
	fails   map[string]error // actions that fail, as "kill 2"
	heals   bool             // its images get their copies back
	returns bool             // its nodes become ready again

	mu     sync.Mutex
	down   map[int]local.Action // the action that made a node faulty
	back   time.Time            // when the last node came back
	events []runlog.Event
	began  map[int64]int // how many events there were when an upload began
}

func newFakeCluster(t *testing.T) *fakeCluster {
	return &fakeCluster{
		t:       t,
		heals:   true,
		returns: true,
		down:    map[int]local.Action{},
		began:   map[int64]int{},
		back:    time.Now().Add(-time.Hour),
	}
}

// Times of the fake cluster, in a bubble.
const (
	readyAfter  = time.Second
	healedAfter = 2 * time.Second
	uploadTime  = 30 * time.Millisecond
)

func (w *fakeCluster) Do(_ context.Context, a local.Action, node int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.fails[fmt.Sprint(a, " ", node)]; err != nil {
		return err
	}
	switch a {
	case local.ActionStart, local.ActionContinue:
		before := w.down[node]
		if before == "" || (before == local.ActionPause) != (a == local.ActionContinue) {
			w.t.Errorf("%s node %d after %q", a, node, before)
		}
		delete(w.down, node)
		w.back = time.Now()
	default:
		since := time.Since(w.back)
		if len(w.down) > 0 || w.heals && since < healedAfter {
			w.t.Errorf("%s node %d while nodes %v are faulty, %v after the last fault", a, node, w.down, since)
		}
		w.down[node] = a
	}
	return nil
}

func (w *fakeCluster) health(context.Context) Health {
	w.mu.Lock()
	defer w.mu.Unlock()
	since := time.Since(w.back)
	ready := len(w.down) == 0 && since >= readyAfter && (w.returns || since >= time.Hour)
	return Health{Ready: ready, Healed: w.heals && ready && since >= healedAfter}
}

func (w *fakeCluster) event(e runlog.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, e)
}

// run makes uploads by workers until all have begun or ctx ends, while a Runner carries out the plan.
func (w *fakeCluster) run(ctx context.Context, plan []Fault, uploads int64, workers int) {
	r := New(Options{
		Plan:       plan,
		Nodes:      w,
		Health:     w.health,
		Event:      w.event,
		ReadyLimit: 5 * time.Second,
		HealLimit:  7 * time.Second,
	})
	var wg sync.WaitGroup
	wg.Go(func() { r.Run(ctx) })
	next := make(chan int64)
	for range workers {
		wg.Go(func() {
			for seq := range next {
				r.Begin(ctx, seq)
				if ctx.Err() != nil {
					continue
				}
				w.mu.Lock()
				w.began[seq] = len(w.events)
				w.mu.Unlock()
				<-time.After(uploadTime)
			}
		})
	}
	for seq := range uploads {
		next <- seq + 1
	}
	close(next)
	wg.Wait()
	if len(w.down) > 0 && w.fails == nil {
		w.t.Errorf("nodes %v are left faulty", w.down)
	}
}

// kinds returns the kinds of the events about nodes, with the node.
func (w *fakeCluster) kinds() string {
	var s []string
	for _, e := range w.events {
		if e.Kind == runlog.EventHeld || e.Kind == runlog.EventReleased {
			continue
		}
		s = append(s, fmt.Sprint(strings.TrimPrefix(e.Kind, "node_"), e.Node))
	}
	return strings.Join(s, " ")
}

var plan = []Fault{
	{Upload: 2, Kind: Kill, Node: 2, After: 10 * time.Millisecond, For: time.Second},
	{Upload: 20, Kind: Pause, Node: 3, For: time.Second},
	{Upload: 21, Kind: Restart, Node: 1, For: 2 * time.Second},
}

// expectKinds checks the kinds of the events about nodes.
func (w *fakeCluster) expectKinds(want string) {
	w.t.Helper()
	if got := w.kinds(); got != want {
		w.t.Errorf("events %s, want %s", got, want)
	}
}

// Faults come one after the other, each after its upload has begun and after the cluster has recovered
// from the one before. The uploads after that wait.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeCluster(t)
		w.run(t.Context(), plan, 40, 4)
		w.expectKinds("killed2 restarted2 healed2 paused3 continued3 healed3 stopped1 restarted1 healed1")
		if len(w.began) != 40 {
			t.Errorf("%d uploads have begun", len(w.began))
		}
		at := map[string]int{} // an event's place in the log
		held := 0
		for i, e := range w.events {
			at[fmt.Sprint(e.Kind, e.Node)] = i
			if e.Kind == runlog.EventHeld {
				held++
				if w.events[i+1].Kind == runlog.EventHeld {
					t.Error("load held twice")
				}
			}
		}
		if held == 0 || at["load_held0"] > at["load_released0"] {
			t.Errorf("held and released in %v", w.events)
		}
		for seq, before := range w.began {
			switch {
			case seq == 2 && before > at["node_killed2"],
				seq == 20 && before > at["node_paused3"],
				seq == 21 && before > at["node_stopped1"]:
				t.Errorf("upload %d began after its fault", seq)
			case seq >= 20 && before <= at["node_healed2"],
				seq >= 21 && before <= at["node_healed3"]:
				t.Errorf("upload %d did not wait for the recovery from a fault: %d events before it", seq, before)
			}
		}
	})
}

// Every schedule is carried out as planned, also with more uploads at once than between two faults.
func TestRunSchedules(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			w := newFakeCluster(t)
			plan := schedule(t, seed, 7, 35, three)
			w.run(t.Context(), plan, 35, 8)
			n := 0
			for _, e := range w.events {
				if e.Kind == runlog.EventKill || e.Kind == runlog.EventPause || e.Kind == runlog.EventStop {
					if want := plan[n]; e.Node != want.Node || e.Kind != steps[want.Kind][0].event {
						t.Errorf("fault %d is %+v, want %v", n, e, want)
					}
					n++
				}
			}
			if n != len(plan) {
				t.Errorf("%d of %d faults: %s", n, len(plan), w.kinds())
			}
		})
	}
}

// An interrupted run leaves no node paused or down.
func TestRunInterrupted(t *testing.T) {
	for kind, want := range map[Kind]string{
		Kill:    "killed3 restarted3",
		Pause:   "paused3 continued3",
		Restart: "stopped3 restarted3",
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			w := newFakeCluster(t)
			began := time.Now()
			plan := []Fault{
				{Upload: 2, Kind: kind, Node: 3, For: time.Hour},
				{Upload: 5, Kind: Kill, Node: 1},
			}
			w.run(ctx, plan, 10, 2)
			w.expectKinds(want)
			if took := time.Since(began); took > 61*time.Second {
				t.Errorf("it took %v, interrupted after a minute", took)
			}
		})
	}
}

// A node that does not come back ends the faults, not the uploads.
func TestRunLost(t *testing.T) {
	failing := errors.New("no memory")
	for want, change := range map[string]func(*fakeCluster){
		"killed2 restarted2 lost2": func(w *fakeCluster) { w.returns = false },
		"killed2 lost2":            func(w *fakeCluster) { w.fails = map[string]error{"start 2": failing} },
		"lost2":                    func(w *fakeCluster) { w.fails = map[string]error{"kill 2": failing} },
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newFakeCluster(t)
			change(w)
			w.run(t.Context(), plan, 40, 4)
			w.expectKinds(want)
			if len(w.began) != 40 {
				t.Errorf("%d uploads, want 40", len(w.began))
			}
		})
	}
}

// When copies are missing for long, that is recorded and the next fault comes nevertheless.
func TestRunUnhealed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFakeCluster(t)
		w.heals = false
		w.run(t.Context(), plan, 40, 4)
		w.expectKinds("unhealed0 killed2 restarted2 unhealed2 paused3 continued3 unhealed3 " +
			"stopped1 restarted1 unhealed1")
	})
}

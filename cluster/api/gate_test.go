package api

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"imgcluster/cluster/access"
	"imgcluster/cluster/clustertest/poll"
	"imgcluster/cluster/connlimit"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// crawler is a body that is late from a time on.
type crawler struct {
	from time.Time
	once sync.Once
	out  chan struct{} // closed when it gives way
}

func newCrawler(from time.Duration) *crawler {
	return &crawler{from: time.Now().Add(from), out: make(chan struct{})}
}

func (c *crawler) Late(now time.Time) time.Duration { return now.Sub(c.from) }
func (c *crawler) GiveWay()                         { c.once.Do(func() { close(c.out) }) }

// gateTest is a gate with what entered it.
type gateTest struct {
	*gate
	t *testing.T
}

func (g gateTest) enter(holder string, bytes int64, m connlimit.Mover) func() {
	g.t.Helper()
	leave, err := g.gate.enter(g.t.Context(), holder, bytes, m)
	if err != nil {
		g.t.Fatal(err)
	}
	return leave
}

// refused expects that there is no place in the end, and which setting the answer names.
func (g gateTest) refused(holder string, bytes int64, setting string) {
	g.t.Helper()
	began := time.Now()
	_, err := g.gate.enter(g.t.Context(), holder, bytes, nil)
	e, _ := err.(*image.Error)
	if e == nil || e.Kind != image.KindOverload || e.RetryAfter == 0 || e.Hint() == "" ||
		!strings.Contains(e.Error(), setting) {
		g.t.Errorf("%s with %d bytes: %#v, want one that names %s", holder, bytes, err, setting)
	}
	if took := time.Since(began); took != g.wait {
		g.t.Errorf("it waited for %s, want %s", took, g.wait)
	}
}

// inGate runs a test with a gate of 4 places, 3 of one holder, and 100 bytes.
func inGate(t *testing.T, test func(t *testing.T, g gateTest)) {
	synctest.Test(t, func(t *testing.T) {
		test(t, gateTest{newGate(bounds{
			what: "things", all: 4, perKey: 3, bytesMax: 100, wait: time.Second,
			allSetting: " (all)", keySetting: " (key)", bytesSetting: " (bytes)",
		}), t})
	})
}

func TestGateBounds(t *testing.T) {
	inGate(t, func(t *testing.T, g gateTest) {
		var leave [3]func()
		for i := range leave {
			leave[i] = g.enter("a", 10, nil)
		}
		g.refused("a", 10, "(key)")
		b := g.enter("b", 70, nil)
		g.refused("b", 0, "(all)")
		leave[0]()
		leave[0]() // again: nothing
		g.refused("b", 11, "(bytes)")
		g.enter("c", 10, nil)
		b()
		leave[1]()
		leave[2]()
		if len(g.running) != 1 || g.gate.bytes != 10 || len(g.of) != 1 || len(g.waiting) != 0 {
			t.Errorf("left over: %+v", g.gate)
		}
		g.enter("", 0, nil)
		g.enter("large", 90, nil)
	})
	inGate(t, func(t *testing.T, g gateTest) { g.enter("larger than all", 101, nil) })
}

// TestGateOrder: the next place goes to whoever has least, and among these to who came first. Who leaves
// while waiting gets none.
func TestGateOrder(t *testing.T) {
	inGate(t, func(t *testing.T, g gateTest) {
		g.wait = time.Hour
		leave := []func(){g.enter("a", 0, nil), g.enter("a", 0, nil), g.enter("b", 0, nil), g.enter("c", 0, nil)}
		got := make(chan string, 9)
		gone, cancel := context.WithCancel(t.Context())
		ask := func(ctx context.Context, holder, name string) {
			go func() {
				if _, err := g.gate.enter(ctx, holder, 0, nil); err == nil {
					got <- name
				}
			}()
			synctest.Wait()
		}
		ask(t.Context(), "a", "a")
		ask(t.Context(), "b", "b")
		ask(t.Context(), "c", "c")
		ask(gone, "d", "gone")
		ask(t.Context(), "d", "d")
		cancel()
		synctest.Wait()
		for i, want := range []string{"c", "d", "a", "b"} {
			leave[(i+3)%4]()
			synctest.Wait()
			if len(got) != 1 {
				t.Fatalf("%d got a place", len(got))
			}
			if name := <-got; name != want {
				t.Errorf("place %d went to %s, want %s", i, name, want)
			}
		}
	})
}

// TestSlowGivesWay: at a bound one that is too slow gives way, and only one for each that waits: of the
// holder that has most, or of the own ones when these are too many.
func TestSlowGivesWay(t *testing.T) {
	inGate(t, func(t *testing.T, g gateTest) {
		bodies := []*crawler{
			newCrawler(-2 * time.Second), newCrawler(-time.Second), newCrawler(0), newCrawler(time.Hour),
		}
		over := make(chan struct{})
		defer close(over)
		enter := func(holder string, c *crawler) {
			leave := g.enter(holder, 0, c)
			go func() {
				select {
				case <-c.out:
					time.Sleep(10 * time.Millisecond)
					leave()
				case <-over:
				}
			}()
		}
		enter("a", bodies[1])
		enter("a", bodies[2])
		enter("b", bodies[0])
		enter("c", bodies[3])
		outs := func() (n string) {
			synctest.Wait()
			for i, c := range bodies {
				select {
				case <-c.out:
					n += fmt.Sprint(i)
				default:
				}
			}
			return n
		}
		began := time.Now()
		g.enter("d", 0, nil)
		if got := outs(); got != "1" || time.Since(began) > 20*time.Millisecond {
			t.Errorf("%q gave way after %s, want the later one of who has two", got, time.Since(began))
		}
		g.enter("d", 0, nil)
		g.enter("d", 0, nil)
		if got := outs(); got != "012" {
			t.Errorf("%q gave way, want all that are late", got)
		}
		g.refused("d", 0, "(key)")
		g.refused("e", 0, "(all)")
	})
	inGate(t, func(t *testing.T, g gateTest) {
		own, other := newCrawler(500*time.Millisecond), newCrawler(-time.Hour)
		g.enter("b", 0, other)
		leave := g.enter("a", 0, own)
		go func() { <-own.out; leave() }()
		g.enter("a", 0, nil)
		g.enter("a", 0, nil)
		g.enter("a", 0, nil) // once its own one is late
		select {
		case <-other.out:
			t.Error("another holder's gave way to one that has too many")
		default:
		}
	})
}

// TestHolder: what is counted together.
func TestHolder(t *testing.T) {
	of := func(p access.Principal, remote string, header ...string) string {
		r, _ := http.NewRequest(http.MethodPut, "/v1/images/alice/a", nil)
		r.RemoteAddr = remote
		for _, key := range header {
			r.Header.Set(key, "1")
		}
		return holder(r.WithContext(access.With(r.Context(), p)), "alice")
	}
	key := access.Principal{Key: "IC1", User: "alice", Role: image.RoleWrite}
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{of(key, "192.0.2.1:1"), of(key, "192.0.2.2:1"), true},
		{of(access.Anyone, "192.0.2.1:1"), of(access.Anyone, "192.0.2.1:2"), true},
		{of(access.Anyone, "192.0.2.1:1"), of(access.Anyone, "192.0.2.2:2"), false},
		{of(key, "192.0.2.1:1"), of(access.Anyone, "192.0.2.1:1"), false},
		{of(access.Principal{Node: 1}, "192.0.2.1:1"), of(access.Principal{Node: 2}, "192.0.2.2:1"), true},
		{of(access.Principal{Node: 1}, "192.0.2.1:1"), of(key, "192.0.2.1:1"), false},
		{of(access.Administrator, "192.0.2.1:1"), of(access.Anyone, "192.0.2.1:1"), true},
	} {
		if got := c.a == c.b; got != c.same {
			t.Errorf("%q and %q are counted together: %v", c.a, c.b, got)
		}
	}
}

// TestBusyUploads: when all places are taken, an upload that trickles is answered with 429 and its place goes
// to the next; one that moves keeps its own.
func TestBusyUploads(t *testing.T) {
	h, srv := serveOn(t, reader{}, readyNode{})
	h.BusyRate, h.BusyGrace = 20_000, 300*time.Millisecond
	h.uploads.all, h.uploads.perKey, h.uploads.wait = 2, 2, 10*time.Second
	answers := make(chan string, 2)
	for _, every := range []time.Duration{20 * time.Millisecond, 10 * time.Second} {
		go func() {
			resp, text := upload(t, dial(t, srv), "", 40_000, 1200, every)
			answers <- fmt.Sprintf("%s: %d %s %s", every, resp.StatusCode, resp.Header.Get("Retry-After"), text)
		}()
	}
	poll.Until(t, 10*time.Second, "both to have a place", func() bool {
		h.uploads.mu.Lock()
		defer h.uploads.mu.Unlock()
		return len(h.uploads.running) == 2
	})
	resp, text := upload(t, dial(t, srv), "", 100, 100, time.Second)
	if resp.StatusCode != http.StatusCreated {
		t.Errorf("the third: %d %s", resp.StatusCode, text)
	}
	if got := <-answers; !strings.HasPrefix(got, "10s: 429 5 ") || !strings.Contains(got, "limits.busy_rate") {
		t.Errorf("the slow one: %s", got)
	}
	if got := <-answers; !strings.HasPrefix(got, "20ms: 201") {
		t.Errorf("the other: %s", got)
	}
}

// TestBusyReads: a read whose client takes nothing gives its place to the next.
func TestBusyReads(t *testing.T) {
	h, srv := serve(t, &shelf{
		rec:      image.Record{Bytes: 64 << 20},
		contents: []wire.Content{newFlaky(64<<20, 64<<20, nil), newFlaky(64<<20, 64<<20, nil)},
	})
	h.BusyRate, h.BusyGrace = 1<<30, 100*time.Millisecond
	h.reads.all, h.reads.wait = 1, 10*time.Second
	conn := dial(t, srv)
	fmt.Fprint(conn, "GET /v1/images/alice/a.png HTTP/1.1\r\nHost: x\r\n\r\n")
	if _, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil {
		t.Fatal(err)
	}
	resp, _, err := get(t, srv)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("the second: %v %v", resp, err)
	}
	if n, err := io.Copy(io.Discard, conn); n >= 64<<20 {
		t.Errorf("the first got %d bytes, %v", n, err)
	}
}

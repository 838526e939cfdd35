package api

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"imgcluster/cluster/access"
	"imgcluster/cluster/connlimit"
	"imgcluster/cluster/image"
)

// gate bounds what runs at once: in all, of one holder, and in bytes. At a bound whoever comes waits, and one
// that moves too slowly to keep its place gives way. Whoever has least gets the next place.
type gate struct {
	bounds
	mu      sync.Mutex
	running map[*place]bool
	of      map[string]int // running, by holder
	bytes   int64          // of all that run
	leaving int            // those that give way
	waiting []*place       // in the order that they came
	// searched is when none was found that is too slow: of a holder, or under "" of all.
	searched map[string]time.Time
}

// bounds are those of a gate.
type bounds struct {
	what     string // for messages
	all      int
	perKey   int   // of one holder
	bytesMax int64 // 0: any
	wait     time.Duration
	// What sets them, for messages; empty when they are fixed.
	allSetting, keySetting, bytesSetting string
}

// place is what runs, or waits to.
type place struct {
	holder  string // empty: not counted by holder
	bytes   int64
	mover   connlimit.Mover // nil: it never gives way
	granted chan struct{}
	leaving bool
}

// queued is a request that waits for a place. It implements connlimit.Mover.
type queued struct{ end context.CancelCauseFunc }

func (queued) Late(time.Time) time.Duration { return 0 }

func (q queued) GiveWay() {
	q.end(image.Errorf(image.KindOverload, "others wait for its connection (limits.connections, "+
		"limits.connections_per_address)").WithHint("send fewer at once").WithRetry(gaveWayRetry))
}

// gateTick is how often those that wait look for a place whose holder has become too slow.
const gateTick = 100 * time.Millisecond

func newGate(b bounds) *gate {
	return &gate{
		bounds: b, running: map[*place]bool{}, of: map[string]int{}, searched: map[string]time.Time{},
	}
}

// holder returns what a request's uploads and reads are counted by: its access key. Without one it is the
// address, and of what another node sends on the user whose image it is.
func holder(r *http.Request, user string) string {
	switch p := access.From(r.Context()); {
	case p.Node != 0:
		return "user " + user
	case p.Key != "":
		return "key " + p.Key
	}
	return "address " + connlimit.Address(r.RemoteAddr).String()
}

// enter waits for a place, which leave gives back. m may be nil.
func (g *gate) enter(
	ctx context.Context, holder string, bytes int64, m connlimit.Mover,
) (leave func(), err error) {
	p := &place{holder: holder, bytes: bytes, mover: m, granted: make(chan struct{})}
	leave = sync.OnceFunc(func() { g.leave(p) })
	g.mu.Lock()
	if g.full(p) == nil {
		g.grant(p)
		g.mu.Unlock()
		return leave, nil
	}
	g.waiting = append(g.waiting, p)
	g.makeWay(p)
	g.mu.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer connlimit.Waits(ctx, queued{cancel})()
	timer := time.NewTimer(g.wait)
	defer timer.Stop()
	ticker := time.NewTicker(gateTick)
	defer ticker.Stop()
	for {
		select {
		case <-p.granted:
			return leave, nil
		case <-ctx.Done():
			return leave, g.giveUp(p, context.Cause(ctx))
		case <-timer.C:
			return leave, g.giveUp(p, nil)
		case <-ticker.C:
			g.mu.Lock()
			g.makeWay(p)
			g.mu.Unlock()
		}
	}
}

// giveUp takes a place out of those that wait, and returns cause, or with nil which bound is reached. It
// returns nil when the place was granted just before.
func (g *gate) giveUp(p *place, cause error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.Index(g.waiting, p)
	if i < 0 {
		return nil
	}
	g.waiting = slices.Delete(g.waiting, i, i+1)
	if cause == nil {
		cause = g.full(p)
	}
	return cause
}

// full returns why there is no room for a place, nil when there is. The caller holds mu.
func (g *gate) full(p *place) error {
	var err *image.Error
	switch {
	case g.ofHolder(p) >= g.perKey:
		err = image.Errorf(image.KindOverload, "%s of this access key or address are under way, its limit%s",
			plural(g.perKey, g.what), g.keySetting)
	case len(g.running) >= g.all:
		err = image.Errorf(image.KindOverload, "the node has %s under way, its limit%s",
			plural(g.all, g.what), g.allSetting)
	case g.bytesMax > 0 && g.bytes+p.bytes > g.bytesMax && len(g.running) > 0:
		err = image.Errorf(image.KindOverload, "the node has %s of %d bytes under way, near its limit of %d%s",
			g.what, g.bytes, g.bytesMax, g.bytesSetting)
	default:
		return nil
	}
	return err.WithHint("send fewer at once").WithRetry(time.Second)
}

func plural(n int, what string) string { return strconv.Itoa(n) + " " + what }

// ofHolder returns how many places the place's holder has. The caller holds mu.
func (g *gate) ofHolder(p *place) int {
	if p.holder == "" {
		return 0
	}
	return g.of[p.holder]
}

// grant lets a place run. The caller holds mu.
func (g *gate) grant(p *place) {
	g.running[p] = true
	g.of[p.holder]++
	g.bytes += p.bytes
	close(p.granted)
}

// leave gives a place back, to whoever has least of those that wait.
func (g *gate) leave(p *place) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.running[p] {
		return
	}
	delete(g.running, p)
	if g.of[p.holder]--; g.of[p.holder] == 0 {
		delete(g.of, p.holder)
		delete(g.searched, p.holder)
	}
	g.bytes -= p.bytes
	if p.leaving {
		g.leaving--
	}
	for {
		var next *place
		for _, w := range g.waiting {
			if g.full(w) == nil && (next == nil || g.of[w.holder] < g.of[next.holder]) {
				next = w
			}
		}
		if next == nil {
			return
		}
		g.waiting = slices.DeleteFunc(g.waiting, func(w *place) bool { return w == next })
		g.grant(next)
	}
}

// makeWay has one that is too slow leave, of the holder that has most, or of the place's own when it has as
// many as it may. The caller holds mu.
func (g *gate) makeWay(p *place) {
	if g.leaving >= len(g.waiting) {
		return
	}
	own := g.ofHolder(p) >= g.perKey
	now, of := time.Now(), ""
	if own {
		of = p.holder
	}
	if now.Sub(g.searched[of]) < gateTick {
		return
	}
	var slowest *place
	var most time.Duration
	for q := range g.running {
		if q.mover == nil || q.leaving || own && q.holder != p.holder {
			continue
		}
		late := q.mover.Late(now)
		if late <= 0 {
			continue
		}
		if slowest != nil &&
			cmp.Or(cmp.Compare(g.of[q.holder], g.of[slowest.holder]), cmp.Compare(late, most)) < 0 {
			continue
		}
		slowest, most = q, late
	}
	if slowest == nil {
		g.searched[of] = now
		return
	}
	slowest.leaving = true
	g.leaving++
	slowest.mover.GiveWay()
}

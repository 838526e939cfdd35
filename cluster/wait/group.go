package wait

import "sync"

// Group is a sync.WaitGroup for goroutines that may begin while its end comes. It is not copied.
type Group struct {
	sync.WaitGroup
	mu     sync.Mutex
	closed bool
}

// Start runs f in a goroutine of its own that Close waits for, unless Close was called.
func (g *Group) Start(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed {
		g.Go(f)
	}
}

// Close has Start do nothing from now on, and waits for all goroutines.
func (g *Group) Close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.Wait()
}

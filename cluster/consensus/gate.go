package consensus

import "sync"

// gate lets callers in until it is closed. dragonboat and pebble must not be called once they
// close, so each stands behind one.
type gate struct {
	mu     sync.Mutex
	closed bool
	inside sync.WaitGroup
}

// enter lets a caller in until it calls leave. It returns the error of a node that is shutting down.
func (g *gate) enter() (leave func(), err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, errStopping()
	}
	g.inside.Add(1)
	return g.inside.Done, nil
}

// close lets nobody in any more; wait returns when the last caller left.
func (g *gate) close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
}

func (g *gate) wait() { g.inside.Wait() }

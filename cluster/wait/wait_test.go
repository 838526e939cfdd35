package wait

import (
	"sync/atomic"
	"testing"
)

func TestClosed(t *testing.T) {
	c := make(chan struct{})
	if Closed(c) {
		t.Error("an open channel is closed")
	}
	close(c)
	if !Closed(c) {
		t.Error("a closed channel is open")
	}
}

// TestGroup: Close waits for what runs, and nothing begins after it.
func TestGroup(t *testing.T) {
	var g Group
	var ran atomic.Int32
	release := make(chan struct{})
	for range 3 {
		g.Start(func() {
			<-release
			ran.Add(1)
		})
	}
	go close(release)
	g.Close()
	if n := ran.Load(); n != 3 {
		t.Errorf("Close waited for %d of 3", n)
	}
	g.Start(func() { ran.Add(1) })
	g.Close()
	if n := ran.Load(); n != 3 {
		t.Errorf("%d ran, after Close too", n)
	}
}

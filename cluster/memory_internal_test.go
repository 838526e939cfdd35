package cluster

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// TestIdleNodeReturnsMemory: garbage goes once nothing is allocated any more, and not before.
func TestIdleNodeReturnsMemory(t *testing.T) {
	for _, x := range []struct {
		name        string
		before, now heapUse
		want        bool
	}{
		{"idle, with garbage", heapUse{1 << 30, 100 << 20}, heapUse{1<<30 + 1<<20, 100 << 20}, true},
		{"idle, without", heapUse{1 << 30, 0}, heapUse{1<<30 + 1<<20, 10 << 20}, false},
		{"busy, with garbage", heapUse{1 << 30, 0}, heapUse{2 << 30, 100 << 20}, false},
	} {
		if got := x.now.idle(x.before); got != x.want {
			t.Errorf("%s: %v", x.name, got)
		}
	}

	garbage := make([][]byte, 100)
	for i := range garbage {
		garbage[i] = make([]byte, 1<<20)
	}
	runtime.GC()
	runtime.KeepAlive(garbage)
	garbage = nil
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		go returnMemory(ctx)
		time.Sleep(3 * memoryEvery)
		cancel()
		synctest.Wait()
	})
	if left := readHeap().garbage; left > garbageMax {
		t.Errorf("%d bytes that are not live are still in memory", left)
	}
}

package cluster

import (
	"context"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"time"

	"imgcluster/config"
)

// gcPercent lets the heap, which is small, grow more than by default between two garbage collections. The
// memory limit holds nevertheless. See "Memory and the number of images" in BENCHMARKS.md.
const gcPercent = 400

// LimitMemory sets up the memory of this process for the node that it runs: the Go heap has its share, since
// the rest is for images, which are staged outside of it.
func LimitMemory(cfg *config.Config) {
	debug.SetMemoryLimit(int64(cfg.Limits.MemoryBytes - cfg.Limits.StagingBytes))
	debug.SetGCPercent(gcPercent)
}

const (
	// memoryEvery is how often a node looks whether it is idle and has memory to give back.
	memoryEvery = 10 * time.Second
	// idleAllocations is how much an idle node allocates in that time at most.
	idleAllocations = 64 << 20
	// garbageMax is how much an idle node keeps beside its live heap.
	garbageMax = 32 << 20
)

// heapUse is what a process has allocated so far, and the bytes of its heap that are not live, in memory.
type heapUse struct{ allocated, garbage uint64 }

func readHeap() heapUse {
	s := []runtimemetrics.Sample{
		{Name: "/gc/heap/allocs:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
		{Name: "/gc/heap/live:bytes"},
	}
	runtimemetrics.Read(s)
	heap, live := s[1].Value.Uint64()+s[2].Value.Uint64()+s[3].Value.Uint64(), s[4].Value.Uint64()
	return heapUse{s[0].Value.Uint64(), heap - min(heap, live)}
}

// idle reports whether a node that allocated as before does little now, and has memory to give back.
func (now heapUse) idle(before heapUse) bool {
	return now.allocated-before.allocated <= idleAllocations && now.garbage > garbageMax
}

// returnMemory gives the memory of an idle node back to the system until ctx ends. A node that does nothing
// collects no garbage, so it would keep for minutes what a start or a load needed.
func returnMemory(ctx context.Context) {
	ticker := time.NewTicker(memoryEvery)
	defer ticker.Stop()
	for before := readHeap(); ; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := readHeap()
		if now.idle(before) {
			debug.FreeOSMemory()
		}
		before = now
	}
}

//go:build linux

package cluster_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"imgcluster/cluster/client"
	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/clustertest/env"
	"imgcluster/cluster/clustertest/loopfs"
	"imgcluster/cluster/image"
)

const (
	nodeDiskBytes = 256 << 20
	powerUploads  = 3  // at once
	powerAcksMax  = 20 // before a cut
	powerImageMax = 300_000
)

// TestPowerCutsOfNodes cuts the power of nodes under load: of one, and of all at the same time, when nothing
// is left anywhere but what was fsynced. Each node has an ext4 of its own for its images and Raft's log,
// which loses what was not fsynced before the process is killed. Every acknowledged image reads back, and
// every copy that a record counts is whole. IMGCLUSTER_NODE_POWER_CUTS is the number of cuts, IMGCLUSTER_SEED
// selects others.
func TestPowerCutsOfNodes(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	cuts := env.Number(t, "IMGCLUSTER_NODE_POWER_CUTS", 2)
	seed := env.Number(t, "IMGCLUSTER_SEED", 1)
	dir := t.TempDir()
	disks := map[image.NodeID]*loopfs.Disk{}
	for id := range image.NodeID(3) {
		disks[id+1] = loopfs.New(t, filepath.Join(dir, fmt.Sprint("node", id+1)), nodeDiskBytes)
	}
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Processes: true, Dir: dir})
	f := &faults{c: c, cl: c.Client(t, client.Broadcast), bodies: map[string][]byte{}}
	r := rand.New(rand.NewPCG(uint64(seed), 0))
	began := time.Now()
	for n := range cuts {
		ids := c.IDs()
		if n%2 == 1 {
			ids = ids[r.IntN(3):][:1]
		}
		f.powerCut(t, n, r, disks, ids)
	}
	f.expectSecrets(t)
	t.Logf("seed %d: %d power cuts of nodes, %d images acknowledged, all of them whole, %.1f s",
		seed, cuts, len(f.bodies), time.Since(began).Seconds())
}

// powerCut cuts the power of some nodes while images are uploaded, and starts them again.
func (f *faults) powerCut(
	t *testing.T, n int, r *rand.Rand, disks map[image.NodeID]*loopfs.Disk, ids []image.NodeID,
) {
	ctx, stop := context.WithCancel(t.Context())
	acks := make(chan struct{}, 1)
	var wg sync.WaitGroup
	for w := range powerUploads {
		r := rand.New(rand.NewPCG(r.Uint64(), 0))
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				body := clustertest.Image(r.Uint64(), 1+r.IntN(powerImageMax))
				name := fmt.Sprintf("power-%d-%d-%d.png", n, w, i)
				if _, err := f.put(t.Context(), uploadOf(name, body), body); err != nil {
					t.Errorf("upload %d-%d-%d: %v", n, w, i, err)
					return
				}
				select {
				case acks <- struct{}{}:
				case <-ctx.Done():
				}
			}
		})
	}
	for range 1 + r.IntN(powerAcksMax) {
		<-acks
	}
	// A host without power sends nothing any more about what its disk did.
	for _, id := range ids {
		f.c.Freeze(id)
		if err := disks[id].Cut(); err != nil {
			t.Error(err)
		}
	}
	stop()
	for _, id := range ids {
		f.c.Kill(id)
		disks[id].Remount(t)
	}
	f.c.Start(ids...)
	wg.Wait() // those under way end with success
	f.c.WaitReady(f.c.IDs()...)
	for _, id := range f.c.IDs() {
		if bad, _ := f.c.Verify(t, id, false); len(bad) > 0 {
			t.Errorf("after the power cut of nodes %v, node %d has the bad copies %+v", ids, id, bad)
		}
	}
	f.expectAll(t)
}

package cluster_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"golang.org/x/sync/errgroup"

	"imgcluster/cluster/client"
	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/clustertest/env"
	"imgcluster/cluster/image"
)

// TestShares: by each delivery, however few images there are, the numbers of them that nodes own differ by
// at most two, with eight uploads at once. Placement's TestBalance has how often they do, and the bytes.
func TestShares(t *testing.T) {
	if testing.Short() {
		t.Skip("a cluster for each delivery")
	}
	rounds := env.Number(t, "IMGCLUSTER_RUNS", 4)
	const few, atOnce = 30, 8
	for _, delivery := range []client.Delivery{client.Broadcast, client.Announce, client.Relay} {
		t.Run(string(delivery), func(t *testing.T) {
			c := clustertest.Start(t, clustertest.Options{})
			cl := c.Client(t, delivery)
			owned := map[image.NodeID]int{1: 0, 2: 0, 3: 0}
			runs := map[int]int{} // by how far nodes were apart
			for round := range rounds {
				owners := make(chan image.NodeID, few)
				var group errgroup.Group
				group.SetLimit(atOnce)
				for i := range few {
					body := clustertest.Image(uint64(round*few+i), 20_000+4_000*(i%4))
					group.Go(func() error {
						res, err := cl.Put(t.Context(), uploadOf(fmt.Sprintf("%d/%d.png", round, i), body))
						if err == nil {
							owners <- res.Receipt.Owner
						}
						return err
					})
				}
				if err := group.Wait(); err != nil {
					t.Fatal(err)
				}
				close(owners)
				for id := range owners {
					owned[id]++
				}
				all := slices.Collect(maps.Values(owned))
				apart := slices.Max(all) - slices.Min(all)
				runs[apart]++
				if apart > 2 || len(all) != 3 {
					t.Errorf("after %d images nodes own %v of them", (round+1)*few, owned)
				}
			}
			t.Logf("images apart, and how often: %v", runs)
		})
	}
}

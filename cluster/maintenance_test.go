package cluster_test

import (
	"net/http"
	"testing"

	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// TestMaintenance: of three nodes any one may be stopped, and while it is no other.
func TestMaintenance(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{})
	c.Put(t, 1, "alice", "a.png", clustertest.Image(1, 10_000), nil)
	path := wire.ReadyPath + "?maintenance"
	may := func(id image.NodeID) bool {
		return c.Do(http.MethodGet, id, path, nil, nil).Status == http.StatusOK
	}
	free := func() bool { return may(1) && may(2) && may(3) }
	clustertest.Poll(t, "any node may be stopped", free)
	c.Stop(3)
	clustertest.Poll(t, "the others are to be kept up", func() bool { return !may(1) && !may(2) })
	clustertest.ExpectProblem(t, c.Do(http.MethodGet, 1, path, nil, nil), image.KindNoQuorum)
	clustertest.Poll(t, "they serve", func() bool {
		return c.Do(http.MethodGet, 1, wire.ReadyPath, nil, nil).Status == http.StatusOK
	})
	c.Start(3)
	clustertest.Poll(t, "any node may be stopped again", free)
}

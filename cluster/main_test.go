package cluster_test

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"imgcluster/cluster"
	"imgcluster/cluster/clustertest"
)

func TestMain(m *testing.M) {
	clustertest.Main(clustertest.Answers{
		Hash:      (*cluster.Node).CatalogHash,
		Inventory: (*cluster.Node).Inventory,
	})
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

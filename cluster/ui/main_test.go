package ui_test

import (
	"os"
	"testing"

	"imgcluster/cluster/clustertest"
)

// TestMain runs the tests, or one of the nodes that they start.
func TestMain(m *testing.M) {
	clustertest.Main(clustertest.Answers{})
	os.Exit(m.Run())
}

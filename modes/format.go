package modes

import (
	"fmt"
	"slices"
	"strings"

	"imgcluster/cluster/image"
)

// formatNodes lists node IDs, the lowest first.
func formatNodes(ids []image.NodeID) string {
	ids = slices.Sorted(slices.Values(ids))
	s := make([]string, len(ids))
	for i, id := range ids {
		s[i] = fmt.Sprint(id)
	}
	return strings.Join(s, ", ")
}

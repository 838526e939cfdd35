package membership

import (
	"slices"
	"strings"
	"testing"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
)

// TestCheckQuorum asks whether node 3 may be rebuilt.
func TestCheckQuorum(t *testing.T) {
	rebuilt := catalog.Replica{Node: 2, Number: 7}
	for name, c := range map[string]struct {
		group  []catalog.Replica
		isNew  []catalog.Replica
		serves []image.NodeID
		want   string // in the error
	}{
		"the others serve": {on(1, 2, 3), nil, []image.NodeID{1, 2, 3}, ""},
		"one is down":      {on(1, 2, 3), nil, []image.NodeID{1, 3}, "nodes [2]"},
		"one is rebuilt": {
			append(on(1, 3), rebuilt), []catalog.Replica{rebuilt}, []image.NodeID{1, 2}, "nodes [2]",
		},
		"one was rebuilt":         {append(on(1, 3), rebuilt), nil, []image.NodeID{1, 2}, ""},
		"is not in the group":     {on(1, 2), nil, []image.NodeID{1, 2}, ""},
		"one of five is down":     {on(1, 2, 3, 4, 5), nil, []image.NodeID{1, 2, 4}, ""},
		"two of five are down":    {on(1, 2, 3, 4, 5), nil, []image.NodeID{1, 4}, "nodes [2 5]"},
		"alone":                   {on(3), nil, []image.NodeID{3}, "0 of the 1"},
		"of two":                  {on(1, 3), nil, []image.NodeID{1, 3}, "1 of the 2"},
		"a fourth has not caught": {on(1, 2, 3, 4), nil, []image.NodeID{1, 2}, "nodes [4]"},
	} {
		l := &catalog.Layout{Nodes: c.group, New: c.isNew}
		serves := func(id image.NodeID) bool { return slices.Contains(c.serves, id) }
		err := CheckQuorum(shard, c.group, l, 3, serves)
		switch {
		case (err == nil) != (c.want == ""):
			t.Errorf("%s: %v", name, err)
		case err != nil && (image.KindOf(err) != image.KindNoQuorum || image.HintOf(err) == "" ||
			!strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "shard 3")):
			t.Errorf("%s: %v, want %q in it", name, err, c.want)
		}
	}
}

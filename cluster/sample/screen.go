package sample

import (
	"cmp"
	"slices"
)

// Screen says how the live screen of a run shows a figure of the nodes, each in a column. Of a counter it
// shows the rate.
type Screen struct {
	Head  string // of the column; empty: there is none
	Place int    // of the column, from the left
	Drop  int    // where the columns do not fit, the one with the highest is left out first
}

// OnScreen returns the indices of the figures that have a column on the screen, from the left.
func (fs Figures) OnScreen() (indices []int) {
	for i, f := range fs {
		if f.Screen.Head != "" {
			indices = append(indices, i)
		}
	}
	slices.SortFunc(indices, func(a, b int) int { return cmp.Compare(fs[a].Screen.Place, fs[b].Screen.Place) })
	return indices
}

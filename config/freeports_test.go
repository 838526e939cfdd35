package config

import (
	"slices"
	"testing"
)

// Nobody listens on the ports of the first call yet when the second is made: it gives others.
func TestFreePorts(t *testing.T) {
	first, err := FreePorts(20)
	if err != nil {
		t.Fatal(err)
	}
	second, err := FreePorts(20)
	if err != nil {
		t.Fatal(err)
	}
	all := slices.Concat(first, second)
	slices.Sort(all)
	if n := len(slices.Compact(all)); n != 40 || all[0] < freePortMin || all[n-1] >= freePortMax {
		t.Errorf("%d and %d", first, second)
	}
}

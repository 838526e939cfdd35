package cluster

import (
	"testing"

	"imgcluster/cluster/image"
)

// TestKnownFiles: a set has all files that were added and few others, and its memory is bounded.
func TestKnownFiles(t *testing.T) {
	const files = 20_000
	k := newKnownFiles(files)
	all := make([]image.FileID, files)
	for i := range all {
		all[i] = image.FileID{Image: image.NewID(), Shard: 2, Attempt: image.NewAttempt()}
		k.add(all[i])
	}
	for _, f := range all {
		if !k.has(f) {
			t.Fatalf("%v is not in the set", f)
		}
	}
	wrong := 0
	for _, f := range all {
		f.Attempt = image.NewAttempt()
		if k.has(f) {
			wrong++
		}
	}
	if wrong > files/100 { // 48 are to be expected
		t.Errorf("%d of %d other files are in the set", wrong, files)
	}
	if bits := 64 * len(newKnownFiles(1_000_000_000).bits); bits > knownBitsMax {
		t.Errorf("a set of many files has %d bits", bits)
	}
	if newKnownFiles(0).has(all[0]) {
		t.Error("an empty set has a file")
	}
}

package cluster_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/clustertest/env"
	"imgcluster/cluster/image"
)

const (
	flipImagesMax = 300
	// flipReadOneIn of the damaged copies is found by a reader, the others by verify.
	flipReadOneIn = 4
)

// flipSizes are the images', in turn: in the small ones a flip is often in the header.
var flipSizes = []int{1, 300, 5_000, 150_000, 400_000}

// damage is one bit of one copy that was flipped.
type damage struct {
	stored
	node image.NodeID
	path string
	bad  []byte // the file since
}

// TestFlips flips single bits of stored files, each anywhere in one of the copies of an image. Every flip is
// found, by verify or by a read, which returns the right bytes nevertheless, and repaired: 30 flips, or
// IMGCLUSTER_FLIPS of them. IMGCLUSTER_SEED selects other places.
func TestFlips(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a cluster")
	}
	t.Parallel()
	count := env.Number(t, "IMGCLUSTER_FLIPS", 30)
	seed := env.Number(t, "IMGCLUSTER_SEED", 1)
	r := rand.New(rand.NewPCG(uint64(seed), 0))
	c := clustertest.Start(t, clustertest.Options{})
	all := putImagesOf(t, c, min(count, flipImagesMax), flipSizes)
	began := time.Now()
	inHeader := 0
	byVerify := 0
	byRead := 0
	repaired := 0
	for done := 0; done < count; {
		var listed, read []damage
		for _, i := range r.Perm(len(all))[:min(len(all), count-done)] {
			d, header := flipBit(t, c, r, all[i])
			if header {
				inHeader++
			}
			if r.IntN(flipReadOneIn) == 0 {
				read = append(read, d)
			} else {
				listed = append(listed, d)
			}
		}
		done += len(listed) + len(read)
		for _, d := range read { // before verify, which repairs all that it finds
			c.ExpectImage(t, "alice", d.name, d.body, d.node)
			byRead++
		}
		for _, d := range read {
			clustertest.Poll(t, "the copy that was read to be replaced", func() bool {
				if d.replaced(t, c) {
					return true
				}
				c.ExpectImage(t, "alice", d.name, d.body, d.node) // a repair may have begun before the flip
				return false
			})
			repaired++
		}
		v, f := expectListed(t, c, listed)
		byVerify += v
		repaired += f
	}
	for _, id := range c.IDs() {
		if _, end := c.Verify(t, id, false); end.Bad > 0 || end.Skipped > 0 || end.Images != end.OfImages {
			t.Errorf("in the end node %d has %+v", id, end.VerifySummary)
		}
	}
	expectImages(t, c, all, c.IDs()...)
	c.ExpectSettled(t)
	t.Logf("seed %d: %d bits flipped in the copies of %d images, %d of them in headers",
		seed, count, len(all), inHeader)
	t.Logf("%d found by verify, %d by a read, %d repaired, %.1f s",
		byVerify, byRead, repaired, time.Since(began).Seconds())
	if byVerify+byRead != count || repaired != count {
		t.Errorf("of %d flips, %d were found and %d repaired", count, byVerify+byRead, repaired)
	}
}

func putImagesOf(t *testing.T, c *clustertest.Cluster, n int, sizes []int) (all []stored) {
	t.Helper()
	for i := range n {
		body := clustertest.Image(uint64(i), sizes[i%len(sizes)])
		all = append(all, putStored(t, c, c.IDs()[i%len(c.IDs())], fmt.Sprintf("sized-%d.png", i), body))
	}
	return all
}

// flipBit flips a bit of one of the copies of an image, and reports whether it is in the header.
func flipBit(t *testing.T, c *clustertest.Cluster, r *rand.Rand, s stored) (d damage, inHeader bool) {
	t.Helper()
	var copies []damage
	for _, id := range c.IDs() {
		for _, path := range c.FilesOf(t, id, s.id) {
			copies = append(copies, damage{stored: s, node: id, path: path})
		}
	}
	if len(copies) < 2 {
		t.Fatalf("%s has the copies %v", s.name, copies)
	}
	d = copies[r.IntN(len(copies))]
	_, header := clustertest.Header(t, d.path)
	d.bad = flipIn(t, r, d.path, func(size int) int { return r.IntN(size) })
	return d, !bytes.HasPrefix(d.bad, header)
}

// flipIn flips a bit of the byte of a file that at chooses, and returns what is in the file now.
func flipIn(t *testing.T, r *rand.Rand, path string, at func(size int) int) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[at(len(b))] ^= 1 << r.IntN(8)
	if err := errors.Join(os.Chmod(path, 0o600), os.WriteFile(path, b, 0o600)); err != nil {
		t.Fatal(err)
	}
	return b
}

// replaced reports whether a good copy is where the damaged one was.
func (d *damage) replaced(t *testing.T, c *clustertest.Cluster) bool {
	t.Helper()
	files := c.FilesOf(t, d.node, d.id)
	for _, path := range files {
		if b, err := os.ReadFile(path); err != nil || bytes.Equal(b, d.bad) {
			return false
		}
	}
	return len(files) > 0
}

// expectListed has all nodes verify and repair, and expects that each damaged copy was listed, or replaced
// before that by a scrub. It counts both.
func expectListed(t *testing.T, c *clustertest.Cluster, all []damage) (found, repaired int) {
	t.Helper()
	listed := map[string]bool{}
	for _, id := range c.IDs() {
		bad, end := c.Verify(t, id, true)
		if end.Bad != end.Repaired || end.Skipped > 0 {
			t.Errorf("node %d: %+v", id, end.VerifySummary)
		}
		for _, b := range bad {
			listed[fmt.Sprint(id, b.Name)] = true
		}
	}
	for _, d := range all {
		replaced := d.replaced(t, c)
		if replaced {
			repaired++
		}
		if listed[fmt.Sprint(d.node, d.name)] || replaced {
			found++
		} else {
			t.Errorf("a flipped bit in %s was not found", d.path)
		}
	}
	return found, repaired
}

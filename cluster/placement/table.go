package placement

import "math"

// slack is how far an image may move a node away from an even share of the bytes, in average images, when it
// goes to the node by its rank. A larger one keeps more first choices and evens the bytes less: see
// TestBalance.
const slack = 0.3

// table compares the candidates by one kind of load, for one image.
//
// The image goes to one of the nodes with the fewest images, so that where each decision sees those before it
// the numbers of images never differ by more than one. Among these nodes the bytes decide. As each of them
// gets one image in turn, what evens the bytes is to give the larger images to the nodes whose images are
// smaller so far: excess is how many average images a node has more than its number of images would say, and
// the image adds size-average to that. The product of both is how much that drifts away from the mean, in the
// direction of its squared distance (minimum drift: Tassiulas and Ephremides, 1992). Every node fits whose
// drift is at most slack, and the first in rank of these gets the image.
type table struct {
	load    func(Candidate) Load
	least   int64   // images on the node that has the fewest
	average float64 // bytes of the average image, this one included; above 0
	excess  float64 // of the mean node
	more    float64 // size of this image less the average, in average images
}

func ownedLoad(c Candidate) Load { return c.Owned }

func storedLoad(c Candidate) Load { return c.Stored }

func newTable(nodes []Candidate, size int64, load func(Candidate) Load) table {
	t := table{load: load, least: math.MaxInt64}
	images := 1.0 // of all nodes, this image included
	bytes := float64(size)
	for _, c := range nodes {
		l := load(c)
		t.least = min(t.least, l.Images)
		images += float64(l.Images)
		bytes += float64(l.Bytes)
	}
	t.average = max(1, bytes/max(1, images))
	t.more = float64(size)/t.average - 1
	for _, c := range nodes {
		t.excess += t.excessOf(load(c)) / float64(len(nodes))
	}
	return t
}

// excessOf returns how many average images the bytes of a load are more than its number of images.
func (t table) excessOf(l Load) float64 { return float64(l.Bytes)/t.average - float64(l.Images) }

// drift returns how much taking the image moves the bytes of c away from an even share; below 0 it moves them
// towards it.
func (t table) drift(c Candidate) float64 { return (t.excessOf(t.load(c)) - t.excess) * t.more }

// choose returns the index of the first node that fits, or else of the one that drifts least.
func (t table) choose(ranked []Candidate) int {
	best, bestDrift := 0, math.Inf(1)
	for i, c := range ranked {
		if t.load(c).Images > t.least {
			continue
		}
		drift := t.drift(c)
		if drift <= slack {
			return i
		}
		if drift < bestDrift {
			best, bestDrift = i, drift
		}
	}
	return best
}

// Package chaos makes single nodes fail on purpose while a stress run uploads. A seed decides the faults
// (Schedule), and a Runner carries them out. The run calls it before each upload. It reaches the nodes'
// processes and the log through small interfaces, and does not know where the processes are.
package chaos

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"imgcluster/cluster/image"
)

// Kind is what happens to a node.
type Kind string

// The kinds of faults.
const (
	Kill    Kind = "kill"    // SIGKILL, and a new process after a while
	Pause   Kind = "pause"   // SIGSTOP, and SIGCONT after a while
	Restart Kind = "restart" // SIGTERM, and a new process when the old one has ended
)

var kinds = []Kind{Kill, Pause, Restart}

// Fault is one fault of one node. It is set off by an upload, not by a time, so that it is the same on a
// fast and on a slow machine.
type Fault struct {
	Upload int64         // number, from 1, of the upload that sets it off when it begins
	After  time.Duration // from that to the fault: it differs, so that uploads are hit in all of their phases
	Kind   Kind
	Node   int
	For    time.Duration // how long the node is paused, or at least without a process
}

func (f Fault) String() string {
	return fmt.Sprintf("%s node %d at upload %d", f.Kind, f.Node, f.Upload)
}

const (
	afterMax     = 250 * time.Millisecond
	forMin       = 500 * time.Millisecond
	forMax       = 2500 * time.Millisecond // longer than peer_silence: some nodes count as down, some do not
	faultsMin    = 3                       // by default: one of each kind
	faultUploads = 60                      // by default: uploads for each fault
	nodesMin     = 3                       // with fewer, the loss of one node is the loss of the quorum
)

// Default returns the number of faults for a run of so many uploads: at least 3, 25 for 1500.
func Default(uploads int64) int {
	return int(min(max(faultsMin, uploads/faultUploads), uploads))
}

// Schedule returns the faults of a run in their order. The same arguments give the same faults. The
// uploads are divided into as many stretches of equal length as there are faults, and each fault begins
// in the first half of its stretch. The kinds are dealt like cards, and so are the nodes: each comes once
// before one comes again.
func Schedule(seed uint64, faults int, uploads int64, nodes []int) ([]Fault, error) {
	switch {
	case len(nodes) < nodesMin:
		return nil, image.Errorf(image.KindInvalid, "chaos with %d nodes", len(nodes)).
			WithHint("configure three nodes, which is the least that can do without one")
	case faults < 1 || int64(faults) > uploads:
		return nil, image.Errorf(image.KindInvalid, "%d faults in a run of %d uploads", faults, uploads).
			WithHint("give --faults a number from 1 to that of the uploads, or leave it out")
	}
	rng := rand.New(rand.NewPCG(seed, uint64(faults)))
	kind := deck(rng, kinds)
	node := deck(rng, nodes)
	list := make([]Fault, faults)
	for i := range list {
		first := stretch(i, faults, uploads)
		next := stretch(i+1, faults, uploads)
		list[i] = Fault{
			Upload: first + rng.Int64N(max(1, (next-first)/2)),
			After:  between(rng, 0, afterMax),
			Kind:   kind(),
			Node:   node(),
			For:    between(rng, forMin, forMax),
		}
	}
	return list, nil
}

// stretch returns the first upload of the i-th of n stretches.
func stretch(i, n int, uploads int64) int64 { return 1 + int64(i)*uploads/int64(n) }

func between(rng *rand.Rand, least, most time.Duration) time.Duration {
	return (least + time.Duration(rng.Int64N(int64(most-least)))).Truncate(time.Millisecond)
}

// deck returns a function that deals the cards of a shuffled deck, which is shuffled again after the last
// one.
func deck[T any](rng *rand.Rand, cards []T) func() T {
	var left []int
	return func() T {
		if len(left) == 0 {
			left = rng.Perm(len(cards))
		}
		card := cards[left[0]]
		left = left[1:]
		return card
	}
}

// listedMax is how many faults a summary names one by one.
const listedMax = 4

// Summary returns the faults of a plan in one phrase.
func Summary(plan []Fault) string {
	count := map[Kind]int{}
	var each []string
	for _, f := range plan {
		count[f.Kind]++
		each = append(each, f.String())
	}
	if len(plan) <= listedMax {
		return strings.Join(each, ", ")
	}
	return fmt.Sprintf("%d faults: %d kills, %d pauses and %d restarts of single nodes",
		len(plan), count[Kill], count[Pause], count[Restart])
}

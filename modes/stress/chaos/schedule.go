// Package chaos makes single nodes fail on purpose while a stress run uploads: a schedule that a
// seed decides (Schedule), and what carries it out (Runner). It is told of each upload that begins,
// and speaks to the nodes' processes and to the log through small interfaces, so that nothing is
// known here of where the processes are.
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

// Fault is one fault of one node. It is set off by an upload, not by a time: the same on a fast
// machine and on a slow one.
type Fault struct {
	Upload int64         // the number of the upload, from 1, whose begin sets it off ...
	After  time.Duration // ... after this time, so that it hits uploads in all of their phases
	Kind   Kind
	Node   int
	For    time.Duration // how long the node is paused, or without a process at least
}

func (f Fault) String() string {
	return fmt.Sprintf("%s node %d at upload %d", f.Kind, f.Node, f.Upload)
}

const (
	afterMax     = 250 * time.Millisecond
	forMin       = 500 * time.Millisecond
	forMax       = 2500 * time.Millisecond // longer than peer_silence: some nodes are seen to be down, some not
	faultsLeast  = 3                       // one of each kind
	faultUploads = 60                      // uploads for each fault, when nothing else is asked for
	nodesLeast   = 3                       // or the loss of one loses the quorum
)

// Default returns the number of faults for a run of so many uploads: 3 at least, 25 for 1500.
func Default(uploads int64) int {
	return int(min(max(faultsLeast, uploads/faultUploads), uploads))
}

// Schedule returns a run's faults in their order. The same arguments give the same faults. They are
// spread evenly over the uploads: each has a stretch of its own and begins in its first half. Kinds,
// and nodes, are dealt like cards: all have had their turn before one comes again.
func Schedule(seed uint64, faults int, uploads int64, nodes []int) ([]Fault, error) {
	switch {
	case len(nodes) < nodesLeast:
		return nil, image.Errorf(image.KindInvalid, "chaos with %d nodes", len(nodes)).WithHint("configure three nodes, which is the least that can do without one")
	case faults < 1 || int64(faults) > uploads:
		return nil, image.Errorf(image.KindInvalid, "%d faults in a run of %d uploads", faults, uploads).WithHint("give --faults a number from 1 to that of the uploads, or leave it out")
	}
	rng := rand.New(rand.NewPCG(seed, uint64(faults)))
	kind, node := deck(rng, kinds), deck(rng, nodes)
	list := make([]Fault, faults)
	for i := range list {
		first, next := stretch(i, faults, uploads), stretch(i+1, faults, uploads)
		list[i] = Fault{
			Upload: first + rng.Int64N(max(1, (next-first)/2)), After: upTo(rng, 0, afterMax),
			Kind: kind(), Node: node(), For: upTo(rng, forMin, forMax),
		}
	}
	return list, nil
}

// stretch is the first upload of the i-th of n stretches of equal length.
func stretch(i, n int, uploads int64) int64 { return 1 + int64(i)*uploads/int64(n) }

func upTo(rng *rand.Rand, least, most time.Duration) time.Duration {
	return (least + time.Duration(rng.Int64N(int64(most-least)))).Truncate(time.Millisecond)
}

// deck deals the cards of a shuffled deck, which is shuffled again when it is used up.
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

// Summary says in one phrase what is going to happen.
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
	return fmt.Sprintf("%d faults: %d kills, %d pauses and %d restarts of single nodes", len(plan), count[Kill], count[Pause], count[Restart])
}

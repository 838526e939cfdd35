package placement

import (
	"container/heap"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"imgcluster/cluster/image"
	"imgcluster/genimg"
)

// upload is one image of a simulated run.
type upload struct {
	name string
	size int64
}

// uploads returns the images of a run as the stress test sends them.
func uploads(seed uint64, count int) []upload {
	set := genimg.Default(seed)
	all := make([]upload, count)
	for i := range all {
		im := set.Image(i + 1)
		all[i] = upload{im.Name, im.Size}
	}
	return all
}

// rename gives the uploads random names.
func rename(all []upload, dice *rand.Rand) {
	for i := range all {
		all[i].name = fmt.Sprintf("%x/%x.jpg", dice.Uint32(), dice.Uint64())
	}
}

// sim simulates a cluster that takes in images, on a clock of its own. A client has some uploads in progress
// at once. Each goes to the leader of its shard, which decides by what it knows then: all of its own
// decisions, and those of the others that it was told of.
type sim struct {
	nodes    int
	replicas int
	leaders  int           // 1: one node decides for all shards, as the one that an upload is announced to
	atOnce   int           // uploads in progress
	late     time.Duration // until a leader gets an upload, or is told of a decision, at most
	untold   bool          // the others hear of a decision only when its upload has committed
	seed     uint64
	watch    func(table []Candidate) // after each decision, in order; nil: nobody does
}

// Times of a simulated upload: about 0.2 s for an average image, half to three times of that. So long take
// uploads where 40 a second are made at 8 at once.
const (
	baseTime = 20 * time.Millisecond
	byteTime = 15 * time.Nanosecond
)

// event is something that happens in a simulation.
type event struct {
	at time.Duration
	do func()
}

// events are those to come, as a heap.
type events []event

func (e events) Len() int           { return len(e) }
func (e events) Less(i, j int) bool { return e[i].at < e[j].at }
func (e events) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)        { *e = append(*e, x.(event)) }

func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

// run is a simulation in progress.
type run struct {
	sim
	user   string
	left   []upload
	dice   *rand.Rand
	now    time.Duration
	events events
	tables [][]Candidate // what each leader knows
	table  []Candidate   // all that is decided
	first  int           // uploads that went to their first choice
	err    error
}

// run decides on all uploads, and returns what is decided in the end and how many of them went to the first
// choice of their hash.
func (s sim) run(user string, all []upload) (table []Candidate, first int, err error) {
	r := &run{sim: s, user: user, left: all, dice: rand.New(rand.NewPCG(4, s.seed)), table: s.empty()}
	for range s.leaders {
		r.tables = append(r.tables, s.empty())
	}
	for range s.atOnce {
		r.send()
	}
	for len(r.events) > 0 && r.err == nil {
		e := heap.Pop(&r.events).(event)
		r.now = e.at
		e.do()
	}
	return r.table, r.first, r.err
}

func (s sim) empty() []Candidate {
	table := make([]Candidate, s.nodes)
	for i := range table {
		table[i].ID = image.NodeID(i + 1)
	}
	return table
}

// within returns a random time up to d.
func (r *run) within(d time.Duration) time.Duration {
	return time.Duration(r.dice.Float64() * float64(d))
}

func (r *run) after(d time.Duration, do func()) { heap.Push(&r.events, event{r.now + d, do}) }

// send begins the next upload.
func (r *run) send() {
	if len(r.left) == 0 {
		return
	}
	u := r.left[0]
	r.left = r.left[1:]
	r.after(r.within(r.late), func() { r.decide(u) })
}

// decide has the leader of an upload's shard decide, and tells the others.
func (r *run) decide(u upload) {
	leader := Shard(r.user, u.name, 12) % r.leaders
	order, err := Place(r.user, u.name, u.size, r.tables[leader], r.replicas)
	if err != nil {
		r.err = err
		return
	}
	r.add(r.table, u.size, order)
	r.add(r.tables[leader], u.size, order)
	if order[0] == Rank(r.user, u.name, ids(r.table))[0] {
		r.first++
	}
	if r.watch != nil {
		r.watch(r.table)
	}
	takes := baseTime/2 + time.Duration(r.dice.ExpFloat64()*float64(baseTime/2)) +
		time.Duration(u.size)*byteTime/2 + r.within(time.Duration(u.size)*byteTime)
	for i, table := range r.tables {
		told := r.within(r.late)
		if r.untold {
			told += takes
		}
		if i != leader {
			r.after(told, func() { r.add(table, u.size, order) })
		}
	}
	r.after(takes, r.send)
}

// add adds a decision to what is known.
func (s sim) add(table []Candidate, size int64, order []image.NodeID) {
	for i, id := range order[:min(s.replicas, len(order))] {
		c := &table[id-1]
		c.Stored.add(size)
		if i == 0 {
			c.Owned.add(size)
		}
	}
}

func (l *Load) add(size int64) {
	l.Images++
	l.Bytes += size
}

func ids(table []Candidate) []image.NodeID {
	all := make([]image.NodeID, len(table))
	for i, c := range table {
		all[i] = c.ID
	}
	return all
}

// apart returns by how many images two nodes differ at most.
func apart(table []Candidate) int {
	least, most := table[0].Owned.Images, table[0].Owned.Images
	for _, c := range table {
		least = min(least, c.Owned.Images)
		most = max(most, c.Owned.Images)
	}
	return int(most - least)
}

// spread returns the population standard deviation of the nodes' shares, in percent of the sum, by
// images and by bytes.
func spread(table []Candidate, load func(Candidate) Load) (images, bytes float64) {
	var i, b []float64
	for _, c := range table {
		i = append(i, float64(load(c).Images))
		b = append(b, float64(load(c).Bytes))
	}
	return sharesDeviation(i), sharesDeviation(b)
}

func sharesDeviation(loads []float64) float64 {
	sum := 0.0
	squares := 0.0
	for _, l := range loads {
		sum += l
	}
	for _, l := range loads {
		off := 100*l/sum - 100/float64(len(loads))
		squares += off * off
	}
	return math.Sqrt(squares / float64(len(loads)))
}

package placement

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

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

// renamed gives the uploads random names.
func renamed(all []upload, dice *rand.Rand) []upload {
	all = slices.Clone(all)
	for i := range all {
		all[i].name = fmt.Sprintf("%x/%x.jpg", dice.Uint32(), dice.Uint64())
	}
	return all
}

// sim simulates a cluster that only decides on uploads.
type sim struct {
	nodes    int
	replicas int
	leaders  int        // each decides for a share of the uploads
	late     int        // uploads until the other leaders see a decision; 0: at once
	dice     *rand.Rand // when not nil, each decision is seen after 0 to late uploads, at random
	watch    func(table []Candidate)
}

type decision struct {
	leader, due int
	size        int64
	order       []image.NodeID
}

// outcome is the end of a run.
type outcome struct {
	table []Candidate
	first int // uploads that went to their first choice
}

func (s sim) empty() []Candidate {
	table := make([]Candidate, s.nodes)
	for i := range table {
		table[i].ID = image.NodeID(i + 1)
	}
	return table
}

func (l *Load) add(size int64) {
	l.Images++
	l.Bytes += size
}

// addTo adds a decision to a leader's table; others means that another leader decided.
func (d decision) addTo(table []Candidate, replicas int, others bool) {
	for i, id := range d.order[:min(replicas, len(d.order))] {
		c := &table[id-1]
		c.Stored.add(d.size)
		if i == 0 {
			c.Owned.add(d.size)
		}
		if i == 0 && others {
			c.Others.add(d.size)
		}
	}
}

// run decides on all uploads. Each leader sees its own decisions at once, and those of others some uploads
// later.
func (s sim) run(user string, all []upload) (outcome, error) {
	tables := make([][]Candidate, s.leaders)
	for i := range tables {
		tables[i] = s.empty()
	}
	out := outcome{table: s.empty()}
	var unseen []decision
	for now, u := range all {
		unseen = slices.DeleteFunc(unseen, func(d decision) bool { return s.reveal(d, now, tables) })
		leader := Shard(user, u.name, 12) % s.leaders
		order, err := Place(user, u.name, u.size, tables[leader], s.replicas)
		if err != nil {
			return outcome{}, err
		}
		d := decision{leader, now + 1 + s.lateness(), u.size, order}
		d.addTo(tables[leader], s.replicas, false)
		d.addTo(out.table, s.replicas, false)
		unseen = append(unseen, d)
		if order[0] == Rank(user, u.name, ids(out.table))[0] {
			out.first++
		}
		if s.watch != nil {
			s.watch(out.table)
		}
	}
	return out, nil
}

// reveal adds a decision to the tables of the other leaders once it is due, and reports whether it was due.
func (s sim) reveal(d decision, now int, tables [][]Candidate) bool {
	if now < d.due {
		return false
	}
	for leader, table := range tables {
		if leader != d.leader {
			d.addTo(table, s.replicas, true)
		}
	}
	return true
}

func (s sim) lateness() int {
	if s.dice == nil {
		return s.late
	}
	return s.dice.IntN(s.late + 1)
}

func ids(table []Candidate) []image.NodeID {
	all := make([]image.NodeID, len(table))
	for i, c := range table {
		all[i] = c.ID
	}
	return all
}

// spread returns the population standard deviation of the nodes' shares, in percent of the sum, by
// images and by bytes.
func spread(table []Candidate, load func(Candidate) point) (images, bytes float64) {
	var i, b []float64
	for _, c := range table {
		i = append(i, load(c).images)
		b = append(b, load(c).bytes)
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

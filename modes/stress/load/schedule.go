package load

import (
	"math"
	"math/rand/v2"
	"sync"

	"imgcluster/modes/runlog"
)

// operation is one upload, or the read of an image.
type operation struct {
	number int64
	read   bool    // of an image that is chosen when it begins
	seq    int64   // of an upload
	open   bool    // of an open loop
	due    float64 // when it must begin in an open loop, on the run's clock
}

// scheduled returns when the operation is due, for its record; nil in a closed loop.
func (o *operation) scheduled() *float64 {
	if !o.open {
		return nil
	}
	due := math.Floor(o.due*1e6) / 1e6 // never after the start, which is rounded
	return &due
}

// schedule hands out the operations of a run in their order.
type schedule struct {
	count    int64          // of uploads; 0: as many as begin within duration
	duration float64        // 0: none
	skip     map[int64]bool // uploads made before an interruption
	reads    float64        // the part of operations that read
	rate     float64        // of an open loop; 0: a closed loop
	poisson  bool

	mu      sync.Mutex
	rng     *rand.Rand // of times and kinds, in the order of the operations
	choice  *rand.Rand // of the images to read
	seq     int64
	number  int64
	owed    int64             // reads that became uploads, since nothing was stored yet
	base    float64           // start of the schedule on the run's clock
	due     float64           // of the next operation
	waiting map[int64]float64 // due times of operations that have not begun, by number
}

// forSchedule and forChoice keep the two sequences of random numbers apart from each other, and from
// those of the images and faults of the same seed.
const (
	forSchedule = 0x5c4ed01e
	forChoice   = 0xc401ce00
)

func newSchedule(o *Options) *schedule {
	s := &schedule{
		count:    o.Run.Count,
		duration: o.Run.DurationS,
		reads:    o.Run.ReadPercent / 100,
		rate:     o.Run.Rate,
		poisson:  o.Run.Arrivals == runlog.ArrivalsPoisson,
		waiting:  map[int64]float64{},
	}
	if o.Resume != nil {
		s.skip = o.Resume.Done
		s.base = o.Resume.AtS
	}
	s.rng = rand.New(rand.NewPCG(o.Run.Seed, forSchedule+uint64(len(s.skip))))
	s.choice = rand.New(rand.NewPCG(o.Run.Seed, forChoice+uint64(len(s.skip))))
	s.due = s.base
	if s.poisson {
		s.due += s.rng.ExpFloat64() / s.rate
	}
	return s
}

// nextDue returns when the next operation of an open loop is due; false when there is none any more.
func (s *schedule) nextDue() (float64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.due, !s.over(s.due)
}

// over reports whether no operation may begin at that time or later. Held: mu.
func (s *schedule) over(begin float64) bool {
	return s.duration > 0 && begin >= s.duration || !s.more()
}

// next returns the next operation; false when there is none any more. The seed decides which ones read. Once
// something is stored, as many uploads become reads as reads had become uploads before.
func (s *schedule) next(now float64, stored *Stored) (*operation, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	op := &operation{number: s.number, open: s.rate > 0, due: s.due}
	begin := now
	if op.open {
		begin = op.due
	}
	if s.over(begin) {
		return nil, false
	}
	if s.reads > 0 {
		if op.read = s.rng.Float64() < s.reads; !op.read && s.owed > 0 && stored.readable() {
			op.read = true
			s.owed--
		}
	}
	if !op.read {
		op.seq = s.take()
	}
	s.number++
	if op.open {
		s.waiting[op.number] = op.due
		s.advance()
	}
	return op, true
}

// more reports whether there are uploads left. Held: mu.
func (s *schedule) more() bool { return s.count == 0 || s.nextSeq() <= s.count }

// nextSeq returns the number of the next upload. Held: mu.
func (s *schedule) nextSeq() int64 {
	seq := s.seq + 1
	for s.skip[seq] {
		seq++
	}
	return seq
}

// take returns the number of the next upload, which is taken then. Held: mu.
func (s *schedule) take() int64 {
	s.seq = s.nextSeq()
	return s.seq
}

// choose returns the image of a read that is due. With nothing stored yet the read becomes an upload, and
// choose returns nil; it returns false when there are no uploads left.
func (s *schedule) choose(op *operation, stored *Stored) (*StoredImage, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if img := stored.random(s.choice); img != nil {
		return img, true
	}
	op.read = false
	s.owed++
	if !s.more() {
		delete(s.waiting, op.number)
		return nil, false
	}
	op.seq = s.take()
	return nil, true
}

// advance sets when the next operation is due. Held: mu.
func (s *schedule) advance() {
	if s.poisson {
		s.due += s.rng.ExpFloat64() / s.rate
		return
	}
	s.due = s.base + float64(s.number)/s.rate
}

// began removes an operation from those that wait.
func (s *schedule) began(op *operation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.waiting, op.number)
}

// late returns how long the oldest operation that is due has waited to begin.
func (s *schedule) late(now float64) float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rate == 0 {
		return 0
	}
	oldest := now
	if !s.over(s.due) {
		oldest = s.due
	}
	for _, due := range s.waiting {
		oldest = min(oldest, due)
	}
	return max(now-oldest, 0)
}

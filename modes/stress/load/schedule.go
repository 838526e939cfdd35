package load

import (
	"crypto/sha256"
	"math"
	"math/rand/v2"
	"sync"

	"imgcluster/modes/runlog"
)

// operation is one upload, or the read of an image.
type operation struct {
	number int64
	read   bool  // what, is chosen when it begins
	seq    int64 // of an upload
	open   bool  // it is due at a time of its own
	due    float64
}

func (o *operation) scheduled() *float64 {
	if !o.open {
		return nil
	}
	due := math.Floor(o.due*1e6) / 1e6 // never after the start, which is rounded
	return &due
}

// schedule hands out the operations of a run in their order.
type schedule struct {
	count    int64          // of uploads; 0: as many as there are in the duration
	duration float64        // 0: none
	skip     map[int64]bool // uploads that were made before
	reads    float64        // the part of operations that read
	rate     float64        // of an open loop
	poisson  bool

	mu      sync.Mutex
	rng     *rand.Rand // of times and kinds, in the order of the operations
	choice  *rand.Rand // of the images to read
	seq     int64
	number  int64
	owed    int64   // reads that became uploads, since nothing was stored yet
	base    float64 // due is counted from here
	due     float64 // of the next operation
	waiting map[int64]float64
}

// forSchedule keeps these random numbers apart from those of the images and faults of the same seed, and
// forChoice from one another.
const (
	forSchedule = 0x5c4ed01e
	forChoice   = 0xc401ce00
)

func newSchedule(o *Options) *schedule {
	s := &schedule{
		count: o.Run.Count, duration: o.Run.DurationS, reads: o.Run.ReadPercent / 100, rate: o.Run.Rate,
		poisson: o.Run.Arrivals == runlog.ArrivalsPoisson, waiting: map[int64]float64{},
	}
	if o.Resume != nil {
		s.skip, s.base = o.Resume.Done, o.Resume.AtS
	}
	s.rng = rand.New(rand.NewPCG(o.Run.Seed, forSchedule+uint64(len(s.skip))))
	s.choice = rand.New(rand.NewPCG(o.Run.Seed, forChoice+uint64(len(s.skip))))
	s.due = s.base
	if s.poisson {
		s.due += s.rng.ExpFloat64() / s.rate
	}
	return s
}

// nextDue tells when the next operation of an open loop is due; false when there is none any more.
func (s *schedule) nextDue() (float64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.due, !s.over(s.due)
}

// over reports whether no operation begins at that time or later. Held: mu.
func (s *schedule) over(begin float64) bool {
	return s.duration > 0 && begin >= s.duration || !s.more()
}

// next returns the next operation; false when there is none any more. The seed decides which ones read;
// as many uploads as there are reads owed become reads, once something is stored.
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
func (s *schedule) more() bool { return s.count == 0 || s.after() <= s.count }

// after is the number of the next upload. Held: mu.
func (s *schedule) after() int64 {
	seq := s.seq + 1
	for s.skip[seq] {
		seq++
	}
	return seq
}

// take gives an upload its number. Held: mu.
func (s *schedule) take() int64 {
	s.seq = s.after()
	return s.seq
}

// choose returns what a read that is due reads. With nothing stored yet it becomes an upload, of which
// there may be none left: then it returns false.
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

// advance finds when the next operation is due.
func (s *schedule) advance() {
	if s.poisson {
		s.due += s.rng.ExpFloat64() / s.rate
		return
	}
	s.due = s.base + float64(s.number)/s.rate
}

// began says that an operation no longer waits.
func (s *schedule) began(op *operation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.waiting, op.number)
}

// late returns for how long the oldest operation that is due has been waiting for its begin.
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

// readImagesMax bounds the images that reads between the uploads choose from.
const readImagesMax = 1 << 16

// Stored remembers acknowledged images. The zero value remembers all. It is safe for concurrent use.
type Stored struct {
	most int // 0: all

	mu    sync.Mutex
	list  []StoredImage
	added int
	known int // of those in list, by their digest
}

// StoredImage is one of them, and what it must be read back as.
type StoredImage struct {
	User, Name string
	Seq        int64
	Sum        [sha256.Size]byte
	Known      bool // Sum is; else the source can tell
}

// Add takes in an image of an earlier part of the run.
func (s *Stored) Add(img StoredImage) { s.add(img) }

// All returns the images.
func (s *Stored) All() []StoredImage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.list
}

func (s *Stored) add(img StoredImage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.most > 0 && len(s.list) == s.most {
		oldest := &s.list[s.added%s.most]
		if oldest.Known {
			s.known--
		}
		*oldest = img
	} else {
		s.list = append(s.list, img)
	}
	if img.Known {
		s.known++
	}
	s.added++
}

// readable reports whether there is an image for a read.
func (s *Stored) readable() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known > 0
}

// random returns one whose digest is known; nil when there is none.
func (s *Stored) random(rng *rand.Rand) *StoredImage {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == 0 {
		return nil
	}
	for at := rng.IntN(len(s.list)); ; at = (at + 1) % len(s.list) {
		if img := s.list[at]; img.Known {
			return &img
		}
	}
}

package load

import (
	"crypto/sha256"
	"math/rand/v2"
	"sync"
)

// readImagesMax bounds the images that reads between the uploads choose from.
const readImagesMax = 1 << 16

// Stored keeps acknowledged images. The zero value keeps all. It is safe for concurrent use.
type Stored struct {
	max int // images, the newest ones; 0: all

	mu    sync.Mutex
	list  []StoredImage
	added int
	known int // images in list whose Sum is known
}

// StoredImage is an acknowledged image and the digest that it must have when it is read back.
type StoredImage struct {
	User, Name string
	Seq        int64
	Sum        [sha256.Size]byte
	Known      bool // Sum is known; else Digest computes it
}

// All returns the images.
func (s *Stored) All() []StoredImage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.list
}

// Add adds an image.
func (s *Stored) Add(img StoredImage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.max > 0 && len(s.list) == s.max {
		oldest := &s.list[s.added%s.max]
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

// readable reports whether there is an image whose digest is known.
func (s *Stored) readable() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known > 0
}

// random returns an image whose digest is known; nil when there is none.
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

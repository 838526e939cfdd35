package crypto

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
)

// All returns the key alone, so that a MasterKey serves where a Ring does.
func (m *MasterKey) All() []*MasterKey { return []*MasterKey{m} }

// Ring is the master keys that are good now: the first one seals, all of them open. Outside of a rotation it
// is one. It is safe for concurrent use.
type Ring struct{ keys atomic.Pointer[[]*MasterKey] }

// NewRing returns a ring of at least one key.
func NewRing(keys ...*MasterKey) *Ring {
	r := &Ring{}
	r.Use(keys...)
	return r
}

// Use replaces the keys by at least one.
func (r *Ring) Use(keys ...*MasterKey) {
	keys = slices.Clone(keys)
	r.keys.Store(&keys)
}

// All returns the keys, that which seals first. The caller does not modify the list.
func (r *Ring) All() []*MasterKey { return *r.keys.Load() }

// Sealing returns the key that seals.
func (r *Ring) Sealing() *MasterKey { return r.All()[0] }

// Zero overwrites the keys. No other goroutine may be using them.
func (r *Ring) Zero() {
	for _, m := range r.All() {
		m.Zero()
	}
}

// UnwrapUserKey is MasterKey.UnwrapUserKey of the key that wrapped it.
func (r *Ring) UnwrapUserKey(tenant string, id uint32, wrapped []byte) (k Key, err error) {
	for _, m := range r.All() {
		if k, err = m.UnwrapUserKey(tenant, id, wrapped); !errors.Is(err, ErrOtherMaster) {
			break
		}
	}
	return k, err
}

// UnwrapDiskKey is MasterKey.UnwrapDiskKey of the key that wrapped it.
func (r *Ring) UnwrapDiskKey(wrapped []byte) (k Key, err error) {
	for _, m := range r.All() {
		if k, err = m.UnwrapDiskKey(wrapped); err == nil {
			break
		}
	}
	return k, err
}

// RingSealer seals as the Sealer of a ring's first key, and opens what that of any of them has sealed.
type RingSealer struct {
	ring    *Ring
	purpose string

	mu   sync.Mutex
	made map[string]*Sealer // by the ID of the master key
}

// Sealer returns the RingSealer of a purpose, see MasterKey.Derive. The error is that a key was zeroed.
func (r *Ring) Sealer(purpose string) (*RingSealer, error) {
	s := &RingSealer{ring: r, purpose: purpose, made: map[string]*Sealer{}}
	for _, m := range r.All() {
		if _, err := s.of(m); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *RingSealer) of(m *MasterKey) (*Sealer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if one := s.made[m.ID()]; one != nil {
		return one, nil
	}
	one, err := m.Sealer(s.purpose)
	if err == nil {
		s.made[m.ID()] = one
	}
	return one, err
}

// Seal is Sealer.Seal.
func (s *RingSealer) Seal(plaintext, ad []byte) []byte {
	one, err := s.of(s.ring.Sealing())
	if err != nil {
		panic(err) // a key in use was zeroed
	}
	return one.Seal(plaintext, ad)
}

// Open is Sealer.Open.
func (s *RingSealer) Open(sealed, ad []byte) (plaintext []byte, err error) {
	for _, m := range s.ring.All() {
		one, failed := s.of(m)
		if failed != nil {
			return nil, failed
		}
		if plaintext, err = one.Open(sealed, ad); err == nil {
			break
		}
	}
	return plaintext, err
}

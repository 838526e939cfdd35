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

// Masters are the master keys that are good now, that which seals first: a Ring, or a MasterKey alone.
type Masters interface{ All() []*MasterKey }

// PerKey is what follows from each master key that is good, made when it is first asked for. It is safe for
// concurrent use.
type PerKey[T any] struct {
	masters Masters
	derive  func(*MasterKey) (T, error)

	mu   sync.Mutex
	made map[[masterIDBytes]byte]T
}

// NewPerKey returns what derive makes of each key. The error is derive's, of a key that is good now.
func NewPerKey[T any](masters Masters, derive func(*MasterKey) (T, error)) (*PerKey[T], error) {
	p := &PerKey[T]{masters: masters, derive: derive, made: map[[masterIDBytes]byte]T{}}
	_, err := p.All()
	return p, err
}

// All returns that of all keys that are good, of the one that seals first.
func (p *PerKey[T]) All() (all []T, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.masters.All() {
		one, err := p.of(m)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

// First returns that of the key that seals.
func (p *PerKey[T]) First() (T, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.of(p.masters.All()[0])
}

// of returns that of one key. The caller holds mu.
func (p *PerKey[T]) of(m *MasterKey) (one T, err error) {
	one, ok := p.made[m.id]
	if ok {
		return one, nil
	}
	if one, err = p.derive(m); err == nil {
		p.made[m.id] = one
	}
	return one, err
}

// RingSealer seals as the Sealer of a ring's first key, and opens what that of any of them has sealed.
type RingSealer struct{ sealers *PerKey[*Sealer] }

// Sealer returns the RingSealer of a purpose, see MasterKey.Derive. The error is that a key was zeroed.
func (r *Ring) Sealer(purpose string) (*RingSealer, error) {
	sealers, err := NewPerKey(r, func(m *MasterKey) (*Sealer, error) { return m.Sealer(purpose) })
	return &RingSealer{sealers}, err
}

// Seal is Sealer.Seal.
func (s *RingSealer) Seal(plaintext, ad []byte) []byte {
	one, err := s.sealers.First()
	if err != nil {
		panic(err) // a key in use was zeroed
	}
	return one.Seal(plaintext, ad)
}

// Open is Sealer.Open.
func (s *RingSealer) Open(sealed, ad []byte) (plaintext []byte, err error) {
	all, err := s.sealers.All()
	for _, one := range all {
		if plaintext, err = one.Open(sealed, ad); err == nil {
			break
		}
	}
	return plaintext, err
}

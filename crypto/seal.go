package crypto

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/subtle"
)

const (
	sealNonceBytes = 24
	// SealBytes is how much longer what is sealed is than what it was made of: nonce and tag.
	SealBytes = sealNonceBytes + tagBytes
)

// Sealer encrypts and authenticates small values of which there is no end, such as records: XAES-256-GCM
// (c2sp.org/XAES-256-GCM), whose random nonces of 192 bits may be drawn as often as one likes. It is safe for
// use by several goroutines.
type Sealer struct {
	block cipher.Block
	k1    [aes.BlockSize]byte
}

// NewSealer returns the Sealer of a key that is used for nothing else. The error is that it is no key.
func NewSealer(k Key) (*Sealer, error) {
	if err := k.check(); err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(k.b()[:])
	if err != nil {
		return nil, err
	}
	s := &Sealer{block: block}
	block.Encrypt(s.k1[:], s.k1[:])
	msb := byte(0)
	for i := len(s.k1) - 1; i >= 0; i-- {
		msb, s.k1[i] = s.k1[i]>>7, s.k1[i]<<1|msb
	}
	s.k1[len(s.k1)-1] ^= msb * 0b1000_0111
	return s, nil
}

// Sealer returns the Sealer of a key that follows from the master key and a purpose, see Derive.
func (m *MasterKey) Sealer(purpose string) (*Sealer, error) {
	k := keyOf(new([keyBytes]byte))
	defer k.Zero()
	if err := derive(k.b()[:], m.key, nil, purpose); err != nil {
		return nil, err
	}
	return NewSealer(k)
}

// gcm returns AES-256-GCM under the key that belongs to the first half of a nonce.
func (s *Sealer) gcm(nonce []byte) cipher.AEAD {
	var k [keyBytes]byte
	defer clear(k[:])
	for i := range 2 {
		m := k[i*aes.BlockSize:][:aes.BlockSize]
		copy(m, []byte{0, byte(i + 1), 'X', 0})
		copy(m[4:], nonce[:nonceBytes])
		subtle.XORBytes(m, m, s.k1[:])
		s.block.Encrypt(m, m)
	}
	block, err := aes.NewCipher(k[:])
	if err != nil {
		panic(err) // the key has the right size
	}
	a, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // AES has the right block
	}
	return a
}

// Seal returns plaintext encrypted under a random nonce, which comes first, and bound to ad: SealBytes more
// than plaintext.
func (s *Sealer) Seal(plaintext, ad []byte) []byte {
	out := make([]byte, sealNonceBytes, SealBytes+len(plaintext))
	rand.Read(out) // never fails, see crypto/rand
	return s.gcm(out).Seal(out, out[nonceBytes:sealNonceBytes], plaintext, ad)
}

// Open is the inverse of Seal. Its error is of kind ErrAuth.
func (s *Sealer) Open(sealed, ad []byte) ([]byte, error) {
	if len(sealed) >= SealBytes {
		nonce := sealed[nonceBytes:sealNonceBytes]
		if plaintext, err := s.gcm(sealed).Open([]byte{}, nonce, sealed[sealNonceBytes:], ad); err == nil {
			return plaintext, nil
		}
	}
	return nil, &Error{
		Kind: ErrAuth, Detail: "sealed value does not authenticate",
		hint: "it was changed, or sealed under another key",
	}
}

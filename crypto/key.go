package crypto

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"io"
)

const (
	keyBytes   = 32 // of every key: AES-256
	nonceBytes = 12
	tagBytes   = 16
	saltBytes  = 32
	// wrappedBytes is a wrapped key: nonce, encrypted key, tag.
	wrappedBytes = nonceBytes + keyBytes + tagBytes

	redacted = "redacted"
)

// Key is a 256-bit secret. However it is printed or marshalled it says "redacted". Copies of a Key
// share the secret, so that it is in memory once and Zero reaches all of them. The zero Key is no
// key, and is refused wherever one is needed.
//
// The secret is held by a function, which reflection cannot look into: fmt does not call the methods
// of unexported fields, and with a wrong verb it even follows their pointers. A struct that holds a
// Key prints an address at the worst.
type Key struct{ secret func() *[keyBytes]byte }

// keyOf returns the key that b is; b is not copied.
func keyOf(b *[keyBytes]byte) Key { return Key{func() *[keyBytes]byte { return b }} }

// b returns the secret itself, nil for the zero Key.
func (k Key) b() *[keyBytes]byte {
	if k.secret == nil {
		return nil
	}
	return k.secret()
}

// NewKey returns a fresh random key.
func NewKey() Key {
	k := keyOf(new([keyBytes]byte))
	rand.Read(k.b()[:]) // never fails, see crypto/rand
	return k
}

// Zero overwrites the secret, for all copies of k. No other goroutine may be using it.
func (k Key) Zero() {
	if b := k.b(); b != nil {
		clear(b[:])
	}
}

// Equal compares in constant time. Two zero Keys are not equal: they are no keys.
func (k Key) Equal(other Key) bool {
	a, b := k.b(), other.b()
	return a != nil && b != nil && subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// String returns "redacted", as do all the ways to print or marshal a Key.
func (k Key) String() string { return redacted }

// Format implements fmt.Formatter, for every verb.
func (k Key) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// MarshalText implements encoding.TextMarshaler, for JSON too.
func (k Key) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// check refuses what is no key: the zero Key, and one that was zeroed, which would encrypt under
// a key that everybody knows.
func (k Key) check() error {
	var zero [keyBytes]byte
	if k.secret == nil || subtle.ConstantTimeCompare(k.b()[:], zero[:]) == 1 {
		return &Error{
			Kind: ErrInvalid, Detail: "the key is empty or was zeroed",
			hint: "make it with NewKey or unwrap it",
		}
	}
	return nil
}

// randomKey draws a key from random.
func randomKey(random io.Reader) (Key, error) {
	k := keyOf(new([keyBytes]byte))
	_, err := io.ReadFull(random, k.b()[:])
	return k, err
}

// derive fills out by HKDF-SHA256 (RFC 5869).
func derive(out []byte, secret Key, salt []byte, info string) error {
	if err := secret.check(); err != nil {
		return err
	}
	b, err := hkdf.Key(sha256.New, secret.b()[:], salt, info, len(out))
	if err != nil {
		return fmt.Errorf("derive a key: %w", err)
	}
	copy(out, b)
	clear(b)
	return nil
}

// deriveGCM returns AES-256-GCM under a key derived from secret.
func deriveGCM(secret Key, salt []byte, info string) (cipher.AEAD, error) {
	var k [keyBytes]byte
	defer clear(k[:])
	if err := derive(k[:], secret, salt, info); err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(k[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// wrap encrypts k with a random nonce: nonce, encrypted key, tag.
func wrap(dst []byte, a cipher.AEAD, k Key, ad []byte, random io.Reader) error {
	nonce := dst[:nonceBytes]
	if _, err := io.ReadFull(random, nonce); err != nil {
		return fmt.Errorf("draw a nonce: %w", err)
	}
	a.Seal(dst[nonceBytes:nonceBytes], nonce, k.b()[:], ad)
	return nil
}

// unwrap is the inverse of wrap; ok is false for what does not authenticate.
func unwrap(a cipher.AEAD, wrapped, ad []byte) (k Key, ok bool) {
	if len(wrapped) != wrappedBytes {
		return Key{}, false
	}
	k = keyOf(new([keyBytes]byte))
	if _, err := a.Open(k.b()[:0], wrapped[:nonceBytes], wrapped[nonceBytes:], ad); err != nil {
		return Key{}, false
	}
	return k, true
}

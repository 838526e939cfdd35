package image

import (
	"encoding/hex"
	"fmt"
)

// Check tells images apart without showing anything of them: a MAC of the plaintext under a key of its user
// (crypto.Check). Of one upload, equal Checks mean equal bytes.
type Check struct {
	Key uint32 `json:"key"` // ID of the user's key
	MAC MAC    `json:"mac"`
}

// MAC is the value of a Check; its text form is lowercase hexadecimal.
type MAC [16]byte

// MarshalText implements encoding.TextMarshaler.
func (m MAC) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(m[:])), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *MAC) UnmarshalText(b []byte) error { return unhex(m[:], b, "the MAC of an image") }

// SealedDigest is a Digest encrypted under a key of its user (crypto.DigestSealer): equal ones of a user are
// of equal digests. Its text form is lowercase hexadecimal.
type SealedDigest [48]byte

// MarshalText implements encoding.TextMarshaler.
func (d SealedDigest) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(d[:])), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *SealedDigest) UnmarshalText(b []byte) error { return unhex(d[:], b, "a sealed SHA-256") }

// tagBytes of a SealedDigest, its synthetic IV, stand for the digest in an entity tag.
const tagBytes = 16

// tag is the entity tag of the digest in the log, where that itself must not be.
func (d SealedDigest) tag() string { return `"` + hex.EncodeToString(d[:tagBytes]) + `"` }

func unhex(dst, b []byte, what string) error {
	if len(b) != hex.EncodedLen(len(dst)) {
		return fmt.Errorf("%s has %d hexadecimal digits, not %d", what, hex.EncodedLen(len(dst)), len(b))
	}
	_, err := hex.Decode(dst, b)
	return err
}

package crypto

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"hash"
)

const (
	infoCheck  = "imgcluster v1 image check"
	infoDigest = "imgcluster v1 image digest"

	// CheckBytes is the size of an image's check.
	CheckBytes = 16
	// checkBlockBytes is how much of the plaintext one GMAC covers.
	checkBlockBytes = 16 << 10

	sivBytes = 16
	// SealedDigestBytes is the size of what SealDigest returns: a synthetic IV, and the encrypted digest.
	SealedDigestBytes = sivBytes + sha256.Size
)

// Check computes the check of an image: a MAC of its plaintext under its user's key, by which nodes compare
// copies and repeated uploads. Equal plaintexts of one upload have equal checks, however they are written.
//
// It is a universal hash under a secret key, and then a pseudorandom function: each block of the plaintext
// has its GMAC, and the check is HMAC-SHA256 over the image ID, the GMACs and the length, 16 bytes of it. Two
// plaintexts collide with a probability below 2^-115 for whoever does not know the key, the client that
// chooses both of them among these, since no GMAC leaves this type: that is why they may be made again under
// the same nonces, and why a fast hash without a key, of which a client can compute collisions, would not do.
// Without the user's key the check tells nothing of the plaintext: not whether it is a known one, nor whether
// two images are equal.
//
// It costs about a sixth of a SHA-256. It is not safe for use by several goroutines.
type Check struct {
	gmac   cipher.AEAD
	mac    hash.Hash
	nonce  [nonceBytes]byte // the number of the block
	tag    [tagBytes]byte
	buf    []byte // of checkBlockBytes, once a part of a block has come
	n      int    // bytes in buf
	length uint64
}

// NewCheck returns the Check of an image, by its ID, under its user's key. The error is that it is no key.
func NewCheck(userKey Key, image [16]byte) (*Check, error) {
	var k [2 * keyBytes]byte
	defer clear(k[:])
	if err := derive(k[:], userKey, nil, infoCheck); err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(k[:keyBytes])
	if err != nil {
		return nil, err
	}
	c := &Check{mac: hmac.New(sha256.New, k[keyBytes:])}
	if c.gmac, err = cipher.NewGCM(block); err != nil {
		return nil, err
	}
	c.mac.Write(image[:])
	return c, nil
}

// Write implements io.Writer; it never fails.
func (c *Check) Write(p []byte) (int, error) {
	total := len(p)
	c.length += uint64(total)
	for len(p) > 0 {
		if c.n == 0 && len(p) >= checkBlockBytes {
			c.block(p[:checkBlockBytes])
			p = p[checkBlockBytes:]
			continue
		}
		if c.buf == nil {
			c.buf = make([]byte, checkBlockBytes)
		}
		m := copy(c.buf[c.n:], p)
		c.n += m
		p = p[m:]
		if c.n == checkBlockBytes {
			c.block(c.buf)
			c.n = 0
		}
	}
	return total, nil
}

func (c *Check) block(b []byte) {
	c.mac.Write(c.gmac.Seal(c.tag[:0], c.nonce[:], nil, b))
	binary.BigEndian.PutUint64(c.nonce[4:], binary.BigEndian.Uint64(c.nonce[4:])+1)
}

// Sum ends the plaintext and returns its check. It is called once.
func (c *Check) Sum() (sum [CheckBytes]byte) {
	if c.n > 0 {
		c.block(c.buf[:c.n])
	}
	clear(c.buf)
	c.mac.Write(binary.BigEndian.AppendUint64(nil, c.length))
	copy(sum[:], c.mac.Sum(nil))
	return sum
}

// DigestSealer encrypts the SHA-256 of a user's images, so that only who has the user's key learns from it
// which known image is stored: a synthetic-IV cipher in the manner of RFC 5297, of HMAC-SHA256 and
// AES-256-CTR. Equal digests of one user are sealed to the same, which is how the catalog compares them. It
// is safe for use by several goroutines.
type DigestSealer struct {
	mac   [keyBytes]byte
	block cipher.Block
}

// NewDigestSealer returns the DigestSealer of a user's key. The error is that it is no key.
func NewDigestSealer(userKey Key) (*DigestSealer, error) {
	var k [2 * keyBytes]byte
	defer clear(k[:])
	if err := derive(k[:], userKey, nil, infoDigest); err != nil {
		return nil, err
	}
	s := &DigestSealer{}
	copy(s.mac[:], k[:keyBytes])
	var err error
	s.block, err = aes.NewCipher(k[keyBytes:])
	return s, err
}

// Seal returns a digest encrypted.
func (s *DigestSealer) Seal(digest [sha256.Size]byte) (sealed [SealedDigestBytes]byte) {
	iv := sealed[:sivBytes]
	s.iv(iv, digest)
	cipher.NewCTR(s.block, iv).XORKeyStream(sealed[sivBytes:], digest[:])
	return sealed
}

// Open is the inverse of Seal. Its error is of kind ErrAuth.
func (s *DigestSealer) Open(sealed [SealedDigestBytes]byte) (digest [sha256.Size]byte, err error) {
	cipher.NewCTR(s.block, sealed[:sivBytes]).XORKeyStream(digest[:], sealed[sivBytes:])
	var iv [sivBytes]byte
	s.iv(iv[:], digest)
	if subtle.ConstantTimeCompare(iv[:], sealed[:sivBytes]) != 1 {
		return [sha256.Size]byte{}, &Error{
			Kind: ErrAuth, Detail: "sealed digest does not authenticate",
			hint: "it was changed, or sealed under another user's key",
		}
	}
	return digest, nil
}

func (s *DigestSealer) iv(iv []byte, digest [sha256.Size]byte) {
	m := hmac.New(sha256.New, s.mac[:])
	m.Write(digest[:])
	copy(iv, m.Sum(nil))
}

package crypto

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"testing"
)

// checkOf computes a check by FORMAT.md, in one go.
func checkOf(t *testing.T, k Key, image [16]byte, plain []byte) (sum [CheckBytes]byte) {
	t.Helper()
	keys := must[[]byte](t)(hkdf.Key(sha256.New, k.b()[:], nil, "imgcluster v1 image check", 64))
	gcm := must[cipher.AEAD](t)(cipher.NewGCM(must[cipher.Block](t)(aes.NewCipher(keys[:32]))))
	message := slices.Clone(image[:])
	number := uint64(0)
	for block := range slices.Chunk(plain, 16384) {
		nonce := binary.BigEndian.AppendUint64(make([]byte, 4), number)
		message = append(message, gcm.Seal(nil, nonce, nil, block)...)
		number++
	}
	mac := hmac.New(sha256.New, keys[32:])
	mac.Write(binary.BigEndian.AppendUint64(message, uint64(len(plain))))
	copy(sum[:], mac.Sum(nil))
	return sum
}

func TestCheck(t *testing.T) {
	image := [16]byte{15: 1}
	seen := map[[CheckBytes]byte]int{}
	for _, size := range []int{
		0, 1, checkBlockBytes - 1, checkBlockBytes, checkBlockBytes + 1, 3*checkBlockBytes - 1, 9 * checkBlockBytes,
	} {
		plain := testPlain(size)
		want := checkOf(t, testKey(1), image, plain)
		for _, write := range []int{1, 1000, checkBlockBytes, checkBlockBytes + 1, 128<<10 - 56, 1 << 20} {
			if write == 1 && size > 2*checkBlockBytes {
				continue
			}
			c := must[*Check](t)(NewCheck(testKey(1), image))
			for part := range slices.Chunk(plain, write) {
				if n, err := c.Write(part); n != len(part) || err != nil {
					t.Fatal(n, err)
				}
			}
			if got := c.Sum(); got != want {
				t.Errorf("%d bytes in writes of %d: %x, want %x", size, write, got, want)
			}
		}
		if other, known := seen[want]; known {
			t.Errorf("%d and %d bytes have the same check", other, size)
		}
		seen[want] = size
	}
	if _, err := NewCheck(Key{}, image); err == nil {
		t.Error("a check without a key")
	}
}

// TestCheckTellsPlaintextsApart: any change of the plaintext, the image or the key is another check.
func TestCheckTellsPlaintextsApart(t *testing.T) {
	image := [16]byte{1}
	plain := testPlain(4*checkBlockBytes + 100)
	of := func(k Key, image [16]byte, p []byte) [CheckBytes]byte {
		c := must[*Check](t)(NewCheck(k, image))
		c.Write(p)
		return c.Sum()
	}
	seen := map[[CheckBytes]byte]string{of(testKey(1), image, plain): "the image"}
	expectNew := func(what string, sum [CheckBytes]byte) {
		if other, known := seen[sum]; known {
			t.Errorf("%s has the check of %s", what, other)
		}
		seen[sum] = what
	}
	for _, at := range []int{0, 1, checkBlockBytes, len(plain) - 1} {
		p := bytes.Clone(plain)
		p[at] ^= 1
		expectNew("a flipped bit", of(testKey(1), image, p))
	}
	swapped := slices.Concat(plain[checkBlockBytes:2*checkBlockBytes], plain[:checkBlockBytes],
		plain[2*checkBlockBytes:])
	expectNew("blocks in another order", of(testKey(1), image, swapped))
	expectNew("a cut image", of(testKey(1), image, plain[:4*checkBlockBytes]))
	expectNew("zeros at the end", of(testKey(1), image, append(bytes.Clone(plain), 0)))
	expectNew("another image", of(testKey(1), [16]byte{2}, plain))
	expectNew("another user", of(testKey(2), image, plain))
}

func TestDigestSealer(t *testing.T) {
	s := must[*DigestSealer](t)(NewDigestSealer(testKey(1)))
	other := must[*DigestSealer](t)(NewDigestSealer(testKey(2)))
	a, b := sha256.Sum256([]byte("a")), sha256.Sum256([]byte("b"))
	sealed := s.Seal(a)
	if got, err := s.Open(sealed); err != nil || got != a {
		t.Errorf("%x, %v", got, err)
	}
	if s.Seal(a) != sealed || s.Seal(b) == sealed || other.Seal(a) == sealed {
		t.Error("equal digests of one user, and no others, are sealed to the same")
	}
	if bytes.Contains(sealed[:], a[:8]) {
		t.Error("the digest is in clear")
	}
	for i := range sealed {
		bad := sealed
		bad[i] ^= 1
		if got, err := s.Open(bad); got != ([32]byte{}) {
			t.Errorf("byte %d changed: %x", i, got)
		} else {
			wantKind(t, err, ErrAuth)
		}
	}
	_, err := other.Open(sealed)
	wantKind(t, err, ErrAuth)
	if _, err := NewDigestSealer(Key{}); err == nil {
		t.Error("sealed without a key")
	}
}

// BenchmarkCheck is the cost of an image's check, and of a SHA-256 for comparison.
func BenchmarkCheck(b *testing.B) {
	plain := testPlain(benchBytes)
	b.Run("check", func(b *testing.B) {
		b.SetBytes(benchBytes)
		for b.Loop() {
			c, err := NewCheck(testKey(1), [16]byte{1})
			if err != nil {
				b.Fatal(err)
			}
			for part := range slices.Chunk(plain, 128<<10) {
				c.Write(part)
			}
			c.Sum()
		}
	})
	b.Run("sha256", func(b *testing.B) {
		b.SetBytes(benchBytes)
		for b.Loop() {
			sha256.Sum256(plain)
		}
	})
}

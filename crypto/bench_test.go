package crypto

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"io"
	"testing"
)

// benchBytes is the average image of the big run.
const benchBytes = 12_600 << 10

// BenchmarkGCM is the bare cipher on one segment, the ceiling for the others.
func BenchmarkGCM(b *testing.B) {
	block, _ := aes.NewCipher(make([]byte, keyBytes))
	a, _ := cipher.NewGCM(block)
	buf, n := make([]byte, SegmentSizeDefault), make([]byte, nonceBytes)
	b.SetBytes(SegmentSizeDefault - tagBytes)
	for b.Loop() {
		a.Seal(buf[:0], n, buf[:SegmentSizeDefault-tagBytes], nil)
	}
}

func BenchmarkEncrypt(b *testing.B) {
	for _, c := range []struct{ size, chunk int }{
		{benchBytes, 32 << 10}, {benchBytes, 256 << 10}, {benchBytes, benchBytes}, {1000, 1000},
	} {
		b.Run(fmt.Sprintf("image=%d/write=%d", c.size, c.chunk), func(b *testing.B) {
			plain, k := testPlain(c.size), testKey(1)
			b.SetBytes(int64(c.size))
			b.ReportAllocs()
			for b.Loop() {
				w, err := NewEncryptWriter(io.Discard, k, testFields(c.size, 0))
				if err != nil {
					b.Fatal(err)
				}
				for p := plain; len(p) > 0; p = p[min(c.chunk, len(p)):] {
					w.Write(p[:min(c.chunk, len(p))])
				}
				if err := w.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDecrypt(b *testing.B) {
	k := testKey(1)
	for _, size := range []int{benchBytes, 1000} {
		file := encrypt(b, k, testFields(size, 0), testPlain(size))
		b.Run(fmt.Sprintf("image=%d", size), func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Verify(io.Discard, bytes.NewReader(file), just(k)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

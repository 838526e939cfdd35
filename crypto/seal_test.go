package crypto

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"
)

// TestSealVectors: the accumulated vectors of c2sp.org/XAES-256-GCM, with their nonce in front.
func TestSealVectors(t *testing.T) {
	const nonce = "ABCDEFGHIJKLMNOPQRSTUVWX"
	for _, v := range []struct {
		key        byte
		ad, sealed string
	}{
		{1, "", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"},
		{3, "c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"},
	} {
		s := sealer(t, v.key)
		sealed, err := hex.DecodeString(v.sealed)
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Open(append([]byte(nonce), sealed...), []byte(v.ad))
		if err != nil || string(got) != "XAES-256-GCM" {
			t.Errorf("key %d: %q, %v", v.key, got, err)
		}
	}
}

func sealer(t *testing.T, b byte) *Sealer {
	t.Helper()
	s, err := NewSealer(keyOf((*[keyBytes]byte)(bytes.Repeat([]byte{b}, keyBytes))))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSealer(t *testing.T) {
	s := sealer(t, 7)
	ad := []byte("a key")
	for _, size := range []int{0, 1, 16, 100_000} {
		plaintext := bytes.Repeat([]byte{9}, size)
		sealed := s.Seal(plaintext, ad)
		if len(sealed) != size+SealBytes || size > 1 && bytes.Contains(sealed, plaintext) {
			t.Errorf("%d bytes: %d sealed", size, len(sealed))
		}
		if again := s.Seal(plaintext, ad); bytes.Equal(again, sealed) {
			t.Errorf("%d bytes: sealed twice to the same", size)
		}
		if got, err := s.Open(sealed, ad); err != nil || !bytes.Equal(got, plaintext) {
			t.Errorf("%d bytes: %v", size, err)
		}
		for _, bad := range [][]byte{
			nil, sealed[:SealBytes-1], sealed[:len(sealed)-1], append([]byte{0}, sealed...),
		} {
			if _, err := s.Open(bad, ad); !errors.Is(err, ErrAuth) {
				t.Errorf("%d of %d bytes: %v", len(bad), len(sealed), err)
			}
		}
		for _, at := range []int{0, nonceBytes, sealNonceBytes, len(sealed) - 1} {
			bad := bytes.Clone(sealed)
			bad[at] ^= 1
			if _, err := s.Open(bad, ad); !errors.Is(err, ErrAuth) {
				t.Errorf("byte %d changed: %v", at, err)
			}
		}
		if _, err := s.Open(sealed, []byte("another key")); !errors.Is(err, ErrAuth) {
			t.Errorf("moved: %v", err)
		}
		if _, err := sealer(t, 8).Open(sealed, ad); !errors.Is(err, ErrAuth) {
			t.Errorf("under another key: %v", err)
		}
	}
	if _, err := NewSealer(Key{}); err == nil {
		t.Error("no key is taken for one")
	}
}

func BenchmarkSeal(b *testing.B) {
	s, err := NewSealer(NewKey())
	if err != nil {
		b.Fatal(err)
	}
	record := make([]byte, 400)
	for b.Loop() {
		s.Seal(record, record[:30])
	}
}

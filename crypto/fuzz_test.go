package crypto

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"testing"
)

// readVectors returns the vectors, which are the corpus of the fuzz targets beside testdata/fuzz.
func readVectors(f *testing.F) (v vectors) {
	f.Helper()
	if err := json.Unmarshal(must[[]byte](f)(os.ReadFile(vectorsFile)), &v); err != nil {
		f.Fatal(err)
	}
	return v
}

// What parses is written again as the same bytes: there is one form of each header.
func FuzzParseHeader(f *testing.F) {
	for _, v := range readVectors(f).Files {
		f.Add(unhex(f, v.File))
	}
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHeader(b)
		if err != nil {
			if !refused(err) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		if out := h.Marshal(); len(out) > HeaderMaxBytes || !bytes.HasPrefix(b, out) {
			t.Fatalf("%x is written again as %x", b, out)
		}
		if h.FileLen() < int64(headerBytes(h.Tenant))+StreamHeaderBytes+tagBytes {
			t.Fatalf("a file of %d bytes", h.FileLen())
		}
	})
}

// Bytes that were not made with the key release nothing: only true files open.
func FuzzOpen(f *testing.F) {
	good := map[string][]byte{} // the plaintexts of true files
	for _, v := range readVectors(f).Files {
		file := unhex(f, v.File)
		f.Add(file)
		if v.Expect == expectOK {
			good[string(file)] = unhex(f, v.Plaintext)
		}
	}
	three := testPlain(firstPlain + 2*fullPlain) // the true file of those that were changed
	file := encryptWith(f, vectorKey, testFields(len(three), testSegment), three, len(three), &counter{})
	good[string(file)] = three
	plain := testPlain(firstPlain + 3*fullPlain) // every plaintext but one is a start of it
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := verify(b, vectorKey)
		want, isGood := good[string(b)]
		if (err == nil) != isGood || isGood && !bytes.Equal(got, want) {
			t.Fatalf("%x gives %x, %v", b, got, err)
		}
		if isGood {
			return
		}
		streamed, _ := stream(b, vectorKey)
		for _, out := range [][]byte{got, streamed} {
			if !bytes.HasPrefix(plain, out[:min(len(out), len(plain))]) && !bytes.HasPrefix([]byte("abc"), out) {
				t.Fatalf("%x gives %x and %x", b, got, streamed)
			}
		}
		if !refused(err) {
			t.Fatalf("an error of another kind: %v", err)
		}
	})
}

// Behind a true header, any segments but the true ones release nothing but a start of the plaintext, whole or
// in a range.
func FuzzSegments(f *testing.F) {
	plain := testPlain(firstPlain + 2*fullPlain)
	file := encryptWith(f, vectorKey, testFields(len(plain), testSegment), plain, len(plain), &counter{})
	opened := must[*Opened](f)(Open(file, vectorKey))
	segments := file[threeStream:]
	f.Add(segments, uint16(0), uint16(len(plain)))
	f.Add(segments[:len(segments)-1], uint16(7), uint16(50))
	f.Add(slices.Concat(segments[testSegment:], segments[:testSegment]), uint16(60), uint16(40))
	f.Add(slices.Concat(segments, segments), uint16(1), uint16(1))
	f.Add([]byte(nil), uint16(0), uint16(0))
	f.Fuzz(func(t *testing.T, b []byte, off, n uint16) {
		whole := slices.Concat(file[:threeStream], b)
		got, err := verify(whole, vectorKey)
		if !bytes.HasPrefix(plain, got) || (err == nil) != bytes.Equal(b, segments) {
			t.Fatalf("%x gives %x, %v", b, got, err)
		}
		if err != nil && !errors.Is(err, ErrAuth) {
			t.Fatalf("an error of another kind: %v", err)
		}
		at := int64(off) % int64(len(plain)+1)
		size := min(int64(n), int64(len(plain))-at)
		part, err := readRange(opened, whole, at, size)
		if !bytes.HasPrefix(plain[at:at+size], part) || err == nil && int64(len(part)) != size {
			t.Fatalf("%d bytes at %d of %x give %x, %v", size, at, b, part, err)
		}
	})
}

// A range is the same part of the whole, or refused when there is no such part.
func FuzzRange(f *testing.F) {
	f.Add(uint16(0), uint16(64), int64(0), int64(0))
	f.Add(uint16(200), uint16(64), int64(7), int64(50))
	f.Add(uint16(9000), uint16(1000), int64(943), int64(2000))
	f.Add(uint16(9000), uint16(1000), int64(-1), int64(1)<<62)
	f.Fuzz(func(t *testing.T, length, segment uint16, off, n int64) {
		plain, k := testPlain(int(length)), testKey(1)
		file := encrypt(t, k, testFields(len(plain), max(segmentSizeMin, int(segment))), plain)
		o := must[*Opened](t)(Open(file, k))
		got, err := readRange(o, file, off, n)
		inside := off >= 0 && n >= 0 && off <= int64(length) && n <= int64(length)-off
		if !inside {
			wantKind(t, err, ErrRange)
		} else if err != nil || !bytes.Equal(got, plain[off:off+n]) {
			t.Fatalf("%d bytes at %d of %d: %d bytes, %v", n, off, length, len(got), err)
		}
	})
}

// Only what the master key wrapped is unwrapped, for its tenant and key ID alone.
func FuzzUnwrapUserKey(f *testing.F) {
	type input struct {
		tenant  string
		id      uint32
		wrapped string
	}
	good := map[input]bool{}
	for _, v := range readVectors(f).UserKeys {
		wrapped := unhex(f, v.Wrapped)
		f.Add(v.Tenant, v.KeyID, wrapped)
		if v.Expect == expectOK {
			good[input{v.Tenant, v.KeyID, string(wrapped)}] = true
		}
	}
	m := must[*MasterKey](f)(newMasterKey(testKey(0x80)))
	f.Fuzz(func(t *testing.T, tenant string, id uint32, wrapped []byte) {
		k, err := m.UnwrapUserKey(tenant, id, wrapped)
		switch {
		case err == nil && (!good[input{tenant, id, string(wrapped)}] || !k.Equal(vectorKey)):
			t.Fatalf("%x is unwrapped for %q and key %d", wrapped, tenant, id)
		case err != nil && !refused(err) && !errors.Is(err, ErrOtherMaster):
			t.Fatalf("an error of another kind: %v", err)
		}
	})
}

// Any bytes are a master key file or refused, without a word of them in the error; what is read is written
// again as the same key.
func FuzzMasterKeyFile(f *testing.F) {
	m := must[*MasterKey](f)(newMasterKey(testKey(0x80)))
	f.Add(m.file())
	f.Add([]byte(m.line() + "\n" + m.line()))
	f.Add([]byte(markUTF8 + m.line()))
	f.Add([]byte(markUTF16LE + "i\x00m\x00"))
	f.Add([]byte(keyLineMagic + " 0 AAAA"))
	f.Fuzz(func(t *testing.T, b []byte) {
		keys, err := parseMasters(bytes.Clone(b), "a file")
		if err != nil {
			if !errors.Is(err, ErrKeyMalformed) && !errors.Is(err, ErrKeyMismatch) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		for _, k := range keys {
			again := must[*MasterKey](t)(parseMaster(k.file(), "a file"))
			if !again.key.Equal(k.key) || len(keys) > masterKeysMax {
				t.Fatalf("%d keys, of which %v is read again as %v", len(keys), k, again)
			}
		}
	})
}

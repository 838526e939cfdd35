package crypto

import (
	"bytes"
	"testing"
)

// What parses is written again as the same bytes: there is one form of each header.
func FuzzParseHeader(f *testing.F) {
	file, _, _ := tamperFile(f)
	f.Add(file)
	f.Add(file[:offTenant])
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

// Bytes that were not made with the key release nothing: only the true file opens.
func FuzzOpen(f *testing.F) {
	plain, k := testPlain(100), testKey(1)
	file := encryptWith(f, k, testFields(len(plain), testSegment), plain, 100, &counter{})
	f.Add(file)
	f.Add(file[:len(file)-1])
	f.Add(append(bytes.Clone(file), 0))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := verify(b, k)
		if err == nil && !bytes.Equal(b, file) {
			t.Fatalf("%x is taken for the file", b)
		}
		streamed, _ := stream(b, k)
		if !bytes.HasPrefix(plain, got) || !bytes.HasPrefix(plain, streamed) {
			t.Fatalf("%x gives %x and %x", b, got, streamed)
		}
		if err != nil && !refused(err) {
			t.Fatalf("an error of another kind: %v", err)
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

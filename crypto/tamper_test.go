package crypto

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
)

// tamperFile is a file of five segments.
func tamperFile(t testing.TB) (file, plain []byte, k Key) {
	plain, k = testPlain(firstPlain+3*fullPlain+5), testKey(1)
	return encrypt(t, k, testFields(len(plain), testSegment), plain), plain, k
}

// mustRefuse reads bad in every way: each must refuse it, and release nothing but what is
// authentic: a start of plain.
func mustRefuse(t *testing.T, what string, bad, plain []byte, k Key) {
	t.Helper()
	if got, err := verify(bad, k); !refused(err) || !bytes.HasPrefix(plain, got) {
		t.Errorf("%s: Verify gives %d bytes and says %v", what, len(got), err)
	}
	if got, _ := stream(bad, k); !bytes.HasPrefix(plain, got) {
		t.Errorf("%s: a stream gives %d bytes that are not of the image", what, len(got))
	}
}

func TestEveryHeaderBitFlipped(t *testing.T) {
	file, _, k := tamperFile(t)
	for i := range headerBytes("alice") {
		for bit := range 8 {
			bad := bytes.Clone(file)
			bad[i] ^= 1 << bit
			if _, err := Open(bad[:min(len(bad), PrefixMaxBytes)], k); !refused(err) {
				t.Errorf("byte %d, bit %d: Open says %v", i, bit, err)
			}
			mustRefuse(t, "a header bit flipped", bad, nil, k)
		}
	}
}

// Nothing is released of a file whose stream header is changed, although it is not part of Open's
// checks: no segment authenticates.
func TestEveryStreamHeaderByteFlipped(t *testing.T) {
	file, _, k := tamperFile(t)
	for i := range StreamHeaderBytes {
		bad := bytes.Clone(file)
		bad[headerBytes("alice")+i] ^= 0x10
		mustRefuse(t, "a stream header byte flipped", bad, nil, k)
	}
}

func TestEveryBodyByteFlipped(t *testing.T) {
	file, plain, k := tamperFile(t)
	h := must[*Header](t)(ParseHeader(file))
	for i := headerBytes("alice") + StreamHeaderBytes; i < len(file); i++ {
		bad := bytes.Clone(file)
		bad[i] ^= 0x80
		segment := (int64(i) - int64(headerBytes("alice"))) / testSegment
		intact, _ := h.layout().plain(segment)
		mustRefuse(t, "a body byte flipped", bad, plain[:intact], k)
	}
}

func TestTruncatedEverywhere(t *testing.T) {
	file, plain, k := tamperFile(t)
	for n := range len(file) {
		mustRefuse(t, "cut", file[:n], plain, k)
		_, err := verify(file[:n], k)
		wantKind(t, err, ErrAuth)
		if _, err := stream(file[:n], k); err == nil {
			t.Errorf("a stream cut at %d ends without an error", n)
		}
	}
}

func TestTrailingBytes(t *testing.T) {
	file, plain, k := tamperFile(t)
	for _, more := range [][]byte{{0}, file[len(file)-testSegment:], file} {
		bad := slices.Concat(file, more)
		mustRefuse(t, "longer", bad, plain, k)
		_, err := verify(bad, k)
		wantKind(t, err, ErrAuth)
	}
}

// segments cuts a file into header with stream header, and its segments.
func segments(t *testing.T, file []byte) (parts [][]byte) {
	h := must[*Header](t)(ParseHeader(file))
	l := h.layout()
	start, _ := l.file(0)
	parts = append(parts, file[:start])
	for k := range l.segments() {
		from, to := l.file(k)
		parts = append(parts, file[from:to])
	}
	return parts
}

func TestReorderedSegments(t *testing.T) {
	file, plain, k := tamperFile(t)
	p := segments(t, file)
	for what, order := range map[string][]int{
		"1 and 2 swapped":       {0, 1, 3, 2, 4, 5},
		"1 twice":               {0, 1, 2, 2, 4, 5},
		"1 left out":            {0, 1, 3, 4, 5},
		"last left out":         {0, 1, 2, 3, 4},
		"last before its place": {0, 1, 2, 3, 5},
		"only header and last":  {0, 5},
		"one more in between":   {0, 1, 2, 3, 4, 4, 5},
	} {
		var bad []byte
		for _, i := range order {
			bad = append(bad, p[i]...)
		}
		mustRefuse(t, what, bad, plain, k)
	}
}

// Files of the same image, user, key, attempt and plaintext are still not interchangeable in parts.
func TestSplicedFiles(t *testing.T) {
	a, plain, k := tamperFile(t)
	b := encrypt(t, k, testFields(len(plain), testSegment), plain)
	pa, pb := segments(t, a), segments(t, b)
	for i := range pa {
		mixed := slices.Clone(pa)
		mixed[i] = pb[i]
		mustRefuse(t, "a part of another file", slices.Concat(mixed...), plain, k)
	}
	h := headerBytes("alice")
	mustRefuse(t, "a header of another file", slices.Concat(a[:h], b[h:]), nil, k)
	for _, off := range []int{offWrapped, offSalt, offCommitment} {
		bad := bytes.Clone(a)
		copy(bad[off:off+saltBytes], b[off:])
		mustRefuse(t, "a header field of another file", bad, nil, k)
	}
}

// A shorter image cannot be made of a longer one, even where segments end.
func TestForgedLength(t *testing.T) {
	file, _, k := tamperFile(t)
	h := must[*Header](t)(ParseHeader(file))
	for i := range h.layout().segments() {
		_, end := h.layout().plain(i)
		short := h.HeaderFields
		short.Length = end - 1
		bad := bytes.Clone(file[:short.layout().fileLen()])
		binary.BigEndian.PutUint64(bad[offLength:], uint64(short.Length))
		mustRefuse(t, "a forged length", bad, nil, k)
	}
}

func TestWrongKeys(t *testing.T) {
	file, _, _ := tamperFile(t)
	mustRefuse(t, "another user's key", file, nil, testKey(2))
	_, err := Open(file, testKey(2))
	wantKind(t, err, ErrAuth)
}

package backup

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"imgcluster/cluster/image"
	"imgcluster/crypto"
)

func sealer(t testing.TB) *crypto.Sealer {
	s, err := crypto.NewSealer(crypto.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const testKey = "0123456789abcdef"

var testHeader = Header{Cluster: "test", Version: "v1", Created: time.Unix(1, 0).UTC(), Node: 2}

// write makes a backup of these shards.
func write(t testing.TB, s Sealer, shards ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b, s, testKey, testHeader)
	if err != nil {
		t.Fatal(err)
	}
	trailer := Trailer{}
	for i, state := range shards {
		shard := uint64(i + 1)
		trailer.Shards = append(trailer.Shards, shard)
		err := w.Shard(shard, func(w io.Writer) error {
			for part := range strings.SplitAfterSeq(state, "\n") {
				if _, err := io.WriteString(w, part); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(trailer); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// read returns the shards of a backup. Of those whose number is in skip, nothing or only a byte is read.
func read(text []byte, s Sealer, skip map[uint64]bool) (shards []string, err error) {
	r, err := NewReader(bytes.NewReader(text), s)
	if err != nil {
		return nil, err
	}
	for {
		shard, state, err := r.Next()
		if err == io.EOF {
			if len(r.Trailer.Shards) != len(shards) || r.Header != testHeader {
				return nil, errors.New("other header or trailer")
			}
			return shards, nil
		}
		if err != nil {
			return nil, err
		}
		if skip[shard] {
			state = io.LimitReader(state, int64(shard%2))
		}
		b, err := io.ReadAll(state)
		if err != nil {
			return nil, err
		}
		shards = append(shards, string(b))
	}
}

func TestBackup(t *testing.T) {
	s := sealer(t)
	large := strings.Repeat("0123456789\n", 100_000)
	for name, shards := range map[string][]string{
		"none": nil, "one": {"a"}, "some": {"a", "b", "c"}, "large": {large, "b", large + large},
		"as large as a frame": {strings.Repeat("x", frameBytes), strings.Repeat("y", 2*frameBytes)},
	} {
		text := write(t, s, shards...)
		got, err := read(text, s, nil)
		if err != nil || strings.Join(got, "|") != strings.Join(shards, "|") {
			t.Errorf("%s: %d of %d shards, %v", name, len(got), len(shards), err)
		}
		if _, err := read(text, s, map[uint64]bool{1: true, 2: true, 3: true}); err != nil {
			t.Errorf("%s: not read to the end: %v", name, err)
		}
		if id, err := MasterKeyOf(bytes.NewReader(text)); id != testKey || err != nil {
			t.Errorf("%s: master key %q, %v", name, id, err)
		}
	}
}

// TestChangedBackup: nothing of a backup can be changed, left out or put elsewhere.
func TestChangedBackup(t *testing.T) {
	s := sealer(t)
	text := write(t, s, "first", "second")
	for i := range 2 * len(text) {
		changed := bytes.Clone(text)
		changed[i/2] ^= 1 << (7 * (i % 2)) // the highest bit of a length says that a frame is the last
		_, err := read(changed, s, nil)
		if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNotBackup) && !errors.Is(err, ErrTruncated) {
			t.Errorf("byte %d changed: %v", i/2, err)
		}
		if image.HintOf(err) == "" {
			t.Errorf("byte %d changed: %v without a next step", i/2, err)
		}
	}
	for n := range text {
		_, err := read(text[:n], s, nil)
		if want := ErrTruncated; !errors.Is(err, want) && n >= len(magic) {
			t.Errorf("%d of %d bytes: %v", n, len(text), err)
		}
	}
	if _, err := read(append(bytes.Clone(text), 0), s, nil); !errors.Is(err, ErrDamaged) {
		t.Errorf("with something after its end: %v", err)
	}
	early := bytes.Clone(text[:len(text)-cutBytes(text)])
	early[lastFrame(early)] |= 0x80
	if _, err := read(early, s, nil); !errors.Is(err, ErrDamaged) {
		t.Errorf("with an end before its end: %v", err)
	}
	other := write(t, s, "first", "second")
	head := len(magic) + keyID + idBytes
	mixed := append(bytes.Clone(text[:head]), other[head:]...)
	if _, err := read(mixed, s, nil); !errors.Is(err, ErrDamaged) {
		t.Errorf("with the parts of another one: %v", err)
	}
	if _, err := read(text, sealer(t), nil); !errors.Is(err, ErrDamaged) {
		t.Errorf("under another key: %v", err)
	}
	newer := bytes.Clone(text)
	newer[len(magic)-1]++
	_, err := read(newer, s, nil)
	if !errors.Is(err, ErrNotBackup) || !strings.Contains(err.Error(), "format 2") {
		t.Errorf("of a newer format: %v", err)
	}
}

// lastFrame returns where the last frame of a backup begins.
func lastFrame(text []byte) (at int) {
	for next := len(magic) + keyID + idBytes; next < len(text); {
		at = next
		next += 4 + int(binary.BigEndian.Uint32(text[at:])&^lastBit)
	}
	return at
}

// cutBytes returns how long the last frame of a backup is.
func cutBytes(text []byte) int { return len(text) - lastFrame(text) }

// FuzzReader: no file makes a Reader panic, or take more memory than a frame.
func FuzzReader(f *testing.F) {
	s := sealer(f)
	text := write(f, s, "first", "second")
	f.Add(text)
	f.Add(text[:len(text)/2])
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, text []byte) { _, _ = read(text, s, nil) })
}

package crypto

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"testing"
)

// The vectors are remade with: go test ./crypto -run TestVectors -update
var update = flag.Bool("update", false, "write testdata/vectors.json again")

const vectorsFile = "testdata/vectors.json"

// vector is one file and what must become of it. The file is made of the fields, the plaintext
// and the bytes 0, 1, 2, ... as randomness, drawn in this order: data key, salt, wrapping nonce,
// stream salt, nonce prefix. Those with another expectation than "ok" were changed after that.
type vector struct {
	Name      string `json:"name"`
	Expect    string `json:"expect"` // ok, auth or format
	UserKey   string `json:"user_key"`
	Plaintext string `json:"plaintext"`
	Segment   int    `json:"segment_size"`
	File      string `json:"file"`
}

// masterVector is a wrapped user key, made with the bytes 0, 1, 2, ... as nonce.
type masterVector struct {
	MasterKey string `json:"master_key"`
	ID        string `json:"id"`
	Tenant    string `json:"tenant"`
	KeyID     uint32 `json:"key_id"`
	UserKey   string `json:"user_key"`
	Wrapped   string `json:"wrapped"`
}

type vectorFile struct {
	Remake string       `json:"remake"`
	Master masterVector `json:"master"`
	Files  []vector     `json:"files"`
}

func makeVectors(t *testing.T) vectorFile {
	k := testKey(0x40)
	v := vectorFile{Remake: "go test ./crypto -run TestVectors -update"}
	add := func(name, expect string, key Key, plain []byte, segment int, change func([]byte) []byte) {
		file := change(encryptWith(t, k, testFields(len(plain), segment), plain, len(plain)+1, &counter{}))
		v.Files = append(v.Files, vector{
			Name: name, Expect: expect, UserKey: hex.EncodeToString(key.b()[:]),
			Plaintext: hex.EncodeToString(plain), Segment: segment, File: hex.EncodeToString(file),
		})
	}
	same := func(b []byte) []byte { return b }
	flip := func(i int) func([]byte) []byte { return func(b []byte) []byte { b[i] ^= 1; return b } }
	three := testPlain(firstPlain + 2*fullPlain)
	add("empty", "ok", k, nil, testSegment, same)
	add("three bytes, default segment", "ok", k, []byte("abc"), SegmentSizeDefault, same)
	add("first segment full", "ok", k, testPlain(firstPlain), testSegment, same)
	add("first segment full and one byte", "ok", k, testPlain(firstPlain+1), testSegment, same)
	add("three full segments", "ok", k, three, testSegment, same)
	add("magic changed", "format", k, three, testSegment, flip(0))
	add("version 0", "format", k, three, testSegment, flip(offVersion))
	add("attempt changed", "auth", k, three, testSegment, flip(offAttempt))
	add("commitment changed", "auth", k, three, testSegment, flip(offCommitment))
	add("wrong user key", "auth", testKey(0x41), three, testSegment, same)
	add("last segment cut", "auth", k, three, testSegment,
		func(b []byte) []byte { return b[:len(b)-testSegment] })
	add("one byte more", "auth", k, three, testSegment, func(b []byte) []byte { return append(b, 0) })

	m := must[*MasterKey](t)(newMasterKey(testKey(0x80)))
	wrapped := must[[]byte](t)(m.wrapUserKey("alice", 7, k, &counter{}))
	v.Master = masterVector{
		MasterKey: hex.EncodeToString(m.key.b()[:]), ID: m.ID(), Tenant: "alice", KeyID: 7,
		UserKey: hex.EncodeToString(k.b()[:]), Wrapped: hex.EncodeToString(wrapped),
	}
	return v
}

func TestVectors(t *testing.T) {
	made := must[[]byte](t)(json.MarshalIndent(makeVectors(t), "", " "))
	made = append(made, '\n')
	if *update {
		if err := os.WriteFile(vectorsFile, made, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden := must[[]byte](t)(os.ReadFile(vectorsFile))
	if !bytes.Equal(golden, made) {
		t.Errorf("what is written now differs from %s: files of before may not open", vectorsFile)
	}
	var v vectorFile
	if err := json.Unmarshal(golden, &v); err != nil {
		t.Fatal(err)
	}
	for _, c := range v.Files {
		t.Run(c.Name, func(t *testing.T) { c.check(t) })
	}
	checkMasterVector(t, v.Master)
}

func (c vector) check(t *testing.T) {
	file, plain := unhex(t, c.File), unhex(t, c.Plaintext)
	k := keyOf((*[keyBytes]byte)(unhex(t, c.UserKey)))
	got, err := verify(file, k)
	want := map[string]error{"ok": nil, "auth": ErrAuth, "format": ErrFormat}[c.Expect]
	if !errors.Is(err, want) {
		t.Errorf("expected %s, got %v", c.Expect, err)
	}
	if want == nil && !bytes.Equal(got, plain) {
		t.Errorf("read %x, want %x", got, plain)
	}
}

func checkMasterVector(t *testing.T, v masterVector) {
	m := must[*MasterKey](t)(newMasterKey(keyOf((*[keyBytes]byte)(unhex(t, v.MasterKey)))))
	if m.ID() != v.ID {
		t.Errorf("master key ID %s, want %s", m.ID(), v.ID)
	}
	k := must[Key](t)(m.UnwrapUserKey(v.Tenant, v.KeyID, unhex(t, v.Wrapped)))
	if !bytes.Equal(k.b()[:], unhex(t, v.UserKey)) {
		t.Error("another user key is unwrapped")
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	return must[[]byte](t)(hex.DecodeString(s))
}

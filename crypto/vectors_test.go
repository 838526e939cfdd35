package crypto

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"testing"
)

// The vectors are remade with: go test ./crypto -run TestVectors -update
var update = flag.Bool("update", false, "write testdata/vectors.json again")

const vectorsFile = "testdata/vectors.json"

// vectors are what FORMAT.md describes: values, and files with what must become of them. All bytes are in
// hexadecimal. Made with the bytes 0, 1, 2, ... as randomness: an implementation that writes can be compared,
// too, with the good ones.
type vectors struct {
	Remake   string          `json:"remake"`
	Files    []fileVector    `json:"files"`
	UserKeys []userKeyVector `json:"user_keys"`
	Checks   []checkVector   `json:"checks"`
	Digests  []digestVector  `json:"digests"`
}

// What must become of a vector.
const (
	expectOK     = "ok"
	expectFormat = "format" // ErrFormat
	expectAuth   = "auth"   // ErrAuth
	expectMaster = "master" // ErrOtherMaster
)

var expected = map[string]error{
	expectOK: nil, expectFormat: ErrFormat, expectAuth: ErrAuth, expectMaster: ErrOtherMaster,
}

// fileVector is one file. Its randomness is drawn in this order: data key, salt, wrapping nonce, stream salt,
// nonce prefix.
type fileVector struct {
	Name      string `json:"name"`
	Expect    string `json:"expect"`
	UserKey   string `json:"user_key"`
	File      string `json:"file"`
	Plaintext string `json:"plaintext,omitempty"` // when ok
}

// userKeyVector is a wrapped user key.
type userKeyVector struct {
	Name      string `json:"name"`
	Expect    string `json:"expect"`
	MasterKey string `json:"master_key"`
	MasterID  string `json:"master_id"`
	Tenant    string `json:"tenant"`
	KeyID     uint32 `json:"key_id"`
	Wrapped   string `json:"wrapped"`
	UserKey   string `json:"user_key,omitempty"` // when ok
}

// checkVector is an image's check. Byte i of the plaintext is the low byte of 7i + 13⌊i/256⌋.
type checkVector struct {
	UserKey string `json:"user_key"`
	Image   string `json:"image"`
	Bytes   int    `json:"plaintext_bytes"`
	Check   string `json:"check"`
}

// digestVector is a sealed SHA-256.
type digestVector struct {
	Name    string `json:"name"`
	Expect  string `json:"expect"`
	UserKey string `json:"user_key"`
	Sealed  string `json:"sealed"`
	Digest  string `json:"digest,omitempty"` // when ok
}

const vectorsMin = 100

func TestVectors(t *testing.T) {
	made := append(must[[]byte](t)(json.MarshalIndent(makeVectors(t), "", " ")), '\n')
	if *update {
		if err := os.WriteFile(vectorsFile, made, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden := must[[]byte](t)(os.ReadFile(vectorsFile))
	if !bytes.Equal(golden, made) {
		t.Errorf("what is written now differs from %s: files of before may not open", vectorsFile)
	}
	var v vectors
	if err := json.Unmarshal(golden, &v); err != nil {
		t.Fatal(err)
	}
	if n := v.count(); n < vectorsMin {
		t.Errorf("%d vectors, at least %d are wanted", n, vectorsMin)
	}
	for _, x := range v.Files {
		t.Run("file/"+x.Name, func(t *testing.T) { x.check(t) })
	}
	for _, x := range v.UserKeys {
		t.Run("user key/"+x.Name, func(t *testing.T) { x.check(t) })
	}
	for _, x := range v.Checks {
		t.Run(fmt.Sprint("check/", x.Bytes, " bytes"), func(t *testing.T) { x.check(t) })
	}
	for _, x := range v.Digests {
		t.Run("digest/"+x.Name, func(t *testing.T) { x.check(t) })
	}
}

func (v vectors) count() int { return len(v.Files) + len(v.UserKeys) + len(v.Checks) + len(v.Digests) }

func (x fileVector) check(t *testing.T) {
	got, err := verify(unhex(t, x.File), keyFrom(t, x.UserKey))
	expectResult(t, x.Expect, err, hex.EncodeToString(got), x.Plaintext)
}

func (x userKeyVector) check(t *testing.T) {
	m := must[*MasterKey](t)(newMasterKey(keyFrom(t, x.MasterKey)))
	if m.ID() != x.MasterID {
		t.Errorf("master key ID %s, want %s", m.ID(), x.MasterID)
	}
	k, err := m.UnwrapUserKey(x.Tenant, x.KeyID, unhex(t, x.Wrapped))
	got := ""
	if err == nil {
		got = hex.EncodeToString(k.b()[:])
	}
	expectResult(t, x.Expect, err, got, x.UserKey)
}

func (x checkVector) check(t *testing.T) {
	c := must[*Check](t)(NewCheck(keyFrom(t, x.UserKey), [16]byte(unhex(t, x.Image))))
	c.Write(patterned(x.Bytes))
	if sum := c.Sum(); hex.EncodeToString(sum[:]) != x.Check {
		t.Errorf("%x, want %s", sum, x.Check)
	}
}

func (x digestVector) check(t *testing.T) {
	s := must[*DigestSealer](t)(NewDigestSealer(keyFrom(t, x.UserKey)))
	got, err := s.Open([SealedDigestBytes]byte(unhex(t, x.Sealed)))
	if err != nil {
		expectResult(t, x.Expect, err, "", "")
		return
	}
	expectResult(t, x.Expect, nil, hex.EncodeToString(got[:]), x.Digest)
}

// expectResult compares the result, which counts when it is ok only.
func expectResult(t *testing.T, expect string, err error, got, want string) {
	t.Helper()
	kind, known := expected[expect]
	if !known || !errors.Is(err, kind) {
		t.Errorf("expected %s, got %v", expect, err)
	}
	if expect == expectOK && got != want {
		t.Errorf("read %s, want %s", got, want)
	}
}

func keyFrom(t *testing.T, s string) Key {
	t.Helper()
	return keyOf((*[keyBytes]byte)(unhex(t, s)))
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	return must[[]byte](t)(hex.DecodeString(s))
}

// patterned is the plaintext of a checkVector.
func patterned(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(7*i + 13*(i/256))
	}
	return b
}

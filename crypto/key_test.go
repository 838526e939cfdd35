package crypto

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/iotest"
)

const secretText = "Sekret-sEkret-seKret-sekRet-sekr"

// traces are forms in which printing could reveal the start of the secret.
func traces() []string {
	b := []byte(secretText)[:6]
	return []string{
		string(b[:4]), hex.EncodeToString(b[:4]), strings.ToUpper(hex.EncodeToString(b[:4])),
		base64.StdEncoding.EncodeToString(b)[:6], "83 101 107", "83,101,107", "0x53, 0x65", "1010011 1100101",
		"123 145 153", "U+0053", "53 65 6b",
	}
}

// numbered is a struct that holds a key, as others may.
type numbered struct {
	ID  uint32
	Key Key
}

func TestKeysNeverPrint(t *testing.T) {
	k := keyOf((*[keyBytes]byte)([]byte(secretText)))
	m := must[*MasterKey](t)(newMasterKey(k))
	type hidden struct{ k Key }
	type shown struct{ K Key }
	values := map[string]any{
		"Key": k, "*Key": &k, "numbered": numbered{1, k}, "*numbered": &numbered{1, k}, "[]Key": []Key{k},
		"map": map[string]Key{"a": k}, "hidden": hidden{k}, "*hidden": &hidden{k}, "shown": shown{k},
		"any":        []any{k, hidden{k}},
		"*MasterKey": m, "MasterKey": *m, "in a struct": struct{ m *MasterKey }{m},
	}
	for name, v := range values {
		var out bytes.Buffer
		verbs := "%v,%+v,%#v,%s,%q,%x,%X,% x,%#x,%d,%o,%b,%c,%U,%#U,%t,%e,%10v"
		for _, verb := range strings.Split(verbs, ",") {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		fmt.Fprintln(&out, v)
		if j, err := json.Marshal(v); err == nil {
			out.Write(j)
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v)
		for _, tr := range traces() {
			if strings.Contains(out.String(), tr) {
				t.Errorf("%s prints %q:\n%s", name, tr, out.String())
			}
		}
	}
}

func TestKeyPrintsRedacted(t *testing.T) {
	k := NewKey()
	j := must[[]byte](t)(json.Marshal(map[string]any{"k": k, "u": numbered{1, k}}))
	if got, want := string(j), `{"k":"redacted","u":{"ID":1,"Key":"redacted"}}`; got != want {
		t.Errorf("JSON %s, want %s", got, want)
	}
	text := must[[]byte](t)(k.MarshalText())
	for _, s := range []string{
		k.String(), string(text),
		fmt.Sprint(k), fmt.Sprintf("%#v", k), fmt.Sprintf("%x", k),
	} {
		if s != "redacted" {
			t.Errorf("printed as %q", s)
		}
	}
}

func TestKeyEqualAndZero(t *testing.T) {
	a, b := NewKey(), NewKey()
	if a.Equal(b) || !a.Equal(a) || (Key{}).Equal(Key{}) || a.Equal(Key{}) {
		t.Error("Equal is wrong")
	}
	shared := a
	a.Zero()
	Key{}.Zero()
	if *shared.b() != [keyBytes]byte{} {
		t.Error("a copy of the key survives Zero")
	}
}

// A key that was zeroed is one that everybody knows.
func TestEmptyKeyIsRefused(t *testing.T) {
	zeroed := NewKey()
	zeroed.Zero()
	file := encrypt(t, testKey(1), testFields(3, 0), []byte("abc"))
	m := must[*MasterKey](t)(newMasterKey(testKey(2)))
	for name, k := range map[string]Key{"no key": {}, "zeroed": zeroed} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			_, err := NewEncryptWriter(&out, k, testFields(3, 0))
			wantKind(t, err, ErrInvalid)
			if out.Len() != 0 {
				t.Error("something was written")
			}
			_, err = Open(file, k)
			wantKind(t, err, ErrInvalid)
			_, err = m.WrapUserKey("alice", 1, k)
			wantKind(t, err, ErrInvalid)
		})
	}
}

// rfc5869 is HKDF-SHA256 straight from the RFC, as an oracle for derive.
func rfc5869(secret, salt, info []byte, n int) []byte {
	mac := func(key []byte, parts ...[]byte) []byte {
		h := hmac.New(sha256.New, key)
		for _, p := range parts {
			h.Write(p)
		}
		return h.Sum(nil)
	}
	prk := mac(salt, secret)
	var out, block []byte
	for i := byte(1); len(out) < n; i++ {
		block = mac(prk, block, info, []byte{i})
		out = append(out, block...)
	}
	return out[:n]
}

func TestDeriveIsRFC5869(t *testing.T) {
	// Test case 1 of the RFC's appendix A proves the oracle.
	secret := bytes.Repeat([]byte{0x0b}, 22)
	salt := must[[]byte](t)(hex.DecodeString("000102030405060708090a0b0c"))
	info := must[[]byte](t)(hex.DecodeString("f0f1f2f3f4f5f6f7f8f9"))
	const want = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
	if got := hex.EncodeToString(rfc5869(secret, salt, info, 42)); got != want {
		t.Fatalf("the oracle gives %s, the RFC %s", got, want)
	}
	k := testKey(9)
	for _, salt := range [][]byte{nil, {1}, bytes.Repeat([]byte{7}, saltBytes)} {
		for _, n := range []int{masterIDBytes, keyBytes} {
			got := make([]byte, n)
			if err := derive(got, k, salt, infoCommitment); err != nil {
				t.Fatal(err)
			}
			if want := rfc5869(k.b()[:], salt, []byte(infoCommitment), n); !bytes.Equal(got, want) {
				t.Errorf("salt %x, %d bytes: %x, want %x", salt, n, got, want)
			}
		}
	}
}

// Every draw of randomness that fails must end the work, with nothing written.
func TestRandomnessThatFails(t *testing.T) {
	broken := errors.New("no entropy")
	const drawn = keyBytes + saltBytes + nonceBytes + saltBytes + prefixBytes
	for have := range drawn {
		var out bytes.Buffer
		random := io.MultiReader(io.LimitReader(&counter{}, int64(have)), iotest.ErrReader(broken))
		if _, err := newEncryptWriter(&out, testKey(1), testFields(3, 0), random); !errors.Is(err, broken) {
			t.Fatalf("with %d bytes of randomness: %v", have, err)
		}
		if out.Len() != 0 {
			t.Fatalf("with %d bytes of randomness something was written", have)
		}
	}
	random := io.MultiReader(io.LimitReader(&counter{}, drawn), iotest.ErrReader(broken))
	encryptWith(t, testKey(1), testFields(3, 0), []byte("abc"), 3, random)
}

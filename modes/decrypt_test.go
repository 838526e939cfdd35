package modes

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"filippo.io/age"

	"imgcluster/cluster/image"
	"imgcluster/crypto"
)

// TestDecrypt decrypts a stored file with nothing but an export of keys and its identity.
func TestDecrypt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	write := func(name string, data []byte) {
		if err := os.WriteFile(in(name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	identity, err := age.GenerateX25519Identity()
	other, err2 := age.GenerateX25519Identity()
	if err = errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	key := crypto.NewKey()
	var export, file bytes.Buffer
	keys, err := crypto.NewExport(&export, "photos", time.Now(), identity.Recipient().String())
	if err != nil {
		t.Fatal(err)
	}
	plain := bytes.Repeat([]byte("an image "), 30_000)
	id := image.NewID()
	enc, err := crypto.NewEncryptWriter(&file, key, crypto.HeaderFields{
		Image: id, Tenant: "alice", UserKey: 3, Length: int64(len(plain)), SegmentSize: 1 << 12,
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = enc.Write(plain)
	if err = errors.Join(err, enc.Close(), keys.Add("alice", 3, key), keys.Close()); err != nil {
		t.Fatal(err)
	}
	damaged := bytes.Clone(file.Bytes())
	damaged[len(damaged)-1] ^= 1
	write("one.img", file.Bytes())
	write("damaged.img", damaged)
	write("keys.age", export.Bytes())
	write("identity", []byte(identity.String()+"\n"))
	write("other", []byte(other.String()+"\n"))

	with := func(file string, more ...string) ended {
		return call(t, append([]string{
			"decrypt", in(file), "--keys", in("keys.age"), "--identity", in("identity"),
		}, more...)...)
	}
	e := with("one.img", "-o", in("photo.png"), "--json")
	e.expectOut(t, 0, `"image":"`+id.String()+`"`)
	if got, err := os.ReadFile(in("photo.png")); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("decrypted to %d bytes, %v", len(got), err)
	}
	e = with("one.img", "-o", "-")
	e.expectOut(t, 0, string(plain))

	with("one.img", "-o", in("photo.png")).expectErr(t, 2, "exists", "hint: ")
	with("one.img", "-o", in("keys.age"), "--force").expectErr(t, 2, "is the same file as --keys")
	with("nothing.img", "-o", in("x")).expectErr(t, 1, "nothing.img cannot be read", "hint: ")
	with("keys.age", "-o", in("x")).expectErr(t, 2, "not an imgcluster file", "hint: ")
	with("damaged.img", "-o", in("x")).expectErr(t, 2, "segment 66", "hint: ")
	with("one.img", "-o", in("x"), "--keys", in("one.img")).expectErr(t, 2, "not an export of keys", "hint: ")
	with("one.img", "-o", in("x"), "--identity", in("other")).
		expectErr(t, 2, "not encrypted to this identity", "hint: ")
	call(t, "decrypt", in("one.img")).expectErr(t, 2, "which keys open", "--keys")
	if _, err := os.Stat(in("x")); err == nil {
		t.Error("a refused file was written")
	}
}

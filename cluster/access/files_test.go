package access

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"imgcluster/cluster/image"
	"imgcluster/crypto"
)

// writePair writes a certificate and its key as an operator has them.
func writePair(t *testing.T, c *tls.Certificate, chain, key string) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		chain: {Type: "CERTIFICATE", Bytes: c.Certificate[0]},
		key:   {Type: "PRIVATE KEY", Bytes: der},
	} {
		// As by most tools: a new file takes the name.
		if err := os.WriteFile(name+".new", pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(name+".new", name); err != nil {
			t.Fatal(err)
		}
	}
}

func made(t *testing.T, host string) *tls.Certificate {
	t.Helper()
	a := authorityOf(t, lineOne, "photos")
	c, err := a.Node(1, host).sign(issuerOf(t, a), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestFiles: files that change are read again, and while they are wrong the old certificate stays.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	chain, key := filepath.Join(dir, "chain.pem"), filepath.Join(dir, "key.pem")
	synctest.Test(t, func(t *testing.T) {
		first, second := made(t, "one"), made(t, "two")
		writePair(t, first, chain, key)
		var leaves []string
		var errs []error
		f, err := OpenFiles(chain, key, func(leaf *x509.Certificate, err error) {
			if errs = append(errs, err); err == nil {
				leaves = append(leaves, leaf.DNSNames[0])
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		serves := func(want string) {
			t.Helper()
			c, err := f.Get()
			if err != nil || c.Leaf.DNSNames[0] != want {
				t.Errorf("it serves %v, %v, want %s", c.Leaf.DNSNames, err, want)
			}
		}
		later := func() { time.Sleep(filesCheckEvery) }
		serves("one")
		writePair(t, second, chain, key)
		serves("one") // not looked at yet
		later()
		serves("two")
		later()
		serves("two")

		writePair(t, first, chain, filepath.Join(dir, "other.pem")) // half of a new pair
		later()
		serves("two")
		later()
		serves("two")
		if err := os.Remove(chain); err != nil {
			t.Fatal(err)
		}
		later()
		serves("two")
		writePair(t, first, chain, key)
		if err := os.Chmod(key, 0o640); err != nil {
			t.Fatal(err)
		}
		later()
		serves("two")
		writePair(t, first, chain, key)
		later()
		serves("one")
		if len(errs) != 5 || errs[0] != nil || errs[1] == nil || errs[2] == nil ||
			!errors.Is(errs[3], crypto.ErrKeyMode) || errs[4] != nil {
			t.Errorf("reported %v", errs)
		}
		if strings.Join(leaves, " ") != "two one" {
			t.Errorf("reported %v", leaves)
		}
		for _, err := range errs {
			if err != nil && image.HintOf(err) == "" {
				t.Errorf("no hint: %v", err)
			}
		}
	})
}

// TestOpenFiles: what is no pair of a certificate and its key is refused, with the next step.
func TestOpenFiles(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	writePair(t, made(t, "one"), in("a.pem"), in("a.key"))
	writePair(t, made(t, "one"), in("b.pem"), in("b.key"))
	writePair(t, made(t, "one"), in("c.pem"), in("loose.key"))
	if err := os.Chmod(in("loose.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(in("large.pem"), make([]byte, filesBytesMax+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ chain, key, text string }{
		{"none.pem", "a.key", "no such file"},
		{"a.pem", "none.key", "no such file"},
		{"a.pem", "b.key", "private key does not match public key"},
		{"a.key", "a.pem", "certificate"},
		{".", "a.key", "invalid argument"},
		{"large.pem", "a.key", "more than 1048576 bytes"},
		{"c.pem", "loose.key", "has mode 0644"},
	} {
		_, err := OpenFiles(in(tc.chain), in(tc.key), nil)
		if err == nil || !strings.Contains(err.Error(), tc.text) || image.HintOf(err) == "" {
			t.Errorf("%s, %s: %v", tc.chain, tc.key, err)
		}
	}
	_, err := OpenFiles(in("c.pem"), in("loose.key"), nil)
	chmod := "chmod 400 " + in("loose.key")
	if !errors.Is(err, crypto.ErrKeyMode) || !strings.HasPrefix(image.HintOf(err), chmod) {
		t.Errorf("%v: %s", err, image.HintOf(err))
	}
}

// TestServed: the operator learns at once that clients will refuse the certificate.
func TestServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		leaf := made(t, "one").Leaf
		if err := Served(leaf, "one"); err != nil {
			t.Error(err)
		}
		if err := Served(leaf, "two"); !errors.Is(err, ErrIdentity) {
			t.Error(err)
		}
		time.Sleep(certificateLife + time.Second)
		if err := Served(leaf, "one"); !errors.Is(err, ErrDates) {
			t.Error(err)
		}
	})
}

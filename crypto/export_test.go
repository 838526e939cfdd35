package crypto

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
)

// identity makes an age identity.
func identity(t *testing.T) (secret, recipient string) {
	t.Helper()
	i, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return i.String(), i.Recipient().String()
}

// export makes one of the keys of alice, 1 to n: testKey(id).
func export(t *testing.T, n int, recipients ...string) []byte {
	t.Helper()
	var out bytes.Buffer
	e, err := NewExport(&out, "photos", time.Now(), recipients...)
	if err != nil {
		t.Fatal(err)
	}
	for id := range n {
		if err := e.Add("alice", uint32(id+1), testKey(byte(id+1))); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(e.Add("bob", 1, testKey(99)), e.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func exported(export []byte, identity, tenant string, id uint32) (Key, error) {
	h := &Header{HeaderFields: HeaderFields{Tenant: tenant, UserKey: id}}
	return ExportedKey(bytes.NewReader(export), strings.NewReader(identity), h)
}

func TestExport(t *testing.T) {
	secret, recipient := identity(t)
	secret2, recipient2 := identity(t)
	file := export(t, 3, recipient, recipient2)
	for _, s := range []string{secret, "# created: today\n" + secret2 + "\n"} {
		for id := range uint32(3) {
			k, err := exported(file, s, "alice", id+1)
			if err != nil || !k.Equal(testKey(byte(id+1))) {
				t.Errorf("key %d: %v", id+1, err)
			}
		}
		if k, err := exported(file, s, "bob", 1); err != nil || !k.Equal(testKey(99)) {
			t.Error(err)
		}
	}
	for id := range byte(3) {
		if bytes.Contains(file, testKey(id + 1).b()[:]) {
			t.Error("the export has a key in clear")
		}
	}
	// A post-quantum identity, too.
	hybrid, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := exported(export(t, 1, hybrid.Recipient().String()), hybrid.String(), "alice", 1); err != nil {
		t.Error(err)
	}
}

func TestExportRefused(t *testing.T) {
	secret, recipient := identity(t)
	other, _ := identity(t)
	file := export(t, 2, recipient)
	// encrypted is what somebody else has encrypted to the same recipient.
	encrypted := func(text string) []byte {
		var out bytes.Buffer
		r, err := age.ParseX25519Recipient(recipient)
		if err != nil {
			t.Fatal(err)
		}
		w, err := age.Encrypt(&out, r)
		if err == nil {
			_, err = io.WriteString(w, text)
		}
		if err = errors.Join(err, w.Close()); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	head := fmt.Sprintf(`{"format":%q,"cluster":"photos"}`+"\n", exportFormat)
	newer := strings.Replace(head, "-v1", "-v2", 1)
	for name, c := range map[string]struct {
		file     []byte
		identity string
		tenant   string
		want     error
	}{
		"another identity":   {file, other, "alice", ErrAuth},
		"no identity":        {file, "hello", "alice", ErrFormat},
		"a broken identity":  {file, secret[:len(secret)-4] + "QQQQ", "alice", ErrFormat},
		"a recipient":        {file, recipient, "alice", ErrFormat},
		"a large identity":   {file, strings.Repeat("#\n", identityBytesMax) + secret, "alice", ErrFormat},
		"not of age":         {[]byte("hello"), secret, "alice", ErrFormat},
		"cut":                {file[:len(file)-1], secret, "alice", ErrAuth},
		"extended":           {append(bytes.Clone(file), 'x'), secret, "alice", ErrAuth},
		"no such user":       {file, secret, "carol", ErrNoUserKey},
		"something else":     {encrypted("a letter\n"), secret, "alice", ErrFormat},
		"newer":              {encrypted(newer), secret, "alice", ErrFormat},
		"without its end":    {encrypted(head), secret, "alice", ErrAuth},
		"with another count": {encrypted(head + `{"keys":3}` + "\n"), secret, "alice", ErrAuth},
		"after its end":      {encrypted(head + `{"keys":0}` + "\n" + `{"keys":0}`), secret, "alice", ErrAuth},
		"a short key": {
			encrypted(head + `{"user":"alice","key":1,"secret":"AAAA"}`), secret, "alice", ErrAuth,
		},
		"a line without an end": {
			encrypted(head + strings.Repeat("x", 2*exportLineMax)), secret, "alice", ErrAuth,
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := exported(c.file, c.identity, c.tenant, 1)
			wantKind(t, err, c.want)
			if strings.Contains(err.Error(), secret[20:40]) {
				t.Errorf("the error has the identity: %v", err)
			}
		})
	}
	for _, r := range []string{"", "age1", "bob", secret, recipient + "\n" + recipient} {
		_, err := NewExport(io.Discard, "photos", time.Now(), r)
		wantKind(t, err, ErrInvalid)
		if strings.Contains(err.Error(), secret[20:]) {
			t.Errorf("the error has the identity: %v", err)
		}
	}
	e, err := NewExport(io.Discard, "photos", time.Now(), recipient)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Add("alice", 1, Key{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("no key: %v", err)
	}
}

package crypto

import (
	"bytes"
	"strings"
	"testing"
)

func TestWrapUserKey(t *testing.T) {
	m := must[*MasterKey](t)(newMasterKey(testKey(1)))
	k := NewKey()
	wrapped := must[[]byte](t)(m.WrapUserKey("alice", 4, k))
	again := must[[]byte](t)(m.WrapUserKey("alice", 4, k))
	if bytes.Equal(wrapped, again) || bytes.Contains(wrapped, k.b()[:8]) {
		t.Error("two wraps are the same, or show the key")
	}
	if by := wrapped[1 : 1+masterIDBytes]; !bytes.Equal(by, m.id[:]) {
		t.Errorf("wrapped by %x, want %s", by, m.ID())
	}
	if got := must[Key](t)(m.UnwrapUserKey("alice", 4, wrapped)); !got.Equal(k) {
		t.Error("another key came back")
	}
}

func TestUnwrapUserKeyRefuses(t *testing.T) {
	m := must[*MasterKey](t)(newMasterKey(testKey(1)))
	other := must[*MasterKey](t)(newMasterKey(testKey(2)))
	wrapped := must[[]byte](t)(m.WrapUserKey("alice", 4, NewKey()))
	for name, c := range map[string]struct {
		m       *MasterKey
		tenant  string
		id      uint32
		wrapped []byte
		kind    error
	}{
		"another tenant":     {m, "bob", 4, wrapped, ErrAuth},
		"another ID":         {m, "alice", 5, wrapped, ErrAuth},
		"another master key": {other, "alice", 4, wrapped, ErrOtherMaster},
		"cut":                {m, "alice", 4, wrapped[:len(wrapped)-1], ErrFormat},
		"longer":             {m, "alice", 4, append(bytes.Clone(wrapped), 0), ErrFormat},
		"empty":              {m, "alice", 4, nil, ErrFormat},
		"newer":              {m, "alice", 4, append([]byte{userWrapVersion + 1}, wrapped[1:]...), ErrFormat},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.m.UnwrapUserKey(c.tenant, c.id, c.wrapped)
			wantKind(t, err, c.kind)
		})
	}
	for i := range wrapped {
		bad := bytes.Clone(wrapped)
		bad[i] ^= 1
		if _, err := m.UnwrapUserKey("alice", 4, bad); err == nil {
			t.Errorf("byte %d flipped is accepted", i)
		}
	}
}

func TestWrapUserKeyRefusesTenants(t *testing.T) {
	m := must[*MasterKey](t)(newMasterKey(testKey(1)))
	for _, tenant := range []string{"", strings.Repeat("a", tenantMaxBytes+1), "\xff"} {
		_, err := m.WrapUserKey(tenant, 1, NewKey())
		wantKind(t, err, ErrInvalid)
	}
}

func TestMasterKeyID(t *testing.T) {
	a := must[*MasterKey](t)(newMasterKey(testKey(1)))
	b := must[*MasterKey](t)(newMasterKey(testKey(2)))
	if len(a.ID()) != 16 || a.ID() == b.ID() {
		t.Errorf("IDs %q and %q", a.ID(), b.ID())
	}
	if text := must[[]byte](t)(a.MarshalText()); string(text) != a.ID() {
		t.Errorf("text %q, want the ID", text)
	}
}

func TestZeroedMasterKeyIsRefused(t *testing.T) {
	m := must[*MasterKey](t)(newMasterKey(NewKey()))
	wrapped := must[[]byte](t)(m.WrapUserKey("alice", 1, NewKey()))
	m.key.Zero()
	_, err := m.UnwrapUserKey("alice", 1, wrapped)
	wantKind(t, err, ErrInvalid)
	_, err = m.WrapUserKey("alice", 1, NewKey())
	wantKind(t, err, ErrInvalid)
}

// A rotation is an unwrap with the old master key and a wrap with the new one; files stay.
func TestRotation(t *testing.T) {
	old := must[*MasterKey](t)(newMasterKey(NewKey()))
	next := must[*MasterKey](t)(newMasterKey(NewKey()))
	k := NewKey()
	file := encrypt(t, k, testFields(3, 0), []byte("abc"))
	wrapped := must[[]byte](t)(old.WrapUserKey("alice", 7, k))
	rewrapped := must[[]byte](t)(
		next.WrapUserKey("alice", 7, must[Key](t)(old.UnwrapUserKey("alice", 7, wrapped))))
	k = must[Key](t)(next.UnwrapUserKey("alice", 7, rewrapped))
	if got := must[[]byte](t)(verify(file, k)); string(got) != "abc" {
		t.Errorf("read %q", got)
	}
}

func TestZeroedMasterKey(t *testing.T) {
	m := must[*MasterKey](t)(newMasterKey(NewKey()))
	id := m.ID()
	m.Zero()
	if _, err := m.WrapUserKey("alice", 1, NewKey()); err == nil || m.ID() != id {
		t.Error("a zeroed master key wraps")
	}
	if _, err := m.Derive("imgcluster v1 test", 32); err == nil {
		t.Error("a key follows from a zeroed one")
	}
	if !bytes.Equal(m.key.b()[:], make([]byte, keyBytes)) {
		t.Error("the key is there still")
	}
}

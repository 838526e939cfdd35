package cluster

import (
	"testing"

	"imgcluster/cluster/catalog"
	"imgcluster/crypto"
)

// TestKeysAreZeroed: a keyring that is closed has no key left, nor has who still holds one of its keys.
func TestKeysAreZeroed(t *testing.T) {
	path := t.TempDir() + "/key"
	master, err := crypto.CreateMasterKey(path)
	if err != nil {
		t.Fatal(err)
	}
	k := newKeyring(crypto.NewRing(master), nil, nil, nil)
	held := crypto.NewKey()
	k.keep(&catalog.PutKey{User: "alice", KeyID: 1}, held, keyIDs{1, 1}, k.forgot)
	if _, key, err := k.currentKey(t.Context(), "alice"); err != nil || !key.Equal(held) {
		t.Fatal(err)
	}
	k.zero()
	if _, err := crypto.NewDigestSealer(held); err == nil {
		t.Error("a user's key is there still")
	}
	if _, err := master.Derive("imgcluster v1 test", 32); err == nil {
		t.Error("the master key is there still")
	}
}

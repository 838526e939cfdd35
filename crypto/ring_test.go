package crypto

import (
	"testing"
)

// TestRing goes through a rotation: what was sealed before it, and by the one that seals during it, opens
// until the old key is out.
func TestRing(t *testing.T) {
	const purpose = "imgcluster v1 test"
	old, next := must[*MasterKey](t)(newMasterKey(NewKey())), must[*MasterKey](t)(newMasterKey(NewKey()))
	user, disk := NewKey(), NewKey()
	ring := NewRing(old)
	sealer := must[*RingSealer](t)(ring.Sealer(purpose))
	type sealed struct{ user, disk, value []byte }
	seal := func() sealed {
		return sealed{
			must[[]byte](t)(ring.Sealing().WrapUserKey("alice", 1, user)),
			must[[]byte](t)(ring.Sealing().WrapDiskKey(disk)), sealer.Seal([]byte("value"), []byte("place")),
		}
	}
	opens := func(s sealed) bool {
		k, errUser := ring.UnwrapUserKey("alice", 1, s.user)
		d, errDisk := ring.UnwrapDiskKey(s.disk)
		v, errValue := sealer.Open(s.value, []byte("place"))
		good := errUser == nil && k.Equal(user)
		if good != (errDisk == nil && d.Equal(disk)) || good != (errValue == nil && string(v) == "value") {
			t.Errorf("some open: %v, %v, %v", errUser, errDisk, errValue)
		}
		if !good {
			wantKind(t, errUser, ErrOtherMaster)
			wantKind(t, errValue, ErrAuth)
		}
		return good
	}
	before := seal()
	if !opens(before) {
		t.Error("nothing opens before the rotation")
	}
	ring.Use(next, old)
	during := seal()
	if !opens(before) || !opens(during) {
		t.Error("both must open during the rotation")
	}
	ring.Use(next)
	if opens(before) || !opens(during) {
		t.Error("after the rotation the old key must open nothing, the new one all that it sealed")
	}
	if one := must[Key](t)(next.UnwrapUserKey("alice", 1, during.user)); !one.Equal(user) {
		t.Error("the ring did not seal with its first key")
	}
	if len(old.All()) != 1 || old.All()[0] != old {
		t.Error("a key is not a ring of itself")
	}
}

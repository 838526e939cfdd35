package catalog

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"

	"imgcluster/cluster/image"
)

// The IDs of three master keys.
var (
	oldMaster   = strings.Repeat("0a", 8)
	newMaster   = strings.Repeat("0b", 8)
	thirdMaster = strings.Repeat("0c", 8)
)

// by is something sealed by a master key.
func by(master string, n byte) []byte {
	id, err := hex.DecodeString(master)
	if err != nil {
		panic(err)
	}
	return append(append([]byte{1}, id...), n)
}

// rotating is a system shard with three members under oldMaster.
type rotating struct{ *system }

func newRotating(t *testing.T) rotating {
	r := rotating{&system{newSystemShard(t), []uint64{11, 12}}}
	for n := range 3 {
		r.expectKind(r.start(image.NodeID(n+1), 1, oldMaster), "")
	}
	return r
}

// start introduces a node that has these master keys, the first one as its own.
func (r rotating) start(node image.NodeID, starts uint64, keys ...string) Result {
	j := &Join{
		Node: node, Cluster: "a", KeyID: keys[0], Keys: keys, Shards: r.data,
		Incarnation: fmt.Sprint("i", node), Starts: starts, Run: fmt.Sprint("r", starts),
	}
	for n := range 3 {
		j.Members = append(j.Members, Member{ID: image.NodeID(n + 1), API: api(n + 1), Raft: raft(n + 1)})
	}
	return r.do(Command{Join: j})
}

func (r rotating) begin(to string, have ...image.NodeID) Result {
	return r.do(Command{RotateMaster: &RotateMaster{To: to, Have: have}})
}

func (r rotating) end(to string, have ...image.NodeID) Result {
	return r.do(Command{EndRotation: &EndRotation{To: to, Have: have}})
}

func (r rotating) user(user, master string) Result {
	return r.do(Command{PutKey: &PutKey{User: user, KeyID: 1, Wrapped: by(master, 1), Created: clock}})
}

func (r rotating) newer(user string, id uint32, master string) Result {
	return r.do(Command{AddUserKey: &PutKey{User: user, KeyID: id, Wrapped: by(master, 1), Created: clock}})
}

func (r rotating) accessKey(id, master string) Result {
	return r.do(Command{AddAccessKey: &AccessKey{
		ID: id, Role: image.RoleAdmin, Created: clock, Sealed: by(master, 1),
	}})
}

func (r rotating) reseal(all ...Resealed) Result {
	return r.do(Command{Reseal: &Reseal{Sealed: all}})
}

// under lists what a master key has sealed.
func (r rotating) under(master string) (all []string) {
	r.t.Helper()
	for more, after := true, []byte(nil); more; { // one at a time
		more = false
		err := SealedUnder(r.db, master, after, func(at []byte, u *PutKey, a *AccessKey) bool {
			if u != nil {
				all = append(all, fmt.Sprint(u.User, u.KeyID))
			} else {
				all = append(all, a.ID)
			}
			more, after = true, bytes.Clone(at)
			return false
		})
		if err != nil {
			r.t.Fatal(err)
		}
	}
	return all
}

func TestRotation(t *testing.T) {
	r := newRotating(t)
	all := []image.NodeID{1, 2, 3}
	r.expectKind(r.user("alice", oldMaster), "")
	r.expectKind(r.newer("alice", 2, oldMaster), "")
	r.expectKind(r.accessKey("IC1", oldMaster), "")

	r.expectKind(r.begin("", all...), image.KindInvalid)
	r.expectKind(r.begin(newMaster, 1, 3), image.KindInvalid) // node 2 does not have it
	if r.members().Rotation != nil || r.members().Sealing() != oldMaster {
		t.Fatal("a refused rotation has begun")
	}
	r.expectKind(r.reseal(), image.KindStale)
	r.expectKind(r.end(newMaster, all...), image.KindInvalid)
	r.expectKind(r.begin(newMaster, all...), "")
	version := r.members().Version
	r.expectKind(r.begin(newMaster, all...), "") // again
	r.expectKind(r.begin(thirdMaster, all...), image.KindInvalid)
	if m := r.members(); m.Sealing() != newMaster || m.KeyID != oldMaster || m.Version != version {
		t.Fatalf("the rotation is %+v", m)
	}

	// Nothing new by the old key.
	r.expectKind(r.user("bob", oldMaster), image.KindStale)
	r.expectKind(r.newer("alice", 3, oldMaster), image.KindStale)
	r.expectKind(r.accessKey("IC2", oldMaster), image.KindStale)
	r.expectKind(r.user("bob", newMaster), "")
	r.expectKind(r.accessKey("IC2", newMaster), "")
	// A node that starts needs the new one.
	r.expectKind(r.start(2, 2, oldMaster), image.KindInvalid)
	r.expectKind(r.start(2, 3, oldMaster, newMaster), "")
	r.expectKind(r.start(3, 2, newMaster), "")

	r.expectKind(r.end(newMaster, all...), image.KindInvalid) // not all is sealed again
	if got := r.under(oldMaster); !slices.Equal(got, []string{"alice1", "alice2", "IC1"}) {
		t.Fatalf("under the old key: %v", got)
	}
	alice := Resealed{User: "alice", KeyID: 1, Old: by(oldMaster, 1), New: by(newMaster, 9)}
	r.expectKind(r.reseal(alice, Resealed{AccessKey: "IC1", Old: by(oldMaster, 1), New: by(newMaster, 8)}), "")
	r.expectKind(r.reseal(Resealed{User: "alice", KeyID: 2, Old: by(oldMaster, 1), New: by(oldMaster, 2)}),
		image.KindInvalid) // by the old key again
	r.expectKind(r.end(newMaster, all...), image.KindInvalid)
	r.expectKind(r.reseal(
		Resealed{User: "alice", KeyID: 1, Old: by(oldMaster, 1), New: by(newMaster, 7)}, // again, of another leader
		Resealed{User: "alice", KeyID: 2, Old: by(oldMaster, 2), New: by(newMaster, 7)}, // not what there is
		Resealed{User: "carol", KeyID: 1, Old: by(oldMaster, 1), New: by(newMaster, 7)},
		Resealed{AccessKey: "IC9", Old: by(oldMaster, 1), New: by(newMaster, 7)},
	), "")
	if k, err := GetUserKey(r.db, "alice", 1); err != nil || !bytes.Equal(k.Wrapped, by(newMaster, 9)) ||
		!k.Created.Equal(clock) {
		t.Errorf("alice's first key is %+v, %v", k, err)
	}
	if k, err := GetUserKey(r.db, "carol", 1); k != nil || err != nil {
		t.Errorf("sealing again made a user: %+v, %v", k, err)
	}
	if k, err := GetAccessKey(r.db, "IC1"); err != nil || !bytes.Equal(k.Sealed, by(newMaster, 8)) {
		t.Errorf("the access key is %+v, %v", k, err)
	}
	r.expectKind(r.reseal(Resealed{User: "alice", KeyID: 2, Old: by(oldMaster, 1), New: by(newMaster, 6)}), "")
	if got := r.under(oldMaster); got != nil {
		t.Fatalf("under the old key: %v", got)
	}

	r.expectKind(r.end(newMaster, 1, 2), image.KindInvalid) // node 3 still uses the old one
	r.expectKind(r.end(newMaster, all...), "")
	r.expectKind(r.end(newMaster, all...), "") // again
	m := r.members()
	if m.KeyID != newMaster || m.Rotation != nil || !slices.Equal(m.Retired, []string{oldMaster}) {
		t.Errorf("the membership is %+v", m)
	}
	// The old key is out, also for what was on its way.
	r.expectKind(r.user("dave", oldMaster), image.KindStale)
	r.expectKind(r.accessKey("IC3", oldMaster), image.KindStale)
	r.expectKind(r.start(1, 2, oldMaster), image.KindInvalid)
	r.expectKind(r.start(1, 3, oldMaster, newMaster), "") // its file was not moved yet
	r.expectKind(r.begin(oldMaster, all...), image.KindInvalid)
	r.expectKind(r.begin(thirdMaster, all...), "")
}

// TestRetired: the list of former master keys does not grow without end.
func TestRetired(t *testing.T) {
	r := newRotating(t)
	for n := range retiredMax + 3 {
		to := fmt.Sprintf("%016x", n)
		r.expectKind(r.begin(to, 1, 2, 3), "")
		r.expectKind(r.end(to, 1, 2, 3), "")
	}
	m := r.members()
	if len(m.Retired) != retiredMax || m.Retired[retiredMax-1] != fmt.Sprintf("%016x", retiredMax+1) {
		t.Errorf("the former keys are %v", m.Retired)
	}
	if err := m.Check(); err != nil {
		t.Error(err)
	}
}

// TestNewerUserKeys: a user's keys have numbers without gaps, and the newest one is current.
func TestNewerUserKeys(t *testing.T) {
	r := newRotating(t)
	r.expectKind(r.newer("alice", 1, oldMaster), image.KindNotFound)
	r.expectKind(r.user("alice", oldMaster), "")
	for _, id := range []uint32{0, 1, 3} {
		r.expectKind(r.newer("alice", id, oldMaster), image.KindStale)
	}
	r.expectKind(r.newer("alice", 2, oldMaster), "")
	r.expectKind(r.newer("alice", 2, oldMaster), image.KindStale) // it was made
	if k, err := CurrentUserKey(r.db, "alice"); err != nil || k.KeyID != 2 {
		t.Errorf("the current key is %+v, %v", k, err)
	}
	if k, err := GetUserKey(r.db, "alice", 1); k == nil || err != nil {
		t.Errorf("the first key is %v, %v", k, err)
	}
	r.expectKind(r.do(Command{AddUserKey: &PutKey{User: "alice", KeyID: 3}}), image.KindInvalid)
}

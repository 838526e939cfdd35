package catalog

import (
	"maps"
	"testing"

	"imgcluster/cluster/image"
)

// TestRewrap: a user's copies are to be under the key that is the newest when that is asked for, until the
// user is removed.
func TestRewrap(t *testing.T) {
	r := newRotating(t)
	rewrap := func(user string) Result { return r.do(Command{Rewrap: &Rewrap{User: user}}) }
	expect := func(want map[string]uint32) {
		t.Helper()
		got := map[string]uint32{}
		if err := Rewraps(r.db, func(user string, least uint32) { got[user] = least }); err != nil {
			t.Fatal(err)
		}
		if !maps.Equal(got, want) {
			t.Errorf("to be encrypted again are %v, want %v", got, want)
		}
		for _, user := range []string{"alice", "ali", "bob"} {
			if least, err := RewrapOf(r.db, user); err != nil || least != want[user] {
				t.Errorf("%s: %d, %v", user, least, err)
			}
		}
	}
	r.expectKind(rewrap("alice"), image.KindNotFound)
	r.expectKind(rewrap("a/b"), image.KindInvalid)
	r.expectKind(r.user("alice", oldMaster), "")
	r.expectKind(r.user("ali", oldMaster), "")
	expect(map[string]uint32{})
	r.expectKind(rewrap("alice"), "")
	expect(map[string]uint32{"alice": 1})
	r.expectKind(r.newer("alice", 2, oldMaster), "")
	expect(map[string]uint32{"alice": 1})
	for range 2 {
		if got := rewrap("alice"); got.Key == nil || got.Key.KeyID != 2 {
			t.Errorf("answered with %+v", got)
		}
	}
	r.expectKind(rewrap("ali"), "")
	expect(map[string]uint32{"alice": 2, "ali": 1})
	r.expectKind(r.do(Command{RemoveUser: &RemoveUser{User: "alice"}}), "")
	expect(map[string]uint32{"ali": 1})
}

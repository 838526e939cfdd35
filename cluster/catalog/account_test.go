package catalog

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"imgcluster/cluster/image"
)

func putKey(user string, id uint32) Command {
	return Command{PutKey: &PutKey{User: user, KeyID: id, Wrapped: []byte{1, byte(id)}, Created: clock}}
}

func addKey(id, user string, role image.Role) Command {
	return Command{AddAccessKey: &AccessKey{
		ID: id, User: user, Role: role, Created: clock, Sealed: []byte("sealed"),
	}}
}

func removeKey(id, of string) Command {
	return Command{RemoveAccessKey: &RemoveAccessKey{ID: id, Of: of}}
}

func removeUser(user string) Command {
	return Command{RemoveUser: &RemoveUser{User: user, Since: clock}}
}

func purge(n uint64, user string) Command { return Command{Purge: &Purge{Removal: n, User: user}} }

func (s *shard) keyIDs(of, after string, limit int) string {
	s.t.Helper()
	keys, err := ListAccessKeys(s.db, of, after, limit)
	if err != nil {
		s.t.Fatal(err)
	}
	ids := make([]string, len(keys))
	for i, k := range keys {
		ids[i] = k.ID
	}
	return strings.Join(ids, " ")
}

func (s *shard) users(after string, limit int) string {
	s.t.Helper()
	users, err := ListUsers(s.db, after, limit)
	if err != nil {
		s.t.Fatal(err)
	}
	names := make([]string, len(users))
	for i, u := range users {
		names[i] = u.User
	}
	return strings.Join(names, " ")
}

func (s *shard) removals() []*Removal {
	s.t.Helper()
	all, err := Removals(s.db)
	if err != nil {
		s.t.Fatal(err)
	}
	return all
}

func TestAccessKeys(t *testing.T) {
	s := newSystemShard(t)
	s.expectKind(s.do(addKey("IC1", "bob", image.RoleRead)), image.KindNotFound) // there is no bob
	s.expectKind(s.do(putKey("bob", 1)), "")
	s.expectKind(s.do(putKey("bo", 1)), "")
	for _, c := range []Command{
		addKey("IC1", "bob", image.RoleRead),
		addKey("IC1", "bob", image.RoleRead), // again
		addKey("IC3", "bo", image.RoleWrite),
		addKey("IC2", "", image.RoleAdmin),
		addKey("IC4", "bob", image.RoleMetrics),
	} {
		s.expectKind(s.do(c), "")
	}
	if len(s.events) != 4 {
		t.Errorf("%d events of 4 new keys", len(s.events))
	}
	for what, c := range map[string]Command{
		"no user":        addKey("IC9", "", image.RoleWrite),
		"no such role":   addKey("IC9", "bob", "root"),
		"no ID":          addKey("", "bob", image.RoleRead),
		"an odd ID":      addKey("IC\x009", "bob", image.RoleRead),
		"a long ID":      addKey(strings.Repeat("A", 65), "bob", image.RoleRead),
		"no secret":      {AddAccessKey: &AccessKey{ID: "IC9", User: "bob", Role: image.RoleRead}},
		"a large secret": {AddAccessKey: &AccessKey{ID: "IC9", Role: image.RoleAdmin, Sealed: make([]byte, 257)}},
	} {
		if r := s.do(c); image.KindOf(r.Err()) != image.KindInvalid {
			t.Errorf("%s: %v", what, r.Err())
		}
	}
	s.expectKind(s.do(addKey("IC1", "bob", image.RoleWrite)), image.KindConflict)
	for _, x := range []struct {
		of, after string
		limit     int
		want      string
	}{
		{"", "", 9, "IC1 IC2 IC3 IC4"},
		{"", "", 2, "IC1 IC2"},
		{"", "IC2", 9, "IC3 IC4"},
		{"bob", "", 9, "IC1 IC4"},
		{"bob", "IC1", 9, "IC4"},
		{"bo", "", 9, "IC3"},
		{"b", "", 9, ""},
	} {
		if got := s.keyIDs(x.of, x.after, x.limit); got != x.want {
			t.Errorf("keys of %q after %q: %s, want %s", x.of, x.after, got, x.want)
		}
	}
	s.events = nil
	s.expectKind(s.do(removeKey("IC3", "bob")), image.KindNotFound) // another's
	s.expectKind(s.do(removeKey("IC9", "")), image.KindNotFound)
	s.expectKind(s.do(removeKey("IC4", "bob")), "")
	s.expectKind(s.do(removeKey("IC2", "")), "")
	if got := s.keyIDs("", "", 9); got != "IC1 IC3" {
		t.Errorf("left are %s", got)
	}
	if len(s.events) != 2 || s.events[0].AccessKeyRemoved != "IC4" || s.events[1].AccessKeyRemoved != "IC2" {
		t.Errorf("events %+v", s.events)
	}
}

// TestAccountLimits: what the log may grow is bounded where it is applied.
func TestAccountLimits(t *testing.T) {
	s := newSystemShard(t)
	for i := range accessKeysOfMax {
		s.expectKind(s.do(addKey(fmt.Sprint("IC", i), "", image.RoleAdmin)), "")
	}
	s.expectKind(s.do(addKey("ICX", "", image.RoleAdmin)), image.KindInvalid)
	s.expectKind(s.do(putKey("alice", 1)), "")
	s.expectKind(s.do(addKey("ICX", "alice", image.RoleAdmin)), "") // others have room
	s.expectKind(s.do(removeKey("IC7", "")), "")
	s.expectKind(s.do(addKey("IC7", "", image.RoleAdmin)), "")

	for what, max := range map[string]accounts{
		"access keys": {AccessKeys: accessKeysMax}, "users": {Users: usersMax},
	} {
		full := newSystemShard(t)
		full.do(putKey("alice", 1))
		txn := txn{tx: full.db}
		if err := txn.put([]byte{accountsKey}, max); err != nil {
			t.Fatal(err)
		}
		c := addKey("IC1", "alice", image.RoleRead)
		if max.Users > 0 {
			c = putKey("bob", 1)
		}
		if r := full.do(c); image.KindOf(r.Err()) != image.KindInvalid {
			t.Errorf("one more than the most %s: %v", what, r.Err())
		}
	}
	s.expectKind(s.do(Command{PutKey: &PutKey{User: "carol", KeyID: 1, Wrapped: make([]byte, 257)}}),
		image.KindInvalid)
}

func TestUsers(t *testing.T) {
	s := newSystemShard(t)
	for _, u := range []string{"b", "a", "c", "aa"} {
		s.expectKind(s.do(putKey(u, 1)), "")
	}
	if r := s.do(putKey("a", 7)); r.Key == nil || r.Key.KeyID != 1 {
		t.Errorf("a user was made twice: %+v", r.Key)
	}
	for _, x := range []struct {
		after string
		limit int
		want  string
	}{{"", 9, "a aa b c"}, {"", 2, "a aa"}, {"aa", 9, "b c"}, {"a", 1, "aa"}, {"c", 9, ""}} {
		if got := s.users(x.after, x.limit); got != x.want {
			t.Errorf("users after %q: %s, want %s", x.after, got, x.want)
		}
	}
}

// TestRemoveUser follows a user's removal in the system shard: keys and access keys are gone with the
// command, the name is free once no data shard has images of it, and its next key has another ID.
func TestRemoveUser(t *testing.T) {
	s := newSystem(t, 3)
	s.do(putKey("alice", 1))
	s.do(putKey("alicia", 1))
	for i, user := range []string{"alice", "alice", "alicia"} {
		s.expectKind(s.do(addKey(fmt.Sprint("IC", i), user, image.RoleWrite)), "")
	}
	s.expectKind(s.do(removeUser("bob")), image.KindNotFound)
	s.expectKind(s.do(removeUser("alice\x00\x00")), image.KindInvalid)
	s.events = nil
	r := s.do(removeUser("alice"))
	s.expectKind(r, "")
	if got := s.keyIDs("", "", 9); got != "IC2" {
		t.Errorf("access keys left: %s", got)
	}
	if got := s.users("", 9); got != "alicia" {
		t.Errorf("users left: %s", got)
	}
	for k, v := range s.db {
		if k[0] == userKeyTable && strings.Contains(k, "alice\x00") {
			t.Errorf("the system shard still has %q: %s", k, v)
		}
	}
	last := s.events[len(s.events)-1].Removal
	if len(s.events) != 3 || last == nil || last.User != "alice" {
		t.Errorf("events %+v", s.events)
	}
	x := r.Removal
	if x.Number != 1 || !slices.Equal(x.Shards, s.data) || !slices.Equal(x.Nodes, []image.NodeID{1, 2, 3}) {
		t.Errorf("removal %+v", x)
	}
	if again := s.do(removeUser("alice")); again.Removal == nil || again.Removal.Number != 1 {
		t.Errorf("removed again: %+v", again)
	}

	s.expectKind(s.add(4), "") // a new node takes part
	s.expectKind(s.add(4), "")
	if left := s.removals(); !slices.Equal(left[0].Nodes, []image.NodeID{1, 2, 3, 4}) {
		t.Errorf("removal %+v", left[0])
	}
	s.expectKind(s.do(putKey("alice", 2)), image.KindForbidden)
	s.expectKind(s.do(putKey("bob", 1)), image.KindStale)
	s.expectKind(s.do(putKey("bob", 2)), "")
	for _, shard := range s.data {
		s.expectKind(s.do(Command{Removed: &Removed{Removal: 1, Shard: shard}}), "")
	}
	s.expectKind(s.do(putKey("alice", 1)), image.KindStale) // the ID of the destroyed key
	s.expectKind(s.do(putKey("alice", 2)), "")
	if left := s.removals(); len(left) != 1 || len(left[0].Shards) != 0 || len(left[0].Nodes) != 4 {
		t.Errorf("removals %+v", left)
	}
	for node := range image.NodeID(4) {
		s.do(Command{Removed: &Removed{Removal: 1, Node: node + 1}})
	}
	if left := s.removals(); len(left) != 0 {
		t.Errorf("removals %+v", left)
	}
	if r := s.do(removeUser("alice")); r.Removal == nil || r.Removal.Number != 2 {
		t.Errorf("the second alice's removal: %+v", r)
	}
	s.expectKind(s.do(putKey("carol", 2)), image.KindStale)
}

// TestPurge deletes a removed user's images in steps, and is not repeated once the name is
// in use again.
func TestPurge(t *testing.T) {
	s := newShard(t)
	store := func(n int, user string) {
		c := commitOf(0, fmt.Sprintf("%d.png", n), s.now(1), s.now(2))
		c.Commit.User, c.Commit.ID = user, image.ID{0: 1, 14: byte(n >> 8), 15: byte(n)}
		s.expectKind(s.do(c), "")
	}
	const images = purgedAtOnce + 5
	for n := range images {
		store(n, "alice")
	}
	store(images, "bob")
	before := commitOf(9, "late.png", s.now(1), s.now(2))
	s.events = nil

	r := s.do(purge(1, "alice"))
	if p := r.Purged; p == nil || p.Images != purgedAtOnce || !p.More {
		t.Fatalf("purged %+v", p)
	}
	if s.events[0].Purge == nil {
		t.Error("the first event is not the purge: a node would encrypt with the destroyed key")
	}
	s.expectKind(s.do(before), image.KindStale)                        // its copies are under the destroyed key
	if p := s.do(purge(1, "alice")).Purged; p.Images != 5 || !p.More { // answers are left
		t.Fatalf("purged %+v", p)
	}
	if p := s.do(purge(1, "alice")).Purged; p.Images != 0 || p.More {
		t.Fatalf("purged %+v", p)
	}
	s.expectKind(s.do(before), image.KindStale)
	for k, v := range s.db {
		if strings.Contains(k, "alice") || strings.Contains(string(v), "alice") {
			t.Errorf("the shard still has %q: %s", k, v)
		}
	}
	if tot := s.totals(); tot.Images != 1 || tot.Nodes[1].Stored.Images != 1 {
		t.Errorf("totals %+v", tot)
	}
	store(images+1, "alice") // a new alice
	if p := s.do(purge(1, "alice")).Purged; p.Images != 0 || p.More || s.totals().Images != 2 {
		t.Errorf("the purge of the first alice deleted the second one's image: %+v", p)
	}
	if p := s.do(purge(2, "alice")).Purged; p.Images != 1 || s.totals().Images != 1 {
		t.Errorf("purged %+v", p)
	}
	s.expectKind(s.do(purge(3, "a/b")), image.KindInvalid)
}

// TestExpiryInTheLog: the zero time means never, and stays so through the log.
func TestExpiryInTheLog(t *testing.T) {
	s := newSystemShard(t)
	c := addKey("IC1", "", image.RoleAdmin)
	s.do(c)
	c.AddAccessKey.ID, c.AddAccessKey.Expires = "IC2", clock.Add(time.Hour)
	s.do(c)
	for id, want := range map[string]time.Time{"IC1": {}, "IC2": clock.Add(time.Hour)} {
		k, err := GetAccessKey(s.db, id)
		if err != nil || !k.Expires.Equal(want) || k.Expires.IsZero() != want.IsZero() {
			t.Errorf("%s: %+v, %v", id, k, err)
		}
	}
}

package catalog

import (
	"bytes"
	"errors"
	"maps"
	"testing"
	"time"

	"imgcluster/cluster/clustertest/memkv"
	"imgcluster/cluster/image"
)

// everyCommand has one command of each kind that means something to the shards of FuzzApply.
func everyCommand() []Command {
	access := addKey("ICAAAAAAAAAAAAAAAAAA", "alice", image.RoleWrite)
	access.AddAccessKey.Expires = clock.Add(time.Hour)
	return []Command{
		recopy(9, "there.png", []Reported{{image.Copy{Node: 3, Attempt: image.Attempt{3}}, 9}}, file(1, 1)),
		{Delete: &Delete{ID: id(3), User: "alice", Name: "there.png", Created: clock}},
		purge(1, "alice"),
		commitOf(5, "a.png", reported(1, 1), reported(2, 3)),
		endOf(5, "c.png"),
		abortOf(5, reported(1, 1)),
		{Restart: &Restart{Node: 1}},
		putKey("bob", 1),
		{Join: goodJoin()},
		{AddMember: &AddMember{ID: 4, API: api(4), Raft: raft(4)}},
		{DrainMember: &DrainMember{ID: 2, Drain: true, Least: 2}},
		{RemoveMember: &RemoveMember{ID: 2, Least: 2}},
		{Settle: &Settle{Shard: 2, Version: 1, Moved: true}},
		access,
		removeKey("ICAAAAAAAAAAAAAAAAAA", "alice"),
		removeUser("alice"),
		{Removed: &Removed{Removal: 1, Shard: 2}},
	}
}

// FuzzApply applies two commands to a shard that is in use: each is answered, the same on every node, and
// what is kept can be read back.
func FuzzApply(f *testing.F) {
	all := everyCommand()
	for i, c := range all {
		f.Add(!c.ofImages(), c.Encode(), all[(i+1)%len(all)].Encode())
	}
	f.Fuzz(func(t *testing.T, system bool, first, second []byte) {
		s := newShard(t)
		if system {
			s = newSystemShard(t)
			s.do(Command{Join: goodJoin()})
			s.do(putKey("alice", 1))
		} else {
			s.put(9, "there.png")
			s.do(endOf(1, "a.png"))
			s.do(abortOf(2, reported(3, 1)))
		}
		for _, cmd := range [][]byte{first, second} {
			s.index++
			other := memkv.KV(maps.Clone(s.db))
			answer, _, err := Apply(s.db, s.number, s.index, cmd)
			if newer := len(cmd) > 0 && cmd[0] > newestVersion; newer && errors.Is(err, ErrNewer) {
				return
			}
			if err != nil {
				t.Fatalf("a command must be answered, not fail: %v", err)
			}
			again, _, err := Apply(other, s.number, s.index, cmd)
			if err != nil || string(again) != string(answer) || !maps.EqualFunc(other, s.db, bytes.Equal) {
				t.Fatalf("another node answers %q with %q, not %q: %v", cmd, again, answer, err)
			}
			if _, err := DecodeResult(answer); err != nil {
				t.Fatal(err)
			}
		}
		s.totals()
		if _, _, err := Records(s.db, nil, 10); err != nil {
			t.Fatal(err)
		}
		m, err := GetMembership(s.db)
		if err == nil && m != nil && system {
			err = m.Check()
		}
		if err != nil {
			t.Fatal(err)
		}
	})
}

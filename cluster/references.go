package cluster

import (
	"sync"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
)

// references counts what needs the files of this node: records, pending uploads and running repairs. It is
// safe for concurrent use.
type references struct {
	self       image.NodeID
	log        *shardLogs
	serving    *serving
	membership func() *catalog.Membership
	pins       pins
}

// count counts the uses of a file of this node: shards that name it, and a repair under way.
func (u *references) count(id image.ID, epoch uint32) (count int, err error) {
	count = u.pins.count(id, epoch)
	for _, shard := range u.serving.data() {
		err := u.log.View(shard, func(r catalog.Reader) error {
			keep, err := catalog.Wants(r, u.self, id, epoch)
			if keep {
				count++
			}
			return err
		})
		if err != nil {
			return count, err
		}
	}
	return count, nil
}

// any reports whether there is a use for a file of this node. The file was there before the call, so
// its assignment is in this node's state of the shard, once that is the newest.
func (u *references) any(id image.ID, epoch uint32) (bool, error) {
	for shard, l := range u.membership().Shards {
		if _, ok := l.Of(u.self); ok && !u.serving.has(shard) {
			return true, image.Errorf(image.KindNoQuorum, "shard %d is not up to date on this node", shard)
		}
	}
	count, err := u.count(id, epoch)
	return count > 0 || err != nil, err
}

// pins counts, by file, the repairs that need it before the catalog names it. It is safe for concurrent use.
type pins struct {
	mu sync.Mutex
	m  map[pinnedFile]int
}

type pinnedFile struct {
	id    image.ID
	epoch uint32
}

func (k *pins) add(id image.ID, epoch uint32) (release func()) {
	f := pinnedFile{id, epoch}
	k.change(f, +1)
	return sync.OnceFunc(func() { k.change(f, -1) })
}

func (k *pins) change(f pinnedFile, by int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.m == nil {
		k.m = map[pinnedFile]int{}
	}
	if k.m[f] += by; k.m[f] == 0 {
		delete(k.m, f)
	}
}

func (k *pins) count(id image.ID, epoch uint32) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.m[pinnedFile{id, epoch}]
}

package cluster

import (
	"sync"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
)

// references say what needs the files of this node: records, uploads in progress and running repairs. They
// are safe for concurrent use.
type references struct {
	self       image.NodeID
	log        *shardLogs
	serving    *serving
	membership func() *catalog.Membership
	uploads    func(image.FileID) bool
	pins       pins
}

// wanted reports whether there is a use for a file of this node. The file was there before the call. If it is
// of an upload that an earlier process of this node had, no record will name it, since this node serves the
// shard only once its Restart is in the log.
func (u *references) wanted(f image.FileID) (bool, error) {
	if u.inUse(f) { // asked first: the log names the file before these let go of it
		return true, nil
	}
	if !u.serving.has(f.Shard) {
		if l := u.membership().Shards[f.Shard]; l != nil {
			if _, ok := l.Of(u.self); ok {
				return true, image.Errorf(image.KindNoQuorum, "shard %d is not up to date on this node", f.Shard)
			}
		}
		return false, nil
	}
	keep := true
	err := u.log.View(f.Shard, func(r catalog.Reader) (err error) {
		keep, err = catalog.Names(r, u.self, f)
		return err
	})
	return keep || err != nil, err
}

// inUse reports whether an upload or a repair of this process may need a file. That of an upload counts for
// all files of its image here, also for those of earlier processes.
func (u *references) inUse(f image.FileID) bool { return u.pins.has(f) || u.uploads(f) }

// pins are the files that repairs need before the catalog names them. They are safe for concurrent use.
type pins struct {
	mu sync.Mutex
	m  map[image.FileID]bool
}

func (k *pins) add(f image.FileID) (release func()) {
	k.set(f, true)
	return func() { k.set(f, false) }
}

func (k *pins) set(f image.FileID, is bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.m == nil {
		k.m = map[image.FileID]bool{}
	}
	if is {
		k.m[f] = true
	} else {
		delete(k.m, f)
	}
}

func (k *pins) has(f image.FileID) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.m[f]
}

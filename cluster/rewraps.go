package cluster

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
	"imgcluster/cluster/peer"
	"imgcluster/cluster/wire"
)

// rewraps has the copies of users' images encrypted again under newer keys, which package repair does, and
// says how far that is.
type rewraps struct {
	log      *shardLogs
	peers    *peer.Set
	holdings *holdings
	timeout  time.Duration // of a read of the system shard
}

// Rewrap implements api.Keys.
func (w *rewraps) Rewrap(ctx context.Context, user string) (wire.Rewrap, error) {
	r, err := w.log.Do(ctx, systemShard, catalog.Command{Rewrap: &catalog.Rewrap{User: user}})
	if err != nil {
		return wire.Rewrap{}, err
	}
	return w.count(ctx, user, r.Key.KeyID)
}

// RewrapState implements api.Keys.
func (w *rewraps) RewrapState(ctx context.Context, user string) (wire.Rewrap, error) {
	if err := image.CheckUser(user); err != nil {
		return wire.Rewrap{}, err
	}
	read, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	var least uint32
	err := w.log.Read(read, systemShard, func(r catalog.Reader) (err error) {
		least, err = catalog.RewrapOf(r, user)
		return err
	})
	if err == nil && least == 0 {
		err = image.Errorf(image.KindNotFound, "no images of %q are to be encrypted again", user).
			WithHint("begin with imgcluster keys rewrap --user " + user)
	}
	if err != nil {
		return wire.Rewrap{}, err
	}
	return w.count(ctx, user, least)
}

// count asks all shards, here or where they are.
func (w *rewraps) count(ctx context.Context, user string, least uint32) (wire.Rewrap, error) {
	var mu sync.Mutex
	all := wire.OldCopies{}
	err := w.holdings.images.Everywhere(ctx, func(
		ctx context.Context, node image.NodeID, shards []uint64,
	) (err error) {
		q := wire.OldCopiesQuery{ShardQuery: wire.ShardQuery{Shards: shards, User: user}, Key: least}
		var old wire.OldCopies
		if node == w.holdings.self {
			old, err = w.holdings.OldCopies(ctx, q)
		} else {
			old, err = w.peers.OldCopies(ctx, node, q)
		}
		mu.Lock()
		defer mu.Unlock()
		for id, n := range old {
			all[id] += n
		}
		return err
	})
	if err != nil {
		return wire.Rewrap{}, err
	}
	s := wire.Rewrap{User: user, Key: least, Nodes: []wire.RewrapNode{}}
	for _, id := range slices.Sorted(maps.Keys(all)) {
		s.Left += all[id]
		s.Nodes = append(s.Nodes, wire.RewrapNode{ID: id, Left: all[id]})
	}
	return s, nil
}

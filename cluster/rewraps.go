package cluster

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
	"imgcluster/cluster/peer"
	"imgcluster/cluster/wire"
)

// rewraps has the copies of users' images encrypted again under newer keys, which package repair does, and
// says how far that is.
type rewraps struct {
	self     image.NodeID
	log      *shardLogs
	peers    *peer.Set
	router   *router
	holdings *holdings
	timeout  time.Duration // of reading from the shards
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
	where, err := w.router.locate()
	if err != nil {
		return wire.Rewrap{}, err
	}
	var mu sync.Mutex
	all := wire.OldCopies{}
	g, ctx := errgroup.WithContext(ctx)
	for node, shards := range where {
		g.Go(func() error {
			q := wire.OldCopiesQuery{ShardQuery: wire.ShardQuery{Shards: shards, User: user}, Key: least}
			ask := w.holdings.OldCopies
			if node != w.self {
				ask = func(ctx context.Context, q wire.OldCopiesQuery) (wire.OldCopies, error) {
					return w.peers.OldCopies(ctx, node, q)
				}
			}
			old, err := ask(ctx, q)
			mu.Lock()
			defer mu.Unlock()
			for id, n := range old {
				all[id] += n
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return wire.Rewrap{}, err
	}
	s := wire.Rewrap{User: user, Key: least, Nodes: []wire.RewrapNode{}}
	for _, id := range slices.Sorted(maps.Keys(all)) {
		s.Left += all[id]
		s.Nodes = append(s.Nodes, wire.RewrapNode{ID: id, Left: all[id]})
	}
	return s, nil
}

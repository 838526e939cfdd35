package cluster

import (
	"bufio"
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"imgcluster/cluster/backup"
	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
	"imgcluster/cluster/peer"
	"imgcluster/crypto"
)

// purposeBackups is what the key for backups is derived for.
const purposeBackups = "imgcluster v1 backups of catalogs"

// backups makes backups of the catalog.
type backups struct {
	self    image.NodeID
	cluster string // its name
	version string // of the program
	shards  shardIDs
	log     *shardLogs
	view    *view
	peers   *peer.Set
	ring    *crypto.Ring
}

// WriteBackup implements api.Node. It works without a majority too, with what there is.
func (b *backups) WriteBackup(ctx context.Context, dst io.Writer) error {
	sealer, err := b.ring.Sealer(purposeBackups)
	if err != nil {
		return err
	}
	// What goes wrong early is answered as it is: nothing was sent then.
	buf := bufio.NewWriterSize(dst, 64<<10)
	w, err := backup.NewWriter(buf, sealer, b.ring.Sealing().ID(), backup.Header{
		Cluster: b.cluster, Version: b.version, Created: time.Now().UTC().Truncate(time.Second), Node: b.self,
	})
	if err != nil {
		return err
	}
	var t backup.Trailer
	// The system shard comes last: it has all users whose images the others have.
	for _, shard := range append(slices.Clone(b.shards), systemShard) {
		write, behind, err := b.OpenShard(ctx, shard)
		if err != nil {
			write, behind, err = b.openElsewhere(ctx, shard, err)
		}
		if err == nil {
			err = w.Shard(shard, write)
		}
		if err != nil {
			return err
		}
		t.Shards = append(t.Shards, shard)
		if behind {
			t.Behind = append(t.Behind, shard)
		}
	}
	return errors.Join(w.Close(t), buf.Flush())
}

// OpenShard implements api.Peers.
func (b *backups) OpenShard(
	ctx context.Context, shard uint64,
) (write func(io.Writer) error, behind bool, err error) {
	c, err := b.log.started()
	if err != nil {
		return nil, false, err
	}
	if !slices.Contains(c.Hosted(), shard) {
		return nil, false, image.Errorf(image.KindNoQuorum, "shard %d is not on node %d", shard, b.self).
			WithHint("ask a node that holds it")
	}
	behind = !c.CaughtUp(ctx, shard)
	return func(w io.Writer) error { return c.WriteShard(shard, w) }, behind, nil
}

// openElsewhere is OpenShard of a node that holds the shard; own is why this one does not.
func (b *backups) openElsewhere(
	ctx context.Context, shard uint64, own error,
) (write func(io.Writer) error, behind bool, err error) {
	l := b.view.membership().Shards[shard]
	if l == nil {
		return nil, false, own
	}
	up := b.peers.Up()
	for _, id := range catalog.NodesOf(l.All()) {
		if id == b.self || !slices.Contains(up, id) {
			continue
		}
		state, behind, e := b.peers.OpenShard(ctx, id, shard)
		if e != nil {
			own = e
			continue
		}
		return func(w io.Writer) error {
			_, err := io.Copy(w, state)
			return errors.Join(err, state.Close())
		}, behind, nil
	}
	return nil, false, own
}

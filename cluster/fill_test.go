package cluster

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
	"imgcluster/cluster/store"
)

// Fill is a command of tests: a data shard's part of the images From to To of a user, as records. The images
// are FilledRecord's.
type Fill struct {
	User     string
	From, To int
	Shards   int
}

// fillCommand leads an encoded Fill, in place of the version of the catalog's commands.
const fillCommand = 0xfa

func init() {
	apply = func(tx catalog.Tx, shard, index uint64, cmd []byte) ([]byte, []catalog.Event, error) {
		if len(cmd) == 0 || cmd[0] != fillCommand {
			return catalog.Apply(tx, shard, index, cmd)
		}
		var f Fill
		if err := json.Unmarshal(cmd[1:], &f); err != nil {
			return nil, nil, err
		}
		return []byte("filled"), nil, f.apply(tx, shard)
	}
}

// FilledRecord is image i of a user: two copies on two of three nodes.
func FilledRecord(user string, i, shards int) *image.Record {
	name := fmt.Sprintf("holiday/image-%08d.png", i)
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(i)))
	rec := &image.Record{
		User: user, Name: name, Version: uint64(i + 1), Bytes: 12_600_000, Check: image.Check{Key: 1},
		Type: "image/png", Wanted: 2, Shard: dataShards(shards).of(user, name),
		Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
	copy(rec.ID[:], sum[:])
	rec.ID[6], rec.ID[8] = rec.ID[6]&0x0f|0x70, rec.ID[8]&0x3f|0x80
	copy(rec.Check.MAC[:], sum[16:])
	for n := range 2 {
		c := image.Copy{Node: image.NodeID((i+n)%3 + 1), Key: 1}
		copy(c.Attempt[:], sum[8:])
		c.Attempt[0] = byte(n)
		rec.Copies = append(rec.Copies, c)
	}
	rec.Owner = rec.Copies[0].Node
	return rec
}

// apply writes the rows that the catalog has of the images of one shard: its tables r and i, and its sums.
func (f *Fill) apply(tx catalog.Tx, shard uint64) error {
	totals, err := catalog.GetTotals(tx)
	if err != nil {
		return err
	}
	for i := f.From; i < f.To; i++ {
		rec := FilledRecord(f.User, i, f.Shards)
		if rec.Shard != shard {
			continue
		}
		key := []byte("r" + rec.User + "\x00" + rec.Name)
		if there, err := tx.Get(key); err != nil || there != nil {
			if err != nil {
				return err
			}
			continue // the command was proposed twice
		}
		err := errors.Join(
			tx.Set(key, catalog.EncodeRecord(rec)), tx.Set(append([]byte{'i'}, rec.ID[:]...), key))
		if err != nil {
			return err
		}
		sums := catalog.Totals{Images: 1, Bytes: rec.Bytes, Nodes: map[image.NodeID]*catalog.NodeTotals{}}
		for _, c := range rec.Copies {
			load := catalog.Load{Images: 1, Bytes: rec.Bytes}
			sums.Nodes[c.Node] = &catalog.NodeTotals{Storing: load, Stored: load}
		}
		owner := sums.Nodes[rec.Owner]
		owner.Assigned, owner.Owned = owner.Stored, owner.Stored
		totals.Add(&sums)
	}
	return tx.Set([]byte("t"), catalog.EncodeTotals(totals))
}

// Fill gives a cluster the records of many images, through the logs of its data shards.
func (n *Node) Fill(ctx context.Context, f Fill) error {
	f.Shards = len(n.shards)
	b, err := json.Marshal(f)
	if err != nil {
		return err
	}
	c, err := n.log.started()
	if err != nil {
		return err
	}
	for _, shard := range n.shards {
		got, err := c.Propose(ctx, shard, append([]byte{fillCommand}, b...))
		if err != nil {
			return err
		}
		if !bytes.Equal(got, []byte("filled")) {
			return fmt.Errorf("shard %d answered %q", shard, got)
		}
	}
	return nil
}

// MakeFiles makes the files of a node's copies of a Fill's images in its data directory: of the right name
// and length, with nothing in them.
func MakeFiles(dir string, node image.NodeID, f Fill) error {
	for i := f.From; i < f.To; i++ {
		rec := FilledRecord(f.User, i, f.Shards)
		for _, c := range rec.Copies {
			if c.Node != node {
				continue
			}
			name := filepath.Join(dir, store.PathOf(rec.File(c)))
			if err := os.WriteFile(name, nil, 0o600); err != nil {
				return err
			}
			if err := os.Truncate(name, rec.Bytes); err != nil {
				return err
			}
		}
	}
	return nil
}

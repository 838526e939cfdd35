package consensus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/zap"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
	"imgcluster/cluster/witness"
	"imgcluster/crypto"
)

// Limits of the shared database. Records are small and few megabytes in all, so are these.
const (
	cacheBytes    = 8 << 20
	memTableBytes = 4 << 20
)

// OpenTablesMax bounds the files that the database has open.
const OpenTablesMax = 128

// database is the one pebble database of all shards.
type database struct {
	pebble *pebble.DB
	// disk seals the values, snapshots those of snapshots; see Options.
	disk      *crypto.Sealer
	snapshots Sealer

	fs      vfs.FS
	restore string // folder of half-read snapshots
	readers gate
}

// defaultFS is the file system of a node.
var defaultFS = vfs.Default

// openDatabase opens or makes the database in dir.
func openDatabase(vfsys vfs.FS, dir string, o *Options, log *zap.Logger) (d *database, err error) {
	defer func() {
		if p := recover(); p != nil { // pebble may panic on its way out of an Open that failed
			err = fmt.Errorf("open the catalog: %v", p)
		}
	}()
	cache := pebble.NewCache(cacheBytes)
	defer cache.Unref() // pebble keeps its own reference
	db, err := pebble.Open(dir, &pebble.Options{
		FS: vfsys, Cache: cache, MemTableSize: memTableBytes, MaxOpenFiles: OpenTablesMax,
		FormatMajorVersion: pebble.FormatColumnarBlocks, // written into the database; raise it on purpose
		Logger:             pebbleLogger{log.Named("pebble").Sugar()},
	})
	if err != nil {
		return nil, damaged(err)
	}
	d = &database{
		pebble:    db,
		disk:      o.Disk,
		snapshots: o.Snapshots,
		fs:        vfsys,
		restore:   vfsys.PathJoin(dir, "restore"),
	}
	// What is there was cut by a crash. dragonboat still has the snapshot and gives it again.
	if err := errors.Join(vfsys.RemoveAll(d.restore), vfsys.MkdirAll(d.restore, 0o700)); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return d, nil
}

// view runs fn on the shard's state as it is now. failed is fn's error.
func (d *database) view(shard uint64, fn func(catalog.Reader) error) (failed, err error) {
	leave, err := d.readers.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	v, err := newShardView(d, shard)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, v.it.Close()) }()
	return fn(v), nil
}

// close waits for the readers, syncs and closes.
func (d *database) close() error {
	d.readers.close()
	d.readers.wait()
	return errors.Join(d.pebble.LogData(nil, pebble.Sync), d.pebble.Close())
}

// replace puts the snapshot in r in the place of all that the shard has. It goes through a table
// file, so that memory does not grow with the snapshot and the change is one entry in the manifest.
func (d *database) replace(r io.Reader, shard uint64, stop <-chan struct{}) error {
	name := d.fs.PathJoin(d.restore, fmt.Sprintf("%d.sst", shard))
	if err := d.writeTable(name, r, shard, stop); err != nil {
		return errors.Join(err, d.fs.Remove(name))
	}
	_, err := d.pebble.IngestAndExcise(context.Background(), []string{name}, nil, nil, span(shard))
	return err
}

func (d *database) writeTable(name string, r io.Reader, shard uint64, stop <-chan struct{}) error {
	f, err := d.fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	options := sstable.WriterOptions{TableFormat: d.pebble.TableFormat()}
	w := sstable.NewWriter(objstorageprovider.NewFileWritable(f), options)
	err = readSnapshot(r, shard, stop, func(key, value []byte) (err error) {
		if isState(key) {
			if value, err = openValue(d.snapshots, key, value); err != nil {
				return fmt.Errorf("%w: %w", errSnapshot, err)
			}
			value = sealValue(d.disk, key, value)
		}
		return w.Set(key, value)
	})
	return errors.Join(err, w.Close()) // syncs the file
}

// identity is what may not change under a data directory.
type identity struct {
	Version      int          `json:"version"`
	Node         image.NodeID `json:"node"`
	Address      string       `json:"address"`
	DeploymentID uint64       `json:"deployment_id"`
}

var (
	identityKey = prefixed(0, sectionOwn, []byte("identity"))
	startedKey  = prefixed(0, sectionOwn, []byte("started"))
)

func identityOf(o *Options) identity {
	return identity{Version: 1, Node: o.NodeID, Address: o.RaftAddress, DeploymentID: o.DeploymentID}
}

// differs returns an error that names the first thing that is not as it was.
func (id identity) differs(now identity) error {
	changed := func(what string, before, after any, hint string) error {
		return image.Errorf(image.KindInvalid,
			"the data directory belongs to %s %v, the configuration says %v",
			what, before, after).WithHint(hint)
	}
	switch {
	case id.Version != now.Version:
		return changed("data version", id.Version, now.Version,
			"run the version of the program that wrote it")
	case id.DeploymentID != now.DeploymentID:
		return changed("deployment", id.DeploymentID, now.DeploymentID,
			"set the cluster's name back, or choose another data_dir")
	case id.Node != now.Node:
		return changed("node", id.Node, now.Node, "start it with that --id, or choose another data_dir")
	case id.Address != now.Address:
		return changed("Raft address", id.Address, now.Address,
			"a node keeps its Raft address: set it back, or replace the node; "+
				"what it listens on is node.listen")
	}
	return nil
}

// claim refuses a database that belongs to another configuration, or whose other half, the Raft
// log, is lost: going on alone would panic or, worse, forget a vote. A new database is marked.
//
// The order makes a crash at any point recoverable: identity, then the Raft log, then started.
func (d *database) claim(want identity, raftDir string) error {
	raft, err := d.fs.List(raftDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	raftThere := len(raft) > 0
	stored, err := get(d.pebble, identityKey)
	if err != nil {
		return damaged(err)
	}
	if stored == nil {
		if raftThere {
			return errHalfLost(&witness.LostError{Root: filepath.Dir(raftDir), What: "the catalog"})
		}
		b, err := json.Marshal(want)
		if err != nil {
			return err
		}
		return d.pebble.Set(identityKey, b, pebble.Sync)
	}
	var have identity
	if err := json.Unmarshal(stored, &have); err != nil {
		return damaged(fmt.Errorf("identity in the catalog: %w", err))
	}
	if err := have.differs(want); err != nil {
		return err
	}
	started, err := get(d.pebble, startedKey)
	if err == nil && started != nil && !raftThere {
		return errHalfLost(&witness.LostError{Root: filepath.Dir(raftDir), What: "the Raft log"})
	}
	return damaged(err)
}

// started marks that the Raft log exists from now on.
func (d *database) started() error { return d.pebble.Set(startedKey, []byte{1}, pebble.Sync) }

// prepare makes the database ready for a replica and returns the members to start it with: those
// that it was first started with, whatever the configuration says now.
func (d *database) prepare(s Shard, removeData func(replica uint64) error) (map[image.NodeID]string, error) {
	stored, err := get(d.pebble, recordKey(s.ID))
	if err != nil {
		return nil, damaged(err)
	}
	now := record{Replica: s.Replica.ID(), Members: s.Members}
	batch := d.pebble.NewBatch()
	defer batch.Close()
	if stored != nil {
		var have record
		if err := json.Unmarshal(stored, &have); err != nil {
			return nil, damaged(fmt.Errorf("record of shard %d in the catalog: %w", s.ID, err))
		}
		if have.Replica == now.Replica {
			return have.Members, nil
		}
		if err := removeData(have.Replica); err != nil {
			return nil, err
		}
		span := span(s.ID)
		if err := batch.DeleteRange(span.Start, span.End, nil); err != nil {
			return nil, err
		}
	}
	b, err := json.Marshal(now)
	if err == nil {
		err = batch.Set(recordKey(s.ID), b, nil)
	}
	if err == nil {
		err = batch.Commit(pebble.Sync)
	}
	return now.Members, err
}

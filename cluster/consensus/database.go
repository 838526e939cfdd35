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
	pebble  *pebble.DB
	fs      vfs.FS
	restore string // folder of half-read snapshots
	readers gate
}

// defaultFS is the file system of a node.
var defaultFS = vfs.Default

// openDatabase opens or makes the database in dir.
func openDatabase(vfsys vfs.FS, dir string, log *zap.Logger) (d *database, err error) {
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
	d = &database{pebble: db, fs: vfsys, restore: vfsys.PathJoin(dir, "restore")}
	// What is there was cut by a crash. dragonboat still has the snapshot and gives it again.
	if err := errors.Join(vfsys.RemoveAll(d.restore), vfsys.MkdirAll(d.restore, 0o700)); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return d, nil
}

// view runs fn on the shard's state as it is now. The result is fn's error.
func (d *database) view(shard uint64, fn func(catalog.Reader) error) (result any, err error) {
	leave, err := d.readers.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	v, err := newView(d.pebble, shard)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, v.it.Close()) }()
	if e := fn(v); e != nil {
		return e, nil
	}
	return nil, nil
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
	err = readSnapshot(r, shard, stop, w.Set)
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

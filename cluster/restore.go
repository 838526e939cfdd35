package cluster

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/backup"
	"imgcluster/cluster/bootstrap"
	"imgcluster/cluster/catalog"
	"imgcluster/cluster/consensus"
	"imgcluster/cluster/durable"
	"imgcluster/cluster/image"
	"imgcluster/cluster/oserr"
	"imgcluster/cluster/store"
	"imgcluster/config"
	"imgcluster/crypto"
)

// Restored is what Restore has made of a backup.
type Restored struct {
	Header  backup.Header
	Trailer backup.Trailer
	// Images and Bytes are those that the backup knows of; of Missing the node has no copy.
	Images, Bytes, Missing int64
}

// restoreFolder is where a data directory's Raft log and catalog are made before they take the place of what
// was there.
const restoreFolder = "restore"

// Restore makes the data directory of a node that of a cluster which has only this node, with what a backup
// has: for when most nodes are lost, and with them the majority. The images that the directory has stay; what
// it had of Raft is moved into quarantine, as with a node that is replaced. The others are to start after it,
// with empty directories or as replaced. missing, if it is not nil, is called for each image of which this
// node has no copy, with the nodes that had one.
//
// A backup that is refused leaves the directory as it is. The errors are those of package backup, store's,
// and *bootstrap.RefusedError.
func Restore(
	ctx context.Context, cfg *config.Config, id image.NodeID, src io.ReadSeeker, logger *zap.Logger,
	missing func(rec *image.Record) error,
) (r Restored, err error) {
	self, err := cfg.Node(id)
	if err != nil {
		return r, err
	}
	keys, err := keySource(cfg).Load(ctx)
	if err != nil {
		return r, err
	}
	ring := crypto.NewRing(keys.All()...)
	defer ring.Zero()
	from, err := openBackup(src, ring, cfg.Cluster.Name)
	if err != nil {
		return r, err
	}
	path := cfg.DataDir(id)
	var others []string
	for _, k := range ring.All()[1:] {
		others = append(others, k.ID())
	}
	dir, err := store.Claim(path, store.Identity{
		Cluster: cfg.Cluster.Name, ClusterID: cfg.Agreement().Fingerprint(), Node: id,
		KeyID: ring.Sealing().ID(),
	}, others...)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	diskKey, disk, err := diskKeyOf(dir.Identity(), ring)
	if err != nil {
		return r, err
	}
	snapshots, err := ring.Sealer(purposeSnapshots)
	if err != nil {
		return r, err
	}
	made, clusterID := filepath.Join(path, restoreFolder), newClusterID()
	if err := errors.Join(os.RemoveAll(made), os.Mkdir(made, 0o700)); err != nil {
		return r, unusable(made, err)
	}
	defer os.RemoveAll(made)
	f := filling{from: from, path: path, self: id, missing: missing}
	err = consensus.Restore(consensus.Options{
		NodeID: id, RaftAddress: self.RaftAddr(), Listen: self.RaftAddr(), Dir: made,
		Disk: disk, Snapshots: snapshots, DeploymentID: deploymentID(clusterID),
		RTT: cfg.Raft.RTT, Logger: logger.Named("raft"),
	}, f.fill)
	if err != nil {
		return r, unusable(made, err)
	}
	f.restored.Header = from.Header
	f.restored.Trailer = from.Trailer
	return f.restored, take(dir, path, made, store.Identity{
		ClusterID: clusterID, Restored: f.number, DiskKey: diskKey, Members: f.members,
	})
}

// unusable turns what the operating system refuses into an error with a next step.
func unusable(path string, err error) error {
	if oserr.ClassOf(err) == oserr.None {
		return err
	}
	return bootstrap.Refuse(oserr.Hint(err, path), "%s: %v", path, err)
}

// openBackup begins to read a backup of the cluster with this name.
func openBackup(src io.ReadSeeker, ring *crypto.Ring, cluster string) (*backup.Reader, error) {
	sealer, err := ring.Sealer(purposeBackups)
	if err != nil {
		return nil, err
	}
	master, err := backup.MasterKeyOf(src)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(ring.All(), func(k *crypto.MasterKey) bool { return k.ID() == master }) {
		return nil, image.Errorf(image.KindInvalid, "%w: %s, and this node has %s", backup.ErrOtherKey, master,
			ring.Sealing().ID()).
			WithHint("give the cluster's master key of when the backup was made, by node.master_key_file")
	}
	if _, err := src.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	r, err := backup.NewReader(src, sealer)
	if err == nil && r.Header.Cluster != cluster {
		err = image.Errorf(image.KindInvalid, "the backup is of the cluster %.100q, this one is %q",
			r.Header.Cluster, cluster).WithHint("give a backup of this cluster, or the configuration of that one")
	}
	return r, err
}

// diskKeyOf returns the key of a data directory, wrapped, and what seals under it; a new one where it has
// none that can be opened.
func diskKeyOf(id store.Identity, ring *crypto.Ring) (wrapped []byte, s *crypto.Sealer, err error) {
	key, err := ring.UnwrapDiskKey(id.DiskKey)
	wrapped = id.DiskKey
	if id.DiskKey == nil || err != nil {
		key = crypto.NewKey()
		if wrapped, err = ring.Sealing().WrapDiskKey(key); err != nil {
			return nil, nil, err
		}
	}
	defer key.Zero()
	s, err = crypto.NewSealer(key)
	return wrapped, s, err
}

func newClusterID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails, see crypto/rand
	return hex.EncodeToString(b[:])
}

// take puts what was made into the place of what the data directory has. After a crash in between the node
// does not start until it is restored again.
func take(dir *store.DataDir, path, made string, id store.Identity) error {
	if err := dir.Update(func(now *store.Identity) { now.Restoring = true }); err != nil {
		return err
	}
	if err := dir.NewIncarnation(bootstrap.RaftFolders...); err != nil {
		return err
	}
	for _, name := range bootstrap.RaftFolders {
		if err := os.Rename(filepath.Join(made, name), filepath.Join(path, name)); err != nil {
			return unusable(path, err)
		}
	}
	if err := durable.SyncDir(path); err != nil {
		return unusable(path, err)
	}
	return dir.Update(func(now *store.Identity) {
		now.Restoring = false
		now.Joined = true
		now.RestoredAt = time.Now().UTC()
		now.ClusterID, now.Restored, now.DiskKey, now.Members = id.ClusterID, id.Restored, id.DiskKey, id.Members
	})
}

// filling puts the shards of a backup into a Restoration.
type filling struct {
	from    *backup.Reader
	path    string // of the data directory
	self    image.NodeID
	missing func(rec *image.Record) error

	restored Restored
	number   uint32          // of the node's replicas
	members  json.RawMessage // as the data directory keeps them
}

func (f *filling) fill(r *consensus.Restoration) (number uint32, err error) {
	var shards []uint64
	for {
		shard, state, err := f.from.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = r.Put(shard, state)
		}
		if err != nil {
			return 0, err
		}
		shards = append(shards, shard)
	}
	var m *catalog.Membership
	if !slices.Contains(shards, systemShard) || !slices.Equal(shards, f.from.Trailer.Shards) {
		return 0, image.Errorf(image.KindInvalid, "%w: it has the shards %v of %v", backup.ErrDamaged, shards,
			f.from.Trailer.Shards).WithHint("use another backup")
	}
	err = r.View(systemShard, func(c catalog.Reader) (err error) {
		m, err = catalog.GetMembership(c)
		return err
	})
	switch {
	case err != nil:
		return 0, err
	case m == nil || m.Member(f.self) == nil:
		return 0, image.Errorf(image.KindInvalid, "node %d was no member of the cluster when the backup was made",
			f.self).WithHint("restore a node that was, and add this one then: imgcluster member add")
	}
	if f.members, err = json.Marshal(m.Members); err != nil {
		return 0, err
	}
	f.number = m.Replicas + 1
	for _, shard := range shards {
		if shard != systemShard {
			err = cmp.Or(err, f.count(r, shard))
		}
	}
	return f.number, err
}

// recordsAtOnce is how many records are read from a shard at once.
const recordsAtOnce = 1000

// count counts the images of a shard, and those of them of which the data directory has no file.
func (f *filling) count(r *consensus.Restoration, shard uint64) error {
	files, err := store.Open(f.path, store.Options{OnFailed: func(error) {}, OnUnknown: func(string) {}})
	if err != nil {
		return err
	}
	defer files.Close()
	return r.View(shard, func(c catalog.Reader) error {
		for after := []byte(nil); ; {
			recs, last, err := catalog.Records(c, after, recordsAtOnce)
			if err != nil || len(recs) == 0 {
				return err
			}
			for _, rec := range recs {
				f.restored.Images++
				f.restored.Bytes += rec.Bytes
				if f.has(files, rec) {
					continue
				}
				f.restored.Missing++
				if f.missing == nil {
					continue
				}
				if err := f.missing(rec); err != nil {
					return err
				}
			}
			if after = last; last == nil {
				return nil
			}
		}
	})
}

// has reports whether the data directory has a copy of an image.
func (f *filling) has(files *store.Store, rec *image.Record) bool {
	for _, c := range rec.Copies {
		if c.Node != f.self {
			continue
		}
		file, err := files.Open(rec.File(c))
		if err == nil {
			file.Close()
			return true
		}
	}
	return false
}

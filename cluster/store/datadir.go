package store

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"imgcluster/cluster/durable"
	"imgcluster/cluster/failpoint"
	"imgcluster/cluster/image"
	"imgcluster/cluster/oserr"
)

const (
	// formatVersion is the layout of data directories that this program reads and writes.
	formatVersion = 1

	identityName     = "node.json"
	identityTmp      = identityName + tmpSuffix
	lockName         = "LOCK"
	identityBytesMax = 64 << 10
	pidBytesMax      = 32
)

// Identity is the content of node.json: which node of which cluster a data directory belongs to.
type Identity struct {
	Format  int          `json:"format"`
	Cluster string       `json:"cluster"`
	Node    image.NodeID `json:"node"`
	KeyID   string       `json:"key_id"` // of the cluster master key
	// NextKeyID is the master key's that the cluster is changing to, empty when it is not.
	NextKeyID   string    `json:"next_key_id,omitempty"`
	Incarnation string    `json:"incarnation"`
	Created     time.Time `json:"created"`
	// ClusterID is the ID that the cluster got when it was bootstrapped, in hexadecimal digits.
	ClusterID string `json:"cluster_id"`
	// Starts counts the starts with this incarnation.
	Starts uint64 `json:"starts"`
	// Joined means that the node has taken part in Raft. Without its log it must not take part again.
	Joined bool `json:"joined,omitempty"`
	// Restored is the number of the node's replicas of all shards since it was restored from a backup, until the
	// cluster knows of it. While Restoring it is not complete, and the node must not start.
	Restored  uint32 `json:"restored,omitempty"`
	Restoring bool   `json:"restoring,omitempty"`
	// RestoredAt is when it was restored, or came as it was to a cluster that had been; zero: never. What the
	// catalog does not name of before may be named by another backup.
	RestoredAt time.Time `json:"restored_at,omitzero"`
	// Unverified means that the disk failed and that what it stores has not been verified since.
	Unverified bool `json:"unverified,omitempty"`
	// DiskKey seals the Raft log and the catalog; it is wrapped by the master key, during a change of that by
	// the next one.
	DiskKey []byte `json:"disk_key,omitempty"`
	// Members are the cluster's members as the node last knew them, as JSON that this package does not read.
	Members json.RawMessage `json:"members,omitempty"`
	// Sum is the SHA-256, in hexadecimal digits, of all other fields as JSON without white space. Older
	// versions wrote none.
	Sum string `json:"sum,omitempty"`
}

func (have Identity) sum() (string, error) {
	have.Sum = ""
	b, err := json.Marshal(have)
	return fmt.Sprintf("%x", sha256.Sum256(b)), err
}

// The reasons why a data directory is refused, for errors.Is.
var (
	ErrInUse        = errors.New("data directory is in use")
	ErrOtherCluster = errors.New("data directory belongs to another cluster")
	ErrOtherNode    = errors.New("data directory belongs to another node")
	ErrOtherKey     = errors.New("data directory needs another master key")
	ErrFormat       = errors.New("data directory has an unknown format")
	ErrNotOurs      = errors.New("directory is not a data directory")
	ErrDataDir      = errors.New("data directory cannot be used") // the cause is wrapped too
)

// refuse returns the error of a data directory that cannot be used, for one of the reasons above.
func refuse(reason error, hint, format string, args ...any) *image.Error {
	e := image.Errorf(image.KindInvalid, format, args...).WithHint(hint)
	e.Err = reason
	return e
}

// DataDir is a data directory that this process has claimed. The claim ends with Close or with the process.
type DataDir struct {
	path string
	lock *os.File

	mu       sync.Mutex
	identity Identity
}

// Identity returns the content of node.json.
func (d *DataDir) Identity() Identity {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.identity
}

// Update changes the identity and makes node.json durable. The reason of its errors is ErrDataDir.
func (d *DataDir) Update(change func(*Identity)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	id := d.identity
	change(&id)
	fsys, err := openOS(d.path)
	if err != nil {
		return unusable(d.path, err)
	}
	defer fsys.close()
	if err := writeIdentity(fsys, d.path, id); err != nil {
		return err
	}
	failpoint.Here("member/identity-written")
	d.identity = id
	return nil
}

// quarantineName is the folder that NewIncarnation moves the old incarnation's log and catalog to. What it
// has of an earlier one is deleted when there is something new in its place, and not before: an incarnation
// that was refused by its cluster has nothing yet, and the one before it may be needed.
const quarantineName = "quarantine"

// NewIncarnation gives the directory a new incarnation, which has not joined the cluster yet. The given
// folders of the old incarnation are moved into quarantine. The reason of its errors is ErrDataDir.
func (d *DataDir) NewIncarnation(folders ...string) error {
	failpoint.Here("member/before-renew")
	// The identity comes first: after a crash the new incarnation moves what is left of the folders.
	err := d.Update(func(id *Identity) {
		id.Incarnation = newIncarnation()
		id.Starts = 0
		id.Joined = false
		id.Restored = 0
		id.Members = nil
	})
	if err != nil {
		return err
	}
	if err := d.quarantine(folders); err != nil {
		return unusable(d.path, err)
	}
	failpoint.Here("member/renewed")
	return nil
}

func (d *DataDir) quarantine(folders []string) error {
	to := filepath.Join(d.path, quarantineName)
	if err := os.Mkdir(to, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	for _, name := range folders {
		from := filepath.Join(d.path, name)
		if _, err := os.Lstat(from); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(to, name)); err != nil {
			return err
		}
		if err := os.Rename(from, filepath.Join(to, name)); err != nil {
			return err
		}
		failpoint.Here("member/quarantined")
	}
	return durable.SyncDir(d.path)
}

// Close releases the claim. Stores in the directory must be closed before.
func (d *DataDir) Close() error { return d.lock.Close() }

// Claim locks the data directory dir for this process and for the node that want describes. It makes a
// missing directory (mode 0700) and, on the first start, writes node.json with a new Incarnation, which
// distinguishes a node that returns with an empty disk from the one that left. On later starts it refuses a
// directory of another cluster, node or master key, and ignores the other fields of want. Its errors are
// *image.Error of KindInvalid with one of the reasons above; nothing in the directory was changed then.
// moreKeys are the IDs of the master keys that the node has beside want.KeyID.
func Claim(dir string, want Identity, moreKeys ...string) (*DataDir, error) {
	if err := durable.MakeDir(dir); err != nil {
		return nil, unusable(dir, err)
	}
	fsys, err := openOS(dir)
	if err != nil {
		return nil, unusable(dir, err)
	}
	defer fsys.close()
	// Before the lock file is made, so that a foreign directory stays as it was.
	if err := checkOurs(fsys, dir); err != nil {
		return nil, err
	}
	lock, err := takeLock(fsys.root, dir)
	if err != nil {
		return nil, err
	}
	id, err := identify(fsys, dir, want, moreKeys)
	if err != nil {
		lock.Close()
		return nil, err
	}
	return &DataDir{path: dir, lock: lock, identity: id}, nil
}

func unusable(dir string, err error) error {
	hint := cmp.Or(oserr.Hint(err, dir), "check that the path is a directory which this user may write")
	if oserr.ClassOf(err) != oserr.Scarce {
		hint += ", or choose another --data-dir"
	}
	return refuse(errors.Join(ErrDataDir, err), hint, "data directory %s: %v", dir, err)
}

// checkOurs refuses a directory with content but without node.json.
func checkOurs(fsys fileSystem, dir string) error {
	foreign, ours := "", false
	err := fsys.readDir(".", false, func(batch []entry) error {
		for _, e := range batch {
			switch e.name {
			case identityName:
				ours = true
			case lockName, identityTmp, "lost+found": // an interrupted first start; a mounted file system
			default:
				foreign = e.name
			}
		}
		return nil
	})
	if err != nil {
		return unusable(dir, err)
	}
	if foreign != "" && !ours {
		return refuse(ErrNotOurs, "choose an empty or a new directory with --data-dir",
			"%s is not empty (it has %s) and has no %s: it is not a data directory",
			dir, foreign, identityName)
	}
	return nil
}

// takeLock takes the lock, which the kernel releases when the process ends, and writes the process ID
// into it.
func takeLock(root *os.Root, dir string) (*os.File, error) {
	f, err := root.OpenFile(lockName, os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil, unusable(dir, err)
	}
	err = restart(func() error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) })
	if err == nil {
		err = writePID(f)
	}
	switch {
	case err == nil:
		return f, nil
	case errors.Is(err, syscall.EWOULDBLOCK):
		err = inUse(dir, f)
	default:
		err = unusable(dir, err)
	}
	f.Close()
	return nil, err
}

// InUse reports whether a process has claimed a data directory. It changes nothing.
func InUse(dir string) bool {
	f, err := os.Open(filepath.Join(dir, lockName))
	if err != nil {
		return false
	}
	defer f.Close()
	err = restart(func() error { return unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) })
	return errors.Is(err, syscall.EWOULDBLOCK)
}

func writePID(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

func inUse(dir string, lock *os.File) error {
	who := "another process"
	b, _ := io.ReadAll(io.LimitReader(lock, pidBytesMax)) // without the ID the message is vaguer
	if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && pid > 0 {
		who = fmt.Sprintf("process %d", pid)
	}
	return refuse(ErrInUse, "stop that server first, or choose another --data-dir",
		"data directory %s is in use by %s", dir, who)
}

// identify reads node.json and compares it with want. On the first start it writes node.json.
func identify(fsys *osFS, dir string, want Identity, moreKeys []string) (Identity, error) {
	have, err := readIdentity(fsys.root, dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err := checkOurs(fsys, dir); err != nil {
			return Identity{}, err
		}
		return firstStart(fsys, dir, want)
	}
	if err != nil {
		return Identity{}, err
	}
	return have, have.check(dir, want, moreKeys)
}

func readIdentity(root *os.Root, dir string) (Identity, error) {
	f, err := root.Open(identityName)
	if err != nil {
		return Identity{}, unusable(dir, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, identityBytesMax))
	if err != nil {
		return Identity{}, unusable(dir, err)
	}
	var id Identity
	// The format comes first: in another format the other fields may mean anything.
	var format struct{ Format int }
	if err = json.Unmarshal(b, &format); err == nil && format.Format == formatVersion {
		err = errors.Join(json.Unmarshal(b, &id), id.verifySum())
		id.Sum = "" // each write computes it
	}
	switch {
	case err != nil || format.Format == formatVersion && id.Incarnation == "":
		hint := "restore " + identityName + " from a backup, or start the node with an empty --data-dir and" +
			" --replace, so that it is rebuilt from its peers"
		return Identity{}, refuse(errors.Join(ErrDataDir, err), hint,
			"%s in data directory %s is damaged", identityName, dir)
	case format.Format != formatVersion:
		return Identity{}, refuse(ErrFormat,
			"start the version of imgcluster that wrote it, or choose another --data-dir",
			"data directory %s has format %d, this program knows format %d",
			dir, format.Format, formatVersion)
	}
	return id, nil
}

func (have Identity) verifySum() error {
	want, err := have.sum()
	if err == nil && have.Sum != "" && have.Sum != want {
		err = errors.New("its checksum is wrong")
	}
	return err
}

// check refuses to serve another identity than the directory's.
func (have Identity) check(dir string, want Identity, moreKeys []string) error {
	switch key := have.SealingKeyID(); {
	case have.Cluster != want.Cluster:
		return refuse(ErrOtherCluster,
			fmt.Sprintf("set cluster.name to %q, or choose another --data-dir", have.Cluster),
			"data directory %s belongs to cluster %q, not %q", dir, have.Cluster, want.Cluster)
	case have.Node != want.Node:
		return refuse(ErrOtherNode, fmt.Sprintf("start with --id %d or another --data-dir", have.Node),
			"data directory %s belongs to node %d, not %d", dir, have.Node, want.Node)
	case key != want.KeyID && !slices.Contains(moreKeys, key):
		hint := "give the key file of this cluster, or choose another --data-dir"
		if have.NextKeyID != "" {
			hint = "the cluster was changing its master key: copy the file of the next one " +
				"(master_key_file with .next) from another node, or the new master key if that is done"
		}
		return refuse(ErrOtherKey, hint,
			"data directory %s was written under master key %s, not %s", dir, key, want.KeyID)
	}
	return nil
}

// SealingKeyID is the ID of the master key that DiskKey is wrapped by.
func (have Identity) SealingKeyID() string { return cmp.Or(have.NextKeyID, have.KeyID) }

// Peek returns what a data directory was last claimed as, zero when that cannot be read; Claim says why.
func Peek(dir string) Identity {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Identity{}
	}
	defer root.Close()
	id, err := readIdentity(root, dir)
	if err != nil {
		return Identity{}
	}
	return id
}

func firstStart(fsys fileSystem, dir string, want Identity) (Identity, error) {
	id := want
	id.Format = formatVersion
	id.Incarnation = newIncarnation()
	id.Created = time.Now().UTC().Truncate(time.Second)
	if err := writeIdentity(fsys, dir, id); err != nil {
		return Identity{}, err
	}
	return id, nil
}

func writeIdentity(fsys fileSystem, dir string, id Identity) error {
	var err error
	var b []byte
	if id.Sum, err = id.sum(); err == nil {
		b, err = json.MarshalIndent(id, "", "  ")
	}
	if err == nil && len(b) >= identityBytesMax {
		err = fmt.Errorf("%s would have %d bytes, more than are read back", identityName, len(b))
	}
	if err == nil {
		err = writeDurably(fsys, identityTmp, identityName, append(b, '\n'))
	}
	if err != nil {
		return unusable(dir, err)
	}
	return nil
}

func newIncarnation() string {
	var b [16]byte
	rand.Read(b[:]) // never fails, see crypto/rand
	return hex.EncodeToString(b[:])
}

// writeFile writes a file and fsyncs it.
func writeFile(fsys fileSystem, name string, content []byte) error {
	f, err := fsys.create(name, false)
	if err != nil {
		return err
	}
	if err := f.write(content); err != nil {
		return errors.Join(err, f.close())
	}
	if err := f.sync(); err != nil {
		return errors.Join(err, f.close())
	}
	return f.close()
}

// writeDurably replaces a file in the steps of an image file's commit.
func writeDurably(fsys fileSystem, tmp, name string, content []byte) error {
	if err := writeFile(fsys, tmp, content); err != nil {
		return err
	}
	if err := fsys.rename(tmp, name); err != nil {
		return err
	}
	return fsys.syncDir(".")
}

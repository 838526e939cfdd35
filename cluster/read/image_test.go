package read

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/clustertest/memkv"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
	"imgcluster/crypto"
)

// TestUnreadIsNotBad: a copy is bad when what was read of it does not authenticate, or its disk fails; not
// when something else kept it from being read or from being written down here.
func TestUnreadIsNotBad(t *testing.T) {
	m := New(Options{Keys: &nodes{key: crypto.NewKey()}})
	for _, c := range []struct {
		file io.Reader
		bad  bool
	}{
		{strings.NewReader(""), true},
		{strings.NewReader(strings.Repeat("x", 9000)), true},
		{iotest.ErrReader(&fs.PathError{Op: "read", Path: "a", Err: syscall.EIO}), true},
		{iotest.ErrReader(syscall.ENOMEM), false},
		{iotest.ErrReader(io.ErrUnexpectedEOF), false}, // the connection to another node broke
		{iotest.ErrReader(image.Errorf(image.KindDiskFull, "write: %w", syscall.ENOSPC)), false},
	} {
		err := m.Authenticate(t.Context(), io.Discard, &image.Record{Bytes: 5}, image.Copy{}, c.file)
		if err == nil || (image.KindOf(err) == image.KindDamaged) != c.bad {
			t.Errorf("%v is of kind %s, bad is %t", err, image.KindOf(err), c.bad)
		}
	}
	for _, err := range []error{
		image.Errorf(image.KindOverload, "read: %w", syscall.EMFILE), image.Errorf(image.KindNoQuorum, "no key"),
		syscall.ECONNREFUSED,
		image.Errorf(image.KindInvalid, "redirected"), errors.New("node 2 stalled"),
	} {
		if doubtful(err) {
			t.Errorf("%v casts doubt on a copy", err)
		}
	}
	for _, err := range []error{
		image.Errorf(image.KindNotFound, "gone"), image.Errorf(image.KindInternal, "read: %w", syscall.EIO),
		syscall.EIO,
		&crypto.Error{Kind: crypto.ErrAuth}, fmt.Errorf("cut: %w", io.ErrUnexpectedEOF),
	} {
		if !doubtful(err) {
			t.Errorf("%v casts no doubt on a copy", err)
		}
	}
}

const segmentBytes = 4096

// nodes are fakes of three nodes: this one, 1, and what its peers have.
type nodes struct {
	key   crypto.Key
	files map[image.NodeID][]byte // ciphertext
	cut   map[image.NodeID]int64  // from here on a file cannot be read
	up    []image.NodeID
	kv    memkv.KV // of all shards

	opened []image.NodeID // in which order copies were opened
	gone   []image.Attempt
}

func (n *nodes) Get(context.Context, string, uint32) (crypto.Key, error) { return n.key, nil }
func (n *nodes) Up() []image.NodeID                                      { return n.up }

func (n *nodes) Read(_ context.Context, _ uint64, fn func(catalog.Reader) error) error {
	return fn(n.kv)
}

func (n *nodes) Open(f image.FileID) (File, error) {
	if n.files[1] == nil || slices.Contains(n.gone, f.Attempt) {
		return nil, image.Errorf(image.KindNotFound, "no file")
	}
	return fakeFile{n, 1}, nil
}

func (n *nodes) OpenCopy(
	_ context.Context, node image.NodeID, f image.FileID, off, size int64,
) (io.ReadCloser, error) {
	if slices.Contains(n.gone, f.Attempt) {
		return nil, image.Errorf(image.KindNotFound, "no file")
	}
	if n.files[node] == nil {
		return nil, syscall.ECONNREFUSED
	}
	return io.NopCloser(io.NewSectionReader(fakeFile{n, node}, off, size)), nil
}

func (n *nodes) CopyBytes(_ context.Context, node image.NodeID, _ image.FileID) (int64, error) {
	if n.files[node] == nil {
		return 0, syscall.ECONNREFUSED
	}
	return int64(len(n.files[node])), nil
}

func (n *nodes) ListImages(
	context.Context, image.NodeID, []uint64, string, string, string, int,
) (io.ReadCloser, error) {
	return nil, syscall.ECONNREFUSED
}

type fakeFile struct {
	n    *nodes
	node image.NodeID
}

func (f fakeFile) Close() error { return nil }
func (f fakeFile) Size() int64  { return int64(len(f.n.files[f.node])) }

func (f fakeFile) ReadAt(p []byte, off int64) (int, error) {
	if off == 0 {
		f.n.opened = append(f.n.opened, f.node)
	}
	if cut := f.n.cut[f.node]; cut > 0 && off+int64(len(p)) > cut {
		return 0, &fs.PathError{Op: "read", Path: "image", Err: syscall.EIO}
	}
	return bytes.NewReader(f.n.files[f.node]).ReadAt(p, off)
}

// stored returns an image with a copy on each of three nodes, and the Images of node 1.
func stored(t *testing.T) (n *nodes, rec *image.Record, plain []byte, m *Images, suspects *[]image.NodeID) {
	plain = make([]byte, 5*segmentBytes+100)
	rand.NewChaCha8([32]byte{1}).Read(plain)
	n = &nodes{
		key: crypto.NewKey(), files: map[image.NodeID][]byte{}, cut: map[image.NodeID]int64{},
		up: []image.NodeID{1, 2, 3}, kv: memkv.KV{},
	}
	rec = &image.Record{User: "alice", Name: "a.png", ID: image.NewID(), Bytes: int64(len(plain))}
	check, err := crypto.NewCheck(n.key, rec.ID)
	if err != nil {
		t.Fatal(err)
	}
	check.Write(plain)
	rec.Check = image.Check{Key: 1, MAC: check.Sum()}
	for id := range image.NodeID(3) {
		c := image.Copy{Node: id + 1, Attempt: image.NewAttempt()}
		var file bytes.Buffer
		w, err := crypto.NewEncryptWriter(&file, n.key, crypto.HeaderFields{
			Image: rec.ID, Attempt: c.Attempt, Tenant: rec.User, UserKey: 1, Length: rec.Bytes,
			SegmentSize: segmentBytes,
		})
		if err == nil {
			_, err = w.Write(plain)
		}
		if err = errors.Join(err, w.Close()); err != nil {
			t.Fatal(err)
		}
		n.files[c.Node] = file.Bytes()
		rec.Copies = append(rec.Copies, c)
	}
	suspects = &[]image.NodeID{}
	m = New(Options{
		Self: 1, Log: n, Store: n, Keys: n, Peers: n, Timeout: time.Second, Logger: zap.NewNop(),
		ShardOf: func(string, string) uint64 { return 2 },
		Suspect: func(_ *image.Record, node image.NodeID) { *suspects = append(*suspects, node) },
	})
	return n, rec, plain, m, suspects
}

// TestOtherCopyMidBody: a copy that fails in the middle of a body, of this node or of another, is followed by
// the next one at the same byte, and suspected.
func TestOtherCopyMidBody(t *testing.T) {
	n, rec, plain, m, suspects := stored(t)
	n.cut[1] = 2 * segmentBytes
	n.cut[2] = 4 * segmentBytes
	got, err := io.ReadAll(m.Open(t.Context(), rec))
	if err != nil || !bytes.Equal(got, plain) {
		t.Fatalf("%d bytes of %d: %v", len(got), len(plain), err)
	}
	if want := []image.NodeID{1, 2}; !slices.Equal(*suspects, want) {
		t.Errorf("suspected are %v, want %v", *suspects, want)
	}
	n.files[3][len(n.files[3])-1] ^= 1
	got, err = writeAll(m.Open(t.Context(), rec))
	if image.KindOf(err) != image.KindDamaged || !bytes.HasPrefix(plain, got) || len(got) == len(plain) {
		t.Errorf("without a whole copy: %d bytes, %v", len(got), err)
	}
}

// TestCopiesMoved: a reader whose record is no longer the newest, since all copies of the image were made
// again meanwhile, reads the new ones, and suspects nobody.
func TestCopiesMoved(t *testing.T) {
	n, rec, plain, m, suspects := stored(t)
	commit := &catalog.Commit{
		ID: rec.ID, User: rec.User, Name: rec.Name, Bytes: rec.Bytes, Check: rec.Check, Wanted: 3,
		Created: time.Now(),
	}
	for _, c := range rec.Copies {
		commit.Copies = append(commit.Copies, catalog.Reported{Copy: c})
	}
	if _, _, err := catalog.Apply(n.kv, 2, 1, catalog.Command{Commit: commit}.Encode()); err != nil {
		t.Fatal(err)
	}
	old := *rec
	old.Copies = nil
	for _, c := range rec.Copies {
		c.Attempt = image.NewAttempt()
		n.gone = append(n.gone, c.Attempt)
		old.Copies = append(old.Copies, c)
	}
	got, err := writeAll(m.Open(t.Context(), &old))
	if err != nil || !bytes.Equal(got, plain) || len(*suspects) > 0 {
		t.Errorf("%d bytes of %d: %v; suspected are %v", len(got), len(plain), err, *suspects)
	}
	// Gone, and named by the newest record: that is a missing copy.
	n.gone = append(n.gone, rec.Copies[0].Attempt)
	got, err = io.ReadAll(m.Open(t.Context(), &old))
	if err != nil || !bytes.Equal(got, plain) || !slices.Equal(*suspects, []image.NodeID{1}) {
		t.Errorf("%d bytes of %d: %v; suspected are %v", len(got), len(plain), err, *suspects)
	}
}

// TestSection compares ranges, around the bounds of segments, with the plaintext.
func TestSection(t *testing.T) {
	_, rec, plain, m, _ := stored(t)
	for _, off := range []int64{0, 1, segmentBytes - 1, segmentBytes, segmentBytes + 1, rec.Bytes - 1} {
		for _, size := range []int64{0, 1, segmentBytes - 1, segmentBytes, segmentBytes + 1, rec.Bytes} {
			size = min(size, rec.Bytes-off)
			c := m.Open(t.Context(), rec)
			c.Section(off, size)
			got, err := io.ReadAll(c)
			if err = errors.Join(err, c.Close()); err != nil || !bytes.Equal(got, plain[off:off+size]) {
				t.Errorf("%d bytes at %d: %d bytes, %v", size, off, len(got), err)
			}
		}
	}
}

// TestOrderOfCopies: this node's own is read first, one of a node that is down last.
func TestOrderOfCopies(t *testing.T) {
	n, rec, _, m, _ := stored(t)
	rec.Copies = []image.Copy{rec.Copies[1], rec.Copies[2], rec.Copies[0]}
	n.up = []image.NodeID{1, 3}
	for id := range n.files {
		n.cut[id] = 1
	}
	if _, err := writeAll(m.Open(t.Context(), rec)); image.KindOf(err) != image.KindDamaged {
		t.Error(err)
	}
	if want := []image.NodeID{1, 3, 2}; !slices.Equal(slices.Compact(n.opened), want) {
		t.Errorf("opened are %v, want %v", n.opened, want)
	}
}

// TestEncrypted reads the file of a copy as it is, here and from another node, in all and in part.
func TestEncrypted(t *testing.T) {
	n, rec, _, m, _ := stored(t)
	for _, want := range []image.NodeID{1, 2} {
		c, from, err := m.OpenEncrypted(t.Context(), rec)
		if err != nil || from.Node != want {
			t.Fatalf("from node %d, want %d: %v", from.Node, want, err)
		}
		all, err := io.ReadAll(c)
		c.Section(7, 5000)
		part, err2 := io.ReadAll(c)
		if err = errors.Join(err, err2, c.Close()); err != nil {
			t.Error(err)
		}
		if !bytes.Equal(all, n.files[want]) || !bytes.Equal(part, n.files[want][7:5007]) {
			t.Errorf("node %d's file: %d bytes, in part %d", want, len(all), len(part))
		}
		other := *rec
		other.Check.MAC[0] ^= 1
		err = m.Authenticate(t.Context(), io.Discard, rec, from, bytes.NewReader(all))
		if err != nil {
			t.Error(err)
		}
		err = m.Authenticate(t.Context(), io.Discard, &other, from, bytes.NewReader(all))
		if image.KindOf(err) != image.KindDamaged {
			t.Errorf("a record with another check: %v", err)
		}
		n.files[want] = nil
	}
}

// TestOtherFileOfTheImage: an intact file of the image that is not the copy the record names, such as an
// older one that was put back, is no copy.
func TestOtherFileOfTheImage(t *testing.T) {
	n, rec, plain, m, suspects := stored(t)
	n.files[1] = n.files[2]
	err := m.Verify(t.Context(), rec, rec.Copies[0])
	if image.KindOf(err) != image.KindDamaged || !errors.Is(err, crypto.ErrAuth) {
		t.Errorf("another copy's file: %v", err)
	}
	err = m.Authenticate(t.Context(), io.Discard, rec, rec.Copies[1], bytes.NewReader(n.files[1]))
	if err != nil {
		t.Error("the copy itself:", err)
	}
	got, err := writeAll(m.Open(t.Context(), rec))
	if err != nil || !bytes.Equal(got, plain) || !slices.Equal(*suspects, []image.NodeID{1}) {
		t.Errorf("%d bytes, %v, suspected are %v; want the image from node 2", len(got), err, *suspects)
	}
}

// TestReveal: a record's digest is opened for its reader, in the record and in lists, and the record of the
// log stays as it is.
func TestReveal(t *testing.T) {
	n, rec, plain, m, _ := stored(t)
	if got, err := m.Reveal(t.Context(), rec); err != nil || got.SHA256 != nil {
		t.Errorf("a record without one: %+v, %v", got, err)
	}
	sealer, err := crypto.NewDigestSealer(n.key)
	if err != nil {
		t.Fatal(err)
	}
	sum := image.Digest(sha256.Sum256(plain))
	sealed := image.SealedDigest(sealer.Seal(sum))
	rec.Sealed = &sealed
	if got, err := m.Reveal(t.Context(), rec); err != nil || *got.SHA256 != sum || rec.SHA256 != nil {
		t.Errorf("%+v, %v", got, err)
	}
	page := &listPage{limit: 2}
	page.offer(listed{wire.Info{Name: rec.Name}, rec})
	page.offer(listed{Info: wire.Info{Name: "b.png", SHA256: "of another node"}})
	l, err := page.list(m.revealer(t.Context(), "alice"))
	if err != nil || l.Images[0].SHA256 != sum.String() || l.Images[1].SHA256 != "of another node" {
		t.Errorf("%+v, %v", l, err)
	}
	n.key = crypto.NewKey()
	if _, err := m.Reveal(t.Context(), rec); !errors.Is(err, crypto.ErrAuth) {
		t.Errorf("with another user's key: %v", err)
	}
}

// writeAll is io.ReadAll for the way by which answers are sent: whole segments are written.
func writeAll(c io.Reader) ([]byte, error) {
	var b bytes.Buffer
	_, err := c.(io.WriterTo).WriteTo(&b)
	return b.Bytes(), err
}

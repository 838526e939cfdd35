package clustertest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
	"imgcluster/crypto"
)

// Marker is in every image at least every markerEvery bytes: it must not be found on any disk.
const (
	Marker      = "PLAINTEXT-OF-AN-IMAGE-0123456789"
	markerEvery = 4096
)

// Image returns size bytes of noise with the Marker in them, the same for the same seed.
func Image(seed uint64, size int) []byte {
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)})
	b := make([]byte, size)
	r.Read(b)
	for at := 0; at < size; at += markerEvery {
		copy(b[at:], Marker)
	}
	return b
}

// Files returns the paths of a node's stored files: those under images/ with the given suffix.
func (c *Cluster) Files(t testing.TB, id image.NodeID, suffix string) []string {
	t.Helper()
	var files []string
	root := filepath.Join(c.Config.DataDir(id), "images")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile
		}
		if err == nil && !d.IsDir() && strings.HasSuffix(path, suffix) {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// FlipByte changes a byte of a file, or puts it back.
func FlipByte(t testing.TB, path string, at int64) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[at] ^= 0xff
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// FilesOf returns the paths of a node's files of one upload.
func (c *Cluster) FilesOf(t testing.TB, id image.NodeID, upload image.ID) []string {
	t.Helper()
	return slices.DeleteFunc(c.Files(t, id, ""), func(path string) bool {
		return !strings.HasPrefix(filepath.Base(path), upload.String())
	})
}

// ExpectSettled waits until the running nodes have the same totals in their catalogs, exactly the files that
// these count, and no upload and no image bytes in memory.
func (c *Cluster) ExpectSettled(t testing.TB) {
	t.Helper()
	var why string
	defer func() {
		if why != "" {
			t.Log(why)
		}
	}()
	Poll(t, "the nodes settle", func() bool {
		why = c.unsettled(t)
		return why == ""
	})
}

// ExpectEqualCatalogs waits until the replicas of all shards are equal on all running nodes, key by key
// (invariant I6).
func (c *Cluster) ExpectEqualCatalogs(t testing.TB) {
	t.Helper()
	Poll(t, "equal catalogs", func() bool {
		hashes := map[string]bool{}
		for _, id := range c.running() {
			hashes[c.CatalogHash(t, id)] = true
		}
		return len(hashes) == 1
	})
}

// Verify has a node verify its copies. It returns the lines of the bad ones and the last line, which has the
// totals.
func (c *Cluster) Verify(
	t testing.TB, id image.NodeID, repair bool,
) (bad []wire.VerifyLine, end wire.VerifyLine) {
	t.Helper()
	r := c.Do(http.MethodPost, id, fmt.Sprintf("/v1/verify?repair=%t", repair), nil, nil)
	if r.Status != http.StatusOK || r.Err != nil {
		t.Fatalf("verify of node %d: status %d, %v, %s", id, r.Status, r.Err, r.Body)
	}
	for d := json.NewDecoder(bytes.NewReader(r.Body)); ; {
		var line wire.VerifyLine
		if err := d.Decode(&line); err != nil {
			break
		}
		if line.Type == wire.VerifyBad {
			bad = append(bad, line)
		}
		end = line
	}
	if end.Type != wire.VerifyEnd {
		t.Fatalf("verify of node %d ended with %+v", id, end)
	}
	return bad, end
}

// unsettled returns why the nodes have not settled, empty when they have.
func (c *Cluster) unsettled(t testing.TB) string {
	first := ""
	for _, id := range c.running() {
		s := c.Status(id)
		sums := fmt.Sprint(s.Images, s.Bytes, s.UnderReplicated)
		for _, n := range s.Nodes {
			sums += fmt.Sprint(" ", n.ID, n.OwnedImages, n.OwnedBytes, n.StoredImages, n.StoredBytes)
			if n.ID != id {
				continue
			}
			files := c.Files(t, id, ".img")
			temporary := c.Files(t, id, ".tmp")
			if int64(len(files)) != n.StoredImages || len(temporary) > 0 {
				return fmt.Sprintf("node %d: %d copies in the catalog, %d files, %d temporary files",
					id, n.StoredImages, len(files), len(temporary))
			}
			if n.StagingBytes != 0 || n.Uploads != 0 {
				return fmt.Sprintf("node %d: %d bytes of %d uploads in memory", id, n.StagingBytes, n.Uploads)
			}
		}
		if first == "" {
			first = sums
		}
		if sums != first {
			return fmt.Sprintf("node %d: %s, another one: %s", id, sums, first)
		}
	}
	return ""
}

// ExpectNoPlaintext expects no Marker in any file of any node (invariant I3).
func (c *Cluster) ExpectNoPlaintext(t testing.TB) {
	t.Helper()
	err := filepath.WalkDir(c.dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if bytes.Contains(b, []byte(Marker)) {
			t.Errorf("plaintext of an image in %s", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Header returns the header of a stored file, parsed and as bytes; nil where the file was deleted meanwhile.
func Header(t testing.TB, path string) (h *crypto.Header, raw []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		h, err = crypto.ParseHeader(b)
	}
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return h, h.Marshal()
}

// Offsets of fields in a file's header; crypto/FORMAT.md has the table.
const (
	headerAttemptAt, headerAttemptEnd = 32, 48
	headerWrappedAt, headerWrappedEnd = 60, 120
	headerSaltEnd                     = 152
	headerCommitmentEnd               = 184
)

// secrets returns the fields of a header that no other header may have.
func secrets(h []byte) []string {
	return []string{
		string(h[headerAttemptAt:headerAttemptEnd]),
		string(h[headerWrappedAt:headerWrappedEnd]),
		string(h[headerWrappedEnd:headerSaltEnd]),
		string(h[headerSaltEnd:headerCommitmentEnd]),
	}
}

// ExpectUniqueKeys expects that no two stored files have the same attempt, wrapped data key, salt or
// commitment (invariant I4). Equal commitments mean that data key and salt are equal.
func (c *Cluster) ExpectUniqueKeys(t testing.TB) {
	t.Helper()
	if c.checkKeys(t, map[string]string{}) == 0 {
		t.Error("no file is stored")
	}
}

// checkKeys adds the secrets of all stored files to those seen before, each with the path of its file, and
// fails t for each secret of two files. It returns the number of files.
func (c *Cluster) checkKeys(t testing.TB, seen map[string]string) (files int) {
	t.Helper()
	for _, id := range c.IDs() {
		for _, path := range c.Files(t, id, ".img") {
			b, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) {
				continue // removed meanwhile
			}
			h, parseErr := crypto.ParseHeader(b)
			if err = cmp.Or(err, parseErr); err != nil {
				t.Errorf("%s: %v", path, err)
				continue
			}
			files++
			for _, field := range secrets(h.Marshal()) {
				if other, known := seen[field]; known && other != path {
					t.Errorf("%s and %s have the same %x", other, path, field)
				}
				seen[field] = path
			}
		}
	}
	return files
}

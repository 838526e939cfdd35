package cluster_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"testing"

	"imgcluster/cluster/client"
	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/image"
)

// uploadOf returns an upload of alice.
func uploadOf(name string, body []byte) client.Upload {
	return client.Upload{
		User: "alice", Name: name, Size: int64(len(body)),
		Body: func() io.Reader { return bytes.NewReader(body) },
	}
}

func digest(b []byte) image.Digest { return sha256.Sum256(b) }

// contentDigest is the header's value for a body.
func contentDigest(b []byte) string {
	sum := digest(b)
	return "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
}

// expectRanges asks for three ranges of range.png at once.
func expectRanges(t *testing.T, c *clustertest.Cluster, id image.NodeID, body []byte) {
	t.Helper()
	n := len(body)
	want := [][]byte{body[:3], body[segment-2 : segment+3], body[n-7:]}
	r := c.Do(http.MethodGet, id, clustertest.Path("alice", "range.png"), nil,
		http.Header{"Range": {fmt.Sprintf("bytes=0-2,%d-%d,-7", segment-2, segment+2)}})
	_, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if r.Status != http.StatusPartialContent || err != nil {
		t.Fatalf("node %d, three ranges: status %d, %v", id, r.Status, r.Header)
	}
	parts := multipart.NewReader(bytes.NewReader(r.Body), params["boundary"])
	for i := range want {
		part, err := parts.NextPart()
		if err != nil {
			t.Fatalf("node %d, range %d: %v", id, i, err)
		}
		got, err := io.ReadAll(part)
		if err != nil || !bytes.Equal(got, want[i]) {
			t.Errorf("node %d, range %d: %d bytes, %v", id, i, len(got), err)
		}
	}
}

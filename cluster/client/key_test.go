package client

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"imgcluster/cluster/access"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// TestAccessKeyIsSent: the key is on every request, uploads too; it is in no error; and in clear it goes to
// loopback addresses alone.
func TestAccessKeyIsSent(t *testing.T) {
	const id, secret = "ICAAAAAAAAAAAAAAAAAA", "abcdefghijklmnopqrstuvwxyzabcdefghijklmn"
	key, err := access.NewCredentials(id, secret)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var sent []string
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		sent = append(sent, r.Header.Get("Authorization"))
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Location", "http://example.com/")
		w.WriteHeader(http.StatusTemporaryRedirect)
	}))
	defer node.Close()
	do := func(nodes []Node) (errs []error) {
		c, err := New(Options{Nodes: nodes, Key: key, Attempts: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		body := []byte("image")
		_, put := c.Put(t.Context(), Upload{
			User: "alice", Name: "a.png", Size: int64(len(body)),
			Body: func() io.Reader { return bytes.NewReader(body) },
		})
		_, head := c.Head(t.Context(), "alice", "a.png")
		_, list := c.List(t.Context(), "alice", wire.ListQuery{})
		_, cluster := c.Cluster(t.Context())
		return []error{put, head, list, cluster, c.RemoveAccessKey(t.Context(), id)}
	}
	for i, err := range do([]Node{{ID: 1, Addr: node.Listener.Addr().String()}}) {
		if err == nil || strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), secret) {
			t.Errorf("request %d: %v", i, err)
		}
	}
	if len(sent) < 5 {
		t.Errorf("%d requests arrived", len(sent))
	}
	for _, field := range sent {
		if field != "Bearer "+id+"."+secret {
			t.Errorf("Authorization: %q", field)
		}
	}
	sent = nil
	for i, err := range do([]Node{{ID: 1, Addr: "192.0.2.1:8001"}}) { // an address that is nobody's
		if image.KindOf(err) != image.KindInvalid || !strings.Contains(err.Error(), "without TLS") {
			t.Errorf("request %d to another host without TLS: %v", i, err)
		}
	}
	if strings.Contains(fmt.Sprintf("%v %+v", key, Options{Key: key}), secret) {
		t.Error("the secret is printed")
	}
}

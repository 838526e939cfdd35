package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// lister has a list, and waits with it for open.
type lister struct {
	Images
	Peers
	list wire.List
	open chan struct{}
}

func (l lister) List(ctx context.Context, _, _, _ string, _ int) (wire.List, error) {
	select {
	case <-l.open:
	case <-ctx.Done():
		return wire.List{}, context.Cause(ctx)
	}
	return l.list, nil
}

func (l lister) ListShards(ctx context.Context, _ []uint64, _, _, _ string, _ int) (wire.List, error) {
	return l.List(ctx, "", "", "", 0)
}

func TestListsAreChecked(t *testing.T) {
	l := lister{
		list: wire.List{Images: []wire.Info{{Name: "a<b>&\u2028"}, {Name: "c"}}, Next: `c"`},
		open: make(chan struct{}),
	}
	close(l.open)
	h, _ := serveOn(t, l, readyNode{})
	h.Peers = l
	srv := servePeers(t, h)
	ask := func(path string) (int, string) {
		resp, err := srv.Client().Get(srv.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(text)
	}
	var many []string
	for i := range wire.ShardsMax + 1 {
		many = append(many, fmt.Sprint(i))
	}
	long := strings.Repeat("n", image.NameBytesMax+1)
	for _, path := range []string{
		"/internal/v1/images?user=alice&shards=2,2", "/internal/v1/images?user=alice&shards=2,,3",
		"/internal/v1/images?user=alice",
		"/internal/v1/images?shards=2", "/internal/v1/images?user=alice&shards=" + strings.Join(many, ","),
		"/internal/v1/images?user=alice&shards=2&after=" + long, "/v1/images/alice?prefix=" + long,
		"/v1/images/alice?limit=0",
	} {
		if status, text := ask(path); status != http.StatusBadRequest || !strings.Contains(text, `"hint":`) {
			t.Errorf("%.60s: %d %s", path, status, text)
		}
	}
	for _, path := range []string{
		"/internal/v1/images?user=alice&shards=2,3", "/v1/images/alice?prefix=" + url.QueryEscape(long[1:]),
	} {
		status, text := ask(path)
		var got wire.List
		err := json.Unmarshal([]byte(text), &got)
		if status != http.StatusOK || err != nil || len(got.Images) != 2 ||
			got.Images[0].Name != l.list.Images[0].Name || got.Next != l.list.Next {
			t.Errorf("%.60s: %d, %v, %s", path, status, err, text)
		}
	}
}

// TestListsAtOnce: listsMax lists are made at once, and one more only when another has ended.
func TestListsAtOnce(t *testing.T) {
	l := lister{open: make(chan struct{})}
	close(l.open)
	h, srv := serveOn(t, l, readyNode{})
	h.lists.wait = 0
	var leave func()
	for n := range listsMax {
		var err error
		if leave, err = h.lists.enter(t.Context(), fmt.Sprint(n), 0, nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.lists.enter(t.Context(), "one more", 0, nil); image.KindOf(err) != image.KindOverload {
		t.Errorf("one more: %v", err)
	}
	h.lists.wait = listWait
	status := make(chan int)
	go func() {
		resp, err := srv.Client().Get(srv.URL + "/v1/images/alice")
		if err != nil {
			status <- 0
			return
		}
		resp.Body.Close()
		status <- resp.StatusCode
	}()
	leave()
	if got := <-status; got != http.StatusOK {
		t.Errorf("when another list has ended: status %d", got)
	}
}

package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// discardServer is a node that reads uploads and throws them away.
func discardServer(b *testing.B) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		buf := copyBuffers.Get().(*[]byte)
		defer copyBuffers.Put(buf)
		for {
			if _, err := r.Body.Read(*buf); err != nil {
				break
			}
		}
		receipt(w, r.ContentLength)
	}))
	b.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

var created = time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC)

// keep is a node that has one image, "abcdefghij".
func keep(w http.ResponseWriter, r *http.Request) {
	for k, v := range map[string]string{
		"Imgcluster-Version": "9", "Imgcluster-Owner": "2", "Imgcluster-Replicas": "2,3",
		"Imgcluster-Shard":   "5",
		"Imgcluster-Created": created.Format(time.RFC3339Nano), "Imgcluster-Sha256": "00ff", "ETag": `"00ff"`,
		"Content-Type": "image/png",
	} {
		w.Header().Set(k, v)
	}
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader("abcdefghij"))
}

func TestGetAndHead(t *testing.T) {
	f := newFleet(t, 3, Options{}, func(f *fleet, id int, w http.ResponseWriter, r *http.Request) {
		if id == 1 { // is not ready yet
			refuse(w, image.Errorf(image.KindNoQuorum, "starting"))
			return
		}
		keep(w, r)
	})
	want := Info{User: "alice", Shard: 5, Info: wire.Info{
		Name: "a.png", Bytes: 10, Type: "image/png", Version: 9, Owner: 2, Replicas: []image.NodeID{2, 3},
		Created: created, SHA256: "00ff",
	}}
	if got, err := f.Head(t.Context(), "alice", "a.png"); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("Head: %+v, %v", got, err)
	}
	obj, err := f.Get(t.Context(), "alice", "a.png", false)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(obj.Body)
	obj.Body.Close()
	if string(b) != "abcdefghij" || err != nil || obj.Size != int64(len(b)) {
		t.Errorf("%q, %v, %+v", b, err, obj)
	}
	if !reflect.DeepEqual(obj.Info, want) || obj.Node != 2 {
		t.Errorf("node %d, %+v", obj.Node, obj.Info)
	}
	if n := f.conns.Load(); n != 2 {
		t.Errorf("%d connections for requests to two nodes", n)
	}
}

func TestEncryptedForm(t *testing.T) {
	f := newFleet(t, 1, Options{},
		func(_ *fleet, _ int, w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.URL.RawQuery) })
	obj, err := f.Get(t.Context(), "alice", "a.png", true)
	if err != nil {
		t.Fatal(err)
	}
	defer obj.Body.Close()
	if b, _ := io.ReadAll(obj.Body); string(b) != "form=encrypted" {
		t.Errorf("query %q", b)
	}
}

func TestTruncatedImage(t *testing.T) {
	f := newFleet(t, 1, Options{}, func(_ *fleet, _ int, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		io.WriteString(w, "half")
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	obj, err := f.Get(t.Context(), "alice", "a.png", false)
	if err != nil {
		t.Fatal(err)
	}
	defer obj.Body.Close()
	b, err := io.ReadAll(obj.Body)
	if string(b) != "half" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%q, %v", b, err)
	}
	expectKind(t, err, image.KindAborted)
}

// A node that stops in the middle of an image, or does not answer at all, is given up.
func TestSilentNode(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	silent := func(_ *fleet, _ int, w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/cluster" {
			w.Header().Set("Content-Length", "10")
			http.NewResponseController(w).Flush()
		}
		<-release
	}
	f := newFleet(t, 1, Options{ResponseTimeout: 20 * time.Millisecond}, silent)
	obj, err := f.Get(t.Context(), "alice", "a.png", false)
	if err != nil {
		t.Fatal(err)
	}
	defer obj.Body.Close()
	_, err = io.ReadAll(obj.Body)
	expectKind(t, err, image.KindAborted)

	f = newFleet(t, 1, Options{ReadTimeout: 20 * time.Millisecond}, silent)
	_, err = f.Cluster(t.Context())
	if expectKind(t, err, image.KindNoQuorum); !errors.Is(err, errTimeout) {
		t.Errorf("%v", errors.Unwrap(err))
	}
}

func TestNamesAreEscaped(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/images/{user}/{name...}", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.PathValue("user")+"|"+r.PathValue("name"))
	})
	f := newFleet(t, 1, Options{},
		func(_ *fleet, _ int, w http.ResponseWriter, r *http.Request) { mux.ServeHTTP(w, r) })
	for _, user := range []string{"alice", "a b", "ä%2Fö", "x?y#z;&+", "~é~"} {
		for _, name := range []string{
			"a.png", "b c/d%20e.png", "q?a=b#c", "日本/山.jpg", "%2e%2e/x", "a+b&c=d;e", "...", `w:\i"n'd`,
		} {
			obj, err := f.Get(t.Context(), user, name, false)
			if err != nil {
				t.Fatal(err)
			}
			if b, _ := io.ReadAll(obj.Body); string(b) != user+"|"+name {
				t.Errorf("%q/%q arrives as %q", user, name, b)
			}
			obj.Body.Close()
		}
	}
}

// TestDeleteAgain: a delete that a node did not answer is the same one at the next.
func TestDeleteAgain(t *testing.T) {
	f := newFleet(t, 3, Options{Attempts: 2}, func(f *fleet, id int, w http.ResponseWriter, r *http.Request) {
		f.receive(id, r)
		if len(f.received()) < 3 {
			refuse(w, image.Errorf(image.KindNoQuorum, "no majority answered").WithHint("again"))
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	for range 2 {
		if err := f.Delete(t.Context(), "alice", "a.png", ""); err != nil {
			t.Fatal(err)
		}
	}
	ids := map[string]int{}
	for _, r := range f.received() {
		ids[r.header.Get("Idempotency-Key")]++
	}
	if len(ids) != 2 || len(f.received()) != 4 || ids[f.received()[0].header.Get("Idempotency-Key")] != 3 ||
		ids[""] != 0 {
		t.Errorf("4 requests of 2 deletes have the IDs %v", ids)
	}
}

func TestMissingImage(t *testing.T) {
	f := newFleet(t, 3, Options{}, func(f *fleet, id int, w http.ResponseWriter, r *http.Request) {
		f.receive(id, r)
		refuse(w, image.Errorf(image.KindNotFound, "no such image").WithHint("imgcluster ls alice"))
	})
	_, err := f.Get(t.Context(), "alice", "a.png", false)
	expectKind(t, err, image.KindNotFound)
	expectKind(t, f.Delete(t.Context(), "alice", "a.png", ""), image.KindNotFound)
	if _, err = f.Head(t.Context(), "alice", "a.png"); image.KindOf(err) != image.KindNotFound {
		t.Errorf("Head: %v", err)
	}
	if n := len(f.received()); n != 3 {
		t.Errorf("%d requests for three that are refused", n)
	}
	for _, err := range []error{
		f.Delete(t.Context(), "alice", "..", ""), f.Delete(t.Context(), "", "a", ""),
		second(f.Head(t.Context(), "a", "")),
		second(f.Get(t.Context(), "a", "/", false)),
		second(f.List(t.Context(), "a/b", wire.ListQuery{})),
	} {
		if image.KindOf(err) != image.KindInvalid {
			t.Errorf("a bad name: %v", err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestListAndAll(t *testing.T) {
	var queries []string
	f := newFleet(t, 1, Options{}, func(_ *fleet, _ int, w http.ResponseWriter, r *http.Request) {
		queries = append(queries, r.URL.RawQuery)
		list := wire.List{Images: []wire.Info{{Name: "a"}, {Name: "b"}}, Next: "b"}
		switch after := r.FormValue("after"); {
		case r.FormValue("prefix") == "loop":
		case after == "b":
			list = wire.List{Images: []wire.Info{{Name: "c"}}}
		}
		json.NewEncoder(w).Encode(list)
	})
	var names []string
	for i, err := range f.All(t.Context(), "alice", "x &") {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, i.Name)
	}
	if got := fmt.Sprint(names, queries); got != "[a b c] [prefix=x+%26 after=b&prefix=x+%26]" {
		t.Error(got)
	}
	var last error
	for _, last = range f.All(t.Context(), "alice", "loop") {
	}
	if image.KindOf(last) != image.KindInternal {
		t.Errorf("an endless list: %v", last)
	}
	for range f.All(t.Context(), "alice", "") {
		break
	}
	if _, err := f.List(t.Context(), "alice", wire.ListQuery{Limit: 3}); err != nil ||
		queries[len(queries)-1] != "limit=3" {
		t.Errorf("%v, %q", err, queries)
	}
}

func TestCluster(t *testing.T) {
	release := make(chan struct{})
	f := newFleet(t, 3, Options{}, func(f *fleet, id int, w http.ResponseWriter, r *http.Request) {
		switch id {
		case 1:
			<-release // silent: the next one is asked meanwhile
		case 2:
			io.WriteString(w, "not a status")
		case 3:
			json.NewEncoder(w).Encode(wire.ClusterStatus{
				Name: "test", Ready: true,
				Nodes: []wire.NodeStatus{{ID: 9, API: f.servers[2].Listener.Addr().String()}},
			})
		}
	})
	defer close(release)
	s, err := f.Cluster(t.Context())
	if err != nil || s.Name != "test" {
		t.Fatalf("%+v, %v", s, err)
	}
	if s, err = f.NodeCluster(t.Context(), 3); err != nil || !s.Ready {
		t.Errorf("%+v, %v", s, err)
	}
	if s, err = f.NodeCluster(t.Context(), 9); err != nil || !s.Ready {
		t.Errorf("a member that the client was not given: %+v, %v", s, err)
	}
	_, err = f.NodeCluster(t.Context(), 2)
	expectKind(t, err, image.KindInternal)
	_, err = f.NodeCluster(t.Context(), 4)
	expectKind(t, err, image.KindInvalid)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = f.Cluster(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestBadOptions(t *testing.T) {
	for name, o := range map[string]Options{
		"no nodes": {},
		"delivery": {Nodes: []Node{{1, "a:1"}}, Delivery: "pigeon"},
	} {
		_, err := New(o)
		t.Run(name, func(t *testing.T) { expectKind(t, err, image.KindInvalid) })
	}
}

// The waits grow, stay in bounds, and respect what the node asks for, within reason.
func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := New(Options{Nodes: []Node{{1, "a:1"}}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for attempt, most := range []time.Duration{100, 200, 400, 800, 1600, 3000, 3000, 3000} {
			if got := c.backoff(attempt + 1); got != most*time.Millisecond {
				t.Errorf("back-off %d is at most %v", attempt+1, got)
			}
		}
		for ask, want := range map[time.Duration]time.Duration{
			0: 0, 7 * time.Second: 7 * time.Second, time.Hour: retryAfterMax,
		} {
			start := time.Now()
			asks := image.Errorf(image.KindNoQuorum, "x").WithRetry(ask)
			if err := c.pause(t.Context(), 1, asks); err != nil {
				t.Fatal(err)
			}
			if d := time.Since(start); d < want || d > want+c.o.BackoffMin {
				t.Errorf("a node asks for %v: the client waits %v", ask, d)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		asks := image.Errorf(image.KindNoQuorum, "x").WithRetry(time.Minute)
		if err := c.pause(ctx, 1, asks); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
	})
}

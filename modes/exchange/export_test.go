package exchange

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"imgcluster/cluster/client"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// fake is a node that lists images and sends other bytes than it should.
type fake struct {
	mu    sync.Mutex
	list  []wire.Info
	send  map[string][]string // what each request for an image is answered with, the last one from then on
	asked map[string]int
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	name, ok := strings.CutPrefix(r.URL.Path, wire.UserPath("alice")+"/")
	if !ok {
		json.NewEncoder(w).Encode(wire.List{Images: f.list})
		return
	}
	answers := f.send[name]
	text := answers[min(f.asked[name], len(answers)-1)]
	f.asked[name]++
	for _, i := range f.list {
		if i.Name == name {
			w.Header().Set("Imgcluster-Sha256", i.SHA256)
			w.Header().Set("Imgcluster-Version", fmt.Sprint(i.Version))
			w.Header().Set("Content-Length", fmt.Sprint(i.Bytes)) // a shorter text breaks the connection
		}
	}
	w.Write([]byte(text))
}

// export exports from a fake node, and returns the failures by name.
func (f *fake) export(t *testing.T, dir string) (Tally, map[string]error, error) {
	t.Helper()
	f.asked = map[string]int{}
	server := httptest.NewServer(f)
	defer server.Close()
	c, err := client.New(client.Options{
		Nodes:    []client.Node{{ID: 1, Addr: strings.TrimPrefix(server.URL, "http://")}},
		Attempts: 1, ReadTimeout: time.Minute, ResponseTimeout: time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	failed := map[string]error{}
	x := &Export{Cluster: "c", Dir: dir, Move: Move{
		Client: c, User: "alice", AtOnce: 4,
		Progress: func(Tally) {},
		Event:    func(e Event) { failed[e.Name] = e.Err },
	}}
	tally, err := x.Run(t.Context())
	return tally, failed, err
}

func infoOf(name, text string) wire.Info {
	return wire.Info{
		Name: name, Bytes: int64(len(text)), Version: 1, Owner: 1,
		SHA256: image.Digest(sha256.Sum256([]byte(text))).String(),
	}
}

// TestExportWrongBytes: what a node sends is never a file of the export unless it is the image. An image that
// is cut or wrong once is read again.
func TestExportWrongBytes(t *testing.T) {
	f := &fake{
		list: []wire.Info{
			infoOf("cut", "whole"), infoOf("good", "good!"), infoOf("once", "right"), infoOf("wrong", "right"),
		},
		send: map[string][]string{
			"cut": {"who", "wh", "whole"}, "good": {"good!"}, "once": {"wrong", "right"}, "wrong": {"wrong"},
		},
	}
	dir := t.TempDir()
	tally, failed, err := f.export(t, dir)
	if err != nil || tally.Images != 3 || len(failed) != 1 || image.KindOf(failed["wrong"]) != image.KindDigest {
		t.Fatalf("%+v, %v, %v", tally, failed, err)
	}
	for name, want := range map[string]string{"cut": "whole", "good": "good!", "once": "right"} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
			t.Errorf("%s is %q, %v", name, got, err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 3+2 {
		t.Errorf("the folder has %v, %v", entries, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if m, err := readManifest(root); err != nil || m.complete || len(m.images) != 3 {
		t.Errorf("the manifest has %+v, %v", m, err)
	}
}

// TestExportStaysInside: neither a name that a node lists nor a link in the folder leads out of it.
func TestExportStaysInside(t *testing.T) {
	f := &fake{list: []wire.Info{infoOf("../x", "x")}, send: map[string][]string{}}
	if _, _, err := f.export(t, t.TempDir()); image.KindOf(err) != image.KindInvalid {
		t.Errorf("a name with .. gives %v", err)
	}
	f = &fake{
		list: []wire.Info{infoOf("in/a", "aa"), infoOf("link", "bb"), infoOf("out/c", "cc")},
		send: map[string][]string{"in/a": {"aa"}, "link": {"bb"}, "out/c": {"cc"}},
	}
	dir, outside := t.TempDir(), t.TempDir()
	if _, _, err := f.export(t, dir); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(outside, "secret")
	err := errors.Join(
		os.WriteFile(secret, []byte("bb"), 0o600),
		os.Remove(filepath.Join(dir, "link")), os.Symlink(secret, filepath.Join(dir, "link")),
		os.RemoveAll(filepath.Join(dir, "out")), os.Symlink(outside, filepath.Join(dir, "out")))
	if err != nil {
		t.Fatal(err)
	}
	f.list[1] = infoOf("link", "BB")
	f.send["link"] = []string{"BB"}
	tally, failed, err := f.export(t, dir)
	if err != nil || tally.Images != 1 || tally.Present != 1 || len(failed) != 1 || failed["out/c"] == nil {
		t.Errorf("%+v, %v, %v", tally, failed, err)
	}
	if got, err := os.ReadFile(secret); err != nil || string(got) != "bb" {
		t.Errorf("a file outside is %q now, %v", got, err)
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) != 1 {
		t.Errorf("outside there are %v, %v", left, err)
	}
}

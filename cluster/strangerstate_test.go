package cluster_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"imgcluster/cluster/client"
	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/wire"
)

// run stores images while an attack goes on.
type run struct {
	user string
	stop chan struct{}
	done sync.WaitGroup
	n    atomic.Int64 // images stored

	mu     sync.Mutex
	stored map[string]uint64 // seed of each image
}

const runBytes = 50_000

var runs atomic.Int64

func startRun(t *testing.T, cl *client.Client) *run {
	r := &run{user: fmt.Sprint("run", runs.Add(1)), stop: make(chan struct{}), stored: map[string]uint64{}}
	for worker := range uint64(2) {
		r.done.Go(func() {
			for seed := worker; ; seed += 2 {
				select {
				case <-r.stop:
					return
				default:
				}
				name, body := fmt.Sprintf("%d.png", seed), clustertest.Image(seed, runBytes)
				res, err := cl.Put(t.Context(), client.Upload{
					User: r.user, Name: name, Size: runBytes, Body: func() io.Reader { return bytes.NewReader(body) },
				})
				if err != nil {
					t.Errorf("upload of %s: %v", name, err)
					return
				}
				<-res.Done
				r.mu.Lock()
				r.stored[name] = seed
				r.mu.Unlock()
				r.n.Add(1)
			}
		})
	}
	return r
}

// stopAfter stops the run once it has stored so many images more.
func (r *run) stopAfter(t *testing.T, more int64) {
	t.Helper()
	want := r.n.Load() + more
	clustertest.Poll(t, "the run goes on", func() bool { return r.n.Load() >= want || t.Failed() })
	close(r.stop)
	r.done.Wait()
}

// expectImages expects exactly the images of the run.
func (r *run) expectImages(t *testing.T, c *clustertest.Cluster) {
	t.Helper()
	ids := c.IDs()
	var names []string
	for _, one := range c.List(t, 1, r.user) {
		names = append(names, one.Name)
	}
	if want := slices.Sorted(maps.Keys(r.stored)); !slices.Equal(names, want) {
		t.Errorf("the list has %d images, %d were acknowledged", len(names), len(want))
	}
	for i, name := range names {
		c.ExpectImage(t, r.user, name, clustertest.Image(r.stored[name], runBytes), ids[i%len(ids)])
	}
}

// state is what strangers must not change.
type state struct {
	terms   []uint64
	members []wire.Member
	users   []string
	keys    string
	images  []wire.Info
}

// observe returns what there is of members, keys, users other than of runs, and their images.
func observe(t *testing.T, c *clustertest.Cluster) (s state) {
	t.Helper()
	for _, shard := range c.Status(1).Shards {
		s.terms = append(s.terms, shard.Term)
	}
	get := func(path string) []byte {
		r := c.DoAgain(t, http.MethodGet, 1, path, nil, nil)
		if r.Status != http.StatusOK {
			t.Fatalf("%s: %d %v %s", path, r.Status, r.Err, r.Body)
		}
		return r.Body
	}
	s.keys = string(get(wire.KeysPath))
	var members wire.MemberList
	if err := json.Unmarshal(get(wire.MembersPath), &members); err != nil {
		t.Fatal(err)
	}
	for _, m := range members.Members {
		m.Images, m.Leads = 0, 0 // those of the run
		s.members = append(s.members, m)
	}
	var list wire.UserList
	if err := json.Unmarshal(get(wire.UsersPath), &list); err != nil {
		t.Fatal(err)
	}
	for _, u := range list.Users {
		if !strings.HasPrefix(u.Name, "run") {
			s.users = append(s.users, u.Name)
			s.images = append(s.images, c.List(t, 1, u.Name)...)
		}
	}
	if len(s.images) < 3 || len(s.terms) < 2 {
		t.Fatalf("there are %+v", s)
	}
	return s
}

// expect expects that there is the same now. Terms may grow by a few elections.
func (s state) expect(t *testing.T, c *clustertest.Cluster) {
	t.Helper()
	now := observe(t, c)
	for i, term := range now.terms {
		if term > s.terms[i]+20 {
			t.Errorf("shard %d went from term %d to %d", i, s.terms[i], term)
		}
	}
	s.terms, now.terms = nil, nil
	if fmt.Sprint(now) != fmt.Sprint(s) {
		t.Errorf("what there is has changed:\n%+v\n%+v", s, now)
	}
}

// held is what this process holds.
type held struct {
	goroutines map[string]int // by the function that has started them
	files      int
	memory     uint64 // bytes from the system, which are never given back
}

var creator = regexp.MustCompile(`(?m)^created by (\S+)`)

func holds() held {
	h := held{goroutines: map[string]int{}}
	buf := make([]byte, 16<<20)
	for _, m := range creator.FindAllSubmatch(buf[:runtime.Stack(buf, true)], -1) {
		h.goroutines[string(m[1])]++
	}
	if open, err := os.ReadDir("/proc/self/fd"); err == nil {
		h.files = len(open)
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	h.memory = m.Sys
	return h
}

// attackBytesMax is by how much the memory of three nodes may grow in an attack.
const attackBytesMax = 192 << 20

// expect waits until no more is held than before.
func (h held) expect(t *testing.T) {
	t.Helper()
	more := ""
	defer func() {
		if more != "" {
			t.Log(more)
		}
	}()
	clustertest.Poll(t, "all that was opened is closed", func() bool {
		now := holds()
		if more = ""; now.files > h.files {
			more = fmt.Sprintf("%d files, %d before", now.files, h.files)
		}
		for by, n := range now.goroutines {
			if n > h.goroutines[by] {
				more += fmt.Sprintf("\n%d goroutines of %s, %d before", n, by, h.goroutines[by])
			}
		}
		return more == ""
	})
	if grown := holds().memory - h.memory; grown > attackBytesMax {
		t.Errorf("%d MiB more memory, at most %d are expected", grown>>20, attackBytesMax>>20)
	}
}

// expectQuiet expects that nothing panicked or failed, and that strangers have not filled the log.
func expectQuiet(t *testing.T, logged *observer.ObservedLogs) {
	t.Helper()
	kinds := map[string]int{}
	for _, e := range logged.All() {
		text := fmt.Sprint(e.Message, " ", e.ContextMap())
		if kinds[e.Message]++; e.Level > zap.WarnLevel || strings.Contains(text, "panic") {
			t.Errorf("%s: %s", e.Level, text)
		}
	}
	for message, n := range kinds {
		if n > 100 && message != "a node sent what does not belong here" { // which no stranger causes
			t.Errorf("%d times %q", n, message)
		}
	}
}

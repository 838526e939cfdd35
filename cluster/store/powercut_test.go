//go:build linux

package store

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"imgcluster/cluster/clustertest/env"
	"imgcluster/cluster/clustertest/loopfs"
	"imgcluster/cluster/image"
)

const (
	powerDiskBytes = 128 << 20
	powerWriters   = 4 // commits at once, at most
	powerKeep      = 60
)

// TestPowerCuts cuts the power of a real ext4 in the middle of commits, over and over on the same disk: after
// each cut every acknowledged file is there, and every other file is whole or absent. The number of cuts is
// IMGCLUSTER_POWER_CUTS, the seed IMGCLUSTER_SEED (make powercuts).
func TestPowerCuts(t *testing.T) {
	cuts := env.Number(t, "IMGCLUSTER_POWER_CUTS", 20)
	seed := env.Number(t, "IMGCLUSTER_SEED", 1)
	p := &powerTest{
		T: t, disk: loopfs.New(t, filepath.Join(t.TempDir(), "disk"), powerDiskBytes),
		rand: rand.New(rand.NewPCG(uint64(seed), 0)), files: map[image.FileID]*powerFile{},
	}
	began := time.Now()
	for n := range cuts {
		p.round(n)
	}
	if p.acknowledged == 0 || p.interrupted == 0 {
		t.Errorf("%d commits were acknowledged and %d interrupted: the cuts tested nothing",
			p.acknowledged, p.interrupted)
	}
	t.Logf("seed %d: %d power cuts in %.1f s, %d commits acknowledged, %d interrupted (%d of them whole),"+
		" %d reads of acknowledged files verified, %d temporary files swept",
		seed, cuts, time.Since(began).Seconds(), p.acknowledged, p.interrupted, p.whole, p.verified, p.swept)
}

type powerTest struct {
	*testing.T
	disk *loopfs.Disk
	rand *rand.Rand
	dir  string // the data directory
	id   Identity

	mu    sync.Mutex
	files map[image.FileID]*powerFile

	acknowledged, interrupted, whole, verified, swept int
}

// powerFile is what may be found under a name: what was acknowledged, or what was being written.
type powerFile struct{ acknowledged, pending []byte }

// round runs commits until the power is cut, and checks what is left.
func (p *powerTest) round(n int) {
	if n%4 == 0 { // the folders of a first start must become durable, too
		os.RemoveAll(p.dir)
		p.dir = filepath.Join(p.disk.Dir, fmt.Sprint("cluster", n), "node1")
		p.id = Identity{Cluster: "power", Node: 1}
		clear(p.files)
	}
	claim := p.claim()
	inner, err := openOS(p.dir)
	if err != nil {
		p.Fatal(err)
	}
	f := &faultFS{fileSystem: inner}
	s, err := openStore(f, Options{Buffered: p.rand.IntN(2) == 0})
	if err != nil {
		p.Fatal(err)
	}
	var off atomic.Bool
	cut := sync.OnceFunc(func() {
		off.Store(true)
		if err := p.disk.Cut(); err != nil {
			p.Error(err)
		}
	})
	var wg sync.WaitGroup
	ops := atomic.Int64{}
	at := p.rand.Int64N(100)
	acknowledged := func() {}
	switch p.rand.IntN(3) {
	case 0: // between two operations of one commit
		f.before = func(string) {
			if ops.Add(1) > at {
				cut()
			}
		}
	case 1: // at the same time as one
		f.before = func(string) {
			if ops.Add(1) == at+1 {
				wg.Go(cut)
			}
		}
	default: // as soon as a commit is acknowledged
		acknowledged = func() {
			if ops.Add(1) > at/10 {
				cut()
			}
		}
	}
	for range 1 + p.rand.IntN(powerWriters) {
		r := rand.New(rand.NewPCG(p.rand.Uint64(), 0))
		wg.Go(func() { p.write(s, r, &off, acknowledged) })
	}
	wg.Wait()
	if err := s.Close(); err != nil {
		p.Fatal(err)
	}
	claim.Close()
	p.disk.Remount(p)
	p.check()
}

func (p *powerTest) claim() *DataDir {
	claim, err := Claim(p.dir, p.id)
	if err != nil {
		p.Fatal(err)
	}
	if have := claim.Identity(); p.id.Incarnation != "" && !reflect.DeepEqual(have, p.id) {
		p.Fatalf("the directory's identity is %+v, and was %+v", have, p.id)
	}
	p.id = claim.Identity()
	return claim
}

// write commits files until the power is off.
func (p *powerTest) write(s *Store, r *rand.Rand, off *atomic.Bool, acknowledged func()) {
	for {
		k := newFile()
		size := 1 + r.IntN(4*alignBytes)
		if r.IntN(4) == 0 {
			size = 1 + r.IntN(2*directBytes)
		}
		data := noise(r.Uint64(), size)
		p.mu.Lock()
		file := &powerFile{pending: data}
		p.files[k] = file
		p.mu.Unlock()
		err := put(s, k, data)
		if err == nil {
			acknowledged()
		}
		p.mu.Lock()
		switch {
		case err == nil:
			file.acknowledged = data
			file.pending = nil
			p.acknowledged++
		case !off.Load():
			p.Errorf("a commit failed while the power was on: %v", err)
		default:
			p.interrupted++
		}
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// check starts the store as after a boot, verifies its files and sweeps it.
func (p *powerTest) check() {
	defer p.claim().Close()
	tmp, err := os.ReadDir(filepath.Join(p.dir, tmpDir))
	if err != nil {
		p.Fatal(err)
	}
	s, err := Open(p.dir, Options{OnUnknown: func(path string) { p.Errorf("unknown file %s", path) }})
	if err != nil {
		p.Fatal(err)
	}
	defer s.Close()
	for k, file := range p.files {
		got, err := get(s, k)
		absent := image.KindOf(err) == image.KindNotFound
		switch {
		case err == nil && file.acknowledged != nil && bytes.Equal(got, file.acknowledged):
			p.verified++
		case err == nil && file.pending != nil && bytes.Equal(got, file.pending):
			p.whole++
			file.acknowledged = file.pending
		case absent && file.acknowledged == nil:
			delete(p.files, k)
		default:
			p.Fatalf("%v: %d bytes, %v; acknowledged %d bytes, interrupted %d bytes",
				k, len(got), err, len(file.acknowledged), len(file.pending))
		}
		file.pending = nil
	}
	for k := range p.files { // in random order
		if len(p.files) <= powerKeep {
			break
		}
		delete(p.files, k)
	}
	keep := func(f image.FileID) (bool, error) { return p.files[f] != nil, nil }
	if _, _, err := s.Sweep(keep); err != nil {
		p.Fatal(err)
	}
	left, err := os.ReadDir(filepath.Join(p.dir, tmpDir))
	if err != nil || len(left) > 0 {
		p.Fatalf("after the sweep: %v, %v", left, err)
	}
	for _, e := range tmp {
		if strings.HasSuffix(e.Name(), tmpSuffix) {
			p.swept++
		}
	}
	if n, _ := s.Usage(); n != int64(len(p.files)) {
		p.Fatalf("%d files after the sweep, want %d", n, len(p.files))
	}
}

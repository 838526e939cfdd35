package cluster_test

import (
	"cmp"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/clustertest/env"
	"imgcluster/cluster/image"
	"imgcluster/config"
)

const (
	damageShort    = 4  // files damaged, unless IMGCLUSTER_DAMAGE is set
	damageCutOneIn = 3  // cuts take a few bytes at the end, the others any part
	damageCutBytes = 64 // at most, of the former
)

// TestDamagedLog flips a bit in, or cuts, a file that a node has beside its images: Raft's log, the catalog,
// their manifests and tables, snapshots, node.json. The node was stopped or killed before. It then either
// refuses to start with a hint, and is rebuilt from its peers with --replace; or it starts, its catalog
// equals the others', and every acknowledged image reads back. IMGCLUSTER_DAMAGE is how often each kind of
// file is flipped and cut; without it a few files are, which IMGCLUSTER_SEED selects.
func TestDamagedLog(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	t.Parallel()
	rounds := env.Number(t, "IMGCLUSTER_DAMAGE", 1)
	seed := env.Number(t, "IMGCLUSTER_SEED", 1)
	all := os.Getenv("IMGCLUSTER_DAMAGE") != ""
	d := &damages{c: startForDamage(t), r: rand.New(rand.NewPCG(uint64(seed), 0)), outcomes: map[string]int{}}
	d.put(t, 60) // enough for snapshots and tables
	d.c.Restart(d.c.IDs()...)
	began := time.Now()
	for range rounds {
		var list []fileDamage
		for _, kind := range slices.Sorted(maps.Keys(d.files(t, 1))) {
			list = append(list, fileDamage{kind, false}, fileDamage{kind, true})
		}
		d.r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		if !all {
			list = list[:min(damageShort, len(list))]
		}
		for _, x := range list {
			d.damageAndStart(t, x)
			if t.Failed() {
				return
			}
		}
	}
	expectImages(t, d.c, d.all, d.c.IDs()...)
	d.c.ExpectSettled(t)
	var lines []string
	total := 0
	for _, what := range slices.Sorted(maps.Keys(d.outcomes)) {
		total += d.outcomes[what]
		lines = append(lines, fmt.Sprintf("%6d  %s", d.outcomes[what], what))
	}
	t.Logf("seed %d: %d files damaged, %d images acknowledged, none lost, %.1f s\n%s",
		seed, total, len(d.all), time.Since(began).Seconds(), strings.Join(lines, "\n"))
}

func startForDamage(t *testing.T) *clustertest.Cluster {
	return clustertest.Start(t, clustertest.Options{Processes: true, Change: func(cfg *config.Config) {
		cfg.Raft.SnapshotEntries = 40
		cfg.Raft.CompactionOverhead = 10
	}})
}

// fileDamage is a kind of file, and whether one of them is cut or has a bit flipped.
type fileDamage struct {
	kind string
	cut  bool
}

func (x fileDamage) String() string {
	if x.cut {
		return "cut " + x.kind
	}
	return "flip " + x.kind
}

type damages struct {
	c        *clustertest.Cluster
	r        *rand.Rand
	all      []stored // acknowledged
	outcomes map[string]int
}

func (d *damages) put(t *testing.T, n int) {
	t.Helper()
	d.all = append(d.all, putImages(t, d.c, fmt.Sprintf("after-%d", len(d.all)), n)...)
}

var (
	fileNumber = regexp.MustCompile(`[0-9A-F]{16}|\d+`)
	raftFolder = regexp.MustCompile(`^raft/[^/]+/\d+/`) // of this host and deployment
)

// files returns the files of a node by kind, without images and empty ones.
func (d *damages) files(t *testing.T, id image.NodeID) map[string][]string {
	t.Helper()
	dir := d.c.Config.DataDir(id)
	kinds := map[string][]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			if err == nil && (e.Name() == "images" || e.Name() == "quarantine") {
				return fs.SkipDir
			}
			return err
		}
		info, err := e.Info()
		if err == nil && info.Size() > 0 && e.Name() != "LOCK" {
			name, _ := filepath.Rel(dir, path)
			kind := fileNumber.ReplaceAllString(raftFolder.ReplaceAllString(name, "raft/"), "N")
			kinds[kind] = append(kinds[kind], path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return kinds
}

// damageAndStart damages a file of a node that is down, starts the node, and expects that nothing is lost.
func (d *damages) damageAndStart(t *testing.T, x fileDamage) {
	t.Helper()
	id := d.c.IDs()[d.r.IntN(3)]
	d.put(t, 2)
	how := "stopped"
	if d.r.IntN(2) == 0 {
		how = "killed"
		d.c.Kill(id)
	} else {
		d.c.Stop(id)
	}
	files := d.files(t, id)[x.kind]
	if len(files) == 0 {
		d.c.Start(id)
		d.c.WaitReady(d.c.IDs()...)
		return // this node has none at the moment
	}
	path := files[d.r.IntN(len(files))]
	d.damage(t, path, x.cut)
	outcome := d.start(t, id, fmt.Sprintf("%s of node %d (%s)", x, id, path))
	expectImages(t, d.c, d.all, id)
	d.c.ExpectEqualCatalogs(t)
	d.outcomes[fmt.Sprintf("%-9s %-45s %s", how, x, outcome)]++
}

// damage flips a bit of a file, anywhere, or cuts it.
func (d *damages) damage(t *testing.T, path string, cut bool) {
	t.Helper()
	if !cut {
		flipIn(t, d.r, path, func(size int) int { return d.r.IntN(size) })
		return
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	size := d.r.Int64N(info.Size())
	if d.r.IntN(damageCutOneIn) == 0 {
		size = max(0, info.Size()-1-d.r.Int64N(damageCutBytes))
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
}

// start starts a node with a damaged file; when it refuses, it is rebuilt from its peers.
func (d *damages) start(t *testing.T, id image.NodeID, what string) string {
	t.Helper()
	d.c.Start(id)
	if refusal, ready := d.c.ReadyOrRefused(t, id); !ready {
		if refusal.Error == "" || refusal.Hint == "" {
			t.Fatalf("%s: the process ended with %+v", what, refusal)
		}
		d.replace(t, id)
		return "refused, replaced"
	}
	d.c.WaitReady(d.c.IDs()...)
	return "starts"
}

func (d *damages) replace(t *testing.T, id image.NodeID) {
	t.Helper()
	lost := &d.c.Config.Local.LostData
	before := *lost
	*lost = config.LostDataReplace
	d.c.Start(id)
	*lost = before
	if refusal, ready := d.c.ReadyOrRefused(t, id); !ready {
		if !strings.Contains(refusal.Hint, "--data-dir") { // it is not known whose directory it is
			t.Fatalf("node %d with --replace: %+v", id, refusal)
		}
		if err := os.RemoveAll(d.c.Config.DataDir(id)); err != nil {
			t.Fatal(err)
		}
		d.replace(t, id)
		return
	}
	d.c.WaitReady(d.c.IDs()...)
	awaitCopies(t, d.c, id)
}

// TestForgottenTail has a node lose the newest part of its log. Of three nodes one is behind, down while the
// last images were stored, and the only other one that has them is killed too. The node that has lost its
// tail must not form a majority with the one that is behind: acknowledged images would be lost.
func TestForgottenTail(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	t.Parallel()
	for _, how := range []string{"cut", "flip"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			d := &damages{c: startForDamage(t), r: rand.New(rand.NewPCG(1, 0))}
			d.put(t, 5)
			const forgets, knows, behind = 1, 2, 3
			d.c.Stop(behind)
			d.c.WaitReady(forgets, knows)
			d.put(t, 10)
			d.c.Kill(forgets)
			d.c.Kill(knows)
			logs := d.files(t, forgets)["raft/logdb-N/N.log"]
			size := func(path string) int64 {
				info, err := os.Stat(path)
				if err != nil {
					t.Fatal(err)
				}
				return info.Size()
			}
			newest := slices.MaxFunc(logs, func(a, b string) int { return cmp.Compare(a, b) })
			if how == "cut" {
				if err := os.Truncate(newest, size(newest)/4); err != nil {
					t.Fatal(err)
				}
			} else {
				flipIn(t, d.r, newest, func(size int) int { return size / 4 })
			}
			d.c.Start(behind, forgets)
			refusal, ready := d.c.ReadyOrRefused(t, forgets)
			if ready || refusal.Hint == "" {
				t.Fatalf("the node that forgot the end of its log: ready %v, %+v", ready, refusal)
			}
			d.c.Start(knows)
			d.c.WaitReady(behind, knows)
			d.replace(t, forgets)
			expectImages(t, d.c, d.all, d.c.IDs()...)
			d.c.ExpectSettled(t)
			d.c.ExpectEqualCatalogs(t)
		})
	}
}

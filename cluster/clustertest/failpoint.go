package clustertest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wait"
)

// BuildWithFailpoints builds the tests of the package in the working directory with failpoints and returns
// the path of the binary, for Options.Program.
func BuildWithFailpoints(t testing.TB) (program string) {
	t.Helper()
	program = filepath.Join(t.TempDir(), "node.test")
	out, err := exec.Command("go", "test", "-c", "-tags", "failpoints", "-o", program, ".").CombinedOutput()
	if err != nil {
		t.Fatalf("build with failpoints: %v\n%s", err, out)
	}
	return program
}

// Arm arms a failpoint in a node's process: the process dies, as by kill -9, when it reaches the failpoint
// for the n-th time. An empty name disarms. It reports whether the process confirmed.
func (c *Cluster) Arm(id image.NodeID, name string, n int) bool {
	p := c.procs[id]
	if p == nil {
		return false
	}
	text, err := p.ask(fmt.Sprintf("%s %s %d", askArm, name, n))
	return err == nil && text == armed
}

// StartArmed starts a node that dies when it reaches a failpoint for the n-th time.
func (c *Cluster) StartArmed(id image.NodeID, name string, n int) {
	c.t.Helper()
	c.spawn(id, fmt.Sprintf("IMGCLUSTER_FAILPOINT=%s:%d", name, n))
}

// Dead reports whether a node has no running process.
func (c *Cluster) Dead(id image.NodeID) bool {
	p := c.procs[id]
	return p == nil || wait.Closed(p.exited)
}

// Died reports whether a node's process has ended since it was started; a second call returns false. err is
// why it ended, nil for kill -9.
func (c *Cluster) Died(id image.NodeID) (died bool, err error) {
	p := c.procs[id]
	if p == nil || !c.Dead(id) {
		return false, nil
	}
	delete(c.procs, id)
	exit, ok := errors.AsType[*exec.ExitError](p.err)
	if ok && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		return true, nil
	}
	return true, fmt.Errorf("node %d ended by itself: %w", id, p.err)
}

// Runs reports whether a node was started and has not been stopped or found dead.
func (c *Cluster) Runs(id image.NodeID) bool { return slices.Contains(c.running(), id) }

// Held is an entry of a node's catalog.
type Held struct {
	Table   string   `json:"table"` // record, image, pending or finished
	Shard   uint64   `json:"shard"`
	ID      image.ID `json:"id"`
	Name    string   `json:"name"`
	Version uint64   `json:"version,omitempty"` // of a record
	Epoch   uint32   `json:"epoch,omitempty"`   // of an upload
	State   string   `json:"state,omitempty"`   // of an upload
}

// The tables of Held.
const (
	TableRecord   = "record"
	TableImage    = "image" // by upload ID
	TablePending  = "pending"
	TableFinished = "finished"
)

// Inventory returns the images and uploads in a node's catalog. ok is false when its process did not answer.
func (c *Cluster) Inventory(id image.NodeID) (held []Held, ok bool) {
	p := c.procs[id]
	if p == nil {
		return nil, false
	}
	text, err := p.ask(askInventory)
	return held, err == nil && json.Unmarshal([]byte(text), &held) == nil
}

// Past is what was seen of a cluster so far. What is seen later must agree with it.
type Past struct {
	uploads map[image.ID]Held // newest state of each
	names   map[string]Held   // newest version of each record
	secrets map[string]string // fields of headers, and the identity of the file with each
}

// NewPast returns an empty Past.
func NewPast() *Past {
	return &Past{uploads: map[image.ID]Held{}, names: map[string]Held{}, secrets: map[string]string{}}
}

// ExpectRecords expects of one node's inventory, compared with all before, that each upload has one record
// under one name, that epochs and versions only grow, and that committed uploads stay committed (invariant
// I2). While shards move between nodes, it must be the inventory of a node that is up to date.
func (p *Past) ExpectRecords(t testing.TB, held []Held) {
	t.Helper()
	records := map[image.ID]Held{}
	images := map[image.ID]Held{}
	for _, h := range held {
		switch h.Table {
		case TableRecord:
			if other, twice := records[h.ID]; twice {
				t.Errorf("upload %s has two records, %+v and %+v", h.ID, other, h)
			}
			records[h.ID] = h
			if was := p.names[h.Name]; was.Version > h.Version || was.Version == h.Version && was.ID != h.ID {
				t.Errorf("%s is %+v after it was %+v", h.Name, h, was)
			}
			p.names[h.Name] = h
		case TableImage:
			images[h.ID] = h
		default:
			p.expectUpload(t, h)
		}
	}
	for id, h := range records {
		if i, ok := images[id]; !ok || i.Name != h.Name || i.Shard != h.Shard {
			t.Errorf("the index by upload ID has %+v for the record %+v", i, h)
		}
	}
	if len(images) != len(records) {
		t.Errorf("%d records, %d in the index by upload ID", len(records), len(images))
	}
}

func (p *Past) expectUpload(t testing.TB, h Held) {
	t.Helper()
	was, known := p.uploads[h.ID]
	switch {
	case known && (was.Name != h.Name || was.Shard != h.Shard):
		t.Errorf("upload %+v had another name before: %+v", h, was)
	case h.Epoch < was.Epoch:
		t.Errorf("the epoch of upload %+v fell: %+v", h, was)
	case was.State == committed && h.State != committed:
		t.Errorf("upload %+v was committed before: %+v", h, was)
	case was.Table == TableFinished && h.Table == TablePending && h.Epoch == was.Epoch:
		t.Errorf("upload %+v was finished in this epoch before: %+v", h, was)
	}
	p.uploads[h.ID] = h
}

const committed = "committed" // catalog.Committed

// ExpectUniqueKeys expects that no data key and no salt is in two files, among those that nodes have now and
// had at earlier calls (invariant I4). A copy that repair made counts as the same file.
func (p *Past) ExpectUniqueKeys(t testing.TB, c *Cluster) {
	t.Helper()
	c.checkKeys(t, byContent, p.secrets)
}

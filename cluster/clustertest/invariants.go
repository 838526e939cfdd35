package clustertest

import (
	"encoding/json"
	"testing"

	"imgcluster/cluster/image"
)

// Entry is an entry of a node's catalog.
type Entry struct {
	Table   string   `json:"table"` // record, image, pending or finished
	Shard   uint64   `json:"shard"`
	ID      image.ID `json:"id"`
	Name    string   `json:"name"`
	Version uint64   `json:"version,omitempty"` // of a record
	Epoch   uint32   `json:"epoch,omitempty"`   // of an upload
	State   string   `json:"state,omitempty"`   // of an upload
}

// The tables of Entry.
const (
	TableRecord   = "record"
	TableImage    = "image" // by upload ID
	TablePending  = "pending"
	TableFinished = "finished"
)

// Inventory returns the images and uploads in a node's catalog. ok is false when its process did not answer.
func (c *Cluster) Inventory(id image.NodeID) (entries []Entry, ok bool) {
	p := c.procs[id]
	if p == nil {
		return nil, false
	}
	text, err := p.ask(askInventory)
	return entries, err == nil && json.Unmarshal([]byte(text), &entries) == nil
}

// Invariants compares what a cluster has now with all that it had before, across crashes.
type Invariants struct {
	uploads map[image.ID]Entry // newest state of each
	names   map[string]Entry   // newest version of each record
	secrets map[string]string  // fields of headers, and the path of the file with each
}

// NewInvariants returns an Invariants of a cluster of which nothing is known yet.
func NewInvariants() *Invariants {
	return &Invariants{
		uploads: map[image.ID]Entry{},
		names:   map[string]Entry{},
		secrets: map[string]string{},
	}
}

// ExpectRecords expects of one node's inventory, compared with all before, that each upload has one record
// under one name, that epochs and versions only grow, and that committed uploads stay committed (invariant
// I2). While shards move between nodes, it must be the inventory of a node that is up to date.
func (v *Invariants) ExpectRecords(t testing.TB, entries []Entry) {
	t.Helper()
	records := map[image.ID]Entry{}
	images := map[image.ID]Entry{}
	for _, e := range entries {
		switch e.Table {
		case TableRecord:
			if other, twice := records[e.ID]; twice {
				t.Errorf("upload %s has two records, %+v and %+v", e.ID, other, e)
			}
			records[e.ID] = e
			before := v.names[e.Name]
			if e.Version < before.Version || e.Version == before.Version && e.ID != before.ID {
				t.Errorf("%s is %+v after %+v", e.Name, e, before)
			}
			v.names[e.Name] = e
		case TableImage:
			images[e.ID] = e
		default:
			v.expectUpload(t, e)
		}
	}
	for id, e := range records {
		if i, ok := images[id]; !ok || i.Name != e.Name || i.Shard != e.Shard {
			t.Errorf("the index by upload ID has %+v for the record %+v", i, e)
		}
	}
	if len(images) != len(records) {
		t.Errorf("%d records, %d in the index by upload ID", len(records), len(images))
	}
}

func (v *Invariants) expectUpload(t testing.TB, e Entry) {
	t.Helper()
	before, known := v.uploads[e.ID]
	switch {
	case known && (before.Name != e.Name || before.Shard != e.Shard):
		t.Errorf("upload %+v had another name before: %+v", e, before)
	case e.Epoch < before.Epoch:
		t.Errorf("the epoch of upload %+v fell: %+v", e, before)
	case before.State == committed && e.State != committed:
		t.Errorf("upload %+v was committed before: %+v", e, before)
	case before.Table == TableFinished && e.Table == TablePending && e.Epoch == before.Epoch:
		t.Errorf("upload %+v was finished in this epoch before: %+v", e, before)
	}
	v.uploads[e.ID] = e
}

const committed = "committed" // catalog.Committed

// ExpectUniqueKeys expects that no attempt, data key and salt is in two files, among those that nodes have
// now and had at earlier calls (invariant I4).
func (v *Invariants) ExpectUniqueKeys(t testing.TB, c *Cluster) {
	t.Helper()
	c.checkKeys(t, v.secrets)
}

package clustertest

import (
	"encoding/json"
	"testing"

	"imgcluster/cluster/image"
)

// Entry is an entry of a node's catalog.
type Entry struct {
	Table    string   `json:"table"` // record, image or upload
	Shard    uint64   `json:"shard"`
	ID       image.ID `json:"id"`
	Name     string   `json:"name"`
	Version  uint64   `json:"version,omitempty"`  // of a record
	Recopied uint64   `json:"recopied,omitempty"` // of a record
	State    string   `json:"state,omitempty"`    // of an upload
	Index    uint64   `json:"index,omitempty"`    // of the entry that ended an upload
}

// The tables of Entry.
const (
	TableRecord = "record"
	TableImage  = "image"  // by upload ID
	TableUpload = "upload" // that has ended
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
	uploads map[image.ID]Entry // how each ended last
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
// under one name, that the entries of the log which made records and ended uploads only grow, and that
// committed uploads stay committed (invariant I2). While shards move between nodes, it must be the inventory
// of a node that is up to date.
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
			v.expectRecord(t, e)
		case TableImage:
			images[e.ID] = e
		case TableUpload:
		default:
			t.Errorf("an entry of no table: %+v", e)
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
	for _, e := range entries {
		if e.Table == TableUpload {
			v.expectUpload(t, e, records)
		}
	}
}

func (v *Invariants) expectRecord(t testing.TB, e Entry) {
	t.Helper()
	before := v.names[e.Name]
	same := e.Version == before.Version
	if e.Version < before.Version || same && (e.ID != before.ID || e.Recopied < before.Recopied) {
		t.Errorf("%s is %+v after %+v", e.Name, e, before)
	}
	v.names[e.Name] = e
}

func (v *Invariants) expectUpload(t testing.TB, e Entry, records map[image.ID]Entry) {
	t.Helper()
	before, known := v.uploads[e.ID]
	switch rec, recorded := records[e.ID]; {
	case e.State != committed && e.State != failed:
		t.Errorf("upload %+v has not ended", e)
	case recorded && (e.State != committed || e.Index != rec.Version),
		recorded && (e.Name != rec.Name || e.Shard != rec.Shard):
		t.Errorf("upload %+v has the record %+v", e, rec)
	case known && (before.Name != e.Name || before.Shard != e.Shard):
		t.Errorf("upload %+v had another name before: %+v", e, before)
	case e.Index < before.Index || e.Index == before.Index && known && e.State != before.State:
		t.Errorf("upload %+v ended otherwise before: %+v", e, before)
	case before.State == committed && e.State != committed:
		t.Errorf("upload %+v was committed before: %+v", e, before)
	}
	v.uploads[e.ID] = e
}

// States of uploads: catalog.Committed, catalog.Failed.
const committed, failed = "committed", "failed"

// ExpectUniqueKeys expects that no attempt, data key and salt is in two files, among those that nodes have
// now and had at earlier calls (invariant I4).
func (v *Invariants) ExpectUniqueKeys(t testing.TB, c *Cluster) {
	t.Helper()
	c.checkKeys(t, v.secrets)
}

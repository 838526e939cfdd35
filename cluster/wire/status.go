// Package wire is the format of what nodes and clients send each other over HTTP: paths, queries, header
// fields, problems and the documents in JSON. Both ends encode and decode here, so that each format is
// written once.
package wire

import (
	"encoding/json"
	"slices"
	"time"

	"imgcluster/cluster/hostinfo"
	"imgcluster/cluster/image"
	"imgcluster/cluster/sample"
)

// NodeState is the state of a node as another one sees it.
type NodeState string

// The node states.
const (
	NodeUp       NodeState = "up"
	NodeDown     NodeState = "down"
	NodeDraining NodeState = "draining"
)

// NoInodeLimit are the free inodes of a file system that makes them as they are needed.
const NoInodeLimit = -1

// Lack is what a full disk has too little of.
type Lack string

// What a disk may lack.
const (
	LacksBytes  Lack = "bytes"
	LacksInodes Lack = "inodes"
)

// StatusLine is a line of the stream that a node sends each other one: its figures, or a message.
type StatusLine struct {
	Status *NodeStatus `json:"status,omitempty"`
	// Message is for the node that reads the stream; it says something about an upload.
	Message json.RawMessage `json:"message,omitempty"`
}

// NodeStatus is one node's figures. Byte counts are bytes, counters grow from the start of the
// node's process. The figures of a node that is down are those last received, or zero.
type NodeStatus struct {
	ID       image.NodeID `json:"id"`
	API      string       `json:"api"` // host:port
	State    NodeState    `json:"state"`
	Ready    bool         `json:"ready"`
	Problem  string       `json:"problem,omitempty"` // why it stores nothing for now, in words
	KeepUp   string       `json:"keep_up,omitempty"` // why it should not be stopped now, in words
	Version  string       `json:"version,omitempty"`
	LeaderOf int          `json:"leader_of"` // data and system shards led
	sample.Node
	StoredImages int64 `json:"stored_images"` // committed images it holds a copy of
	StoredBytes  int64 `json:"stored_bytes"`  // plaintext length of these
	// copies on its disk, also those that no record needs any more
	Files          int64   `json:"files"`
	FileBytes      int64   `json:"file_bytes"`           // their length
	DiskFreeInodes int64   `json:"disk_free_inodes"`     // NoInodeLimit where they have no fixed number
	DiskFull       bool    `json:"disk_full"`            // it is given no more images, and serves its own
	DiskLacks      Lack    `json:"disk_lacks,omitempty"` // what it is full for the lack of
	Uploads        int     `json:"uploads"`              // in progress
	UptimeS        float64 `json:"uptime_s"`

	// Uploads that the node became the owner of, and images that it sent to clients, since it was started;
	// and how long those of some seconds that have just passed took, 0 when there were none.
	UploadsTotal     int64   `json:"uploads_total"`
	UploadBytesTotal int64   `json:"upload_bytes_total"`
	ReadsTotal       int64   `json:"reads_total"`
	ReadBytesTotal   int64   `json:"read_bytes_total"`
	UploadP50S       float64 `json:"upload_p50_s,omitempty"`
	UploadP99S       float64 `json:"upload_p99_s,omitempty"`
	ReadP50S         float64 `json:"read_p50_s,omitempty"`
	ReadP99S         float64 `json:"read_p99_s,omitempty"`

	// CertificateUntil is when the operator's certificate of the node ends; zero: it has none.
	CertificateUntil time.Time `json:"certificate_until,omitzero"`
	// ClockOffS is how far the node's clock is from that of the node that is asked, in seconds, either way: as
	// far as its messages tell, which are on their way for a while.
	ClockOffS float64 `json:"clock_off_s,omitempty"`
	// Time is when the node sent its status, by its clock. Only nodes send it.
	Time time.Time `json:"time,omitzero"`

	// MissingCopies are on the node by the catalog but not on its disk, as after a change of disks.
	MissingCopies int64 `json:"missing_copies,omitempty"`

	// Serves are the shards that the node has the newest state of, and Leads, where not all nodes hold
	// all shards, those that it leads. Only nodes send them to each other.
	Serves []uint64 `json:"serves,omitempty"`
	// Incarnation is that of the node's data directory, as the cluster registered it. Only nodes send it.
	Incarnation string        `json:"incarnation,omitempty"`
	Leads       []ShardReport `json:"leads,omitempty"`
	// MasterKeys are those of the node; only nodes send them to each other.
	MasterKeys *MasterKeyReport `json:"master_keys,omitempty"`
	// Receiving are the uploads whose bodies have been coming in here for a while, for want of a faster
	// client.
	Receiving []image.ID `json:"receiving,omitempty"`
}

// NodeFigures are the figures of NodeStatus: those of a sample, and what only the status has.
var NodeFigures = append(slices.Clone(sample.Nodes), sample.Figures{
	{Name: "ready", Metric: "ready", Help: "1 when the node serves images."},
	{Name: "leader_of", Metric: "shards_led", ByNode: true, Help: "Raft groups led by node."},
	{
		Name: "stored_images", Metric: "stored_images", ByNode: true,
		Help: "Copies of committed images by node.",
	},
	{
		Name: "stored_bytes", Metric: "stored_bytes", ByNode: true,
		Help: "Plaintext bytes of the copies by node.",
	},
	{Name: "files", Metric: "files", Help: "Copies on the disk, also those that no record needs any more."},
	{Name: "file_bytes", Metric: "file_bytes", Help: "Length of the copies on the disk."},
	{
		Name: "disk_free_inodes", Metric: "disk_free_inodes",
		Help: "Free inodes of the data directory's file system, where it has a fixed number.",
	},
	{
		Name: "disk_full", Metric: "disk_full",
		Help: "1 when this node is given no more images for lack of room.",
	},
	{Name: "uploads", Metric: "uploads_in_progress", Help: "Uploads in progress on this node."},
	{Name: "uptime_s", Counter: true, Help: "Time since the node's process started."},
	{
		Name: "uploads_total", Metric: "uploads_total", Counter: true,
		Help: "Uploads committed with this node as their owner.",
	},
	{
		Name: "upload_bytes_total", Metric: "upload_bytes_total", Counter: true,
		Help: "Plaintext bytes of these.",
	},
	{Name: "reads_total", Metric: "reads_total", Counter: true, Help: "Images that this node sent to clients."},
	{
		Name: "read_bytes_total", Metric: "read_bytes_total", Counter: true,
		Help: "Plaintext bytes of these, as sent.",
	},
	{
		Name: "clock_off_s", Metric: "clock_off_seconds", ByNode: true,
		Help: "How far a node's clock is from this node's, either way.",
	},
	{
		Name: "missing_copies", Metric: "missing_copies",
		Help: "Copies that are on this node by the catalog but not on its disk.",
	},
}...)

// ShardReport is what a shard's leader reports of it.
type ShardReport struct {
	ID              uint64       `json:"id"`
	Term            uint64       `json:"term"`
	Images          int64        `json:"images"`
	Bytes           int64        `json:"bytes"`
	UnderReplicated int64        `json:"under_replicated"`
	Nodes           []NodeReport `json:"nodes"`
}

// NodeReport sums up what a shard has on one node.
type NodeReport struct {
	ID           image.NodeID `json:"id"`
	OwnedImages  int64        `json:"owned_images"`
	OwnedBytes   int64        `json:"owned_bytes"`
	StoredImages int64        `json:"stored_images"`
	StoredBytes  int64        `json:"stored_bytes"`
}

// ShardStatus is one Raft group. Leader is 0 when it has none.
type ShardStatus struct {
	ID     uint64         `json:"id"`
	Leader image.NodeID   `json:"leader"`
	Term   uint64         `json:"term"`
	Nodes  []image.NodeID `json:"nodes"`
}

// ClusterStatus is the cluster as one node sees it. Ready means that every shard has a leader.
type ClusterStatus struct {
	Name            string        `json:"name"`
	Ready           bool          `json:"ready"`
	Health          Health        `json:"health"`             // see Judge
	Warnings        []string      `json:"warnings,omitempty"` // what it comes from, in words
	Replicas        int           `json:"replicas"`
	Images          int64         `json:"images"`
	Bytes           int64         `json:"bytes"`
	UnderReplicated int64         `json:"under_replicated"`
	Nodes           []NodeStatus  `json:"nodes"`
	Shards          []ShardStatus `json:"shards"`
	// Insecure: plain HTTP without access keys, on addresses that other hosts reach (security.insecure).
	Insecure bool `json:"insecure,omitempty"`
	// Limited: it is an Outline, and other figures than those are left out.
	Limited bool `json:"limited,omitempty"`
}

// Outline is what a client needs to know of the cluster to use it: its nodes, how to reach them, and where
// the shards are.
func (s ClusterStatus) Outline() ClusterStatus {
	o := ClusterStatus{
		Name: s.Name, Ready: s.Ready, Health: s.Health, Replicas: s.Replicas, Shards: s.Shards,
		Insecure: s.Insecure, Limited: true,
		Nodes: make([]NodeStatus, len(s.Nodes)),
	}
	for i, n := range s.Nodes {
		o.Nodes[i] = NodeStatus{ID: n.ID, API: n.API, State: n.State, Ready: n.Ready}
	}
	return o
}

// ClusterFigures are the figures of ClusterStatus.
var ClusterFigures = sample.Figures{
	{Name: "images", Metric: "images", Help: "Committed images in the cluster."},
	{Name: "bytes", Metric: "image_bytes", Help: "Plaintext bytes of the committed images."},
	{Name: "under_replicated", Metric: "under_replicated", Help: "Images with fewer copies than configured."},
}

// Leaders counts the shards that have one.
func (s ClusterStatus) Leaders() (n int) {
	for _, shard := range s.Shards {
		if shard.Leader != 0 {
			n++
		}
	}
	return n
}

// Condition returns a node's state in words, with what keeps one that is up from storing.
func (n NodeStatus) Condition() string {
	switch {
	case n.State == NodeUp && n.Problem != "":
		return "up, disk failed"
	case n.State == NodeUp && n.DiskLacks == LacksInodes:
		return "up, no inodes"
	case n.State == NodeUp && n.DiskFull:
		return "up, disk full"
	}
	return string(n.State)
}

// NodeInfo is what a node reports of itself alone: where it runs and how it was configured.
type NodeInfo struct {
	ID       image.NodeID      `json:"id"`
	Version  string            `json:"version"`
	Clock    time.Time         `json:"clock"` // when it answered, by its own clock
	Machine  hostinfo.Host     `json:"machine"`
	Settings map[string]string `json:"settings"` // those of the cluster, not its own paths, by their key
}

// Package wire is what nodes and clients say to each other over HTTP: paths, queries, header fields, problems
// and the documents in JSON. Both ends encode and decode here, so that nothing is written down twice.
package wire

import (
	"time"

	"imgcluster/cluster/hostinfo"
	"imgcluster/cluster/image"
)

// NodeState is what a node thinks of another one.
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

// NodeStatus is one node's figures. Byte counts are bytes, counters grow from the start of the
// node's process. The figures of a node that is down are those last heard, or zero.
type NodeStatus struct {
	ID             image.NodeID `json:"id"`
	API            string       `json:"api"` // host:port
	State          NodeState    `json:"state"`
	Ready          bool         `json:"ready"`
	Problem        string       `json:"problem,omitempty"` // why it stores nothing for now, in words
	Version        string       `json:"version,omitempty"`
	LeaderOf       int          `json:"leader_of"`    // data and system shards led
	OwnedImages    int64        `json:"owned_images"` // committed images whose owner it is
	OwnedBytes     int64        `json:"owned_bytes"`
	StoredImages   int64        `json:"stored_images"` // committed images it holds a copy of
	StoredBytes    int64        `json:"stored_bytes"`  // plaintext length of these
	Files          int64        `json:"files"`         // copies on its disk, those that no record needs any more too
	FileBytes      int64        `json:"file_bytes"`    // their length
	RSSBytes       int64        `json:"rss_bytes"`
	DiskFree       int64        `json:"disk_free_bytes"`
	DiskFreeInodes int64        `json:"disk_free_inodes"`     // NoInodeLimit where they have no fixed number
	DiskFull       bool         `json:"disk_full"`            // it is given no more images, and serves its own
	DiskLacks      Lack         `json:"disk_lacks,omitempty"` // what it is full for the lack of
	StagingBytes   int64        `json:"staging_bytes"`        // image bytes held in memory now
	Uploads        int          `json:"uploads"`              // uploads in progress
	CPUSeconds     float64      `json:"cpu_s"`
	NetRx          int64        `json:"net_rx_bytes"` // bytes on API connections, both directions from the node's view
	NetTx          int64        `json:"net_tx_bytes"`
	UptimeS        float64      `json:"uptime_s"`

	// Of the device under the data directory, by all its users, since the machine started; 0: unknown.
	DiskRead    int64   `json:"disk_read_bytes,omitempty"`
	DiskWritten int64   `json:"disk_written_bytes,omitempty"`
	DiskBusyS   float64 `json:"disk_busy_s,omitempty"`

	// MissingCopies are on the node by the catalog but not on its disk, as after a change of disks.
	MissingCopies int64 `json:"missing_copies,omitempty"`

	// Serves are the shards that the node has the newest state of, and Leads, where not all nodes hold
	// all shards, those that it leads. Only nodes tell each other.
	Serves []uint64      `json:"serves,omitempty"`
	Leads  []ShardReport `json:"leads,omitempty"`
	// Receiving are the uploads whose bodies have been coming in here for a while, for want of a faster client.
	Receiving []image.ID `json:"receiving,omitempty"`
}

// ShardReport is what a shard's leader tells of it.
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
	Replicas        int           `json:"replicas"`
	Images          int64         `json:"images"`
	Bytes           int64         `json:"bytes"`
	UnderReplicated int64         `json:"under_replicated"`
	Nodes           []NodeStatus  `json:"nodes"`
	Shards          []ShardStatus `json:"shards"`
}

// NodeInfo is what a node says of itself alone: where it runs and how it was configured.
type NodeInfo struct {
	ID       image.NodeID      `json:"id"`
	Version  string            `json:"version"`
	Clock    time.Time         `json:"clock"` // when it answered, by its own clock
	Machine  hostinfo.Host     `json:"machine"`
	Settings map[string]string `json:"settings"` // those of the cluster, not its own paths, by their key
}

package wire

import (
	"imgcluster/cluster/image"
)

// The types of a VerifyLine.
const (
	VerifyProgress = "progress" // so much was read so far
	VerifyBad      = "bad"      // a copy is damaged or missing
	VerifyEnd      = "end"      // all was read
	VerifyFailed   = "failed"   // it ended early, see Problem
)

// VerifyLine is one line of what a node sends while it verifies its copies.
type VerifyLine struct {
	Type string `json:"type"`
	VerifySummary
	User    string `json:"user,omitempty"`
	Name    string `json:"name,omitempty"`
	Upload  string `json:"upload,omitempty"`
	Problem string `json:"problem,omitempty"`
	Fixed   bool   `json:"fixed,omitempty"` // the copy was replaced by a good one
}

// VerifySummary counts what was read. Byte counts are of the plaintext.
type VerifySummary struct {
	Node     image.NodeID `json:"node"`
	Images   int64        `json:"images"`
	Bytes    int64        `json:"bytes"`
	OfImages int64        `json:"of_images"` // copies that the node has
	OfBytes  int64        `json:"of_bytes"`
	Bad      int64        `json:"bad"`
	Repaired int64        `json:"repaired"` // of the bad ones
	Skipped  int64        `json:"skipped"`  // could not be judged, for want of a quorum or of open files
}

// Package image is the vocabulary of the cluster: the identities, names, records, receipts and
// errors that the other packages share. It does nothing by itself and imports only the standard
// library.
package image

import (
	"crypto/rand"
	"encoding/hex"
	"strings"
	"time"
	"unicode/utf8"
)

// NodeID is a node's number in the configuration, from 1.
type NodeID uint32

// NodesMax is the most nodes that a cluster has.
const NodesMax = 7

// ID identifies one upload and, once committed, the image it stored. It is a UUID (RFC 9562); the
// cluster and its clients make version 7, other versions are taken from foreign clients.
type ID [16]byte

// NewID returns a fresh UUIDv7: 48 bits of milliseconds, 74 random bits.
func NewID() ID {
	var id ID
	rand.Read(id[:]) // never fails, see crypto/rand
	ms := uint64(time.Now().UnixMilli())
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	return id
}

// ParseID reads the 36-character text form of a UUID. Its error is a KindInvalid.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != idChars || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return ID{}, badID(s)
	}
	if _, err := hex.Decode(id[:], []byte(s[:8]+s[9:13]+s[14:18]+s[19:23]+s[24:])); err != nil ||
		id == (ID{}) {
		return ID{}, badID(s)
	}
	return id, nil
}

func badID(s string) error {
	if len(s) > 64 {
		s = s[:64] + "..."
	}
	return Errorf(KindInvalid, "%q is not an upload ID", s).
		WithHint("send a UUID, such as 0190b6a0-7c1e-7cc0-a1f4-5d6e7f8091a2, as Idempotency-Key")
}

// String returns the 36-character text form.
func (id ID) String() string {
	h := hex.EncodeToString(id[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// Made returns when an ID of NewID was made, to the millisecond; ok is false of another one.
func (id ID) Made() (at time.Time, ok bool) {
	ms := int64(0)
	for _, b := range id[:6] {
		ms = ms<<8 | int64(b)
	}
	return time.UnixMilli(ms), id[6]>>4 == 7
}

// MarshalText implements encoding.TextMarshaler.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *ID) UnmarshalText(b []byte) (err error) {
	*id, err = ParseID(string(b))
	return err
}

// Digest is a SHA-256 of an image's plaintext; its text form is lowercase hexadecimal.
type Digest [32]byte

// String returns 64 hexadecimal digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

func (d *Digest) orEmpty() string {
	if d == nil {
		return ""
	}
	return d.String()
}

// MarshalText implements encoding.TextMarshaler.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Digest) UnmarshalText(b []byte) error { return unhex(d[:], b, "a SHA-256") }

// Record is what the catalog keeps for one image. Copies[0] need not be the owner's.
type Record struct {
	User string `json:"user"`
	Name string `json:"name"`
	// Version is the index of the commit in its shard's log: it grows, and never comes twice in a shard.
	Version uint64 `json:"version"`
	// Recopied is the index of the last entry that changed Copies since, 0 when none has.
	Recopied uint64 `json:"recopied,omitempty"`
	ID       ID     `json:"id"`
	Bytes    int64  `json:"bytes"` // plaintext length
	// Check is what copies and repeated uploads are compared by.
	Check Check `json:"check"`
	// Sealed is the plaintext's SHA-256 under the key of Check, nil when the client neither sent nor asked
	// for it. SHA256 is the same for those who may read the image, and never in the log: read.Images.Reveal.
	Sealed  *SealedDigest `json:"sealed,omitempty"`
	SHA256  *Digest       `json:"-"`
	Type    string        `json:"type,omitempty"` // Content-Type that the client sent; see MediaType
	Owner   NodeID        `json:"owner"`
	Copies  []Copy        `json:"copies"`
	Shard   uint64        `json:"shard"`
	Wanted  int           `json:"wanted"` // copies it should have; fewer Copies is under-replicated
	Created time.Time     `json:"created"`
}

// Changed returns the index of the last entry of its shard's log that changed the record.
func (r *Record) Changed() uint64 { return max(r.Version, r.Recopied) }

// Replicas lists the nodes that hold a copy.
func (r *Record) Replicas() []NodeID {
	ids := make([]NodeID, len(r.Copies))
	for i, c := range r.Copies {
		ids[i] = c.Node
	}
	return ids
}

// Receipt returns the receipt of a committed upload.
func (r *Record) Receipt() Receipt {
	return Receipt{
		User: r.User, Name: r.Name, Version: r.Version, Bytes: r.Bytes, SHA256: r.SHA256.orEmpty(),
		Owner: r.Owner, Replicas: r.Replicas(), Shard: r.Shard, Committed: true,
	}
}

// Request is an upload's header.
type Request struct {
	ID     ID         `json:"id"`
	User   string     `json:"user"`
	Name   string     `json:"name"`
	Size   int64      `json:"size"`           // plaintext bytes
	Type   string     `json:"type,omitempty"` // Content-Type; empty: none
	If     Conditions `json:"if,omitzero"`    // refuse with KindExists or KindChanged when they do not hold
	Digest *Digest    `json:"-"`              // that the body must have; nil: none
	// WantDigest asks for the SHA-256 in the record even without Digest.
	WantDigest bool `json:"-"`
	// Broadcast are the nodes that the sender sends to, this one among them; empty when the node that is
	// asked is to relay the upload.
	Broadcast []NodeID `json:"broadcast,omitempty"`
	// Announced: Broadcast are the nodes that a node has chosen for the upload when its client announced it.
	// They are to store it, the first as its owner; where others have to, they get the bytes from these.
	Announced bool `json:"announced,omitempty"`
	// Relayed: another node, which has had the upload assigned, relays it.
	Relayed bool `json:"relayed,omitempty"`
}

// Receipt acknowledges an upload: its copies are durable and its record is committed.
type Receipt struct {
	User      string   `json:"user"`
	Name      string   `json:"name"`
	Version   uint64   `json:"version"`
	Bytes     int64    `json:"bytes"`
	SHA256    string   `json:"sha256,omitempty"`
	Owner     NodeID   `json:"owner"`
	Replicas  []NodeID `json:"replicas"`
	Shard     uint64   `json:"shard"`
	Committed bool     `json:"committed"`
}

// Limits on names, in bytes.
const (
	userBytesMax = 128
	NameBytesMax = 1024
)

// CheckUser refuses what cannot be a user's name: one path part of 1 to 128 bytes of UTF-8.
func CheckUser(user string) error {
	if strings.Contains(user, "/") {
		return Errorf(KindInvalid, "user name %q contains a slash", clip(user)).
			WithHint("a user's name is one part of the path; an image's may have several")
	}
	return checkParts("user name", user, userBytesMax)
}

// CheckName refuses what cannot be an image's name: 1 to 1,024 bytes of UTF-8 without control
// characters, whose parts between slashes are not empty, "." or "..".
func CheckName(name string) error { return checkParts("image name", name, NameBytesMax) }

func checkParts(what, s string, max int) error {
	hint := "use letters, digits, '-', '_' and '.', with '/' between folders"
	switch {
	case len(s) > max:
		return Errorf(KindInvalid, "%s of %d bytes is longer than %d", what, len(s), max).
			WithHint("shorten it")
	case !utf8.ValidString(s):
		return Errorf(KindInvalid, "%s %q is not UTF-8", what, clip(s)).WithHint(hint)
	}
	for _, r := range s {
		if r < 0x20 || r >= 0x7f && r < 0xa0 {
			return Errorf(KindInvalid, "%s %q has a control character", what, clip(s)).WithHint(hint)
		}
	}
	for part := range strings.SplitSeq(s, "/") {
		if part == "" || part == "." || part == ".." {
			return Errorf(KindInvalid, "%s %q has the part %q", what, clip(s), part).WithHint(hint)
		}
	}
	return nil
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "..."
	}
	return s
}

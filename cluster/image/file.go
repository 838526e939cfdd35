package image

import (
	"crypto/rand"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
)

// Attempt identifies one stored file: 128 random bits, drawn by the node that writes it and never used again.
// It is in the file's name and, authenticated, in its header. Its text form is lowercase hexadecimal.
type Attempt [16]byte

// NewAttempt draws an Attempt.
func NewAttempt() Attempt {
	var a Attempt
	rand.Read(a[:]) // never fails, see crypto/rand
	return a
}

// String returns 32 hexadecimal digits.
func (a Attempt) String() string { return hex.EncodeToString(a[:]) }

// IsZero reports whether a is that of no file.
func (a Attempt) IsZero() bool { return a == Attempt{} }

// MarshalText implements encoding.TextMarshaler.
func (a Attempt) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (a *Attempt) UnmarshalText(b []byte) (err error) {
	*a, err = parseAttempt(string(b))
	return err
}

func parseAttempt(s string) (a Attempt, err error) {
	if len(s) != attemptChars {
		return a, Errorf(KindInvalid, "an attempt ID has %d hexadecimal digits, not %d", attemptChars, len(s))
	}
	if _, err := hex.Decode(a[:], []byte(s)); err != nil || a.IsZero() {
		return Attempt{}, Errorf(KindInvalid, "%q is not an attempt ID", s)
	}
	return a, nil
}

// Copy is one durable copy of an image: the node that holds it, the file it is in, and the number of the
// user's key that the file is encrypted under.
type Copy struct {
	Node    NodeID  `json:"node"`
	Attempt Attempt `json:"attempt"`
	Key     uint32  `json:"key"`
}

// FileID names the file of a copy on its node. The shard is in it because an image ID is the client's choice:
// used for names of two shards, which know nothing of each other, it still names different files.
type FileID struct {
	Image   ID
	Shard   uint64
	Attempt Attempt
}

const (
	idChars      = 36 // length of an ID's text form
	attemptChars = 32 // of an Attempt's
)

// String returns the text form, IMAGE-SHARD-ATTEMPT.
func (f FileID) String() string {
	return f.Image.String() + "-" + strconv.FormatUint(f.Shard, 10) + "-" + f.Attempt.String()
}

// ParseFileID reads exactly what String returns. Its error is a KindInvalid.
func ParseFileID(s string) (f FileID, err error) {
	bad := Errorf(KindInvalid, "%.120q is not the ID of a stored file", s).
		WithHint("it is IMAGE-SHARD-ATTEMPT, as in the name of the file")
	if len(s) <= idChars || s[idChars] != '-' {
		return f, bad
	}
	if f.Image, err = ParseID(s[:idChars]); err != nil {
		return FileID{}, bad
	}
	shard, attempt, _ := strings.Cut(s[idChars+1:], "-")
	if f.Shard, err = strconv.ParseUint(shard, 10, 64); err == nil {
		f.Attempt, err = parseAttempt(attempt)
	}
	if err != nil || f.String() != s { // one file has one name
		return FileID{}, bad
	}
	return f, nil
}

// Has reports whether one of the record's copies is in this file on this node.
func (r *Record) Has(node NodeID, a Attempt) bool {
	return slices.ContainsFunc(r.Copies, func(c Copy) bool { return c.Node == node && c.Attempt == a })
}

// File returns the file of one of the record's copies.
func (r *Record) File(c Copy) FileID { return FileID{Image: r.ID, Shard: r.Shard, Attempt: c.Attempt} }

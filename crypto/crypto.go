// Package crypto has one job: it turns an image's plaintext into one self-describing encrypted file
// and back, and keeps the keys that this takes. It knows no network, no Raft and no disk layout.
//
// Keys wrap each other in three steps: the master key (a file, or the environment) wraps each
// user's key, the user's key wraps each copy's data key, and the data key gives the stream key and
// the commitment. A file is a header, then Tink's AES256-GCM-HKDF stream with the header as its
// associated data; FORMAT.md beside this file has every byte.
//
// While an upload arrives a node writes through an EncryptWriter. A reader fetches the first
// PrefixMaxBytes of the file, calls Open, asks Range which bytes of the file it needs, and reads
// them through a RangeReader, wherever they come from. No byte of plaintext is released before
// the segment that holds it is authenticated.
package crypto

import "errors"

// What can go wrong, for errors.Is. Each comes inside an *Error that has the details and a hint.
var (
	// ErrAuth: the file was changed, cut or extended, or the key is not the one it was made with.
	ErrAuth = errors.New("authentication failed")
	// ErrFormat: not such a file or value at all, or of a version or suite that is not known here.
	ErrFormat = errors.New("unknown format")
	// ErrLength: an EncryptWriter got more or fewer bytes than its header announces.
	ErrLength = errors.New("plaintext length differs from the announced one")
	// ErrRange: a range that is not inside the plaintext.
	ErrRange = errors.New("range outside the image")
	// ErrInvalid: header fields or a key that no file can be made with.
	ErrInvalid = errors.New("invalid argument")

	ErrKeyExists     = errors.New("master key file exists")
	ErrKeyMissing    = errors.New("master key file is missing")
	ErrKeyUnreadable = errors.New("master key file cannot be read")
	ErrKeyUnwritable = errors.New("master key file cannot be made")
	ErrKeyMode       = errors.New("master key file is open to others")
	ErrKeyTooLarge   = errors.New("master key file is too large")
	ErrKeyMalformed  = errors.New("master key is malformed")
	ErrKeyMismatch   = errors.New("master key does not match its ID")
	ErrKeyCommand    = errors.New("command gives no master key")
	// ErrNoUserKey: an export of keys lacks the one that is needed.
	ErrNoUserKey = errors.New("user's key is missing")
	// ErrOtherMaster: a wrapped user key belongs to another master key than this one.
	ErrOtherMaster = errors.New("wrapped by another master key")
)

// Error is a failure of this package: one of the errors above as Kind, what happened, what to do
// next, and the cause if there is one. No part of it ever holds bytes of a key.
type Error struct {
	Kind   error
	Detail string
	Err    error // the cause; may be nil
	hint   string
}

func (e *Error) Error() string {
	if e.Err != nil {
		return e.Detail + ": " + e.Err.Error()
	}
	return e.Detail
}

// Hint returns the next step.
func (e *Error) Hint() string { return e.hint }

// ExitStatus returns the program's exit status 2: the key, the file or what was asked has to change.
func (e *Error) ExitStatus() int { return 2 }

// Unwrap gives errors.Is and errors.As the kind and the cause.
func (e *Error) Unwrap() []error {
	if e.Err != nil {
		return []error{e.Kind, e.Err}
	}
	return []error{e.Kind}
}

// Hints that several places share.
const (
	hintDamaged  = "read another copy of the image, and repair this one from it: imgcluster verify"
	hintNewer    = "this may be the work of a newer imgcluster: use that one"
	hintNotAFile = "give a stored image file (*.img) that imgcluster wrote"
)

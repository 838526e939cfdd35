package crypto

import (
	"bytes"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"io"
	"unicode/utf8"
)

const (
	magic   = "IMGCLST\x00"
	version = 1
	// suiteGCM is AES256-GCM-HKDF-SHA256 streaming, AES-256-GCM wraps, HKDF-SHA256 commitment.
	suiteGCM = 1

	// tenantMaxBytes bounds the user name in a header.
	tenantMaxBytes = 128
	// HeaderMaxBytes bounds a header of this version.
	HeaderMaxBytes = offTenant + tenantMaxBytes
	// PrefixMaxBytes is how much of a file Open may need: fetch this much, or the whole file if it
	// is shorter.
	PrefixMaxBytes = HeaderMaxBytes + StreamHeaderBytes
)

// Offsets of the header's fields; numbers are big-endian. FORMAT.md has the same as a table.
const (
	offVersion    = 8
	offSuite      = 9
	offHeaderLen  = 10
	offSegment    = 12
	offImage      = 16
	offAttempt    = 32
	offUserKey    = 48
	offLength     = 52
	offWrapped    = 60
	offSalt       = offWrapped + wrappedBytes       // 120
	offCommitment = offSalt + saltBytes             // 152
	offTenant     = offCommitment + commitmentBytes // 184

	// fixedBytes is what says the header's length.
	fixedBytes      = offSegment
	commitmentBytes = 32
)

const (
	infoDataKeyWrap = "imgcluster v1 data key wrap"
	infoCommitment  = "imgcluster v1 key commitment"
)

// HeaderFields is what the maker of a file decides.
type HeaderFields struct {
	Image       [16]byte
	Attempt     [16]byte // of this file and of no other
	Tenant      string   // 1 to tenantMaxBytes bytes of UTF-8
	UserKey     uint32   // ID of the user's key that wraps the data key
	Length      int64    // bytes of plaintext
	SegmentSize int      // bytes of a ciphertext segment; 0 is SegmentSizeDefault
}

// check refuses what no file can be made with; it is also what ParseHeader trusts.
func (f *HeaderFields) check() error {
	if err := checkTenant(f.Tenant); err != nil {
		return err
	}
	switch {
	case f.SegmentSize < segmentSizeMin || f.SegmentSize > SegmentSizeDefault:
		return invalid(fmt.Sprintf("segment size %d is not within %d and %d bytes",
			f.SegmentSize, segmentSizeMin, SegmentSizeDefault))
	case f.Length < 0 || f.Length > lengthMax:
		return invalid(fmt.Sprintf("length %d is not within 0 and %d bytes", f.Length, int64(lengthMax)))
	case f.layout().segments() > segmentsMax:
		return invalid(fmt.Sprintf("%d bytes are too many for segments of %d bytes", f.Length, f.SegmentSize))
	}
	return nil
}

func checkTenant(tenant string) error {
	switch {
	case tenant == "" || len(tenant) > tenantMaxBytes:
		return invalid(fmt.Sprintf("user name of %d bytes is not within 1 and %d",
			len(tenant), tenantMaxBytes))
	case !utf8.ValidString(tenant):
		return invalid("user name is not UTF-8")
	}
	return nil
}

func invalid(detail string) error {
	return &Error{Kind: ErrInvalid, Detail: detail, hint: "stay within the limits that FORMAT.md lists"}
}

func (f *HeaderFields) layout() layout {
	return layout{header: int64(headerBytes(f.Tenant)), segment: int64(f.SegmentSize), length: f.Length}
}

// headerBytes returns the size in bytes of the header of a tenant's files.
func headerBytes(tenant string) int { return offTenant + len(tenant) }

// Header is the start of a file. ParseHeader alone proves nothing of it: it is authenticated by
// Open.
type Header struct {
	HeaderFields
	wrapped    [wrappedBytes]byte
	salt       [saltBytes]byte
	commitment [commitmentBytes]byte
}

// FileLen returns the size in bytes of the whole file.
func (h *Header) FileLen() int64 { return h.layout().fileLen() }

// Marshal returns the header's bytes.
func (h *Header) Marshal() []byte {
	b := make([]byte, headerBytes(h.Tenant))
	copy(b, magic)
	b[offVersion] = version
	b[offSuite] = suiteGCM
	binary.BigEndian.PutUint16(b[offHeaderLen:], uint16(len(b)))
	binary.BigEndian.PutUint32(b[offSegment:], uint32(h.SegmentSize))
	copy(b[offImage:], h.Image[:])
	copy(b[offAttempt:], h.Attempt[:])
	binary.BigEndian.PutUint32(b[offUserKey:], h.UserKey)
	binary.BigEndian.PutUint64(b[offLength:], uint64(h.Length))
	copy(b[offWrapped:], h.wrapped[:])
	copy(b[offSalt:], h.salt[:])
	copy(b[offCommitment:], h.commitment[:])
	copy(b[offTenant:], h.Tenant)
	return b
}

// ParseHeader reads the header at the start of prefix, which may go on after it. The header says
// which user's key is needed; nothing in it is authenticated yet. Its errors are of kind ErrFormat, or
// ErrAuth when the header is cut short.
func ParseHeader(prefix []byte) (*Header, error) {
	n, err := headerLen(prefix)
	if err != nil {
		return nil, err
	}
	if len(prefix) < n {
		return nil, truncated(int64(len(prefix)), int64(n))
	}
	b := prefix[:n]
	h := &Header{HeaderFields: HeaderFields{
		Tenant:      string(b[offTenant:]),
		UserKey:     binary.BigEndian.Uint32(b[offUserKey:]),
		SegmentSize: int(binary.BigEndian.Uint32(b[offSegment:])),
	}}
	copy(h.Image[:], b[offImage:])
	copy(h.Attempt[:], b[offAttempt:])
	copy(h.wrapped[:], b[offWrapped:])
	copy(h.salt[:], b[offSalt:])
	copy(h.commitment[:], b[offCommitment:])
	length := binary.BigEndian.Uint64(b[offLength:])
	h.Length = int64(min(length, lengthMax+1)) // more is refused all the same, and cannot wrap around
	if err := h.check(); err != nil {
		return nil, &Error{
			Kind: ErrFormat, Detail: "header at byte 0 is malformed: " + err.Error(), hint: hintDamaged,
		}
	}
	return h, nil
}

// headerLen judges the fixed start of a file and returns the header's length, which is within
// HeaderMaxBytes.
func headerLen(prefix []byte) (int, error) {
	n := min(len(prefix), len(magic))
	if string(prefix[:n]) != magic[:n] {
		return 0, &Error{
			Kind: ErrFormat, Detail: "not an imgcluster file: it does not start with the magic bytes",
			hint: hintNotAFile,
		}
	}
	if len(prefix) < fixedBytes {
		return 0, truncated(int64(len(prefix)), fixedBytes)
	}
	if v, s := prefix[offVersion], prefix[offSuite]; v != version || s != suiteGCM {
		return 0, &Error{
			Kind: ErrFormat,
			Detail: fmt.Sprintf("file of version %d, suite %d; only %d, %d is known",
				v, s, version, suiteGCM),
			hint: hintNewer,
		}
	}
	size := int(binary.BigEndian.Uint16(prefix[offHeaderLen:]))
	if size <= offTenant || size > HeaderMaxBytes {
		return 0, &Error{
			Kind: ErrFormat,
			Detail: fmt.Sprintf("header length %d at byte %d is not within %d and %d",
				size, offHeaderLen, offTenant+1, HeaderMaxBytes),
			hint: hintDamaged,
		}
	}
	return size, nil
}

func truncated(have, want int64) error {
	return &Error{
		Kind:   ErrAuth,
		Detail: fmt.Sprintf("file is cut at byte %d, before byte %d", have, want),
		hint:   hintDamaged,
	}
}

// Matches refuses, with ErrAuth, a file that is not the copy that the record calls for, such as
// an intact file under another one's name, or an older one of the same image.
func (h *Header) Matches(image, attempt [16]byte, tenant string, length int64) error {
	if h.Image == image && h.Attempt == attempt && h.Tenant == tenant && h.Length == length {
		return nil
	}
	return &Error{
		Kind: ErrAuth,
		Detail: fmt.Sprintf("file is image %x of %q, attempt %x, %d bytes; "+
			"the record says %x of %q, attempt %x, %d bytes",
			h.Image, h.Tenant, h.Attempt, h.Length, image, tenant, attempt, length),
		hint: hintDamaged,
	}
}

// sealHeader draws a data key and a salt, and makes the header that goes with them.
func sealHeader(f HeaderFields, userKey Key, random io.Reader) (*Header, Key, error) {
	if f.SegmentSize == 0 {
		f.SegmentSize = SegmentSizeDefault
	}
	if err := f.check(); err != nil {
		return nil, Key{}, err
	}
	h := &Header{HeaderFields: f}
	dataKey, err := randomKey(random)
	if err != nil {
		return nil, Key{}, fmt.Errorf("draw a data key: %w", err)
	}
	if _, err := io.ReadFull(random, h.salt[:]); err != nil {
		return nil, Key{}, fmt.Errorf("draw a salt: %w", err)
	}
	a, err := deriveGCM(userKey, h.salt[:], infoDataKeyWrap)
	if err != nil {
		return nil, Key{}, err
	}
	if err := wrap(h.wrapped[:], a, dataKey, h.wrapAD(), random); err != nil {
		return nil, Key{}, err
	}
	return h, dataKey, derive(h.commitment[:], dataKey, h.salt[:], infoCommitment)
}

// openHeader authenticates the header's fields and returns the data key. The commitment comes
// before any decryption of the body: GCM alone lets one ciphertext open under two keys.
func (h *Header) openHeader(userKey Key) (Key, error) {
	a, err := deriveGCM(userKey, h.salt[:], infoDataKeyWrap)
	if err != nil {
		return Key{}, err
	}
	dataKey, ok := unwrap(a, h.wrapped[:], h.wrapAD())
	if !ok {
		return Key{}, h.authError("the wrapped data key does not open: the header was changed, " +
			"or key %d of user %q is not the one it was made with")
	}
	var c [commitmentBytes]byte
	if err := derive(c[:], dataKey, h.salt[:], infoCommitment); err != nil {
		return Key{}, err
	}
	if subtle.ConstantTimeCompare(c[:], h.commitment[:]) != 1 {
		dataKey.Zero()
		return Key{}, h.authError("the key commitment does not match: the header was changed, " +
			"key %d of user %q opens it")
	}
	return dataKey, nil
}

func (h *Header) authError(format string) error {
	return &Error{
		Kind:   ErrAuth,
		Detail: "header at byte 0: " + fmt.Sprintf(format, h.UserKey, h.Tenant),
		hint:   hintDamaged,
	}
}

// wrapAD binds the data key to purpose and identity: all fields before the wrapped key, and the
// tenant. The salt is bound by the wrapping key, which is derived with it.
func (h *Header) wrapAD() []byte {
	b := h.Marshal()
	return bytes.Join([][]byte{[]byte(infoDataKeyWrap), b[:offWrapped], b[offTenant:]}, nil)
}

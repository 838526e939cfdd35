package crypto

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"unicode/utf16"
	"unicode/utf8"
)

// Purposes, bound into what each key gives so that no two uses can be taken for each other.
const (
	infoMasterID    = "imgcluster v1 master key id"
	infoUserKeyWrap = "imgcluster v1 user key wrap"
	infoDiskKeyWrap = "imgcluster v1 disk key wrap"
)

const (
	masterIDBytes = 8
	// keyLineMagic starts the line of a master key file that has the key.
	keyLineMagic  = keyLineFormat + "1"
	keyLineFormat = "imgcluster-master-key-v"
	// userWrapVersion is the first byte of a wrapped user key.
	userWrapVersion = 1
	userWrapBytes   = 1 + masterIDBytes + wrappedBytes
)

// MasterKey wraps the users' keys. It prints as its ID. It is safe for use by several goroutines.
type MasterKey struct {
	key Key
	id  [masterIDBytes]byte
}

// newMasterKey computes the ID of key.
func newMasterKey(key Key) (*MasterKey, error) {
	m := &MasterKey{key: key}
	return m, derive(m.id[:], key, nil, infoMasterID)
}

// ID returns 16 hexadecimal digits that tell master keys apart. They are derived from the key and
// reveal nothing of it.
func (m *MasterKey) ID() string { return hex.EncodeToString(m.id[:]) }

// Zero overwrites the key, which is none from then on. No other goroutine may be using it.
func (m *MasterKey) Zero() { m.key.Zero() }

// Format implements fmt.Formatter: every verb prints the ID, none the key.
func (m *MasterKey) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "master key %s", m.ID()) }

// MarshalText implements encoding.TextMarshaler: the ID.
func (m *MasterKey) MarshalText() ([]byte, error) { return []byte(m.ID()), nil }

// Derive returns n bytes, at most 8160, that follow from the master key and a purpose by HKDF-SHA256 (RFC
// 5869). The purpose starts with "imgcluster v1 " and is used for nothing else; who learns what one gives
// learns nothing of another, nor of the key. The error is that the key was zeroed.
func (m *MasterKey) Derive(purpose string, n int) ([]byte, error) {
	out := make([]byte, n)
	return out, derive(out, m.key, nil, purpose)
}

// file is the text of a master key file.
func (m *MasterKey) file() []byte {
	const lineBytes = len(keyLineMagic) + 1 + 2*masterIDBytes + 1 + (keyBytes+2)/3*4 + 1
	text := make([]byte, 0, len(keyFileComment)+lineBytes) // once: clear reaches all of it
	text = append(text, keyFileComment...)
	text = append(text, keyLineMagic+" "+m.ID()+" "...)
	text = base64.StdEncoding.AppendEncode(text, m.key.b()[:])
	return append(text, '\n')
}

// MasterKeyFromEnv reads a master key from text: the line of a key file, with or without the
// comments around it. Its errors never quote the text.
func MasterKeyFromEnv(text string) (*MasterKey, error) {
	return parseMaster([]byte(text), MasterKeyEnv)
}

// parseMaster reads the one key of a file.
func parseMaster(text []byte, from string) (*MasterKey, error) {
	keys, err := parseMasters(text, from)
	if err == nil && len(keys) > 1 {
		return nil, malformedKey(from, "more than one line that is not a comment")
	}
	if err != nil {
		return nil, err
	}
	return keys[0], nil
}

func malformedKey(from, why string) error {
	return &Error{
		Kind: ErrKeyMalformed, Detail: "master key in " + from + ": " + why,
		hint: "restore it from your backup; it is one line: " + keyLineMagic + " ID KEY",
	}
}

// parseMasters reads one key, or two while the master key is rotated. It makes no copy of a key but those
// that it returns.
func parseMasters(text []byte, from string) ([]*MasterKey, error) {
	text, other := plainText(text)
	if other {
		defer clear(text)
	}
	lines, problem := keyLines(text)
	if problem != "" {
		return nil, malformedKey(from, problem)
	}
	var keys []*MasterKey
	for _, line := range lines {
		m, err := parseLine(line, from)
		if err != nil {
			return nil, err
		}
		keys = append(keys, m)
	}
	return keys, nil
}

func parseLine(line []byte, from string) (*MasterKey, error) {
	malformed := func(why string) error { return malformedKey(from, why) }
	fields := bytes.Fields(line)
	if string(fields[0]) != keyLineMagic {
		if bytes.HasPrefix(fields[0], []byte(keyLineFormat)) {
			return nil, &Error{
				Kind: ErrKeyMalformed, Detail: "master key in " + from + ": its version is not that of " + keyLineMagic,
				hint: hintNewer,
			}
		}
		return nil, malformed("the line does not start with " + keyLineMagic)
	}
	if len(fields) != 3 {
		return nil, malformed("the line does not have three fields")
	}
	raw := make([]byte, base64.StdEncoding.DecodedLen(len(fields[2])))
	n, derr := base64.StdEncoding.Strict().Decode(raw, fields[2])
	if derr != nil || n != keyBytes { // the decoder's error would quote the key
		clear(raw)
		return nil, malformed("the key is not 32 bytes in base64")
	}
	m, err := newMasterKey(keyOf((*[keyBytes]byte)(raw)))
	if err != nil {
		return nil, malformed("the key is all zero")
	}
	if string(fields[1]) != m.ID() {
		return nil, &Error{
			Kind: ErrKeyMismatch, Detail: "master key in " + from + " does not match the ID before it",
			hint: "one of the two was changed: restore the line from your backup",
		}
	}
	return m, nil
}

// Marks that editors put in front of a text, which say how it is written.
const (
	markUTF8    = "\xef\xbb\xbf"
	markUTF16LE = "\xff\xfe"
	markUTF16BE = "\xfe\xff"
)

// plainText returns a text without its mark, in UTF-8: a part of it, or where it was UTF-16 another one.
func plainText(text []byte) (plain []byte, other bool) {
	var order binary.ByteOrder
	switch {
	case bytes.HasPrefix(text, []byte(markUTF16LE)):
		order = binary.LittleEndian
	case bytes.HasPrefix(text, []byte(markUTF16BE)):
		order = binary.BigEndian
	default:
		return bytes.TrimPrefix(text, []byte(markUTF8)), false
	}
	plain = make([]byte, 0, utf8.UTFMax*len(text))
	for i := 2; i+1 < len(text); i += 2 {
		r := rune(order.Uint16(text[i:]))
		if utf16.IsSurrogate(r) && i+3 < len(text) {
			if both := utf16.DecodeRune(r, rune(order.Uint16(text[i+2:]))); both != utf8.RuneError {
				r = both
				i += 2
			}
		}
		plain = utf8.AppendRune(plain, r)
	}
	return plain, true
}

// keyLines finds the lines that are neither empty nor a comment, at most masterKeysMax, or says why there
// are none.
func keyLines(text []byte) (lines [][]byte, problem string) {
	if bytes.IndexByte(text, 0) >= 0 {
		return nil, "it is not plain text, or UTF-16 without a mark; save it as UTF-8"
	}
	for l := range bytes.Lines(text) {
		l = bytes.TrimSpace(l)
		if len(l) == 0 || l[0] == '#' {
			continue
		}
		if len(lines) == masterKeysMax {
			return nil, "more than two lines that are no comments"
		}
		lines = append(lines, l)
	}
	if lines == nil {
		return nil, "no line with a key"
	}
	return lines, ""
}

// WrapUserKey encrypts a user's key for storage: version, master key ID, and AES-256-GCM with a
// random 96-bit nonce under a key derived from the master key for this purpose, bound to tenant
// and id.
//
// NIST SP 800-38D (8.3) allows 2^32 encryptions with random nonces under one key; this design
// stops at half of that. A master key makes one wrap for each user key version, so 2^31 of them
// is far beyond any catalog; rotate the master key before.
func (m *MasterKey) WrapUserKey(tenant string, id uint32, k Key) ([]byte, error) {
	return m.wrapUserKey(tenant, id, k, rand.Reader)
}

func (m *MasterKey) wrapUserKey(tenant string, id uint32, k Key, random io.Reader) ([]byte, error) {
	if err := checkTenant(tenant); err != nil {
		return nil, err
	}
	if err := k.check(); err != nil {
		return nil, err
	}
	a, err := deriveGCM(m.key, nil, infoUserKeyWrap)
	if err != nil {
		return nil, err
	}
	out := make([]byte, userWrapBytes)
	out[0] = userWrapVersion
	copy(out[1:], m.id[:])
	err = wrap(out[1+masterIDBytes:], a, k, userWrapAD(out, tenant, id), random)
	return out, err
}

// WrapDiskKey seals the key of a node's data directory for storage beside it.
func (m *MasterKey) WrapDiskKey(k Key) ([]byte, error) {
	if err := k.check(); err != nil {
		return nil, err
	}
	s, err := m.Sealer(infoDiskKeyWrap)
	if err != nil {
		return nil, err
	}
	return s.Seal(k.b()[:], nil), nil
}

// UnwrapDiskKey is the inverse of WrapDiskKey. Its error is of kind ErrAuth: the wrapped key was changed, or
// it is another master key's.
func (m *MasterKey) UnwrapDiskKey(wrapped []byte) (Key, error) {
	s, err := m.Sealer(infoDiskKeyWrap)
	if err != nil {
		return Key{}, err
	}
	b, err := s.Open(wrapped, nil)
	if err == nil && len(b) != keyBytes {
		err = &Error{Kind: ErrAuth, Detail: "wrapped disk key has another length", hint: hintNewer}
	}
	if err != nil {
		return Key{}, err
	}
	return keyOf((*[keyBytes]byte)(b)), nil
}

// UnwrapUserKey is the inverse of WrapUserKey. Its errors are of kind ErrFormat, ErrOtherMaster
// (this master key did not wrap it) or ErrAuth (changed, or of another tenant or ID).
func (m *MasterKey) UnwrapUserKey(tenant string, id uint32, wrapped []byte) (Key, error) {
	if len(wrapped) != userWrapBytes || wrapped[0] != userWrapVersion {
		return Key{}, &Error{
			Kind: ErrFormat,
			Detail: fmt.Sprintf("%d bytes are not a wrapped user key of version %d",
				len(wrapped), userWrapVersion),
			hint: hintNewer,
		}
	}
	if by := hex.EncodeToString(wrapped[1 : 1+masterIDBytes]); by != m.ID() {
		return Key{}, &Error{
			Kind: ErrOtherMaster,
			Detail: fmt.Sprintf("key %d of user %q is wrapped by master key %s, not by %s", id, tenant, by,
				m.ID()),
			hint: "give this node the cluster's master key file; it is the same on all nodes",
		}
	}
	a, err := deriveGCM(m.key, nil, infoUserKeyWrap)
	if err != nil {
		return Key{}, err
	}
	k, ok := unwrap(a, wrapped[1+masterIDBytes:], userWrapAD(wrapped, tenant, id))
	if !ok {
		return Key{}, &Error{
			Kind:   ErrAuth,
			Detail: fmt.Sprintf("wrapped key %d of user %q was changed or is of another user", id, tenant),
			hint:   "restore the catalog from another node",
		}
	}
	return k, nil
}

// userWrapAD binds purpose, version, master key, key ID and tenant. All but the last have a
// fixed length.
func userWrapAD(wrapped []byte, tenant string, id uint32) []byte {
	ad := append([]byte(infoUserKeyWrap), wrapped[:1+masterIDBytes]...)
	ad = binary.BigEndian.AppendUint32(ad, id)
	return append(ad, tenant...)
}

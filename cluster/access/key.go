package access

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
	"imgcluster/crypto"
)

// Purposes of what is derived from the master key for access keys.
const (
	purposeSeal = "imgcluster v1 access key seal"
	purposeID   = "imgcluster v1 access key id"
)

// The text of an access key: an ID of idPrefix and 18 characters of A-Z and 2-7, and a secret of 40
// characters of URL-safe base64. Neither has a dot, which is between them, nor a colon.
const (
	idPrefix    = "IC"
	idDrawn     = 7 // random bytes of an ID
	idProof     = 4 // bytes that prove that a node has made it
	idChars     = len(idPrefix) + 18
	secretBytes = 30
	secretChars = 40
)

var idEncoding = base32.StdEncoding.WithPadding(base32.NoPadding)

// Secret is the secret of an access key. However it is printed or marshalled it says "redacted". The text is
// held by a function, which fmt cannot look into.
type Secret struct{ text func() string }

// NewSecret returns the secret with this text.
func NewSecret(text string) Secret { return Secret{func() string { return text }} }

// Reveal returns the text, empty for the zero Secret.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return s.text()
}

// String returns "redacted".
func (s Secret) String() string { return "redacted" }

// Format implements fmt.Formatter, for every verb.
func (s Secret) Format(f fmt.State, _ rune) { io.WriteString(f, s.String()) }

// MarshalText implements encoding.TextMarshaler, for JSON too.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// sealVersion is the first byte of a sealed secret: then the master key's ID, and the secret under a key that
// is derived from the master key for this purpose. It is bound to the access key's ID, user, role and end.
const sealVersion = 1

// Sealer makes access keys and opens their sealed secrets. A secret is sealed rather than hashed, since it is
// to verify signatures of requests too. It is safe for concurrent use.
type Sealer struct {
	good  *crypto.PerKey[*masterSealer]
	anyID atomic.Bool
}

// masterSealer is what follows from one master key.
type masterSealer struct {
	sealer *crypto.Sealer
	head   []byte // of what it seals: version and master key
	proof  []byte // key of the proofs in IDs
	// session is the key of the sessions' cookies.
	session []byte
}

// NewSealer returns the sealer of the master keys that are good: the first one seals, all open. The error is
// that a key was zeroed.
func NewSealer(masters crypto.Masters) (*Sealer, error) {
	good, err := crypto.NewPerKey(masters, newMasterSealer)
	return &Sealer{good: good}, err
}

// must returns the sealers of master keys that are in use, none of which is zeroed, that which seals first.
func (s *Sealer) must() []*masterSealer {
	all, err := s.good.All()
	if err != nil {
		panic(err)
	}
	return all
}

func newMasterSealer(master *crypto.MasterKey) (*masterSealer, error) {
	id, err := hex.DecodeString(master.ID())
	s := &masterSealer{head: append([]byte{sealVersion}, id...)}
	if err == nil {
		s.sealer, err = master.Sealer(purposeSeal)
	}
	if err == nil {
		s.proof, err = master.Derive(purposeID, 32)
	}
	if err == nil {
		s.session, err = master.Derive(purposeSession, 32)
	}
	if err != nil {
		return nil, fmt.Errorf("derive the keys of access keys: %w", err)
	}
	return s, nil
}

// New makes an access key, and returns its secret beside it: nobody shows it again. expires is zero for one
// that never does.
func (s *Sealer) New(
	user string, role image.Role, created, expires time.Time,
) (catalog.AccessKey, Secret) {
	k := catalog.AccessKey{ID: s.newID(), User: user, Role: role, Created: created, Expires: expires}
	raw := make([]byte, secretBytes)
	rand.Read(raw) // never fails, see crypto/rand
	text := base64.RawURLEncoding.EncodeToString(raw)
	k.Sealed = s.must()[0].seal(&k, []byte(text))
	return k, NewSecret(text)
}

// Reseal seals the secret of an access key by the master key that seals now. ok is false when none of the
// master keys that are good has sealed it.
func (s *Sealer) Reseal(k *catalog.AccessKey) (sealed []byte, ok bool) {
	secret, ok := s.open(k)
	defer clear(secret)
	if !ok {
		return nil, false
	}
	return s.must()[0].seal(k, secret), true
}

func (s *Sealer) newID() string {
	raw := make([]byte, idDrawn, idDrawn+idProof)
	rand.Read(raw)
	return idPrefix + idEncoding.EncodeToString(append(raw, s.must()[0].proofOf(raw)...))
}

func (s *masterSealer) proofOf(drawn []byte) []byte { return macOf(s.proof, drawn)[:idProof] }

// macOf returns the HMAC-SHA-256 of data.
func macOf(key, data []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write(data)
	return mac.Sum(nil)
}

// AnyID says that the cluster had another master key before: keys that were made then have IDs that prove
// nothing, so that every ID that is well-formed is searched for.
func (s *Sealer) AnyID() { s.anyID.Store(true) }

// genuine reports whether a node with this master key has made an ID. There need be no such key any more;
// this spares the cluster the search for what a stranger has made up.
func (s *Sealer) genuine(id string) bool {
	raw, err := idEncoding.DecodeString(strings.TrimPrefix(id, idPrefix))
	if s.anyID.Load() {
		return true
	}
	return err == nil && len(raw) == idDrawn+idProof &&
		slices.ContainsFunc(s.must(), func(one *masterSealer) bool {
			return hmac.Equal(raw[idDrawn:], one.proofOf(raw[:idDrawn]))
		})
}

func (s *masterSealer) seal(k *catalog.AccessKey, secret []byte) []byte {
	return append(slices.Clone(s.head), s.sealer.Seal(secret, s.bound(k))...)
}

// open returns the secret of an access key; ok is false for what no good master key has sealed for it.
func (s *Sealer) open(k *catalog.AccessKey) (secret []byte, ok bool) {
	for _, one := range s.must() {
		if secret, ok = one.open(k); ok {
			break
		}
	}
	return secret, ok
}

func (s *masterSealer) open(k *catalog.AccessKey) (secret []byte, ok bool) {
	sealed, ok := bytes.CutPrefix(k.Sealed, s.head)
	if !ok {
		return nil, false
	}
	secret, err := s.sealer.Open(sealed, s.bound(k))
	return secret, err == nil
}

// current reports whether the master key that seals now has sealed the secret of an access key.
func (s *Sealer) current(k *catalog.AccessKey) bool {
	return bytes.HasPrefix(k.Sealed, s.must()[0].head)
}

// bound is the associated data of a sealed secret.
func (s *masterSealer) bound(k *catalog.AccessKey) []byte {
	ad := append([]byte(purposeSeal), s.head...)
	for _, part := range []string{k.ID, k.User, string(k.Role)} {
		ad = binary.BigEndian.AppendUint16(ad, uint16(len(part)))
		ad = append(ad, part...)
	}
	end := int64(0)
	if !k.Expires.IsZero() {
		end = k.Expires.UnixNano()
	}
	return binary.BigEndian.AppendUint64(ad, uint64(end))
}

// matches reports whether secret is that of the access key, in a time that depends on neither.
func (s *Sealer) matches(k *catalog.AccessKey, secret string) bool {
	want, ok := s.open(k)
	defer clear(want)
	return subtle.ConstantTimeCompare(want, []byte(secret)) == 1 && ok
}

// wellFormed reports whether these can be an access key's ID and secret.
func wellFormed(id, secret string) bool {
	if len(id) != idChars || len(secret) != secretChars || !strings.HasPrefix(id, idPrefix) {
		return false
	}
	_, badID := idEncoding.DecodeString(id[len(idPrefix):])
	_, badSecret := base64.RawURLEncoding.Strict().DecodeString(secret)
	return badID == nil && badSecret == nil
}

// Credentials are an access key as a client has it. The zero Credentials are none.
type Credentials struct {
	ID     string
	Secret Secret
}

// NewCredentials returns the credentials of an access key. The error, which quotes nothing, is that it has
// another form.
func NewCredentials(id, secret string) (Credentials, error) {
	if !wellFormed(id, secret) {
		return Credentials{}, image.Errorf(image.KindInvalid,
			"an access key's ID has %d characters and begins with %s, its secret has %d", idChars, idPrefix,
			secretChars).WithHint("copy both as imgcluster key add has shown them")
	}
	return Credentials{id, NewSecret(secret)}, nil
}

// None reports whether these are no credentials.
func (c Credentials) None() bool { return c.ID == "" }

// Authorize sets the field of a request's header that has the key.
func (c Credentials) Authorize(h http.Header) {
	h.Set("Authorization", "Bearer "+c.ID+"."+c.Secret.Reveal())
}

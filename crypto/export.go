package crypto

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"filippo.io/age"
)

const (
	// exportFormat is the first line's word for what an export is.
	exportFormat = "imgcluster-user-keys-v1"
	// exportLineMax bounds a line of an export, in bytes.
	exportLineMax = 4 << 10
	// identityBytesMax bounds an identity file.
	identityBytesMax = 64 << 10

	hintExport = "give a file that imgcluster keys export has written, and an identity of one of its recipients"
)

// exportLine is a line of an export: the first has Format, Cluster and Created, the last Keys alone, and each
// one in between a user's key.
type exportLine struct {
	Format  string    `json:"format,omitempty"`
	Cluster string    `json:"cluster,omitempty"`
	Created time.Time `json:"created,omitzero"`

	User   string `json:"user,omitempty"`
	Key    uint32 `json:"key,omitempty"`
	Secret []byte `json:"secret,omitempty"`

	Keys *int `json:"keys,omitempty"`
}

// Export writes users' keys, as JSON lines encrypted with age (age-encryption.org/v1) to recipients. What it
// has written can be opened once it is closed without an error.
type Export struct {
	w    io.WriteCloser
	keys int
	err  error
}

// NewExport begins an export of a cluster's users' keys to recipients, in the text form of age (age1...).
// Errors are of kind ErrInvalid for a recipient that is none, else those of w.
func NewExport(w io.Writer, cluster string, created time.Time, recipients ...string) (*Export, error) {
	var to []age.Recipient
	for _, text := range recipients {
		parsed, err := age.ParseRecipients(strings.NewReader(text))
		if err != nil || len(parsed) != 1 {
			return nil, &Error{
				Kind: ErrInvalid, Detail: "not an age recipient", // the text may be an identity, which is secret
				hint: "make an identity with age-keygen -o FILE, keep that file in a safe place, " +
					"and give the public key that it prints (age1...)",
			}
		}
		to = append(to, parsed...)
	}
	e := &Export{}
	if e.w, e.err = age.Encrypt(w, to...); e.err != nil {
		return nil, fmt.Errorf("encrypt to the recipients: %w", e.err)
	}
	return e, e.line(exportLine{Format: exportFormat, Cluster: cluster, Created: created.UTC()})
}

// Add writes a user's key.
func (e *Export) Add(tenant string, id uint32, k Key) error {
	if err := k.check(); err != nil {
		return err
	}
	e.keys++
	return e.line(exportLine{User: tenant, Key: id, Secret: k.b()[:]})
}

func (e *Export) line(l exportLine) error {
	if e.err != nil {
		return e.err
	}
	b, err := json.Marshal(l)
	if err == nil {
		b = append(b, '\n')
		_, err = e.w.Write(b)
		clear(b)
	}
	e.err = err
	return err
}

// Close writes the end. It does not close the writer that NewExport got.
func (e *Export) Close() error {
	if err := e.line(exportLine{Keys: &e.keys}); err != nil {
		return err
	}
	return e.w.Close()
}

// ExportedKey returns the key that a file with this header needs from an export, which it reads to its end:
// nothing of one that was cut or changed is used. identity is a file of age identities that are not protected
// by a passphrase. Errors are of kind ErrFormat, ErrAuth or ErrNoUserKey, none with a secret.
func ExportedKey(export, identity io.Reader, h *Header) (Key, error) {
	text, err := io.ReadAll(io.LimitReader(identity, identityBytesMax+1))
	defer clear(text)
	if err != nil {
		return Key{}, fmt.Errorf("read the identity: %w", err)
	}
	if len(text) > identityBytesMax {
		text = nil
	}
	identities, err := age.ParseIdentities(bytes.NewReader(text)) // its error may quote the secret
	if err != nil {
		return Key{}, &Error{
			Kind: ErrFormat, Detail: "the identity is not a file of age identities",
			hint: "give the file that age-keygen has made, with the line AGE-SECRET-KEY-1...; " +
				"one that is encrypted is given decrypted: age -d FILE | imgcluster decrypt --identity - ...",
		}
	}
	plain, err := age.Decrypt(export, identities...)
	if err != nil {
		var none *age.NoIdentityMatchError
		if errors.As(err, &none) {
			return Key{}, &Error{
				Kind: ErrAuth, Detail: "the export is not encrypted to this identity", hint: hintExport,
			}
		}
		return Key{}, &Error{Kind: ErrFormat, Detail: "not an export of keys", Err: err, hint: hintExport}
	}
	return exportedKey(plain, h)
}

func exportedKey(plain io.Reader, h *Header) (found Key, err error) {
	lines := bufio.NewScanner(plain)
	buffer := make([]byte, exportLineMax)
	defer clear(buffer)
	lines.Buffer(buffer, exportLineMax)
	keys, ended, cluster := 0, false, ""
	damaged := func(cause error) (Key, error) {
		return Key{}, &Error{
			Kind: ErrAuth, Detail: "the export was cut or changed", Err: cause,
			hint: "use another copy of it, or export the keys again",
		}
	}
	for first := true; lines.Scan(); first = false {
		var l exportLine
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil || first && l.Format != exportFormat {
			hint := hintExport
			if strings.HasPrefix(l.Format, strings.TrimSuffix(exportFormat, "1")) {
				hint = hintNewer
			}
			return Key{}, &Error{
				Kind: ErrFormat, Detail: "what the export holds is not " + exportFormat, hint: hint,
			}
		}
		switch {
		case first:
			cluster = l.Cluster
		case ended:
			return damaged(nil)
		case l.Keys != nil:
			if ended = true; *l.Keys != keys {
				return damaged(nil)
			}
		case len(l.Secret) != keyBytes:
			return damaged(nil)
		default:
			if keys++; l.User == h.Tenant && l.Key == h.UserKey {
				found = keyOf((*[keyBytes]byte)(l.Secret))
			}
		}
	}
	if lines.Err() != nil || !ended {
		return damaged(lines.Err())
	}
	if found.b() == nil {
		return Key{}, &Error{
			Kind: ErrNoUserKey,
			Detail: fmt.Sprintf("the export of cluster %s has no key %d of user %q", cluster, h.UserKey,
				h.Tenant),
			hint: "give an export that was made after the image was stored, and before its user was removed",
		}
	}
	return found, nil
}

package access

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
)

// Keys checks access keys, on one node. It has in memory what the system shard knows, sealed: the node tells
// it of each change when it applies it, so that a check costs no read and a removed key is refused from then
// on. It is safe for concurrent use.
type Keys struct {
	sealer *Sealer
	find   func(ctx context.Context, id string) (*catalog.AccessKey, error)
	// decoy stands in for a key that there is not.
	decoy atomic.Pointer[catalog.AccessKey]

	mu    sync.RWMutex
	known map[string]*catalog.AccessKey // by ID; nil before Load: then each key is searched for
	gone  map[string]bool               // IDs of removed keys that find did not find
}

// goneMax bounds Keys.gone. An ID that is forgotten is searched for again.
const goneMax = 10_000

// NewKeys returns Keys that know none until Load, once this node has the newest state of the system shard.
// find reads that from the cluster; it is asked for a key that a node of this cluster has made and that is
// not known here, for this node may lag behind.
func NewKeys(s *Sealer, find func(ctx context.Context, id string) (*catalog.AccessKey, error)) *Keys {
	k := &Keys{sealer: s, find: find, gone: map[string]bool{}}
	k.standIn()
	return k
}

// standIn returns a decoy that is sealed by the master key that seals now, as most keys are.
func (k *Keys) standIn() *catalog.AccessKey {
	if decoy := k.decoy.Load(); decoy != nil && k.sealer.current(decoy) {
		return decoy
	}
	decoy, _ := k.sealer.New("", image.RoleMetrics, time.Time{}, time.Time{})
	k.decoy.Store(&decoy)
	return &decoy
}

// Apply takes the events of commands that were applied.
func (k *Keys) Apply(events []catalog.Event) {
	for _, e := range events {
		if e.AccessKey != nil || e.AccessKeyRemoved != "" {
			k.apply(events)
			return
		}
	}
}

func (k *Keys) apply(events []catalog.Event) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.known == nil { // they may be those of a log that is applied again
		return
	}
	for _, e := range events {
		if e.AccessKey != nil {
			k.known[e.AccessKey.ID] = e.AccessKey
		}
		delete(k.known, e.AccessKeyRemoved)
	}
}

// Load reads all access keys anew. No event is taken meanwhile, so that none is overtaken by what was read
// before it.
func (k *Keys) Load(read func(func(*catalog.AccessKey)) error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := map[string]*catalog.AccessKey{}
	err := read(func(one *catalog.AccessKey) { all[one.ID] = one })
	if err == nil {
		k.known = all
	}
	return err
}

// Check returns who holds an access key that is good at this time. The error is KindUnauthorized, or that of
// find. What there is not takes the time of what there is.
func (k *Keys) Check(ctx context.Context, id, secret string, now time.Time) (Principal, error) {
	if !wellFormed(id, secret) {
		return Principal{}, errMalformed("the access key has another form than ID.SECRET")
	}
	key, removed, err := k.lookUp(ctx, id)
	if err != nil {
		return Principal{}, fmt.Errorf("look up access key %s: %w", id, err)
	}
	known := key != nil
	if !known {
		key = k.standIn()
	}
	if match := k.sealer.matches(key, secret); !match || !known {
		reason := ReasonUnknown
		switch {
		case known:
			reason = ReasonSecret
		case removed:
			reason = ReasonRemoved
		}
		return Principal{}, reason.refuse(image.Errorf(image.KindUnauthorized,
			"access key %s is not known, or was removed, or the secret is not its own", id).
			WithHint("use a key that imgcluster key list has, with the secret that was shown when it was made; " +
				"an administrator makes a new one with imgcluster key add"))
	}
	if expired(key, now) {
		return Principal{}, ReasonExpired.refuse(image.Errorf(image.KindUnauthorized,
			"access key %s expired at %s; this node's clock says %s", id,
			key.Expires.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339)).
			WithHint("ask an administrator for a new one: imgcluster key add"))
	}
	return Principal{Key: id, User: key.User, Role: key.Role}, nil
}

// expired reports whether an access key's time is over.
func expired(k *catalog.AccessKey, now time.Time) bool {
	return !k.Expires.IsZero() && !now.Before(k.Expires)
}

// lookUp returns an access key, nil when there is none. One that this node does not know is searched for in
// the cluster; where it is not, it was removed, and IDs do not come back.
func (k *Keys) lookUp(ctx context.Context, id string) (key *catalog.AccessKey, removed bool, err error) {
	k.mu.RLock()
	key = k.known[id]
	gone := k.gone[id]
	k.mu.RUnlock()
	if key != nil || gone || !k.sealer.genuine(id) {
		return key, gone, nil
	}
	key, err = k.find(ctx, id)
	if key == nil && err == nil {
		k.mu.Lock()
		defer k.mu.Unlock()
		if len(k.gone) >= goneMax {
			clear(k.gone)
		}
		k.gone[id] = true
		removed = true
	}
	return key, removed, err
}

const authorizationMax = 512 // bytes of a field

// ParseAuthorization returns the access key in a request's header: Bearer ID.SECRET, or Basic with the ID as
// the user and the secret as the password. ok is false when there is none. The error, KindUnauthorized, never
// quotes the field.
func ParseAuthorization(h http.Header) (id, secret string, ok bool, err error) {
	fields := h["Authorization"]
	if len(fields) == 0 {
		return "", "", false, nil
	}
	if len(fields) > 1 || len(fields[0]) > authorizationMax {
		return "", "", false, errMalformed("there is more than one Authorization, or it is too long")
	}
	scheme, rest, _ := strings.Cut(fields[0], " ")
	rest = strings.TrimSpace(rest)
	switch strings.ToLower(scheme) {
	case "bearer":
		id, secret, ok = strings.Cut(rest, ".")
	case "basic":
		var text []byte
		if text, err = base64.StdEncoding.DecodeString(rest); err == nil {
			id, secret, ok = strings.Cut(string(text), ":")
		}
	}
	if !ok {
		return "", "", false, errMalformed("Authorization is neither Bearer ID.SECRET nor Basic")
	}
	return id, secret, true, nil
}

func errMalformed(what string) error {
	return ReasonMalformed.refuse(image.Errorf(image.KindUnauthorized, "%s", what).
		WithHint("send Authorization: Bearer ID.SECRET, or ID and secret as with curl -u ID:SECRET, " +
			"as imgcluster key add has shown them"))
}

// ErrNoKey returns the error of a request that needs an access key and has none.
func ErrNoKey() error {
	return ReasonNone.refuse(image.Errorf(image.KindUnauthorized, "this cluster asks for an access key").
		WithHint("send Authorization: Bearer ID.SECRET, or ID and secret as with curl -u ID:SECRET; " +
			"commands read them from IMGCLUSTER_ACCESS_KEY and IMGCLUSTER_SECRET_KEY; " +
			"an administrator makes a key with imgcluster key add"))
}

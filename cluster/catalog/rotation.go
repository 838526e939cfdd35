package catalog

import (
	"bytes"
	"encoding/hex"
	"slices"

	"imgcluster/cluster/image"
)

const (
	// retiredMax is how many former master keys are known as such.
	retiredMax = 64
	// resealedMax bounds one Reseal.
	resealedMax = 128
	// masterIDBytes is the length of a master key's ID in what is sealed by it.
	masterIDBytes = 8
)

// Rotation is a change of the master key under way. New things are sealed by the new key; what is sealed by
// the old one, the membership's KeyID, is sealed again.
type Rotation struct {
	To string `json:"to"` // the new key's ID
}

// Sealing returns the ID of the master key that new things are sealed by.
func (m *Membership) Sealing() string {
	if m.Rotation != nil {
		return m.Rotation.To
	}
	return m.KeyID
}

// outgoing reports whether nothing new may be sealed by a master key.
func (m *Membership) outgoing(id string) bool {
	return slices.Contains(m.Retired, id) || m.Rotation != nil && id == m.KeyID
}

// RotateMaster begins a Rotation. Have are the nodes that have reported that they have the new key; all
// members must.
type RotateMaster struct {
	To   string         `json:"to"`
	Have []image.NodeID `json:"have"`
}

// Reseal replaces what is sealed by the old master key.
type Reseal struct {
	Sealed []Resealed `json:"sealed"`
}

// Resealed is a user's key, by user and ID, or the secret of an access key, by the ID of that, sealed again.
// It has no effect unless Old is what there is.
type Resealed struct {
	User      string `json:"user,omitempty"`
	KeyID     uint32 `json:"key_id,omitempty"`
	AccessKey string `json:"access_key,omitempty"`
	Old       []byte `json:"old"`
	New       []byte `json:"new"`
}

// EndRotation makes the new master key the cluster's and the old one a retired one, once nothing is sealed by
// it any more. Have are the nodes that have reported that they seal by the new key, and that their disks need
// the old one no more; all members must.
type EndRotation struct {
	To   string         `json:"to"`
	Have []image.NodeID `json:"have"`
}

// SealedBy returns the ID of the master key that sealed a user's key or the secret of an access key, empty
// when it is neither: a version byte and the ID lead both.
func SealedBy(sealed []byte) string {
	if len(sealed) < 1+masterIDBytes {
		return ""
	}
	return hex.EncodeToString(sealed[1 : 1+masterIDBytes])
}

// outgoing reports whether something is sealed by a master key that nothing new may be sealed by.
func (t *txn) outgoing(sealed []byte) (bool, error) {
	m, err := GetMembership(t.tx)
	return err == nil && m != nil && m.outgoing(SealedBy(sealed)), err
}

// rejectOutgoing has the proposer seal it again by the new master key.
func rejectOutgoing() Result {
	return reject(image.Errorf(image.KindStale, "the master key is changing").WithHint("try again"))
}

// checkKeys refuses a node that lacks a master key. During a rotation it needs the new one, by which things
// are sealed, and not the old one: what is sealed by that alone is sealed again by others.
func (s *Membership) checkKeys(j *Join) error {
	if j.KeyID == s.Sealing() || slices.Contains(j.Keys, s.Sealing()) {
		return nil
	}
	if s.Rotation != nil {
		return image.Errorf(image.KindInvalid, "the cluster is changing its master key from %s to %s, "+
			"and node %d has %s alone", s.KeyID, s.Rotation.To, j.Node, j.KeyID).
			WithHint("copy the file of the next master key (master_key_file with .next) from another node too")
	}
	return image.Errorf(image.KindInvalid, "the cluster's master key is %s, not %s", s.KeyID, j.KeyID).
		WithHint("copy the cluster's master key file to this node")
}

func (t *txn) rotateMaster(c *RotateMaster) (Result, error) {
	if err := checkToken("master key ID", c.To); err != nil {
		return reject(err), nil
	}
	return t.changeMembers(false, func(s *Membership) error {
		switch {
		case s.Rotation != nil && s.Rotation.To == c.To || s.Members != nil && s.KeyID == c.To:
			return nil
		case s.Members == nil:
			return image.Errorf(image.KindNoQuorum, "the cluster is not founded yet")
		case s.Rotation != nil:
			return image.Errorf(image.KindInvalid, "the master key is changing to %s already", s.Rotation.To).
				WithHint("finish that first: imgcluster keys rotate --finish")
		case slices.Contains(s.Retired, c.To):
			return image.Errorf(image.KindInvalid, "the master key %s was the cluster's before", c.To).
				WithHint("make a new one: imgcluster keys rotate --prepare")
		}
		if err := s.checkAll(c.Have, "does not have the new master key"); err != nil {
			return err
		}
		s.Rotation = &Rotation{To: c.To}
		return nil
	})
}

// checkAll returns an error when one of the members is not in a list.
func (s *Membership) checkAll(have []image.NodeID, lacks string) error {
	for _, m := range s.Members {
		if !slices.Contains(have, m.ID) {
			return image.Errorf(image.KindInvalid, "node %d %s", m.ID, lacks).
				WithHint("see imgcluster keys status")
		}
	}
	return nil
}

func (t *txn) reseal(c *Reseal) (Result, error) {
	m, err := GetMembership(t.tx)
	if err != nil {
		return Result{}, err
	}
	if m == nil || m.Rotation == nil {
		return reject(image.Errorf(image.KindStale, "the master key is not changing")), nil
	}
	if len(c.Sealed) > resealedMax {
		return reject(image.Errorf(image.KindInvalid, "%d values are sealed again at once", len(c.Sealed))), nil
	}
	for _, x := range c.Sealed {
		if SealedBy(x.New) != m.Rotation.To || len(x.New) > max(wrappedBytesMax, sealedBytesMax) {
			return reject(image.Errorf(image.KindInvalid, "it is not sealed by %s", m.Rotation.To)), nil
		}
		if x.AccessKey != "" {
			err = t.resealAccessKey(x)
		} else {
			err = t.resealUserKey(x)
		}
		if err != nil {
			return Result{}, err
		}
	}
	return Result{}, nil
}

func (t *txn) resealUserKey(x Resealed) error {
	k, err := GetUserKey(t.tx, x.User, x.KeyID)
	if err != nil || k == nil || !bytes.Equal(k.Wrapped, x.Old) {
		return err // removed, or sealed again already
	}
	k.Wrapped = x.New
	return t.put(userKeyKey(k.User, k.KeyID), k)
}

func (t *txn) resealAccessKey(x Resealed) error {
	k, err := GetAccessKey(t.tx, x.AccessKey)
	if err != nil || k == nil || !bytes.Equal(k.Sealed, x.Old) {
		return err
	}
	k.Sealed = x.New
	t.events = append(t.events, Event{AccessKey: k})
	return t.put(accessKeyKey(k.User, k.ID), k)
}

// SealedUnder calls fn with what a master key has sealed and comes after the place `after` (nil: from the
// first), until fn returns false: users' keys, then access keys. One of the two is nil; at is the place.
func SealedUnder(
	r Reader, master string, after []byte, fn func(at []byte, user *PutKey, access *AccessKey) bool,
) error {
	more := true
	if after == nil || after[0] == userKeyTable {
		err := scan(r, []byte{userKeyTable}, after, func(at []byte, k *PutKey) bool {
			more = SealedBy(k.Wrapped) != master || fn(at, k, nil)
			return more
		})
		if err != nil || !more {
			return err
		}
		after = nil
	}
	return scan(r, []byte{accessKeyTable}, after, func(at []byte, k *AccessKey) bool {
		return SealedBy(k.Sealed) != master || fn(at, nil, k)
	})
}

func (t *txn) endRotation(c *EndRotation) (Result, error) {
	left := false
	m, err := GetMembership(t.tx)
	if err == nil && m != nil && m.Rotation != nil {
		err = SealedUnder(t.tx, m.KeyID, nil, func([]byte, *PutKey, *AccessKey) bool { left = true; return false })
	}
	if err != nil {
		return Result{}, err
	}
	return t.changeMembers(false, func(s *Membership) error {
		switch {
		case s.Rotation == nil && s.KeyID == c.To:
			return nil
		case s.Rotation == nil || s.Rotation.To != c.To:
			return image.Errorf(image.KindInvalid, "the master key is not changing to %.64q", c.To).
				WithHint("begin with imgcluster keys rotate --prepare")
		case left:
			return image.Errorf(image.KindInvalid, "not all keys are sealed by the new master key yet").
				WithHint("wait until they are: imgcluster keys status")
		}
		if err := s.checkAll(c.Have, "does not use the new master key yet"); err != nil {
			return err
		}
		s.Retired = append(s.Retired, s.KeyID)
		s.Retired = s.Retired[max(0, len(s.Retired)-retiredMax):]
		s.KeyID, s.Rotation = c.To, nil
		return nil
	})
}

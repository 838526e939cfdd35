package catalog

import (
	"cmp"
	"net"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"imgcluster/cluster/image"
)

// Limits on what commands bring into the state. Apply refuses what exceeds them, whoever proposed it: the
// state is read back by others (a data directory's node.json, the answers between nodes), which have limits
// too, and a node that cannot read what it wrote would never start again.
const (
	shardsMax        = 256     // data shards; that of cluster.data_shards
	clusterBytesMax  = 64      // of the cluster's name; that of cluster.name
	addressBytesMax  = 262     // of host:port; a host name has 254 with its last dot, and may be in brackets
	tokenBytesMax    = 64      // of incarnations, runs and key IDs
	joinKeysMax      = 4       // master keys of one node
	startsMax        = 1 << 48 // starts of a data directory: more are a mistake, and would lock the node out
	imageBytesMax    = 4 << 30 // of an image; that of limits.image_bytes
	conditionsMax    = 128     // entity tags of one command
	conditionBytes   = 16 << 10
	textRunesMax     = 1024                        // of the reason of an End; more is left out
	membershipBytes  = 128 << 10                   // of the membership as JSON, but for what Settle adds
	replicaNumberMax = 1<<32 - 1 - 2*(shardsMax+1) // below it one command's numbers do not wrap
)

// checkText refuses a text that is empty, longer than max bytes, not UTF-8, or has control characters.
func checkText(what, s string, max int) error {
	bad := func(r rune) bool { return r < 0x20 || r >= 0x7f && r < 0xa0 }
	switch {
	case s == "":
		return image.Errorf(image.KindInvalid, "%s is empty", what)
	case len(s) > max:
		return image.Errorf(image.KindInvalid, "%s of %d bytes is longer than %d", what, len(s), max)
	case !utf8.ValidString(s) || strings.ContainsRune(s, utf8.RuneError):
		return image.Errorf(image.KindInvalid, "%s %.40q is not UTF-8", what, s)
	case strings.ContainsFunc(s, bad):
		return image.Errorf(image.KindInvalid, "%s %.40q has a control character", what, s)
	}
	return nil
}

// checkSealed checks that something sealed, such as a wrapped key, is there and has at most max bytes.
func checkSealed(what string, b []byte, max int) error {
	if len(b) == 0 || len(b) > max {
		return image.Errorf(image.KindInvalid, "%s of %d bytes", what, len(b))
	}
	return nil
}

// checkToken refuses what is not 1 to tokenBytesMax letters, digits, '-' and '_'.
func checkToken(what, s string) error {
	if err := checkText(what, s, tokenBytesMax); err != nil {
		return err
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r != '-' && r != '_' && !alphanumeric(r) }) {
		return image.Errorf(image.KindInvalid, "%s %q has other characters than letters, digits, '-' and '_'",
			what, s)
	}
	return nil
}

func alphanumeric(r rune) bool {
	return r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
}

// checkAddress refuses what is not host:port.
func checkAddress(what, s string) error {
	if err := checkText(what, s, addressBytesMax); err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(s)
	n, bad := strconv.ParseUint(port, 10, 16)
	odd := func(r rune) bool { return !strings.ContainsRune("-_.:", r) && !alphanumeric(r) }
	if err != nil || bad != nil || n == 0 || host == "" || strings.ContainsFunc(host, odd) {
		return image.Errorf(image.KindInvalid, "%s %q is not HOST:PORT", what, s)
	}
	return nil
}

// checkAddresses refuses a member without an ID or without two different addresses.
func checkAddresses(id image.NodeID, api, raft string) error {
	err := checkAddress("API address", api)
	if err == nil {
		err = checkAddress("Raft address", raft)
	}
	if err == nil && (id == 0 || api == raft) {
		err = image.Errorf(image.KindInvalid, "member %d at %s and %s", id, api, raft)
	}
	if err != nil {
		return image.Errorf(image.KindInvalid, "%w", err).
			WithHint("give an ID from 1, a host and two different ports")
	}
	return nil
}

// check refuses a Join whose fields no node can have by its configuration and its data directory.
func (j *Join) check(system uint64) error {
	err := checkText("cluster name", j.Cluster, clusterBytesMax)
	if err == nil {
		err = checkToken("master key ID", j.KeyID)
	}
	if err == nil && len(j.Keys) > joinKeysMax {
		err = image.Errorf(image.KindInvalid, "%d master keys", len(j.Keys))
	}
	for _, id := range j.Keys {
		if err == nil {
			err = checkToken("master key ID", id)
		}
	}
	if err == nil {
		err = checkToken("incarnation", j.Incarnation)
	}
	if err == nil {
		err = checkToken("run", j.Run)
	}
	if err == nil && (j.Node == 0 || j.Starts == 0 || j.Starts > startsMax) {
		err = image.Errorf(image.KindInvalid, "node %d after %d starts", j.Node, j.Starts)
	}
	if err == nil {
		err = checkMembers(j.Members)
	}
	if err == nil {
		err = checkShards(j.Shards, system)
	}
	if err != nil {
		return image.Errorf(image.KindInvalid, "malformed join of node %d: %w", j.Node, err).
			WithHint("run the same imgcluster version on every node")
	}
	return nil
}

// checkMembers refuses a list of members that is empty or too long, has a malformed one, or one ID or address
// twice.
func checkMembers(list []Member) error {
	if len(list) == 0 || len(list) > image.NodesMax {
		return image.Errorf(image.KindInvalid, "%d members are not in the range 1 to %d",
			len(list), image.NodesMax)
	}
	ids := map[image.NodeID]bool{}
	addresses := map[string]bool{}
	for _, x := range list {
		if err := checkAddresses(x.ID, x.API, x.Raft); err != nil {
			return err
		}
		if ids[x.ID] || addresses[x.API] || addresses[x.Raft] {
			return image.Errorf(image.KindInvalid, "member %d, %s or %s is listed twice", x.ID, x.API, x.Raft)
		}
		ids[x.ID], addresses[x.API], addresses[x.Raft] = true, true, true
	}
	return nil
}

func checkShards(shards []uint64, system uint64) error {
	if len(shards) == 0 || len(shards) > shardsMax {
		return image.Errorf(image.KindInvalid, "%d data shards are not in the range 1 to %d",
			len(shards), shardsMax)
	}
	seen := map[uint64]bool{}
	for _, shard := range shards {
		if shard == 0 || shard == system || seen[shard] {
			return image.Errorf(image.KindInvalid, "shard %d is not a data shard, or listed twice", shard)
		}
		seen[shard] = true
	}
	return nil
}

// Check refuses a membership that no log can have brought about. It is for one that came from another node.
func (m *Membership) Check() error {
	err := checkText("cluster name", m.Cluster, clusterBytesMax)
	if err == nil {
		err = checkToken("master key ID", m.KeyID)
	}
	if err == nil {
		err = m.checkRotation()
	}
	if err == nil {
		err = CheckMembers(m.Members)
	}
	if err == nil && (len(m.Shards) < 2 || len(m.Shards) > shardsMax+1) {
		err = image.Errorf(image.KindInvalid, "%d shards", len(m.Shards))
	}
	for shard, l := range m.Shards {
		if err == nil && (l == nil || len(l.Nodes) == 0 || len(l.Nodes) > image.NodesMax) {
			err = image.Errorf(image.KindInvalid, "shard %d has no nodes, or too many", shard)
		}
	}
	if err != nil {
		return image.Errorf(image.KindInvalid, "malformed membership: %w", err)
	}
	return nil
}

// checkRotation refuses IDs of master keys that are none, and too many.
func (m *Membership) checkRotation() error {
	if len(m.Retired) > retiredMax {
		return image.Errorf(image.KindInvalid, "%d former master keys", len(m.Retired))
	}
	ids := slices.Clone(m.Retired)
	if m.Rotation != nil {
		ids = append(ids, m.Rotation.To)
	}
	for _, id := range ids {
		if err := checkToken("master key ID", id); err != nil {
			return err
		}
	}
	return nil
}

// CheckMembers refuses members that no log can have brought about, with what they registered by their joins.
func CheckMembers(list []Member) error {
	if err := checkMembers(list); err != nil {
		return err
	}
	for _, x := range list {
		for _, text := range []string{x.Incarnation, x.Run} {
			if text == "" {
				continue // it has not started yet
			}
			if err := checkToken("incarnation or run", text); err != nil {
				return err
			}
		}
		switch x.State {
		case MemberActive, MemberDraining, MemberLeaving, "":
		default:
			return image.Errorf(image.KindInvalid, "member %d is %.20q", x.ID, x.State)
		}
	}
	return nil
}

// checkNamed refuses what no upload can be for: a user, a name, a Content-Type, which may be empty, or
// conditions.
func checkNamed(user, name, mediaType string, c image.Conditions) error {
	err := cmp.Or(image.CheckUser(user), image.CheckName(name), checkConditions(c))
	if err == nil && mediaType != "" {
		err = checkText("Content-Type", mediaType, image.TypeBytesMax)
	}
	return err
}

// checkConditions bounds the entity tags of a command.
func checkConditions(c image.Conditions) error {
	n, bytes := 0, 0
	for _, tags := range []image.Tags{c.Match, c.NoneMatch} {
		for _, tag := range tags {
			n++
			bytes += len(tag)
			if err := checkText("entity tag", tag, conditionBytes); err != nil {
				return err
			}
		}
	}
	if n > conditionsMax || bytes > conditionBytes {
		return image.Errorf(image.KindInvalid, "%d entity tags of %d bytes are more than %d of %d",
			n, bytes, conditionsMax, conditionBytes).WithHint("name fewer entity tags")
	}
	return nil
}

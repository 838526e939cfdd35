package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/access"
	"imgcluster/cluster/catalog"
	"imgcluster/cluster/failpoint"
	"imgcluster/cluster/image"
	"imgcluster/cluster/peer"
	"imgcluster/cluster/store"
	"imgcluster/cluster/wire"
	"imgcluster/crypto"
)

const (
	// nextKeyEvery is the time between two looks for the file of the next master key, and between two tries of
	// what a rotation has left to do.
	nextKeyEvery = 2 * time.Second
	// resealBatch is how many keys one command seals again.
	resealBatch = 64
)

// masterKeys knows the master keys that this host has, and which of them are good by what this node knows of
// the cluster: the ring. It takes this node through a rotation, and seals all keys again where it leads the
// system shard. It is safe for concurrent use.
//
// A rotation: the file of the next key is copied to all nodes, which report that they have it; the log opens
// the rotation, from when on new things are sealed by the next key, and what the old one sealed is sealed
// again, in the catalog and in each node's node.json; when that is done everywhere the log ends it, and the
// old key is good for nothing any more. At each point a node that stops comes back with what node.json says.
type masterKeys struct {
	self    image.NodeID
	source  crypto.KeySource
	ring    *crypto.Ring
	log     *shardLogs
	view    *view
	peers   *peer.Set
	timeout time.Duration // of a read of the system shard
	logger  *zap.Logger
	notify  func() // has the peers told this node's status
	kick    chan struct{}

	dir    *store.DataDir // set once claimed
	sealer *access.Sealer // set before run

	mu       sync.Mutex
	held     crypto.MasterKeys
	good     goodKeys
	persists bool   // node.json says what good says
	problem  string // that the operator has to solve; empty when there is none

	resealed atomic.Pointer[string] // the key to which nothing is left to be sealed again
}

// goodKeys are the IDs of the cluster's master key and of that which it is changing to, empty when it is not,
// as this node knows them. They only go forward: a log that is applied again after a restart tells an older
// story.
type goodKeys struct{ key, next string }

func (g goodKeys) sealing() string {
	if g.next != "" {
		return g.next
	}
	return g.key
}

// forward returns what a membership says where that is later than g.
func (g goodKeys) forward(m *catalog.Membership) goodKeys {
	now := goodKeys{key: m.KeyID}
	if m.Rotation != nil {
		now.next = m.Rotation.To
	}
	if g.key == now.key && g.next == "" || slices.Contains(m.Retired, g.key) {
		return now
	}
	return g
}

func newMasterKeys(
	self image.NodeID, source crypto.KeySource, held crypto.MasterKeys, was store.Identity,
) *masterKeys {
	k := &masterKeys{
		self:   self,
		source: source,
		ring:   crypto.NewRing(held.All()...), // of a node that knows no cluster yet
		held:   held,
		notify: func() {},
		kick:   make(chan struct{}, 1),
	}
	k.good = goodKeys{was.KeyID, was.NextKeyID}
	k.use()
	return k
}

// claimed takes the data directory, which is this node's from now on.
func (k *masterKeys) claimed(dir *store.DataDir) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dir = dir
	id := dir.Identity()
	k.good, k.persists = goodKeys{id.KeyID, id.NextKeyID}, true
	k.use()
}

// use makes the ring that of the good keys, as far as this host has them. The caller holds mu.
func (k *masterKeys) use() {
	sealing := k.find(k.good.sealing())
	if sealing == nil {
		return
	}
	keys := []*crypto.MasterKey{sealing}
	if old := k.find(k.good.key); old != nil && old != sealing {
		keys = append(keys, old)
	}
	k.ring.Use(keys...)
}

// find returns the key with this ID, nil when this host does not have it. The caller holds mu.
func (k *masterKeys) find(id string) *crypto.MasterKey {
	for _, m := range k.held.All() {
		if m.ID() == id {
			return m
		}
	}
	return nil
}

// unwrapDiskKey opens the key of the data directory by any key that this host has.
func (k *masterKeys) unwrapDiskKey(wrapped []byte) (crypto.Key, error) {
	k.mu.Lock()
	held := k.held
	k.mu.Unlock()
	key, err := crypto.NewRing(held.All()...).UnwrapDiskKey(wrapped)
	if err != nil {
		return key, fmt.Errorf("key of the data directory in node.json: %w", err)
	}
	return key, nil
}

// zero overwrites the keys, of which nobody has any use now.
func (k *masterKeys) zero() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, m := range k.held.All() {
		m.Zero()
	}
}

// ids lists the keys that this host has, that which seals first.
func (k *masterKeys) ids() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	ids := []string{k.ring.Sealing().ID()}
	for _, m := range k.held.All() {
		if !slices.Contains(ids, m.ID()) {
			ids = append(ids, m.ID())
		}
	}
	return ids
}

// state returns what this node reports. It uses a key once that is so for good.
func (k *masterKeys) state() wire.MasterKeyReport {
	s := wire.MasterKeyReport{Has: k.ids()}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.persists {
		s.Uses = k.good.sealing()
	}
	s.Problem = k.problem
	return s
}

// update takes what the newest membership says. It does not block.
func (k *masterKeys) update() {
	m := k.view.membership()
	if m.Version == 0 {
		return // that of the configuration
	}
	k.mu.Lock()
	now := k.good.forward(m)
	changed := now != k.good
	if changed {
		k.good, k.persists = now, false
		k.use()
	}
	if len(m.Retired) > 0 && k.sealer != nil {
		k.sealer.AnyID()
	}
	k.mu.Unlock()
	if changed {
		k.kickSoon()
	}
}

// run follows the file of the next key and the rotation until ctx ends.
func (k *masterKeys) run(ctx context.Context) {
	k.update()
	tick := time.NewTicker(nextKeyEvery)
	defer tick.Stop()
	for {
		k.step(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-k.kick:
		}
	}
}

// step does what there is to do now.
func (k *masterKeys) step(ctx context.Context) {
	before := k.state()
	err := k.look()
	if err == nil {
		err = k.persist()
	}
	if err == nil {
		err = k.promote()
	}
	k.mu.Lock()
	k.problem = ""
	if err != nil {
		k.problem = err.Error()
	}
	k.mu.Unlock()
	now := k.state()
	if now.Problem != before.Problem && now.Problem != "" {
		k.logger.Error("master key", zap.Error(err), zap.String("hint", image.HintOf(err)))
	}
	if !slices.Equal(now.Has, before.Has) || now.Uses != before.Uses || now.Problem != before.Problem {
		k.notify()
	}
	if err := k.resealAll(ctx); err != nil && ctx.Err() == nil {
		k.logger.Warn("keys are not sealed again yet", zap.Error(err))
	}
}

// look reads the file of the next master key.
func (k *masterKeys) look() error {
	next, err := k.source.LoadNext()
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if next == nil || next.ID() == k.held.Own.ID() || k.held.Next != nil && k.held.Next.ID() == next.ID() {
		return nil // it is not forgotten either, when its file is gone: the key may be in use
	}
	k.held.Next = next
	k.use()
	k.logger.Info("there is a next master key", zap.String("key", next.ID()))
	return nil
}

// errLacksKey: this host lacks the master key that the cluster uses.
func (k *masterKeys) errLacksKey(id string) error {
	return image.Errorf(image.KindInvalid, "node %d lacks the cluster's master key %s", k.self, id).
		WithHint("copy it from another node to " + k.source.NextFile())
}

// persist writes into node.json which keys are good, with the key of the data directory sealed by the newer
// one. After that this node starts without the older one.
func (k *masterKeys) persist() error {
	k.mu.Lock()
	good, sealing := k.good, k.find(k.good.sealing())
	done := k.persists
	k.mu.Unlock()
	switch {
	case sealing == nil:
		return k.errLacksKey(good.sealing())
	case done:
		return nil
	}
	id := k.dir.Identity()
	disk := id.DiskKey
	if disk != nil && id.SealingKeyID() != good.sealing() {
		key, err := k.unwrapDiskKey(disk)
		if err != nil {
			return err
		}
		defer key.Zero()
		if disk, err = sealing.WrapDiskKey(key); err != nil {
			return err
		}
	}
	err := k.dir.Update(func(id *store.Identity) {
		id.KeyID, id.NextKeyID, id.DiskKey = good.key, good.next, disk
	})
	if err != nil {
		return err
	}
	failpoint.Here("keys/persisted")
	k.mu.Lock()
	defer k.mu.Unlock()
	k.persists = k.good == good
	k.logger.Info("the master key in use", zap.String("key", good.sealing()))
	return nil
}

// promote moves the file of the next key into the place of the old one, once the rotation has ended.
func (k *masterKeys) promote() error {
	k.mu.Lock()
	good, own := k.good, k.held.Own
	k.mu.Unlock()
	if good.next != "" || own.ID() == good.key {
		return nil
	}
	if err := k.source.Promote(own.ID(), good.key); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.held = crypto.MasterKeys{Own: k.find(good.key)}
	k.logger.Info("the new master key is in its place", zap.String("file", k.source.File))
	return nil
}

// resealAll seals again what the old master key has sealed, where this node leads the system shard. What is
// sealed again already stays as it is, so that it may be interrupted anywhere.
func (k *masterKeys) resealAll(ctx context.Context) error {
	m := k.view.membership()
	if m.Rotation == nil || k.log.Leader(systemShard) != k.self {
		return nil
	}
	if done := k.resealed.Load(); done != nil && *done == m.Rotation.To {
		return nil
	}
	var after []byte
	for total := 0; ; {
		batch, bad, at, err := k.sealAgain(m, after)
		if err != nil {
			return err
		}
		if batch == nil {
			if after == nil && bad == nil { // nothing new is sealed by the old key, so this stays so
				k.resealed.Store(&m.Rotation.To)
			}
			if total > 0 {
				k.logger.Info("keys are sealed again", zap.Int("keys", total), zap.String("by", m.Rotation.To))
				k.kickSoon()
			}
			return bad
		}
		r, err := k.log.Propose(ctx, systemShard, catalog.Command{Reseal: &catalog.Reseal{Sealed: batch}})
		if err = errors.Join(err, r.Err()); err != nil {
			return err
		}
		failpoint.Here("keys/resealed")
		total += len(batch)
		after = at
	}
}

// kickSoon has run do another step.
func (k *masterKeys) kickSoon() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

// sealAgain seals again what comes after a place, and returns the last place; nil when there is nothing. bad
// is why one of them does not open.
func (k *masterKeys) sealAgain(
	m *catalog.Membership, after []byte,
) (batch []catalog.Resealed, bad error, at []byte, err error) {
	sealing := k.ring.Sealing()
	if sealing.ID() != m.Rotation.To {
		return nil, nil, nil, k.errLacksKey(m.Rotation.To)
	}
	err = k.log.View(systemShard, func(r catalog.Reader) error {
		return catalog.SealedUnder(r, m.KeyID, after, func(p []byte, u *catalog.PutKey, a *catalog.AccessKey) bool {
			x, failed := k.reseal(sealing, u, a)
			if failed != nil {
				bad = failed // it waits for its end: the others go on
				return true
			}
			batch, at = append(batch, x), bytes.Clone(p)
			return len(batch) < resealBatch
		})
	})
	return batch, bad, at, err
}

func (k *masterKeys) reseal(
	by *crypto.MasterKey, u *catalog.PutKey, a *catalog.AccessKey,
) (x catalog.Resealed, err error) {
	if a != nil {
		x = catalog.Resealed{AccessKey: a.ID, Old: a.Sealed}
		ok := false
		if x.New, ok = k.sealer.Reseal(a); !ok {
			err = image.Errorf(image.KindDamaged, "the secret of access key %s does not open", a.ID).
				WithHint("remove it: imgcluster key rm " + a.ID)
		}
		return x, err
	}
	x = catalog.Resealed{User: u.User, KeyID: u.KeyID, Old: u.Wrapped}
	key, err := k.ring.UnwrapUserKey(u.User, u.KeyID, u.Wrapped)
	if err == nil {
		x.New, err = by.WrapUserKey(u.User, u.KeyID, key)
		key.Zero()
	}
	return x, err
}

// MasterKey implements api.MasterKeys.
func (k *masterKeys) MasterKey(ctx context.Context) (wire.MasterKey, error) {
	ctx, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	m, err := k.view.newest(ctx)
	if err != nil {
		return wire.MasterKey{}, err
	}
	s := wire.MasterKey{Key: m.KeyID, Nodes: []wire.MasterKeyNode{}, Waits: []string{}}
	if m.Rotation != nil {
		s.Next = m.Rotation.To
		err = k.log.View(systemShard, func(r catalog.Reader) error {
			return catalog.SealedUnder(r, m.KeyID, nil, func([]byte, *catalog.PutKey, *catalog.AccessKey) bool {
				s.Left++
				return ctx.Err() == nil
			})
		})
		if s.Left > 0 {
			s.Waits = append(s.Waits, fmt.Sprintf("%d keys are still sealed by %s", s.Left, m.KeyID))
		}
	}
	for _, x := range m.Members {
		n := k.report(x.ID)
		s.Nodes = append(s.Nodes, n)
		if s.Next != "" {
			s.Waits = append(s.Waits, lacks(n, n.Uses == s.Next, "does not use the new master key yet")...)
		}
		if n.Problem != "" {
			s.Waits = append(s.Waits, fmt.Sprintf("node %d: %s", n.ID, n.Problem))
		}
	}
	return s, err
}

// report returns what a node has reported of its master keys.
func (k *masterKeys) report(id image.NodeID) wire.MasterKeyNode {
	if id == k.self {
		return wire.MasterKeyNode{ID: id, Up: true, MasterKeyReport: k.state()}
	}
	st := k.peers.Status(id)
	if st.State == "" || st.State == wire.NodeDown || st.MasterKeys == nil {
		return wire.MasterKeyNode{ID: id, MasterKeyReport: wire.MasterKeyReport{Has: []string{}}}
	}
	return wire.MasterKeyNode{ID: id, Up: true, MasterKeyReport: *st.MasterKeys}
}

// lacks says in words what is missing on a node, nothing when it is good.
func lacks(n wire.MasterKeyNode, good bool, what string) []string {
	switch {
	case !n.Up:
		return []string{fmt.Sprintf("node %d does not answer", n.ID)}
	case !good:
		return []string{fmt.Sprintf("node %d %s", n.ID, what)}
	}
	return nil
}

// ChangeMasterKey implements api.MasterKeys.
func (k *masterKeys) ChangeMasterKey(ctx context.Context, c wire.MasterKeyChange) error {
	m, err := k.view.newest(ctx)
	if err != nil {
		return err
	}
	switch c.Op {
	case wire.MasterKeyRotate:
		return k.rotate(ctx, m)
	case wire.MasterKeyFinish:
		return k.finish(ctx, m)
	}
	return image.Errorf(image.KindInvalid, "unknown change %.20q", c.Op).WithHint("op is rotate or finish")
}

func (k *masterKeys) rotate(ctx context.Context, m *catalog.Membership) error {
	if m.Rotation != nil {
		return nil
	}
	k.mu.Lock()
	next := k.held.Next
	k.mu.Unlock()
	if next == nil || next.ID() == m.KeyID || slices.Contains(m.Retired, next.ID()) {
		return image.Errorf(image.KindInvalid, "node %d has no next master key", k.self).
			WithHint("make one with imgcluster keys rotate --prepare, and copy it to all nodes")
	}
	have, missing := k.nodes(m, "does not have the next master key "+next.ID(),
		func(n wire.MasterKeyNode) bool { return slices.Contains(n.Has, next.ID()) })
	if missing != "" {
		return image.Errorf(image.KindInvalid, "%s", missing).
			WithHint("copy the file of the next master key to all nodes, mode 0400, and start those that are down; " +
				"remove those that will not come back: imgcluster member remove")
	}
	return k.propose(ctx, catalog.Command{RotateMaster: &catalog.RotateMaster{To: next.ID(), Have: have}})
}

func (k *masterKeys) finish(ctx context.Context, m *catalog.Membership) error {
	if m.Rotation == nil {
		return image.Errorf(image.KindInvalid, "the master key is not changing; it is %s", m.KeyID).
			WithHint("begin with imgcluster keys rotate --prepare")
	}
	to := m.Rotation.To
	have, missing := k.nodes(m, "does not use the new master key yet",
		func(n wire.MasterKeyNode) bool { return n.Uses == to })
	if missing != "" {
		return image.Errorf(image.KindInvalid, "%s", missing).
			WithHint("start the nodes that are down, or remove them: imgcluster member remove")
	}
	return k.propose(ctx, catalog.Command{EndRotation: &catalog.EndRotation{To: to, Have: have}})
}

// nodes lists the members whose report is good, and says in words which are missing.
func (k *masterKeys) nodes(
	m *catalog.Membership, what string, good func(wire.MasterKeyNode) bool,
) (have []image.NodeID, missing string) {
	var all []string
	for _, x := range m.Members {
		n := k.report(x.ID)
		if bad := lacks(n, good(n), what); bad != nil {
			all = append(all, bad...)
			continue
		}
		have = append(have, x.ID)
	}
	return have, strings.Join(all, "; ")
}

func (k *masterKeys) propose(ctx context.Context, c catalog.Command) error {
	r, err := k.log.Propose(ctx, systemShard, c)
	if err == nil {
		err = r.Err()
	}
	return err
}

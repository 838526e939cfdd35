package cluster

import (
	"cmp"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"imgcluster/cluster/image"
	"imgcluster/cluster/repair"
	"imgcluster/cluster/store"
	"imgcluster/cluster/wait"
	"imgcluster/cluster/wire"
)

// fullImages is for how many of the largest images there must be room on a node that is given more:
// its peers hear a little late that it is full, and until then it must not have to refuse.
const fullImages = 4

// full tells whether the node has no room for more images, in bytes or in inodes. What limits.disk_free_bytes
// and limits.disk_free_inodes keep free is for Raft's log and the catalog, without which the node cannot run.
func (n *Node) full() bool { return n.lacks() != "" }

// lacks tells what the disk is full for the lack of, empty when it is not full.
func (n *Node) lacks() wire.Lack {
	was, _ := n.lacked.Load().(wire.Lack)
	images := int64(fullImages)
	if was != "" {
		images *= 2 // or it would come and go with every temporary file
	}
	err := n.store.RoomFor(images, images*int64(n.cfg.Limits.ImageBytes))
	if image.KindOf(err) == image.KindOverload {
		return was // it could not be found out
	}
	now := wire.Lack("")
	switch {
	case errors.Is(err, store.ErrNoInodes):
		now = wire.LacksInodes
	case err != nil:
		now = wire.LacksBytes
	}
	was, _ = n.lacked.Swap(now).(wire.Lack) // somebody else may have looked meanwhile
	switch {
	case now != "" && was == "":
		n.logger.Warn("the disk is full: the node is given no more images", zap.Error(err), zap.String("hint", hint(err)))
	case was != "" && now == "":
		n.logger.Info("the disk has room again")
		n.repair.Kick()
	}
	return now
}

// sickness is why the node stores nothing for now, nil when it does. It begins when the disk fails to
// make something durable, and ends when all that is stored has been read back from it.
func (n *Node) sickness() error {
	if e := n.sick.Load(); e != nil {
		return e
	}
	return nil
}

// diskFailed takes the first failure of the store.
func (n *Node) diskFailed(err error) {
	e := image.Errorf(image.KindAborted, "node %d stores nothing since its disk failed: %w", n.self.ID, err).
		WithHint(cmp.Or(hint(err), "check the node's disk (dmesg)") + "; once it works the node verifies its images and goes on by itself")
	n.sick.CompareAndSwap(nil, e)
	select {
	case n.mend <- struct{}{}:
	default:
	}
}

// mendDisk waits for failures of the disk, and tries it after each until it works and what is stored
// on it is good.
func (n *Node) mendDisk() {
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-n.mend:
		}
		err := n.store.Failed()
		if err == nil && !n.dir.Load().Identity().Unverified {
			continue // it failed while it was tried, and is well since
		}
		if err != nil {
			n.diskFailed(err)
		}
		n.noteUnverified(true)
		n.logger.Error("the disk failed: the node stores nothing until its images are verified", zap.Error(err))
		n.peersChanged()
		for {
			if !wait.For(n.ctx, n.cfg.Timeouts.DiskRetry) {
				return
			}
			if err = n.tryDisk(); err == nil {
				break
			}
			n.logger.Warn("the disk is not well yet", zap.Error(err))
		}
		n.noteUnverified(false)
		n.sick.Store(nil)
		n.logger.Info("the disk works again, and all that is stored on it was verified")
		n.peersChanged()
	}
}

// errUnverified is why a node stores nothing that was ended before it had verified a disk that failed.
var errUnverified = errors.New("its images were not verified before it ended")

// noteUnverified keeps for the next process that the disk failed, where it can be written at all.
func (n *Node) noteUnverified(is bool) {
	if n.dir.Load().Identity().Unverified == is {
		return
	}
	if err := n.dir.Load().Update(func(id *store.Identity) { id.Unverified = is }); err != nil {
		n.logger.Warn("the failure of the disk is not noted in the data directory", zap.Error(err))
	}
}

// tryDisk reads all copies of this node from the disk, once it works, and replaces what is bad.
func (n *Node) tryDisk() error {
	if err := n.store.Retry(); err != nil {
		return err
	}
	n.verifying.Lock()
	defer n.verifying.Unlock()
	sum, err := n.repair.Verify(n.ctx, repair.VerifyOptions{Sample: 1, Repair: true}, func(wire.VerifyLine) error { return n.store.Failed() })
	switch {
	case err != nil:
		return err
	case sum.Skipped > 0 || sum.Repaired < sum.Bad:
		return fmt.Errorf("%d copies are bad, of which %d were replaced, and %d could not be read", sum.Bad, sum.Repaired, sum.Skipped)
	}
	return n.store.Failed()
}

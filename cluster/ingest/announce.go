package ingest

import (
	"time"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
)

// Announce chooses the nodes that are to store an upload, the owner first, for its client to send it to these
// alone; none of out, which the client does not reach. It counts as their load from then on; where the client
// does not send it, until that expires. Called again with the same ID it names the same nodes, as far as they
// are up. It leaves nothing in the log, and the shard's leader may decide otherwise. The errors are
// *image.Error.
func (s *Service) Announce(req image.Request, out []image.NodeID) ([]image.NodeID, error) {
	s.mu.Lock()
	closed := s.closed || s.draining()
	s.mu.Unlock()
	if closed {
		return nil, s.shuttingDown()
	}
	shard := s.ShardOf(req.User, req.Name)
	known, err := s.lookup(shard, req.ID)
	switch {
	case err != nil:
		return nil, err
	case known == nil, !known.Final():
	case known.User != req.User || known.Name != req.Name:
		return nil, catalog.Conflict(req.ID)
	case known.Refused():
		return nil, known.Problem.Err()
	default: // they compare what the client sends
		return known.Record.Replicas(), nil
	}
	return s.placer.announced(shard, req, out)
}

// announced is place for an upload that has not begun.
func (p *placer) announced(
	shard uint64, req image.Request, out []image.NodeID,
) ([]image.NodeID, error) {
	p.mu.Lock()
	full := len(p.flying) >= flyingMax
	p.mu.Unlock()
	if full {
		return nil, image.Errorf(image.KindOverload,
			"node %d has %d uploads that were announced and have not ended, its limit", p.Node, flyingMax).
			WithHint("send fewer at once").WithRetry(time.Second)
	}
	order, storing, err := p.place(shard, req, nil, out)
	if err != nil {
		return nil, err
	}
	return order[:storing], nil
}

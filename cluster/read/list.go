package read

import (
	"cmp"
	"container/heap"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wait"
	"imgcluster/cluster/wire"
)

// Shards move: a list that does not find one where it was is tried again, so often and after so long.
const (
	listTries = 4
	listPause = 50 * time.Millisecond
)

// List returns up to limit images of a user whose names start with prefix and come after `after`.
func (m *Images) List(ctx context.Context, user, prefix, after string, limit int) (wire.List, error) {
	ctx, cancel := context.WithTimeout(ctx, m.Timeout)
	defer cancel()
	for try := 1; ; try++ {
		page, err := m.listOnce(ctx, user, prefix, after, limit)
		if image.KindOf(err) != image.KindNoQuorum || try == listTries || !wait.For(ctx, listPause) {
			if err != nil {
				return wire.List{}, err
			}
			return page.list(m.revealer(ctx, user))
		}
	}
}

// listOnce reads one page from every shard, here or where it is.
func (m *Images) listOnce(ctx context.Context, user, prefix, after string, limit int) (*listPage, error) {
	page := &listPage{limit: limit}
	return page, m.Everywhere(ctx, func(ctx context.Context, node image.NodeID, shards []uint64) error {
		if node == m.Self {
			return m.listShards(ctx, page, shards, user, prefix, after)
		}
		return m.listPeer(ctx, page, node, shards, user, prefix, after)
	})
}

// Everywhere calls ask at once for all data shards, those on this node and those where others serve them. It
// returns the first error; that of a node that does not answer is KindNoQuorum.
func (m *Images) Everywhere(
	ctx context.Context, ask func(ctx context.Context, node image.NodeID, shards []uint64) error,
) error {
	where, err := m.Locate()
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	for node, shards := range where {
		g.Go(func() error {
			err := ask(ctx, node, shards)
			if err != nil && node != m.Self && !errors.As(err, new(*image.Error)) {
				err = image.Errorf(image.KindNoQuorum, "node %d does not answer: %w", node, err).
					WithHint("try again: another node is asked then")
			}
			return err
		})
	}
	return g.Wait()
}

// listPeer adds what some shards on a peer have to a page.
func (m *Images) listPeer(
	ctx context.Context, page *listPage, node image.NodeID, shards []uint64, user, prefix, after string,
) error {
	r, err := m.Peers.ListImages(ctx, node, shards, user, prefix, after, page.limit)
	if err != nil {
		return err
	}
	defer r.Close()
	return page.read(r)
}

// ListShards is List of some shards, which this node must serve.
func (m *Images) ListShards(
	ctx context.Context, shards []uint64, user, prefix, after string, limit int,
) (wire.List, error) {
	ctx, cancel := context.WithTimeout(ctx, m.Timeout)
	defer cancel()
	page := &listPage{limit: limit}
	if err := m.listShards(ctx, page, shards, user, prefix, after); err != nil {
		return wire.List{}, err
	}
	return page.list(m.revealer(ctx, user))
}

// listShards adds what shards on this node have to a page: their lists are merged, so that each is read no
// further than the page goes.
func (m *Images) listShards(
	ctx context.Context, page *listPage, shards []uint64, user, prefix, after string,
) error {
	return m.readAll(ctx, shards, func(readers []catalog.Reader) error {
		var all cursors
		defer func() {
			for _, c := range all {
				c.stop()
			}
		}()
		for _, r := range readers {
			c := newCursor(r, user, prefix, after)
			all = append(all, c)
			if err := c.advance(); err != nil {
				return err
			}
		}
		all.sort()
		for len(all) > 0 && !all[0].done {
			if err := ctx.Err(); err != nil {
				return err // then not all was read
			}
			if rec := all[0].rec; !page.offer(listed{wire.Info{Name: rec.Name}, rec}) {
				return nil
			}
			if err := all[0].advance(); err != nil {
				return err
			}
			all.sift()
		}
		return nil
	})
}

// readAll calls fn once with a state of each of these shards that has all that was committed before the call.
func (m *Images) readAll(ctx context.Context, shards []uint64, fn func([]catalog.Reader) error) error {
	readers := make([]catalog.Reader, len(shards))
	arrived, done := make(chan struct{}, len(shards)), make(chan struct{})
	g, ctx := errgroup.WithContext(ctx)
	for i, shard := range shards {
		g.Go(func() error {
			return m.Log.Read(ctx, shard, func(r catalog.Reader) error {
				readers[i] = r
				arrived <- struct{}{}
				<-done // r is valid until this function returns
				return nil
			})
		})
	}
	err := func() error {
		defer close(done)
		for range shards {
			select {
			case <-arrived:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return fn(readers)
	}()
	return cmp.Or(g.Wait(), err)
}

// cursor is a place in the list of one shard.
type cursor struct {
	rec  *image.Record
	done bool

	next   func() (*image.Record, bool)
	stop   func()
	failed error // of the list, when it has ended
}

func newCursor(r catalog.Reader, user, prefix, after string) *cursor {
	c := &cursor{}
	c.next, c.stop = iter.Pull(func(yield func(*image.Record) bool) {
		c.failed = catalog.ListRecords(r, user, prefix, after, yield)
	})
	return c
}

// advance goes to the next image.
func (c *cursor) advance() error {
	var ok bool
	c.rec, ok = c.next()
	c.done = !ok
	return c.failed
}

// cursors are in the order of their names, those that are done last.
type cursors []*cursor

func (c cursors) sort() { slices.SortFunc(c, (*cursor).compare) }

// sift puts the first one, which has advanced, where it belongs.
func (c cursors) sift() {
	i, _ := slices.BinarySearchFunc(c[1:], c[0], (*cursor).compare)
	first := c[0]
	copy(c, c[1:i+1])
	c[i] = first
}

func (c *cursor) compare(o *cursor) int {
	switch {
	case c.done && o.done:
		return 0
	case c.done:
		return 1
	case o.done:
		return -1
	}
	return strings.Compare(c.rec.Name, o.rec.Name)
}

// pageBytesMax bounds the names of one page, with infoBytes for the rest of each image: a page ends with them
// also where its limit allows for more.
const (
	pageBytesMax = 2 << 20
	infoBytes    = 192
)

// listPage collects the first images of several lists, each of which is in order. It holds no more than a
// page at any time.
type listPage struct {
	limit int

	mu    sync.Mutex
	first largestFirst
	bytes int
	more  bool   // there are images that are not in it
	bound string // with more: none from this name on can be in it
}

// listed is an image of a page: as another node has listed it, or its name and its record.
type listed struct {
	wire.Info
	rec *image.Record // nil: another node has listed it
}

// largestFirst is a heap of images with the last name on top.
type largestFirst []listed

func (h largestFirst) Len() int           { return len(h) }
func (h largestFirst) Less(i, j int) bool { return h[i].Name > h[j].Name }
func (h largestFirst) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *largestFirst) Push(x any)        { *h = append(*h, x.(listed)) }

func (h *largestFirst) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	(*h)[last] = listed{}
	*h = (*h)[:last]
	return x
}

// offer takes an image, and reports whether the next one of its list may belong to the page too.
func (p *listPage) offer(i listed) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.more && i.Name >= p.bound {
		return false
	}
	heap.Push(&p.first, i)
	p.bytes += len(i.Name) + infoBytes
	for len(p.first) > p.limit || p.bytes > pageBytesMax && len(p.first) > 1 {
		p.drop()
	}
	return !p.more || i.Name < p.bound
}

// drop gives up the last image. The caller holds mu.
func (p *listPage) drop() {
	last := heap.Pop(&p.first).(listed)
	p.bytes -= len(last.Name) + infoBytes
	p.more, p.bound = true, last.Name
}

// cut says that one of the lists has more after a name, which were not offered.
func (p *listPage) cut(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.first) > 0 && p.first[0].Name > name {
		p.drop()
	}
	if next := name + "\x00"; !p.more || next < p.bound {
		p.more, p.bound = true, next
	}
}

// list returns the page, with the digests that reveal opens. Nothing may be offered any more.
func (p *listPage) list(reveal revealer) (wire.List, error) {
	slices.SortFunc(p.first, func(a, b listed) int { return strings.Compare(a.Name, b.Name) })
	l := wire.List{Images: make([]wire.Info, len(p.first))}
	for n, i := range p.first {
		info, err := i.info(reveal)
		if err != nil {
			return wire.List{}, err
		}
		l.Images[n] = info
	}
	if p.more && len(l.Images) > 0 {
		l.Next = l.Images[len(l.Images)-1].Name
	}
	return l, nil
}

// info returns an image as it is listed.
func (i *listed) info(reveal revealer) (wire.Info, error) {
	if i.rec == nil {
		return i.Info, nil
	}
	rec := *i.rec
	if rec.Sealed != nil {
		var err error
		if rec.SHA256, err = reveal(i.rec); err != nil {
			return wire.Info{}, err
		}
	}
	return wire.InfoOf(&rec), nil
}

// read offers the images of another node's page, one after the other, for as long as they may belong to this
// one.
func (p *listPage) read(r io.Reader) error {
	d := json.NewDecoder(r)
	for _, want := range []json.Token{json.Delim('{'), "images", json.Delim('[')} {
		if got, err := d.Token(); err != nil || got != want {
			return errors.Join(fmt.Errorf("%v where a list has %v", got, want), err)
		}
	}
	for d.More() {
		var i wire.Info
		if err := d.Decode(&i); err != nil {
			return err
		}
		if !p.offer(listed{Info: i}) {
			return nil
		}
	}
	var rest struct{ Next string }
	if _, err := d.Token(); err != nil { // the end of the images
		return err
	}
	for d.More() {
		key, err := d.Token()
		if err == nil && key == "next" {
			err = d.Decode(&rest.Next)
		}
		if err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil { // the end of the list: all came
		return err
	}
	if rest.Next != "" {
		p.cut(rest.Next)
	}
	return nil
}

// Package exchange moves images out of a cluster and into it. An export is a folder with a user's images as
// ordinary files under their names, and a manifest by which each can be checked. An import takes such a
// folder, or any other files. Both can be stopped at any moment and go on where they were: what is there
// already is known by its SHA-256.
package exchange

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
	"imgcluster/cluster/client"
	"imgcluster/cluster/image"
)

// AtOnceMax is the most images that are moved at the same time. It is what a client keeps connections for.
const AtOnceMax = 64

// copyBytes is the size of the buffer that an image is read with.
const copyBytes = 256 << 10

// The types of an Event.
const (
	Failed  = "failed"  // an image that could not be moved
	Skipped = "skipped" // a file that was not to be moved
	Gone    = "gone"    // a file of an export whose image the cluster does not have any more
)

// Event is what happened to one image or file, other than that it was moved or there already.
type Event struct {
	Type    string `json:"type"`
	User    string `json:"user"`
	Name    string `json:"name,omitempty"` // of the image
	File    string `json:"file,omitempty"` // with the path of its folder
	Problem string `json:"problem,omitempty"`
	Err     error  `json:"-"` // of Failed; Problem is its text
}

// Tally is how far an export or import is.
type Tally struct {
	Of      int   `json:"of"`       // images that there are to move
	OfBytes int64 `json:"of_bytes"` // of them
	Images  int   `json:"images"`   // that were moved
	Bytes   int64 `json:"bytes"`    // that were moved
	Present int   `json:"present"`  // images that were there already
	Failed  int   `json:"failed"`
	Skipped int   `json:"skipped"`
	Gone    int   `json:"gone"`
}

// Add adds up two tallies.
func (t *Tally) Add(o Tally) {
	t.Of += o.Of
	t.OfBytes += o.OfBytes
	t.Images += o.Images
	t.Bytes += o.Bytes
	t.Present += o.Present
	t.Failed += o.Failed
	t.Skipped += o.Skipped
	t.Gone += o.Gone
}

// Move is what an export and an import have in common.
type Move struct {
	Client *client.Client
	User   string
	AtOnce int // images that are moved at the same time, up to AtOnceMax
	// Progress is called after each image, and Event at each event, one call at a time.
	Progress func(Tally)
	Event    func(Event)

	mu    sync.Mutex
	tally Tally
}

// count changes the tally.
func (m *Move) count(change func(*Tally)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(&m.tally)
	m.Progress(m.tally)
}

// moved counts an image that was moved.
func (m *Move) moved(bytes int64) {
	m.count(func(t *Tally) { t.Images++; t.Bytes += bytes })
}

// tell counts an event and reports it.
func (m *Move) tell(e Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch e.Type {
	case Failed:
		m.tally.Failed++
		e.Problem = e.Err.Error()
	case Skipped:
		m.tally.Skipped++
	case Gone:
		m.tally.Gone++
	}
	e.User = m.User
	m.Event(e)
}

// each calls do for every item, AtOnce at a time, until one returns an error or ctx ends. It returns that
// error, or the cause.
func each[T any](ctx context.Context, atOnce int, items []T, do func(context.Context, T) error) error {
	group, all := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for _, item := range items {
		if all.Err() != nil {
			break
		}
		group.Go(func() error { return do(all, item) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// ends reports whether an error would come again with every other image: it ends the whole.
func ends(err error) bool {
	switch image.KindOf(err) {
	case image.KindNoQuorum, image.KindUnauthorized, image.KindForbidden, image.KindDiskFull:
		return true
	}
	is := func(other error) bool { return errors.Is(err, other) }
	return is(client.ErrMistrusted) || slices.ContainsFunc(lasting, is)
}

// isLocal reports whether an error is of a file here, not of the cluster.
func isLocal(err error) bool {
	return errors.As(err, new(*fs.PathError)) || errors.As(err, new(*os.LinkError))
}

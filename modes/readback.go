package modes

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"imgcluster/cluster/client"
	"imgcluster/cluster/image"
	"imgcluster/modes/load"
	"imgcluster/modes/result"
)

const (
	readBackWorkers  = 4         // images read at once
	readBackAttempts = 3         // for an image that ends in its middle
	readBackBytes    = 256 << 10 // of memory for each worker: images are not held
)

// readBack is the target of a run that remembers the SHA-256 of every acknowledged image, and after
// the run reads all of them and compares.
type readBack struct {
	target
	c    *client.Client
	user string
	p    *progress

	mu   sync.Mutex
	sent []sentImage
}

type sentImage struct {
	name string
	sum  [sha256.Size]byte
}

// Put implements load.Target. What is sent is hashed beside the upload.
func (b *readBack) Put(ctx context.Context, up load.Upload) (load.Outcome, error) {
	sum := make(chan [sha256.Size]byte, 1)
	go func() {
		h := sha256.New()
		io.Copy(h, up.Body()) // when it fails, so does the upload, or the images differ
		sum <- [sha256.Size]byte(h.Sum(nil))
	}()
	o, err := b.target.Put(ctx, up)
	s := sentImage{up.Name, <-sum}
	if err == nil {
		b.mu.Lock()
		b.sent = append(b.sent, s)
		b.mu.Unlock()
	}
	return o, err
}

// run reads all images, until ctx is done, and writes what it finds.
func (b *readBack) run(ctx context.Context, l load.Recorder) {
	if ctx.Err() != nil {
		return
	}
	began, total := time.Now(), int64(len(b.sent))
	sum := result.Readback{Images: total}
	var mu sync.Mutex
	var group errgroup.Group
	group.SetLimit(readBackWorkers)
	for _, s := range b.sent {
		group.Go(func() error {
			if ctx.Err() != nil {
				return nil
			}
			bytes, bad, why := b.one(ctx, s)
			if bad != "" && ctx.Err() != nil {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			sum.Bytes += bytes
			switch bad {
			case "":
				sum.Matched++
			case result.EventImageMismatched:
				sum.Mismatched++
			case result.EventImageMissing:
				sum.Missing++
			default:
				sum.Unread++
			}
			if bad != "" {
				l.Event(result.Event{Kind: bad, Detail: fmt.Sprintf("%s: %s", s.name, why)})
			}
			done := sum.Matched + sum.Mismatched + sum.Missing + sum.Unread
			b.p.show(done == total, "%d of %d images read back, %s/s, %d not as sent", done, total,
				formatBytes(int64(float64(sum.Bytes)/time.Since(began).Seconds())), done-sum.Matched)
			return nil
		})
	}
	group.Wait() // no error is returned to it
	sum.ElapsedS = time.Since(began).Seconds()
	l.Write(sum)
}

// one reads an image and says what is bad about it, as the kind of an event.
func (b *readBack) one(ctx context.Context, s sentImage) (bytes int64, bad, why string) {
	for attempt := 1; ; attempt++ {
		sum, n, err := b.digest(ctx, s.name)
		bytes += n
		switch {
		case err == nil && sum == s.sum:
			return bytes, "", ""
		case err == nil:
			return bytes, result.EventImageMismatched, fmt.Sprintf("has the SHA-256 %x, %x was sent", sum, s.sum)
		case image.KindOf(err) == image.KindNotFound:
			return bytes, result.EventImageMissing, err.Error()
		case attempt == readBackAttempts || ctx.Err() != nil:
			return bytes, result.EventImageUnread, err.Error()
		}
	}
}

func (b *readBack) digest(ctx context.Context, name string) (sum [sha256.Size]byte, n int64, err error) {
	obj, err := b.c.Get(ctx, b.user, name, client.GetOptions{})
	if err != nil {
		return sum, 0, err
	}
	defer obj.Body.Close()
	h := sha256.New()
	n, err = io.CopyBuffer(h, obj.Body, make([]byte, readBackBytes))
	return [sha256.Size]byte(h.Sum(nil)), n, err
}

package stress

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"imgcluster/cluster/client"
	"imgcluster/cluster/image"
	"imgcluster/modes/runlog"
	"imgcluster/modes/stress/load"
	"imgcluster/modes/term"
)

const (
	readBackWorkers  = 4 // images read at once
	readBackAttempts = 3 // for each image
)

// readBack reads all images of a run after the uploads, and compares their SHA-256 with that of what was
// sent.
type readBack struct {
	c      *client.Client
	source load.Source // of what was sent before an interruption
	show   func(Stage)
}

// run reads the images and records the result. It returns load.ErrInterrupted when ctx ends before all
// were read, but nil when ctx has ended before the start: then the uploads were interrupted, not this.
func (b *readBack) run(ctx context.Context, images []load.StoredImage, l load.Recorder) error {
	if ctx.Err() != nil {
		return nil
	}
	began := time.Now()
	total := int64(len(images))
	sum := runlog.Readback{Images: total}
	show := func(done int64) {
		text := fmt.Sprintf("%d of %d images read back, %s/s, %d not as sent", done, total,
			term.Bytes(int64(float64(sum.Bytes)/time.Since(began).Seconds())), done-sum.Matched)
		b.show(Stage{What: "read back", Done: done, Total: total, Text: text})
	}
	if total > 0 {
		show(0)
	}
	var mu sync.Mutex
	var group errgroup.Group
	group.SetLimit(readBackWorkers)
	for _, s := range images {
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
			case runlog.EventImageMismatched:
				sum.Mismatched++
			case runlog.EventImageMissing:
				sum.Missing++
			default:
				sum.Unread++
			}
			if bad != "" {
				l.Event(runlog.Event{Kind: bad, Detail: fmt.Sprintf("%s: %s", s.Name, why)})
			}
			show(sum.Matched + sum.Mismatched + sum.Missing + sum.Unread)
			return nil
		})
	}
	group.Wait() // its functions return no error
	sum.ElapsedS = time.Since(began).Seconds()
	l.Write(sum)
	if sum.Matched+sum.Mismatched+sum.Missing+sum.Unread < total {
		return fmt.Errorf("%w while images were read back", load.ErrInterrupted)
	}
	return nil
}

// one reads an image. When it is not as it was sent, one returns the kind of the event and its detail.
func (b *readBack) one(ctx context.Context, s load.StoredImage) (bytes int64, bad, why string) {
	if !s.Known {
		var err error
		if s.Sum, err = load.Digest(ctx, b.source, s.Seq); err != nil {
			return 0, runlog.EventImageUnread, "what was sent cannot be generated again: " + err.Error()
		}
	}
	for attempt := 1; ; attempt++ {
		sum, n, err := readSum(ctx, b.c, s.User, s.Name)
		bytes += n
		switch {
		case err == nil && sum == s.Sum:
			return bytes, "", ""
		case err == nil:
			return bytes, runlog.EventImageMismatched, fmt.Sprintf("has the SHA-256 %x, %x was sent", sum, s.Sum)
		case image.KindOf(err) == image.KindNotFound:
			return bytes, runlog.EventImageMissing, err.Error()
		case attempt == readBackAttempts || ctx.Err() != nil:
			return bytes, runlog.EventImageUnread, err.Error()
		}
	}
}

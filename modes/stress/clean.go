package stress

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"imgcluster/cluster/client"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
	"imgcluster/modes/runlog"
	"imgcluster/modes/stress/load"
	"imgcluster/modes/term"
)

const (
	cleanWorkers = 16               // images deleted at once
	spaceLimit   = 30 * time.Second // for the nodes to delete the files
	spacePoll    = 200 * time.Millisecond
)

// Owned is an image to delete. With an upload ID, an image that has replaced it under its name is left alone.
type Owned struct {
	User, Name, ID string
	Bytes          int64
}

// ImagesOfLog returns the images of a run's log, those of uploads without an answer too, every upload
// once. Logs of older versions have no IDs of uploads: whatever has the name is deleted.
func ImagesOfLog(path string) ([]Owned, error) {
	var images []Owned
	seen := map[string]bool{}
	_, err := eachLine(path, "name the log that stress wrote (default log.jsonl)", func(text []byte) error {
		var u struct {
			Type     string `json:"type"`
			Attempts *int   `json:"attempts"`
			runlog.Upload
		}
		if json.Unmarshal(text, &u) != nil || u.Type != "upload" || u.Name == "" {
			return nil
		}
		if u.Attempts != nil && *u.Attempts == 0 && !u.OK {
			return nil // nothing was sent
		}
		if u.User == "" {
			u.User = load.DefaultUser
		}
		if key := u.User + "/" + u.Name + "/" + u.ID; !seen[key] {
			seen[key] = true
			images = append(images, Owned{u.User, u.Name, u.ID, u.Bytes})
		}
		return nil
	})
	return images, err
}

// cleanRun deletes the images of the run that is under way, by its log, and records that in the log.
func cleanRun(ctx context.Context, c *client.Client, path string, v View, l load.Recorder) error {
	l.Event(runlog.Event{Kind: runlog.EventCleaning})
	if err := l.Flush(); err != nil {
		return err
	}
	images, err := ImagesOfLog(path)
	if err != nil {
		return err
	}
	done, err := Delete(ctx, c, images, v.Stage)
	l.Write(done)
	if err != nil {
		return err
	}
	v.Note(CleanedText(done))
	return nil
}

// Delete deletes images and waits until the nodes have deleted the files. It calls show after each image.
// What was done is returned with an error too.
func Delete(
	ctx context.Context, c *client.Client, images []Owned, show func(Stage),
) (done runlog.Cleaned, err error) {
	before, err := usages(ctx, c)
	if err == nil {
		done, err = deleteAll(ctx, c, images, show)
	}
	done.Failed = int64(len(images)) - done.Images - done.Missing
	if err == nil {
		done.WonBack, err = awaitSpace(ctx, c, before, done.Images)
	}
	return done, err
}

// CleanedText returns one sentence about what was deleted.
func CleanedText(done runlog.Cleaned) string {
	missing := ""
	if done.Missing > 0 {
		missing = fmt.Sprintf("; %s had been deleted or replaced before", term.Plural(done.Missing, "image"))
	}
	return fmt.Sprintf("deleted %s, %s%s; the nodes have %s of disk back",
		term.Plural(done.Images, "image"), term.Bytes(done.Bytes), missing, term.Bytes(done.WonBack))
}

// deleteAll deletes images, several at once. One that is missing is no failure.
func deleteAll(
	ctx context.Context, c *client.Client, images []Owned, show func(Stage),
) (done runlog.Cleaned, err error) {
	var mu sync.Mutex
	total := int64(len(images))
	group, failed := errgroup.WithContext(ctx)
	group.SetLimit(cleanWorkers)
	for _, i := range images {
		if failed.Err() != nil {
			break
		}
		group.Go(func() error {
			err := c.Delete(failed, i.User, i.Name, i.ID)
			missing := image.KindOf(err) == image.KindNotFound || image.KindOf(err) == image.KindChanged
			if err != nil && !missing {
				return fmt.Errorf("%s/%s: %w", i.User, i.Name, err)
			}
			mu.Lock()
			defer mu.Unlock()
			if missing {
				done.Missing++
			} else {
				done.Images++
				done.Bytes += i.Bytes
			}
			show(Stage{
				Done:  done.Images + done.Missing,
				Total: total,
				Text:  fmt.Sprintf("%d of %d images deleted", done.Images, total),
			})
			return nil
		})
	}
	if err = errors.Join(group.Wait(), ctx.Err()); err != nil {
		left := total - done.Images - done.Missing
		return done, fmt.Errorf("%d of %d images were not deleted: %w", left, total, err)
	}
	return done, nil
}

// usages asks every node that is up for its own figures, since what other nodes know of it is a little old.
func usages(ctx context.Context, c *client.Client) (map[image.NodeID]wire.NodeStatus, error) {
	status, err := c.Cluster(ctx)
	if err != nil {
		return nil, err
	}
	own := map[image.NodeID]wire.NodeStatus{}
	for _, n := range status.Nodes {
		s, err := c.NodeCluster(ctx, n.ID)
		if err != nil {
			continue // it is down: its files are not waited for
		}
		for _, x := range s.Nodes {
			if x.ID == n.ID {
				own[x.ID] = x
			}
		}
	}
	return own, ctx.Err()
}

// awaitSpace waits until the nodes have deleted the files of so many images, and returns the size of
// these files. It gives up after spaceLimit, since other clients may store images meanwhile.
func awaitSpace(
	ctx context.Context, c *client.Client, before map[image.NodeID]wire.NodeStatus, images int64,
) (bytes int64, err error) {
	limit := time.Now().Add(spaceLimit)
	for {
		now, err := usages(ctx, c)
		if err != nil {
			return 0, err
		}
		var records, files int64
		bytes = 0
		for id, n := range now {
			if b, ok := before[id]; ok {
				records += b.StoredImages - n.StoredImages
				files += b.Files - n.Files
				bytes += b.FileBytes - n.FileBytes
			}
		}
		bytes = max(bytes, 0)
		if records >= images && files >= records || time.Now().After(limit) {
			return bytes, nil
		}
		select {
		case <-ctx.Done():
			return bytes, ctx.Err()
		case <-time.After(spacePoll):
		}
	}
}

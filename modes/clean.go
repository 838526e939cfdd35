package modes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
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
	spaceLimit   = 30 * time.Second // for the nodes to win their disk back
	spacePoll    = 200 * time.Millisecond
)

// errKept is the user's no.
var errKept = errors.New("nothing was deleted")

func newClean(e *env) *cobra.Command {
	var o cleanOptions
	cmd := &cobra.Command{
		Use:   "clean",
		Short: "Delete the images that stress runs stored",
		Long: `Delete all images of a user, stresstest unless another one is named, or with
--log those that a run stored by its log and no others. It shows how many there
are and asks, then waits until the nodes have their disk back.`,
		Example: "  imgcluster clean\n  imgcluster clean --user stresstest --yes\n  imgcluster clean --log log.jsonl",
		Args:    args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("log") && cmd.Flags().Changed("user") {
				return usagef("leave out --user", "--log and --user: a log tells whose images they are")
			}
			return runClean(cmd.Context(), e, o)
		},
	}
	cmd.Flags().StringVar(&o.user, "user", stressUser, "whose images")
	cmd.Flags().StringVar(&o.log, "log", "", "only the images that this log says were stored")
	cmd.Flags().BoolVar(&o.yes, "yes", false, "do not ask")
	return cmd
}

type cleanOptions struct {
	user, log string
	yes       bool
}

func runClean(ctx context.Context, e *env, o cleanOptions) error {
	if err := checkUser(o.user); err != nil {
		return err
	}
	var images []ownedImage
	if o.log != "" {
		var err error
		if images, err = imagesOfLog(o.log); err != nil {
			return err
		}
	}
	cfg, c, err := e.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	if o.log == "" {
		for info, err := range c.All(ctx, o.user, "") {
			if err != nil {
				return err
			}
			images = append(images, ownedImage{user: o.user, name: info.Name, bytes: info.Bytes})
		}
	}
	if len(images) > 0 && !o.yes {
		if !term.Is(fileOf(e.in)) {
			return usagef("add --yes to delete them without a terminal", "%s are there, and clean asks before it deletes", term.Plural(len(images), "image"))
		}
		if err := e.ask(fmt.Sprintf("Delete %s, %s, of %s in %s?", term.Plural(len(images), "image"), term.Bytes(sumBytes(images)), owners(images), cfg.Cluster.Name), errKept); err != nil {
			return err
		}
	}
	p := e.progress()
	defer p.end()
	done, err := deleteImages(ctx, c, images, p)
	if err != nil {
		return err
	}
	if e.json {
		w := runlog.NewWriter(e.out)
		return errors.Join(w.Write(done), w.Close())
	}
	e.say("%s", cleanedWords(done))
	return nil
}

// ownedImage is an image to delete; with an upload ID no other one that has its name.
type ownedImage struct {
	user, name, id string
	bytes          int64
}

func sumBytes(images []ownedImage) (sum int64) {
	for _, i := range images {
		sum += i.bytes
	}
	return sum
}

// owners names whose images they are.
func owners(images []ownedImage) string {
	var users []string
	for _, i := range images {
		if !slices.Contains(users, i.user) {
			users = append(users, i.user)
		}
	}
	return strings.Join(users, ", ")
}

// imagesOfLog lists what the log of a run says was stored, every upload once. What one without an
// answer left is listed too. Logs of older versions have no IDs of uploads: what has their names goes.
func imagesOfLog(path string) ([]ownedImage, error) {
	var images []ownedImage
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
			u.User = stressUser
		}
		if key := u.User + "/" + u.Name + "/" + u.ID; !seen[key] {
			seen[key] = true
			images = append(images, ownedImage{u.User, u.Name, u.ID, u.Bytes})
		}
		return nil
	})
	return images, err
}

// cleanRun deletes what a run that is under way has stored, by its log, and writes that there.
func cleanRun(ctx context.Context, c *client.Client, path string, p *progress, l load.Recorder) error {
	l.Event(runlog.Event{Kind: runlog.EventCleaning})
	if err := l.Flush(); err != nil {
		return err
	}
	images, err := imagesOfLog(path)
	if err != nil {
		return err
	}
	done, err := deleteImages(ctx, c, images, p)
	l.Write(done)
	if err != nil {
		return err
	}
	p.note(cleanedWords(done))
	return nil
}

// deleteImages deletes images, and waits for the disk that they took. What was done counts with an error too.
func deleteImages(ctx context.Context, c *client.Client, images []ownedImage, p *progress) (done runlog.Cleaned, err error) {
	before, err := usages(ctx, c)
	if err == nil {
		done, err = deleteAll(ctx, c, images, p)
	}
	done.Failed = int64(len(images)) - done.Images - done.Missing
	if err == nil {
		done.WonBack, err = awaitSpace(ctx, c, before, done.Images)
	}
	return done, err
}

func cleanedWords(done runlog.Cleaned) string {
	missing := ""
	if done.Missing > 0 {
		missing = fmt.Sprintf("; %s had been deleted or replaced before", term.Plural(done.Missing, "image"))
	}
	return fmt.Sprintf("deleted %s, %s%s; the nodes have %s of disk back",
		term.Plural(done.Images, "image"), term.Bytes(done.Bytes), missing, term.Bytes(done.WonBack))
}

// deleteAll deletes images, several at once. One that is not there is no failure.
func deleteAll(ctx context.Context, c *client.Client, images []ownedImage, p *progress) (done runlog.Cleaned, err error) {
	var mu sync.Mutex
	group, failed := errgroup.WithContext(ctx)
	group.SetLimit(cleanWorkers)
	for _, i := range images {
		if failed.Err() != nil {
			break
		}
		group.Go(func() error {
			err := c.DeleteMatching(failed, i.user, i.name, i.id)
			gone := image.KindOf(err) == image.KindNotFound || image.KindOf(err) == image.KindChanged
			if err != nil && !gone {
				return fmt.Errorf("%s/%s: %w", i.user, i.name, err)
			}
			mu.Lock()
			defer mu.Unlock()
			if gone {
				done.Missing++
			} else {
				done.Images++
				done.Bytes += i.bytes
			}
			n := done.Images + done.Missing
			p.show(n == int64(len(images)), "%d of %d images deleted", done.Images, len(images))
			return nil
		})
	}
	if err = errors.Join(group.Wait(), ctx.Err()); err != nil {
		return done, fmt.Errorf("%d of %d images were not deleted: %w", int64(len(images))-done.Images-done.Missing, len(images), err)
	}
	return done, nil
}

// usages asks every node that is up for its own figures: what others tell of it is a little old.
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

// awaitSpace waits until the nodes have deleted the files of so many images, or for spaceLimit: others
// may store some meanwhile.
func awaitSpace(ctx context.Context, c *client.Client, before map[image.NodeID]wire.NodeStatus, images int64) (bytes int64, err error) {
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

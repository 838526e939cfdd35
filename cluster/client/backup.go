package client

import (
	"context"
	"io"
	"net/http"
	"time"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// backupSilence is how long a node that sends a backup may send nothing: it asks each shard's group first
// whether it has the newest state.
const backupSilence = time.Minute

// Backup has one node make a backup of the cluster's catalog and writes it to w; package backup says what is
// in one. It is tried once. It needs a node that answers, and no majority.
func (c *Client) Backup(ctx context.Context, n Node, w io.Writer) error {
	waiting := c.wait(nil)
	defer waiting.end()
	waiting.asked(n)
	r, f := c.askNode(ctx, n, http.MethodGet, wire.BackupPath, nil, nil)
	if f != nil {
		err, _ := c.summarize([]failure{*f})
		return err
	}
	quiet := time.AfterFunc(backupSilence, r.cancel)
	defer quiet.Stop()
	defer r.cancel()
	var unread error
	_, err := io.Copy(w, readerFunc(func(p []byte) (n int, err error) {
		n, err = r.resp.Body.Read(p)
		quiet.Reset(backupSilence)
		waiting.touch()
		if err != io.EOF {
			unread = err
		}
		return n, err
	}))
	switch {
	case ctx.Err() != nil && err != nil:
		return context.Cause(ctx)
	case unread == nil:
		return err
	}
	return image.Errorf(image.KindAborted, "node %d did not finish the backup: %w", n.ID, err).
		WithHint("try again; the node's log says why it stopped")
}

// readerFunc is a reader.
type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

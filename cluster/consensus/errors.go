package consensus

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/lni/dragonboat/v4"
	"golang.org/x/sys/unix"

	"imgcluster/cluster/image"
	"imgcluster/cluster/oserr"
	"imgcluster/cluster/witness"
)

// errStopping is the answer of a node that is shutting down.
func errStopping() error {
	return image.Errorf(image.KindNoQuorum, "the node is shutting down").WithHint("ask another node")
}

// errShard is the answer of a node that the shard is not on, mostly because it moved a moment ago.
func errShard(shard uint64) error {
	return image.Errorf(image.KindNoQuorum, "shard %d is not on this node", shard).
		WithHint("ask again: the nodes soon know where it is").WithRetry(time.Second)
}

// ErrDamaged is why Start refuses a data directory whose log or catalog is not what this node wrote: a
// part of it is gone, a checksum is wrong, or the witness knows it otherwise. What could not be read for
// another reason is not damaged.
var ErrDamaged = errors.New("damaged")

// damaged marks err as ErrDamaged, unless the operating system did not let the file be read, or another
// process has it.
func damaged(err error) error {
	var typed *image.Error
	class := oserr.ClassOf(err)
	refused := class != oserr.None && class != oserr.Missing
	if err == nil || errors.As(err, &typed) || errors.Is(err, ErrDamaged) || refused || isLocked(err) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}

// isLocked reports whether another process, or this one, has a database open. Not all of these errors have a
// type.
func isLocked(err error) bool {
	text := err.Error()
	return strings.Contains(text, "failed to lock") || strings.Contains(text, "lock held")
}

const replaceHint = "replace this node: start it with --replace, so that it is rebuilt from its peers"

// errHalfLost is the refusal of a data directory without its Raft log or without its catalog.
func errHalfLost(lost *witness.LostError) error {
	return image.Errorf(image.KindInvalid, "%w: %w", lost, ErrDamaged).WithHint(replaceHint)
}

// witnessError gives what the witness found its kind and its next step.
func witnessError(err error) error {
	var changed *witness.ChangedError
	var lost *witness.LostError
	switch {
	case errors.As(err, &changed):
		return image.Errorf(image.KindDamaged, "%v: %w", changed, ErrDamaged).WithHint(replaceHint)
	case errors.As(err, &lost):
		return errHalfLost(lost)
	case errors.Is(err, witness.ErrFormat):
		return image.Errorf(image.KindInvalid, "%w", err).
			WithHint("start the version of imgcluster that wrote it, or a newer one")
	}
	return err
}

// firstRefused returns the system's error for the first file or folder of Raft and the catalog that cannot
// be read and written.
func firstRefused(dir string) error {
	for _, folder := range []string{"raft", "catalog"} {
		top := filepath.Join(dir, folder)
		err := filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) || err == nil && !e.Type().IsRegular() {
				return nil
			}
			if err != nil {
				return err
			}
			// Not opened: to close a file would give up this process's lock of it.
			if err := unix.Access(path, unix.R_OK|unix.W_OK); err != nil {
				return &fs.PathError{Op: "open", Path: path, Err: err}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// startError gives what stops a start its kind and its next step. Some of dragonboat's errors are
// in internal packages; only for these is the text looked at.
func startError(err error, o *Options) error {
	var typed *image.Error
	if err == nil || errors.As(err, &typed) {
		return err
	}
	if oserr.ClassOf(err) == oserr.None && !errors.Is(err, ErrDamaged) {
		if cause := firstRefused(o.Dir); cause != nil { // dragonboat does not always return it
			err = cause
		}
	}
	text := err.Error()
	kind := image.KindInternal
	hint := "see the log for what came before; free memory and open files of the host, then start it again"
	class := oserr.ClassOf(err)
	switch {
	case errors.Is(err, ErrDamaged):
		kind, hint = image.KindDamaged, replaceHint
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
	case class == oserr.Busy:
		kind, hint = image.KindInvalid, o.Listen+": "+oserr.Hint(err, "")
	case class == oserr.Held, isLocked(err):
		kind, hint = image.KindInvalid, o.Dir+" is in use: stop the other process, or choose another data_dir"
	case class == oserr.Full:
		kind, hint = image.KindDiskFull, oserr.Hint(err, o.Dir)
	case class != oserr.None: // the node has to be given what it needs: its data are as they were
		kind, hint = image.KindInvalid, oserr.Hint(err, o.Dir)
	case errors.Is(err, dragonboat.ErrInvalidShardSettings):
		kind = image.KindInvalid
		hint = "the first nodes and their Raft addresses are fixed: set cluster.nodes back"
	case strings.Contains(text, "hostname changed"):
		kind, hint = image.KindInvalid, "give the host its former name back, or replace the node"
	case strings.Contains(text, "changed"), strings.Contains(text, "not the owner"):
		kind = image.KindInvalid
		hint = "the data directory belongs to another configuration: set it back, or choose another data_dir"
	}
	return image.Errorf(kind, "the node cannot start: %w", err).WithHint(hint)
}

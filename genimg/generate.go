package genimg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"

	"imgcluster/cluster/durable"
)

// The limits of Generate.
const (
	CountMax   = 1_000_000 // images in one set
	WorkersMax = 256       // images made at the same time

	roomLeftMax     = 1 << 30 // bytes left free on the disk: this, or less on a small one:
	roomLeftPercent = 5       // of the disk
)

// Generate writes the images 1 to count of a set into dir, which it makes, with so many workers
// (0: one for each processor). A file is written under a temporary name and renamed when it is
// whole; one that is there already is replaced. A disk without room for all of it is refused with
// ErrNoRoom before anything is written. When ctx ends or a file fails, the whole files stay and
// the cut ones go.
//
// After each file, progress, which may be nil, is told how many there are and their bytes; it is
// never called twice at a time.
func Generate(
	ctx context.Context, spec Spec, count int, dir string, workers int, progress func(done int, bytes int64),
) error {
	if err := check(spec, count, workers); err != nil {
		return err
	}
	if err := checkRoom(spec, count, dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return refuse(otherFolder, "the folder of the images: %v", err)
	}
	if workers == 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	run := &run{spec: spec, count: count, dir: dir, progress: progress}
	return run.all(ctx, min(workers, count))
}

func check(spec Spec, count, workers int) error {
	switch {
	case count < 1 || count > CountMax:
		return refuse(fmt.Sprintf("give --count between 1 and %d", CountMax),
			"a set of %d images cannot be made", count)
	case workers < 0 || workers > WorkersMax:
		return refuse(fmt.Sprintf("give --workers between 1 and %d, or 0 for one a processor", WorkersMax),
			"%d workers cannot be used", workers)
	}
	return spec.Validate()
}

// otherFolder is the next step where the images cannot be written.
const otherFolder = "name a folder that can be written with --out"

// run is one call of Generate.
type run struct {
	spec     Spec
	count    int
	dir      string
	progress func(done int, bytes int64)

	mu    sync.Mutex // guards the rest, and calls of progress
	next  int        // the last image given out
	done  int
	bytes int64
}

// all runs the workers; the first failure stops them.
func (r *run) all(ctx context.Context, workers int) error {
	work, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			if err := r.worker(work); err != nil {
				stop(err)
			}
		})
	}
	group.Wait()
	if r.done == r.count {
		return nil
	}
	return fmt.Errorf("%d of %d images written: %w", r.done, r.count, context.Cause(work))
}

// worker writes images until there are no more, or ctx ends.
func (r *run) worker(ctx context.Context) error {
	for {
		n, ok := r.take()
		if !ok {
			return nil
		}
		im := r.spec.Image(n)
		if err := writeFile(ctx, r.dir, im); err != nil {
			return err
		}
		r.finished(im)
	}
}

func (r *run) take() (n int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.next == r.count {
		return 0, false
	}
	r.next++
	return r.next, true
}

func (r *run) finished(im Image) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done++
	r.bytes += im.Size
	if r.progress != nil {
		r.progress(r.done, r.bytes)
	}
}

// writeFile writes one image to dir, whole or not at all.
func writeFile(ctx context.Context, dir string, im Image) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	path := filepath.Join(dir, im.Name)
	f, err := durable.Create(path)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if _, err := im.WriteTo(untilDone{ctx, f}); err != nil {
		f.Discard()
		return fmt.Errorf("%s: %w", path, err)
	}
	return f.Commit()
}

// untilDone is a writer that fails once ctx has ended, so that a large image can be given up in
// the middle.
type untilDone struct {
	ctx context.Context
	w   io.Writer
}

func (u untilDone) Write(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.w.Write(p)
}

// checkRoom refuses a set that the disk of dir cannot take. What files of the same names hold now
// counts as room, since they are replaced.
func checkRoom(spec Spec, count int, dir string) error {
	disk, err := existing(dir)
	if err != nil {
		return err
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(disk, &st); err != nil {
		return fmt.Errorf("ask how much room there is at %s: %w", disk, err)
	}
	block := int64(st.Bsize)
	total, free := int64(st.Blocks)*block, int64(st.Bavail)*block
	left := min(roomLeftMax, total/100*roomLeftPercent)

	need := spec.Summary(count).Bytes
	if need+left <= free || need-replaced(dir, spec, count)+left <= free {
		return nil
	}
	return &Error{
		Err: ErrNoRoom,
		Detail: fmt.Sprintf("%d images take %s, and %s has %s free, of which %s must stay free",
			count, gigabytes(need), dir, gigabytes(free), gigabytes(left)),
		hint: "free some room, name another disk with --out, " +
			"or make fewer or smaller images with --count or --max-pixels",
	}
}

// existing returns dir or, when it is not there yet, the nearest folder above that is.
func existing(dir string) (string, error) {
	for at := filepath.Clean(dir); ; at = filepath.Dir(at) {
		_, err := os.Stat(at)
		switch {
		case err == nil:
			return at, nil
		case !errors.Is(err, fs.ErrNotExist) || at == filepath.Dir(at):
			return "", fmt.Errorf("find the disk of %s: %w", dir, err)
		}
	}
}

// replaced returns the bytes of the set's files that are in dir already.
func replaced(dir string, spec Spec, count int) int64 {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0 // not there yet, or Generate is about to fail on it
	}
	ours := make(map[string]bool, count)
	for n := 1; n <= count; n++ {
		ours[spec.Image(n).Name] = true
	}
	var sum int64
	for _, e := range entries {
		if st, err := e.Info(); err == nil && st.Mode().IsRegular() && ours[e.Name()] {
			sum += st.Size()
		}
	}
	return sum
}

func gigabytes(n int64) string { return fmt.Sprintf("%.2f GB", float64(n)/1e9) }

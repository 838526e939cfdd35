package genimg

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"

	"imgcluster/cluster/durable"
	"imgcluster/cluster/hostinfo"
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
	return run.all(ctx, workers)
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
	done  int
	bytes int64
}

// all writes the images with so many workers; the first failure stops them.
func (r *run) all(ctx context.Context, workers int) error {
	group, work := errgroup.WithContext(ctx)
	group.SetLimit(workers)
	for n := 1; n <= r.count && work.Err() == nil; n++ {
		group.Go(func() error {
			im := r.spec.Image(n)
			if err := writeFile(work, r.dir, im); err != nil {
				return err
			}
			r.finished(im)
			return nil
		})
	}
	group.Wait() // its error is the cause, unless ctx ended
	if r.done == r.count {
		return nil
	}
	return fmt.Errorf("%d of %d images written: %w", r.done, r.count, context.Cause(work))
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
	disk, err := hostinfo.LimitsOf(dir)
	if err != nil {
		return fmt.Errorf("find the disk of %s: %w", dir, err)
	}
	left := min(roomLeftMax, disk.BytesTotal/100*roomLeftPercent)
	need := spec.Summary(count).Bytes
	if need+left <= disk.Bytes || need-replaced(dir, spec, count)+left <= disk.Bytes {
		return nil
	}
	return &Error{
		Err: ErrNoRoom,
		Detail: fmt.Sprintf("%d images take %s, and %s has %s free, of which %s must stay free",
			count, gigabytes(need), dir, gigabytes(disk.Bytes), gigabytes(left)),
		hint: "free some room, name another disk with --out, " +
			"or make fewer or smaller images with --count or --max-pixels",
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

package store

import (
	"errors"
	"io/fs"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"imgcluster/cluster/failpoint"
	"imgcluster/cluster/image"
	"imgcluster/cluster/trace"
)

const (
	// hugeBytes is a huge page. Each Writer has one as its buffer: the kernel looks up few pages for a
	// direct write. 1.06 to 1.09 of the uploads/s where the disk limits them, by six rounds and more in
	// turn, 0.98 of the nodes' CPU.
	hugeBytes = 2 << 20
	// directBytes is the length of one direct write. 4 MiB was not faster.
	directBytes = hugeBytes - hugeBytes/8
	// beyondBytes is how much of one Write the buffer takes beyond that: see AvailableBuffer.
	beyondBytes = 128<<10 + alignBytes
	// alignBytes is the alignment of direct I/O in memory and in the file.
	alignBytes = 4096
	// smallBytes is the length up to which a file is written to the page cache, at once and at its end:
	// direct I/O needs an allocation, and two writes that wait for the disk.
	smallBytes = 64 << 10
	// writeBackBytes is how much is written to the page cache before its write-back is started, so that
	// the disk works while the rest is encrypted.
	writeBackBytes = 4 << 20
)

// directBuffers holds aligned buffers of directBytes and beyondBytes, one for each Writer that has one.
var directBuffers = sync.Pool{New: func() any {
	// Outside the heap, which would not be told where they are to lie.
	mem, err := unix.Mmap(-1, 0, 2*hugeBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		mem = make([]byte, 2*hugeBytes)
	}
	skip := -uintptr(unsafe.Pointer(&mem[0])) % hugeBytes
	page := mem[skip : skip+hugeBytes]
	preferHuge(page)
	b := page[: directBytes+beyondBytes : directBytes+beyondBytes]
	if err == nil {
		runtime.AddCleanup(&b, func(mem []byte) { _ = unix.Munmap(mem) }, mem)
	}
	return &b
}}

// Writer writes one file's ciphertext. It is for one goroutine. Every Writer must end in Abort, or in
// a Commit that returned nil; `defer w.Abort()` is right in either case. The first error is final: all
// later calls return it.
type Writer struct {
	s     *Store
	id    image.FileID
	f     file // nil when closed
	size  int64
	taken int64   // bytes that Write has taken
	buf   *[]byte // holds the last taken%directBytes bytes; nil: nothing is held back
	small bool    // goes to the page cache, in one write
	back  int64   // buffered only: write-back was started up to this offset
	ended bool    // committed or aborted
	err   error

	failures int64 // Store.failures at Create
	trace    *trace.Request
}

var errEnded = image.Errorf(image.KindInternal, "the image file was already committed or aborted")

// Create starts a new file. size is its exact final length in bytes, which is allocated here unless it is
// small, so that a full disk is an error of KindDiskFull now and not after the body has come. When there is
// such a file already, or one that is being written, the error is of KindConflict.
func (s *Store) Create(id image.FileID, size int64) (*Writer, error) {
	if size <= 0 {
		return nil, image.Errorf(image.KindInvalid, "image file of %d bytes", size).
			WithHint("give the length of the ciphertext with its header")
	}
	failures := s.failures.Load()
	if err := s.Failed(); err != nil {
		return nil, err
	}
	if err := s.RoomFor(1, size); err != nil {
		return nil, err
	}
	if err := s.reserve(id); err != nil {
		return nil, err
	}
	small := size <= smallBytes
	f, err := s.fs.create(tmpPathOf(id), s.direct && !small)
	if err != nil {
		s.release(id)
		return nil, s.fault("create", id.String(), err)
	}
	w := &Writer{s: s, id: id, f: f, size: size, small: small, failures: failures}
	failpoint.Here("store/created")
	if s.direct || small {
		w.buf = directBuffers.Get().(*[]byte)
	}
	if small {
		return w, nil
	}
	if err := f.allocate(size); err != nil {
		err = s.fault("allocate", id.String(), err)
		return nil, errors.Join(err, w.Abort())
	}
	return w, nil
}

// Trace has the request that the file is for know what writing it takes. nil is none.
func (w *Writer) Trace(r *trace.Request) { w.trace = r }

// reserve reserves the name of a file that there must not be for one Writer.
func (s *Store) reserve(id image.FileID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.fs.stat(PathOf(id))
	switch {
	case s.writing[id] || err == nil:
		return image.Errorf(image.KindConflict, "there is a file %v already", id).
			WithHint("draw another attempt ID")
	case !errors.Is(err, fs.ErrNotExist):
		return s.fault("stat", id.String(), err)
	}
	s.writing[id] = true
	return nil
}

func (s *Store) release(id image.FileID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.writing, id)
}

// Write appends to the file. Some of the bytes may stay in memory until Commit.
func (w *Writer) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	if int64(len(p)) > w.size-w.taken {
		w.err = image.Errorf(image.KindInternal,
			"%v: %d bytes at %d are more than its length of %d", w.id, len(p), w.taken, w.size)
		return 0, w.err
	}
	put := w.putBuffered
	if w.buf != nil {
		put = w.putHeld
	}
	before := w.taken
	n, err := put(p)
	if err != nil {
		w.err = w.s.fault("write", w.id.String(), err)
	}
	if half := w.size / 2; before < half && w.taken >= half {
		failpoint.Here("store/half")
	}
	return n, w.err
}

// AvailableBuffer returns an empty buffer with some capacity, for the next Write: what is appended to it and
// passed to that is not copied.
func (w *Writer) AvailableBuffer() []byte {
	if w.buf == nil {
		return nil
	}
	return (*w.buf)[w.taken%directBytes:][:0]
}

func (w *Writer) putHeld(p []byte) (n int, err error) {
	for len(p) > 0 {
		at := int(w.taken % directBytes)
		c := copy((*w.buf)[at:], p) // nothing moves where p is there already
		n += c
		p = p[c:]
		w.taken += int64(c)
		if at+c < directBytes {
			continue
		}
		if err := w.write((*w.buf)[:directBytes]); err != nil {
			return n, err
		}
		copy(*w.buf, (*w.buf)[directBytes:at+c])
	}
	return n, nil
}

// write writes at the end of the file.
func (w *Writer) write(p []byte) error {
	defer w.trace.Since(trace.Write, time.Now())
	return w.f.write(p)
}

func (w *Writer) putBuffered(p []byte) (int, error) {
	if err := w.write(p); err != nil {
		return 0, err
	}
	w.taken += int64(len(p))
	if ready := w.taken - w.back; ready >= writeBackBytes {
		if err := w.f.writeBack(w.back, ready); err != nil {
			return len(p), err
		}
		w.back = w.taken
	}
	return len(p), nil
}

// flush writes what the buffer still holds. The end of the file, less than a block, cannot be written with
// direct I/O.
func (w *Writer) flush() error {
	if w.buf == nil {
		return nil
	}
	rest := (*w.buf)[:w.taken%directBytes]
	if w.small {
		return w.f.write(rest)
	}
	whole := len(rest) &^ (alignBytes - 1)
	if whole > 0 {
		if err := w.f.write(rest[:whole]); err != nil {
			return err
		}
	}
	if rest = rest[whole:]; len(rest) == 0 {
		return nil
	}
	if err := w.f.endDirect(); err != nil {
		return err
	}
	return w.f.write(rest)
}

// Commit makes the file durable under its final name. When it returns nil the file survives a power
// loss. After an error nothing may be acknowledged; Abort and the sweep remove what is left.
func (w *Writer) Commit() error {
	if w.err == nil && w.taken != w.size {
		w.err = image.Errorf(image.KindIncomplete, "%v has %d bytes of %d", w.id, w.taken, w.size).
			WithHint("send the whole body")
	}
	steps := []struct {
		op   string
		is   trace.Step
		do   func() error
		done string // its failpoint
	}{
		{"write", trace.Write, w.flush, "store/written"},
		{"fsync", trace.Fsync, w.sync, "store/synced"},
		{"close", trace.Fsync, w.close, "store/closed"},
		{"rename", trace.Fsync, w.publish, "store/renamed"},
		{
			opSyncDir, trace.Fsync, func() error { return w.s.syncFolder(folderNumber(w.id.Image)) },
			"store/committed",
		},
	}
	for _, step := range steps {
		if w.err != nil {
			return w.err
		}
		began := time.Now()
		err := step.do()
		w.trace.Since(step.is, began)
		if err != nil {
			w.err = w.s.fault(step.op, w.id.String(), err)
		}
		failpoint.Here(step.done)
	}
	if w.err == nil {
		w.err = w.failedMeanwhile()
	}
	if w.err != nil {
		return w.err
	}
	w.end()
	return nil
}

// failedMeanwhile returns an error when the disk failed since Create. The kernel reports a lost directory
// write once: another Writer's failed fsync may have used up the report for this rename. That remains so
// after the disk has recovered.
func (w *Writer) failedMeanwhile() error {
	if w.s.failures.Load() == w.failures {
		return nil
	}
	if err := w.s.Failed(); err != nil {
		return err
	}
	return image.Errorf(image.KindAborted, "the disk failed while %v was written", w.id).
		WithHint("send the image again")
}

func (w *Writer) sync() error { return w.f.sync() }

// close closes the file once: after a failed close the descriptor is in an unspecified state (POSIX).
func (w *Writer) close() error {
	if w.f == nil {
		return nil
	}
	f := w.f
	w.f = nil
	return f.close()
}

// publish renames the file to its final name and counts it.
func (w *Writer) publish() error {
	s := w.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.fs.rename(tmpPathOf(w.id), PathOf(w.id)); err != nil {
		return err
	}
	if s.published != nil {
		s.published[w.id] = true
	}
	s.count(w.id, 1, w.size)
	return nil
}

// Abort closes and removes the temporary file. After a Commit that returned nil, or a first Abort, it does
// nothing.
func (w *Writer) Abort() error {
	if w.ended {
		return nil
	}
	// The file is removed: an error of closing it does not matter.
	_ = w.close()
	err := w.s.fs.remove(tmpPathOf(w.id))
	w.end()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return w.s.fault("remove", w.id.String(), err)
	}
	return nil
}

func (w *Writer) end() {
	w.ended = true
	if w.err == nil {
		w.err = errEnded
	}
	if w.buf != nil {
		directBuffers.Put(w.buf)
		w.buf = nil
	}
	w.s.release(w.id)
}

package store

import (
	"errors"
	"io/fs"

	"imgcluster/cluster/image"
)

// Sweep removes temporary files that no Writer is writing, and committed files for which keep returns false.
// It returns their number and the sum of their bytes. It stops at the first error, also one of keep; what it
// has removed stays removed, and the next sweep does the rest.
//
// It never removes what this process is writing, nor what became visible after it began. For a file that
// became visible before, whose report is not in the log yet, it relies on keep, which must return true for
// an upload that is assigned to this node and of which the log has no copy from it yet.
func (s *Store) Sweep(keep func(image.FileID) (bool, error)) (removed int, bytes int64, err error) {
	s.sweepMu.Lock()
	defer s.sweepMu.Unlock()
	s.setPublished(map[image.FileID]bool{})
	defer s.setPublished(nil)

	count := func(size int64, err error) error {
		if err == nil && size >= 0 {
			removed++
			bytes += size
		}
		return err
	}
	if err = s.sweepTmp(count); err != nil {
		return removed, bytes, err
	}
	for i := range foldersCount {
		gone := usage{}
		seen, err := s.listFolder(byte(i), func(f image.FileID) error {
			if ok, err := keep(f); ok || err != nil {
				return err
			}
			size, err := s.sweepOne(f)
			if err == nil && size >= 0 {
				gone.files, gone.bytes, gone.changes = gone.files+1, gone.bytes+size, gone.changes+1
			}
			return count(size, err)
		})
		if err != nil {
			return removed, bytes, err
		}
		s.recount(byte(i), usage{
			files: seen.files - gone.files, bytes: seen.bytes - gone.bytes, changes: seen.changes + gone.changes,
		})
	}
	return removed, bytes, nil
}

func (s *Store) setPublished(m map[image.FileID]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.published = m
}

// sweepOne removes a file that is not to be kept, unless it is new. It returns its length, -1 when nothing
// was removed.
func (s *Store) sweepOne(f image.FileID) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.writing[f] || s.published[f] {
		return -1, nil
	}
	return s.removeLocked(f)
}

func (s *Store) sweepTmp(count func(int64, error) error) error {
	var failed error
	err := s.fs.readDir(tmpDir, true, func(batch []entry) error {
		for _, e := range batch {
			if e.other || !isTmp(e.name) {
				s.unknown(tmpDir + "/" + e.name)
				continue
			}
			if failed = count(s.sweepTmpOne(e)); failed != nil {
				return failed
			}
		}
		return nil
	})
	if failed == nil && err != nil {
		return s.fault(opRead, tmpDir, err)
	}
	return failed
}

func (s *Store) sweepTmpOne(e entry) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f, ok := parseName(e.name, tmpSuffix); ok && s.writing[f] {
		return -1, nil
	}
	switch err := s.fs.remove(tmpDir + "/" + e.name); {
	case errors.Is(err, fs.ErrNotExist):
		return -1, nil
	case err != nil:
		return -1, s.fault("remove", e.name, err)
	}
	return e.size, nil
}

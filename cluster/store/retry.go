package store

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"

	"imgcluster/cluster/image"
)

// probeBytes is the length of the file that Retry writes: more than a block, and no multiple of one.
const probeBytes = 3*alignBytes + 11

// Retry clears the failure of a Store whose disk has recovered: a probe file is written, fsynced, renamed
// and read back. Writers created before the failure stay refused. The caller must then verify what is
// stored, because the failure may have damaged more than one file.
func (s *Store) Retry() error {
	if s.Failed() == nil {
		return nil
	}
	if err := s.makeFolders(); err != nil {
		return err
	}
	if err := s.probe(); err != nil {
		return err
	}
	s.failed.Store(nil)
	return nil
}

func (s *Store) probe() error {
	const name, renamed = tmpDir + "/probe" + tmpSuffix, tmpDir + "/probed" + tmpSuffix
	content := make([]byte, probeBytes)
	rand.Read(content) // never fails, see crypto/rand
	if err := writeFile(s.fs, name, content); err != nil {
		return s.fault("probe", name, err)
	}
	err := s.fs.rename(name, renamed)
	if err == nil {
		err = s.fs.syncDir(tmpDir)
	}
	if err != nil {
		return s.fault("probe", renamed, err)
	}
	got, err := s.readBack(renamed)
	if err == nil && !bytes.Equal(got, content) {
		err = errors.New("the bytes read are not those written")
	}
	if err = errors.Join(err, s.fs.remove(renamed)); err != nil {
		return s.fault("probe", renamed, err)
	}
	return nil
}

func (s *Store) readBack(name string) ([]byte, error) {
	r, size, err := s.fs.open(name, true)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if size != probeBytes {
		return nil, image.Errorf(image.KindInternal, "%d bytes of %d", size, probeBytes)
	}
	return io.ReadAll(io.NewSectionReader(r, 0, size))
}

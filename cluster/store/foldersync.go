package store

import "sync"

// folderSync fsyncs one folder for all who have renamed a file into it.
type folderSync struct {
	mu   sync.Mutex
	last *sharedSync // that has begun
	next *sharedSync // that begins when last is done; nil: nobody waits for one
}

// sharedSync is an fsync that all share who ask for one before it begins.
type sharedSync struct {
	done chan struct{}
	err  error // once done
}

// do returns once an fsync by fn is done that has begun after the call of do.
func (f *folderSync) do(fn func() error) error {
	f.mu.Lock()
	last, s := f.last, f.next
	if s != nil {
		f.mu.Unlock()
		<-s.done
		return s.err
	}
	s = &sharedSync{done: make(chan struct{})}
	f.next = s
	if last != nil {
		f.mu.Unlock()
		<-last.done
		f.mu.Lock()
	}
	f.last, f.next = s, nil
	f.mu.Unlock()
	defer close(s.done)
	s.err = fn()
	return s.err
}

// syncFolder makes the names in a folder durable.
func (s *Store) syncFolder(n byte) error {
	return s.syncs[n].do(func() error { return s.fs.syncDir(folder(n)) })
}

package store

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// TestFolderSync: who asks for an fsync while one runs gets the next one, together with all others who wait
// for it, and its error.
func TestFolderSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f folderSync
		var begun, done atomic.Int32
		goOn := make(chan error)
		fsync := func() error {
			begun.Add(1)
			return <-goOn
		}
		var wg sync.WaitGroup
		ask := func(want error) {
			wg.Go(func() {
				if err := f.do(fsync); !errors.Is(err, want) {
					t.Errorf("the error %v, want %v", err, want)
				}
				done.Add(1)
			})
		}
		expect := func(what string, wantBegun, wantDone int32) {
			t.Helper()
			synctest.Wait()
			if begun.Load() != wantBegun || done.Load() != wantDone {
				t.Errorf("%s: %d fsyncs have begun and %d who asked are done, want %d and %d", what, begun.Load(),
					done.Load(), wantBegun, wantDone)
			}
		}
		failed := errors.New("failed")
		ask(nil)
		expect("one has asked", 1, 0)
		for range 3 {
			ask(failed)
		}
		expect("three more ask while its fsync runs", 1, 0)
		goOn <- nil
		expect("that ends", 2, 1)
		ask(nil)
		expect("one more asks while theirs runs", 2, 1)
		goOn <- failed
		expect("that fails", 3, 4)
		goOn <- nil
		wg.Wait()
		expect("the last one ends", 3, 5)
	})
}

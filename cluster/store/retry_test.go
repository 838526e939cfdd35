package store

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"imgcluster/cluster/image"
)

// TestRetry fails an fsync: nothing is committed until Retry finds the disk well, and what was being
// written meanwhile never is. Retry fails when any of its own operations does.
func TestRetry(t *testing.T) {
	var told []error
	s, f := openFault(t, t.TempDir(), Options{OnFailed: func(err error) { told = append(told, err) }})
	mustPut(t, s, testID, 1, noise(1, 5000))
	old, err := s.Create(testID, 2, 10)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Abort()
	f.reset(6, syscall.EIO)
	if err := put(s, testID, 3, noise(1, 10)); !errors.Is(err, syscall.EIO) || !errors.Is(err, s.Failed()) || len(told) != 1 || !errors.Is(told[0], s.Failed()) {
		t.Fatalf("%v; Failed is %v, told %v", err, s.Failed(), told)
	}
	if op := f.ops[5]; op != "fsync" {
		t.Fatalf("%s failed, not fsync", op)
	}
	for i := 1; ; i++ {
		f.reset(i, syscall.EIO)
		err := s.Retry()
		if err == nil {
			if i < 10 {
				t.Errorf("only %d operations of Retry failed", i-1)
			}
			break
		}
		if failed := s.Failed(); failed == nil {
			t.Fatalf("Retry returned %v, and the store takes files", err)
		} else if _, err := s.Create(testID, 4, 10); !errors.Is(err, failed) {
			t.Fatalf("Create after %v: %v", failed, err)
		}
	}
	f.reset(0, nil)
	if _, err := old.Write(noise(1, 10)); err != nil {
		t.Fatal(err)
	}
	if err := old.Commit(); err == nil {
		t.Error("what was begun before the failure was committed after it")
	}
	mustPut(t, s, testID, 5, noise(2, 5000))
	for _, epoch := range []uint32{1, 5} {
		if _, err := get(s, testID, epoch); err != nil {
			t.Error(err)
		}
	}
	if s.Failed() != nil || len(told) != 1 {
		t.Errorf("Failed is %v, told %v", s.Failed(), told)
	}
	if err := s.Retry(); err != nil {
		t.Error(err)
	}
}

// TestReadErrors: a file that cannot be read says nothing about what is written.
func TestReadErrors(t *testing.T) {
	s, f := openFault(t, t.TempDir(), Options{})
	mustPut(t, s, testID, 1, noise(1, 5000))
	f.reset(1, syscall.EIO)
	_, err := s.Open(testID, 1)
	wantError(t, err, image.KindInternal)
	if !errors.Is(err, syscall.EIO) || s.Failed() != nil || !strings.Contains(err.Error(), testKey(1).String()) {
		t.Errorf("%v; Failed is %v", err, s.Failed())
	}
	f.reset(0, nil)
	mustPut(t, s, testID, 2, noise(1, 5000))
}

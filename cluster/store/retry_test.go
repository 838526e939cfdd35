package store

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"imgcluster/cluster/image"
)

// TestRetry fails an fsync: nothing is committed until Retry finds that the disk has recovered, and files
// begun before never are. Retry fails when any of its own operations fails.
func TestRetry(t *testing.T) {
	var notified []error
	s, f := openFault(t, t.TempDir(), Options{OnFailed: func(err error) { notified = append(notified, err) }})
	mustPut(t, s, testFile(1), noise(1, 5000))
	old, err := s.Create(testFile(2), 10)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Abort()
	f.reset(5, syscall.EIO)
	if err := put(s, testFile(3), noise(1, 10)); !errors.Is(err, syscall.EIO) || !errors.Is(err, s.Failed()) {
		t.Fatalf("%v; Failed is %v", err, s.Failed())
	}
	if len(notified) != 1 || !errors.Is(notified[0], s.Failed()) {
		t.Fatalf("OnFailed was called with %v, want %v", notified, s.Failed())
	}
	if op := f.ops[4]; op != "fsync" {
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
			t.Fatalf("Retry returned %v, and Failed returns nil", err)
		} else if _, err := s.Create(testFile(4), 10); !errors.Is(err, failed) {
			t.Fatalf("Create after %v: %v", failed, err)
		}
	}
	f.reset(0, nil)
	if _, err := old.Write(noise(1, 10)); err != nil {
		t.Fatal(err)
	}
	if err := old.Commit(); err == nil {
		t.Error("a file created before the failure was committed after it")
	}
	mustPut(t, s, testFile(5), noise(2, 5000))
	for _, n := range []uint32{1, 5} {
		if _, err := get(s, testFile(n)); err != nil {
			t.Error(err)
		}
	}
	if s.Failed() != nil || len(notified) != 1 {
		t.Errorf("Failed is %v, OnFailed was called with %v", s.Failed(), notified)
	}
	if err := s.Retry(); err != nil {
		t.Error(err)
	}
}

// TestReadErrors: a file that cannot be read does not fail the store.
func TestReadErrors(t *testing.T) {
	s, f := openFault(t, t.TempDir(), Options{})
	mustPut(t, s, testFile(1), noise(1, 5000))
	f.reset(1, syscall.EIO)
	_, err := s.Open(testFile(1))
	expectError(t, err, image.KindInternal)
	if !errors.Is(err, syscall.EIO) || s.Failed() != nil {
		t.Errorf("%v; Failed is %v", err, s.Failed())
	}
	if !strings.Contains(err.Error(), testFile(1).String()) {
		t.Errorf("the error %q does not name the file", err)
	}
	f.reset(0, nil)
	mustPut(t, s, testFile(2), noise(1, 5000))
}

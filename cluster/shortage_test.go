package cluster

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	"imgcluster/cluster/hostinfo"
	"imgcluster/cluster/image"
	"imgcluster/config"
	"imgcluster/crypto"
)

// TestUnreadIsNotBad: a copy is bad when what was read of it does not authenticate, or its disk fails; not
// when something else kept it from being read or from being written down here.
func TestUnreadIsNotBad(t *testing.T) {
	m := &copies{images: &images{}}
	for _, c := range []struct {
		file io.Reader
		bad  bool
	}{
		{strings.NewReader(""), true},
		{strings.NewReader(strings.Repeat("x", 9000)), true},
		{iotest.ErrReader(&fs.PathError{Op: "read", Path: "a", Err: syscall.EIO}), true},
		{iotest.ErrReader(syscall.ENOMEM), false},
		{iotest.ErrReader(io.ErrUnexpectedEOF), false}, // the connection to another node broke
		{iotest.ErrReader(image.Errorf(image.KindDiskFull, "write: %w", syscall.ENOSPC)), false},
	} {
		err := m.authenticate(t.Context(), &image.Record{Bytes: 5}, 1, c.file)
		if err == nil || (image.KindOf(err) == image.KindDamaged) != c.bad {
			t.Errorf("%v is of kind %s, bad is %t", err, image.KindOf(err), c.bad)
		}
	}
	for _, err := range []error{
		image.Errorf(image.KindOverload, "read: %w", syscall.EMFILE), image.Errorf(image.KindNoQuorum, "no key"), syscall.ECONNREFUSED,
		image.Errorf(image.KindInvalid, "redirected"), errors.New("node 2 stalled"),
	} {
		if doubtful(err) {
			t.Errorf("%v casts doubt on a copy", err)
		}
	}
	for _, err := range []error{
		image.Errorf(image.KindNotFound, "gone"), image.Errorf(image.KindInternal, "read: %w", syscall.EIO), syscall.EIO,
		&crypto.Error{Kind: crypto.ErrAuth}, fmt.Errorf("cut: %w", io.ErrUnexpectedEOF),
	} {
		if !doubtful(err) {
			t.Errorf("%v casts no doubt on a copy", err)
		}
	}
}

// TestLacking compares what a node needs with machines that have a little less of something.
func TestLacking(t *testing.T) {
	cfg := config.Default()
	enough := hostinfo.Limits{
		OpenFiles: 2816, AddressSpace: hostinfo.Unlimited, Memory: 448 << 20, MemoryFree: 1, Bytes: startBytes, Inodes: startInodes, Place: "/data",
	}
	if err := lacking(cfg, 1, enough, false); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]struct {
		change     func(*hostinfo.Limits)
		first      bool
		want, hint string
	}{
		"files":         {func(l *hostinfo.Limits) { l.OpenFiles = 2815 }, false, "it may have 2815 open files and needs 2816", "lower limits.connections to 1023"},
		"few files":     {func(l *hostinfo.Limits) { l.OpenFiles = 12 }, false, "12 open files", "raise the hard limit of open files to 2816 (ulimit -Hn, LimitNOFILE="},
		"memory":        {func(l *hostinfo.Limits) { l.Memory = 400 << 20 }, false, "419430400 bytes of memory and needs 469762048", "limits.memory_bytes"},
		"address space": {func(l *hostinfo.Limits) { l.AddressSpace = 2 << 30 }, false, "2147483648 bytes of address space and needs 3154116608", "ulimit -v"},
		"bytes":         {func(l *hostinfo.Limits) { l.Bytes = 0 }, false, "0 free bytes", "make room on the file system of /data"},
		"inodes":        {func(l *hostinfo.Limits) { l.Inodes = 63 }, false, "63 free inodes and a start needs 64", "images/tmp"},
		"first bytes":   {func(*hostinfo.Limits) {}, true, "a start needs 33554432", "/data"},
		"first inodes":  {func(l *hostinfo.Limits) { l.Bytes = 1 << 40 }, true, "64 free inodes and a start needs 512", "/data"},
	} {
		have := enough
		c.change(&have)
		err := lacking(cfg, 1, have, c.first)
		var e *RefusedError
		if !errors.As(err, &e) || !strings.Contains(e.Reason, c.want) || !strings.Contains(e.Hint(), c.hint) || strings.Contains(e.Hint(), "--replace") {
			t.Errorf("%s: %v (%v), want %q and the hint %q", name, err, e, c.want, c.hint)
		}
	}
	all := lacking(cfg, 1, hostinfo.Limits{}, true)
	if got := strings.Count(all.Error(), "; "); got != 4 {
		t.Errorf("of five things that are missing it names %d: %v", got+1, all)
	}
}

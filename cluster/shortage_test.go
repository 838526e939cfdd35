package cluster

import (
	"errors"
	"strings"
	"testing"

	"imgcluster/cluster/bootstrap"
	"imgcluster/cluster/hostinfo"
	"imgcluster/config"
)

// TestLacking compares what a node needs with hosts that have a little less of something.
func TestLacking(t *testing.T) {
	cfg := config.Default()
	enough := hostinfo.Limits{
		OpenFiles: 2880, AddressSpace: hostinfo.Unlimited, Memory: 448 << 20, MemoryFree: 1,
		Bytes: startBytes, Inodes: startInodes, Place: "/data",
	}
	if err := lacking(cfg, 1, enough, false); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]struct {
		change     func(*hostinfo.Limits)
		first      bool
		want, hint string
	}{
		"files": {
			func(l *hostinfo.Limits) { l.OpenFiles = 2879 }, false,
			"2879 open files and needs 2880", "limits.connections to 1023",
		},
		"few files": {
			func(l *hostinfo.Limits) { l.OpenFiles = 12 }, false,
			"12 open files", "hard limit of open files to 2880",
		},
		"memory": {
			func(l *hostinfo.Limits) { l.Memory = 400 << 20 }, false,
			"419430400 bytes of memory and needs 469762048", "limits.memory_bytes",
		},
		"address space": {
			func(l *hostinfo.Limits) { l.AddressSpace = 2 << 30 }, false,
			"2147483648 bytes of address space and needs 3154116608", "ulimit -v",
		},
		"bytes": {
			func(l *hostinfo.Limits) { l.Bytes = 0 }, false,
			"0 free bytes", "/data",
		},
		"inodes": {
			func(l *hostinfo.Limits) { l.Inodes = 63 }, false,
			"63 free inodes and a start needs 64", "images/tmp",
		},
		"first bytes": {
			func(*hostinfo.Limits) {}, true,
			"a start needs 33554432", "/data",
		},
		"first inodes": {
			func(l *hostinfo.Limits) { l.Bytes = 1 << 40 }, true,
			"64 free inodes and a start needs 512", "/data",
		},
	} {
		have := enough
		c.change(&have)
		err := lacking(cfg, 1, have, c.first)
		var e *bootstrap.RefusedError
		if !errors.As(err, &e) || !strings.Contains(e.Error(), c.want) {
			t.Fatalf("%s: %v, want %q", name, err, c.want)
		}
		if hint := e.Hint(); !strings.Contains(hint, c.hint) || strings.Contains(hint, "--replace") {
			t.Errorf("%s: hint %q, want %q in it", name, hint, c.hint)
		}
	}
	all := lacking(cfg, 1, hostinfo.Limits{}, true)
	if got := strings.Count(all.Error(), "; "); got != 4 {
		t.Errorf("of five things that are missing it names %d: %v", got+1, all)
	}
}

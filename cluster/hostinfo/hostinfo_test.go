package hostinfo

import (
	"crypto/rand"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	h := Read(dir, netip.MustParseAddr("127.0.0.1"))
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	if h.Host != host || h.CPUs != runtime.GOMAXPROCS(0) {
		t.Errorf("%+v", h)
	}
	if h.MemoryBytes < 64<<20 || h.MemoryFree <= 0 || h.MemoryFree > h.MemoryBytes {
		t.Errorf("%+v", h)
	}
	if h.OpenFilesMax < 16 || h.DiskID == "" || h.DiskFree <= 0 || h.LinkBytesPS != 0 {
		t.Errorf("%+v", h)
	}
	other := filepath.Join(dir, "other")
	if err := os.Mkdir(other, 0o755); err != nil {
		t.Fatal(err)
	}
	if o := Read(other, netip.Addr{}); o.DiskID != h.DiskID {
		t.Errorf("two folders of one file system are on %q and %q", h.DiskID, o.DiskID)
	}
	if o := Read(filepath.Join(dir, "none"), netip.Addr{}); o.DiskID != "" || o.DiskFree != 0 {
		t.Errorf("no folder: %+v", o)
	}
}

func TestProcess(t *testing.T) {
	before, spent := Process()
	held := make([]byte, 32<<20)
	for i := range held {
		held[i] = byte(i)
	}
	rss, cpu := Process()
	runtime.KeepAlive(held)
	if before < 1<<20 || rss < before+int64(len(held))/2 || cpu <= spent {
		t.Errorf("%d bytes and %s, then with %d bytes more in use %d bytes and %s",
			before, spent, len(held), rss, cpu)
	}
}

// TestDiskCounters: the counters of the device, where there is one, grow by what is written and synced.
func TestDiskCounters(t *testing.T) {
	dir := t.TempDir()
	d := DiskOf(dir)
	if _, err := os.Stat(d.path); err != nil {
		t.Skipf("the temporary folder is on no block device: %v", err)
	}
	_, before, busy := d.Counters()
	const size = 4 << 20
	b := make([]byte, size)
	rand.Read(b)
	f, err := os.Create(filepath.Join(dir, "a"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	_, after, busyAfter := d.Counters()
	if after-before < size || busyAfter < busy {
		t.Errorf("%d bytes written became %d, busy %v", size, after-before, busyAfter-busy)
	}
	if r, w, busy := (Disk{}).Counters(); r != 0 || w != 0 || busy != time.Duration(0) {
		t.Errorf("no device: %d, %d, %v", r, w, busy)
	}
}

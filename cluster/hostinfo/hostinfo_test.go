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

func TestLook(t *testing.T) {
	dir := t.TempDir()
	m := Look(dir, netip.MustParseAddr("127.0.0.1"))
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	if m.Host != host || m.CPUs != runtime.GOMAXPROCS(0) || m.MemoryBytes < 64<<20 || m.MemoryFree <= 0 || m.MemoryFree > m.MemoryBytes {
		t.Errorf("%+v", m)
	}
	if m.OpenFilesMax < 16 || m.DiskID == "" || m.DiskFree <= 0 || m.LinkBytesPS != 0 {
		t.Errorf("%+v", m)
	}
	other := filepath.Join(dir, "other")
	if err := os.Mkdir(other, 0o755); err != nil {
		t.Fatal(err)
	}
	if o := Look(other, netip.Addr{}); o.DiskID != m.DiskID {
		t.Errorf("two folders of one file system are on %q and %q", m.DiskID, o.DiskID)
	}
	if o := Look(filepath.Join(dir, "none"), netip.Addr{}); o.DiskID != "" || o.DiskFree != 0 {
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
		t.Errorf("%d bytes and %s, then with %d bytes more in use %d bytes and %s", before, spent, len(held), rss, cpu)
	}
}

// What is written and synced shows in the counters of the device, where there is one.
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

// Package loopfs gives tests an ext4 of their own, in a file behind a loop device: one that is small
// enough to fill, and whose power can be cut. It needs root on Linux; elsewhere the tests are skipped.
package loopfs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"imgcluster/cluster/clustertest/poll"
)

const (
	// shutdown is EXT4_IOC_SHUTDOWN, _IOR('X', 125, __u32).
	shutdown = 0x8004587d
	// noLogFlush is EXT4_GOING_FLAGS_NOLOGFLUSH: what is in memory is lost, the journal's too.
	noLogFlush = 2
	// loopMajor is the device number of loop devices.
	loopMajor = 7
	// attachTries bounds how often a free loop device may be taken by somebody else.
	attachTries = 20
	// unusedWithin bounds the wait for open files to be closed.
	unusedWithin = time.Minute
	blockBytes   = 4096
)

// Disk is an ext4, mounted at Dir. Its methods are for one goroutine, but for Cut.
type Disk struct {
	Dir     string
	image   string
	mounted bool
}

// New makes an ext4 of size bytes, with more arguments of mkfs.ext4 where there are any, and mounts it at dir,
// which it makes. It is unmounted when t ends.
// Where that cannot be, t is skipped.
func New(t testing.TB, dir string, size int64, more ...string) *Disk {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount a file system")
	}
	mkfs, err := exec.LookPath("mkfs.ext4")
	if err != nil {
		t.Skip("needs mkfs.ext4:", err)
	}
	d := &Disk{Dir: dir, image: filepath.Join(t.TempDir(), "ext4.img")}
	if err := os.WriteFile(d.image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Truncate(d.image, size), os.MkdirAll(dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	// No blocks for root: the node, here root, has what every user has.
	args := append([]string{"-q", "-F", "-m", "0", "-b", fmt.Sprint(blockBytes)}, more...)
	if out, err := exec.Command(mkfs, append(args, d.image)...).CombinedOutput(); err != nil {
		t.Skipf("mkfs.ext4: %v: %s", err, out)
	}
	if err := d.mount(); err != nil {
		t.Skip("cannot mount an ext4 here:", err)
	}
	t.Cleanup(func() {
		if err := d.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// Cut takes the power away: what was not fsynced is lost, and every operation fails from now on.
func (d *Disk) Cut() error {
	f, err := os.Open(d.Dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.IoctlSetPointerInt(int(f.Fd()), shutdown, noLogFlush)
}

// LoseBlocks makes the blocks of a file unreadable (EIO), and all that lie behind them on the disk.
// What is written there anew can be read again.
func (d *Disk) LoseBlocks(path string) error {
	first, err := FirstBlock(path)
	if err != nil {
		return err
	}
	unix.Sync()
	if err := os.Truncate(d.image, first*blockBytes); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

// FirstBlock tells where on its disk a file begins.
func FirstBlock(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	const fibmap = 1 // FIBMAP: the number of a file's block in, that of the disk's out
	block := int32(0)
	if _, _, no := unix.Syscall(unix.SYS_IOCTL, f.Fd(), fibmap, uintptr(unsafe.Pointer(&block))); no != 0 {
		return 0, fmt.Errorf("FIBMAP of %s: %w", path, no)
	}
	if block == 0 {
		return 0, fmt.Errorf("%s has no blocks", path)
	}
	return int64(block), nil
}

// Unmount takes the file system away. Files that are still open on it keep it alive, unseen.
func (d *Disk) Unmount() error {
	if !d.mounted {
		return nil
	}
	d.mounted = false
	err := unix.Unmount(d.Dir, 0)
	if errors.Is(err, unix.EBUSY) {
		err = errors.Join(fmt.Errorf("%s is still in use", d.Dir), unix.Unmount(d.Dir, unix.MNT_DETACH))
	}
	return err
}

// Remount gives the power back after a Cut: the file system is as a machine that boots finds it. It
// waits until no file is open on it.
func (d *Disk) Remount(t testing.TB) {
	t.Helper()
	poll.Until(t, unusedWithin, d.Dir+" to be unused", func() bool {
		err := unix.Unmount(d.Dir, 0)
		if err != nil && !errors.Is(err, unix.EBUSY) {
			t.Fatal(err)
		}
		d.mounted = err != nil
		return err == nil
	})
	if err := d.mount(); err != nil {
		t.Fatal(err)
	}
}

// mount mounts the image through a loop device that goes when it is unmounted.
func (d *Disk) mount() error {
	loop, err := attach(d.image)
	if err != nil {
		return err
	}
	defer loop.Close()
	if err := unix.Mount(loop.Name(), d.Dir, "ext4", 0, ""); err != nil {
		return fmt.Errorf("mount %s at %s: %w", loop.Name(), d.Dir, err)
	}
	d.mounted = true
	return nil
}

// attach puts an image behind a free loop device, whose node it makes when there is none.
func attach(path string) (*os.File, error) {
	ctl, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer ctl.Close()
	backing, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer backing.Close()
	for range attachTries {
		var n int
		if n, err = unix.IoctlRetInt(int(ctl.Fd()), unix.LOOP_CTL_GET_FREE); err != nil {
			return nil, fmt.Errorf("no free loop device: %w", err)
		}
		name := fmt.Sprintf("/dev/loop%d", n)
		if err = unix.Mknod(name, unix.S_IFBLK|0o600, int(unix.Mkdev(loopMajor, uint32(n)))); err != nil && !errors.Is(err, unix.EEXIST) {
			return nil, fmt.Errorf("mknod %s: %w", name, err)
		}
		loop, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		config := unix.LoopConfig{Fd: uint32(backing.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
		err = unix.IoctlLoopConfigure(int(loop.Fd()), &config)
		if err == nil {
			return loop, nil
		}
		loop.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("attach %s: %w", name, err)
		}
	}
	return nil, errors.New("every free loop device was taken by somebody else")
}

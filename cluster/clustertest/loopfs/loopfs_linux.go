// Package loopfs makes ext4 file systems for tests, each in a file behind a loop device, which can be filled,
// damaged, and cut from power. It needs root; without it the tests are skipped.
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
	// noLogFlush is EXT4_GOING_FLAGS_NOLOGFLUSH: what is in memory is lost, also that of the journal.
	noLogFlush = 2
	// loopMajor is the device number of loop devices.
	loopMajor = 7
	// attachTries is how often another process may take a free loop device first.
	attachTries = 20
	// unusedWithin is how long Remount waits until open files are closed.
	unusedWithin = time.Minute
	blockBytes   = 4096
)

// Disk is an ext4 file system, mounted at Dir. Its methods are for one goroutine, except Cut.
type Disk struct {
	Dir     string
	image   string
	mounted bool
}

// New makes an ext4 file system of size bytes, with more arguments for mkfs.ext4, and mounts it at dir, which
// it makes. It is unmounted when t ends. Where that is not possible, t is skipped.
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
	// No blocks are reserved for root: the node, which is root here, must not have more than other users.
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

// Cut cuts the power: what was not fsynced is lost, and every operation fails from now on.
func (d *Disk) Cut() error {
	f, err := os.Open(d.Dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.IoctlSetPointerInt(int(f.Fd()), shutdown, noLogFlush)
}

// LoseBlocks makes the blocks of a file, and all after them on the disk, unreadable (EIO) until they are
// written again.
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

// FirstBlock returns the number of a file's first block on its disk.
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

// Unmount unmounts the file system. While files are open on it, it stays without a name, and Unmount returns
// an error.
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

// Remount mounts the file system as after a boot that follows a Cut. It waits until no file is open on it.
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

// mount mounts the image through a loop device, which is detached when it is unmounted.
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

// attach attaches an image to a free loop device, whose device node it makes when there is none.
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
		err = unix.Mknod(name, unix.S_IFBLK|0o600, int(unix.Mkdev(loopMajor, uint32(n))))
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return nil, fmt.Errorf("mknod %s: %w", name, err)
		}
		loop, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		config := unix.LoopConfig{
			Fd:   uint32(backing.Fd()),
			Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR},
		}
		err = unix.IoctlLoopConfigure(int(loop.Fd()), &config)
		if err == nil {
			return loop, nil
		}
		loop.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("attach %s: %w", name, err)
		}
	}
	return nil, errors.New("other processes took every free loop device")
}

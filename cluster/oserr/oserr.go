// Package oserr says what an error of the operating system means and what to do about it, in one place for
// all that open, read or write files. A shortage, a refusal or a broken disk is named as that, so that none
// of them passes for damage to what a node keeps.
package oserr

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Class is a kind of error of the operating system.
type Class int

// The classes. Of them only Broken and Missing say something about what was stored.
const (
	None    Class = iota // no error of the operating system, or one without a class
	Scarce               // the process or the machine has run out of something that is not disk space
	Full                 // no room: bytes, inodes, a quota, the limit of a file's size
	Denied               // this user may not
	Fixed                // the file system is mounted read-only
	Broken               // the disk or its file system fails
	Missing              // there is no such file
	Wrong                // the path cannot be what is asked for, such as a file in the place of a folder
	Held                 // somebody else has it
	Busy                 // the port or the address is not to be had
)

// known are the errors that have a class. hint tells the next step; path may be empty.
var known = map[syscall.Errno]struct {
	class Class
	hint  func(path string) string
}{
	syscall.EMFILE:       {Scarce, filesHint},
	syscall.ENFILE:       {Scarce, always("the machine has no more open files: close some, or raise it with sysctl fs.file-max")},
	syscall.ENOMEM:       {Scarce, always("give the process more memory (its control group, ulimit -v, the machine), or lower limits.memory_bytes and limits.staging_bytes")},
	syscall.ENOSPC:       {Full, fullHint},
	syscall.EDQUOT:       {Full, always("raise the disk quota of this user, or remove files of this user")},
	syscall.EFBIG:        {Full, always("raise the limit of a file's size (ulimit -f, LimitFSIZE= of systemd)")},
	syscall.EACCES:       {Denied, ownerHint},
	syscall.EPERM:        {Denied, ownerHint},
	syscall.EROFS:        {Fixed, on("mount", "read-write; after an error the kernel mounts a disk read-only: look at dmesg")},
	syscall.EIO:          {Broken, on("look at dmesg for errors of the disk under", "and check its cable and its health (smartctl); start again when it can be read")},
	syscall.EUCLEAN:      {Broken, on("the file system is inconsistent: unmount it and run fsck on the disk under", "")},
	syscall.EBADMSG:      {Broken, on("the file system is inconsistent: unmount it and run fsck on the disk under", "")},
	syscall.ENODEV:       {Broken, on("look at dmesg: there is no disk under", "any more")},
	syscall.ENXIO:        {Broken, on("look at dmesg: there is no disk under", "any more")},
	syscall.ESTALE:       {Broken, on("mount the network file system again under", "")},
	syscall.ENOENT:       {Missing, on("check the path", "")},
	syscall.ENOTDIR:      {Wrong, on("a file is where a folder should be: check the path", "")},
	syscall.EISDIR:       {Wrong, on("a folder is where a file should be: check the path", "")},
	syscall.ELOOP:        {Wrong, on("symbolic links go round in a circle: check the path", "")},
	syscall.ENAMETOOLONG: {Wrong, on("choose a shorter path than", "")},
	syscall.EAGAIN:       {Held, on("another process holds", ": stop it first")},
	syscall.EBUSY:        {Held, on("another process holds", ": stop it first")},
	syscall.EADDRINUSE:   {Busy, always(Listener{}.taken())},

	syscall.EADDRNOTAVAIL: {Busy, always(Listener{}.foreign())},
}

func always(hint string) func(string) string { return func(string) string { return hint } }

// on puts the path into a hint.
func on(before, after string) func(string) string {
	return func(path string) string {
		hint := before + " " + cmp.Or(path, "the data directory")
		if after != "" && !strings.HasPrefix(after, ":") {
			hint += " "
		}
		return hint + after
	}
}

// Errno returns the system's error in err, 0 when there is none with a class. Libraries panic with some of
// them as text, where it is found too.
func Errno(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	if no := syscall.Errno(0); errors.As(err, &no) {
		if _, ok := known[no]; ok {
			return no
		}
	}
	text, longest := err.Error(), ""
	found := syscall.Errno(0)
	for no := range known {
		if s := no.Error(); len(s) > len(longest) && strings.Contains(text, s) { // one may be in another
			found, longest = no, s
		}
	}
	return found
}

// ClassOf returns the class of err.
func ClassOf(err error) Class { return known[Errno(err)].class }

// Hint returns the next step after err, empty when err is none of the operating system's. dir is named
// where err does not tell which file it is about.
func Hint(err error, dir string) string {
	k, ok := known[Errno(err)]
	if !ok {
		return ""
	}
	return k.hint(pathOf(err, dir))
}

// pathOf is the file that err is about, empty when that is not known. A path that is not whole is one under dir.
func pathOf(err error, dir string) string {
	name := ""
	if e := (*fs.PathError)(nil); errors.As(err, &e) {
		name = e.Path
	} else if e := (*os.LinkError)(nil); errors.As(err, &e) {
		name = e.New
	}
	switch {
	case name == "" || dir == "" && !filepath.IsAbs(name):
		return dir
	case filepath.IsAbs(name):
		return name
	}
	return filepath.Join(dir, name)
}

func filesHint(string) string {
	var limit unix.Rlimit
	have := ""
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		have = fmt.Sprintf("this process may have %d open files: ", limit.Cur)
	}
	return have + "raise it (ulimit -n, LimitNOFILE= of systemd), or lower limits.connections"
}

// fullHint tells bytes from inodes.
func fullHint(path string) string {
	for at := path; at != "" && at != filepath.Dir(at); at = filepath.Dir(at) {
		var st unix.Statfs_t
		if unix.Statfs(at, &st) != nil {
			continue
		}
		if st.Files > 0 && st.Ffree == 0 {
			return fmt.Sprintf("the file system of %s has none of its %d inodes left: remove files there, or make one with more (mkfs -N)", at, st.Files)
		}
		return "make room on the file system of " + at
	}
	return "make room on the node's data disk"
}

// ownerHint tells whose the file is, or the nearest folder above it that can be looked at.
func ownerHint(path string) string {
	me := os.Geteuid()
	for at := path; at != ""; at = filepath.Dir(at) {
		info, err := os.Lstat(at)
		if err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				return fmt.Sprintf("%s is of user %d with mode %04o, this process runs as user %d: %s",
					at, st.Uid, info.Mode().Perm(), me, permit(at, int(st.Uid), me, info.IsDir()))
			}
		}
		if at == filepath.Dir(at) {
			break
		}
	}
	return fmt.Sprintf("this process runs as user %d: run it as the user that owns the files, or give them to it (chown -R)", me)
}

func permit(at string, owner, me int, folder bool) string {
	switch {
	case owner != me:
		return fmt.Sprintf("run it as user %d, or chown -R %d %s", owner, me, at)
	case folder:
		return "chmod u+rwx " + at + ", unless it is mounted or protected so (mount, lsattr)"
	}
	return "chmod u+rw " + at + ", unless it is mounted or protected so (mount, lsattr)"
}

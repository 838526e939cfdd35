// Package oserr gives an error of the operating system a class and a hint, in one place for all code that
// opens, reads or writes files. Shortages, missing rights and broken disks have classes of their own, so that
// they are not mistaken for damage to a node's data.
package oserr

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Class is a kind of error of the operating system.
type Class int

// The classes. Only Broken and Missing are about what was stored.
const (
	None    Class = iota // no error of the operating system, or one without a class
	Scarce               // the process or the host has run out of something other than disk space
	Full                 // no disk space: bytes, inodes, a quota, or the limit of a file's size
	Denied               // this user lacks the right
	Fixed                // the file system is mounted read-only
	Broken               // the disk or its file system fails
	Missing              // the file does not exist
	Wrong                // the path is of another kind, such as a file instead of a folder
	Held                 // another process has locked it
	Busy                 // the port or the address is not available
)

// meaning is the class of an error and its hint. The path of the hint may be empty.
type meaning struct {
	class Class
	hint  func(path string) string
}

const (
	noFilesHint = "the host has no more open files: close some, or raise the limit with sysctl fs.file-max"
	memoryHint  = "give the process more memory (its control group, ulimit -v, the host)," +
		" or lower limits.memory_bytes and limits.staging_bytes"
	quotaHint    = "raise the disk quota of this user, or remove files of this user"
	fileSizeHint = "raise the limit of a file's size (ulimit -f, LimitFSIZE= of systemd)"
)

var (
	readOnlyHint = on("mount", "read-write; after an error the kernel mounts a disk read-only: look at dmesg")
	diskHint     = on("look at dmesg for errors of the disk under",
		"and check its cable and its health (smartctl); start again when it can be read")
	fsckHint = on("the file system is inconsistent: unmount it and run fsck on the disk under", "")
	goneHint = on("look at dmesg: there is no disk under", "any more")
	heldHint = on("another process holds", ": stop it first")
)

// known are the errors that have a class.
var known = map[syscall.Errno]meaning{
	syscall.EMFILE:        {Scarce, filesHint},
	syscall.ENFILE:        {Scarce, always(noFilesHint)},
	syscall.ENOMEM:        {Scarce, always(memoryHint)},
	syscall.ENOSPC:        {Full, fullHint},
	syscall.EDQUOT:        {Full, always(quotaHint)},
	syscall.EFBIG:         {Full, always(fileSizeHint)},
	syscall.EACCES:        {Denied, ownerHint},
	syscall.EPERM:         {Denied, ownerHint},
	syscall.EROFS:         {Fixed, readOnlyHint},
	syscall.EIO:           {Broken, diskHint},
	syscall.EBADMSG:       {Broken, fsckHint},
	syscall.ENODEV:        {Broken, goneHint},
	syscall.ENXIO:         {Broken, goneHint},
	syscall.ESTALE:        {Broken, on("mount the network file system again under", "")},
	syscall.ENOENT:        {Missing, on("check the path", "")},
	syscall.ENOTDIR:       {Wrong, on("a file is where a folder should be: check the path", "")},
	syscall.EISDIR:        {Wrong, on("a folder is where a file should be: check the path", "")},
	syscall.ELOOP:         {Wrong, on("symbolic links form a loop: check the path", "")},
	syscall.ENAMETOOLONG:  {Wrong, on("choose a shorter path than", "")},
	syscall.EAGAIN:        {Held, heldHint},
	syscall.EBUSY:         {Held, heldHint},
	syscall.EADDRINUSE:    {Busy, always(Listener{}.taken())},
	syscall.EADDRNOTAVAIL: {Busy, always(Listener{}.foreign())},
}

// always returns a hint without a path.
func always(hint string) func(string) string { return func(string) string { return hint } }

// on returns a hint with the path between before and after.
func on(before, after string) func(string) string {
	return func(path string) string {
		hint := before + " " + cmp.Or(path, "the data directory")
		if after != "" && !strings.HasPrefix(after, ":") {
			hint += " "
		}
		return hint + after
	}
}

// Errno returns the system's error in err, 0 when there is none with a class. It also finds one in the text
// of err, because libraries panic with some errors as text.
func Errno(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	if no := syscall.Errno(0); errors.As(err, &no) {
		if _, ok := known[no]; ok {
			return no
		}
	}
	text := err.Error()
	found := syscall.Errno(0)
	longest := "" // one text may be a part of another
	for no := range known {
		if s := no.Error(); len(s) > len(longest) && strings.Contains(text, s) {
			found = no
			longest = s
		}
	}
	return found
}

// ClassOf returns the class of err.
func ClassOf(err error) Class { return known[Errno(err)].class }

// Hint returns the next step for the user after err, empty when err has no class. It names the file of err,
// or dir where err has none.
func Hint(err error, dir string) string {
	k, ok := known[Errno(err)]
	if !ok {
		return ""
	}
	return k.hint(pathOf(err, dir))
}

// pathOf returns the file of err, or dir when err has none. A relative path is under dir.
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

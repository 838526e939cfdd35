package hostinfo

import "golang.org/x/sys/unix"

// ClockSynced reports whether the kernel knows this host's clock to be kept right, as by chrony or
// systemd-timesyncd; known is false where the system does not say.
func ClockSynced() (synced, known bool) {
	var t unix.Timex // reads, and sets nothing
	state, err := unix.Adjtimex(&t)
	return state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0, err == nil
}

// Volatile returns what the file system of a folder is where a disk is expected and it is none: one in
// memory, a layer of a container, or one of another host. Empty: it is another one.
func Volatile(dir string) string {
	var fs unix.Statfs_t
	if unix.Statfs(dir, &fs) != nil {
		return ""
	}
	switch uint64(fs.Type) & 0xffff_ffff {
	case unix.TMPFS_MAGIC, unix.RAMFS_MAGIC:
		return "in memory: what is there is lost when the machine stops"
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "a container's own layer: what is there is lost with the container"
	case unix.NFS_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC:
		return "another machine's, over the network: slow, and one fault for all nodes that use it"
	}
	return ""
}

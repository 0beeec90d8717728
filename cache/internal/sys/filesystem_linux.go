package sys

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Reserve gets the space for ranges of f that will be written, so that a full
// disk is known before the first byte is pulled. Where the file system cannot do
// it (NFS before 4.2) nothing is reserved. Ranges that share the space of another
// file must not be among them: they would be copied.
//
// On tmpfs nothing is reserved: there fallocate clears every page before it is
// written, 0.23 s for a GiB, and keeps none from being taken by others.
func Reserve(f *os.File, ranges []Interval) error {
	var s unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &s); err == nil && s.Type == unix.TMPFS_MAGIC {
		return nil
	}
	for _, r := range ranges {
		err := unix.Fallocate(int(f.Fd()), 0, r.From, r.To-r.From)
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
			return nil
		}
		if err != nil {
			return &os.PathError{Op: "allocate", Path: f.Name(), Err: err}
		}
	}
	return nil
}

// FreeSpace returns how many bytes can still be written to the file system of f;
// -1 if it does not say.
func FreeSpace(f *os.File) int64 {
	var s unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &s); err != nil || s.Blocks == 0 {
		return -1
	}
	return int64(s.Bavail) * int64(s.Bsize)
}

// Allocated returns how many bytes of the disk a file has. Space that it shares
// with another file counts for both.
func Allocated(info os.FileInfo) int64 {
	return info.Sys().(*syscall.Stat_t).Blocks * 512 // the unit of st_blocks, always
}

// Changed returns when a file's content, mode or links were last changed, in nanoseconds,
// which nobody can set; 0 where it is not known.
func Changed(info os.FileInfo) int64 { return info.Sys().(*syscall.Stat_t).Ctim.Nano() }

// ShowsChanges reports whether the file system of f gives a file another time of change, see
// [Changed], with every change of its content, its mode and its names: also with the first
// store into a mapped page after a flush.
//
// That was tried on ext4, XFS and btrfs, and NFS promises it of what has arrived at the server. On
// tmpfs, and so on an overlay above one, no store but the first into a mapped page shows;
// with FUSE it is up to the program behind it, and bindfs does not show stores at all; SMB
// servers and FAT may keep no such time. All of these are left out, and what is not known.
func ShowsChanges(f *os.File) bool {
	switch magicOf(f) {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.NFS_SUPER_MAGIC:
		return true
	}
	return false
}

// Numbers of network file systems, from linux/magic.h and statfs(2).
const (
	smb2Magic = 0xFE534D42
	cifsMagic = 0xFF534D42
	cephMagic = 0x00C36400
	lustre    = 0x0BD00BD0
)

// IsNetwork reports whether f is on a file system that other hosts write to, on
// which a lock that can be had does not show that no other process holds it. A file
// system that cannot be identified counts as one.
func IsNetwork(f *os.File) bool {
	var s unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &s); err != nil {
		return true
	}
	switch uint32(s.Type) {
	case unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, smb2Magic, cifsMagic, cephMagic, lustre, unix.FUSE_SUPER_MAGIC, unix.V9FS_MAGIC, unix.AFS_SUPER_MAGIC:
		return true
	}
	return false
}

// willNeed asks the kernel to read a part of a file, and does not wait for it.
func willNeed(f *os.File, offset, n int64) {
	_ = unix.Fadvise(int(f.Fd()), offset, n, unix.FADV_WILLNEED)
}

// StartWriting lets the kernel begin to write a part of a file to the disk, which
// it would put off until there is much of it. It returns no error: the fsync at the
// end does.
func StartWriting(f *os.File, offset, n int64) {
	_ = unix.SyncFileRange(int(f.Fd()), offset, n, unix.SYNC_FILE_RANGE_WRITE)
}

// Drop makes f be read from the disk, and no longer from memory. It keeps what is not
// flushed, and what others use right now.
func Drop(f *os.File) error {
	return os.NewSyscallError("fadvise", unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
}

// isOpen reports whether any process on this machine has the file open beside f:
// the kernel grants a write lease to the only one that has (fcntl(2), "Leases").
// The lease is given back at once. Without leases, and for a file of another user,
// which may have none, the answer is false.
func isOpen(f *os.File) bool {
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		return errors.Is(err, unix.EAGAIN)
	}
	_, _ = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK) // else closing f does it
	return false
}

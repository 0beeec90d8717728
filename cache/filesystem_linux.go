package cache

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// reserve gets the space for ranges of f that will be written, so that a full
// disk is known before the first byte is pulled. Where the file system cannot do
// it (NFS before 4.2), the space must be hoped for. Ranges that share the space
// of another file must not be among them: they would be copied.
//
// On tmpfs nothing is reserved: there fallocate clears every page before it is
// written, 0.23 s for a GiB, and keeps none from being taken by others.
func reserve(f *os.File, ranges []interval) error {
	var s unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &s); err == nil && s.Type == unix.TMPFS_MAGIC {
		return nil
	}
	for _, r := range ranges {
		err := unix.Fallocate(int(f.Fd()), 0, r.from, r.to-r.from)
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
			return nil
		}
		if err != nil {
			return &os.PathError{Op: "allocate", Path: f.Name(), Err: err}
		}
	}
	return nil
}

// freeSpace returns how many bytes can still be written to the file system of f;
// -1 if it does not say.
func freeSpace(f *os.File) int64 {
	var s unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &s); err != nil || s.Blocks == 0 {
		return -1
	}
	return int64(s.Bavail) * s.Bsize
}

// allocated returns how many bytes of the disk a file has. Space that it shares
// with another file counts for both.
func allocated(info os.FileInfo) int64 {
	return info.Sys().(*syscall.Stat_t).Blocks * 512 // the unit of st_blocks, always
}

// Numbers of network file systems, from linux/magic.h and statfs(2).
const (
	smb2Magic = 0xFE534D42
	cifsMagic = 0xFF534D42
	cephMagic = 0x00C36400
	lustre    = 0x0BD00BD0
)

// isNetwork tells whether f is on a file system that other hosts write to, on
// which a lock is no proof. What cannot be told counts as one.
func isNetwork(f *os.File) bool {
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

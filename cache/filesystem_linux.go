package cache

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// preallocate gives f its size and the space for it, so that a full disk is
// known before the first byte is pulled. Where the file system cannot do it
// (NFS before 4.2), f has its size and the space must be hoped for.
//
// On tmpfs the space is only looked for: there fallocate clears every page before
// it is written, 0.23 s for a GiB, and keeps none from being taken by others.
func preallocate(f *os.File, size int64) error {
	var s unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &s); err == nil && s.Type == unix.TMPFS_MAGIC {
		return lookForSpace(f, size, &s)
	}
	err := unix.Fallocate(int(f.Fd()), 0, 0, size)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "allocate", Path: f.Name(), Err: err}
	}
	return nil
}

// lookForSpace tells whether a file system has room for f to grow to size.
func lookForSpace(f *os.File, size int64, s *unix.Statfs_t) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	have := info.Sys().(*syscall.Stat_t).Blocks * 512 // the unit of st_blocks, always
	if s.Blocks > 0 && size-have > int64(s.Bavail)*s.Bsize {
		return &os.PathError{Op: "allocate", Path: f.Name(), Err: unix.ENOSPC}
	}
	return nil
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

package sys

import (
	"errors"
	"os"
	"syscall"
)

// Locks are those of flock(2): they belong to an open file and end with it, however
// the process ends.

// LockShared keeps [InUse] from reporting false, on any host that the lock reaches,
// until f is closed. Where locks do not work it has no effect.
func LockShared(f *os.File) { _ = flock(f, lockShared) }

// TryLock locks f exclusively, without waiting. held reports whether another open
// file has a lock on it; err is why locks do not work.
func TryLock(f *os.File) (held bool, err error) { return tryLock(f, lockExclusive) }

// TryLockShared locks f for itself and others that do the same, without waiting; held
// reports whether another open file has an exclusive lock.
func TryLockShared(f *os.File) (held bool, err error) { return tryLock(f, lockShared) }

func tryLock(f *os.File, how int) (held bool, err error) {
	err = flock(f, how)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return true, nil
	}
	return false, err
}

// OpenToLock opens a file so that it can be locked exclusively, without waiting for
// another process, and follows no link. It is opened for reading: for writing, an overlay
// would copy the file first, for which there must be space. NFS alone locks no file
// exclusively that is not open for writing (flock(2), "NFS details").
func OpenToLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|NoFollow|NonBlock, 0)
	if err != nil || !IsNetwork(f) {
		return f, err
	}
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
		if w, err := os.OpenFile(path, os.O_RDWR|NoFollow|NonBlock, 0); err == nil {
			_ = f.Close()
			return w, nil
		}
	}
	return f, nil
}

// InUse reports whether another process has the file open of which f is a handle. Until f
// is closed, others can open it but not lock it.
//
// A lock shows this module's own readers and writers. Others, such as an
// engine that loads the tarball, are seen on this machine only, by a lease. On a
// network file system the lease would be about the server's promises to
// this client and not about readers, so it is not asked for.
func InUse(f *os.File) bool {
	held, _ := TryLock(f)
	return held || !IsNetwork(f) && isOpen(f)
}

// OpenToRead opens a file to read it, without waiting for a writer of a named pipe
// that is in its place.
func OpenToRead(path string, flags int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|NonBlock|flags, 0)
	if !errors.Is(err, syscall.EWOULDBLOCK) {
		return f, err
	}
	// Another process has a lease on it, which only a regular file can have: [InUse]
	// for an instant, or a file server. Without O_NONBLOCK the kernel waits until it is
	// given back, 45 s at most (/proc/sys/fs/lease-break-time).
	return os.OpenFile(path, os.O_RDONLY|flags, 0)
}

// IsAt reports whether path names the file f, and is no link to it.
func IsAt(f *os.File, path string) bool {
	have, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(path)
	return err == nil && os.SameFile(have, there)
}

package cache

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// openToRead opens a tarball to read it, without waiting for somebody to write
// into a named pipe that is in its place.
func openToRead(path string, flags int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|flags, 0)
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return f, err
	}
	// Somebody has a lease on it, which only a regular file can have: [isOpen] for
	// an instant, or a file server. Without O_NONBLOCK the kernel waits until it is
	// given back, 45 s at most (/proc/sys/fs/lease-break-time).
	return os.OpenFile(path, os.O_RDONLY|flags, 0)
}

// lockShared tells [Dir.Prune], on any host that the lock reaches, that the
// tarball is being read, until f is closed. Where locks do not work nobody is
// told.
func lockShared(f *os.File) { _ = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) }

// inUse tells whether somebody has the file open that f is a handle of. Until f
// is closed, others can open it but not lock it.
//
// A lock tells of this package's own readers and writers. Others, such as an
// engine that loads the tarball, are seen on this machine only: [isOpen]. On a
// network file system the answer of that would be about the server's promises to
// this client and not about readers, so it is not asked.
func inUse(f *os.File) bool {
	return isLocked(f) || !isNetwork(f) && isOpen(f)
}

// isLocked tells whether another has locked the file; if not, f has the lock now.
func isLocked(f *os.File) bool {
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
}

package cache

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// isOpen tells whether any process on this machine has the file open beside f:
// the kernel grants a write lease to the only one that has (fcntl(2), "Leases").
// The lease is given back at once. Where there are no leases, and for who may not
// have one since the file is another user's, nobody is seen.
func isOpen(f *os.File) bool {
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		return errors.Is(err, unix.EAGAIN)
	}
	_, _ = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK) // else closing f does it
	return false
}

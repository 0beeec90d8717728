//go:build unix

package sys

import (
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Flags for opening a file that another user may have put there: no link is
// followed, and no named pipe is waited for.
const (
	NoFollow = unix.O_NOFOLLOW
	NonBlock = unix.O_NONBLOCK
)

const (
	lockShared    = unix.LOCK_SH | unix.LOCK_NB
	lockExclusive = unix.LOCK_EX | unix.LOCK_NB
)

func flock(f *os.File, how int) error { return unix.Flock(int(f.Fd()), how) }

// Duplicate returns another handle of an open file, under a name of its own.
func Duplicate(f *os.File, name string) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "dup", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// IsReadOnly reports whether f is open for reading only.
func IsReadOnly(f *os.File) bool {
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	return err == nil && flags&unix.O_ACCMODE == unix.O_RDONLY
}

// Inode returns the number of a file in its file system; 0 if it is not known.
func Inode(info os.FileInfo) uint64 {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(stat.Ino)
	}
	return 0
}

// links returns how many names a file has.
func links(info os.FileInfo) uint64 {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(stat.Nlink)
	}
	return 1
}

// isMine reports whether a file belongs to this process's effective user.
func isMine(info os.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int64(stat.Uid) == int64(os.Geteuid())
}

// isRoots reports whether a file belongs to root.
func isRoots(info os.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && stat.Uid == 0
}

// IsPrivate reports whether info is of a directory that belongs to this process's effective
// user, and in which no other user can open or create anything.
func IsPrivate(info os.FileInfo) bool {
	return info.IsDir() && info.Mode()&0o077 == 0 && isMine(info)
}

// giveGroup gives f the group of another file.
func giveGroup(f *os.File, of os.FileInfo) error {
	is, err := f.Stat()
	if err != nil {
		return err
	}
	have, ok := is.Sys().(*syscall.Stat_t)
	want, known := of.Sys().(*syscall.Stat_t)
	if !ok || !known || have.Gid == want.Gid {
		return nil
	}
	return f.Chown(-1, int(want.Gid))
}

// SetTime makes t the time at which f was last written.
func SetTime(f *os.File, t time.Time) error {
	tv := unix.NsecToTimeval(t.UnixNano())
	return unix.Futimes(int(f.Fd()), []unix.Timeval{tv, tv})
}

// Unlink removes a file. [os.Remove] would remove a directory too, if one had
// come into its place.
func Unlink(path string) error {
	if err := unix.Unlink(path); err != nil {
		return &os.PathError{Op: "remove", Path: path, Err: err}
	}
	return nil
}

package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// A RoomError says that a tarball does not fit, before a byte of it is pulled.
// It wraps [syscall.ENOSPC] when the file system is full, and [ErrQuota] when
// the directory's quota is.
type RoomError struct {
	// Dir is the directory.
	Dir string
	// Need is how many bytes more the tarball needs, after what can be shared
	// with others in the directory.
	Need int64
	// Have is how many bytes there are.
	Have int64

	kind error
}

func (e *RoomError) Error() string {
	return fmt.Sprintf("not enough space in %s: %v: %d bytes more are needed, there are %d", e.Dir, e.kind, e.Need, max(e.Have, 0))
}

func (e *RoomError) Unwrap() error { return e.kind }

// ErrQuota is wrapped when a tarball would make a directory larger than
// [DirOptions.Quota].
var ErrQuota = errors.New("the directory's quota is used up")

// checkRoom tells whether need more bytes fit. What the tarball at path takes
// still counts: it stays until the new one is there.
func (d *Dir) checkRoom(f *os.File, need int64) error {
	if have := freeSpace(f); have >= 0 && need > have {
		return &RoomError{d.path, need, have, syscall.ENOSPC}
	}
	if d.quota <= 0 {
		return nil
	}
	used, err := d.used()
	if err != nil {
		return err
	}
	if have := d.quota - used; need > have {
		return &RoomError{d.path, need, have, ErrQuota}
	}
	return nil
}

// used returns how many bytes all files of the directory take, in progress or
// done.
func (d *Dir) used() (total int64, err error) {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone meanwhile
		}
		if err != nil {
			return 0, err
		}
		if info.Mode().IsRegular() {
			total += allocated(info)
		}
	}
	return total, nil
}

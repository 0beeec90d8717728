package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
)

// A SpaceError says that a tarball does not fit, before a byte of it is pulled.
// It wraps [syscall.ENOSPC] when the file system is full, and [ErrQuota] when
// the directory's quota is.
type SpaceError struct {
	// Dir is the directory.
	Dir string
	// Need is how many bytes more the tarball needs, after what can be shared
	// with others in the directory.
	Need int64
	// Have is how many bytes there are.
	Have int64

	// Kind is [syscall.ENOSPC] or [ErrQuota].
	Kind error
}

func (e *SpaceError) Error() string {
	return fmt.Sprintf("not enough space in %s: %v: %d bytes more are needed, there are %d", e.Dir, e.Kind, e.Need, max(e.Have, 0))
}

func (e *SpaceError) Unwrap() error { return e.Kind }

// checkSpace checks whether need more bytes fit. What the tarball at the final name
// takes still counts: it stays until the new one is there.
func (d *Dir) checkSpace(f *os.File, need int64) error {
	if err := checkFree(f, d.path, need); err != nil || d.quota <= 0 {
		return err
	}
	used, err := d.used()
	if err != nil {
		return err
	}
	if have := d.quota - used; need > have {
		return &SpaceError{d.path, need, have, ErrQuota}
	}
	return nil
}

// checkFree checks whether the file system of f, which is in dir, has room for need more
// bytes.
func checkFree(f *os.File, dir string, need int64) error {
	if have := sys.FreeSpace(f); have >= 0 && need > have {
		return &SpaceError{dir, need, have, syscall.ENOSPC}
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
			total += sys.Allocated(info)
		}
	}
	return total, nil
}

// withNeed says how much space was needed when there was not enough.
func withNeed(err error, dir string, layout *tarball.Layout) error {
	if errors.As(err, new(*SpaceError)) || !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		return err
	}
	return fmt.Errorf("not enough space in %s for the %d bytes of the tarball: %w", dir, layout.Size(), err)
}

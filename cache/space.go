package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/wait"
)

// A SpaceError says that a tarball does not fit, before a byte of it is pulled.
// It wraps [syscall.ENOSPC] when the file system is full, and [ErrQuota] when
// the directory's quota is.
type SpaceError struct {
	// Dir is the directory.
	Dir string
	// Need is how many bytes more the tarball needs: when the file system is full, after
	// what can be shared with others in the directory, which a quota counts for each.
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

// quotaLock is what the lock is called under which partial files begin where there is a
// quota, .quota.lock; no tarball can be called so.
const quotaLock = "quota"

// beginPartial is [openPartial], unless the tarball would go beyond the quota. A partial
// file counts as large as it will be from the moment it is there, and no two begin at the
// same time, so that each counts the other.
func (d *Dir) beginPartial(ctx context.Context, name string, digest v1.Hash, layout *tarball.Layout) (*partialFile, error) {
	if d.quota <= 0 {
		return openPartial(d.path, name, digest, layout)
	}
	select {
	case d.quotaTurn <- struct{}{}:
		defer func() { <-d.quotaTurn }()
	case <-ctx.Done():
		return nil, wait.Err(ctx)
	}
	unlock, err := d.lockAll(ctx, quotaLock)
	if err != nil {
		return nil, err
	}
	defer unlock()
	p, err := openPartial(d.path, name, digest, layout)
	if err != nil {
		return nil, err
	}
	sys.AtStep("quota")
	err = d.checkQuota(p.file, layout.Size())
	if err != nil && p.from != nil && p.from.old { // its room is worth more than its bytes
		p.from.remove()
		p.from = nil
		err = d.checkQuota(p.file, layout.Size())
	}
	if err != nil {
		p.discard = true
		p.close()
		return nil, err
	}
	return p, nil
}

// checkQuota checks whether the partial file f may have size bytes.
func (d *Dir) checkQuota(f *os.File, size int64) error {
	own, err := f.Stat()
	if err != nil {
		return err
	}
	others, err := d.used(own)
	if err != nil {
		return err
	}
	if has := sys.Allocated(own); others+max(size, has) > d.quota {
		return &SpaceError{d.path, size - has, d.quota - others - has, ErrQuota}
	}
	return nil
}

// checkFree checks whether the file system of f, which is in dir, has room for need more
// bytes. What the tarball at the final name takes still counts: it stays until the new one
// is there.
func checkFree(f *os.File, dir string, need int64) error {
	if have := sys.FreeSpace(f); have >= 0 && need > have {
		return &SpaceError{dir, need, have, syscall.ENOSPC}
	}
	return nil
}

// used returns how many bytes all files of the directory but one take, done or in
// progress: those at work on will have what they are planned to have.
func (d *Dir) used(but os.FileInfo) (total int64, err error) {
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
		if !info.Mode().IsRegular() || os.SameFile(info, but) {
			continue
		}
		takes := sys.Allocated(info)
		if takes < info.Size() && strings.HasSuffix(e.Name(), "."+partialKind) {
			if dead := sys.LockToRemove(filepath.Join(d.path, e.Name()), d.now(), 0); dead != nil {
				_ = dead.Close()
			} else {
				takes = info.Size()
			}
		}
		total += takes
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

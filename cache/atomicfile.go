package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// WriteFile creates or replaces the file at path with what write puts into it,
// so that path is at every moment what it was before or the whole new file,
// also when the process is killed or the machine fails. It serves any file.
//
// write gets a new, empty file in path's directory. When it returns nil the
// file is flushed to the disk, closed, renamed to path, and the rename is
// flushed too. When it returns an error, or anything else fails, the new file
// is removed and path is left as it was. The file has mode perm before the
// umask; a mode that write sets itself stays.
//
// One case returns an error with the new file in place: the directory could not
// be flushed, so a power failure might bring the old file back. The error says so.
func WriteFile(path string, perm fs.FileMode, write func(f *os.File) error) (err error) {
	dir, base := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	sweepAbandoned(temporaries(dir, base, "tmp"), time.Now())
	atStep("create")
	f, err := createTemp(dir, base, "tmp", perm)
	if err != nil {
		return fmt.Errorf("create a temporary file for %s: %w", path, err)
	}
	published := false
	defer func() {
		if !published {
			// Removed before it is closed: no one else can take the lock and
			// find a file that is about to go.
			err = errors.Join(err, os.Remove(f.Name()))
			_ = f.Close() // harmless after the one in publish
		}
	}()
	atStep("write")
	if err := write(f); err != nil {
		return err
	}
	published, err = publish(f, path)
	return err
}

// atStep is called before each step that changes what is on the disk. Tests
// kill the process there.
var atStep = func(step string) {}

// publish flushes f, closes it, gives it the name path in the same directory,
// and flushes that. It tells whether f has that name now, which it may have
// even when there is an error.
func publish(f *os.File, path string) (published bool, err error) {
	// A full disk or quota may show only here or in Close, on NFS above all.
	atStep("sync")
	if err := f.Sync(); err != nil {
		return false, fmt.Errorf("flush %s: %w", f.Name(), err)
	}
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	atStep("close")
	if err := f.Close(); err != nil {
		return false, fmt.Errorf("close %s: %w", f.Name(), err)
	}
	atStep("rename")
	if err := rename(f.Name(), path, info); err != nil {
		return false, err
	}
	atStep("sync directory")
	if err := syncDir(filepath.Dir(path)); err != nil {
		return true, fmt.Errorf("%s is in place, but flushing its directory failed, so a power failure may undo it: %w", path, err)
	}
	atStep("done")
	return true, nil
}

// rename moves from to to. On NFS a rename may be done and reported as failed,
// when the answer was lost and the repeated request found nothing to move
// (rename(2), "BUGS"): so after an error it looks whether to is the file.
func rename(from, to string, file fs.FileInfo) error {
	err := os.Rename(from, to)
	if err == nil {
		return nil
	}
	if now, statErr := os.Lstat(to); statErr == nil && os.SameFile(now, file) {
		return nil
	}
	return err
}

// syncDir makes a rename in dir durable. File systems that cannot do it (some
// FUSE and CIFS mounts) say EINVAL or ENOTSUP; there is nothing to do about it.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		return nil
	}
	return err
}

// Package atomicfile writes files that appear under their names whole or not at
// all: at every moment the name is what it was before or the whole new file, also
// when the process is killed or the machine fails.
//
//	err := atomicfile.WriteFile("report.json", 0o666, func(f *os.File) error {
//		return json.NewEncoder(f).Encode(report)
//	})
//
// [WriteFile] does all of it. [Create], [File.Flush], [File.Commit] and [File.Discard] are
// its parts, for a file that is written over a longer time.
//
// A new file is written beside its name, as .<name>.<unique>.tmp, flushed to the
// disk, closed, and renamed; then its directory is flushed. Any number of processes
// may write the same name at the same time: each has a file of its own, and the last
// to commit stays. What a process that was killed has left is removed by a later
// write of the same name, an hour after it was last touched at the earliest.
package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/dockercache/dockercache/cache/internal/sys"
)

// WriteFile creates or replaces the file at path with what write puts into it.
//
// write gets a new, empty file in path's directory; it may set the mode, and must not
// close it. When it returns nil the file is committed, see [File.Commit]. When it
// returns an error, or anything else fails, the new file is removed and path is left
// as it was. The file has mode perm before the umask. A symbolic link at path is
// replaced by the file.
//
// The error is that of write, or of the file system. After one in flushing the
// directory the new file is in place, and the error says so.
func WriteFile(path string, perm fs.FileMode, write func(f *os.File) error) (err error) {
	if write == nil {
		return fmt.Errorf("write %s: there is no function that writes it", path)
	}
	f, err := Create(path, perm)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Discard()) }()
	sys.AtStep("write")
	if err := write(f.File); err != nil {
		return err
	}
	return f.Commit()
}

// A File is a new file that has no name yet that others read. It is not safe for
// concurrent use, but for what the [os.File] in it allows.
type File struct {
	// File is the open file. It must not be closed.
	*os.File
	path      string
	flushed   fs.FileInfo // nil before
	failed    error       // of the flush
	committed bool
}

// Create creates the file that shall be at path, in the same directory, with mode perm
// before the umask. Discard must be called in the end.
func Create(path string, perm fs.FileMode) (*File, error) {
	dir, base := filepath.Split(path)
	if base == "" {
		return nil, fmt.Errorf("create a temporary file for %q: the path names no file", path)
	}
	if info, err := os.Lstat(path); err == nil && info.IsDir() {
		return nil, fmt.Errorf("create a temporary file for %s: that is a directory", path)
	}
	if dir == "" {
		dir = "."
	}
	sys.SweepAbandoned(sys.Temporaries(dir, base, "tmp"), time.Now())
	sys.AtStep("create")
	f, err := sys.CreateTemp(dir, base, "tmp", perm)
	if err != nil {
		return nil, fmt.Errorf("create a temporary file for %s: %w", path, err)
	}
	return New(f, path), nil
}

// New returns the File of an open file, which must be in the directory of path.
func New(f *os.File, path string) *File { return &File{File: f, path: path} }

// Flush flushes the file to the disk and closes it. It is the part of [File.Commit] that
// may take long, for those who look once more before the file gets its name.
//
// A flush that fails is reported once: then the file may lack bytes on the disk that are
// still read from memory, and a second one succeeds. So after an error, of the flush or of
// the close, the file is removed, and every further call returns that error.
func (f *File) Flush() error {
	if f == nil || f.File == nil {
		return errors.New("atomicfile: this File was made by neither Create nor New")
	}
	if f.flushed != nil || f.failed != nil {
		return f.failed
	}
	info, err := f.flush()
	if err != nil {
		f.failed = errors.Join(err, f.Discard())
		return f.failed
	}
	f.flushed = info
	return nil
}

func (f *File) flush() (fs.FileInfo, error) {
	// A full disk or quota may show only here or in Close, on NFS above all.
	sys.AtStep("sync")
	if err := sys.Flush(f.File); err != nil {
		return nil, fmt.Errorf("flush %s: %w", f.Name(), err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	sys.AtStep("close")
	if err := sys.Close(f.File); err != nil {
		return nil, fmt.Errorf("close %s: %w", f.Name(), err)
	}
	return info, nil
}

// Commit flushes the file, closes it, gives it its name, and flushes the directory.
// One error leaves the new file in place: the directory could not be flushed, so
// that a power failure might bring the old file back, whole. [File.Committed] reports
// which it was. After an error in flushing the file that is removed, see [File.Flush].
func (f *File) Commit() error {
	if err := f.Flush(); err != nil {
		return err
	}
	sys.AtStep("rename")
	if err := rename(f.Name(), f.path, f.flushed); err != nil {
		return err
	}
	f.committed = true
	sys.AtStep("sync directory")
	if err := syncDir(filepath.Dir(f.path)); err != nil {
		return fmt.Errorf("%s is in place, but flushing its directory failed, so a power failure may undo it: %w", f.path, err)
	}
	sys.AtStep("done")
	return nil
}

// Committed reports whether the file has its name.
func (f *File) Committed() bool { return f.committed }

// Discard closes and removes the file, unless it was committed.
func (f *File) Discard() error {
	if f == nil || f.File == nil || f.committed {
		return nil
	}
	// Removed before it is closed: no other process can take the lock and find a
	// file that is about to go.
	err := os.Remove(f.Name())
	_ = f.Close() // harmless after the one in Flush
	if f.failed != nil && errors.Is(err, fs.ErrNotExist) {
		return nil // Flush has removed it
	}
	return err
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
// FUSE and CIFS mounts) answer EINVAL or ENOTSUP; nothing can be done about it.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	err = sys.Flush(d)
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		return nil
	}
	return err
}

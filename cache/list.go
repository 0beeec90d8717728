package cache

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/wait"
)

// An Entry is a tarball in a directory, as [Dir.List] found it.
type Entry struct {
	// Name is the file's, without a path. It may have any character but "/".
	Name string
	// Info is what the file holds; nil if Err is not.
	Info *tarball.Info
	// Size is the file's length in bytes.
	Size int64
	// Allocated is how many bytes of the disk it has. Space that it shares with
	// another file counts for both, as for [Options.Quota].
	Allocated int64
	// Shared is how many of these bytes it shares with other files, as the file system
	// says; 0 where it shares nothing (ext4, tmpfs) or does not report it (NFS).
	Shared int64
	// Written is when the file was last written, by the clock of the machine or
	// file server that did.
	Written time.Time
	// Inode is the file's number in its file system, which another file under the same
	// name has not; 0 where it is not known.
	Inode uint64
	// LastUsed is when a [Dir.Put] last wrote the tarball or found it to be what it
	// would have written, or when [Dir.Touch] was called, give or take an hour.
	LastUsed time.Time
	// Run is the newest build run that is known to have built what it holds.
	Run tarball.Run
	// Group is what [Dir.Prune] keeps the newest tarball of, see [PutOptions.Group].
	Group string
	// Err says why the file cannot be read. It wraps [tarball.ErrNotTarball] when it is
	// none, [ErrInvalidName] when no tarball can have its name, or is the file system's.
	Err error
	// Foreign reports that it is an archive of images which another program made, such as
	// docker save: Err is not nil then. A damaged tarball of this cache is not one.
	Foreign bool

	file os.FileInfo // that was read
}

// listAtOnce is how many tarballs are read at a time. A head is a few KiB, so
// all of the time goes into waiting for the disk, or the file server.
const listAtOnce = 16

// List returns all tarballs of the directory, in the order of their names. It
// reads the first KiB of each. What has a name of a tarball and is none is an
// entry with an error; links, directories, and names with a leading dot are left
// out. The error is that of the directory, or the reason for which ctx ended.
func (d *Dir) List(ctx context.Context) ([]Entry, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	names, err := tarballNames(d.path)
	if err != nil {
		return nil, fmt.Errorf("list tarballs: %w", err)
	}
	return d.Entries(ctx, names)
}

// Entries returns what [Dir.List] returns of the tarballs called names, in their order. A
// name of which there is no regular file is left out.
func (d *Dir) Entries(ctx context.Context, names []string) ([]Entry, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	marks := marksOf(d.path)
	found := make([]*Entry, len(names))
	var group errgroup.Group
	group.SetLimit(listAtOnce)
	for i, name := range names {
		group.Go(func() error {
			if ctx.Err() != nil {
				return wait.Err(ctx)
			}
			found[i] = d.entry(name, marks[name])
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("list tarballs in %s: %w", d.path, err)
	}
	var entries []Entry
	for _, e := range found {
		if e != nil {
			entries = append(entries, *e)
		}
	}
	return entries, nil
}

// entry reads one tarball and its records; nil if there is none any more.
func (d *Dir) entry(name string, marks []string) *Entry {
	path := filepath.Join(d.path, filepath.Base(name)) // no name leads out of the directory
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
		return nil
	}
	e := &Entry{Name: name, Err: err}
	if err == nil {
		_, e.Err = d.tarballPath(name)
	}
	if e.Err == nil {
		e.read(path)
	}
	switch {
	case errors.Is(e.Err, fs.ErrNotExist):
		return nil
	case e.file != nil:
		info = e.file // what was read, if it was replaced in between
	}
	if info != nil {
		e.Size, e.Allocated, e.Written, e.Inode = info.Size(), sys.Allocated(info), info.ModTime(), sys.Inode(info)
		e.LastUsed = e.Written
	}
	if e.file != nil {
		r, used, _ := readRecords(d.path, marks)
		if e.Info != nil {
			e.Run, e.Group = runOf(e.Info, r), groupOf(name, e.Info, r)
		}
		if used.After(e.LastUsed) {
			e.LastUsed = used
		}
	}
	return e
}

// read reads the beginning of the file at path.
func (e *Entry) read(path string) {
	f, info, err := openLocked(path, sys.NoFollow)
	if err != nil {
		e.Err = err
		return
	}
	defer f.Close()
	e.Shared = sys.Shared(f)
	t, err := tarball.Read(f, info.Size(), path)
	if err != nil {
		e.Err, e.Foreign = err, isForeign(f, info.Size())
		e.file = info
		return
	}
	e.Info, e.file = &t.Info, info
}

// foreignStart is how the name of the first entry begins in an archive of images that
// another program made: docker save since Docker 25 and before, podman save, crane. A
// tarball of this cache begins with oci-layout.
var foreignStart = regexp.MustCompile(`^(\./)?(blobs(/|$)|index\.json$|manifest\.json$|repositories$|(sha256:)?[0-9a-f]{64}(/|\.json$|\.tar(\.gz)?$|$))`)

// isForeign reports whether the content of a file is an archive of images that is not of
// this cache, as it is or compressed with gzip. What cannot be read is none: it may be a
// tarball that is damaged.
func isForeign(r io.ReaderAt, size int64) bool {
	archive := io.Reader(io.NewSectionReader(r, 0, size))
	if z, err := gzip.NewReader(io.NewSectionReader(r, 0, size)); err == nil {
		archive = z
	}
	h, err := tar.NewReader(archive).Next()
	return err == nil && foreignStart.MatchString(h.Name)
}

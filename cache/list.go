package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
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
	// Shared is the total size of its distinct layers that another tarball of the
	// directory also has, by their digests. Whether the two also share space on
	// the disk is for the file system to know.
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
	found := make([]*Entry, len(names))
	var group errgroup.Group
	group.SetLimit(listAtOnce)
	for i, name := range names {
		group.Go(func() error {
			if ctx.Err() != nil {
				return wait.Err(ctx)
			}
			found[i] = d.entry(name)
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
	countShared(entries)
	return entries, nil
}

// Entry returns what [Dir.List] returns of the tarball called name, but for Shared. The
// error is [fs.ErrNotExist] when there is no regular file of that name; what else is
// wrong is in the entry.
func (d *Dir) Entry(name string) (*Entry, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	if filepath.Base(name) != name {
		return nil, fmt.Errorf("%w %q: it is a path", ErrInvalidName, name)
	}
	if e := d.entry(name); e != nil {
		return e, nil
	}
	return nil, fmt.Errorf("%s: %w", filepath.Join(d.path, name), fs.ErrNotExist)
}

// entry reads one tarball; nil if there is none any more.
func (d *Dir) entry(name string) *Entry {
	path := filepath.Join(d.path, name)
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
		return nil
	}
	e := &Entry{Name: name, Err: err}
	if err == nil {
		_, e.Err = d.tarballPath(name)
	}
	if e.Err == nil {
		var t *tarball.Tarball
		if t, e.file, e.Err = openTarball(path, sys.NoFollow); e.Err == nil {
			e.Info = &t.Info
			_ = t.Close()
		}
	}
	switch {
	case errors.Is(e.Err, fs.ErrNotExist):
		return nil
	case e.Err == nil:
		info = e.file // what was read, if it was replaced in between
	}
	if info != nil {
		e.Size, e.Allocated, e.Written, e.Inode = info.Size(), sys.Allocated(info), info.ModTime(), sys.Inode(info)
		e.LastUsed = e.Written
	}
	if e.Info != nil {
		r, used := readRecord(d.path, name)
		e.Run, e.Group = runOf(e.Info, r), groupOf(name, e.Info, r)
		if used.After(e.LastUsed) {
			e.LastUsed = used
		}
	}
	return e
}

// countShared fills in what entries share.
func countShared(entries []Entry) {
	holders := map[v1.Hash]int{}
	each := func(do func(e *Entry, layer tarball.Segment)) {
		for i := range entries {
			if entries[i].Info == nil {
				continue
			}
			for _, l := range entries[i].Info.Layout.Layers() {
				do(&entries[i], l)
			}
		}
	}
	each(func(_ *Entry, l tarball.Segment) { holders[l.Blob]++ })
	each(func(e *Entry, l tarball.Segment) {
		if holders[l.Blob] > 1 {
			e.Shared += l.Length
		}
	})
}

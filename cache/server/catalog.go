package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
)

// catalog knows the images that are served.
type catalog interface {
	// images returns what is known, not from before the call if it must be fresh.
	images(ctx context.Context, fresh bool) (*listing, error)
	// confirm reports whether these images are still what their files hold. If not, they
	// are looked at again.
	confirm(ctx context.Context, all []image) bool
	// held returns those that were pulled a moment ago, be they replaced or gone.
	held() []image
	// open opens the tarball of an image. The error is [cache.ErrReplaced] when
	// another image is in its place now. done must be called.
	open(ctx context.Context, i image) (t *tarball.Tarball, done func(), err error)
	// used records that an image was pulled.
	used(ctx context.Context, i image)
}

// single is the catalog of one open tarball, or of none.
type single struct {
	image
	tarball *tarball.Tarball
}

func (c single) images(context.Context, bool) (*listing, error) {
	if c.tarball == nil {
		return newListing(nil), nil
	}
	return newListing([]image{c.image}), nil
}

func (c single) confirm(context.Context, []image) bool { return true }

func (c single) held() []image { return nil }

func (c single) open(context.Context, image) (*tarball.Tarball, func(), error) {
	return c.tarball, func() {}, nil
}

func (c single) used(context.Context, image) {}

// dirCatalog is what a directory holds. It reads a tarball when it comes, and again when
// its file has changed. As long as the directory is as it was, a look at it is one system
// call, and one for each file that is not served. What that cannot show is a tarball that
// was written in place: that is noticed when it is asked for, and by a look at all files
// now and then.
type dirCatalog struct {
	dir     *cache.Dir
	read    func(name string) (*cache.Entry, error) // [cache.Dir.Entry]; tests replace it
	skipped func(context.Context, error)            // is called with why a file is not served
	holder  holder
	known   atomic.Pointer[listing] // nil before the first look

	mu      sync.Mutex       // held by who looks
	files   map[string]*file // what was found, by name
	state   version          // of the directory, before that
	since   time.Time        // when it was first seen so
	scanned time.Time        // when all files were last looked at
	looked  time.Time        // when the last look began
}

const (
	// settles is how long a directory must be as it is until its time is believed: on
	// some file servers times are whole seconds, so two changes may have the same.
	settles = 2500 * time.Millisecond
	// scanEvery is for how long it is believed.
	scanEvery = time.Minute
	// readAtOnce is how many tarballs are read at a time: it is waiting for the disk,
	// or the file server.
	readAtOnce = 16
)

// file is what a name in the directory is.
type file struct {
	version  version // before it was read
	image    *image  // nil if it is not served
	err      error   // why not
	passing  bool    // that may pass without a change of the file
	reported bool    // err
}

// A version tells the files apart that have one name after the other. A repaired one has
// the time of the one before.
type version struct {
	mode             fs.FileMode
	size             int64
	written, changed int64
	inode            uint64
}

func versionOf(info fs.FileInfo) version {
	return version{info.Mode(), info.Size(), info.ModTime().UnixNano(), sys.Changed(info), sys.Inode(info)}
}

func newDirCatalog(dir *cache.Dir, hold time.Duration, skipped func(context.Context, error)) *dirCatalog {
	return &dirCatalog{dir: dir, read: dir.Entry, skipped: skipped, holder: holder{hold: hold}, files: map[string]*file{}}
}

func (c *dirCatalog) used(ctx context.Context, i image) { _ = c.dir.Touch(ctx, i.file) } // best effort

// open opens a tarball, or returns the one that is open still.
func (c *dirCatalog) open(ctx context.Context, i image) (*tarball.Tarball, func(), error) {
	return c.holder.acquire(i, func() (*tarball.Tarball, error) {
		t, err := c.dir.Get(ctx, i.file)
		if err == nil && t.Image.Digest() != i.info.Image.Digest() {
			_ = t.Close()
			return nil, fmt.Errorf("%s: %w: it holds %s now", i.file, cache.ErrReplaced, t.Image.Digest())
		}
		return t, err
	})
}

func (c *dirCatalog) held() []image { return c.holder.images() }

func (c *dirCatalog) images(ctx context.Context, fresh bool) (*listing, error) {
	if known := c.known.Load(); known != nil && !fresh {
		return known, nil
	}
	asked := time.Now()
	c.mu.Lock()
	var err error
	var skipped []error
	if !c.looked.After(asked) { // else another request has looked meanwhile, for this one too
		c.looked = time.Now()
		skipped, err = c.look()
	}
	c.mu.Unlock()
	for _, err := range skipped { // not under the lock: the function may take its time
		c.skipped(ctx, err)
	}
	if err != nil {
		return nil, err
	}
	return c.known.Load(), nil
}

// look brings up to date what is known, and returns why files are not served that have
// not been reported.
func (c *dirCatalog) look() (skipped []error, err error) {
	info, err := os.Stat(c.dir.Path())
	if err != nil {
		c.looked = time.Time{} // not for others
		return nil, err
	}
	now := time.Now()
	if state := versionOf(info); state != c.state || c.since.IsZero() {
		c.state, c.since = state, now
	}
	var names []string
	if c.known.Load() != nil && c.scanned.Sub(c.since) >= settles && now.Sub(c.scanned) < scanEvery {
		for name, f := range c.files {
			if f.image == nil {
				names = append(names, name)
			}
		}
		return c.refresh(names), nil
	}
	entries, err := os.ReadDir(c.dir.Path())
	if err != nil {
		c.looked = time.Time{}
		return nil, err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && strings.HasSuffix(e.Name(), ".tar") {
			names = append(names, e.Name())
		}
	}
	for name := range c.files {
		names = append(names, name) // which may be gone
	}
	slices.Sort(names)
	names = slices.Compact(names)
	c.scanned = now
	return c.refresh(names), nil
}

// refresh looks at files, and reads those that have changed.
func (c *dirCatalog) refresh(names []string) (skipped []error) {
	found := make([]*file, len(names))
	var group errgroup.Group
	group.SetLimit(readAtOnce)
	for i, name := range names {
		info, err := os.Lstat(filepath.Join(c.dir.Path(), name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			found[i] = &file{err: err, passing: true}
			continue
		}
		if err != nil {
			continue
		}
		before := c.files[name]
		if f := (&file{version: versionOf(info)}); before != nil && before.version == f.version && !before.passing {
			found[i] = before
		} else if found[i] = f; info.Mode().IsRegular() {
			group.Go(func() error { c.readFile(f, name); return nil })
		} else if !info.IsDir() {
			f.err = fmt.Errorf("%s: %w: it is no regular file, and links are not followed", filepath.Join(c.dir.Path(), name), tarball.ErrNotTarball)
		}
	}
	_ = group.Wait() // no function returns an error
	isNew := c.known.Load() == nil
	for i, name := range names {
		before, f := c.files[name], found[i]
		switch {
		case f == nil:
			delete(c.files, name)
		case f.err == nil:
			c.files[name] = f
		default:
			// One that is being written changes with each look: it is reported when it
			// comes, and when it has come to rest.
			if c.files[name] = f; f.passing && before != nil && before.err != nil && before.err.Error() == f.err.Error() {
				f.reported = before.reported
			}
			if !f.reported && (before == nil || before.err == nil || before.version == f.version) {
				f.reported = true
				skipped = append(skipped, f.err)
			}
		}
		if served(before) != served(f) {
			isNew = true
		}
	}
	if isNew {
		var all []image
		for _, f := range c.files {
			if f.image != nil {
				all = append(all, *f.image)
			}
		}
		c.known.Store(newListing(all))
	}
	return skipped
}

func served(f *file) *image {
	if f == nil {
		return nil
	}
	return f.image
}

// readFile fills in what a file is.
func (c *dirCatalog) readFile(f *file, name string) {
	mark := c.markVersion(name) // before it is read
	e, err := c.read(name)
	if err == nil {
		err = e.Err
	}
	if errors.Is(err, fs.ErrNotExist) {
		f.passing = true // it has just gone, which the next look sees
		return
	}
	if err != nil {
		f.err = err
		f.passing = !errors.Is(err, tarball.ErrNotTarball) && !errors.Is(err, cache.ErrInvalidName)
		return
	}
	i, err := newImage(name, e.Info)
	if err != nil {
		f.err = err
		return
	}
	i.run, i.written, i.version, i.mark = e.Run, e.Written, f.version, mark
	f.image = &i
}

// markVersion returns the version of the record of the newest run beside a tarball; zero
// if there is none.
func (c *dirCatalog) markVersion(name string) version {
	info, err := os.Lstat(filepath.Join(c.dir.Path(), "."+name+".mark"))
	if err != nil {
		return version{}
	}
	return versionOf(info)
}

func (c *dirCatalog) confirm(ctx context.Context, all []image) bool {
	var changed []string
	for _, i := range all {
		info, err := os.Lstat(filepath.Join(c.dir.Path(), i.file))
		if err != nil || versionOf(info) != i.version || c.markVersion(i.file) != i.mark {
			changed = append(changed, i.file)
		}
	}
	if len(changed) == 0 {
		return true
	}
	c.mu.Lock()
	for _, name := range changed {
		if f := c.files[name]; f != nil {
			f.version = version{} // to be read again
		}
	}
	skipped := c.refresh(changed)
	c.mu.Unlock()
	for _, err := range skipped {
		c.skipped(ctx, err)
	}
	return false
}

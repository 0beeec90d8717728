package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/internal/marks"
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
	read    func(context.Context, []string) ([]cache.Entry, error) // [cache.Dir.Entries]; tests replace it
	skipped func(context.Context, error)                           // is called with why a file is not served
	holder  holder
	known   atomic.Pointer[listing] // nil before the first look

	mu      sync.Mutex          // held by who looks
	files   map[string]*file    // what was found, by name
	marks   map[string][]string // the records beside each
	state   version             // of the directory, before that
	since   time.Time           // when it was first seen so
	scanned time.Time           // when all files were last looked at
	looked  time.Time           // when the last look began
}

const (
	// settles is how long a directory must be as it is until its time is believed: on
	// some file servers times are whole seconds, so two changes may have the same.
	settles = 2500 * time.Millisecond
	// scanEvery is for how long it is believed.
	scanEvery = time.Minute
)

// file is what a name in the directory is.
type file struct {
	version  version // before it was read
	mark     string  // the versions of its records, before that
	image    *image  // nil if it is not served
	err      error   // why not
	passing  bool    // that may pass without a change of the file
	reported bool    // err
}

// A version distinguishes files that have one name after the other. A repaired one has
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
	return &dirCatalog{dir: dir, read: dir.Entries, skipped: skipped, holder: holder{hold: hold}, files: map[string]*file{}}
}

func (c *dirCatalog) used(ctx context.Context, i image) { _ = c.dir.Touch(ctx, i.file) } // best effort

// open opens a tarball, or returns the one that is open still.
func (c *dirCatalog) open(ctx context.Context, i image) (*tarball.Tarball, func(), error) {
	return c.holder.acquire(i, func() (*tarball.Tarball, error) { return getImage(ctx, c.dir, i) })
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
		skipped, err = c.look(ctx)
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
func (c *dirCatalog) look(ctx context.Context) (skipped []error, err error) {
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
		return c.refresh(ctx, names), nil
	}
	entries, err := os.ReadDir(c.dir.Path())
	if err != nil {
		c.looked = time.Time{}
		return nil, err
	}
	c.marks = map[string][]string{}
	for _, e := range entries {
		switch tarball := marks.TarballOf(e.Name()); {
		case tarball != "":
			c.marks[tarball] = append(c.marks[tarball], e.Name())
		case !strings.HasPrefix(e.Name(), ".") && strings.HasSuffix(e.Name(), ".tar"):
			names = append(names, e.Name())
		}
	}
	for name := range c.files {
		names = append(names, name) // which may be gone
	}
	slices.Sort(names)
	names = slices.Compact(names)
	c.scanned = now
	return c.refresh(ctx, names), nil
}

// refresh looks at files, and reads those that have changed.
func (c *dirCatalog) refresh(ctx context.Context, names []string) (skipped []error) {
	found := make([]*file, len(names))
	changed := map[string]*file{}
	for i, name := range names {
		info, err := os.Lstat(filepath.Join(c.dir.Path(), name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		before := c.files[name]
		switch f := (&file{err: err, passing: err != nil}); {
		case err != nil:
			found[i] = f
		case c.isAsBefore(before, name, info):
			found[i] = before
		case info.Mode().IsRegular():
			f.version, f.mark = versionOf(info), c.markVersions(c.marks[name]) // before it is read
			found[i], changed[name] = f, f
		default:
			f.version, found[i] = versionOf(info), f
			if !info.IsDir() {
				f.err = fmt.Errorf("%s: %w: it is no regular file, and links are not followed", filepath.Join(c.dir.Path(), name), tarball.ErrNotTarball)
			}
		}
	}
	c.readFiles(ctx, changed)
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

// isAsBefore reports whether a file need not be read again.
func (c *dirCatalog) isAsBefore(before *file, name string, info fs.FileInfo) bool {
	return before != nil && !before.passing && before.version == versionOf(info) &&
		(before.image == nil || slices.Equal(before.image.marks, c.marks[name]))
}

// readFiles fills in what files are.
func (c *dirCatalog) readFiles(ctx context.Context, files map[string]*file) {
	if len(files) == 0 {
		return
	}
	// What is found is for all requests: it does not end with this one.
	entries, err := c.read(context.WithoutCancel(ctx), slices.Sorted(maps.Keys(files)))
	for _, f := range files {
		f.err, f.passing = err, true // one without an entry has just gone, which the next look sees
	}
	for _, e := range entries {
		f := files[e.Name]
		if f.err, f.passing = e.Err, false; e.Err != nil {
			f.passing = !errors.Is(e.Err, tarball.ErrNotTarball) && !errors.Is(e.Err, cache.ErrInvalidName)
			continue
		}
		i, err := newImage(e.Name, e.Info)
		if err != nil {
			f.err = err
			continue
		}
		i.run, i.written, i.version, i.mark, i.marks = e.Run, e.Written, f.version, f.mark, c.marks[e.Name]
		f.image = &i
	}
}

// markVersions returns a text that changes when one of the records does.
func (c *dirCatalog) markVersions(marks []string) string {
	var text strings.Builder
	for _, mark := range marks {
		if info, err := os.Lstat(filepath.Join(c.dir.Path(), mark)); err == nil {
			fmt.Fprintln(&text, mark, versionOf(info))
		}
	}
	return text.String()
}

func (c *dirCatalog) confirm(ctx context.Context, all []image) bool {
	var changed []string
	for _, i := range all {
		info, err := os.Lstat(filepath.Join(c.dir.Path(), i.file))
		if err != nil || versionOf(info) != i.version || c.markVersions(i.marks) != i.mark {
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
	skipped := c.refresh(ctx, changed)
	c.mu.Unlock()
	for _, err := range skipped {
		c.skipped(ctx, err)
	}
	return false
}

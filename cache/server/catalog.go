package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/distribution/reference"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
)

// image is the image of a tarball, and what it is served as.
type image struct {
	info       *tarball.Info
	file       string  // the tarball's name in the directory
	version    version // of the file
	host       string  // of its reference
	repository string  // without the host
	tag        string
}

// A version tells the files apart that have one name after the other. A repaired one has
// the time of the one before.
type version struct {
	written int64
	inode   uint64
}

// catalog knows the images that are served.
type catalog interface {
	// images returns all, the newest first. Fresh ones are not older than the call.
	images(ctx context.Context, fresh bool) ([]image, error)
	// held returns those that were pulled a moment ago, be they replaced or gone.
	held() []image
	// open opens the tarball of an image. The error is [cache.ErrReplaced] when
	// another image is in its place now. done must be called.
	open(ctx context.Context, i image) (t *tarball.Tarball, done func(), err error)
	// used records that an image was pulled.
	used(ctx context.Context, i image)
}

// called returns the images of a repository. ns is the registry that a client of a
// mirror means, "" if it does not say. If that registry has none,
// the name may still be one with a host.
func called(all []image, repository, ns string) []image {
	var meant, found []image
	for _, i := range all {
		if repository == i.repository && ns != "" && ns == i.host {
			meant = append(meant, i)
		}
		if repository == i.repository && (ns == "" || i.host == "") || repository == i.name() && i.name() != i.repository {
			found = append(found, i)
		}
	}
	if len(meant) > 0 {
		return meant
	}
	return found
}

// name is the repository's name for clients that do not use this as a mirror. A host with a
// port is left out: no repository may have a colon.
func (i image) name() string {
	if i.host == "" || strings.Contains(i.host, ":") {
		return i.repository
	}
	return i.host + "/" + i.repository
}

// newImage returns what the image of the tarball called name is served as.
func newImage(name string, info *tarball.Info) (image, error) {
	named, err := reference.ParseNormalizedNamed(info.Image.Reference())
	if err != nil {
		return image{}, err // cannot be: it was checked when the image was made
	}
	i := image{info: info, file: name, host: reference.Domain(named), repository: reference.Path(named), tag: "latest"}
	if tagged, ok := named.(reference.Tagged); ok {
		i.tag = tagged.Tag()
	}
	return i, nil
}

// single is the catalog of one open tarball, or of none.
type single struct {
	image
	tarball *tarball.Tarball
}

func (c single) images(context.Context, bool) ([]image, error) {
	if c.tarball == nil {
		return nil, nil
	}
	return []image{c.image}, nil
}

func (c single) held() []image { return nil }

func (c single) open(context.Context, image) (*tarball.Tarball, func(), error) {
	return c.tarball, func() {}, nil
}

func (c single) used(context.Context, image) {}

// dirCatalog is what a directory holds. Tarballs are read again when the directory
// has changed.
type dirCatalog struct {
	dir     *cache.Dir
	list    func(context.Context) ([]cache.Entry, error)      // [cache.Dir.List]; tests replace it
	skipped func(ctx context.Context, err error, args ...any) // is called with why a file is not served
	holder  holder

	mu    sync.Mutex
	known []image
	state string // of the directory when that was known
}

func newDirCatalog(dir *cache.Dir, hold time.Duration, skipped func(context.Context, error, ...any)) *dirCatalog {
	return &dirCatalog{dir: dir, list: dir.List, skipped: skipped, holder: holder{hold: hold}}
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

func (c *dirCatalog) images(ctx context.Context, fresh bool) ([]image, error) {
	known, skipped, err := c.read(ctx, fresh)
	for _, err := range skipped { // not under the lock: the function may take its time
		c.skipped(ctx, err)
	}
	return known, err
}

func (c *dirCatalog) read(ctx context.Context, fresh bool) (known []image, skipped []error, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !fresh && c.state != "" {
		return c.known, nil, nil
	}
	state, err := stateOf(c.dir.Path())
	if err != nil || state == c.state {
		return c.known, nil, err
	}
	entries, err := c.list(ctx)
	if err != nil {
		return nil, nil, err
	}
	// Of several that have the same reference, the one of the newest run; without
	// runs, the one that was written last.
	slices.SortStableFunc(entries, func(a, b cache.Entry) int {
		return cmp.Or(cmp.Compare(b.Run.ID, a.Run.ID), cmp.Compare(b.Run.Attempt, a.Run.Attempt), b.Written.Compare(a.Written))
	})
	c.known, c.state = nil, state
	for _, e := range entries {
		if e.Err != nil {
			skipped = append(skipped, e.Err)
			if !errors.Is(e.Err, tarball.ErrNotTarball) && !errors.Is(e.Err, cache.ErrInvalidName) {
				c.state = "?" // of no directory: the file may be well, and is tried again
			}
			continue
		}
		if i, err := newImage(e.Name, e.Info); err == nil {
			i.version = version{e.Written.UnixNano(), e.Inode}
			c.known = append(c.known, i)
		}
	}
	return c.known, skipped, nil
}

// stateOf returns a text that changes when a tarball comes, goes or is replaced, or
// its mark has another run. Times alone do not show that: on some file servers they are
// whole seconds.
func stateOf(path string) (string, error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return "", err
	}
	var state strings.Builder
	state.WriteString(".") // of an empty directory too
	for _, e := range entries {
		isMark := strings.HasPrefix(e.Name(), ".") && strings.HasSuffix(e.Name(), ".tar.mark")
		if !isMark && (strings.HasPrefix(e.Name(), ".") || !strings.HasSuffix(e.Name(), ".tar")) {
			continue
		}
		info, err := e.Info()
		if err != nil {
			continue // it has just gone
		}
		fmt.Fprintf(&state, "%q %d %d %s %v\n", e.Name(), info.Size(), info.ModTime().UnixNano(), info.Mode(), sys.Inode(info))
	}
	return state.String(), nil
}

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
	"syscall"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache"
)

// image is a tarball, and what its image is served as.
type image struct {
	tarball    *cache.Tarball
	host       string // of its reference
	repository string // without the host
	tag        string
}

// catalog knows the images that are served.
type catalog interface {
	// images returns all, the newest first. Fresh ones are not older than the call.
	images(ctx context.Context, fresh bool) ([]image, error)
}

// called returns the images of a repository. ns is the registry that a client of a
// mirror is meaning to speak to, "" if it does not say. If that registry has none,
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

// name is the repository's for those who do not have this as a mirror. A host with a
// port is left out: no repository may have a colon.
func (i image) name() string {
	if i.host == "" || strings.Contains(i.host, ":") {
		return i.repository
	}
	return i.host + "/" + i.repository
}

// has tells whether a digest is the manifest's.
func (i image) has(digest v1.Hash) bool { return i.tarball.Image.Digest() == digest }

// newImage returns what a tarball's image is served as.
func newImage(t *cache.Tarball) (image, error) {
	named, err := reference.ParseNormalizedNamed(t.Image.Reference())
	if err != nil {
		return image{}, err // cannot be: it was checked when the image was made
	}
	i := image{tarball: t, host: reference.Domain(named), repository: reference.Path(named), tag: "latest"}
	if tagged, ok := named.(reference.Tagged); ok {
		i.tag = tagged.Tag()
	}
	return i, nil
}

// oneImage is the catalog of one.
type oneImage struct{ image }

func (c oneImage) images(context.Context, bool) ([]image, error) { return []image{c.image}, nil }

// dirCatalog is what a directory holds. Tarballs are read again when the directory
// has changed.
type dirCatalog struct {
	path    string
	list    func(context.Context) ([]cache.Entry, error) // [cache.Dir.List]
	skipped func(error)                                  // is told why a file is not served

	mu    sync.Mutex
	known []image
	state string // of the directory when that was known
}

func (c *dirCatalog) images(ctx context.Context, fresh bool) ([]image, error) {
	known, skipped, err := c.read(ctx, fresh)
	for _, err := range skipped { // not under the lock: who is told may take its time
		c.skipped(err)
	}
	return known, err
}

func (c *dirCatalog) read(ctx context.Context, fresh bool) (known []image, skipped []error, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !fresh && c.state != "" {
		return c.known, nil, nil
	}
	state, err := stateOf(c.path)
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
			if !errors.Is(e.Err, cache.ErrNotTarball) && !errors.Is(e.Err, cache.ErrName) {
				c.state = "?" // of no directory: the file may be well, and is tried again
			}
			continue
		}
		if i, err := newImage(e.Tarball); err == nil {
			c.known = append(c.known, i)
		}
	}
	return c.known, skipped, nil
}

// stateOf returns a text that changes when a tarball comes, goes or is replaced, or
// its mark has another run. Times alone do not tell: on some file servers they are
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
		var inode any
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			inode = stat.Ino
		}
		fmt.Fprintf(&state, "%q %d %d %s %v\n", e.Name(), info.Size(), info.ModTime().UnixNano(), info.Mode(), inode)
	}
	return state.String(), nil
}

// Package stocked finds what docker-cache has stocked.
package stocked

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/imagespec"
	"github.com/dockercache/dockercache/tagging"
)

// ErrMissing is wrapped when there is no tarball of an image.
var ErrMissing = errors.New("no tarball")

// A Store is where tarballs are.
type Store interface {
	Path() string
	Get(ctx context.Context, name string) (*tarball.Tarball, error)
}

// Find opens the tarball of an image, by the image's names. A digest in the reference
// may be that of the manifest or of an index that it was found through. That of another
// image, such as one of an older recipe, is no help: a job asks the engine for this one by
// its name. With such an error the tarball is returned all the same.
func Find(ctx context.Context, dir Store, image string, names tagging.Names) (*tarball.Tarball, error) {
	t, err := dir.Get(ctx, names.Tarball)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s is not in %s", ErrMissing, names.Tarball, dir.Path())
	}
	if err != nil {
		return nil, err
	}
	if have := t.Image.Reference(); have != names.RepoTag {
		return t, fmt.Errorf("%w: %s holds %s", ErrMissing, names.Tarball, have)
	}
	if !isPinned(image, t) {
		return t, fmt.Errorf("%w: %s holds the manifest %s%s", ErrMissing, names.Tarball, t.Image.Digest(), through(t))
	}
	return t, nil
}

// isPinned reports whether the digest in a reference, if it has one, is of what a tarball
// holds.
func isPinned(image string, t *tarball.Tarball) bool {
	_, pinned, ok := strings.Cut(image, "@")
	digest, err := v1.NewHash(pinned)
	return !ok || err == nil && t.Image.Is(digest)
}

// through describes how the image of a tarball was found.
func through(t *tarball.Tarball) string {
	indexes := t.Image.Indexes()
	if len(indexes) == 0 {
		return ", and no index: if that is what the digest is of, docker-cache adds it"
	}
	text := ", found through the index"
	for _, raw := range indexes {
		text += " " + imagespec.DigestOf(raw).String()
	}
	return text
}

// Package stocked finds what docker-cache has stocked.
package stocked

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/tagging"
)

// ErrMissing is wrapped when there is no tarball of an image.
var ErrMissing = errors.New("no tarball")

// Find opens the tarball of an image, by the image's names. That of another image, such
// as one of an older recipe, is no help: a job asks the engine for this one by its name.
// With such an error the tarball is returned all the same.
func Find(ctx context.Context, dir *cache.Dir, image string, names tagging.Names) (*tarball.Tarball, error) {
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
	if _, digest, ok := strings.Cut(image, "@"); ok && digest != t.Image.Digest().String() {
		return t, fmt.Errorf("%w: %s holds the manifest %s", ErrMissing, names.Tarball, t.Image.Digest())
	}
	return t, nil
}

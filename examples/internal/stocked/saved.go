package stocked

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/tagging"
)

// FindSaved opens what docker save has written under a tarball's name, as the workflow that
// docker-cache replaces did, for when [Find] returns [tarball.ErrNotTarball]. The error wraps
// [ErrMissing] when the archive has another image, or not known to be the one of the digest
// that the reference has.
func FindSaved(dir *cache.Dir, image string, names tagging.Names) (*tarball.Tarball, error) {
	t, err := tarball.OpenSaved(filepath.Join(dir.Path(), names.Tarball), names.RepoTag)
	if errors.Is(err, tarball.ErrOtherImage) {
		return nil, fmt.Errorf("%w: %w", ErrMissing, err)
	}
	if err != nil {
		return nil, err
	}
	if !isPinned(image, t) {
		_ = t.Close()
		return nil, fmt.Errorf("%w: %s was written by docker save, which does not keep digests", ErrMissing, names.Tarball)
	}
	return t, nil
}

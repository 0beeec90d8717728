package tarball

import (
	"bytes"
	"fmt"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/internal/imagespec"
)

// maxIndexes is how many indexes an image may be found through: each of them is held in
// memory. Engines follow one within another, and no image is known that has more.
const maxIndexes = 4

// addIndexes checks the indexes that the image was found through, outermost first, and
// keeps them.
//
// None of them can have the name of another blob of the image: its bytes would contain
// their own digest.
func (i *Image) addIndexes(indexes [][]byte) error {
	if len(indexes) > maxIndexes {
		return fmt.Errorf("%w: manifest %s: it was found through %d indexes, more than %d", ErrInvalidImage, i.digest, len(indexes), maxIndexes)
	}
	for _, raw := range indexes {
		i.indexes = append(i.indexes, bytes.Clone(raw))
		i.indexDigests = append(i.indexDigests, imagespec.DigestOf(raw))
	}
	for n, raw := range i.indexes {
		next := i.digest
		if n+1 < len(i.indexes) {
			next = i.indexDigests[n+1]
		}
		if err := checkIndex(raw, next); err != nil {
			return fmt.Errorf("%w: index %s: %w", ErrInvalidImage, i.indexDigests[n], err)
		}
	}
	return nil
}

// checkIndex checks that raw is an index that lists a digest. Other entries of it do not
// matter: they are for clients that pull them.
func checkIndex(raw []byte, listed v1.Hash) error {
	if len(raw) > maxManifest {
		return fmt.Errorf("%d bytes, more than %d", len(raw), maxManifest)
	}
	entries, err := imagespec.Index(raw)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Digest == listed {
			return nil
		}
	}
	return fmt.Errorf("it does not list %s", listed)
}

// Indexes returns copies of the indexes that the image was found through, as served:
// outermost first, each lists the next one, the last one the manifest. There is none
// when the reference named the manifest itself, and in tarballs of versions that did
// not keep them.
func (i *Image) Indexes() [][]byte {
	var indexes [][]byte
	for _, raw := range i.indexes {
		indexes = append(indexes, bytes.Clone(raw))
	}
	return indexes
}

// Is reports whether digest is that of the manifest, or of one of [Image.Indexes]: a
// reference that is pinned to it means this image.
func (i *Image) Is(digest v1.Hash) bool {
	return digest == i.digest || slices.Contains(i.indexDigests, digest)
}

package tarball

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
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
		i.indexDigests = append(i.indexDigests, sha256Of(raw))
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

// checkIndex checks that raw is an index that lists a digest. No more of it is read: it
// is kept as it is, and what it says of others is for those who pull them.
func checkIndex(raw []byte, listed v1.Hash) error {
	if len(raw) > maxManifest {
		return fmt.Errorf("%d bytes, more than %d", len(raw), maxManifest)
	}
	var index struct {
		MediaType types.MediaType `json:"mediaType"`
		Manifests []struct {
			Digest any `json:"digest"`
		} `json:"manifests"`
		Config, Layers json.RawMessage // which only a manifest has
	}
	if err := json.Unmarshal(raw, &index); err != nil {
		return fmt.Errorf("not JSON: %w", err)
	}
	if t := index.MediaType; t != "" && !t.IsIndex() { // only OCI lets it be left out
		return fmt.Errorf("media type %q is not an index's", t)
	}
	if index.Config != nil || index.Layers != nil {
		return fmt.Errorf("it has a config or layers too: engines refuse what is an index and a manifest")
	}
	for _, m := range index.Manifests {
		if m.Digest == listed.String() {
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

package registry

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// An Image is an image for one platform, as a registry served it. Its manifest
// and config are immutable and proven; its layers are still remote.
type Image struct {
	source       string
	manifest     manifest
	config       []byte
	sizes        map[v1.Hash]int64 // of every blob that the manifest declares
	repositories []*repository     // where blobs are read from, in order

	mu         sync.Mutex
	distrusted map[v1.Hash]int // how many sources, from the first on, gave wrong bytes
}

// Distrust says that the bytes of a blob were wrong: from now on it is read from
// the next source, and from the first again after the last.
func (i *Image) Distrust(digest v1.Hash) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.distrusted == nil {
		i.distrusted = map[v1.Hash]int{}
	}
	i.distrusted[digest]++
}

// sources returns the repositories in the order in which a blob is asked of them.
func (i *Image) sources(digest v1.Hash) []*repository {
	i.mu.Lock()
	defer i.mu.Unlock()
	first := i.distrusted[digest] % len(i.repositories)
	return slices.Concat(i.repositories[first:], i.repositories[:first])
}

// Source returns the complete reference that the image was resolved at.
func (i *Image) Source() string { return i.source }

// Digest returns the digest of the manifest.
func (i *Image) Digest() v1.Hash { return i.manifest.digest }

// MediaType returns the media type of the manifest.
func (i *Image) MediaType() types.MediaType { return i.manifest.mediaType }

// Manifest returns a copy of the manifest as served.
func (i *Image) Manifest() []byte { return slices.Clone(i.manifest.raw) }

// Config returns a copy of the config as served.
func (i *Image) Config() []byte { return slices.Clone(i.config) }

// ReadRange returns the length bytes from offset on of a blob that the manifest
// declares. The bytes are not verified. The reader must be closed; it fails
// when the connection does, when nothing comes for [Options.StallTimeout], and
// when ctx ends.
//
// The repository that the image was resolved in is asked first, then the ones
// after it that [Client.Resolve] was given; each once. A reader that fails later
// is not replaced: ask again for what is missing. [Error.Temporary] and
// [Error.RetryAfter] tell whether and when that makes sense. The error joins one [*Error] for each;
// a blob whose whole size differs from the declared one wraps [ErrSize].
func (i *Image) ReadRange(ctx context.Context, digest v1.Hash, offset, length int64) (io.ReadCloser, error) {
	size, ok := i.sizes[digest]
	if !ok {
		return nil, fmt.Errorf("blob %s is not part of %s", digest, i.source)
	}
	if offset < 0 || length < 1 || length > size-offset {
		return nil, fmt.Errorf("blob %s has %d bytes: no range of %d at %d", digest, size, length, offset)
	}
	ctx = withoutRetries(ctx)
	var failed sourceErrors
	for _, r := range i.sources(digest) {
		body, err := r.readRange(ctx, digest, size, offset, length)
		if err == nil {
			return body, nil
		}
		err = newError(ctx, "read blob "+digest.String()+" of", r.name, err)
		if ctx.Err() != nil {
			return nil, err
		}
		r.client.options.Logger.Warn("source does not give the blob", "source", r.name, "error", err)
		failed = append(failed, err)
	}
	return nil, failed
}

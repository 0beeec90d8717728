package registry

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"slices"
	"strings"
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

	confirmed map[*repository]bool // those that have the manifest, for Options.AllSources

	mu         sync.Mutex
	distrusted map[v1.Hash]int      // how many sources, from the first on, gave wrong bytes
	origins    map[v1.Hash][]string // who gave bytes of a blob, since it was last distrusted
}

// Distrust says that the bytes of a blob were wrong: from now on it is read from
// the next source alone, and from the first again after the last.
func (i *Image) Distrust(digest v1.Hash) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.log().Warn("wrong bytes", "blob", digest.String(), "from", strings.Join(i.origins[digest], ", "))
	if i.distrusted == nil {
		i.distrusted = map[v1.Hash]int{}
	}
	i.distrusted[digest]++
	delete(i.origins, digest)
}

// Origins returns the repositories that gave bytes of a blob, since it was last
// distrusted.
func (i *Image) Origins(digest v1.Hash) []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.origins[digest])
}

func (i *Image) gave(r *repository, digest v1.Hash) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.origins == nil {
		i.origins = map[v1.Hash][]string{}
	}
	if !slices.Contains(i.origins[digest], r.name) {
		i.origins[digest] = append(i.origins[digest], r.name)
	}
}

// sources returns the repositories in the order in which a blob is asked of them.
func (i *Image) sources(digest v1.Hash) []*repository {
	i.mu.Lock()
	first := i.distrusted[digest]
	i.mu.Unlock()
	if first == 0 && i.confirmed != nil {
		return i.leastBusy()
	}
	first %= len(i.repositories)
	return slices.Concat(i.repositories[first:], i.repositories[:first])
}

// leastBusy returns the repositories that are known to have the image, the one
// with the fewest ranges under way first, and then the others in order.
func (i *Image) leastBusy() []*repository {
	busy := map[*repository]int64{}
	for _, r := range i.repositories {
		busy[r] = math.MaxInt64
		if i.confirmed[r] {
			busy[r] = r.reading.Load()
		}
	}
	order := slices.Clone(i.repositories)
	slices.SortStableFunc(order, func(a, b *repository) int { return cmp.Compare(busy[a], busy[b]) })
	return order
}

// confirm asks a further source whether it has the image, by digest.
func (i *Image) confirm(ctx context.Context, r *repository) {
	if i.confirmed == nil {
		i.confirmed = map[*repository]bool{i.repositories[0]: true}
	}
	err := r.health.asideFor()
	if err == nil {
		_, err = r.manifest(ctx, i.Digest().String())
	}
	if err != nil {
		i.log().Info("not read from at the same time", "source", r.name, "error", newError(ctx, "look for "+i.Digest().String()+" in", r.name, err))
		return
	}
	i.confirmed[r] = true
}

func (i *Image) log() *slog.Logger { return i.repositories[0].client.options.Logger }

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
// after it that [Client.Resolve] was given; each once. With [Options.AllSources]
// the one with the fewest ranges under way comes first, and one that is set
// aside comes last. A reader that fails later
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
	var aside []*repository
	ask := func(r *repository) (io.ReadCloser, error) {
		body, err := r.readRange(ctx, digest, size, offset, length)
		if err == nil {
			i.gave(r, digest)
			return body, nil
		}
		err = newError(ctx, "read blob "+digest.String()+" of", r.name, err)
		if ctx.Err() != nil {
			r.settle(errNeutral)
			return nil, err
		}
		r.settle(err)
		failed = append(failed, err)
		i.log().Info("source does not give the range", "source", r.name, "error", err)
		return nil, nil
	}
	for _, r := range i.sources(digest) {
		if !r.health.allow() {
			aside = append(aside, r)
			continue
		}
		if body, err := ask(r); body != nil || err != nil {
			return body, err
		}
	}
	for _, r := range aside {
		if body, err := ask(r); body != nil || err != nil {
			return body, err
		}
	}
	return nil, failed
}

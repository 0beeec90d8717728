package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// An Image is an image for one platform, as a registry served it. Its manifest
// and config are immutable and verified; its layers are still remote. It is safe
// for concurrent use.
type Image struct {
	source       string
	manifest     manifest
	indexes      [][]byte // outermost first
	config       []byte
	sizes        map[v1.Hash]int64 // of every blob that the manifest declares
	repositories []*repository     // where blobs are read from, in order

	confirmed map[*repository]bool // those that have the manifest, for Options.AllSources

	mu         sync.Mutex
	times      int                             // for an order in distrusted
	distrusted map[v1.Hash]map[*repository]int // which sources sent wrong bytes, and when last
	origins    map[v1.Hash][]string            // which sent bytes of a blob, since it was last distrusted
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

// Indexes returns copies of the indexes through which the manifest was found, as
// [Resolved.Indexes].
func (i *Image) Indexes() [][]byte { return copies(i.indexes) }

func copies(all [][]byte) [][]byte {
	out := slices.Clone(all) // nil stays nil
	for n, one := range out {
		out[n] = slices.Clone(one)
	}
	return out
}

// ReadRange returns length bytes from offset on of a blob that the manifest
// declares. The bytes are not verified. The reader must be closed; it fails when
// the connection does, when no first byte comes for [Options.FirstByteTimeout] or no
// other for [Options.StallTimeout], and when ctx ends.
//
// The repository that the image was resolved in is asked first, then those of the
// references after it, then those before it that were unreachable; each once. One that
// is set aside comes last. With [Options.AllSources] the one with the fewest ranges in
// flight comes first. [Image.EachOrigin] is for a caller who measures them. A reader
// that fails later is not replaced: ask again for what is missing. [Error.Temporary]
// and [Error.RetryAfter] report whether and when that makes sense. A host that has
// asked for a delay is not asked before it has passed.
//
// The whole blob is asked for without a range. A range that a registry ignores or
// refuses, though it serves the whole, is [ErrNoRanges].
//
// The error joins one [*Error] for each repository; a blob whose whole size
// differs from the declared one wraps [ErrSize].
func (i *Image) ReadRange(ctx context.Context, digest v1.Hash, offset, length int64) (io.ReadCloser, error) {
	size, err := i.check(digest, offset, length)
	if err != nil {
		return nil, err
	}
	var failed sourceErrors
	var tried []*repository
	for r := i.pick(digest, tried); r != nil; r = i.pick(digest, tried) {
		body, err := i.readFrom(ctx, r, digest, size, offset, length)
		if err == nil || ctx.Err() != nil {
			return body, err
		}
		failed, tried = append(failed, err), append(tried, r)
	}
	return nil, failed
}

// readFrom asks one source once, which the caller has counted in its reading.
func (i *Image) readFrom(ctx context.Context, r *repository, digest v1.Hash, size, offset, length int64) (io.ReadCloser, error) {
	body, err := r.readRange(forRange(ctx), digest, size, offset, length)
	if err == nil {
		i.addOrigin(digest, r)
		return body, nil
	}
	r.reading.Add(-1)
	err = r.newError(ctx, readOp(digest), r.name, err)
	if ctx.Err() != nil {
		r.settle(ctx, errNeutral)
		return nil, err
	}
	r.settle(ctx, err)
	r.log.InfoContext(ctx, "source does not serve the range", "source", r.name, "error", err)
	return nil, err
}

// EachOrigin calls yield with each repository that a blob is read from, in the order of
// ReadRange, until yield returns false: name is its complete name, host the HOST or
// HOST:PORT that is asked. One whose bytes of the blob were wrong comes after those whose
// bytes were not, see Distrust, and one that is not to be asked now comes last.
//
// Parallel reports whether the repository is known to have the image, see
// [Options.AllSources], so that it may be read from at the same time as those before it;
// after wrong bytes none is. Wait is how long it is not to be asked: since it is set aside,
// or since its host asked for a delay. It is less than 0 if the host did, and the delay ended
// so long ago, half a minute at most; 0 otherwise.
//
// Read is ReadRange of this repository alone, which is asked once. It may be called at any
// time, also within wait, by several goroutines, and for every blob of the image.
func (i *Image) EachOrigin(digest v1.Hash, yield func(name, host string, parallel bool, wait time.Duration, read func(ctx context.Context, digest v1.Hash, offset, length int64) (io.ReadCloser, error)) bool) {
	if i == nil {
		return
	}
	i.mu.Lock()
	order := i.inOrder(digest)
	confirmed := i.confirmed
	if len(i.distrusted[digest]) > 0 {
		confirmed = nil
	}
	i.mu.Unlock()
	var now, later []*repository
	waits := map[*repository]time.Duration{}
	for _, r := range order {
		if waits[r] = r.wait(); waits[r] == 0 {
			now = append(now, r)
		} else {
			later = append(later, r)
		}
	}
	for _, r := range append(now, later...) {
		read := func(ctx context.Context, digest v1.Hash, offset, length int64) (io.ReadCloser, error) {
			size, err := i.check(digest, offset, length)
			if err != nil {
				return nil, err
			}
			r.health.allow() // asked though it is set aside, it finds out whether it is back
			r.reading.Add(1)
			return i.readFrom(ctx, r, digest, size, offset, length)
		}
		wait := waits[r]
		if wait == 0 {
			wait = -r.gates.sinceRefusal(r.origin.host)
		}
		if !yield(r.name, r.origin.host, confirmed[r], wait, read) {
			return
		}
	}
}

// check returns the size of a blob that has this range.
func (i *Image) check(digest v1.Hash, offset, length int64) (size int64, err error) {
	if i == nil || len(i.repositories) == 0 {
		return 0, errNotResolved
	}
	op := readOp(digest)
	size, ok := i.sizes[digest]
	if !ok {
		return 0, &Error{Op: op, Source: i.source, Kind: ErrNotFound, Err: errors.New("it is not part of the image")}
	}
	if offset < 0 || length < 1 || length > size-offset {
		return 0, &Error{Op: op, Source: i.source, Kind: ErrSize, Err: fmt.Errorf("it has %d bytes: no range of %d at %d", size, length, offset)}
	}
	return size, nil
}

// pick returns the source to ask next for a blob, and counts that it reads; nil
// when all were tried. One that is set aside comes after the others.
func (i *Image) pick(digest v1.Hash, tried []*repository) *repository {
	i.mu.Lock()
	defer i.mu.Unlock()
	order := i.order(digest)
	order = slices.DeleteFunc(order, func(r *repository) bool { return slices.Contains(tried, r) })
	if len(order) == 0 {
		return nil
	}
	next := order[0] // when all are set aside
	if allowed := slices.IndexFunc(order, func(r *repository) bool { return r.health.allow() }); allowed >= 0 {
		next = order[allowed]
	}
	next.reading.Add(1)
	return next
}

// inOrder returns the sources in the order in which a blob is asked of them: that of the
// references, but those that sent wrong bytes of it come last, the latest at the end.
func (i *Image) inOrder(digest v1.Hash) []*repository {
	order := slices.Clone(i.repositories)
	wrong := i.distrusted[digest]
	slices.SortStableFunc(order, func(a, b *repository) int { return cmp.Compare(wrong[a], wrong[b]) })
	return order
}

// order is inOrder for a caller who does not measure the sources: those that are known
// to have the image come first, the least busy one before the others.
func (i *Image) order(digest v1.Hash) []*repository {
	order := i.inOrder(digest)
	if i.confirmed == nil || len(i.distrusted[digest]) > 0 {
		return order
	}
	busy := map[*repository]int64{}
	for _, r := range order {
		busy[r] = math.MaxInt64
		if i.confirmed[r] {
			busy[r] = r.reading.Load()
		}
	}
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
		r.resolved(ctx, err)
	}
	if err != nil {
		r.log.InfoContext(ctx, "not read from at the same time", "source", r.name, "error", r.newError(ctx, "look for "+i.Digest().String()+" in", r.name, err))
		return
	}
	i.confirmed[r] = true
}

// Distrust records that the bytes of a blob were wrong. From now on it is read from one
// source at a time, and from those that sent bytes of it since the last call after the
// others: of several, the first in the order comes last, for the last reference is the
// image's own registry. If none did, it is the source that would be asked first.
func (i *Image) Distrust(digest v1.Hash) {
	if i == nil || len(i.repositories) == 0 {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.repositories[0].log.Warn("wrong bytes", "blob", digest.String(), "from", strings.Join(i.origins[digest], ", "))
	order := i.inOrder(digest)
	wrong := slices.DeleteFunc(slices.Clone(order), func(r *repository) bool { return !slices.Contains(i.origins[digest], r.name) })
	if len(wrong) == 0 {
		wrong = order[:1]
	}
	if i.distrusted == nil {
		i.distrusted = map[v1.Hash]map[*repository]int{}
	}
	if i.distrusted[digest] == nil {
		i.distrusted[digest] = map[*repository]int{}
	}
	for _, r := range slices.Backward(wrong) {
		i.times++
		i.distrusted[digest][r] = i.times
	}
	delete(i.origins, digest)
}

// Origins returns the repositories that sent bytes of a blob, since it was last
// distrusted.
func (i *Image) Origins(digest v1.Hash) []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.origins[digest])
}

func (i *Image) addOrigin(digest v1.Hash, r *repository) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.origins == nil {
		i.origins = map[v1.Hash][]string{}
	}
	if !slices.Contains(i.origins[digest], r.name) {
		i.origins[digest] = append(i.origins[digest], r.name)
	}
}

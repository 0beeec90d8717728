package cache

import (
	"context"
	"errors"
	"io"
	"os"
	"sync/atomic"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/cache/tarball"
)

// remote is an image in a registry of which the digest is known. It counts what it is
// asked for.
type remote struct {
	digest      v1.Hash
	source      string
	img         *tarball.Image // what Content gives
	moved       string         // where Content finds it, if that is elsewhere
	layers      tarball.Source
	contentErr  error
	asked, read atomic.Int64
}

var _ Remote = (*remote)(nil)

func remoteOf(img *tarball.Image, src tarball.Source) *remote {
	return &remote{digest: img.Digest(), source: "mirror/x:t", img: img, layers: src}
}

func (r *remote) Digest() v1.Hash { return r.digest }
func (r *remote) Source() string  { return r.source }

func (r *remote) Content(context.Context) (manifest, config []byte, err error) {
	r.asked.Add(1)
	if r.contentErr != nil {
		return nil, nil, r.contentErr
	}
	if r.moved != "" {
		r.digest, r.source = r.img.Digest(), r.moved
	}
	return r.img.Manifest(), r.img.Config(), nil
}

func (r *remote) ReadRange(ctx context.Context, d v1.Hash, offset, length int64) (io.ReadCloser, error) {
	r.read.Add(1)
	return r.layers.ReadRange(ctx, d, offset, length)
}

// requireNotAsked says that a stock cost nothing but what it took to resolve.
func (r *remote) requireNotAsked(t testing.TB) {
	t.Helper()
	require.Zero(t, r.asked.Load(), "manifest and config")
	require.Zero(t, r.read.Load(), "layers")
}

func TestStock(t *testing.T) {
	src := cachetest.Blobs{}
	img := testImage(t, src.Add(cachetest.Noise(1, 5000)))
	dir := openTestDir(t)
	first := remoteOf(img, src)
	result, err := dir.Stock(t.Context(), "name_main.tar", cachetest.Ref, first, nil)
	require.NoError(t, err)
	assert.Equal(t, Stocked, result.Outcome)
	assert.EqualValues(t, 5000, result.Downloaded)
	assert.EqualValues(t, 1, first.asked.Load())
	stored := requireStocked(t, dir, "name_main.tar")
	assert.Equal(t, img, stored.Image)
	assert.Equal(t, tarball.Provenance{Source: "mirror/x:t"}, stored.Provenance, "the source is filled in")

	// What is there costs nothing, whatever the branch and the mirror.
	again := remoteOf(img, none)
	again.source = "elsewhere/x:t"
	result, err = dir.Stock(t.Context(), "name_main.tar", cachetest.Ref, again, &PutOptions{Provenance: tarball.Provenance{Branch: "other"}})
	require.NoError(t, err)
	assert.Equal(t, &Result{Outcome: Unchanged, Digest: img.Digest(), Path: result.Path, Total: stored.Layout.Size()}, result)
	again.requireNotAsked(t)
	_, used := readRecord(dir.Path(), "name_main.tar")
	assert.False(t, used.IsZero(), "it was used")

	// A source that the caller names stays.
	named := tarball.Provenance{Source: "named/x:t", Branch: "main"}
	_, err = dir.Stock(t.Context(), "named_main.tar", cachetest.Ref, remoteOf(img, src), &PutOptions{Provenance: named})
	require.NoError(t, err)
	assert.Equal(t, named, requireStocked(t, dir, "named_main.tar").Provenance)
}

// The name that an engine gives the image is part of what is there.
func TestStockOfAnotherReference(t *testing.T) {
	dir, img, src, _ := stocked(t)
	r := remoteOf(img, src)
	result, err := dir.Stock(t.Context(), "name_main.tar", "ghcr.io/pytorch/ci-image:name-2f5e", r, &PutOptions{Replace: true})
	require.NoError(t, err)
	assert.Equal(t, Stocked, result.Outcome)
	assert.EqualValues(t, 1, r.asked.Load())
	assert.Equal(t, "ghcr.io/pytorch/ci-image:name-2f5e", requireStocked(t, dir, "name_main.tar").Image.Reference())

	// A short name is completed before it is compared.
	_, err = dir.Stock(t.Context(), "name_main.tar", "debian:12", remoteOf(img, src), &PutOptions{Replace: true})
	require.NoError(t, err)
	r = remoteOf(img, none)
	result, err = dir.Stock(t.Context(), "name_main.tar", "docker.io/library/debian:12", r, nil)
	require.NoError(t, err)
	assert.Equal(t, Unchanged, result.Outcome)
	r.requireNotAsked(t)
}

func TestStockSuperseded(t *testing.T) {
	dir, img, src, _ := stocked(t)
	_, err := dir.Put(t.Context(), "name_main.tar", img, none, &PutOptions{Provenance: tarball.Provenance{Run: tarball.Run{ID: 7}}})
	require.NoError(t, err)
	other := testImage(t, src.Add(cachetest.Noise(9, 100)))
	older := &PutOptions{Provenance: tarball.Provenance{Run: tarball.Run{ID: 6}}}
	r := remoteOf(other, none)
	result, err := dir.Stock(t.Context(), "name_main.tar", cachetest.Ref, r, older)
	require.NoError(t, err)
	assert.Equal(t, Superseded, result.Outcome, "run 7 has found it unchanged")
	r.requireNotAsked(t)

	older.Force = true
	result, err = dir.Stock(t.Context(), "name_main.tar", cachetest.Ref, remoteOf(other, src), older)
	require.NoError(t, err)
	assert.Equal(t, Stocked, result.Outcome)
}

func TestStockVerify(t *testing.T) {
	dir, img, src, path := stocked(t)
	r := remoteOf(img, none)
	result, err := dir.Stock(t.Context(), "name_main.tar", cachetest.Ref, r, &PutOptions{Verify: true})
	require.NoError(t, err)
	assert.Equal(t, Unchanged, result.Outcome)
	r.requireNotAsked(t)

	damage(t, path, 1)
	r = remoteOf(img, none)
	result, err = dir.Stock(t.Context(), "name_main.tar", cachetest.Ref, r, nil)
	require.NoError(t, err)
	assert.Equal(t, Unchanged, result.Outcome, "its beginning is right")
	r.requireNotAsked(t)
	for _, o := range []*PutOptions{{Verify: true}, {Rewrite: true}} {
		r = remoteOf(img, src)
		result, err = dir.Stock(t.Context(), "name_main.tar", cachetest.Ref, r, o)
		require.NoError(t, err)
		assert.Equal(t, Stocked, result.Outcome)
		assert.EqualValues(t, 1, r.asked.Load())
		requireStocked(t, dir, "name_main.tar")
	}
}

// The manifest may be another one than the digest said: of the next source, or of what
// was pushed meanwhile.
func TestStockOfAnotherDigest(t *testing.T) {
	src := cachetest.Blobs{}
	gone, found := testImage(t, src.Add(cachetest.Noise(1, 100))), testImage(t, src.Add(cachetest.Noise(2, 200)))
	for name, there := range map[string]Outcome{"new": Stocked, "there already": Unchanged} {
		t.Run(name, func(t *testing.T) {
			dir := openTestDir(t)
			if there == Unchanged {
				putAs(t, dir, "name_main.tar", found, src, tarball.Provenance{})
			}
			r := remoteOf(found, src)
			r.digest, r.moved = gone.Digest(), "fallback/x:t"
			result, err := dir.Stock(t.Context(), "name_main.tar", cachetest.Ref, r, nil)
			require.NoError(t, err)
			assert.Equal(t, there, result.Outcome)
			stored := requireStocked(t, dir, "name_main.tar")
			assert.Equal(t, found.Digest(), stored.Image.Digest())
			if there == Stocked {
				assert.Equal(t, "fallback/x:t", stored.Provenance.Source)
			} else {
				assert.Zero(t, r.read.Load())
			}
		})
	}
}

func TestStockFails(t *testing.T) {
	dir, img, src, path := stocked(t)
	before := content(t, path)
	other := testImage(t, src.Add(cachetest.Noise(9, 100)))

	gone := errors.New("gone")
	r := remoteOf(other, none)
	r.contentErr = gone
	result, err := dir.Stock(t.Context(), "name_main.tar", cachetest.Ref, r, nil)
	require.ErrorIs(t, err, gone)
	assert.Equal(t, other.Digest(), result.Digest)
	assert.Equal(t, Result{Digest: other.Digest(), Replaced: result.Replaced, Path: path}, *result)

	result, err = dir.Stock(t.Context(), "name_main.tar", cachetest.Ref, nil, nil)
	require.ErrorContains(t, err, "no image was given")
	assert.NotNil(t, result)
	r = remoteOf(other, none)
	result, err = dir.Stock(t.Context(), "../x.tar", cachetest.Ref, r, nil)
	require.ErrorIs(t, err, ErrInvalidName)
	assert.NotNil(t, result)
	_, err = dir.Stock(t.Context(), "x.tar", "a b", r, nil)
	require.ErrorIs(t, err, tarball.ErrInvalidImage)
	r.requireNotAsked(t)
	_, err = dir.Stock(t.Context(), "x.tar", "debian", r, nil)
	require.ErrorIs(t, err, tarball.ErrInvalidImage)
	require.ErrorContains(t, err, "has no tag")
	require.ErrorContains(t, err, "mirror/x:t", "where it is from")

	assert.True(t, before == content(t, path), "the same bytes")
	assert.Equal(t, []string{"name_main.tar"}, names(t, dir.Path()))
	require.NoError(t, os.Remove(path))
	_, err = dir.Stock(t.Context(), "name_main.tar", cachetest.Ref, remoteOf(img, src), nil)
	require.NoError(t, err)
}

// Of many that stock one name at the same time one does the work.
func TestStockConcurrently(t *testing.T) {
	src := &counting{Blobs: cachetest.Blobs{}}
	img := testImage(t, src.Add(cachetest.Noise(1, 500_000)))
	path := t.TempDir()
	shared := remoteOf(img, src)
	var group errgroup.Group
	var outcomes [2]atomic.Int64
	for range 8 {
		group.Go(func() error {
			dir, err := Open(path, nil)
			if err != nil {
				return err
			}
			result, err := dir.Stock(t.Context(), "name_main.tar", cachetest.Ref, shared, nil)
			switch result.Outcome {
			case Stocked:
				outcomes[0].Add(1)
			case Unchanged:
				outcomes[1].Add(1)
			}
			return err
		})
	}
	require.NoError(t, group.Wait())
	assert.EqualValues(t, 1, outcomes[0].Load())
	assert.EqualValues(t, 7, outcomes[1].Load())
	assert.Equal(t, img.Layers()[0].Size, src.asked[img.Layers()[0].Digest])
	requireWhole(t, path+"/name_main.tar")
}

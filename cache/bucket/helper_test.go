package bucket

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/bucket/buckettest"
	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/cache/tarball"
)

const name = "name_main.tar"

// A source is one whose bytes are counted.
type source struct {
	cachetest.Blobs
	mu   sync.Mutex
	read map[v1.Hash]int64
	fail func(d v1.Hash, offset, n int64) error
	slow func(ctx context.Context, d v1.Hash, offset, n int64)
}

func newSource() *source { return &source{Blobs: cachetest.Blobs{}, read: map[v1.Hash]int64{}} }

func (s *source) ReadRange(ctx context.Context, d v1.Hash, offset, n int64) (io.ReadCloser, error) {
	if s.slow != nil {
		s.slow(ctx, d, offset, n)
	}
	if s.fail != nil {
		if err := s.fail(d, offset, n); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	s.read[d] += n
	s.mu.Unlock()
	return s.Blobs.ReadRange(ctx, d, offset, n)
}

func (s *source) total() (n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.read {
		n += r
	}
	return n
}

func (s *source) image(t testing.TB, layers ...v1.Descriptor) *tarball.Image {
	return s.imageAs(t, cachetest.Ref, layers...)
}

func (s *source) imageAs(t testing.TB, ref string, layers ...v1.Descriptor) *tarball.Image {
	t.Helper()
	manifest, config := cachetest.Pair(layers...)
	img, err := tarball.NewImage(ref, cachetest.Marshal(manifest), config)
	require.NoError(t, err)
	return img
}

// small are limits of parts for small images: parts of 64 KiB, at least 40.
var small = limits{least: 40 << 10, usual: 64 << 10, copied: 256 << 10}

func open(t testing.TB, server *buckettest.Server, o *Options) *Bucket {
	t.Helper()
	server.MinPartSize = small.least
	if o == nil {
		o = &Options{}
	}
	cfg := server.Config()
	o.Config = &cfg
	b, err := Open(t.Context(), "s3://bucket/images", o)
	require.NoError(t, err)
	b.limits, b.lookEvery = &small, time.Millisecond
	b.fetcher.SetSizes(16<<10, 64<<10, 4<<10)
	return b
}

// requireObject requires that an object is, byte for byte, what the directory would hold.
func requireObject(t testing.TB, server *buckettest.Server, name string, img *tarball.Image, src tarball.Source, p tarball.Provenance) {
	t.Helper()
	got, ok := server.Object("images/" + name)
	require.True(t, ok, "there is no object")
	dir, err := cache.Open(t.TempDir(), nil)
	require.NoError(t, err)
	_, err = dir.Put(t.Context(), name, img, src, &cache.PutOptions{Provenance: p})
	require.NoError(t, err)
	want, err := os.ReadFile(filepath.Join(dir.Path(), name))
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got), "the object differs from the directory's tarball")
}

// requireNothingLeft requires that neither uploads nor records of them are left.
func requireNothingLeft(t testing.TB, server *buckettest.Server) {
	t.Helper()
	assert.Zero(t, server.Uploads(), "uploads that are pending")
	for _, key := range server.Objects() {
		assert.NotContains(t, key, "/.", "records that are left")
	}
}

// layer adds a layer of so many bytes.
func (s *source) layer(seed byte, size int) v1.Descriptor { return s.Add(cachetest.Noise(seed, size)) }

func (s *source) layers(sizes ...int) (layers []v1.Descriptor) {
	for i, size := range sizes {
		layers = append(layers, s.layer(byte(100+i), size))
	}
	return layers
}

// none is a source that must not be asked.
var none = cachetest.SourceFunc(func(_ context.Context, d v1.Hash, _, _ int64) (io.ReadCloser, error) {
	return nil, tarball.Permanent(os.ErrInvalid)
})

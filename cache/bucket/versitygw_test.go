package bucket

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/s3gateway"
	"github.com/dockercache/dockercache/internal/tarballtest"
)

func openGateway(t testing.TB, cfg aws.Config) *Bucket {
	t.Helper()
	b, err := Open(t.Context(), "s3://bucket/a b+c/%", &Options{Config: &cfg})
	require.NoError(t, err)
	b.lookEvery = 10 * time.Millisecond
	return b
}

// requireFile requires that the object's file is what the directory would hold.
func requireFile(t testing.TB, data, name string, img *tarball.Image, src tarball.Source, p tarball.Provenance) {
	t.Helper()
	dir, err := cache.Open(t.TempDir(), nil)
	require.NoError(t, err)
	_, err = dir.Put(t.Context(), name, img, src, &cache.PutOptions{Provenance: p})
	require.NoError(t, err)
	want, err := os.ReadFile(filepath.Join(dir.Path(), name))
	require.NoError(t, err)
	got, err := os.ReadFile(filepath.Join(data, "bucket", "a b+c", "%", name))
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got), "%s: the object differs from the directory's tarball", name)
}

// All of it against a real server, with parts of their usual length.
func TestGateway(t *testing.T) {
	cfg, data := s3gateway.Start(t, "bucket")
	src := newSource()
	base := src.layers(40<<20, 20<<20, 3<<20, 100)
	img := src.image(t, append(base[:4:4], src.layer(1, 4<<20))...)
	run := func(id int64) *cache.PutOptions {
		return &cache.PutOptions{Provenance: tarball.Provenance{Run: tarball.Run{ID: id, Attempt: 1}}}
	}
	const name = "naïve name+'\"_main.tar"
	result, err := openGateway(t, cfg).Put(t.Context(), name, img, src, run(2))
	require.NoError(t, err)
	assert.Equal(t, cache.Stocked, result.Outcome)
	requireFile(t, data, name, img, src, run(2).Provenance)

	t.Run("unchanged, superseded, of a newer run", func(t *testing.T) {
		b := openGateway(t, cfg)
		other := src.image(t, src.layer(2, 1000))
		for _, c := range []struct {
			img  *tarball.Image
			run  int64
			want cache.Outcome
		}{{img, 2, cache.Unchanged}, {other, 1, cache.Superseded}, {img, 4, cache.Unchanged}, {other, 3, cache.Superseded}} {
			result, err := b.Put(t.Context(), name, c.img, none, run(c.run))
			require.NoError(t, err)
			assert.Equal(t, c.want, result.Outcome)
		}
		requireFile(t, data, name, img, src, run(2).Provenance)
	})

	t.Run("a refresh", func(t *testing.T) {
		next := src.image(t, append(base[:4:4], src.layer(3, 4<<20))...)
		result, err := openGateway(t, cfg).Put(t.Context(), "next_main.tar", next, src, run(4))
		require.NoError(t, err)
		assert.EqualValues(t, 4<<20, tarballtest.Once(result))
		assert.EqualValues(t, 63<<20+100, result.Copied)
		requireFile(t, data, "next_main.tar", next, src, run(4).Provenance)
	})

	t.Run("reading", func(t *testing.T) {
		b := openGateway(t, cfg)
		results, err := b.Verify(t.Context(), nil, nil)
		require.NoError(t, err)
		require.Len(t, results, 2)
		for _, r := range results {
			assert.NoError(t, r.Err)
		}
		entries, err := b.List(t.Context())
		require.NoError(t, err)
		require.Len(t, entries, 2)
		assert.Equal(t, name, entries[0].Name)
		assert.EqualValues(t, 4, entries[0].Run.ID)
	})

	t.Run("resumed", func(t *testing.T) {
		const size = 100 << 20
		big := src.image(t, src.layer(5, size))
		ctx, cancel := context.WithCancelCause(t.Context())
		before := src.total()
		src.slow = func(context.Context, v1.Hash, int64, int64) {
			if src.total()-before > 90<<20 {
				cancel(errKilled)
			}
		}
		b := openGateway(t, cfg)
		b.options.Memory = 64 << 20
		_, err := b.Put(ctx, "big_main.tar", big, src, nil)
		require.ErrorIs(t, err, errKilled)
		src.slow = nil
		result, err := openGateway(t, cfg).Put(t.Context(), "big_main.tar", big, src, nil)
		require.NoError(t, err)
		assert.EqualValues(t, size, result.Resumed+tarballtest.Once(result))
		assert.Greater(t, result.Resumed, int64(30<<20))
		requireFile(t, data, "big_main.tar", big, src, tarball.Provenance{})
	})

	t.Run("two writers", func(t *testing.T) {
		writers := []*Bucket{openGateway(t, cfg), openGateway(t, cfg)}
		for round := range 20 {
			imgs := []*tarball.Image{src.image(t, src.layer(byte(round), 1000+round)), src.image(t, src.layer(byte(round), 2000+round))}
			var group sync.WaitGroup
			for i, b := range writers {
				group.Go(func() {
					id := int64(2*round + 1)
					if i == round%2 {
						id++
					}
					_, err := b.Put(t.Context(), "two_main.tar", imgs[i], src, run(id))
					assert.NoError(t, err)
				})
			}
			group.Wait()
			got, err := writers[0].Get(t.Context(), "two_main.tar")
			require.NoError(t, err)
			require.Equal(t, imgs[round%2].Digest(), got.Image.Digest(), "round %d", round)
			require.NoError(t, got.Close())
		}
	})

	t.Run("gone", func(t *testing.T) {
		b := openGateway(t, cfg)
		gone, err := b.Sweep(t.Context(), &cache.SweepOptions{Age: time.Nanosecond})
		require.NoError(t, err)
		assert.Empty(t, gone, "nothing was left")
		result, err := b.Prune(t.Context(), &cache.PruneOptions{Count: 1, RemoveNewest: true})
		require.NoError(t, err)
		assert.Len(t, result.Removed, 3)
	})
}

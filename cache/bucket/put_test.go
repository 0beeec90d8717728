package bucket

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/bucket/buckettest"
	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/tarballtest"
)

// An image is stored as the directory would hold it, once, and is then there.
func TestPut(t *testing.T) {
	for _, sizes := range [][]int{{100}, {0, 5}, {64 << 10}, {1 << 20}, {3 << 20, 10, 200_000, 1 << 20}, {10, 10, 10, 10, 10}, {100_000, 100_000, 100_000}} {
		server := buckettest.New(t, "bucket")
		b, src := open(t, server, nil), newSource()
		descriptors := src.layers(sizes...)
		img := src.image(t, descriptors...)
		provenance := tarball.Provenance{Run: tarball.Run{ID: 7, Attempt: 1}, Branch: "main"}
		o := &cache.PutOptions{Provenance: provenance}
		result, err := b.Put(t.Context(), name, img, src, o)
		require.NoError(t, err, "%v", sizes)
		assert.Equal(t, cache.Stocked, result.Outcome)
		var size int64
		for _, l := range descriptors {
			size += l.Size
		}
		assert.Equal(t, size, tarballtest.Once(result))
		requireObject(t, server, name, img, src.Blobs, provenance)
		requireNothingLeft(t, server)

		before := len(server.Requests())
		result, err = open(t, server, nil).Put(t.Context(), name, img, none, o)
		require.NoError(t, err)
		assert.Equal(t, cache.Unchanged, result.Outcome)
		assert.Len(t, server.Requests(), before+1, "one request")
	}
}

// Of a refresh only what changed comes from the source, and little more is sent.
func TestPutOfARefresh(t *testing.T) {
	server := buckettest.New(t, "bucket")
	b, src := open(t, server, nil), newSource()
	base := src.layers(2<<20, 1<<20, 300_000)
	first := src.image(t, append(base[:3:3], src.layer(9, 200_000))...)
	_, err := b.Put(t.Context(), name, first, src, nil)
	require.NoError(t, err)
	for _, c := range []struct {
		name, ref string
	}{{name, cachetest.Ref}, {"name_release.tar", cachetest.Ref}, {"other_main.tar", "example.com/other:1"}} {
		top := src.layer(byte(len(c.name)), 150_000)
		img := src.imageAs(t, c.ref, append(base[:3:3], top)...)
		sent := server.Sent()
		result, err := open(t, server, nil).Put(t.Context(), c.name, img, src, nil)
		require.NoError(t, err)
		assert.Equal(t, cache.Stocked, result.Outcome)
		assert.Equal(t, top.Size, tarballtest.Once(result), c.name)
		assert.LessOrEqual(t, server.Sent()-sent, top.Size+2*small.usual+10_000, c.name)
		assert.Equal(t, img.Layers()[0].Size+img.Layers()[1].Size+img.Layers()[2].Size, result.Reused)
		requireObject(t, server, c.name, img, src.Blobs, tarball.Provenance{})
		requireNothingLeft(t, server)
	}
}

// Layers in another order, among others, of several objects.
func TestPutSharesLayersInAnyOrder(t *testing.T) {
	server := buckettest.New(t, "bucket")
	b, src := open(t, server, nil), newSource()
	l := src.layers(300_000, 100_000, 50_000, 400_000, 7, 120_000)
	_, err := b.Put(t.Context(), "a_main.tar", src.image(t, l[0], l[1], l[2]), src, nil)
	require.NoError(t, err)
	_, err = b.Put(t.Context(), "b_main.tar", src.image(t, l[3], l[4]), src, nil)
	require.NoError(t, err)
	img := src.image(t, l[4], l[3], l[5], l[2], l[1], l[0])
	result, err := b.Put(t.Context(), "c_main.tar", img, src, nil)
	require.NoError(t, err)
	assert.Equal(t, l[5].Size, tarballtest.Once(result))
	requireObject(t, server, "c_main.tar", img, src.Blobs, tarball.Provenance{})
}

// An older run never replaces a newer one's tarball; the same image of a newer run counts as that
// one's.
func TestOrderOfRuns(t *testing.T) {
	server := buckettest.New(t, "bucket")
	b, src := open(t, server, nil), newSource()
	first, second := src.image(t, src.layers(100_000)...), src.image(t, src.layer(8, 120_000))
	put := func(img *tarball.Image, run int64, o cache.PutOptions) cache.Outcome {
		t.Helper()
		o.Provenance.Run.ID = run
		result, err := b.Put(t.Context(), name, img, src, &o)
		require.NoError(t, err)
		return result.Outcome
	}
	assert.Equal(t, cache.Stocked, put(first, 5, cache.PutOptions{}))
	assert.Equal(t, cache.Superseded, put(second, 4, cache.PutOptions{}))
	assert.Equal(t, cache.Unchanged, put(first, 9, cache.PutOptions{}))
	assert.Equal(t, cache.Superseded, put(second, 8, cache.PutOptions{}), "run 9 has the first")
	requireObject(t, server, name, first, src.Blobs, tarball.Provenance{Run: tarball.Run{ID: 5}})
	assert.Equal(t, cache.Stocked, put(second, 8, cache.PutOptions{Force: true}))
	assert.Equal(t, cache.Stocked, put(first, 10, cache.PutOptions{}))
	requireNothingLeft(t, server)
}

// An image of another repository is not lost.
func TestOtherImage(t *testing.T) {
	server := buckettest.New(t, "bucket")
	b, src := open(t, server, nil), newSource()
	_, err := b.Put(t.Context(), name, src.image(t, src.layers(100_000)...), src, nil)
	require.NoError(t, err)
	other := src.imageAs(t, "example.com/other:1", src.layer(5, 1000))
	_, err = b.Put(t.Context(), name, other, src, nil)
	require.ErrorIs(t, err, cache.ErrOtherImage)
	_, err = b.Put(t.Context(), name, other, src, &cache.PutOptions{Replace: true})
	require.NoError(t, err)
}

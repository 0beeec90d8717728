package faults

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/tarballtest"
	"github.com/dockercache/dockercache/registry/registrytest"
)

// One wrong byte: that layer is fetched once more, and no other.
func TestCorruptOnce(t *testing.T) {
	t.Parallel()
	r := resolved(t, threeLayers, 1, options(), nil)
	r.own.SetQuirks(registrytest.Quirks{CorruptBlob: true, CorruptBlobCount: 1})
	p := r.put(t, 1, nil)
	r.requireRight(t, p)
	require.Equal(t, 1, r.own.Happened("CorruptBlob"))
	twice := 0
	for _, l := range r.layers {
		switch n := sent(askedOf(t, l, r.own.Requests())); n {
		case l.Size:
		case 2 * l.Size:
			twice++
			assert.Equal(t, r.size+l.Size, tarballtest.Once(p.Result))
		default:
			t.Errorf("%d bytes were sent of a layer of %d", n, l.Size)
		}
	}
	assert.Equal(t, 1, twice)
}

// The second time the bytes come from the next source.
func TestCorruptAtTheFirstSource(t *testing.T) {
	t.Parallel()
	r := resolved(t, oneLayer, 2, options(), nil)
	r.mirror.SetQuirks(registrytest.Quirks{CorruptBlob: true})
	p := r.put(t, 1, nil)
	r.requireRight(t, p)
	assert.Equal(t, 2*r.size, tarballtest.Once(p.Result))
	for _, server := range []*registrytest.Server{r.mirror, r.own} { // each gave all of it; on a busy machine a range may come twice
		n := sent(askedOf(t, r.layers[0], server.Requests()))
		assert.GreaterOrEqual(t, n, r.size)
		assert.Less(t, n, r.size*11/10)
	}
}

// Wrong bytes from everywhere: an error, and nothing that a next run could take
// for good.
func TestCorruptEverywhere(t *testing.T) {
	for _, registries := range []int{1, 2} {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			r := resolved(t, oneLayer, registries, options(), nil)
			r.mirror.SetQuirks(registrytest.Quirks{CorruptBlob: true})
			r.own.SetQuirks(registrytest.Quirks{CorruptBlob: true})
			p := r.put(t, 1, nil)
			require.ErrorIs(t, p.err, tarball.ErrDigest)
			require.ErrorContains(t, p.err, r.layers[0].Digest.String())
			requireNoTarball(t, p)
			entries, err := os.ReadDir(p.dir)
			require.NoError(t, err)
			assert.Empty(t, entries)
			assert.Equal(t, 2*r.size, tarballtest.Once(p.Result), "it is fetched twice, not for ever")
		})
	}
}

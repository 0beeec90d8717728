package faults

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/tarballtest"
	"github.com/dockercache/dockercache/registry/registrytest"
)

// A mirror that is killed in the middle costs no restart: what it gave stays,
// and the rest comes from the image's own registry.
func TestMirrorIsKilled(t *testing.T) {
	t.Parallel()
	t.Run("one connection", func(t *testing.T) {
		t.Parallel()
		r := resolved(t, threeLayers, 2, options(), nil)
		var kill sync.Once
		killedAt := int64(0)
		p := r.put(t, 1, &cache.PutOptions{Progress: func(p tarball.Progress) {
			if p.Done > r.size/3 {
				kill.Do(func() { killedAt = p.Done; r.mirror.Close() })
			}
		}})
		r.requireRight(t, p)
		assert.Equal(t, r.size, tarballtest.Once(p.Result), "no byte was written twice")
		assert.Positive(t, r.fromOwn(t))
		assert.LessOrEqual(t, r.fromOwn(t), r.size-killedAt, "what the mirror had given was not asked for again")
	})
	// What eight connections have in their buffers could be all that there is, so
	// each gives its first bytes, and is killed before it gives more.
	t.Run("eight", func(t *testing.T) {
		t.Parallel()
		r := resolved(t, threeLayers, 2, options(), nil)
		stalled := make(chan struct{})
		r.mirror.SetQuirks(registrytest.Quirks{Stall: true, Stalled: stalled})
		go func() { <-stalled; r.mirror.Close() }()
		p := r.put(t, 8, nil)
		r.requireRight(t, p)
		assert.Equal(t, r.size, tarballtest.Once(p.Result), "no byte was written twice")
		assert.Positive(t, r.fromOwn(t))
	})
}

// fromOwn is how many bytes of layers the image's own registry sent.
func (r *remote) fromOwn(t *testing.T) (n int64) {
	t.Helper()
	for _, l := range r.layers {
		n += sent(askedOf(t, l, r.own.Requests()))
	}
	return n
}

// With both read at once, each gives a part; one that is killed leaves the rest to the other.
func TestAllSources(t *testing.T) {
	t.Parallel()
	for _, kill := range []bool{false, true} {
		o := options()
		o.AllSources = true
		r := resolved(t, threeLayers, 2, o, nil)
		var once sync.Once
		p := r.put(t, 4, &cache.PutOptions{Progress: func(p tarball.Progress) {
			if kill && p.Done > r.size/3 {
				once.Do(r.own.Close)
			}
		}})
		r.requireRight(t, p)
		assert.Equal(t, r.size, tarballtest.Once(p.Result))
		for _, server := range []*registrytest.Server{r.mirror, r.own} {
			n := int64(0)
			for _, l := range r.layers {
				n += sent(askedOf(t, l, server.Requests()))
			}
			assert.Positive(t, n, "%s, killed: %v, the mirror is %s", server.Host(), kill, r.mirror.Host())
		}
	}
}

// Of two sources read at once one gives wrong bytes: the layer is fetched again
// from one alone, so that it can be told which.
func TestAllSourcesOneIsDamaged(t *testing.T) {
	t.Parallel()
	o := options()
	o.AllSources = true
	r := resolved(t, oneLayer, 2, o, nil)
	r.mirror.SetQuirks(registrytest.Quirks{CorruptBlob: true})
	r.requireRight(t, r.put(t, 4, nil))

	r = resolved(t, oneLayer, 2, o, nil)
	r.mirror.SetQuirks(registrytest.Quirks{CorruptBlob: true})
	r.own.SetQuirks(registrytest.Quirks{CorruptBlob: true})
	p := r.put(t, 4, nil)
	require.ErrorIs(t, p.err, tarball.ErrDigest)
	assert.ErrorContains(t, p.err, r.own.Host()+"/team/image")
	assert.NotContains(t, p.err.Error(), r.mirror.Host(), "the second time it was the other one alone")
	requireNoTarball(t, p)
}

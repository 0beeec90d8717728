package faults

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/internal/tarballtest"
	"github.com/dockercache/dockercache/registry/registrytest"
)

// A good registry is asked for each byte once, by one connection in few ranges.
func TestNoFault(t *testing.T) {
	t.Parallel()
	r := resolved(t, oneLayer, 1, options(), nil)
	p := r.put(t, 1, nil)
	r.requireRight(t, p)
	assert.Equal(t, r.size, tarballtest.Once(p.Result))
	requests := askedOf(t, r.layers[0], r.own.Requests())
	assert.Len(t, requests, 2, "20 MiB, a range has at most 16")
	assert.Equal(t, r.size, sent(requests))
}

// A registry that leaves Docker-Content-Digest out is as good as any.
func TestNoContentDigest(t *testing.T) {
	t.Parallel()
	r := resolved(t, oneRange, 1, options(), func(own *registrytest.Server) {
		own.SetQuirks(registrytest.Quirks{NoContentDigest: true})
	})
	r.requireRight(t, r.put(t, 4, nil))
}

// requireContinued requires that bodies which all end after cut bytes were asked
// for one after the other, each from where the one before stopped, until the end was
// reached.
func requireContinued(t *testing.T, size, cut int64, requests []asked) {
	t.Helper()
	at := int64(0)
	for _, r := range requests {
		require.Equal(t, at, r.from)
		require.Equal(t, min(cut, r.to-at), r.sent)
		at += r.sent
	}
	require.Equal(t, size, at)
}

// A body that is cut is continued where it stopped: not a byte comes twice.
func TestCutBodyIsContinued(t *testing.T) {
	t.Parallel()
	const cut = 3 * mib
	r := resolved(t, oneLayer, 1, options(), nil)
	r.own.SetQuirks(registrytest.Quirks{CutBodyAfter: cut})
	p := r.put(t, 1, nil)
	r.requireRight(t, p)
	assert.Equal(t, r.size, tarballtest.Once(p.Result))
	requests := askedOf(t, r.layers[0], r.own.Requests())
	connections := map[string]bool{}
	for i := range requests {
		connections[requests[i].remote] = true
		requests[i].remote = ""
	}
	requireContinued(t, r.size, cut, requests)
	assert.Len(t, connections, 7, "each cut costs a connection, and nothing else does")
}

// Side by side too: what the engine took from the bodies is the image, once.
func TestCutBodiesSideBySide(t *testing.T) {
	t.Parallel()
	r := resolved(t, threeLayers, 1, options(), nil)
	r.own.SetQuirks(registrytest.Quirks{CutBodyAfter: mib + 1})
	p := r.put(t, 16, nil)
	r.requireRight(t, p)
	assert.Equal(t, r.size, tarballtest.Once(p.Result))
	assert.Positive(t, r.own.Happened("CutBodyAfter"))
}

// Progress begins the count of attempts again: more cuts than there are attempts.
func TestProgressResetsTheAttempts(t *testing.T) {
	t.Parallel()
	const cut = mib - 1
	r := resolved(t, oneRange, 1, options(), nil)
	r.own.SetQuirks(registrytest.Quirks{CutBodyAfter: cut})
	p := r.put(t, 1, nil)
	r.requireRight(t, p)
	assert.Equal(t, r.size, tarballtest.Once(p.Result))
	require.Equal(t, 7, r.own.Happened("CutBodyAfter"), "more than the six attempts without progress")
}

// One byte with each answer is no progress: another source is asked for the rest.
func TestCutBodyOfNextToNothing(t *testing.T) {
	t.Parallel()
	r := resolved(t, oneLayer, 2, options(), nil)
	r.mirror.SetQuirks(registrytest.Quirks{CutBodyAfter: 1})
	p := r.put(t, 4, nil)
	r.requireRight(t, p)
	assert.LessOrEqual(t, r.mirror.Happened("CutBodyAfter"), 4*6, "six times for each connection")
}

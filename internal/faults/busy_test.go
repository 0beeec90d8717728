package faults

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/registry"
	"github.com/dockercache/dockercache/registry/registrytest"
)

// 429 and 503 are asked again, and not before Retry-After has passed: the
// server itself watches.
func TestRetryAfter(t *testing.T) {
	for _, status := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			t.Parallel()
			r := resolved(t, oneLayer, 1, options(), nil)
			r.own.SetQuirks(registrytest.Quirks{BlobStatus: status, BlobStatusCount: 2, RetryAfter: 1})
			p := r.put(t, 1, nil)
			r.requireRight(t, p)
			assert.Equal(t, 2, r.own.Happened("BlobStatus"))
			assert.Zero(t, r.own.TooEarly())
			assert.Len(t, askedOf(t, r.layers[0], r.own.Requests()), 2+1)
		})
	}
}

// The Retry-After of the last source counts when the first has no such blob.
func TestRetryAfterOfTheNextSource(t *testing.T) {
	t.Parallel()
	r := resolved(t, oneRange, 2, options(), nil)
	r.mirror.SetQuirks(registrytest.Quirks{BlobStatus: http.StatusNotFound})
	r.own.SetQuirks(registrytest.Quirks{BlobStatus: http.StatusTooManyRequests, BlobStatusCount: 1, RetryAfter: 1})
	r.requireRight(t, r.put(t, 1, nil))
	assert.Equal(t, 1, r.own.Happened("BlobStatus"))
	assert.Zero(t, r.own.TooEarly())
}

// Without any progress the attempts end, with an error that says what happened.
func TestAttemptsEnd(t *testing.T) {
	t.Parallel()
	r := resolved(t, oneRange, 1, options(), nil)
	r.own.SetQuirks(registrytest.Quirks{BlobStatus: http.StatusServiceUnavailable, RetryAfter: 1})
	p := r.put(t, 1, nil)
	require.ErrorIs(t, p.err, registry.ErrUnreachable)
	require.ErrorContains(t, p.err, "status 503")
	require.ErrorContains(t, p.err, r.layers[0].Digest.String())
	require.ErrorContains(t, p.err, r.own.Host())
	requireNoTarball(t, p)
	assert.Zero(t, p.Downloaded)
	asked := len(askedOf(t, r.layers[0], r.own.Requests()))
	assert.GreaterOrEqual(t, asked, 6)
	assert.LessOrEqual(t, asked, 20)
	assert.Zero(t, r.own.TooEarly())
}

// What cannot get better is asked for once.
func TestPermanentTroubleIsNotAskedAgain(t *testing.T) {
	for _, status := range []int{http.StatusNotFound, http.StatusForbidden} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			t.Parallel()
			r := resolved(t, oneRange, 1, options(), nil)
			r.own.SetQuirks(registrytest.Quirks{BlobStatus: status})
			p := r.put(t, 1, nil)
			require.ErrorContains(t, p.err, http.StatusText(status))
			requireNoTarball(t, p)
			assert.Len(t, askedOf(t, r.layers[0], r.own.Requests()), 1)
		})
	}
}

// A login that fails once, at a source that is needed only for a blob, is not
// the end of that source.
func TestLoginOfTheNextSourceFailsOnce(t *testing.T) {
	t.Parallel()
	r := resolved(t, oneRange, 2, options(), nil)
	r.mirror.SetQuirks(registrytest.Quirks{BlobStatus: http.StatusNotFound})
	r.own.SetQuirks(registrytest.Quirks{LoginStatus: http.StatusServiceUnavailable, LoginStatusCount: 1})
	r.requireRight(t, r.put(t, 1, nil))
	assert.Equal(t, 1, r.own.Happened("LoginStatus"))
}

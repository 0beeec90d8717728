//go:build linux

package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/registry/registrytest"
)

// Which connections of a link are slow, and from when on.
func TestLinkRate(t *testing.T) {
	for name, c := range map[string]struct {
		link
		registrytest.Conn
		want int64
	}{
		"none":                       {link{}, registrytest.Conn{Number: 4}, 1000},
		"the one":                    {link{Slower: 50, Only: 4}, registrytest.Conn{Number: 4}, 20},
		"one before":                 {link{Slower: 50, Only: 4}, registrytest.Conn{Number: 3}, 1000},
		"one after":                  {link{Slower: 50, Only: 4}, registrytest.Conn{Number: 5}, 1000},
		"the one, not yet":           {link{Slower: 50, Only: 4, After: 10}, registrytest.Conn{Number: 4, Sent: 9, Total: 99}, 1000},
		"the one, from now on":       {link{Slower: 50, Only: 4, After: 10}, registrytest.Conn{Number: 4, Sent: 10, Total: 99}, 20},
		"all, not yet":               {link{Slower: 50, After: 10}, registrytest.Conn{Number: 1, Sent: 9, Total: 9}, 1000},
		"all, from now on":           {link{Slower: 50, After: 10}, registrytest.Conn{Number: 1, Sent: 1, Total: 10}, 20},
		"all, a new connection":      {link{Slower: 50, After: 10}, registrytest.Conn{Number: 99, Total: 99}, 20},
		"never 0, which is no limit": {link{Slower: 5000}, registrytest.Conn{Number: 1}, 1},
	} {
		c.BytesPerSecond = 1000
		assert.Equal(t, c.want, c.rate(c.Conn), name)
	}
}

// request sends one to a registry without a socket.
func request(t *testing.T, h http.Handler, ctx context.Context, path, authorization string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, path, nil)
	r.Header.Set("Authorization", authorization)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// A registry that allows three requests a second counts those to log in too, and
// those that it refuses not.
func TestRegistryRefuses(t *testing.T) {
	b := &bench{options: &options{ratio: 1}, scratch: t.TempDir()}
	b.makeTag("image", b.makeLayer("layer", 10))
	synctest.Test(t, func(t *testing.T) {
		r := &registry{link: link{RequestsPerSecond: 3}, dir: b.scratch, bucket: 3, at: time.Now(), throttle: &registrytest.Throttle{}}
		ask := func(path, authorization string) *httptest.ResponseRecorder {
			return request(t, r.handler(), t.Context(), path, authorization)
		}
		const manifest, good = "/v2/bench/image/manifests/image", "Bearer " + token
		login := ask("/v2/", "")
		assert.Equal(t, http.StatusUnauthorized, login.Code)
		assert.Equal(t, `Bearer realm="http://example.com/token",service="bench"`, login.Header().Get("WWW-Authenticate"))
		assert.JSONEq(t, `{"token":"anonymous"}`, ask("/token", "").Body.String())
		assert.Equal(t, http.StatusOK, ask(manifest, good).Code)
		for range 10 {
			refused := ask(manifest, good)
			require.Equal(t, http.StatusTooManyRequests, refused.Code)
			assert.Equal(t, "1", refused.Header().Get("Retry-After"))
		}
		assert.Equal(t, stats{Manifests: 1, Other: 2, Refused: 10}, r.stats())
		assert.EqualValues(t, 13, r.stats().requests())
		for _, pause := range []time.Duration{time.Second, time.Hour} {
			time.Sleep(pause)
			for i := range 4 {
				assert.Equal(t, i < 3, ask(manifest, good).Code == http.StatusOK, "three more")
			}
		}
	})
}

// A layer drips, but no config.
func TestRegistryDrips(t *testing.T) {
	b := &bench{options: &options{ratio: 1}, scratch: t.TempDir()}
	large, small := b.makeLayer("large", mostConfig+1), b.makeLayer("small", 10)
	synctest.Test(t, func(t *testing.T) {
		r := &registry{link: link{Drip: true}, dir: b.scratch}
		ctx, cancel := context.WithTimeout(t.Context(), 3500*time.Millisecond)
		defer cancel()
		start := time.Now()
		assert.EqualValues(t, small.Size, request(t, r.handler(), ctx, "/v2/bench/image/blobs/"+small.Digest.String(), "").Body.Len())
		assert.Zero(t, time.Since(start))
		assert.Equal(t, 4, request(t, r.handler(), ctx, "/v2/bench/image/blobs/"+large.Digest.String(), "").Body.Len())
	})
}

package registry_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/registry"
	"github.com/dockercache/dockercache/registry/registrytest"
)

// limited starts a server with so many repositories image-0, image-1, …
func limited(t *testing.T, repositories int) (*registrytest.Server, v1.Image) {
	t.Helper()
	server, image := registrytest.New(t), randomImage(t, 1)
	for n := range repositories {
		push(t, server, fmt.Sprintf("image-%d:tag", n), image)
	}
	return server, image
}

// all resolves so many images at once and returns the errors of those that failed.
func all(ctx context.Context, client *registry.Client, images int) (failed []error) {
	var group sync.WaitGroup
	var mu sync.Mutex
	for n := range images {
		group.Go(func() {
			_, err := client.Image(ctx, registry.DefaultPlatform(), fmt.Sprintf("registry.example.com/image-%d:tag", n))
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = append(failed, err)
			}
		})
	}
	group.Wait()
	return failed
}

// Twenty images at once, at a registry that serves a few requests per second: each is
// resolved, in little more than the time that the registry takes for so many, whatever
// the form in which it asks for a delay, and whatever the request that it refuses.
func TestRequestsPerSecond(t *testing.T) {
	const images = 20
	for name, c := range map[string]struct {
		quirks   registrytest.Quirks
		requests int // in all
		most     float64
	}{
		"Retry-After":         {registrytest.Quirks{RequestsPerSecond: 3}, 3 * images, 1.5},
		"burst":               {registrytest.Quirks{RequestsPerSecond: 3, RequestBurst: 10}, 3 * images, 1.5},
		"one by one":          {registrytest.Quirks{RequestsPerSecond: 3, RequestBurst: 1}, 3 * images, 3.3},
		"longer than need be": {registrytest.Quirks{RequestsPerSecond: 3, RetryAfter: 2}, 3 * images, 2.5},
		"in the text":         {registrytest.Quirks{RequestsPerSecond: 3, RetryAfterText: "retry-after: %s, allowed: 3/second"}, 3 * images, 1.5},
		"too short":           {registrytest.Quirks{RequestsPerSecond: 3, RetryAfterText: "retry-after: 880.092µs, allowed: 44000/minute"}, 3 * images, 1.5},
		"no delay":            {registrytest.Quirks{RequestsPerSecond: 3, RetryAfterText: "slow down"}, 3 * images, 1.5},
		"counts the refused":  {registrytest.Quirks{RequestsPerSecond: 3, CountRefused: true}, 3 * images, 3},
		"with tokens":         {registrytest.Quirks{RequestsPerSecond: 3, Token: true}, 3 * images, 1.5},
	} {
		t.Run(name, func(t *testing.T) {
			server, _ := limited(t, images)
			server.SetQuirks(c.quirks)
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				failed := all(t.Context(), registry.New(inBubble(t, map[string]http.Handler{"registry.example.com": server})), images)
				assert.Empty(t, failed)
				took, ideal := time.Since(begin).Seconds(), float64(c.requests)/c.quirks.RequestsPerSecond
				assert.LessOrEqual(t, took, c.most*ideal)
				t.Logf("%.1f s of %.1f, %d refused", took, ideal, server.Happened("RequestsPerSecond"))
			})
		})
	}
}

// resolvedInBubble is an image in a registry and a mirror, or in the registry alone.
func resolvedInBubble(t *testing.T, o *registry.Options, references ...string) *registry.Image {
	t.Helper()
	got, err := registry.New(o).Image(t.Context(), registry.DefaultPlatform(), references...)
	require.NoError(t, err)
	return got
}

// A range does not wait for its host: it fails at once, with what is left of the delay,
// and no request is made. So do ranges of other images, and for all that Origin.Wait says
// the same; another host is asked.
func TestRangesDoNotWait(t *testing.T) {
	for status, text := range map[int]string{429: "retry-after: 10s", 503: "try again in 10 seconds"} {
		p := newPair(t)
		synctest.Test(t, func(t *testing.T) {
			o := inBubble(t, map[string]http.Handler{"mirror.example.com": p.mirror, "own.example.com": p.own})
			r := remote{resolvedInBubble(t, o, "mirror.example.com/mirror/image:tag", "own.example.com/own/image:tag"), p.mirror, layersOf(t, p.image)[0], contentOf(t, p.image, 0)}
			p.mirror.SetQuirks(registrytest.Quirks{BlobStatus: status, BlobStatusCount: 1, RetryAfterText: text})
			mirror := r.origins()[0]
			begin := time.Now()
			fail := func(says string, left time.Duration) {
				t.Helper()
				_, err := mirror.read(t.Context(), r.layer.Digest, 10, 100)
				var typed *registry.Error
				require.ErrorAs(t, err, &typed)
				assert.ErrorIs(t, err, registry.ErrUnreachable)
				assert.True(t, typed.Temporary())
				assert.Equal(t, left, typed.RetryAfter())
				assert.ErrorContains(t, err, says)
				assert.ErrorContains(t, err, fmt.Sprintf("status %d", status))
			}
			fail("status", 10*time.Second)
			asked := len(p.mirror.Requests())
			for range 5 { // that is no failure of the source
				fail("not asked, since mirror.example.com refuses requests for another 10s", 10*time.Second)
			}
			time.Sleep(4 * time.Second)
			fail("for another 6s", 6*time.Second)
			origins := r.origins()
			assert.Equal(t, []string{"own.example.com", "mirror.example.com"}, hosts(origins))
			assert.Equal(t, 6*time.Second, origins[1].wait)
			_, err := r.read(t.Context(), 10, 100)
			require.NoError(t, err, "in order of the references, but not at a host that refuses")
			assert.Equal(t, []string{"own.example.com/own/image"}, r.Origins(r.layer.Digest))
			assert.Len(t, p.mirror.Requests(), asked)
			assert.Equal(t, 4*time.Second, time.Since(begin), "nothing has waited")

			time.Sleep(6 * time.Second)
			assert.Equal(t, []string{"mirror.example.com", "own.example.com"}, hosts(r.origins()))
			got, err := mirror.read(t.Context(), r.layer.Digest, 10, 100)
			require.NoError(t, err)
			assert.Equal(t, r.content[10:110], got)
		})
	}
}

// What refuses is a host, whatever is asked of it: a storage that refuses is no refusal of
// its registry, which is not asked for its blobs though, and serves manifests.
func TestStorageThatRefuses(t *testing.T) {
	server, image := registrytest.New(t), randomImage(t, 1)
	push(t, server, "image:tag", image)
	synctest.Test(t, func(t *testing.T) {
		refusals := 0
		storage := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if refusals++; refusals == 1 {
				w.Header().Set("Retry-After", "0.5")
				w.WriteHeader(http.StatusServiceUnavailable)
				_, _ = w.Write([]byte("<Error><Code>SlowDown</Code><Message>Please retry after 20s.</Message></Error>"))
				return
			}
			r.URL.RawQuery = ""
			server.SetQuirks(registrytest.Quirks{})
			server.ServeHTTP(w, r)
		})
		o := inBubble(t, map[string]http.Handler{"registry.example.com": server, "storage.example.com": storage})
		r := remote{resolvedInBubble(t, o, "registry.example.com/image:tag"), server, layersOf(t, image)[0], contentOf(t, image, 0)}
		server.SetQuirks(registrytest.Quirks{RedirectTo: "http://storage.example.com"})
		_, err := r.read(t.Context(), 10, 100)
		var typed *registry.Error
		require.ErrorAs(t, err, &typed)
		assert.Equal(t, 20*time.Second, typed.RetryAfter(), "the longer one")
		assert.NotContains(t, err.Error(), registrytest.Signature)
		assert.NotContains(t, fmt.Sprint(allTexts(err)), registrytest.Signature)
		asked := len(server.Requests())
		_, err = r.read(t.Context(), 10, 100)
		assert.ErrorContains(t, err, "since storage.example.com refuses requests")
		assert.NotContains(t, fmt.Sprint(allTexts(err)), registrytest.Signature)
		assert.Len(t, server.Requests(), asked)
		assert.Equal(t, 20*time.Second, r.origins()[0].wait)
		_, err = registry.New(o).Image(t.Context(), registry.DefaultPlatform(), "registry.example.com/image:tag")
		require.NoError(t, err)
		time.Sleep(20 * time.Second)
		_, err = r.read(t.Context(), 10, 100)
		require.NoError(t, err)
	})
}

// Requests that are no ranges wait for a host that refuses, also if it was a range that
// was refused; no longer than their contexts allow.
func TestResolveWaits(t *testing.T) {
	server, image := registrytest.New(t), randomImage(t, 1)
	push(t, server, "image:tag", image)
	synctest.Test(t, func(t *testing.T) {
		client := registry.New(inBubble(t, map[string]http.Handler{"registry.example.com": server}))
		resolve := func(ctx context.Context) (*registry.Image, error) {
			return client.Image(ctx, registry.DefaultPlatform(), "registry.example.com/image:tag")
		}
		got, err := resolve(t.Context())
		require.NoError(t, err)
		r := remote{got, server, layersOf(t, image)[0], contentOf(t, image, 0)}
		server.SetQuirks(registrytest.Quirks{BlobStatus: 429, BlobStatusCount: 1, RetryAfter: 30})
		_, err = r.read(t.Context(), 10, 100)
		require.ErrorIs(t, err, registry.ErrUnreachable)
		begin, asked := time.Now(), len(server.Requests())
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err = resolve(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, 10*time.Second, time.Since(begin))
		assert.Len(t, server.Requests(), asked)
		_, err = resolve(t.Context())
		require.NoError(t, err)
		assert.GreaterOrEqual(t, time.Since(begin), 30*time.Second)
		assert.LessOrEqual(t, time.Since(begin), 33*time.Second)
	})
}

// A registry that refuses for good is given up for all images at once, and the other
// references are asked; the next images do not wait for it again.
func TestRegistryThatAlwaysRefuses(t *testing.T) {
	p := newPair(t)
	p.mirror.SetQuirks(registrytest.Quirks{Status: 429, RetryAfter: 5})
	synctest.Test(t, func(t *testing.T) {
		client := registry.New(inBubble(t, map[string]http.Handler{"mirror.example.com": p.mirror, "own.example.com": p.own}))
		begin := time.Now()
		var group sync.WaitGroup
		for range 10 {
			group.Go(func() {
				got, err := client.Image(t.Context(), registry.DefaultPlatform(), "mirror.example.com/mirror/image:tag", "own.example.com/own/image:tag")
				if assert.NoError(t, err) {
					assert.Equal(t, "own.example.com/own/image:tag", got.Source())
				}
			})
		}
		group.Wait()
		assert.LessOrEqual(t, time.Since(begin), 40*time.Second)
		before := time.Now()
		_, err := client.Image(t.Context(), registry.DefaultPlatform(), "mirror.example.com/mirror/image:tag", "own.example.com/own/image:tag")
		require.NoError(t, err)
		assert.Zero(t, time.Since(before), "it is set aside, as one that does not answer")
	})
}

// A token server that refuses is waited for by a login; a range that needs another token
// fails with the delay, and the source is not asked before.
func TestTokenServerThatRefuses(t *testing.T) {
	server, image := registrytest.New(t), randomImage(t, 1)
	push(t, server, "image:tag", image)
	server.SetQuirks(registrytest.Quirks{Token: true})
	synctest.Test(t, func(t *testing.T) {
		refuse := 1
		front := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/token" {
				if refuse > 0 {
					refuse--
					w.WriteHeader(http.StatusTooManyRequests)
					_, _ = w.Write([]byte(`{"error":"slow_down","error_description":"try again in 20s"}`))
					return
				}
				r.Host = "registry.example.com"
			}
			server.ServeHTTP(w, r)
		})
		begin := time.Now()
		r := remote{resolvedInBubble(t, inBubble(t, map[string]http.Handler{"registry.example.com": front}), "registry.example.com/image:tag"), server, layersOf(t, image)[0], contentOf(t, image, 0)}
		assert.GreaterOrEqual(t, time.Since(begin), 20*time.Second)
		assert.LessOrEqual(t, time.Since(begin), 22*time.Second)

		refuse = 1
		server.ExpireTokens()
		begin = time.Now()
		_, err := r.read(t.Context(), 10, 100)
		var typed *registry.Error
		require.ErrorAs(t, err, &typed)
		assert.True(t, typed.Temporary())
		assert.Equal(t, 20*time.Second, typed.RetryAfter())
		assert.Zero(t, time.Since(begin))
		assert.Equal(t, 20*time.Second, r.origins()[0].wait)
		time.Sleep(20 * time.Second)
		_, err = r.read(t.Context(), 10, 100)
		require.NoError(t, err)
	})
}

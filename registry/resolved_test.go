package registry_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/registry"
	"github.com/dockercache/dockercache/registry/registrytest"
)

// What importers need of a Resolved and of an Image, in place of their types.
var (
	_ interface {
		Digest() v1.Hash
		Source() string
		Content(ctx context.Context) (manifest, config []byte, err error)
		ReadRange(ctx context.Context, digest v1.Hash, offset, length int64) (io.ReadCloser, error)
		EachOrigin(digest v1.Hash, yield func(name, host string, parallel bool, wait time.Duration, read func(ctx context.Context, digest v1.Hash, offset, length int64) (io.ReadCloser, error)) bool)
		Distrust(digest v1.Hash)
		Origins(digest v1.Hash) []string
	} = (*registry.Resolved)(nil)
	_ interface {
		ReadRange(ctx context.Context, digest v1.Hash, offset, length int64) (io.ReadCloser, error)
		EachOrigin(digest v1.Hash, yield func(name, host string, parallel bool, wait time.Duration, read func(ctx context.Context, digest v1.Hash, offset, length int64) (io.ReadCloser, error)) bool)
		Distrust(digest v1.Hash)
		Origins(digest v1.Hash) []string
	} = (*registry.Image)(nil)
	_ registry.TemporaryError = (*registry.Error)(nil)
)

func resolve(t *testing.T, change func(*registry.Options), references ...string) *registry.Resolved {
	t.Helper()
	r, err := newClient(change).Resolve(t.Context(), registry.DefaultPlatform(), references...)
	require.NoError(t, err)
	return r
}

// asked returns the paths below the repository that a server was asked for.
func asked(s *registrytest.Server) (paths []string) {
	for _, r := range s.Requests() {
		if r.Path != "/v2/" {
			paths = append(paths, r.Path)
		}
	}
	return paths
}

// To resolve is one request; what is asked for later is asked for once, whatever
// needs it first and however many at the same time.
func TestResolvedAsksOnce(t *testing.T) {
	own := registry.DefaultPlatform().String()
	image := forPlatform(t, own)
	layer := layersOf(t, image)[0]
	for name, use := range map[string]func(*registry.Resolved) error{
		"content": func(r *registry.Resolved) error { _, _, err := r.Content(t.Context()); return err },
		"image":   func(r *registry.Resolved) error { _, err := r.Image(t.Context()); return err },
		"range": func(r *registry.Resolved) error {
			body, err := r.ReadRange(t.Context(), layer.Digest, 0, 10)
			if err == nil {
				err = body.Close()
			}
			return err
		},
	} {
		server := registrytest.New(t)
		ref, err := server.PushIndex("image:tag", indexOf(t, map[string]v1.Image{own: image}, own))
		require.NoError(t, err)
		r := resolve(t, nil, ref)
		assert.Equal(t, ref, r.Source())
		assert.Equal(t, digestOf(t, image), r.Digest())
		assert.Equal(t, []string{"/v2/image/manifests/tag"}, asked(server), name)

		var group sync.WaitGroup
		for range 8 {
			group.Go(func() { assert.NoError(t, use(r), name) })
		}
		group.Wait()
		manifests, configs := 0, 0
		for _, path := range asked(server) {
			switch path {
			case "/v2/image/manifests/" + digestOf(t, image).String():
				manifests++
			case "/v2/image/blobs/" + layer.Digest.String(), "/v2/image/manifests/tag":
			default:
				configs++
			}
		}
		assert.Equal(t, [2]int{1, 1}, [2]int{manifests, configs}, name)

		manifest, config, err := r.Content(t.Context())
		require.NoError(t, err)
		got, err := r.Image(t.Context())
		require.NoError(t, err)
		assert.Equal(t, got.Manifest(), manifest)
		assert.Equal(t, got.Config(), config)
	}
}

// A failure is not remembered: a later call tries again.
func TestResolvedTriesAgain(t *testing.T) {
	server := registrytest.New(t)
	ref := push(t, server, "image:tag", randomImage(t, 1))
	r := resolve(t, nil, ref)
	server.SetQuirks(registrytest.Quirks{Status: 404})
	for range 2 {
		before := len(server.Requests())
		_, _, err := r.Content(t.Context())
		require.ErrorIs(t, err, registry.ErrNotFound)
		assert.Len(t, server.Requests(), before+1)
		assert.Equal(t, ref, r.Source(), "it stays what it was")
	}
	r.Distrust(r.Digest()) // nothing was read
	assert.Nil(t, r.Origins(r.Digest()))

	server.SetQuirks(registrytest.Quirks{})
	_, _, err := r.Content(t.Context())
	require.NoError(t, err)
}

// The end of one caller's context is not that of the others.
func TestResolvedEndOfACaller(t *testing.T) {
	server := registrytest.New(t)
	ref := push(t, server, "image:tag", randomImage(t, 1))
	arrived, release := make(chan struct{}, 10), make(chan struct{})
	held := hold(t, server, "/blobs/", arrived, release)
	r := resolve(t, nil, held(ref))
	ctx, cancel := context.WithCancel(t.Context())
	first, second := make(chan error), make(chan error)
	go func() { _, err := r.Image(ctx); first <- err }()
	<-arrived
	go func() { _, _, err := r.Content(t.Context()); second <- err }()
	impatient, leave := context.WithCancel(t.Context())
	leave()
	_, err := r.Image(impatient)
	require.ErrorIs(t, err, context.Canceled, "a caller does not wait longer than its context allows")
	cancel()
	require.ErrorIs(t, <-first, context.Canceled)
	close(release)
	require.NoError(t, <-second)
}

// The image may come from another reference when the first one does not serve the
// rest; then Source and Digest are those of the other.
func TestResolvedFallsBack(t *testing.T) {
	mirror, own := registrytest.New(t), registrytest.New(t)
	other := randomImage(t, 1)
	there, here := push(t, mirror, "image:tag", randomImage(t, 1)), push(t, own, "image:tag", other)
	r := resolve(t, nil, there, here)
	assert.Equal(t, there, r.Source())
	mirror.SetQuirks(registrytest.Quirks{CorruptConfig: true})
	manifest, _, err := r.Content(t.Context())
	require.NoError(t, err)
	raw, err := other.RawManifest()
	require.NoError(t, err)
	assert.Equal(t, raw, manifest)
	assert.Equal(t, here, r.Source())
	assert.Equal(t, digestOf(t, other), r.Digest())

	layer := layersOf(t, other)[0]
	body, err := r.ReadRange(t.Context(), layer.Digest, 0, 10)
	require.NoError(t, err)
	require.NoError(t, body.Close())
	assert.Equal(t, []string{own.Host() + "/image"}, r.Origins(layer.Digest))
	r.Distrust(layer.Digest)
	assert.Empty(t, r.Origins(layer.Digest))
}

// nothing is a keychain, or an authenticator, that returns nil.
type nothing struct{ auth authn.Authenticator }

func (n nothing) Resolve(authn.Resource) (authn.Authenticator, error) { return n.auth, nil }
func (nothing) Authorization() (*authn.AuthConfig, error)             { return nil, nil }
func (nothing) Refused(authn.AuthConfig)                              {}

// Nil and zero values have a default or are an error.
func TestZeroValues(t *testing.T) {
	server := registrytest.New(t)
	own := registry.DefaultPlatform().String()
	mips, image := randomImage(t, 1), forPlatform(t, own)
	ref, err := server.PushIndex("image:tag", indexOf(t, map[string]v1.Image{"linux/mips": mips, own: image}, "linux/mips", own))
	require.NoError(t, err)

	t.Setenv("DOCKER_CONFIG", t.TempDir())
	for name, options := range map[string]*registry.Options{
		"nil": nil, "zero": {}, "empty chain": {Keychain: registry.Chain{}}, "negative": {RetryWait: -1, StallTimeout: -1},
		"nil in a chain": {Keychain: registry.Chain{{}, {Name: "none"}}},
	} {
		r, err := registry.New(options).Resolve(t.Context(), v1.Platform{}, ref)
		require.NoError(t, err, name)
		assert.Equal(t, digestOf(t, image), r.Digest(), "%s: the default is this machine's", name)
	}
	server.SetQuirks(registrytest.Quirks{User: "user", Password: "right-password"})
	for _, keychain := range []authn.Keychain{registry.Chain{{Name: "nothing", Keychain: nothing{}}}, registry.Chain{{Name: "nothing", Keychain: nothing{auth: nothing{}}}}} {
		_, err := newClient(func(o *registry.Options) { o.Keychain = keychain }).Resolve(t.Context(), v1.Platform{}, ref)
		require.Error(t, err)
	}
	server.SetQuirks(registrytest.Quirks{Token: true, User: "user", Password: "right-password"})
	_, err = newClient(func(o *registry.Options) { o.Keychain = nothing{auth: nothing{}} }).Resolve(t.Context(), v1.Platform{}, ref)
	require.ErrorIs(t, err, registry.ErrNoCredentials)
	for _, references := range [][]string{nil, {}, {""}, {"", ""}} {
		_, err := newClient(nil).Resolve(t.Context(), v1.Platform{}, references...)
		require.Error(t, err)
		if len(references) > 0 {
			require.ErrorIs(t, err, registry.ErrInvalidReference)
		}
	}
}

// Callers that wait for an attempt that fails share its error: none of them makes
// an attempt of its own.
func TestResolvedSharesAFailure(t *testing.T) {
	server := registrytest.New(t)
	push(t, server, "image:tag", randomImage(t, 1))
	synctest.Test(t, func(t *testing.T) {
		var blobs atomic.Int64
		release := make(chan struct{})
		r := resolve(t, func(o *registry.Options) {
			o.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
				answer := httptest.NewRecorder()
				if strings.Contains(r.URL.Path, "/blobs/") {
					blobs.Add(1)
					<-release
					answer.WriteHeader(http.StatusNotFound)
				} else {
					server.ServeHTTP(answer, r)
				}
				resp := answer.Result()
				resp.Request = r
				return resp, nil
			})
		}, "registry.example.com/image:tag")
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				_, err := r.Image(t.Context())
				assert.ErrorIs(t, err, registry.ErrNotFound)
			})
		}
		synctest.Wait()
		close(release)
		group.Wait()
		assert.Equal(t, int64(1), blobs.Load())
	})
}

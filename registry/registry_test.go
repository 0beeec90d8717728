package registry_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/registry"
	"github.com/dockercache/dockercache/registry/registrytest"
)

// anonymous ignores the credentials of the user who runs the tests.
var anonymous = authn.NewMultiKeychain()

// newClient returns a client that repeats requests without a noticeable wait.
func newClient(change func(*registry.Options)) *registry.Client {
	o := &registry.Options{Keychain: anonymous, RetryWait: time.Microsecond}
	if change != nil {
		change(o)
	}
	return registry.New(o)
}

func logTo(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func randomImage(t testing.TB, layers int64) v1.Image {
	t.Helper()
	image, err := random.Image(100_000, layers)
	require.NoError(t, err)
	return image
}

func push(t testing.TB, s *registrytest.Server, path string, image v1.Image) string {
	t.Helper()
	ref, err := s.Push(path, image)
	require.NoError(t, err)
	return ref
}

func digestOf(t testing.TB, image v1.Image) v1.Hash {
	t.Helper()
	d, err := image.Digest()
	require.NoError(t, err)
	return d
}

func layersOf(t testing.TB, image v1.Image) []v1.Descriptor {
	t.Helper()
	m, err := image.Manifest()
	require.NoError(t, err)
	return m.Layers
}

func contentOf(t testing.TB, image v1.Image, layer int) []byte {
	t.Helper()
	layers, err := image.Layers()
	require.NoError(t, err)
	r, err := layers[layer].Compressed()
	require.NoError(t, err)
	defer r.Close()
	content, err := io.ReadAll(r)
	require.NoError(t, err)
	return content
}

// indexOf makes an index with an attestation first, as BuildKit may have it.
func indexOf(t testing.TB, images map[string]v1.Image, order ...string) v1.ImageIndex {
	t.Helper()
	add := []mutate.IndexAddendum{{
		Add: randomImage(t, 1),
		Descriptor: v1.Descriptor{
			Platform:    &v1.Platform{OS: "unknown", Architecture: "unknown"},
			Annotations: map[string]string{"vnd.docker.reference.type": "attestation-manifest"},
		},
	}}
	for _, platform := range order {
		p, err := v1.ParsePlatform(platform)
		require.NoError(t, err)
		add = append(add, mutate.IndexAddendum{Add: images[platform], Descriptor: v1.Descriptor{Platform: p}})
	}
	return mutate.AppendManifests(empty.Index, add...)
}

// proxyTo has a server answer a request that came to another address.
func proxyTo(s *registrytest.Server, w http.ResponseWriter, r *http.Request) {
	target := &url.URL{Scheme: "http", Host: s.Host()}
	httputil.NewSingleHostReverseProxy(target).ServeHTTP(w, r)
}

// TestMain keeps the credentials of the user who runs the tests out of them.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "docker-config")
	if err != nil {
		panic(err)
	}
	_ = os.Setenv("DOCKER_CONFIG", dir)
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// hold puts a server before s that keeps requests for paths with a part waiting
// until release is closed. It returns what
// turns a reference of s into one of that server.
func hold(t *testing.T, s *registrytest.Server, part string, arrived chan<- struct{}, release <-chan struct{}) func(ref string) string {
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, part) {
			arrived <- struct{}{}
			select {
			case <-release:
			case <-r.Context().Done():
				return
			}
		}
		proxyTo(s, w, r)
	}))
	t.Cleanup(front.Close)
	return func(ref string) string { return strings.Replace(ref, s.Host(), front.Listener.Addr().String(), 1) }
}

package faults

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/imagetest"
	"github.com/dockercache/dockercache/registry"
	"github.com/dockercache/dockercache/registry/registrytest"
)

const (
	mib = 1 << 20
)

// Images are made once: their layers have some MiB.
var (
	oneRange = sync.OnceValues(func() (v1.Image, error) { return image(7 * mib) })
	oneLayer = sync.OnceValues(func() (v1.Image, error) { return image(20 * mib) })
	// three layers of two ranges each
	threeLayers = sync.OnceValues(func() (v1.Image, error) { return image(10*mib, 11*mib, 12*mib) })
)

func image(sizes ...int) (v1.Image, error) {
	var layers []v1.Layer
	for _, size := range sizes {
		l, err := imagetest.Layer(strconv.Itoa(size), size)
		if err != nil {
			return nil, err
		}
		layers = append(layers, l)
	}
	return imagetest.Image(layers...)
}

// What the package cache takes of the package registry: they do not import each other.
var _, _ tarball.MultiSource = (*registry.Image)(nil), (*registry.Resolved)(nil)

// A remote is an image in one or two registries, the mirror first, which
// another program has just resolved.
type remote struct {
	*registry.Image
	mirror, own *registrytest.Server // the same for one registry
	layers      []v1.Descriptor
	size        int64 // of all layers
}

// options of the client: no credentials of the user who runs the tests.
func options() *registry.Options {
	return &registry.Options{Keychain: authn.NewMultiKeychain(), RetryWait: time.Microsecond}
}

// resolved pushes an image to so many registries, and resolves it in the first.
// prepare, when not nil, is called with the servers before that.
func resolved(t *testing.T, make func() (v1.Image, error), registries int, o *registry.Options, prepare func(own *registrytest.Server)) *remote {
	t.Helper()
	image, err := make()
	require.NoError(t, err)
	manifest, err := image.Manifest()
	require.NoError(t, err)
	r := &remote{layers: manifest.Layers}
	for _, l := range r.layers {
		r.size += l.Size
	}
	var refs []string
	for i := range registries {
		server := registrytest.New(t)
		ref, err := server.Push("team/image:tag", image)
		require.NoError(t, err)
		refs = append(refs, ref)
		r.own = server
		if i == 0 {
			r.mirror = server
		}
	}
	if prepare != nil {
		prepare(r.own)
	}
	r.Image, err = registry.New(o).Image(t.Context(), registry.DefaultPlatform(), refs...)
	require.NoError(t, err)
	return r
}

// A putting is what came of putting a remote image.
type putting struct {
	*cache.Result
	err error
	dir string
}

// put stocks the image in a new directory.
func (r *remote) put(t *testing.T, connections int, o *cache.PutOptions) putting {
	t.Helper()
	return r.putContext(t.Context(), t, connections, o)
}

func (r *remote) putContext(ctx context.Context, t *testing.T, connections int, o *cache.PutOptions) putting {
	t.Helper()
	dir, err := cache.Open(t.TempDir(), &cache.Options{Connections: connections})
	require.NoError(t, err)
	img, err := tarball.NewImage(r.Source(), r.Manifest(), r.Config())
	require.NoError(t, err)
	result, err := dir.Put(ctx, "image_main.tar", img, r.Image, o)
	return putting{result, err, dir.Path()}
}

// requireRight verifies the tarball, and that nothing else is there.
func (r *remote) requireRight(t *testing.T, p putting) {
	t.Helper()
	require.NoError(t, p.err)
	stocked, err := tarball.Open(filepath.Join(p.dir, "image_main.tar"))
	require.NoError(t, err)
	require.NoError(t, stocked.Verify(t.Context(), nil))
	assert.Equal(t, r.Digest(), stocked.Image.Digest())
	entries, err := os.ReadDir(p.dir)
	require.NoError(t, err)
	for _, e := range entries {
		assert.True(t, e.Name() == "image_main.tar" || strings.HasSuffix(e.Name(), ".verified"), e.Name())
	}
}

// requireNoTarball: after an error nothing has the tarball's name.
func requireNoTarball(t *testing.T, p putting) {
	t.Helper()
	require.NoFileExists(t, filepath.Join(p.dir, "image_main.tar"))
}

// asked is a request for a range of a layer.
type asked struct {
	from, to int64 // [from, to)
	sent     int64
	remote   string
}

// askedOf returns the requests for a layer among all, in order. Each must be for
// a closed range, or for all of it without a range.
func askedOf(t *testing.T, layer v1.Descriptor, requests []registrytest.Request) []asked {
	t.Helper()
	var found []asked
	for _, req := range requests {
		if !strings.HasSuffix(req.Path, "/blobs/"+layer.Digest.String()) {
			continue
		}
		text := req.Header.Get("Range")
		if text == "" {
			found = append(found, asked{0, layer.Size, req.Sent, req.Remote})
			continue
		}
		require.Regexp(t, `^bytes=\d+-\d+$`, text, "only closed ranges")
		first, last, _ := strings.Cut(strings.TrimPrefix(text, "bytes="), "-")
		from, err := strconv.ParseInt(first, 10, 64)
		require.NoError(t, err)
		to, err := strconv.ParseInt(last, 10, 64)
		require.NoError(t, err)
		found = append(found, asked{from, to + 1, req.Sent, req.Remote})
	}
	return found
}

func sent(all []asked) (n int64) {
	for _, a := range all {
		n += a.sent
	}
	return n
}

// starts returns requests by where they begin.
func starts(all []asked) map[int64][]asked {
	found := map[int64][]asked{}
	for _, a := range all {
		found[a.from] = append(found[a.from], a)
	}
	return found
}

// allAsked is [askedOf] for many layers.
func allAsked(t *testing.T, layers []v1.Descriptor, requests []registrytest.Request) map[v1.Hash][]asked {
	t.Helper()
	found := map[v1.Hash][]asked{}
	for _, l := range layers {
		found[l.Digest] = askedOf(t, l, requests)
	}
	return found
}

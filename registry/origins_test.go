package registry_test

import (
	"context"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/registry"
	"github.com/dockercache/dockercache/registry/registrytest"
)

// An origin is what EachOrigin yields.
type origin struct {
	name, host string
	parallel   bool
	wait       time.Duration
	readRange  func(ctx context.Context, digest v1.Hash, offset, length int64) (io.ReadCloser, error)
}

func (o origin) read(ctx context.Context, digest v1.Hash, offset, length int64) ([]byte, error) {
	body, err := o.readRange(ctx, digest, offset, length)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

func (r remote) origins() (all []origin) {
	r.EachOrigin(r.layer.Digest, func(name, host string, parallel bool, wait time.Duration, read func(ctx context.Context, digest v1.Hash, offset, length int64) (io.ReadCloser, error)) bool {
		all = append(all, origin{name, host, parallel, wait, read})
		return true
	})
	return all
}

func hosts(origins []origin) (hosts []string) {
	for _, o := range origins {
		hosts = append(hosts, o.host)
	}
	return hosts
}

// Each repository is an origin of its own, in the order of the references; which may be
// read at the same time depends on AllSources.
func TestEachOrigin(t *testing.T) {
	for _, all := range []bool{false, true} {
		p := newPair(t)
		r := p.resolved(t, func(o *registry.Options) { o.AllSources = all })
		origins := r.origins()
		require.Equal(t, []string{p.mirror.Host(), p.own.Host()}, hosts(origins))
		for n, path := range []string{"/mirror/image", "/own/image"} {
			asked, server := origins[n], []*registrytest.Server{p.mirror, p.own}[n]
			assert.Equal(t, server.Host()+path, asked.name)
			assert.Equal(t, all, asked.parallel)
			assert.Zero(t, asked.wait)
			before := blobsAsked(server)
			got, err := asked.read(t.Context(), r.layer.Digest, 10, 100)
			require.NoError(t, err)
			assert.Equal(t, r.content[10:110], got)
			assert.Equal(t, before+1, blobsAsked(server))
			assert.Equal(t, 1, blobsAsked(server), "from nowhere else")
		}
		assert.Equal(t, []string{origins[0].name, origins[1].name}, r.Origins(r.layer.Digest))

		p.mirror.SetQuirks(registrytest.Quirks{BlobStatus: 404})
		_, err := origins[0].read(t.Context(), r.layer.Digest, 10, 100)
		require.ErrorIs(t, err, registry.ErrNotFound)
		assert.Equal(t, 1, blobsAsked(p.own), "another origin is not asked in its place")
		_, err = origins[0].read(t.Context(), r.layer.Digest, 10, r.layer.Size)
		require.ErrorIs(t, err, registry.ErrSize)
	}
}

// One that failed is asked after the others, for the time that it is set aside; and wrong
// bytes are asked of others, one at a time.
func TestOrderOfOrigins(t *testing.T) {
	p := newPair(t)
	r := p.resolved(t, func(o *registry.Options) { o.AllSources = true })
	mirrorFirst, ownFirst := []string{p.mirror.Host(), p.own.Host()}, []string{p.own.Host(), p.mirror.Host()}
	p.mirror.SetQuirks(registrytest.Quirks{BlobStatus: 500})
	for range 3 {
		_, err := r.origins()[0].read(t.Context(), r.layer.Digest, 0, 10)
		require.ErrorIs(t, err, registry.ErrUnreachable)
	}
	require.Equal(t, ownFirst, hosts(r.origins()))
	assert.Greater(t, r.origins()[1].wait, 20*time.Second)
	p.mirror.SetQuirks(registrytest.Quirks{})
	_, err := r.origins()[1].read(t.Context(), r.layer.Digest, 0, 10)
	require.NoError(t, err)
	require.Equal(t, mirrorFirst, hosts(r.origins()), "it was asked all the same, and is back")

	_, err = r.origins()[1].read(t.Context(), r.layer.Digest, 0, 10)
	require.NoError(t, err)
	r.Distrust(r.layer.Digest)
	require.Equal(t, ownFirst, hosts(r.origins()), "both sent bytes, and its own registry is more likely right")
	assert.False(t, r.origins()[0].parallel)
	assert.False(t, r.origins()[1].parallel)
	_, err = r.origins()[0].read(t.Context(), r.layer.Digest, 0, 10)
	require.NoError(t, err)
	r.Distrust(r.layer.Digest)
	require.Equal(t, mirrorFirst, hosts(r.origins()))
	assert.Equal(t, []string{p.mirror.Host() + "/mirror/image"}, func() []string {
		_, err := r.read(t.Context(), 0, 10)
		require.NoError(t, err)
		return r.Origins(r.layer.Digest)
	}())
}

// Callers that stop early, and images that were not resolved, are no trouble.
func TestEachOriginStops(t *testing.T) {
	r := newPair(t).resolved(t, nil)
	calls := 0
	r.EachOrigin(r.layer.Digest, func(string, string, bool, time.Duration, func(context.Context, v1.Hash, int64, int64) (io.ReadCloser, error)) bool {
		calls++
		return false
	})
	assert.Equal(t, 1, calls)
	assert.Empty(t, remote{}.origins())
	(*registry.Resolved)(nil).EachOrigin(v1.Hash{}, nil)
}

// Two references in one repository are one origin.
func TestOriginsOfOneRepository(t *testing.T) {
	p := newPair(t)
	other := push(t, p.mirror, "mirror/image:other", p.image)
	got, err := newClient(func(o *registry.Options) { o.AllSources = true }).Image(t.Context(), registry.DefaultPlatform(), p.mirrorRef, other, p.ownRef)
	require.NoError(t, err)
	assert.Equal(t, []string{p.mirror.Host(), p.own.Host()}, hosts(remote{got, p.mirror, layersOf(t, p.image)[0], nil}.origins()))
}

// A source whose time is over is asked by one, which finds out whether it is back; what
// is asked of it meanwhile, or before, is no harm.
func TestOriginIsBack(t *testing.T) {
	p := newPair(t)
	synctest.Test(t, func(t *testing.T) {
		held, release := make(chan struct{}), make(chan struct{})
		mirror := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") == "bytes=20-29" {
				close(held)
				<-release
			}
			p.mirror.ServeHTTP(w, r)
		})
		o := inBubble(t, map[string]http.Handler{"mirror.example.com": mirror, "own.example.com": p.own})
		r := remote{resolvedInBubble(t, o, "mirror.example.com/mirror/image:tag", "own.example.com/own/image:tag"), p.mirror, layersOf(t, p.image)[0], contentOf(t, p.image, 0)}
		p.mirror.SetQuirks(registrytest.Quirks{BlobStatus: 404})
		first := r.origins()[0]
		for range 3 {
			_, err := first.read(t.Context(), r.layer.Digest, 0, 10)
			require.ErrorIs(t, err, registry.ErrNotFound)
		}
		assert.Equal(t, 30*time.Second, r.origins()[1].wait)
		p.mirror.SetQuirks(registrytest.Quirks{})
		time.Sleep(30 * time.Second)
		require.Equal(t, "mirror.example.com", r.origins()[0].host)
		go func() {
			_, err := first.read(t.Context(), r.layer.Digest, 20, 10)
			assert.NoError(t, err)
		}()
		<-held
		origins := r.origins()
		assert.Equal(t, []string{"own.example.com", "mirror.example.com"}, hosts(origins))
		assert.Equal(t, time.Second, origins[1].wait, "look again then")
		close(release)
		synctest.Wait()
		assert.Equal(t, []string{"mirror.example.com", "own.example.com"}, hosts(r.origins()))
	})
}

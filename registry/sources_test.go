package registry_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/registry"
	"github.com/dockercache/dockercache/registry/registrytest"
)

// pair is an image that a mirror and its own registry have.
type pair struct {
	mirror, own       *registrytest.Server
	mirrorRef, ownRef string
	image             v1.Image
}

func newPair(t *testing.T) pair {
	t.Helper()
	p := pair{mirror: registrytest.New(t), own: registrytest.New(t), image: randomImage(t, 1)}
	p.mirrorRef, p.ownRef = push(t, p.mirror, "mirror/image:tag", p.image), push(t, p.own, "own/image:tag", p.image)
	return p
}

func (p pair) resolved(t *testing.T, change func(*registry.Options)) remote {
	t.Helper()
	got, err := newClient(change).Image(t.Context(), registry.DefaultPlatform(), p.mirrorRef, p.ownRef)
	require.NoError(t, err)
	return remote{got, p.mirror, layersOf(t, p.image)[0], contentOf(t, p.image, 0)}
}

// blobsAsked counts the requests for ranges of layers.
func blobsAsked(s *registrytest.Server) (n int) {
	for _, r := range s.Requests() {
		if r.Header.Get("Range") != "" {
			n++
		}
	}
	return n
}

// A mirror that keeps failing is not asked for every range, and is asked all the
// same when the other one fails too.
func TestFailingSourceIsSetAside(t *testing.T) {
	for name, q := range map[string]registrytest.Quirks{
		"unavailable": {BlobStatus: 503}, "absent": {BlobStatus: 404}, "denied": {BlobStatus: 403},
		"wrong": {WrongContentRange: true}, "cut": {CutBodyAfter: 10},
	} {
		p := newPair(t)
		var log bytes.Buffer
		r := p.resolved(t, func(o *registry.Options) { o.Logger = logTo(&log) })
		p.mirror.SetQuirks(q)
		for range 10 {
			_, _ = r.read(t.Context(), 0, 100) // a body that is cut fails
		}
		assert.Equal(t, 3, blobsAsked(p.mirror), name)
		assert.Contains(t, log.String(), "source keeps failing", name)
		assert.Equal(t, 1, strings.Count(log.String(), "source keeps failing"), name)

		p.mirror.SetQuirks(registrytest.Quirks{})
		p.own.SetQuirks(registrytest.Quirks{BlobStatus: 503})
		got, err := r.read(t.Context(), 0, 100)
		require.NoError(t, err, name)
		assert.Equal(t, r.content[:100], got)
		p.own.SetQuirks(registrytest.Quirks{})
		asked := blobsAsked(p.own)
		_, err = r.read(t.Context(), 0, 100)
		require.NoError(t, err)
		assert.Equal(t, asked, blobsAsked(p.own), "%s: the mirror has answered, so it is the first again", name)
	}
}

// Each range that a mirror refuses comes from the next source, and a registry
// that ignores ranges has not failed.
func TestSourceWithoutRangesIsNotSetAside(t *testing.T) {
	p := newPair(t)
	r := p.resolved(t, nil)
	p.mirror.SetQuirks(registrytest.Quirks{IgnoreRange: true})
	for range 10 {
		_, err := r.read(t.Context(), 10, 100)
		require.NoError(t, err)
	}
	asked := len(p.mirror.Requests())
	got, err := r.read(t.Context(), 0, r.layer.Size)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(r.content, got))
	assert.Len(t, p.mirror.Requests(), asked+1, "a whole blob is its to give")
}

// The first range of a source has to log in. The login is shared: it has
// retries, which ranges have not, and goes on when its first caller is gone.
func TestLoginOnTheWay(t *testing.T) {
	p := newPair(t)
	r := p.resolved(t, nil)
	p.mirror.SetQuirks(registrytest.Quirks{BlobStatus: 404})
	p.own.SetQuirks(registrytest.Quirks{LoginStatus: 503, LoginStatusCount: 2})
	_, err := r.read(t.Context(), 0, 10)
	require.NoError(t, err)

	p = newPair(t)
	arrived, release := make(chan struct{}, 10), make(chan struct{})
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			arrived <- struct{}{}
			<-release
		}
		proxyTo(p.own, w, r)
	}))
	defer front.Close()
	p.ownRef = strings.Replace(p.ownRef, p.own.Host(), front.Listener.Addr().String(), 1)
	r = p.resolved(t, nil)
	p.mirror.SetQuirks(registrytest.Quirks{BlobStatus: 404})
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error)
	go func() {
		_, err := r.read(ctx, 0, 10)
		first <- err
	}()
	<-arrived
	cancel()
	require.ErrorIs(t, <-first, context.Canceled)
	go close(release)
	_, err = r.read(t.Context(), 0, 10)
	require.NoError(t, err)
	assert.Empty(t, arrived, "the login that was under way served")
}

// A mirror that was away when the image was resolved may be back when another
// source fails: what was resolved is a digest, which any source can serve.
// One that does not have the image is not asked for its blobs.
func TestMirrorComesBack(t *testing.T) {
	for status, back := range map[int]bool{503: true, 404: false, 403: false} {
		p := newPair(t)
		p.mirror.SetQuirks(registrytest.Quirks{Status: status})
		r := p.resolved(t, nil)
		require.Equal(t, p.ownRef, r.Source())
		p.mirror.SetQuirks(registrytest.Quirks{})
		_, err := r.read(t.Context(), 0, 100)
		require.NoError(t, err)
		assert.Zero(t, blobsAsked(p.mirror), "not before the others")

		p.own.Close()
		got, err := r.read(t.Context(), 0, 100)
		if !back {
			require.ErrorIs(t, err, registry.ErrUnreachable)
			assert.Zero(t, blobsAsked(p.mirror), status)
			continue
		}
		require.NoError(t, err)
		assert.Equal(t, r.content[:100], got)
	}
}

// The next image asks the mirror no more while it is set aside.
func TestSetAsideHoldsForAllImages(t *testing.T) {
	p := newPair(t)
	client := newClient(nil)
	p.mirror.Close()
	for range 2 {
		got, err := client.Image(t.Context(), registry.DefaultPlatform(), p.mirrorRef, p.ownRef)
		require.NoError(t, err)
		assert.Equal(t, p.ownRef, got.Source())
	}
	_, err := client.Image(t.Context(), registry.DefaultPlatform(), p.mirrorRef, p.ownRef+"-absent")
	require.ErrorIs(t, err, registry.ErrUnreachable)
	require.ErrorIs(t, err, registry.ErrNotFound)
	assert.ErrorContains(t, err, "not asked again so soon: ")
	assert.ErrorContains(t, err, "connection refused")
}

// A mirror that has answered the login and then only fails is not waited for
// with each image.
func TestFailingManifestsSetAside(t *testing.T) {
	p := newPair(t)
	client := newClient(nil)
	resolve := func() {
		t.Helper()
		_, err := client.Image(t.Context(), registry.DefaultPlatform(), p.mirrorRef, p.ownRef)
		require.NoError(t, err)
	}
	resolve()
	p.mirror.SetQuirks(registrytest.Quirks{Status: 503})
	resolve()
	asked := len(p.mirror.Requests())
	for range 5 {
		resolve()
	}
	assert.Len(t, p.mirror.Requests(), asked)
}

func TestMirrorsMustAgree(t *testing.T) {
	must := func(o *registry.Options) { o.MirrorsMustAgree = true }
	p := newPair(t)
	p.resolved(t, must)

	push(t, p.mirror, "mirror/image:tag", randomImage(t, 1))
	resolve := func(change func(*registry.Options)) error {
		_, err := newClient(change).Image(t.Context(), registry.DefaultPlatform(), p.mirrorRef, p.ownRef)
		return err
	}
	require.NoError(t, resolve(nil), "a mirror is trusted by default")
	err := resolve(must)
	require.ErrorIs(t, err, registry.ErrDisagree)
	for _, part := range []string{p.mirrorRef, p.ownRef, "its own registry " + digestOf(t, p.image).String()} {
		assert.ErrorContains(t, err, part)
	}

	p.own.SetQuirks(registrytest.Quirks{Status: 403})
	err = resolve(must)
	require.ErrorIs(t, err, registry.ErrDisagree)
	require.ErrorIs(t, err, registry.ErrDenied, "one that cannot be asked does not agree")

	p.own.SetQuirks(registrytest.Quirks{Status: 503})
	client := newClient(must)
	_, err = client.Image(t.Context(), registry.DefaultPlatform(), p.mirrorRef, p.ownRef)
	require.ErrorIs(t, err, registry.ErrUnreachable)
	p.own.SetQuirks(registrytest.Quirks{})
	_, err = client.Image(t.Context(), registry.DefaultPlatform(), p.mirrorRef, p.ownRef)
	require.ErrorIs(t, err, registry.ErrDisagree)
	assert.ErrorContains(t, err, "its own registry "+digestOf(t, p.image).String(), "it is asked even while it is set aside")

	p.mirror.SetQuirks(registrytest.Quirks{Status: 404})
	require.NoError(t, resolve(must), "what is in its own registry alone is right")
}

// An index at one and the platform's manifest alone at the other are the same image.
func TestMirrorsMustAgreeOnThePlatform(t *testing.T) {
	p := newPair(t)
	_, err := p.own.PushIndex("own/image:tag", indexOf(t, map[string]v1.Image{registry.DefaultPlatform().String(): p.image}, registry.DefaultPlatform().String()))
	require.NoError(t, err)
	p.resolved(t, func(o *registry.Options) { o.MirrorsMustAgree = true })
}

// Ranges that are open side by side are spread over all sources that have the
// image.
func TestAllSources(t *testing.T) {
	open := func(t *testing.T, r remote, n int) {
		t.Helper()
		var group sync.WaitGroup
		for range n {
			group.Go(func() {
				if body, err := r.ReadRange(t.Context(), r.layer.Digest, 0, r.layer.Size-1); assert.NoError(t, err) {
					t.Cleanup(func() { _ = body.Close() })
				}
			})
		}
		group.Wait()
	}
	all := func(o *registry.Options) { o.AllSources = true }
	t.Run("both have it", func(t *testing.T) {
		p := newPair(t)
		open(t, p.resolved(t, all), 8)
		assert.Equal(t, 4, blobsAsked(p.mirror))
		assert.Equal(t, 4, blobsAsked(p.own))
	})
	t.Run("by default the first", func(t *testing.T) {
		p := newPair(t)
		open(t, p.resolved(t, nil), 8)
		assert.Equal(t, 8, blobsAsked(p.mirror))
	})
	t.Run("the other has another image under the tag", func(t *testing.T) {
		p := newPair(t)
		p.ownRef = push(t, p.own, "other/image:tag", randomImage(t, 1))
		open(t, p.resolved(t, all), 8)
		assert.Equal(t, 8, blobsAsked(p.mirror))
		assert.Zero(t, blobsAsked(p.own), "it was asked whether it has the image")
	})
	t.Run("the other keeps failing", func(t *testing.T) {
		p := newPair(t)
		client := newClient(all)
		p.own.SetQuirks(registrytest.Quirks{Status: 503})
		asked := 0
		for range 2 {
			_, err := client.Image(t.Context(), registry.DefaultPlatform(), p.mirrorRef, p.ownRef)
			require.NoError(t, err)
			assert.Contains(t, []int{0, len(p.own.Requests())}, asked, "once for all images")
			asked = len(p.own.Requests())
		}
	})
	t.Run("the other is down", func(t *testing.T) {
		p := newPair(t)
		p.own.Close()
		open(t, p.resolved(t, all), 8)
		assert.Equal(t, 8, blobsAsked(p.mirror))
	})
	t.Run("wrong bytes: then from one alone", func(t *testing.T) {
		p := newPair(t)
		r := p.resolved(t, all)
		r.Distrust(r.layer.Digest)
		open(t, r, 8)
		assert.Equal(t, 8, blobsAsked(p.own))
	})
	t.Run("failed ones do not count", func(t *testing.T) {
		p := newPair(t)
		r := p.resolved(t, all)
		p.mirror.SetQuirks(registrytest.Quirks{BlobStatus: 404, BlobStatusCount: 2})
		for range 2 {
			_, err := r.read(t.Context(), 0, 10)
			require.NoError(t, err)
		}
		mirror, own := blobsAsked(p.mirror), blobsAsked(p.own)
		open(t, r, 4)
		assert.Equal(t, mirror+2, blobsAsked(p.mirror))
		assert.Equal(t, own+2, blobsAsked(p.own))
	})
	t.Run("closed ones do not count", func(t *testing.T) {
		p := newPair(t)
		r := p.resolved(t, all)
		for range 4 {
			body, err := r.ReadRange(t.Context(), r.layer.Digest, 0, r.layer.Size-1)
			require.NoError(t, err)
			_, err = io.Copy(io.Discard, body)
			require.NoError(t, err)
			require.NoError(t, body.Close())
			require.NoError(t, body.Close(), "twice is once")
		}
		assert.Equal(t, 4, blobsAsked(p.mirror))
	})
}

// The sources of bytes are known when the bytes turn out wrong.
func TestOrigins(t *testing.T) {
	p := newPair(t)
	var log bytes.Buffer
	r := p.resolved(t, func(o *registry.Options) { o.AllSources, o.Logger = true, logTo(&log) })
	assert.Empty(t, r.Origins(r.layer.Digest))
	body, err := r.ReadRange(t.Context(), r.layer.Digest, 0, 10)
	require.NoError(t, err)
	defer body.Close()
	_, err = r.read(t.Context(), 0, 10)
	require.NoError(t, err)
	both := []string{p.mirror.Host() + "/mirror/image", p.own.Host() + "/own/image"}
	assert.Equal(t, both, r.Origins(r.layer.Digest))
	r.Distrust(r.layer.Digest)
	assert.Contains(t, log.String(), strings.Join(both, ", "))
	assert.Empty(t, r.Origins(r.layer.Digest))
}

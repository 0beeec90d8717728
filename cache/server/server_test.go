package server

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/dockercache/dockercache/cache"
)

func TestGreeting(t *testing.T) {
	c := connect(newShelf(t))
	for _, path := range []string{"/v2", "/v2/"} {
		got := c.get(path)
		assert.Equal(t, http.StatusOK, got.StatusCode)
		assert.Equal(t, "{}", string(got.body))
		assert.Equal(t, "application/json", got.Header.Get("Content-Type"))
		assert.Equal(t, "registry/2.0", got.Header.Get("Docker-Distribution-Api-Version"))
		got = c.do(http.MethodHead, path)
		assert.Equal(t, http.StatusOK, got.StatusCode)
		assert.Empty(t, got.body)
	}
}

// pull pulls an image as a client does, and proves all of it.
func pull(t *testing.T, ref string) (v1.Image, error) {
	parsed, err := name.ParseReference(ref)
	if err != nil {
		return nil, err
	}
	img, err := remote.Image(parsed, remote.WithContext(t.Context()))
	if err != nil {
		return nil, err
	}
	return img, validate.Image(img)
}

// A client that others have written pulls, and lists.
func TestClientPulls(t *testing.T) {
	s := newShelf(t)
	s.stock("debian", "debian:12", "a")
	tarball := s.stock("image", testRef, "a", "large", "b")
	s.stock("next", "registry.test/team/image:v2", "a", "c")
	c := connect(s)
	digest := tarball.Image.Digest()
	for _, ref := range []string{"/registry.test/team/image:v1", "/team/image:v1", "/team/image@" + digest.String()} {
		img, err := pull(t, c.host+ref)
		require.NoError(t, err, ref)
		got, err := img.Digest()
		require.NoError(t, err)
		assert.Equal(t, digest, got)
	}
	_, err := pull(t, c.host+"/docker.io/library/debian:12")
	require.NoError(t, err)

	r, err := name.NewRegistry(c.host)
	require.NoError(t, err)
	for _, size := range []int{1, 100} {
		names, err := remote.Catalog(t.Context(), r, remote.WithPageSize(size))
		require.NoError(t, err)
		assert.Equal(t, []string{"docker.io/library/debian", "registry.test/team/image"}, names)
		tags, err := remote.List(r.Repo("team", "image"), remote.WithPageSize(size))
		require.NoError(t, err)
		assert.Equal(t, []string{"v1", "v2"}, tags)
	}
	assert.Empty(t, c.told.take())
}

// isReplaced tells whether all that went wrong with a pull is that blobs are gone, and
// not this one, which every tarball has.
func isReplaced(err error, base string) bool {
	for _, part := range strings.Split(err.Error(), "\n\n") { // as validate joins them
		if !strings.Contains(part, ": BLOB_UNKNOWN: ") || strings.Contains(part, base) {
			return false
		}
	}
	return true
}

// Tarballs are replaced while many pull. A pull is whole, or it is told that what it
// has begun with is gone; nobody gets a mixture.
func TestClientsPullWhileTarballsAreReplaced(t *testing.T) {
	const clients, tarballs, times = 16, 4, 5
	s := newShelf(t)
	ref := func(i int) string { return fmt.Sprintf("registry.test/team/image:v%d", i) }
	write := func(i, n int) { s.stock(fmt.Sprintf("image%d", i), ref(i), "base", fmt.Sprintf("own%d.%d", i, n)) }
	for i := range tarballs {
		write(i, 0)
	}
	base, _ := layerOf(t, "base")
	c := connect(s)
	ended := make(chan struct{})
	var group errgroup.Group
	for n := range clients {
		group.Go(func() error {
			for {
				last := false
				select {
				case <-ended:
					last = true // nothing changes any more
				default:
				}
				_, err := pull(t, c.host+"/"+ref(n%tarballs))
				if last || err != nil && !isReplaced(err, base) {
					return err
				}
			}
		})
	}
	for n := range times {
		for i := range tarballs {
			write(i, n+1)
		}
	}
	close(ended)
	require.NoError(t, group.Wait())
	assert.Empty(t, c.told.take())
}

// One image: only who knows its tag or digest gets it, and there are no lists.
func TestNewImage(t *testing.T) {
	s := newShelf(t)
	tarball := s.stock("image", testRef, "a", "b")
	s.stock("other", "registry.test/team/image:v2", "c")
	s.age("image.tar", 1)
	s.unmark("image.tar")
	c := &client{t: t, told: &failures{}}
	c.host = serve(t, NewImage(tarball, "own", "t-0123", &Options{Failed: c.told.add}))
	img, err := pull(t, c.host+"/own:t-0123")
	require.NoError(t, err)
	digest, err := img.Digest()
	require.NoError(t, err)
	assert.Equal(t, tarball.Image.Digest(), digest)
	_, err = pull(t, c.host+"/own@"+digest.String())
	require.NoError(t, err)
	c.requireImage(tarball, "own", "t-0123?ns=any.test")

	for _, path := range []string{"/v2/_catalog", "/v2/own/tags/list", "/v2/team/image/tags/list"} {
		c.requireRefused(http.StatusNotFound, "UNSUPPORTED", path)
	}
	for _, ref := range []string{"v1", "latest", "list", absent} {
		message := c.requireRefused(http.StatusNotFound, "MANIFEST_UNKNOWN", "/v2/own/manifests/"+ref)
		assert.NotContains(t, message, "t-0123")
	}
	for _, repository := range []string{"team/image", "registry.test/team/image", "registry.test/own"} {
		c.requireRefused(http.StatusNotFound, "NAME_UNKNOWN", "/v2/"+repository+"/manifests/v1")
		c.requireRefused(http.StatusNotFound, "NAME_UNKNOWN", "/v2/"+repository+"/manifests/t-0123")
	}
	other, _ := layerOf(t, "c")
	c.requireRefused(http.StatusNotFound, "BLOB_UNKNOWN", "/v2/own/blobs/"+other)
	_, err = os.Stat(s.path(".image.tar.mark"))
	require.ErrorIs(t, err, os.ErrNotExist, "it is no pull from the directory")

	// What takes its place gives the layers that both have, and no other.
	s.stock("image", testRef, "a", "d")
	a, raw := layerOf(t, "a")
	b, _ := layerOf(t, "b")
	d, _ := layerOf(t, "d")
	c.requireServed(raw, "/v2/own/blobs/"+a)
	assert.Empty(t, c.told.take())
	c.requireRefused(http.StatusNotFound, "BLOB_UNKNOWN", "/v2/own/blobs/"+b)
	all := c.told.take()
	require.Len(t, all, 1, "a pull that is under way fails for it")
	require.ErrorIs(t, all[0], cache.ErrReplaced)
	c.requireRefused(http.StatusNotFound, "BLOB_UNKNOWN", "/v2/own/blobs/"+d)
	assert.Empty(t, c.told.take(), "that was never its own")
	require.NoError(t, os.Remove(tarball.Path))
	c.requireRefused(http.StatusNotFound, "BLOB_UNKNOWN", "/v2/own/blobs/"+a)
	assert.Len(t, c.told.take(), 1)
}

// The log has each request, and what could not be read; it is silent without options.
func TestLogger(t *testing.T) {
	s := newShelf(t)
	s.stock("image", testRef, "a")
	log := &logged{}
	c := &client{t: t, host: serve(t, New(s.dir, &Options{Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))}))}
	a, raw := layerOf(t, "a")
	c.get("/v2/team/image/blobs/"+a, "Range: bytes=3-4")
	assert.Contains(t, log.String(), "method=GET url=/v2/team/image/blobs/"+a+" range=\"bytes=3-4\"")
	assert.NotContains(t, log.String(), "cannot read")
	require.NoError(t, os.RemoveAll(s.dir.Path()))
	c.get("/v2/_catalog")
	assert.Contains(t, log.String(), `msg="cannot read" url=/v2/_catalog error=`)

	s = newShelf(t)
	s.stock("image", testRef, "a")
	c = &client{t: t, host: serve(t, New(s.dir, nil))}
	c.requireServed(raw, "/v2/team/image/blobs/"+a)
	require.NoError(t, os.RemoveAll(s.dir.Path()))
	c.requireRefused(http.StatusInternalServerError, "UNKNOWN", "/v2/_catalog")
	c = &client{t: t, host: serve(t, NewImage(&cache.Tarball{Image: &cache.Image{}}, "own", "t", nil))}
	c.requireRefused(http.StatusNotFound, "MANIFEST_UNKNOWN", "/v2/own/manifests/other")
}

// logged is what was logged.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

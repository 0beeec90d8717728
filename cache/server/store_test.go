package server

import (
	"context"
	"errors"
	"net/http"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/tarball"
)

// remoteStore is a store that is no directory, and counts what it is asked.
type remoteStore struct {
	*cache.Dir
	lists, gets, touches atomic.Int64
	fail                 atomic.Pointer[error] // of List
}

func (s *remoteStore) List(ctx context.Context) ([]cache.Entry, error) {
	s.lists.Add(1)
	if err := s.fail.Load(); err != nil {
		return nil, *err
	}
	return s.Dir.List(ctx)
}

func (s *remoteStore) Get(ctx context.Context, name string) (*tarball.Tarball, error) {
	s.gets.Add(1)
	return s.Dir.Get(ctx, name)
}

func (s *remoteStore) Touch(ctx context.Context, name string) error {
	s.touches.Add(1)
	return s.Dir.Touch(ctx, name)
}

// connectStore serves a shelf as a store that is no directory.
func connectStore(t *testing.T, s *shelf, o Options) (*remoteStore, *client) {
	t.Helper()
	store := &remoteStore{Dir: s.dir}
	c := &client{t: t, reported: &failures{}}
	o.Failed = c.reported.add
	h := NewOf(store, &o)
	t.Cleanup(func() { _ = h.Close() })
	c.host = serve(t, h)
	return store, c
}

// A store is listed once in a while, however much is asked, and what is asked for again is
// open still.
func TestStoreIsListedNowAndThen(t *testing.T) {
	s := newShelf(t)
	file := s.stock("image", testRef, "a", "b")
	store, c := connectStore(t, s, Options{ListEvery: time.Hour})
	for range 3 {
		c.requireImage(file, "registry.test/team/image", "v1")
		c.requireRefused(http.StatusNotFound, "BLOB_UNKNOWN", "/v2/registry.test/team/image/blobs/"+absent)
	}
	assert.EqualValues(t, 1, store.lists.Load())
	assert.EqualValues(t, 1, store.gets.Load())
	assert.EqualValues(t, 1, store.touches.Load(), "uses are recorded now and then")
	assert.Empty(t, c.reported.take())

	// What has come is served later.
	s.stock("more", "registry.test/team/more:v1", "c")
	c.requireRefused(http.StatusNotFound, "NAME_UNKNOWN", "/v2/registry.test/team/more/manifests/v1")
	assert.EqualValues(t, 1, store.lists.Load())
}

func TestStoreIsListedAgain(t *testing.T) {
	s := newShelf(t)
	s.stock("image", testRef, "a")
	s.stock("more", "registry.test/team/more:v1", "c")
	store := &remoteStore{Dir: s.dir}
	synctest.Test(t, func(t *testing.T) {
		h := NewOf(store, nil)
		look := func(images int, lists int64) {
			t.Helper()
			n, err := h.Look(t.Context())
			require.NoError(t, err)
			assert.Equal(t, images, n)
			assert.Equal(t, lists, store.lists.Load())
		}
		look(2, 1)
		require.NoError(t, os.Remove(s.path("more.tar")))
		time.Sleep(DefaultListEvery - time.Nanosecond) // the bubble's clock
		look(2, 1)
		time.Sleep(time.Nanosecond)
		look(1, 2)
	})
}

// A tarball that is found to be another one is looked for at once.
func TestStoreIsListedWhenATarballIsGone(t *testing.T) {
	s := newShelf(t)
	first := s.stock("image", testRef, "a", "b")
	store, c := connectStore(t, s, Options{ListEvery: time.Hour, Hold: -1})
	c.requireImage(first, "registry.test/team/image", "v1")
	second := s.stock("image", testRef, "a", "d")
	c.requireImage(second, "registry.test/team/image", "v1")
	assert.EqualValues(t, 2, store.lists.Load())
	b, _ := layerOf(t, "b")
	c.requireRefused(http.StatusNotFound, "BLOB_UNKNOWN", "/v2/registry.test/team/image/blobs/"+b)

	require.NoError(t, os.Remove(s.path("image.tar")))
	c.requireRefused(http.StatusNotFound, "NAME_UNKNOWN", "/v2/registry.test/team/image/manifests/v1")
	assert.Empty(t, c.reported.take())
}

// A client that has got the manifest gets the layers of the tarball that is held, where the
// store keeps what is open.
func TestStoreIsHeld(t *testing.T) {
	s := newShelf(t)
	first := s.stock("image", testRef, "a", "b")
	_, c := connectStore(t, s, Options{ListEvery: -1})
	require.Equal(t, http.StatusOK, c.get("/v2/registry.test/team/image/manifests/v1").StatusCode)
	second := s.stock("image", testRef, "d")
	c.requireImage(second, "registry.test/team/image", "v1")
	b, raw := layerOf(t, "b")
	c.requireServed(raw, "/v2/registry.test/team/image/blobs/"+b)
	c.requireServed(first.Image.Manifest(), "/v2/registry.test/team/image/manifests/"+first.Image.Digest().String())
}

// What is no tarball is reported once; a store that fails is asked again by the next
// request.
func TestStoreWithTrouble(t *testing.T) {
	s := newShelf(t)
	file := s.stock("image", testRef, "a")
	s.write("junk.tar", []byte("junk"))
	store, c := connectStore(t, s, Options{ListEvery: -1})
	for range 3 {
		c.requireImage(file, "registry.test/team/image", "v1")
	}
	all := c.reported.take()
	require.Len(t, all, 1)
	assert.ErrorIs(t, all[0], tarball.ErrNotTarball)
	s.write("junk.tar", []byte("more junk"))

	down := errors.New("it is down")
	store.fail.Store(&down)
	c.requireRefused(http.StatusServiceUnavailable, "UNAVAILABLE", "/healthz")
	assert.Equal(t, http.StatusInternalServerError, c.get("/v2/registry.test/team/image/manifests/v1").StatusCode)
	for _, err := range c.reported.take() {
		assert.ErrorIs(t, err, down)
	}
	store.fail.Store(nil)
	c.requireImage(file, "registry.test/team/image", "v1")
	assert.Equal(t, http.StatusOK, c.get("/healthz").StatusCode)
}

func TestNewOfDirectoryOrNothing(t *testing.T) {
	s := newShelf(t)
	s.stock("image", testRef, "a")
	h := NewOf(s.dir, nil)
	assert.IsType(t, &dirCatalog{}, h.server.catalog)
	n, err := NewOf(nil, nil).Look(t.Context())
	require.NoError(t, err)
	assert.Zero(t, n)
	require.NoError(t, NewOf(nil, nil).Close())
}

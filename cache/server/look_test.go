package server

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/tarball"
)

// settle makes a directory one that is as it was for long.
func (c *dirCatalog) settle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if info, err := os.Stat(c.dir.Path()); err == nil {
		c.state = versionOf(info)
	}
	c.since = time.Now().Add(-time.Hour)
	c.scanned = time.Now()
}

// watched is a catalog that counts which tarballs it reads.
type watched struct {
	*dirCatalog
	t     *testing.T
	reads atomic.Int64
}

func watch(s *shelf) *watched {
	w := &watched{t: s.t}
	w.dirCatalog = newDirCatalog(s.dir, -1, func(_ context.Context, err error) { s.t.Log(err) })
	w.read = func(ctx context.Context, names []string) ([]cache.Entry, error) {
		w.reads.Add(int64(len(names)))
		return s.dir.Entries(ctx, names)
	}
	return w
}

// requireLook looks at the directory, and verifies how many images there are and how many
// tarballs were read for that.
func (w *watched) requireLook(images, reads int64) {
	w.t.Helper()
	w.reads.Store(0)
	known, err := w.images(w.t.Context(), true)
	require.NoError(w.t, err)
	assert.EqualValues(w.t, images, len(known.all))
	assert.Equal(w.t, reads, w.reads.Load())
}

// Only what has changed is read.
func TestLookReadsWhatHasChanged(t *testing.T) {
	s := newShelf(t)
	for i := range 20 {
		s.stock(fmt.Sprint("image", i), fmt.Sprintf("registry.test/team/image:v%d", i), "a")
	}
	c := watch(s)
	c.requireLook(20, 20)
	c.requireLook(20, 0)
	s.stock("image3", "registry.test/team/image:v3", "b")
	c.requireLook(20, 1)
	s.stock("more", "registry.test/team/image:more", "b")
	c.requireLook(21, 1)
	require.NoError(t, os.Remove(s.path("more.tar")))
	c.requireLook(20, 0)
	require.NoError(t, os.Rename(s.path("image4.tar"), s.path("renamed.tar")))
	c.requireLook(20, 1)
	s.write("junk.tar", []byte("junk"))
	c.requireLook(20, 1)
	c.requireLook(20, 0)
	s.write(".partial", []byte("of a writer"))
	c.requireLook(20, 0)
	s.write(".image5.tar.mark", []byte("{}")) // which may say what is the newest
	c.requireLook(20, 1)
	s.write(".image5.tar.1000.mark", []byte("{}"))
	c.requireLook(20, 1)
	require.NoError(t, os.Chmod(s.path("image6.tar"), 0o600)) // it may have become readable
	c.requireLook(20, 1)
	require.NoError(t, os.RemoveAll(s.dir.Path()))
	_, err := c.images(t.Context(), true)
	require.ErrorIs(t, err, os.ErrNotExist)
}

// As long as the directory is as it was, its files are not looked at.
func TestLookAtADirectoryAsItWas(t *testing.T) {
	s := newShelf(t)
	s.stock("image", testRef, "a")
	c := watch(s)
	isScanned := func() bool {
		before := c.scanned
		c.requireLook(1, 0)
		return c.scanned.After(before)
	}
	c.requireLook(1, 1)
	assert.True(t, isScanned(), "it has only just become so")
	c.settle()
	assert.False(t, isScanned())
	s.write(".partial", []byte("of a writer"))
	assert.True(t, isScanned(), "something has changed")
	assert.True(t, isScanned(), "the next change may have the same time")
	c.settle()
	assert.False(t, isScanned())
	c.scanned = c.scanned.Add(-scanEvery)
	assert.True(t, isScanned(), "now and then")
}

// What a writer changes in place is noticed where it is asked for, though the directory is
// as it was; and a file that was no tarball when it came, as one that is being copied,
// becomes one.
func TestWrittenInPlace(t *testing.T) {
	s := newShelf(t)
	elsewhere := newShelf(t)
	first := s.stock("image", testRef, "a")
	copied := elsewhere.stock("copied", "registry.test/team/copied:v1", "b")
	whole, err := os.ReadFile(copied.Name())
	require.NoError(t, err)
	half, err := os.Create(s.path("copied.tar"))
	require.NoError(t, err)
	defer half.Close()
	c := &client{t: t, reported: &failures{}}
	h := New(s.dir, &Options{Failed: c.reported.add, Hold: -1})
	c.host = serve(t, h)
	c.requireImage(first, "registry.test/team/image", "v1")
	h.server.catalog.(*dirCatalog).settle()
	c.requireRefused(http.StatusNotFound, "NAME_UNKNOWN", "/v2/registry.test/team/copied/manifests/v1")
	require.Len(t, c.reported.take(), 1)
	for at := 0; at < len(whole); at += 1000 {
		_, err := half.Write(whole[at:min(at+1000, len(whole))])
		require.NoError(t, err)
		_, err = h.Look(t.Context())
		require.NoError(t, err)
		require.Empty(t, c.reported.take(), "not at each step")
	}
	c.requireImage(copied, "registry.test/team/copied", "v1")

	second := elsewhere.stock("image", testRef, "c")
	raw, err := os.ReadFile(second.Name())
	require.NoError(t, err)
	h.server.catalog.(*dirCatalog).settle()
	require.NoError(t, os.WriteFile(s.path("image.tar"), raw, 0o644))
	c.requireImage(second, "registry.test/team/image", "v1")
	assert.Empty(t, c.reported.take())
}

// A record that is written in place says which of two tarballs is the newest run's.
func TestRecordWrittenInPlace(t *testing.T) {
	s := newShelf(t)
	one := s.stockOf(tarball.Run{ID: 1}, "one", testRef, "a")
	two := s.stockOf(tarball.Run{ID: 2}, "two", testRef, "b")
	s.stockOf(tarball.Run{ID: 1}, "one", testRef, "a") // which makes a record
	h := New(s.dir, nil)
	c := &client{t: t, host: serve(t, h)}
	c.requireImage(two, "registry.test/team/image", "v1")
	s.stockOf(tarball.Run{ID: 2}, "two", testRef, "b")
	_, err := h.Look(t.Context())
	require.NoError(t, err)
	s.stockOf(tarball.Run{ID: 3}, "one", testRef, "a") // unchanged: the record alone is written
	h.server.catalog.(*dirCatalog).settle()            // a writer may have had files of its own on the way
	c.requireImage(one, "registry.test/team/image", "v1")
}

// A request that is given up does not take from others what was found for it.
func TestLookOfARequestThatEnds(t *testing.T) {
	s := newShelf(t)
	file := s.stock("image", testRef, "a")
	c := &client{t: t, reported: &failures{}}
	h := New(s.dir, &Options{Failed: c.reported.add})
	c.host = serve(t, h)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	n, err := h.Look(ended)
	require.NoError(t, err)
	assert.Equal(t, 1, n)
	c.requireImage(file, "registry.test/team/image", "v1")
	assert.Empty(t, c.reported.take())
}

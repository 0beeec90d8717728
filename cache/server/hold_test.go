package server

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/tarballtest"
)

// direct calls a handler without a network, as a bubble of synctest requires.
func direct(h http.Handler, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w
}

// descriptors returns how many descriptors of this process are of files in a directory,
// removed ones too.
func descriptors(t *testing.T, dir string) (n int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc")
	}
	for _, e := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(target, dir+"/") {
			n++
		}
	}
	return n
}

// What a client of a manifest asks for next is served for as long as the hold lasts
// after each request, whatever happens to the tarball.
func TestHold(t *testing.T) {
	const tag = "/v2/registry.test/team/image/manifests/v1"
	for name, replace := range map[string]func(s *shelf){
		"replaced":         func(s *shelf) { s.stock("image", testRef, "c") },
		"another tag's":    func(s *shelf) { s.stock("image", "registry.test/team/image:v2", "c") },
		"another image's":  func(s *shelf) { s.stock("image", "registry.test/team/other:v1", "c") },
		"removed":          func(s *shelf) { require.NoError(s.t, os.Remove(s.path("image.tar"))) },
		"no longer one":    func(s *shelf) { require.NoError(s.t, os.Rename(s.path("image.tar"), s.path("image.tar.old"))) },
		"replaced by junk": func(s *shelf) { s.write("image.tar", []byte("junk")) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newShelf(t)
				file := s.stock("image", testRef, "a", "b")
				h := New(s.dir, nil)
				want := map[string][]byte{}
				for _, l := range []string{"a", "b"} {
					digest, raw := layerOf(t, l)
					want["/v2/registry.test/team/image/blobs/"+digest] = raw
				}
				want["/v2/registry.test/team/image/blobs/"+file.Image.ConfigDigest().String()] = file.Image.Config()
				want["/v2/registry.test/team/image/blobs/"+file.Image.Digest().String()] = file.Image.Manifest()
				want["/v2/registry.test/team/image/manifests/"+file.Image.Digest().String()] = file.Image.Manifest()
				require.Equal(t, file.Image.Manifest(), direct(h, tag).Body.Bytes())
				replace(s)
				for path, raw := range want {
					time.Sleep(DefaultHold - time.Nanosecond) // of the bubble's clock
					synctest.Wait()
					got := direct(h, path)
					require.Equal(t, http.StatusOK, got.Code, path)
					require.True(t, bytes.Equal(raw, got.Body.Bytes()), path)
					require.Equal(t, 1, descriptors(t, s.dir.Path()))
					// A tag is that of what is there now.
					if now := direct(h, tag); name == "replaced" {
						require.Equal(t, http.StatusOK, now.Code)
						require.NotEqual(t, file.Image.Manifest(), now.Body.Bytes())
						require.Equal(t, 2, descriptors(t, s.dir.Path()))
						time.Sleep(DefaultHold / 2)
						require.Equal(t, http.StatusOK, direct(h, path).Code)
						time.Sleep(DefaultHold / 2) // so that only that one is held
						synctest.Wait()
					} else {
						require.Equal(t, http.StatusNotFound, now.Code)
					}
					require.Equal(t, http.StatusOK, direct(h, path).Code)
				}
				time.Sleep(DefaultHold)
				synctest.Wait()
				assert.Zero(t, descriptors(t, s.dir.Path()))
				for path := range want {
					require.Equal(t, http.StatusNotFound, direct(h, path).Code, path)
				}
			})
		})
	}
}

// The list of tags has what is there, and nothing that is only held.
func TestHeldIsNotListed(t *testing.T) {
	s := newShelf(t)
	s.stock("image", testRef, "a")
	c := connect(s)
	require.Equal(t, http.StatusOK, c.get("/v2/registry.test/team/image/manifests/v1").StatusCode)
	s.stock("image", "registry.test/team/image:v2", "b")
	assert.Equal(t, []string{`["v2"]`}, c.list("/v2/registry.test/team/image/tags/list", "tags"))
	require.NoError(t, os.Remove(s.path("image.tar")))
	assert.Equal(t, []string{`[]`}, c.list("/v2/_catalog", "repositories"))
	c.requireRefused(http.StatusNotFound, "NAME_UNKNOWN", "/v2/registry.test/team/image/tags/list")
}

// Prune spares what a client may be in the middle of, and not for longer.
func TestPruneSparesWhatIsHeld(t *testing.T) {
	for _, hold := range []time.Duration{time.Minute, -1} {
		synctest.Test(t, func(t *testing.T) {
			s := newShelf(t)
			s.stock("image", testRef, "a")
			s.stock("other", "registry.test/team/other:v1", "b")
			h := New(s.dir, &Options{Hold: hold})
			digest, raw := layerOf(t, "a")
			layer := "/v2/registry.test/team/image/blobs/" + digest
			require.Equal(t, http.StatusOK, direct(h, "/v2/registry.test/team/image/manifests/v1").Code)
			prune := func() (removed []string) {
				result, err := s.dir.Prune(t.Context(), &cache.PruneOptions{MaxAge: time.Nanosecond, RemoveNewest: true})
				require.NoError(t, err)
				for _, p := range result.Removed {
					removed = append(removed, p.Entry.Name)
				}
				return removed
			}
			for _, name := range []string{"image", "other"} { // the bubble's clock is behind that of files
				at := time.Now().Add(-time.Hour)
				require.NoError(t, os.Chtimes(s.path(name+".tar"), at, at))
				s.unmark(name + ".tar")
			}
			if hold < 0 {
				assert.Zero(t, descriptors(t, s.dir.Path()))
				assert.ElementsMatch(t, []string{"image.tar", "other.tar"}, prune())
				assert.Equal(t, http.StatusNotFound, direct(h, layer).Code)
				return
			}
			assert.Equal(t, []string{"other.tar"}, prune())
			assert.Equal(t, raw, direct(h, layer).Body.Bytes())
			time.Sleep(hold - time.Nanosecond)
			synctest.Wait()
			assert.Empty(t, prune())
			time.Sleep(time.Nanosecond)
			synctest.Wait()
			assert.Zero(t, descriptors(t, s.dir.Path()))
			assert.Equal(t, []string{"image.tar"}, prune())
			assert.Equal(t, http.StatusNotFound, direct(h, layer).Code)
		})
	}
}

// A tarball in use is not closed, however long an answer takes.
func TestHoldBeginsWithTheLastUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf(t)
		file := s.stock("image", testRef, "a")
		h, i := &holder{hold: time.Minute}, image{info: &file.Info, file: "image.tar"}
		get := func() (*tarball.Tarball, error) { return s.dir.Get(t.Context(), "image.tar") }
		first, done, err := h.acquire(i, get)
		require.NoError(t, err)
		again, doneAgain, err := h.acquire(i, get)
		require.NoError(t, err)
		assert.Same(t, first, again)
		done()
		done() // has no effect
		time.Sleep(time.Hour)
		synctest.Wait()
		assert.Equal(t, 1, descriptors(t, s.dir.Path()))
		doneAgain()
		time.Sleep(time.Minute)
		synctest.Wait()
		assert.Zero(t, descriptors(t, s.dir.Path()))
		assert.Empty(t, h.images())
	})
}

// While a slow file server opens one tarball, others are served; of two requests that
// open the same one, both get it once.
func TestOpeningHoldsUpNoOther(t *testing.T) {
	s := newShelf(t)
	file, other := s.stock("image", testRef, "a"), s.stock("other", testRef, "b")
	h := &holder{hold: -1}
	opening, resume := make(chan struct{}, 2), make(chan struct{})
	got, ended := make(chan *tarball.Tarball, 2), make(chan struct{})
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() {
			opened, done, err := h.acquire(image{info: &file.Info, file: "image.tar"}, func() (*tarball.Tarball, error) {
				opening <- struct{}{}
				<-resume
				return s.dir.Get(context.Background(), "image.tar")
			})
			assert.NoError(t, err)
			got <- opened
			<-ended
			done()
		})
	}
	wait := func(c <-chan struct{}) {
		t.Helper()
		select {
		case <-c:
		case <-time.After(30 * time.Second):
			t.Fatal("one waits for another")
		}
	}
	wait(opening)
	wait(opening)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_, done, err := h.acquire(image{info: &other.Info, file: "other.tar"}, func() (*tarball.Tarball, error) {
			return s.dir.Get(context.Background(), "other.tar")
		})
		if assert.NoError(t, err) {
			done()
		}
	}()
	wait(served)
	close(resume)
	assert.Same(t, <-got, <-got)
	close(ended)
	group.Wait()
	assert.Zero(t, descriptors(t, s.dir.Path()))
}

// Many requests while tarballs are closed all the time: each gets its layer, and in the
// end nothing is open.
func TestRequestsWhileTheHoldEnds(t *testing.T) {
	for _, hold := range []time.Duration{-1, time.Nanosecond, 100 * time.Microsecond} {
		s := newShelf(t)
		h := New(s.dir, &Options{Hold: hold})
		paths := map[string][]byte{}
		for i, name := range []string{"a", "b", "large"} {
			s.stock(name, fmt.Sprintf("registry.test/team/image%d:v1", i), name)
			digest, raw := layerOf(t, name)
			paths[fmt.Sprintf("/v2/registry.test/team/image%d/blobs/%s", i, digest)] = raw
		}
		var group errgroup.Group
		for range 8 {
			group.Go(func() error {
				for range 30 {
					for path, raw := range paths {
						if got := direct(h, path); got.Code != http.StatusOK || !bytes.Equal(got.Body.Bytes(), raw) {
							return fmt.Errorf("%s: %d, %d bytes", path, got.Code, got.Body.Len())
						}
					}
				}
				return nil
			})
		}
		require.NoError(t, group.Wait())
		require.Eventually(t, func() bool { return descriptors(t, s.dir.Path()) == 0 }, 10*time.Second, 10*time.Millisecond)
	}
}

// A damaged tarball that is held does not hide the one that has taken its place, though
// that has the same image, and the same time.
func TestRepairedWhileHeld(t *testing.T) {
	s := newShelf(t)
	file := s.stock("image", testRef, "a")
	digest, raw := layerOf(t, "a")
	segment, ok := file.Layout.Layer(file.Image.Layers()[0].Digest)
	require.True(t, ok)
	s.damage("image.tar", segment.Offset+segment.Length/2)
	s.age("image.tar", 1)
	c := connect(s)
	require.Equal(t, http.StatusOK, c.get("/v2/registry.test/team/image/manifests/v1").StatusCode)
	require.NotEqual(t, raw, c.get("/v2/registry.test/team/image/blobs/"+digest).body) // for the client to find out
	results, err := s.dir.Verify(t.Context(), nil, nil)
	require.NoError(t, err)
	_, err = s.dir.Repair(t.Context(), &results[0], tarballtest.Blobs{file.Image.Layers()[0].Digest: raw}, nil)
	require.NoError(t, err)
	c.requireImage(file, "registry.test/team/image", "v1")
	c.requireServed(raw, "/v2/registry.test/team/image/blobs/"+digest)
}

// So many descriptors and no more are held, and none after Close.
func TestHoldIsBounded(t *testing.T) {
	s := newShelf(t)
	h := New(s.dir, nil)
	h.holder.max = 3
	for i := range 5 {
		name := fmt.Sprint("image", i)
		s.stock(name, "registry.test/team/"+name+":v1", "a")
		require.Equal(t, http.StatusOK, direct(h, "/v2/registry.test/team/"+name+"/manifests/v1").Code)
		assert.Equal(t, min(i+1, 3), descriptors(t, s.dir.Path()))
	}
	held := h.holder.images()
	for _, i := range held {
		assert.NotContains(t, []string{"image0.tar", "image1.tar"}, i.file, "the least recently used is closed first")
	}
	require.NoError(t, h.Close())
	assert.Zero(t, descriptors(t, s.dir.Path()))
	require.Equal(t, http.StatusOK, direct(h, "/v2/registry.test/team/image0/manifests/v1").Code)
	assert.Zero(t, descriptors(t, s.dir.Path()), "nothing is held after Close")
}

// A tarball may be replaced between the look at the directory and its opening: the
// client gets the manifest of what it gets the blobs of.
func TestReplacedBeforeItIsOpened(t *testing.T) {
	s := newShelf(t)
	s.stock("image", testRef, "a")
	h := newServer(nil)
	c := newDirCatalog(s.dir, time.Hour, h.notServed)
	h.catalog, h.lists = c, true
	var second *tarball.Tarball
	c.read = func(ctx context.Context, names []string) ([]cache.Entry, error) {
		entries, err := s.dir.Entries(ctx, names)
		if second == nil {
			second = s.stock("image", testRef, "b")
		}
		return entries, err
	}
	got := direct(h, "/v2/registry.test/team/image/manifests/v1")
	require.Equal(t, second.Image.Manifest(), got.Body.Bytes())
	require.NoError(t, os.Remove(s.path("image.tar")))
	digest, raw := layerOf(t, "b")
	assert.Equal(t, raw, direct(h, "/v2/registry.test/team/image/blobs/"+digest).Body.Bytes())
}

// write puts content in a file's place.
func (s *shelf) write(name string, content []byte) {
	s.t.Helper()
	temp := filepath.Join(s.dir.Path(), ".temp")
	require.NoError(s.t, os.WriteFile(temp, content, 0o644))
	require.NoError(s.t, os.Rename(temp, s.path(name)))
}

package server

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"

	"github.com/dockercache/dockercache/cache/tarball"
)

// requireImage verifies that a tag names this tarball's image.
func (c *client) requireImage(want *tarball.Tarball, repository, tag string) {
	c.t.Helper()
	c.requireServed(want.Image.Manifest(), "/v2/"+repository+"/manifests/"+tag)
}

func TestNames(t *testing.T) {
	s := newShelf(t)
	image := s.stock("image", "registry.test/team/image:v1", "a")
	port := s.stock("port", "registry.test:5000/team/port:v1", "b")
	debian := s.stock("debian", "debian:12", "c")
	hub := s.stock("hub", "team/hub:latest", "d")
	manifests := s.stock("manifests", "registry.test/team/manifests/image:v1", "e")
	both := s.stock("both", "registry.test/blobs/manifests/blobs/tags/list:v1", "f")
	referrers := s.stock("referrers", "registry.test/team/referrers/blobs:v1", "g")
	c := connect(s)
	for name, want := range map[string]*tarball.Tarball{
		"registry.test/team/image": image, "Registry.TEST/team/image": image,
		// As Docker completes short names.
		"docker.io/library/debian": debian, "docker.io/team/hub": hub,
		// Docker Hub's other names.
		"index.docker.io/library/debian": debian, "registry-1.docker.io/library/debian": debian,
		// Parts that look like the API's.
		"registry.test/team/manifests/image": manifests, "registry.test/blobs/manifests/blobs/tags/list": both,
		"registry.test/team/referrers/blobs": referrers,
	} {
		tag := map[*tarball.Tarball]string{debian: "12", hub: "latest"}[want]
		if tag == "" {
			tag = "v1"
		}
		c.requireImage(want, name, tag)
		c.requireImage(want, name, want.Image.Digest().String())
		c.requireServed(want.Image.Config(), "/v2/"+name+"/blobs/"+want.Image.ConfigDigest().String())
		assert.Equal(t, []string{`["` + tag + `"]`}, c.list("/v2/"+name+"/tags/list", "tags"))
	}
	// What does not name a registry may be of any.
	for _, name := range []string{
		"debian", "library/debian", "team/hub", "team/image", "team/port", "team/manifests/image",
		"registry.test/debian", "team/debian", "docker.io/debian", "docker.io/team/image", "image", "TEAM/image", "/team/image", "registry.test//team/image", "registry.test",
		"registry.test/team/port", "registry.test:443/team/image", "docker.io:443/library/debian", "other.test/registry.test/team/image", "registry.test/registry.test/team/image",
	} {
		for _, ref := range []string{"manifests/v1", "manifests/12", "manifests/latest", "manifests/" + debian.Image.Digest().String(), "blobs/" + debian.Image.ConfigDigest().String(), "tags/list"} {
			c.requireRefused(http.StatusNotFound, "NAME_UNKNOWN", "/v2/"+name+"/"+ref)
		}
	}
	// A host with a port is part of no name in a path: only ns can say it.
	c.requireImage(port, "registry.test:5000/team/port", "v1") // a client that sends it all the same
	c.requireImage(port, "team/port", "v1?ns=registry.test:5000")
}

// Registries that have the same repository and tag are distinguished by ns, or by what
// the server was started with.
func TestNamespace(t *testing.T) {
	s := newShelf(t)
	one := s.stockOf(tarball.Run{ID: 1}, "one", "one.test/team/image:v1", "a")
	port := s.stockOf(tarball.Run{ID: 3}, "port", "one.test:5000/team/image:v1", "b")
	two := s.stockOf(tarball.Run{ID: 2}, "two", "two.test/team/image:v1", "c")
	// A registry may have a repository that looks as if it were in another one.
	proxy := s.stockOf(tarball.Run{ID: 4}, "proxy", "proxy.test/two.test/team/image:v1", "d")
	only := s.stockOf(tarball.Run{ID: 5}, "only", "proxy.test/three.test/team/image:v1", "e")
	hub := s.stock("hub", "debian:v1", "f")
	c := connect(s)
	for path, want := range map[string]*tarball.Tarball{
		"team/image/manifests/v1?ns=one.test":                       one,
		"team/image/manifests/v1?ns=ONE.test":                       one,
		"team/image/manifests/v1?ns=one.test:5000":                  port,
		"team/image/manifests/v1?ns=two.test":                       two,
		"one.test/team/image/manifests/v1":                          one,
		"two.test/team/image/manifests/v1":                          two,
		"two.test/team/image/manifests/v1?ns=":                      two,
		"two.test/team/image/manifests/v1?ns=two.test":              two, // a mirror of one registry, at a path of its own
		"two.test/team/image/manifests/v1?ns=proxy.test":            proxy,
		"proxy.test/two.test/team/image/manifests/v1":               proxy,
		"proxy.test/two.test/team/image/manifests/v1?ns=proxy.test": proxy,
		"three.test/team/image/manifests/v1?ns=proxy.test":          only,
		"two.test/team/image/manifests/v1?ns=" + c.host:             two, // this one is no other
		"library/debian/manifests/v1?ns=docker.io":                  hub,
		"library/debian/manifests/v1?ns=index.docker.io":            hub,
		"library/debian/manifests/v1?ns=registry-1.docker.io":       hub,
		"docker.io/library/debian/manifests/v1?ns=docker.io":        hub,
	} {
		c.requireServed(want.Image.Manifest(), "/v2/"+path)
	}
	for _, path := range []string{
		"team/image/manifests/v1", "team/image/manifests/v1?ns=three.test", "team/image/manifests/v1?ns=two.test:5000", "team/image/manifests/v1?ns=one.test:80",
		"three.test/team/image/manifests/v1", "two.test/team/image/manifests/v1?ns=one.test", "two.test/team/image/manifests/v1?ns=cache.test",
		"docker.io/library/debian/manifests/v1?ns=quay.io", "library/debian/manifests/v1", "debian/manifests/v1?ns=docker.io",
	} {
		c.requireRefused(http.StatusNotFound, "NAME_UNKNOWN", "/v2/"+path)
	}
	a, raw := layerOf(t, "a")
	c.requireServed(raw, "/v2/team/image/blobs/"+a+"?ns=one.test")
	c.requireRefused(http.StatusNotFound, "BLOB_UNKNOWN", "/v2/team/image/blobs/"+a+"?ns=two.test")
	c.requireRefused(http.StatusNotFound, "NAME_UNKNOWN", "/v2/team/image/blobs/"+a)

	// What could be either of two is neither.
	s.stock("twice", "docker.io/docker.io/library/debian:v1", "g")
	c.requireRefused(http.StatusNotFound, "NAME_UNKNOWN", "/v2/docker.io/library/debian/manifests/v1?ns=docker.io")
	c.requireImage(hub, "docker.io/library/debian", "v1")
}

// With a registry of its own the server knows what a path without one means; ns knows
// better.
func TestRegistry(t *testing.T) {
	s := newShelf(t)
	hub := s.stock("hub", "debian:v1", "a")
	other := s.stock("other", "ghcr.test/library/debian:v1", "b")
	port := s.stock("port", "ghcr.test:5000/library/debian:v1", "c")
	for registry, want := range map[string]*tarball.Tarball{"docker.io": hub, "index.docker.io": hub, "ghcr.test": other, "GHCR.test": other, "ghcr.test:5000": port} {
		c := connectWith(s, Options{Registry: registry})
		c.requireImage(want, "library/debian", "v1")
		c.requireImage(want, "library/debian", want.Image.Digest().String())
		assert.Equal(t, []string{`["v1"]`}, c.list("/v2/library/debian/tags/list", "tags"))
		c.requireImage(hub, "docker.io/library/debian", "v1")
		c.requireImage(other, "ghcr.test/library/debian", "v1")
		c.requireImage(hub, "library/debian", "v1?ns=docker.io")
		c.requireImage(port, "library/debian", "v1?ns=ghcr.test:5000")
		c.requireRefused(http.StatusNotFound, "NAME_UNKNOWN", "/v2/library/debian/manifests/v1?ns=quay.test")
	}
	c := connectWith(s, Options{Registry: "quay.test"})
	c.requireRefused(http.StatusNotFound, "NAME_UNKNOWN", "/v2/library/debian/manifests/v1")
}

// Of one reference, the newest run is served, whatever the files' times are; without
// runs, what was written last.
func TestNewestRunIsServed(t *testing.T) {
	s := newShelf(t)
	c := connect(s)
	s.stock("a", testRef, "a")
	s.age("a.tar", 1)
	b := s.stock("b", testRef, "b")
	s.age("b.tar", 3)
	s.stock("c", testRef, "c")
	s.age("c.tar", 2)
	c.requireImage(b, "registry.test/team/image", "v1")
	d := s.stockOf(tarball.Run{ID: 7, Attempt: 2}, "d", testRef, "d")
	s.age("d.tar", 0)
	c.requireImage(d, "registry.test/team/image", "v1")
	s.stockOf(tarball.Run{ID: 7, Attempt: 1}, "e", testRef, "e")
	c.requireImage(d, "registry.test/team/image", "v1")
	f := s.stockOf(tarball.Run{ID: 8, Attempt: 1}, "f", testRef, "f")
	c.requireImage(f, "registry.test/team/image", "v1")
	// A newer run has built the same as an older one: only its record says so.
	s.stockOf(tarball.Run{ID: 9, Attempt: 1}, "d", testRef, "d")
	c.requireImage(d, "registry.test/team/image", "v1")
	c.requireImage(f, "registry.test/team/image", f.Image.Digest().String())
}

func TestTarballsComeAndGo(t *testing.T) {
	s := newShelf(t)
	c := connectWith(s, noHold)
	c.requireRefused(http.StatusNotFound, "NAME_UNKNOWN", "/v2/registry.test/team/image/manifests/v1")
	a, rawA := layerOf(t, "a")
	b, rawB := layerOf(t, "b")
	c.requireRefused(http.StatusNotFound, "NAME_UNKNOWN", "/v2/registry.test/team/image/blobs/"+a)

	first := s.stock("image", testRef, "a", "b")
	c.requireServed(rawA, "/v2/registry.test/team/image/blobs/"+a) // also where no manifest was asked for
	c.requireImage(first, "registry.test/team/image", "v1")

	// It is replaced after a client has got the manifest.
	second := s.stock("image", testRef, "a", "d")
	c.requireServed(rawA, "/v2/registry.test/team/image/blobs/"+a)
	c.requireRefused(http.StatusNotFound, "BLOB_UNKNOWN", "/v2/registry.test/team/image/blobs/"+b)
	c.requireImage(second, "registry.test/team/image", "v1")
	c.requireRefused(http.StatusNotFound, "MANIFEST_UNKNOWN", "/v2/registry.test/team/image/manifests/"+first.Image.Digest().String())
	c.requireRefused(http.StatusNotFound, "BLOB_UNKNOWN", "/v2/registry.test/team/image/blobs/"+first.Image.ConfigDigest().String())
	d, rawD := layerOf(t, "d")
	c.requireServed(rawD, "/v2/registry.test/team/image/blobs/"+d)

	// A client of the old manifest finds the layer where another tarball has it.
	s.stock("older", "registry.test/team/image:v0", "b")
	c.requireServed(rawB, "/v2/registry.test/team/image/blobs/"+b)

	require.NoError(t, os.Remove(s.path("image.tar")))
	require.NoError(t, os.Remove(s.path("older.tar")))
	c.requireRefused(http.StatusNotFound, "NAME_UNKNOWN", "/v2/registry.test/team/image/blobs/"+d)
	c.requireRefused(http.StatusNotFound, "NAME_UNKNOWN", "/v2/registry.test/team/image/manifests/v1")
	c.requireRefused(http.StatusNotFound, "NAME_UNKNOWN", "/v2/registry.test/team/image/tags/list")
	assert.Empty(t, c.reported.take())
}

// A tarball of the same size may take the place of another within the time that a file
// server's clock has no names for.
func TestReplacedWithinTheSameTime(t *testing.T) {
	s := newShelf(t)
	c := connect(s)
	first := s.stock("image", testRef, "a")
	s.age("image.tar", 1)
	c.requireImage(first, "registry.test/team/image", "v1")
	second := s.stock("image", testRef, "b")
	s.age("image.tar", 1)
	s.unmark("image.tar")
	require.Equal(t, first.Layout.Size(), second.Layout.Size())
	c.requireImage(second, "registry.test/team/image", "v1")
}

func TestWhatIsNoTarballIsNotServed(t *testing.T) {
	s := newShelf(t)
	elsewhere := newShelf(t)
	outside := elsewhere.stock("outside", "registry.test/team/outside:v1", "a")
	s.stock("good", testRef, "b")
	s.stock("bad", "registry.test/team/bad:v1", "c")
	s.stock("dot", "registry.test/team/dot:v1", "d")
	s.stock("suffix", "registry.test/team/suffix:v1", "e")
	c := connectWith(s, noHold)
	for _, name := range []string{"bad", "dot", "suffix"} {
		require.Equal(t, http.StatusOK, c.get("/v2/registry.test/team/"+name+"/manifests/v1").StatusCode)
	}
	require.Equal(t, http.StatusOK, c.get("/v2/_catalog").StatusCode) // it knows the marks of these pulls
	require.Empty(t, c.reported.take())

	s.damage("bad.tar", 600)
	s.age("bad.tar", 1)
	bad := func() {
		t.Helper()
		for range 3 { // it is reported once
			c.requireRefused(http.StatusNotFound, "NAME_UNKNOWN", "/v2/registry.test/team/bad/manifests/v1")
		}
		all := c.reported.take()
		require.Len(t, all, 1)
		assert.ErrorIs(t, all[0], tarball.ErrNotTarball)
		assert.ErrorContains(t, all[0], "bad.tar")
	}
	bad()
	require.NoError(t, os.Rename(s.path("dot.tar"), s.path(".dot.tar")))
	require.NoError(t, os.Rename(s.path("suffix.tar"), s.path("suffix.tar.old")))
	require.NoError(t, os.Symlink(outside.Name(), s.path("outside.tar")))
	require.NoError(t, os.Mkdir(s.path("directory.tar"), 0o755))
	for _, name := range []string{"bad", "dot", "suffix", "outside"} {
		c.requireRefused(http.StatusNotFound, "NAME_UNKNOWN", "/v2/registry.test/team/"+name+"/manifests/v1")
		c.requireRefused(http.StatusNotFound, "NAME_UNKNOWN", "/v2/registry.test/team/"+name+"/blobs/"+outside.Image.Layers()[0].Digest.String())
	}
	assert.Equal(t, []string{`["registry.test/team/image"]`}, c.list("/v2/_catalog", "repositories"))
	all := c.reported.take()
	require.Len(t, all, 1, "the damage was reported, and a directory is none")
	assert.ErrorIs(t, all[0], tarball.ErrNotTarball)
	assert.ErrorContains(t, all[0], "outside.tar: not a tarball of this cache: it is no regular file, and links are not followed")
	s.damage("bad.tar", 700) // another change
	s.age("bad.tar", 2)
	bad()
}

// A tarball that could not be opened for a moment is looked for again, though the
// directory is as it was.
func TestTroubleIsNotRemembered(t *testing.T) {
	s := newShelf(t)
	file := s.stock("image", testRef, "a")
	var reported failures
	broken := true
	c := newDirCatalog(s.dir, 0, func(_ context.Context, err error) { reported.add(err) })
	c.read = func(ctx context.Context, names []string) ([]cache.Entry, error) {
		if broken {
			return []cache.Entry{{Name: "image.tar", Err: os.ErrPermission}}, nil
		}
		return s.dir.Entries(ctx, names)
	}
	for range 3 {
		known, err := c.images(t.Context(), true)
		require.NoError(t, err)
		require.Empty(t, known.all)
	}
	require.Equal(t, []error{os.ErrPermission}, reported.take(), "once")
	broken = false
	known, err := c.images(t.Context(), true)
	require.NoError(t, err)
	require.Len(t, known.all, 1)
	assert.Equal(t, file.Image.Digest(), known.all[0].info.Image.Digest())
	require.Empty(t, reported.take())
}

func TestDirectoryGoesAndComesBack(t *testing.T) {
	s := newShelf(t)
	file := s.stock("image", testRef, "a")
	c := connectWith(s, noHold)
	c.requireImage(file, "registry.test/team/image", "v1")
	away := filepath.Join(filepath.Dir(s.dir.Path()), "away")
	require.NoError(t, os.Rename(s.dir.Path(), away))
	a, raw := layerOf(t, "a")
	for _, path := range []string{"/v2/registry.test/team/image/manifests/v1", "/v2/registry.test/team/image/blobs/" + a, "/v2/registry.test/team/image/tags/list", "/v2/_catalog"} {
		message := c.requireRefused(http.StatusInternalServerError, "UNKNOWN", path)
		assert.Equal(t, "the cache directory cannot be read", message)
		all := c.reported.take()
		require.Len(t, all, 1)
		assert.ErrorIs(t, all[0], os.ErrNotExist)
	}
	require.NoError(t, os.Rename(away, s.dir.Path()))
	c.requireImage(file, "registry.test/team/image", "v1")
	c.requireServed(raw, "/v2/registry.test/team/image/blobs/"+a)
	assert.Empty(t, c.reported.take())
}

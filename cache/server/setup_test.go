package server

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/internal/imagetest"

	"github.com/dockercache/dockercache/cache/tarball"
)

const testRef = "registry.test/team/image:v1"

// absent is a digest that no blob has.
const absent = "sha256:0000000000000000000000000000000000000000000000000000000000000000"

// shelf is a directory of tarballs.
type shelf struct {
	t   *testing.T
	dir *cache.Dir
}

func newShelf(t *testing.T) *shelf {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dir")
	dir, err := cache.Open(path, &cache.Options{DirMode: 0o755})
	require.NoError(t, err)
	return &shelf{t, dir}
}

func (s *shelf) path(name string) string { return filepath.Join(s.dir.Path(), name) }

// stock puts the image of these layers, bottom first, into NAME.tar, in place of what
// is there. What it returns is closed.
func (s *shelf) stock(name, ref string, layers ...string) *tarball.Tarball {
	s.t.Helper()
	return s.stockOf(tarball.Run{}, name, ref, layers...)
}

// stockOf is stock of a build run.
func (s *shelf) stockOf(run tarball.Run, name, ref string, layers ...string) *tarball.Tarball {
	s.t.Helper()
	img, source := makeImage(s.t, layers...)
	manifest, err := img.RawManifest()
	require.NoError(s.t, err)
	config, err := img.RawConfigFile()
	require.NoError(s.t, err)
	image, err := tarball.NewImage(ref, manifest, config)
	require.NoError(s.t, err)
	_, err = s.dir.Put(s.t.Context(), name+".tar", image, source, &cache.PutOptions{Provenance: tarball.Provenance{Run: run}, Replace: true})
	require.NoError(s.t, err)
	file := s.open(name + ".tar")
	require.NoError(s.t, file.Close()) // not in use
	return file
}

// open opens a tarball.
func (s *shelf) open(name string) *tarball.Tarball {
	s.t.Helper()
	file, err := s.dir.Get(s.t.Context(), name)
	require.NoError(s.t, err)
	return file
}

// age makes a file one that was written, and used, long ago, at a time of its own: the
// clock of a file system may stand still between two writes.
func (s *shelf) age(name string, hours int) time.Time {
	s.t.Helper()
	at := time.Date(2026, 1, 1, hours, 0, 0, 0, time.UTC)
	require.NoError(s.t, os.Chtimes(s.path(name), at, at))
	return at
}

// damage changes a byte of a file, without its size.
func (s *shelf) damage(name string, offset int64) {
	s.t.Helper()
	f, err := os.OpenFile(s.path(name), os.O_RDWR, 0)
	require.NoError(s.t, err)
	defer f.Close()
	one := make([]byte, 1)
	_, err = f.ReadAt(one, offset)
	require.NoError(s.t, err)
	_, err = f.WriteAt([]byte{^one[0]}, offset)
	require.NoError(s.t, err)
}

// makeImage returns an image of layers with these names, and their bytes. A "large"
// layer is read in several steps.
func makeImage(t *testing.T, names ...string) (v1.Image, blobs) {
	t.Helper()
	source := blobs{}
	var layers []v1.Layer
	for _, name := range names {
		size := 3000
		if name == "large" {
			size = 300_000
		}
		l, err := imagetest.Layer(name, size)
		require.NoError(t, err)
		r, err := l.Compressed()
		require.NoError(t, err)
		raw, err := io.ReadAll(r)
		require.NoError(t, err)
		digest, err := l.Digest()
		require.NoError(t, err)
		source[digest] = raw
		layers = append(layers, l)
	}
	img, err := imagetest.Image(layers...)
	require.NoError(t, err)
	return img, source
}

// layerOf returns a layer's digest and bytes.
func layerOf(t *testing.T, name string) (digest string, raw []byte) {
	t.Helper()
	_, source := makeImage(t, name)
	for d, raw := range source {
		return d.String(), raw
	}
	return "", nil
}

type blobs map[v1.Hash][]byte

func (b blobs) ReadRange(_ context.Context, digest v1.Hash, offset, length int64) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(b[digest][offset : offset+length])), nil
}

// client asks a server.
type client struct {
	t        *testing.T
	host     string
	reported *failures
}

// failures are what [Options.Failed] was called with.
type failures struct {
	mu  sync.Mutex
	all []error
}

func (f *failures) add(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = append(f.all, err)
}

// take returns what was reported since the last time.
func (f *failures) take() []error {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := f.all
	f.all = nil
	return all
}

// connect serves a directory and returns a client of it.
func connect(s *shelf) *client { return connectWith(s, Options{}) }

// connectWith is connect with options.
func connectWith(s *shelf, o Options) *client {
	c := &client{t: s.t, reported: &failures{}}
	o.Failed = c.reported.add
	c.host = serve(s.t, New(s.dir, &o))
	return c
}

// noHold are the options with which a tarball is closed as soon as it is not in use.
var noHold = Options{Hold: -1}

// serve returns the address of a server that runs until the test ends.
func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// response is one that was read to its end.
type response struct {
	*http.Response
	body []byte
	err  error // of reading the body
}

// do makes a request; headers are "Name: value".
func (c *client) do(method, path string, headers ...string) *response {
	c.t.Helper()
	r, err := http.NewRequestWithContext(c.t.Context(), method, "http://"+c.host+path, nil)
	require.NoError(c.t, err)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	got, err := http.DefaultTransport.RoundTrip(r) // follows nothing, hides nothing
	require.NoError(c.t, err)
	defer got.Body.Close()
	body, err := io.ReadAll(got.Body)
	return &response{got, body, err}
}

func (c *client) get(path string, headers ...string) *response {
	c.t.Helper()
	return c.do(http.MethodGet, path, headers...)
}

// requireServed verifies that a path has these bytes.
func (c *client) requireServed(want []byte, path string) {
	c.t.Helper()
	got := c.get(path)
	require.Equal(c.t, http.StatusOK, got.StatusCode, "%s: %s", path, got.body)
	require.NoError(c.t, got.err)
	require.True(c.t, bytes.Equal(want, got.body), "%s has other bytes", path)
}

// requireRefused verifies that a path is refused with this status and code, and returns
// the message.
func (c *client) requireRefused(status int, code, path string, headers ...string) string {
	c.t.Helper()
	return requireRefusal(c.t, c.get(path, headers...), status, code)
}

func requireRefusal(t *testing.T, got *response, status int, code string) string {
	t.Helper()
	require.NoError(t, got.err)
	require.Equal(t, status, got.StatusCode, "%s", got.body)
	assert.Equal(t, "application/json", got.Header.Get("Content-Type"))
	var body struct {
		Errors []struct{ Code, Message string }
	}
	require.NoError(t, json.Unmarshal(got.body, &body))
	require.Len(t, body.Errors, 1)
	require.Equal(t, code, body.Errors[0].Code)
	require.NotEmpty(t, body.Errors[0].Message)
	return body.Errors[0].Message
}

// unmark forgets when a tarball was used.
func (s *shelf) unmark(name string) {
	s.t.Helper()
	if err := os.Remove(s.path("." + name + ".mark")); err != nil {
		require.ErrorIs(s.t, err, os.ErrNotExist)
	}
}

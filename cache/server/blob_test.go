package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/tarball"
)

// Every byte of each layer and of the config is the original's.
func TestBlobs(t *testing.T) {
	s := newShelf(t)
	file := s.stock("image", testRef, "a", "large", "b", "a") // one comes twice
	want := map[string][]byte{}
	_, source := makeImage(t, "a", "large", "b")
	for d, raw := range source {
		want[d.String()] = raw
	}
	made, _ := makeImage(t, "a", "large", "b", "a")
	config, err := made.RawConfigFile()
	require.NoError(t, err)
	want[file.Image.ConfigDigest().String()] = config
	require.Len(t, want, 4)
	c := connect(s)
	for digest, raw := range want {
		path := "/v2/registry.test/team/image/blobs/" + digest
		require.Equal(t, digest, sha256Of(raw))
		c.requireServed(raw, path)
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			got := c.do(method, path)
			require.Equal(t, http.StatusOK, got.StatusCode)
			assert.Equal(t, strconv.Itoa(len(raw)), got.Header.Get("Content-Length"))
			assert.Equal(t, "application/octet-stream", got.Header.Get("Content-Type"))
			assert.Equal(t, digest, got.Header.Get("Docker-Content-Digest"))
			assert.Equal(t, `"`+digest+`"`, got.Header.Get("Etag"))
			assert.Equal(t, "bytes", got.Header.Get("Accept-Ranges"))
			assert.Equal(t, http.StatusNotModified, c.do(method, path, `If-None-Match: "`+digest+`"`).StatusCode)
		}
		assert.Empty(t, c.do(http.MethodHead, path).body)
	}
	assert.Empty(t, c.reported.take())
}

func TestBlobRanges(t *testing.T) {
	s := newShelf(t)
	file := s.stock("image", testRef, "a", "large", "b")
	large, raw := layerOf(t, "large")
	c := connect(s)
	for digest, raw := range map[string][]byte{large: raw, file.Image.ConfigDigest().String(): file.Image.Config()} {
		path, size := "/v2/registry.test/team/image/blobs/"+digest, len(raw)
		for asked, want := range map[string][2]int{
			"0-0":                               {0, 1},
			"0-99":                              {0, 100},
			"17-90":                             {17, 91},
			"100-":                              {100, size},
			fmt.Sprintf("%d-", size-1):          {size - 1, size},
			"-1":                                {size - 1, size},
			"-100":                              {size - 100, size},
			fmt.Sprintf("-%d", 10*size):         {0, size},
			fmt.Sprintf("10-%d", 10*size):       {10, size},
			fmt.Sprintf("%d-%d", size/2, size):  {size / 2, size},
			fmt.Sprintf("0-%d", size-1):         {0, size},
			fmt.Sprintf("%d-%d", 1, (size-1)/2): {1, (size-1)/2 + 1},
		} {
			got := c.get(path, "Range: bytes="+asked)
			require.Equal(t, http.StatusPartialContent, got.StatusCode, asked)
			require.NoError(t, got.err)
			require.True(t, bytes.Equal(raw[want[0]:want[1]], got.body), asked)
			require.Equal(t, fmt.Sprintf("bytes %d-%d/%d", want[0], want[1]-1, size), got.Header.Get("Content-Range"))
			require.Equal(t, strconv.Itoa(want[1]-want[0]), got.Header.Get("Content-Length"))
		}
		for _, beyond := range []string{fmt.Sprintf("%d-", size), fmt.Sprintf("%d-%d", 2*size, 3*size), "9-3", "x-"} {
			got := c.get(path, "Range: bytes="+beyond)
			require.Equal(t, http.StatusRequestedRangeNotSatisfiable, got.StatusCode, beyond)
			require.Less(t, len(got.body), 100)
		}
		got := c.get(path, fmt.Sprintf("Range: bytes=%d-", size))
		assert.Equal(t, fmt.Sprintf("bytes */%d", size), got.Header.Get("Content-Range"))

		// A range of what the client has begun to read, and of nothing else.
		got = c.get(path, "Range: bytes=5-", `If-Range: "`+digest+`"`)
		assert.Equal(t, http.StatusPartialContent, got.StatusCode)
		assert.True(t, bytes.Equal(raw[5:], got.body))
		got = c.get(path, "Range: bytes=5-", `If-Range: "`+absent+`"`)
		assert.Equal(t, http.StatusOK, got.StatusCode)
		assert.True(t, bytes.Equal(raw, got.body))

		// Of several ranges the whole is served, and where the unit is another one, or none.
		for _, asked := range []string{"bytes=0-9,20-29", "lines=0-9", "items=9-3", "bytes", "bytes 0-9", "0-9", "=0-9", "x"} {
			got = c.get(path, "Range: "+asked)
			assert.Equal(t, http.StatusOK, got.StatusCode, asked)
			assert.Empty(t, got.Header.Get("Content-Range"))
			assert.True(t, bytes.Equal(raw, got.body))
		}
		// The name of the unit has no case.
		got = c.get(path, "Range: BYTES=2-5")
		assert.Equal(t, http.StatusPartialContent, got.StatusCode)
		assert.True(t, bytes.Equal(raw[2:6], got.body))
		// A range is of what GET would give; HEAD says how much that is.
		got = c.do(http.MethodHead, path, "Range: bytes=2-5")
		assert.Equal(t, http.StatusOK, got.StatusCode)
		assert.Equal(t, strconv.Itoa(size), got.Header.Get("Content-Length"))
	}
	manifest := team + "manifests/v1"
	assert.Equal(t, http.StatusOK, c.get(manifest, "Range: lines=0-9").StatusCode)
	assert.Equal(t, string(file.Image.Manifest()[2:6]), string(c.get(manifest, "Range: bytes=2-5").body))
	assert.Empty(t, c.reported.take())
}

func TestBlobIsRefused(t *testing.T) {
	s := newShelf(t)
	s.stock("image", testRef, "a")
	s.stock("other", "registry.test/team/other:v1", "b")
	c := connect(s)
	layer, raw := layerOf(t, "b")
	c.requireServed(raw, "/v2/registry.test/team/other/blobs/"+layer)
	c.requireRefused(http.StatusNotFound, "BLOB_UNKNOWN", "/v2/registry.test/team/image/blobs/"+layer)
	c.requireRefused(http.StatusNotFound, "BLOB_UNKNOWN", "/v2/registry.test/team/image/blobs/"+absent)
	c.requireRefused(http.StatusNotFound, "NAME_UNKNOWN", "/v2/registry.test/team/none/blobs/"+layer)
	for _, bad := range []string{"v1", "", "sha256:12", "sha256:" + absent} {
		c.requireRefused(http.StatusBadRequest, "DIGEST_INVALID", "/v2/registry.test/team/image/blobs/"+bad)
	}
	assert.Equal(t, http.StatusNotFound, c.do(http.MethodHead, "/v2/registry.test/team/image/blobs/"+absent).StatusCode)
	assert.Empty(t, c.reported.take())
}

// cutting truncates a file after the first bytes of an answer.
type cutting struct {
	http.ResponseWriter
	path string
	size int64
	done bool
}

func (w *cutting) Write(p []byte) (int, error) {
	if !w.done {
		w.done = true
		if err := os.Truncate(w.path, w.size); err != nil {
			return 0, err
		}
	}
	return w.ResponseWriter.Write(p)
}

// A layer that cannot be read to its end is never a complete answer.
func TestLayerBecomesUnreadable(t *testing.T) {
	large, raw := layerOf(t, "large")
	for _, asked := range []string{"bytes=0-", "bytes=1000-", ""} {
		s := newShelf(t)
		file := s.stock("image", testRef, "large")
		var reported failures
		h := New(s.dir, &Options{Failed: reported.add})
		c := &client{t: t, host: serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(&cutting{ResponseWriter: w, path: file.Name(), size: 150_000}, r)
		}))}
		got := c.get("/v2/registry.test/team/image/blobs/"+large, "Range: "+asked)
		require.ErrorIs(t, got.err, io.ErrUnexpectedEOF)
		assert.Less(t, len(got.body), 150_000)
		assert.Greater(t, got.ContentLength, int64(len(raw)-1001))
		all := reported.take()
		require.Len(t, all, 1)
		assert.ErrorIs(t, all[0], io.ErrUnexpectedEOF)
		assert.ErrorContains(t, all[0], file.Name())
	}
}

// That a client goes away is not reported.
func TestClientGoesAway(t *testing.T) {
	s := newShelf(t)
	s.stock("image", testRef, "large")
	large, _ := layerOf(t, "large")
	var reported failures
	h := New(s.dir, &Options{Failed: reported.add})
	r, w := io.Pipe()
	require.NoError(t, r.CloseWithError(errors.New("gone")))
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/v2/registry.test/team/image/blobs/"+large, nil)
	require.NoError(t, err)
	h.ServeHTTP(piped{w}, request)
	assert.Empty(t, reported.take())
}

// piped is the answer to one who reads from a pipe.
type piped struct{ *io.PipeWriter }

func (piped) Header() http.Header { return http.Header{} }
func (piped) WriteHeader(int)     {}

// A layer of a damaged tarball is sought in the others. If none has it, that is no
// "unknown": the client may ask again.
func TestLayerIsTakenFromAnother(t *testing.T) {
	s := newShelf(t)
	s.stockOf(tarball.Run{ID: 2}, "new", testRef, "a", "b")
	s.stockOf(tarball.Run{ID: 1}, "old", "registry.test/team/image:v0", "a")
	c := connectWith(s, noHold)
	a, raw := layerOf(t, "a")
	b, _ := layerOf(t, "b")
	c.requireServed(raw, "/v2/registry.test/team/image/blobs/"+a)
	// Not noticed before it is opened: the directory is as before.
	info, err := os.Stat(s.path("new.tar"))
	require.NoError(t, err)
	s.damage("new.tar", 600)
	require.NoError(t, os.Chtimes(s.path("new.tar"), info.ModTime(), info.ModTime()))
	c.requireServed(raw, "/v2/registry.test/team/image/blobs/"+a)
	assert.Empty(t, c.reported.take())
	message := c.requireRefused(http.StatusInternalServerError, "UNKNOWN", "/v2/registry.test/team/image/blobs/"+b)
	assert.NotContains(t, message, s.dir.Path())
	all := c.reported.take()
	require.Len(t, all, 2, "of the request, and of the file")
	for _, err := range all {
		assert.ErrorIs(t, err, tarball.ErrNotTarball)
	}
	c.requireRefused(http.StatusNotFound, "BLOB_UNKNOWN", "/v2/registry.test/team/image/blobs/"+b)
	assert.Empty(t, c.reported.take())
}

// fixed is a catalog that notices nothing.
type fixed struct {
	*dirCatalog
	all []image
}

func (f fixed) images(context.Context, bool) (*listing, error) { return newListing(f.all), nil }

// That one tarball has just gone is no answer where another cannot be read.
func TestTroubleIsNotHiddenByWhatIsGone(t *testing.T) {
	s := newShelf(t)
	var all []image
	for _, name := range []string{"gone", "damaged", "gone2"} {
		i, err := newImage(name+".tar", &s.stock(name, testRef, "a").Info)
		require.NoError(t, err)
		all = append(all, i)
	}
	require.NoError(t, os.Remove(s.path("gone.tar")))
	require.NoError(t, os.Remove(s.path("gone2.tar")))
	c := &client{t: t, reported: &failures{}}
	h := newServer(&Options{Failed: c.reported.add})
	h.lists = true
	h.catalog = fixed{newDirCatalog(s.dir, -1, h.notServed), all}
	c.host = serve(t, h)
	layer, raw := layerOf(t, "a")
	c.requireServed(raw, "/v2/registry.test/team/image/blobs/"+layer)
	s.damage("damaged.tar", 600)
	c.requireRefused(http.StatusInternalServerError, "UNKNOWN", "/v2/registry.test/team/image/blobs/"+layer)
	require.NoError(t, os.Remove(s.path("damaged.tar")))
	c.requireRefused(http.StatusNotFound, "BLOB_UNKNOWN", "/v2/registry.test/team/image/blobs/"+layer)
	assert.Len(t, c.reported.take(), 2, "of the damage, and that all are gone")
}

// inParts is a source, and a reader, whose layers come in parts of a file.
type inParts struct {
	tarball.Source
	io.Reader // the rest
	file      *os.File
	sizes     []int64
	err       error // of the part after these
}

func (p *inParts) ReadRange(context.Context, v1.Hash, int64, int64) (io.ReadCloser, error) {
	return p, nil
}
func (p *inParts) Close() error { return nil }

func (p *inParts) Part() (*io.LimitedReader, error) {
	if len(p.sizes) == 0 {
		return nil, p.err
	}
	defer func() { p.sizes = p.sizes[1:] }()
	return &io.LimitedReader{R: p.file, N: p.sizes[0]}, nil
}

// connection is a response that takes bytes from files itself, as a connection does.
type connection struct {
	*httptest.ResponseRecorder
	begun     func() // is called when bytes have come
	fromFiles int64
	err       error // of the second part, once
}

func (c *connection) ReadFrom(r io.Reader) (n int64, err error) {
	if c.fromFiles > 0 && c.err != nil {
		err, c.err = c.err, nil
		return 0, err
	}
	n, err = io.Copy(c.ResponseRecorder, r)
	if limited, ok := r.(*io.LimitedReader); ok {
		if _, ok := limited.R.(*os.File); ok {
			c.fromFiles += n
		}
	}
	if c.begun != nil {
		c.begun()
	}
	return n, err
}

// What comes in parts of a file goes from there to the connection, without a copy.
func TestParts(t *testing.T) {
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		sizes         []int64
		reads, writes error
		rest          io.Reader
		sent          int
		fromFiles     int
		failed        error // is reported
	}{
		"all":                  {[]int64{4, 6}, io.EOF, nil, nil, 10, 10, nil},
		"it will not come":     {[]int64{4}, broken, nil, nil, 4, 4, broken},
		"the file is short":    {[]int64{4, 7}, io.EOF, nil, iotest.ErrReader(io.ErrUnexpectedEOF), 10, 10, io.ErrUnexpectedEOF},
		"the client goes away": {[]int64{4, 6}, io.EOF, broken, strings.NewReader("456789"), 4, 4, nil},
		"it cannot be read":    {[]int64{4, 6}, io.EOF, syscall.EIO, iotest.ErrReader(syscall.EIO), 4, 4, syscall.EIO},
		"it is read again":     {[]int64{4, 6}, io.EOF, &fs.PathError{Op: "read", Path: "file", Err: syscall.EIO}, strings.NewReader("456789"), 10, 4, nil},
		"the file is stale":    {[]int64{4, 6}, io.EOF, &net.OpError{Err: os.NewSyscallError("sendfile", syscall.ESTALE)}, strings.NewReader("456789"), 10, 4, nil},
		"there is no file":     {nil, nil, nil, strings.NewReader("0123456789"), 10, 0, nil},
		"the file is gone":     {[]int64{4}, nil, nil, strings.NewReader("456789"), 10, 4, nil},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "file")
			require.NoError(t, os.WriteFile(path, []byte("0123456789"), 0o600))
			f, err := os.Open(path)
			require.NoError(t, err)
			defer f.Close()
			size := int64(10)
			if errors.Is(c.failed, io.ErrUnexpectedEOF) {
				size++
			}
			l := &layer{ctx: t.Context(), source: &inParts{Reader: c.rest, file: f, sizes: c.sizes, err: c.reads}, done: func() {}, size: size}
			to := &connection{ResponseRecorder: httptest.NewRecorder(), err: c.writes}
			w := &counter{ResponseWriter: to}
			w.Header().Set("Content-Type", "application/octet-stream")
			serveContent(w, httptest.NewRequest(http.MethodGet, "/", nil), l)
			assert.Equal(t, "0123456789"[:c.sent], to.Body.String())
			assert.EqualValues(t, c.fromFiles, to.fromFiles)
			assert.EqualValues(t, c.sent, w.sent)
			require.ErrorIs(t, l.err, c.failed)
		})
	}
}

// A layer of a tarball in a directory goes from its file to the connection, also when another
// one takes its name meanwhile; after that the file that is held is read.
func TestStockedLayerFromItsFile(t *testing.T) {
	s := newShelf(t)
	s.stock("image", testRef, "large")
	large, raw := layerOf(t, "large")
	var reported failures
	h := New(s.dir, &Options{Failed: reported.add})
	t.Cleanup(func() { require.NoError(t, h.Close()) })
	get := func(asked string, begun func()) *connection {
		w := &connection{ResponseRecorder: httptest.NewRecorder(), begun: begun}
		r := httptest.NewRequest(http.MethodGet, "/v2/registry.test/team/image/blobs/"+large, nil)
		r.Header.Set("Range", asked)
		h.ServeHTTP(w, r)
		return w
	}
	for _, c := range []struct {
		asked    string
		from, to int
	}{{"", 0, len(raw)}, {"bytes=1000-200000", 1000, 200_001}, {"bytes=-1", len(raw) - 1, len(raw)}} {
		var other *connection
		w := get(c.asked, func() { other = get("bytes=7-", nil) })
		for _, got := range []struct {
			*connection
			want []byte
		}{{w, raw[c.from:c.to]}, {other, raw[7:]}} {
			assert.True(t, bytes.Equal(got.want, got.Body.Bytes()), c.asked)
			assert.EqualValues(t, len(got.want), got.fromFiles, c.asked)
		}
	}
	w := get("", func() { s.stock("image", testRef, "b") })
	assert.True(t, bytes.Equal(raw, w.Body.Bytes()))
	assert.EqualValues(t, len(raw), w.fromFiles)
	w = get("", nil)
	assert.True(t, bytes.Equal(raw, w.Body.Bytes()))
	assert.Zero(t, w.fromFiles)
	assert.Empty(t, reported.take())
}

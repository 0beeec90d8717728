package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/imagespec"
	"github.com/dockercache/dockercache/internal/imagetest"
	"github.com/dockercache/dockercache/internal/metrics/metricstest"
)

// origin is an [Upstream] in memory: the registry up.test, and others that are not allowed.
type origin struct {
	t   *testing.T
	dir *cache.Dir

	mu        sync.Mutex
	manifests map[string][]byte // by reference
	configs   map[v1.Hash][]byte
	blobs     blobs
	asked     []string
	stocked   []Missing
	read      atomic.Int64 // bytes of layers
	err       error        // of both methods

	gate  chan struct{} // not nil: half of each answer with a layer waits for it
	fails atomic.Bool   // the other half then never comes
	begun chan struct{} // not nil: Stock waits for it
}

func newOrigin(t *testing.T, dir *cache.Dir) *origin {
	return &origin{t: t, dir: dir, manifests: map[string][]byte{}, configs: map[v1.Hash][]byte{}, blobs: blobs{}}
}

// push makes a reference that is an image of layers.
func (o *origin) push(ref string, layers ...v1.Layer) (manifest []byte) {
	o.t.Helper()
	img, err := imagetest.Image(layers...)
	require.NoError(o.t, err)
	manifest, err = img.RawManifest()
	require.NoError(o.t, err)
	config, err := img.RawConfigFile()
	require.NoError(o.t, err)
	o.configs[imagespec.DigestOf(config)] = config
	for _, l := range layers {
		r, err := l.Compressed()
		require.NoError(o.t, err)
		raw, err := io.ReadAll(r)
		require.NoError(o.t, err)
		o.blobs[imagespec.DigestOf(raw)] = raw
	}
	o.pushManifest(ref, manifest)
	return manifest
}

func (o *origin) pushManifest(ref string, raw []byte) {
	repository, _, _ := strings.Cut(ref, ":")
	o.manifests[ref] = raw
	o.manifests[repository+"@"+imagespec.DigestOf(raw).String()] = raw
}

func (o *origin) Allows(repository string) bool { return strings.HasPrefix(repository, "up.test/") }

func (o *origin) Manifest(_ context.Context, ref string) ([]byte, types.MediaType, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked = append(o.asked, ref)
	raw := o.manifests[ref]
	if o.err != nil {
		return nil, "", o.err
	}
	if raw == nil {
		return nil, "", fmt.Errorf("%w: %s", ErrNotFound, ref)
	}
	mediaType, err := imagespec.MediaType(raw)
	return raw, mediaType, err
}

func (o *origin) Stock(ctx context.Context, m Missing, incoming func(*cache.Incoming)) (*cache.Result, error) {
	o.mu.Lock()
	o.stocked = append(o.stocked, m)
	raw, err := o.manifests[m.Repository+"@"+m.Digest.String()], o.err
	index := o.manifests[m.Repository+"@"+m.Index.String()]
	o.mu.Unlock()
	if o.begun != nil {
		select {
		case <-o.begun:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if err != nil {
		return nil, err
	}
	manifest, err := imagespec.Manifest(raw)
	if err != nil {
		return nil, err
	}
	var indexes [][]byte
	if index != nil {
		indexes = append(indexes, index)
	}
	ref := m.Repository + ":" + m.Tag
	if m.Tag == "" {
		ref = m.Repository + ":digest-" + m.Digest.Hex
	}
	img, err := tarball.NewImage(ref, raw, o.configs[manifest.Config.Digest], indexes...)
	if err != nil {
		return nil, err
	}
	return o.dir.Put(ctx, "fill-"+m.Digest.Hex[:12]+".tar", img, o, &cache.PutOptions{Incoming: incoming})
}

// ReadRange implements [tarball.Source].
func (o *origin) ReadRange(ctx context.Context, digest v1.Hash, offset, length int64) (io.ReadCloser, error) {
	r, err := o.blobs.ReadRange(ctx, digest, offset, length)
	return &gatedBody{r, o, ctx, length / 2}, err
}

type gatedBody struct {
	io.ReadCloser
	origin *origin
	ctx    context.Context
	left   int64 // before the gate
}

func (b *gatedBody) Read(p []byte) (int, error) {
	if b.origin.gate != nil && b.left == 0 {
		select {
		case <-b.origin.gate:
			if b.origin.fails.Load() {
				return 0, errBroken
			}
			b.left = -1
		case <-b.ctx.Done():
			return 0, b.ctx.Err()
		}
	}
	if b.left > 0 {
		p = p[:min(int64(len(p)), b.left)]
	}
	n, err := b.ReadCloser.Read(p)
	b.origin.read.Add(int64(n))
	b.left -= min(int64(n), max(b.left, 0))
	return n, err
}

var errBroken error = brokenError{}

// brokenError is one that is not tried again.
type brokenError struct{}

func (brokenError) Error() string   { return "the registry is gone" }
func (brokenError) Temporary() bool { return false }

// connectOrigin serves a directory with an origin behind it.
func connectOrigin(s *shelf, o *origin, options Options) *client {
	s.t.Helper()
	c := &client{t: s.t, reported: &failures{}}
	options.Failed, options.Upstream = c.reported.add, o
	h := New(s.dir, &options)
	s.t.Cleanup(func() { require.NoError(s.t, h.Close()) })
	c.host = serve(s.t, h)
	return c
}

func noise(t *testing.T, name string, size int) v1.Layer {
	t.Helper()
	l, err := imagetest.Layer(name, size)
	require.NoError(t, err)
	return l
}

const fillPath = "/v2/up.test/team/image/"

// Any number of clients that ask at once cost one download, and read while it comes.
func TestFill(t *testing.T) {
	s := newShelf(t)
	o := newOrigin(t, s.dir)
	o.gate = make(chan struct{})
	small, large := noise(t, "small", 3000), noise(t, "large", 2<<20)
	manifest := o.push("up.test/team/image:v1", small, large)
	digest := imagespec.DigestOf(manifest).String()
	parsed, err := imagespec.Manifest(manifest)
	require.NoError(t, err)
	size := parsed.Layers[0].Size + parsed.Layers[1].Size
	c := connectOrigin(s, o, Options{})

	const clients = 13
	var group errgroup.Group
	var halves sync.WaitGroup
	halves.Add(clients)
	for range clients {
		group.Go(func() error {
			pull := func(path string) (*http.Response, error) { return http.Get("http://" + c.host + fillPath + path) }
			for _, ref := range []string{"v1", digest} {
				got, err := pull("manifests/" + ref)
				if err != nil {
					return err
				}
				raw, err := io.ReadAll(got.Body)
				if got.Body.Close(); err != nil || !bytes.Equal(raw, manifest) || got.Header.Get("Content-Type") != string(parsed.MediaType) {
					return fmt.Errorf("%w: %v", err, got.Header)
				}
			}
			got, err := pull("blobs/" + parsed.Layers[1].Digest.String())
			if err != nil {
				return err
			}
			defer got.Body.Close()
			var content bytes.Buffer
			_, err = io.CopyN(&content, got.Body, 256<<10)
			halves.Done()
			if err != nil {
				return err
			}
			if _, err := io.Copy(&content, got.Body); err != nil {
				return err
			}
			if imagespec.DigestOf(content.Bytes()) != parsed.Layers[1].Digest {
				return errors.New("other bytes")
			}
			return nil
		})
	}
	halves.Wait() // all have read of the layer, which has not come
	close(o.gate)
	require.NoError(t, group.Wait())
	for _, d := range []v1.Descriptor{parsed.Config, parsed.Layers[0]} {
		got := c.get(fillPath + "blobs/" + d.Digest.String())
		assert.Equal(t, d.Digest, imagespec.DigestOf(got.body))
	}
	assert.Equal(t, []string{"up.test/team/image:v1"}, o.asked)
	assert.Equal(t, []Missing{{Repository: "up.test/team/image", Digest: imagespec.DigestOf(manifest), Tag: "v1"}}, o.stocked)
	assert.GreaterOrEqual(t, o.read.Load(), size)
	assert.LessOrEqual(t, o.read.Load(), size+size/20, "the limit of what comes twice, whatever the machine does")
	assert.Empty(t, c.reported.take())

	metrics := string(c.get("/metrics").body)
	metricstest.Documented(t, "serve-cache", metrics)
	assert.Contains(t, metrics, "dockercache_fills_total{result=\"stocked\"} 1\n")
	assert.Contains(t, metrics, fmt.Sprintf("dockercache_fetched_bytes_total %d\n", o.read.Load()))
	assert.Contains(t, metrics, "dockercache_fills_running 0\n")

	// It is served from then on, also without the upstream.
	c = connect(s)
	c.requireServed(manifest, fillPath+"manifests/v1")
	for digest, content := range o.blobs {
		c.requireServed(content, fillPath+"blobs/"+digest.String())
	}
}

// A failure in the middle cuts the answer; before the first byte it has a status; what has
// come serves the next attempt.
func TestFillFails(t *testing.T) {
	s := newShelf(t)
	o := newOrigin(t, s.dir)
	o.gate = make(chan struct{})
	manifest := o.push("up.test/team/image:v1", noise(t, "large", 2<<20))
	parsed, err := imagespec.Manifest(manifest)
	require.NoError(t, err)
	blob := fillPath + "blobs/" + parsed.Layers[0].Digest.String()
	c := connectOrigin(s, o, Options{})
	require.Equal(t, http.StatusOK, c.get(fillPath+"manifests/v1").StatusCode)
	got, err := http.Get("http://" + c.host + blob)
	require.NoError(t, err)
	defer got.Body.Close()
	require.Equal(t, parsed.Layers[0].Size, got.ContentLength)
	_, err = io.CopyN(io.Discard, got.Body, 1000)
	require.NoError(t, err)
	o.fails.Store(true)
	close(o.gate)
	_, err = io.Copy(io.Discard, got.Body)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF, "no clean end")

	// The manifest is known, so a blob alone is a reason to try again.
	o.mu.Lock()
	o.err = errors.New("no connection")
	o.mu.Unlock()
	c.requireRefused(http.StatusBadGateway, "UNAVAILABLE", blob)
	c.requireRefused(http.StatusBadGateway, "UNAVAILABLE", fillPath+"manifests/v1")
	c.requireRefused(http.StatusBadGateway, "UNAVAILABLE", fillPath+"manifests/v2")
	assert.NotEmpty(t, c.reported.take())
	metrics := string(c.get("/metrics").body)
	assert.Contains(t, metrics, "dockercache_fills_total{result=\"stocked\"} 0\n")

	o.mu.Lock()
	o.err = nil
	o.mu.Unlock()
	o.fails.Store(false)
	before := o.read.Load()
	content := c.get(blob)
	require.NoError(t, content.err)
	assert.Equal(t, parsed.Layers[0].Digest, imagespec.DigestOf(content.body))
	assert.Less(t, o.read.Load()-before, parsed.Layers[0].Size, "it is resumed")
	assert.Equal(t, http.StatusPartialContent, c.get(blob, "Range: bytes=5-9").StatusCode)
}

// What is not allowed, or is no name, or may be either of two, is never asked for.
func TestFillAsksForNothingElse(t *testing.T) {
	s := newShelf(t)
	o := newOrigin(t, s.dir)
	o.push("up.test/team/image:v1", noise(t, "a", 3000))
	c := connectOrigin(s, o, Options{Registry: "up.test"})
	digest := "sha256:" + strings.Repeat("1", 64)
	for _, path := range []string{
		"/v2/other.test/team/image/manifests/v1", "/v2/up.test.evil/team/image/manifests/v1", "/v2/169.254.169.254/latest/meta-data/manifests/v1",
		"/v2/up.test/../other.test/image/manifests/v1", "/v2/up.test/team/Image/manifests/v1", "/v2/up.test//image/manifests/v1",
		"/v2/up.test/team/image:v2/manifests/v1", "/v2/up.test/team/image@" + digest + "/manifests/v1", "/v2/up.test/team/image%3Fx/manifests/v1",
		"/v2/user:password@up.test/team/image/manifests/v1", "/v2/up.test/team/image%00/manifests/v1", "/v2/up.test/team/image/manifests/..", "/v2/up.test/team/image/manifests/a%20b",
		"/v2/up.test/team/image/manifests/" + strings.Repeat("a", 129), "/v2/team/image/manifests/v1?ns=other.test", "/v2/team/image/manifests/v1?ns=up.test/x%3F", "/v2/team/image/manifests/v1?ns=user@up.test",
		"/v2/up.test/team/image/blobs/" + digest,
		"/v2/up.test/team/image/manifests/v1", // of up.test, or up.test/up.test/team/image: a client that states neither may mean either
	} {
		got := c.get(path)
		assert.Equal(t, http.StatusNotFound, got.StatusCode, path)
	}
	for _, digest := range []string{"sha256:1234", "md5:x", "sha256:" + strings.Repeat("A", 64)} {
		assert.Equal(t, http.StatusBadRequest, c.get("/v2/team/image/manifests/"+digest).StatusCode)
	}
	assert.Empty(t, o.asked)
	assert.Empty(t, o.stocked)
	assert.Equal(t, http.StatusOK, c.get("/v2/team/image/manifests/v1").StatusCode)
	assert.Equal(t, http.StatusOK, c.get("/v2/team/image/manifests/v1?ns=up.test").StatusCode)
	assert.Equal(t, http.StatusOK, c.get("/v2/up.test/team/image/manifests/v1?ns=up.test").StatusCode)
	assert.Equal(t, []string{"up.test/team/image:v1"}, o.asked)

	// Who may not read does not make it ask.
	c = connectOrigin(s, o, Options{Authorize: func(*http.Request, string) error { return ErrUnauthorized }})
	c.requireRefused(http.StatusUnauthorized, "UNAUTHORIZED", fillPath+"manifests/v2")
	c.requireRefused(http.StatusUnauthorized, "UNAUTHORIZED", "/metrics")
	assert.Len(t, o.asked, 1)
}

// An index is served as it is; of what it lists that is fetched which a client asks for, with
// the index.
func TestFillIndex(t *testing.T) {
	s := newShelf(t)
	o := newOrigin(t, s.dir)
	amd := o.push("up.test/team/image@amd", noise(t, "amd", 3000))
	arm := o.push("up.test/team/image@arm", noise(t, "arm", 3000))
	var entries []v1.Descriptor
	for i, raw := range [][]byte{amd, arm} {
		entries = append(entries, v1.Descriptor{MediaType: types.DockerManifestSchema2, Size: int64(len(raw)), Digest: imagespec.DigestOf(raw), Platform: &v1.Platform{OS: "linux", Architecture: []string{"amd64", "arm64"}[i]}})
	}
	index, err := json.Marshal(v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: entries})
	require.NoError(t, err)
	o.manifests["up.test/team/image@"+entries[0].Digest.String()] = amd
	o.manifests["up.test/team/image@"+entries[1].Digest.String()] = arm
	o.pushManifest("up.test/team/image:v1", index)
	c := connectOrigin(s, o, Options{})
	require.Equal(t, http.StatusOK, c.do(http.MethodHead, fillPath+"manifests/v1").StatusCode)
	c.requireServed(index, fillPath+"manifests/v1")
	require.Equal(t, http.StatusOK, c.do(http.MethodHead, fillPath+"manifests/"+entries[1].Digest.String()).StatusCode)
	assert.Empty(t, o.stocked, "nobody has asked for an image")
	c.requireServed(arm, fillPath+"manifests/"+entries[1].Digest.String())
	want := Missing{Repository: "up.test/team/image", Digest: entries[1].Digest, Tag: "v1", Index: imagespec.DigestOf(index), Platform: *entries[1].Platform}
	assert.Equal(t, []Missing{want}, o.stocked)
	layer, content := layerOf(t, "arm")
	c.requireServed(content, fillPath+"blobs/"+layer)
	assert.Equal(t, []string{"up.test/team/image:v1", "up.test/team/image@" + entries[1].Digest.String()}, o.asked)

	// Another program, that has the directory alone, knows the index, and fetches the other
	// platform by it.
	c = connectOrigin(s, o, Options{})
	c.requireServed(index, fillPath+"manifests/v1")
	c.requireServed(amd, fillPath+"manifests/"+entries[0].Digest.String())
	want.Digest, want.Platform = entries[0].Digest, *entries[0].Platform
	assert.Equal(t, want, o.stocked[1])

	// A blob of a manifest that nobody has asked for is not known.
	c = connectOrigin(newShelf(t), o, Options{})
	c.requireRefused(http.StatusNotFound, "NAME_UNKNOWN", fillPath+"blobs/"+layer)
	// A HEAD of one that is known costs nothing.
	require.Equal(t, http.StatusOK, c.do(http.MethodHead, fillPath+"manifests/"+entries[1].Digest.String()).StatusCode)
	head := c.do(http.MethodHead, fillPath+"blobs/"+layer)
	require.Equal(t, http.StatusOK, head.StatusCode)
	assert.EqualValues(t, len(content), head.ContentLength)
	assert.Len(t, o.stocked, 2)
}

// What lies, or is no image, is not served.
func TestFillOfOtherThings(t *testing.T) {
	s := newShelf(t)
	o := newOrigin(t, s.dir)
	image := o.push("up.test/team/image:v1", noise(t, "a", 3000))
	artifact := bytes.Replace(image, []byte(`"schemaVersion"`), []byte(`"artifactType":"application/x","schemaVersion"`), 1)
	o.pushManifest("up.test/team/image:artifact", artifact)
	lie := "sha256:" + strings.Repeat("1", 64)
	o.manifests["up.test/team/image@"+lie] = image
	c := connectOrigin(s, o, Options{})
	c.requireRefused(http.StatusNotFound, "NAME_UNKNOWN", fillPath+"manifests/artifact")
	c.requireRefused(http.StatusNotFound, "NAME_UNKNOWN", fillPath+"manifests/"+lie)
	c.requireRefused(http.StatusNotFound, "NAME_UNKNOWN", fillPath+"manifests/absent")
	assert.Empty(t, o.stocked)
	assert.Empty(t, c.reported.take(), "nothing is wrong with the upstream")
}

// The end of the program ends what is being fetched, and no more is.
func TestFillEnds(t *testing.T) {
	s := newShelf(t)
	o := newOrigin(t, s.dir)
	o.gate = make(chan struct{})
	manifest := o.push("up.test/team/image:v1", noise(t, "large", 2<<20))
	parsed, err := imagespec.Manifest(manifest)
	require.NoError(t, err)
	reported := &failures{}
	h := New(s.dir, &Options{Upstream: o, Failed: reported.add})
	c := &client{t: t, host: serve(t, h)}
	require.Equal(t, http.StatusOK, c.get(fillPath+"manifests/v1").StatusCode)
	got, err := http.Get("http://" + c.host + fillPath + "blobs/" + parsed.Layers[0].Digest.String())
	require.NoError(t, err)
	defer got.Body.Close()
	require.NoError(t, h.Close())
	_, err = io.Copy(io.Discard, got.Body)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	c.requireRefused(http.StatusBadGateway, "UNAVAILABLE", fillPath+"blobs/"+parsed.Layers[0].Digest.String())
	assert.Len(t, o.stocked, 1)
	for _, err := range reported.take() { // of the client's answer alone
		assert.ErrorIs(t, err, context.Canceled)
	}
	require.NoError(t, h.Close())
}

// A tag is asked for again when it may be another image by now; an image that is long in
// coming keeps no client waiting for its manifest; many manifests are not remembered.
func TestFillTimes(t *testing.T) {
	s := newShelf(t)
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin(t, s.dir)
		image := o.push("up.test/team/image:v1", noise(t, "a", 3000))
		o.begun = make(chan struct{}) // never: another process is at work on it
		h := New(s.dir, &Options{Upstream: o})
		ask := func(method, path string) int {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
			return w.Code
		}
		begun := time.Now()
		require.Equal(t, http.StatusOK, ask(http.MethodGet, fillPath+"manifests/v1"))
		assert.Equal(t, fillsWithin, time.Since(begun))
		require.Equal(t, http.StatusOK, ask(http.MethodHead, fillPath+"manifests/v1"))
		assert.Len(t, o.asked, 1)
		time.Sleep(tagFor)
		require.Equal(t, http.StatusOK, ask(http.MethodHead, fillPath+"manifests/v1"))
		assert.Len(t, o.asked, 2)
		require.Equal(t, http.StatusOK, ask(http.MethodHead, fillPath+"manifests/"+imagespec.DigestOf(image).String()))
		assert.Len(t, o.asked, 2, "a digest is always the same")
		for i := range maxOriginals {
			o.pushManifest(fmt.Sprintf("up.test/team/other:t%d", i), fmt.Append(nil, string(image[:1])+fmt.Sprintf(`"annotations":{"n":"%d"},`, i)+string(image[1:])))
			require.Equal(t, http.StatusOK, ask(http.MethodHead, fmt.Sprintf("/v2/up.test/team/other/manifests/t%d", i)))
		}
		assert.LessOrEqual(t, len(h.server.filler.originals), maxOriginals+1)
		require.NoError(t, h.Close())
	})
}

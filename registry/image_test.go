package registry_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/registry"
	"github.com/dockercache/dockercache/registry/registrytest"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// remote is an image that was pushed to a server and resolved from it.
type remote struct {
	*registry.Image
	server  *registrytest.Server
	layer   v1.Descriptor
	content []byte
}

func resolved(t *testing.T, change func(*registry.Options)) remote {
	t.Helper()
	return resolvedWith(t, registrytest.Quirks{}, change)
}

// resolvedWith is resolved from a server with quirks.
func resolvedWith(t *testing.T, q registrytest.Quirks, change func(*registry.Options)) remote {
	t.Helper()
	server := registrytest.New(t)
	image := randomImage(t, 1)
	ref := push(t, server, "team/image:tag", image)
	server.SetQuirks(q)
	got, err := newClient(change).Image(t.Context(), registry.DefaultPlatform(), ref)
	require.NoError(t, err)
	return remote{got, server, layersOf(t, image)[0], contentOf(t, image, 0)}
}

func (r remote) read(ctx context.Context, offset, length int64) ([]byte, error) {
	body, err := r.ReadRange(ctx, r.layer.Digest, offset, length)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(body)
	return content, errors.Join(err, body.Close())
}

func TestReadRange(t *testing.T) {
	r := resolved(t, nil)
	for _, c := range []struct{ offset, length int64 }{{0, r.layer.Size}, {0, 1}, {1, 1}, {1000, 50_000}, {r.layer.Size - 1, 1}, {1, r.layer.Size - 1}} {
		got, err := r.read(t.Context(), c.offset, c.length)
		require.NoError(t, err, c)
		assert.True(t, bytes.Equal(r.content[c.offset:c.offset+c.length], got), c)
	}
	for _, req := range r.server.Requests() {
		if rng := req.Header.Get("Range"); rng != "" {
			assert.Regexp(t, `^bytes=\d+-\d+$`, rng, "only closed ranges")
		}
		if strings.Contains(req.Path, "/blobs/") || strings.Contains(req.Path, "/manifests/") {
			assert.Equal(t, "identity", req.Header.Get("Accept-Encoding"))
		}
	}
}

func TestReadRangeRefusesWhatTheManifestDoesNotHave(t *testing.T) {
	r := resolved(t, nil)
	for _, c := range []struct{ offset, length int64 }{{-1, 1}, {0, 0}, {0, r.layer.Size + 1}, {r.layer.Size, 1}, {1, 1<<63 - 1}} {
		_, err := r.read(t.Context(), c.offset, c.length)
		require.Error(t, err, c)
	}
	_, err := r.ReadRange(t.Context(), v1.Hash{Algorithm: "sha256", Hex: "00"}, 0, 1)
	require.ErrorContains(t, err, "is not part of")
}

func TestReadRangeFaults(t *testing.T) {
	for name, c := range map[string]struct {
		quirks         registrytest.Quirks
		offset, length int64 // length 0: to the end
		kind           error
		says           string
	}{
		"absent now":               {quirks: registrytest.Quirks{Status: 404}, kind: registry.ErrNotFound},
		"denied now":               {quirks: registrytest.Quirks{Status: 401}, kind: registry.ErrDenied},
		"unavailable":              {quirks: registrytest.Quirks{Status: 500}, kind: registry.ErrUnreachable},
		"short":                    {quirks: registrytest.Quirks{ShortBlob: true}, kind: registry.ErrSize, says: "the manifest declares"},
		"long":                     {quirks: registrytest.Quirks{LongBlob: true}, kind: registry.ErrSize, says: "the manifest declares"},
		"long, without ranges":     {quirks: registrytest.Quirks{LongBlob: true, IgnoreRange: true}, kind: registry.ErrSize},
		"range behind a short end": {quirks: registrytest.Quirks{ShortBlob: true}, offset: -1, kind: registry.ErrSize, says: "has none at"},
		"wrong Content-Range":      {quirks: registrytest.Quirks{WrongContentRange: true}, length: 1000, kind: registry.ErrInvalidAnswer, says: "Content-Range"},
		"ignores ranges":           {quirks: registrytest.Quirks{IgnoreRange: true}, offset: 1, kind: registry.ErrNoRanges, says: "the whole blob"},
		"cut":                      {quirks: registrytest.Quirks{CutBodyAfter: 1000}, kind: registry.ErrUnreachable, says: "unexpected EOF"},
		"stalled":                  {quirks: registrytest.Quirks{Stall: true}, kind: registry.ErrUnreachable, says: "no byte came for too long"},
	} {
		t.Run(name, func(t *testing.T) {
			r := resolved(t, func(o *registry.Options) { o.StallTimeout = 300 * time.Millisecond })
			if c.offset < 0 {
				c.offset += r.layer.Size
			}
			if c.length == 0 {
				c.length = r.layer.Size - c.offset
			}
			r.server.SetQuirks(c.quirks)
			_, err := r.read(t.Context(), c.offset, c.length)
			require.ErrorIs(t, err, c.kind)
			assert.ErrorContains(t, err, c.says)
			assert.ErrorContains(t, err, r.server.Host()+"/team/image", "the error names the source")
			assert.ErrorContains(t, err, r.layer.Digest.String(), "and the blob")
		})
	}
}

// Whatever the headers of the answer are, the reader returns the bytes that were
// asked for and then ends, or fails.
func TestReadRangeAnswersThatLie(t *testing.T) {
	image := randomImage(t, 1)
	content := contentOf(t, image, 0)
	size := itoa(int64(len(content)))
	for name, c := range map[string]struct {
		status int
		header string // Content-Range
		body   []byte
		kind   error
	}{
		"right":                    {206, "bytes 0-99/" + size, content[:100], nil},
		"right, total not stated":  {206, "bytes 0-99/*", content[:100], nil},
		"part of the range":        {206, "bytes 0-49/" + size, content[:50], registry.ErrUnreachable},
		"declares all, sends part": {206, "bytes 0-99/" + size, content[:50], registry.ErrUnreachable},
		"declares all, sends more": {206, "bytes 0-99/" + size, content, registry.ErrSize},
		"whole blob":               {200, "", content, nil},
		"whole blob, but not all":  {200, "", content[:50], registry.ErrUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			server := registrytest.New(t)
			ref := push(t, server, "image:tag", image)
			front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Range") == "" {
					proxyTo(server, w, r)
					return
				}
				if c.header != "" {
					w.Header().Set("Content-Range", c.header)
				}
				w.WriteHeader(c.status)
				_ = http.NewResponseController(w).Flush() // chunked: no length is stated
				_, _ = w.Write(c.body)
			}))
			defer front.Close()
			ref = strings.Replace(ref, server.Host(), strings.TrimPrefix(front.URL, "http://"), 1)
			got, err := newClient(nil).Image(t.Context(), registry.DefaultPlatform(), ref)
			require.NoError(t, err)
			r := remote{Image: got, layer: layersOf(t, image)[0]}
			read, err := r.read(t.Context(), 0, 100)
			if c.kind != nil {
				require.ErrorIs(t, err, c.kind)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, content[:100], read)
		})
	}
}

// A registry without ranges can still serve a blob from its beginning.
func TestReadRangeIgnoredFromTheBeginning(t *testing.T) {
	r := resolved(t, nil)
	r.server.SetQuirks(registrytest.Quirks{IgnoreRange: true})
	for _, length := range []int64{r.layer.Size, 1000} {
		got, err := r.read(t.Context(), 0, length)
		require.NoError(t, err)
		assert.True(t, bytes.Equal(r.content[:length], got))
	}
}

// Requests for blobs are not repeated here; the error reports whether, and when, to ask
// again. A host that asks for a delay with 429 or 503 is not asked before.
func TestReadRangeSaysWhenToAskAgain(t *testing.T) {
	for status, temporary := range map[int]bool{429: true, 500: true, 503: true, 404: false, 403: false} {
		r := resolved(t, nil)
		r.server.SetQuirks(registrytest.Quirks{Status: status, RetryAfter: 7, StatusCount: 1})
		_, err := r.read(t.Context(), 0, r.layer.Size)
		var may interface{ Temporary() bool }
		require.ErrorAs(t, err, &may)
		assert.Equal(t, temporary, may.Temporary(), status)
		var typed *registry.Error
		require.ErrorAs(t, err, &typed)
		assert.Equal(t, 7*time.Second, typed.RetryAfter(), status)
		asked := len(r.server.Requests())
		got, err := r.read(t.Context(), 0, r.layer.Size)
		if status == 429 || status == 503 {
			require.ErrorIs(t, err, registry.ErrUnreachable)
			require.ErrorContains(t, err, "not asked, since "+r.server.Host()+" refuses requests for another ")
			require.ErrorAs(t, err, &typed)
			assert.Greater(t, typed.RetryAfter(), 5*time.Second)
			assert.Len(t, r.server.Requests(), asked)
			continue
		}
		require.NoError(t, err, "the first request was not repeated")
		assert.True(t, bytes.Equal(r.content, got))
	}
}

// A source that sent wrong bytes of a blob is not the first to be asked again.
func TestDistrust(t *testing.T) {
	mirror, own := registrytest.New(t), registrytest.New(t)
	image := randomImage(t, 1)
	got, err := newClient(nil).Image(t.Context(), registry.DefaultPlatform(), push(t, mirror, "mirror/image:tag", image), push(t, own, "own/image:tag", image))
	require.NoError(t, err)
	r := remote{got, mirror, layersOf(t, image)[0], contentOf(t, image, 0)}
	for _, server := range []*registrytest.Server{mirror, own, mirror} {
		asked := len(server.Requests())
		_, err := r.read(t.Context(), 0, 10)
		require.NoError(t, err)
		assert.Greater(t, len(server.Requests()), asked)
		r.Distrust(r.layer.Digest)
	}
}

func TestReadRangeFallsBackToTheNextSource(t *testing.T) {
	mirror, own := registrytest.New(t), registrytest.New(t)
	image := randomImage(t, 1)
	mirrorRef, ownRef := push(t, mirror, "mirror/image:tag", image), push(t, own, "own/image:tag", image)
	got, err := newClient(nil).Image(t.Context(), registry.DefaultPlatform(), mirrorRef, ownRef)
	require.NoError(t, err)
	r := remote{got, mirror, layersOf(t, image)[0], contentOf(t, image, 0)}

	mirror.SetQuirks(registrytest.Quirks{Status: 404})
	content, err := r.read(t.Context(), 0, 10)
	require.NoError(t, err)
	assert.Equal(t, r.content[:10], content)

	own.SetQuirks(registrytest.Quirks{Status: 403})
	_, err = r.read(t.Context(), 0, 10)
	require.ErrorIs(t, err, registry.ErrNotFound)
	require.ErrorIs(t, err, registry.ErrDenied)
}

func TestReadRangeCanceled(t *testing.T) {
	r := resolved(t, nil)
	r.server.SetQuirks(registrytest.Quirks{Stall: true})
	reason := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	body, err := r.ReadRange(ctx, r.layer.Digest, 0, r.layer.Size)
	require.NoError(t, err)
	defer body.Close()
	_, err = io.ReadFull(body, make([]byte, 100))
	require.NoError(t, err)
	cancel(reason)
	_, err = io.ReadAll(body)
	require.ErrorIs(t, err, reason)
}

// Ranges through one HTTP/2 connection are logged once, with what to do about it;
// the client's own transport uses HTTP/1.1.
func TestHTTP2(t *testing.T) {
	server := registrytest.New(t)
	image := randomImage(t, 1)
	ref := push(t, server, "image:tag", image)
	front := httptest.NewUnstartedServer(server)
	front.EnableHTTP2 = true
	front.StartTLS()
	defer front.Close()
	ref = strings.Replace(ref, server.Host(), front.Listener.Addr().String(), 1)
	trusts := front.Client().Transport.(*http.Transport).TLSClientConfig

	wrapped := 0
	own := registry.DefaultTransport()
	own.TLSClientConfig = trusts.Clone()
	for name, c := range map[string]struct {
		transport http.RoundTripper
		warnings  int
	}{
		"HTTP/2":  {front.Client().Transport, 1},
		"default": {own, 0},
		"wrapped": {roundTripper(func(r *http.Request) (*http.Response, error) { wrapped++; return own.RoundTrip(r) }), 0},
	} {
		var log bytes.Buffer
		client := newClient(func(o *registry.Options) { o.Transport, o.Logger = c.transport, logTo(&log) })
		got, err := client.Image(t.Context(), registry.DefaultPlatform(), ref)
		require.NoError(t, err, name)
		assert.NotContains(t, log.String(), "level=WARN", "%s: no range was asked for", name)
		r := remote{Image: got, layer: layersOf(t, image)[0]}
		for range 3 {
			_, err := r.read(t.Context(), 0, 10)
			require.NoError(t, err, name)
		}
		assert.Equal(t, c.warnings, strings.Count(log.String(), "level=WARN"), "%s: %s", name, &log)
		assert.Equal(t, c.warnings, strings.Count(log.String(), "registry.DefaultTransport"), name)
	}
	assert.NotZero(t, wrapped)
	assert.NotSame(t, own, registry.DefaultTransport(), "each call returns a new one")
}

package registry_test

import (
	"bytes"
	"context"
	"errors"
	"io"
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
	server := registrytest.New(t)
	image := randomImage(t, 1)
	ref := push(t, server, "team/image:tag", image)
	got, err := newClient(change).Resolve(t.Context(), registry.DefaultPlatform(), ref)
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
		"wrong Content-Range":      {quirks: registrytest.Quirks{WrongContentRange: true}, kind: registry.ErrAnswer, says: "Content-Range"},
		"ignores ranges":           {quirks: registrytest.Quirks{IgnoreRange: true}, offset: 1, kind: registry.ErrAnswer, says: "ignores ranges"},
		"cut":                      {quirks: registrytest.Quirks{CutBodyAfter: 1000}, kind: registry.ErrUnreachable, says: "unexpected EOF"},
		"stalled":                  {quirks: registrytest.Quirks{Stall: true}, kind: registry.ErrUnreachable, says: "no byte came for too long"},
	} {
		t.Run(name, func(t *testing.T) {
			r := resolved(t, func(o *registry.Options) { o.StallTimeout = 50 * time.Millisecond })
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

// Trouble that passes is not seen by the caller.
func TestReadRangeRepeatsRequests(t *testing.T) {
	r := resolved(t, nil)
	for _, status := range []int{429, 500, 502, 503, 504} {
		r.server.SetQuirks(registrytest.Quirks{Status: status, StatusCount: 2})
		got, err := r.read(t.Context(), 0, 10)
		require.NoError(t, err, status)
		assert.Equal(t, r.content[:10], got)
	}
	r.server.SetQuirks(registrytest.Quirks{Status: 404, StatusCount: 1})
	_, err := r.read(t.Context(), 0, 10)
	require.ErrorIs(t, err, registry.ErrNotFound, "what will not change is not asked twice")
}

func TestReadRangeFallsBackToTheNextSource(t *testing.T) {
	mirror, own := registrytest.New(t), registrytest.New(t)
	image := randomImage(t, 1)
	mirrorRef, ownRef := push(t, mirror, "mirror/image:tag", image), push(t, own, "own/image:tag", image)
	got, err := newClient(nil).Resolve(t.Context(), registry.DefaultPlatform(), mirrorRef, ownRef)
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

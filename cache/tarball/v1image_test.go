package tarball

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/stream"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/internal/imagespec"
)

// asOCI returns the same layers with the media types of OCI.
func asOCI(t *testing.T, img v1.Image) v1.Image {
	t.Helper()
	layers, err := img.Layers()
	require.NoError(t, err)
	out := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for _, l := range layers {
		out, err = mutate.Append(out, mutate.Addendum{Layer: l, MediaType: types.OCILayer})
		require.NoError(t, err)
	}
	return out
}

// v1Images returns images of all kinds.
func v1Images(t *testing.T) map[string]v1.Image {
	t.Helper()
	made, err := random.Image(5000, 3)
	require.NoError(t, err)
	twice, err := made.Layers()
	require.NoError(t, err)
	extended, err := mutate.AppendLayers(made, twice[0])
	require.NoError(t, err)
	extended, err = mutate.Config(extended, v1.Config{Entrypoint: []string{"/bin/sh"}})
	require.NoError(t, err)
	index, err := random.Index(3000, 2, 2)
	require.NoError(t, err)
	onDisk, err := layout.Write(t.TempDir(), index)
	require.NoError(t, err)
	read, err := onDisk.ImageIndex()
	require.NoError(t, err)
	manifest, err := read.IndexManifest()
	require.NoError(t, err)
	fromLayout, err := read.Image(manifest.Manifests[1].Digest)
	require.NoError(t, err)
	return map[string]v1.Image{
		"schema 2":        made,
		"OCI":             asOCI(t, made),
		"a layer twice":   extended,
		"an OCI layout's": fromLayout,
		"empty":           empty.Image,
	}
}

// files returns the content of each file of an image.
func files(t *testing.T, img v1.Image) map[string]string {
	t.Helper()
	r := mutate.Extract(img)
	defer r.Close()
	all := map[string]string{}
	for entries := tar.NewReader(r); ; {
		h, err := entries.Next()
		if err == io.EOF {
			return all
		}
		require.NoError(t, err)
		content, err := io.ReadAll(entries)
		require.NoError(t, err)
		all[h.Name] = string(content)
	}
}

// From go-containerregistry to a tarball and back: all digests, media types and files
// are the same, and a registry takes the image.
func TestV1BothWays(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	for kind, want := range v1Images(t) {
		t.Run(kind, func(t *testing.T) {
			image, src, err := FromV1(cachetest.Ref, want)
			require.NoError(t, err)
			tarball := open(t, write(t, image, src, Provenance{}))
			require.NoError(t, tarball.Verify(t.Context(), nil))
			got, err := tarball.V1()
			require.NoError(t, err)
			require.NoError(t, validate.Image(got))

			for _, digest := range []func(v1.Image) (v1.Hash, error){v1.Image.Digest, v1.Image.ConfigName} {
				a, err := digest(want)
				require.NoError(t, err)
				b, err := digest(got)
				require.NoError(t, err)
				assert.Equal(t, a, b)
			}
			a, err := want.Manifest()
			require.NoError(t, err)
			b, err := got.Manifest()
			require.NoError(t, err)
			assert.Equal(t, a, b)
			mediaType, err := got.MediaType()
			require.NoError(t, err)
			assert.Equal(t, a.MediaType, mediaType)
			assert.Equal(t, files(t, want), files(t, got))

			ref, err := name.NewTag(strings.TrimPrefix(server.URL, "http://") + "/a/b:t")
			require.NoError(t, err)
			require.NoError(t, remote.Write(ref, got, remote.WithContext(t.Context())))
			desc, err := remote.Head(ref, remote.WithContext(t.Context()))
			require.NoError(t, err)
			assert.Equal(t, image.Digest(), desc.Digest)

			// And from that registry to the same bytes of a tarball.
			pulled, err := remote.Image(ref, remote.WithContext(t.Context()))
			require.NoError(t, err)
			again, src, err := FromV1(cachetest.Ref, pulled)
			require.NoError(t, err)
			require.NoError(t, open(t, write(t, again, src, Provenance{})).Verify(t.Context(), nil))
			assert.Equal(t, image, again)

			_, err = got.LayerByDigest(imagespec.DigestOf([]byte("other")))
			require.ErrorContains(t, err, "is not part of "+tarball.Name())
		})
	}
}

// The layers of V1 are verified: one with wrong bytes is never read whole, and the
// error stays.
func TestV1OfADamagedTarball(t *testing.T) {
	img, src, path := written(t)
	damage(t, path, 0)
	made, err := open(t, path).V1()
	require.NoError(t, err)
	layers, err := made.Layers()
	require.NoError(t, err)
	bad, err := layers[0].Compressed()
	require.NoError(t, err)
	defer bad.Close()
	for range 3 {
		_, err = io.ReadAll(bad)
		require.ErrorIs(t, err, ErrDigest)
	}
	good, err := layers[1].Compressed()
	require.NoError(t, err)
	defer good.Close()
	require.NoError(t, iotest.TestReader(good, src[img.Layers()[1].Digest]))
}

func TestFromV1Refuses(t *testing.T) {
	_, _, err := FromV1(cachetest.Ref, nil)
	require.ErrorIs(t, err, ErrInvalidImage)

	_, _, err = FromV1("no-tag", empty.Image)
	require.ErrorIs(t, err, ErrInvalidImage)

	// A layer that is made while it is read: its digest is not known yet.
	streamed, err := mutate.AppendLayers(empty.Image, stream.NewLayer(io.NopCloser(strings.NewReader("x"))))
	require.NoError(t, err)
	_, _, err = FromV1(cachetest.Ref, streamed)
	require.ErrorIs(t, err, stream.ErrNotComputed)
	require.ErrorContains(t, err, "manifest of "+cachetest.Ref)

	broken := errors.New("broken")
	_, _, err = FromV1(cachetest.Ref, brokenConfig{empty.Image, broken})
	require.ErrorIs(t, err, broken)
	require.ErrorContains(t, err, "config of "+cachetest.Ref)
}

type brokenConfig struct {
	v1.Image
	err error
}

func (b brokenConfig) RawConfigFile() ([]byte, error) { return nil, b.err }

// readLayer is a layer whose bytes are read from somewhere else.
type readLayer struct {
	v1.Layer
	open func() (io.ReadCloser, error)
}

func (l readLayer) Compressed() (io.ReadCloser, error) { return l.open() }

// fromLayer returns the source of an image of one layer of content, which is read from
// what open returns.
func fromLayer(t *testing.T, content []byte, open func() (io.ReadCloser, error)) (Source, v1.Hash) {
	t.Helper()
	layer := readLayer{static.NewLayer(content, types.DockerLayer), open}
	img, err := mutate.AppendLayers(empty.Image, layer)
	require.NoError(t, err)
	image, src, err := FromV1(cachetest.Ref, img)
	require.NoError(t, err)
	return src, image.Layers()[0].Digest
}

func TestV1SourceReadRange(t *testing.T) {
	content := cachetest.Noise(1, 1000)
	closed := 0
	src, digest := fromLayer(t, content, func() (io.ReadCloser, error) {
		return closer{bytes.NewReader(content), func() { closed++ }}, nil
	})
	ignorer, ok := src.(RangeIgnorer)
	require.True(t, ok)
	assert.True(t, ignorer.IgnoresRange())
	for n, c := range []struct{ offset, length int64 }{{0, 1000}, {0, 10}, {990, 10}, {3, 500}} {
		r, err := src.ReadRange(t.Context(), digest, c.offset, c.length)
		require.NoError(t, err)
		require.NoError(t, iotest.TestReader(r, content[c.offset:c.offset+c.length]))
		require.NoError(t, r.Close())
		require.NoError(t, r.Close())
		assert.Equal(t, n+1, closed, "the layer is closed once")
	}
	for _, c := range []struct {
		digest         v1.Hash
		offset, length int64
	}{{digest, -1, 1}, {digest, 0, 0}, {digest, 0, 1001}, {digest, 1000, 1}, {imagespec.DigestOf(nil), 0, 1}} {
		_, err := src.ReadRange(t.Context(), c.digest, c.offset, c.length)
		var temporary TemporaryError
		require.ErrorAs(t, err, &temporary)
		assert.False(t, temporary.Temporary())
	}
}

type closer struct {
	io.Reader
	closed func()
}

func (c closer) Close() error {
	c.closed()
	return nil
}

func TestV1SourceFails(t *testing.T) {
	broken := errors.New("broken")
	content := cachetest.Noise(1, 1000)
	src, digest := fromLayer(t, content, func() (io.ReadCloser, error) { return nil, broken })
	_, err := src.ReadRange(t.Context(), digest, 0, 1000)
	require.ErrorIs(t, err, broken)

	for reason, rest := range map[error]io.Reader{broken: iotest.ErrReader(broken), ErrSize: strings.NewReader("")} {
		closed := 0
		src, digest := fromLayer(t, content, func() (io.ReadCloser, error) {
			return closer{io.MultiReader(bytes.NewReader(content[:100]), rest), func() { closed++ }}, nil
		})
		r, err := src.ReadRange(t.Context(), digest, 0, 1000)
		require.NoError(t, err)
		got, err := io.ReadAll(r)
		require.ErrorIs(t, err, reason)
		assert.Equal(t, content[:100], got)
		require.NoError(t, r.Close())

		_, err = src.ReadRange(t.Context(), digest, 101, 10)
		require.ErrorIs(t, err, reason)
		assert.Equal(t, 2, closed)
	}
}

// stuck is a reader that waits until it is closed.
type stuck struct{ came, closed chan struct{} }

func (s stuck) Read([]byte) (int, error) {
	close(s.came)
	<-s.closed
	return 0, io.ErrClosedPipe
}

// The end of the context ends a read that waits, by closing the layer.
func TestV1SourceEndsAReadThatWaits(t *testing.T) {
	layer := stuck{make(chan struct{}), make(chan struct{})}
	src, digest := fromLayer(t, cachetest.Noise(1, 1000), func() (io.ReadCloser, error) {
		return closer{layer, func() { close(layer.closed) }}, nil
	})
	reason := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	r, err := src.ReadRange(ctx, digest, 0, 1000)
	require.NoError(t, err)
	go func() {
		<-layer.came
		cancel(reason)
	}()
	_, err = io.ReadAll(r)
	require.ErrorIs(t, err, reason)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, r.Close())
}

// And one of a layer that goes on after it was closed.
func TestV1SourceEndsWithTheContext(t *testing.T) {
	content := cachetest.Noise(1, 1000)
	src, digest := fromLayer(t, content, func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content)), nil
	})
	reason := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	r, err := src.ReadRange(ctx, digest, 0, 1000)
	require.NoError(t, err)
	defer r.Close()
	_, err = io.ReadFull(r, make([]byte, 100))
	require.NoError(t, err)
	cancel(reason)
	_, err = r.Read(make([]byte, 1))
	require.ErrorIs(t, err, reason)
	require.ErrorIs(t, err, context.Canceled)
	_, err = src.ReadRange(ctx, digest, 200, 10)
	require.ErrorIs(t, err, reason)
}

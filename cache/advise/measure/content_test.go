package measure

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// text is what compresses some three times.
func text(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, n)
	for i := range b {
		b[i] = "abcdef\n "[r.IntN(8)]
	}
	return b
}

type file struct {
	name string
	size int
}

func archive(t *testing.T, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		require.NoError(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: 0o644, Size: int64(f.size)}))
		_, err := w.Write(text(f.size))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

func packed(t *testing.T, raw []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write(raw)
	require.NoError(t, err)
	require.NoError(t, z.Close())
	return b.Bytes()
}

// names reads an archive to its end.
func names(t *testing.T, r io.Reader) (all []string) {
	t.Helper()
	for reader := tar.NewReader(r); ; {
		h, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, reader)
		require.NoError(t, err)
		all = append(all, h.Name)
	}
}

func begin(t *testing.T, layer []byte, n int64) (*content, error) {
	t.Helper()
	blobs := memory{}
	return beginning(t.Context(), blobs, v1.Descriptor{Digest: blobs.add(layer), Size: int64(len(layer))}, n)
}

func TestBeginning(t *testing.T) {
	raw := archive(t, file{"a", 10_000}, file{"b/" + strings.Repeat("long", 50), 20_000}, file{"c", 3_000_000})
	for name, layer := range map[string][]byte{"gzip": packed(t, raw), "plain": raw} {
		all, err := begin(t, layer, 1<<40)
		require.NoError(t, err)
		assert.Len(t, names(t, bytes.NewReader(all.tar)), 3, name)
		assert.InEpsilon(t, len(layer), all.packed, 0.01, name)
		assert.Equal(t, name == "plain", all.plain)

		// The third file is not whole.
		some, err := begin(t, layer, int64(len(layer))/2)
		require.NoError(t, err)
		assert.Equal(t, []string{"a", "b/" + strings.Repeat("long", 50)}, names(t, bytes.NewReader(some.tar)), name)
		assert.Less(t, some.packed, int64(100_000), "what is left out does not count")

		few, err := all.first(all.packed / 20)
		require.NoError(t, err)
		assert.Len(t, names(t, bytes.NewReader(few.tar)), 2)
		assert.Less(t, few.packed, all.packed/20)
	}
}

// A layer that is one file.
func TestBeginningOfLargeFile(t *testing.T) {
	layer := packed(t, archive(t, file{"a", 5_000_000}))
	c, err := begin(t, layer, int64(len(layer))/2)
	require.NoError(t, err)
	assert.Equal(t, []string{"a"}, names(t, bytes.NewReader(c.tar)))
	assert.InEpsilon(t, 2_500_000, len(c.tar), 0.1)
	assert.InEpsilon(t, len(layer)/2, c.packed, 0.1)
	few, err := c.first(c.packed / 10)
	require.NoError(t, err)
	assert.Equal(t, []string{"a"}, names(t, bytes.NewReader(few.tar)))
	assert.InEpsilon(t, 250_000, len(few.tar), 0.1)
	assert.InEpsilon(t, c.packed/10, few.packed, 0.1)
}

// What unpacks to a thousand times its size is cut, before it fills the memory.
func TestBeginningOfZeros(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	require.NoError(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "a", Mode: 0o644, Size: 64 << 20}))
	_, err := w.Write(make([]byte, 64<<20))
	require.NoError(t, err)
	layer := packed(t, b.Bytes())
	c, err := begin(t, layer, int64(len(layer)))
	require.NoError(t, err)
	assert.LessOrEqual(t, len(c.tar), mostUnpacked*len(layer)+1024)
}

// What is in memory already is not unpacked, or packed, to its end when the context ends.
func TestContentEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	blobs := memory{}
	layer := packed(t, archive(t, file{"a", 100_000}))
	_, err := beginning(ctx, blobs, v1.Descriptor{Digest: blobs.add(layer), Size: int64(len(layer))}, 1<<20)
	require.ErrorIs(t, err, context.Canceled)
	_, _, err = (&content{tar: archive(t)}).image(ctx, "localhost/a:b", v1.Platform{})
	require.ErrorIs(t, err, context.Canceled)
}

func TestBeginningRefuses(t *testing.T) {
	_, err := begin(t, []byte{0x28, 0xb5, 0x2f, 0xfd, 0}, 100)
	require.ErrorContains(t, err, "a sample cannot be made of a layer in zstd")
	for _, bad := range [][]byte{packed(t, nil), []byte("no archive"), {0x1f, 0x8b, 0, 0, 0}, packed(t, archive(t))} {
		_, err = begin(t, bad, 1<<20)
		require.ErrorContains(t, err, "layer sha256:")
	}
}

// The image that is made has the content, is like no other, and is a whole one.
func TestContentImage(t *testing.T) {
	for _, plain := range []bool{false, true} {
		c := &content{tar: archive(t, file{"a", 100_000})[:100_000/512*512+1024], plain: plain}
		var digests []v1.Hash
		for range 2 {
			img, src, err := c.image(t.Context(), "localhost/a:b", v1.Platform{OS: "linux", Architecture: "arm64"})
			require.NoError(t, err)
			assert.Equal(t, "arm64", img.Platform().Architecture)
			layer := img.Layers()[0]
			digests = append(digests, layer.Digest)
			r, err := src.ReadRange(t.Context(), layer.Digest, 0, layer.Size)
			require.NoError(t, err)
			z, err := gzip.NewReader(r)
			require.NoError(t, err)
			found := names(t, z)
			assert.Equal(t, "a", found[0])
			assert.Len(t, found, 2)
			_, err = src.ReadRange(t.Context(), layer.Digest, 1, layer.Size)
			require.Error(t, err)
			assert.Equal(t, plain, layer.Size > 100_000)
		}
		assert.NotEqual(t, digests[0], digests[1])
	}
}

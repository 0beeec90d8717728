package tarball

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"testing"
	"testing/iotest"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/internal/cachetest"
)

func TestReadRange(t *testing.T) {
	src := cachetest.Blobs{}
	content := cachetest.Noise(1, 10_000)
	layer := src.Add(content)
	tarball := open(t, write(t, testImage(t, layer), src, Provenance{}))
	for _, c := range []struct{ offset, length int64 }{{0, 10_000}, {0, 1}, {9_999, 1}, {5, 5_000}} {
		r, err := tarball.ReadRange(t.Context(), layer.Digest, c.offset, c.length)
		require.NoError(t, err)
		require.NoError(t, iotest.TestReader(r, content[c.offset:c.offset+c.length]))
		require.NoError(t, r.Close())
		require.NoError(t, r.Close())
	}
	refused := func(err error) {
		t.Helper()
		var temporary TemporaryError
		require.ErrorAs(t, err, &temporary)
		assert.False(t, temporary.Temporary(), "no request would ever succeed")
	}
	for _, c := range []struct{ offset, length int64 }{{-1, 1}, {0, 0}, {0, -1}, {0, 10_001}, {10_000, 1}, {1, 1<<63 - 1}, {1<<63 - 1, 1}} {
		_, err := tarball.ReadRange(t.Context(), layer.Digest, c.offset, c.length)
		refused(err)
	}
	_, err := tarball.ReadRange(t.Context(), v1.Hash{}, 0, 1)
	refused(err)
	require.ErrorContains(t, err, "is not part of")

	// It is a source like any other.
	whole, err := os.ReadFile(tarball.Name())
	require.NoError(t, err)
	copied, err := os.ReadFile(write(t, tarball.Image, tarball, tarball.Provenance))
	require.NoError(t, err)
	assert.True(t, bytes.Equal(whole, copied))
	_, r := openArchive(t, tarball, nil)
	require.NoError(t, iotest.TestReader(r, whole))
	require.NoError(t, r.Close())
	_, err = r.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrClosed)
}

// Parts are of a file of the reader's own, and together what Read would have given.
func TestReadRangeInParts(t *testing.T) {
	src := cachetest.Blobs{}
	content := cachetest.Noise(1, 2*maxPart+10_000)
	layer := src.Add(content)
	path := write(t, testImage(t, layer), src, Provenance{})
	tarball := open(t, path)
	ctx, cancel := context.WithCancel(t.Context())
	begin := func(tarball *Tarball) PartReader {
		r, err := tarball.ReadRange(ctx, layer.Digest, 10, layer.Size-20)
		require.NoError(t, err)
		return r.(PartReader)
	}
	want := content[10 : len(content)-10]
	first, second, late := begin(tarball), begin(tarball), begin(tarball)
	var all bytes.Buffer
	for {
		part, err := first.Part()
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		require.IsType(t, &os.File{}, part.R)
		theirs, err := second.Part()
		require.NoError(t, err)
		require.NotSame(t, part.R, theirs.R)
		_, err = io.CopyN(io.Discard, theirs, 1000) // by another offset
		require.NoError(t, err)
		_, err = all.ReadFrom(part)
		require.NoError(t, err)
	}
	assert.True(t, bytes.Equal(want, all.Bytes()))
	require.NoError(t, first.Close())

	// What is closed has nothing more, also of a part that was begun.
	ended := begin(tarball)
	part, err := ended.Part()
	require.NoError(t, err)
	_, err = io.CopyN(io.Discard, part, 10)
	require.NoError(t, err)
	require.NoError(t, ended.Close())
	n, err := ended.Read(make([]byte, 10))
	require.Equal(t, io.EOF, err)
	assert.Zero(t, n)

	// Another file takes the name: what was begun is read on, in whatever way.
	require.NoError(t, os.Rename(write(t, testImage(t, src.Add(cachetest.Noise(2, 1000))), src, Provenance{}), path))
	part, err = second.Part()
	require.NoError(t, err)
	_, err = io.CopyN(io.Discard, part, 1000)
	require.NoError(t, err)
	rest, err := io.ReadAll(second)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(want[4000:], rest))
	require.NoError(t, second.Close())
	require.ErrorIs(t, part.R.(*os.File).Close(), os.ErrClosed)
	part, err = late.Part()
	require.NoError(t, err)
	assert.Nil(t, part)
	rest, err = io.ReadAll(late)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(want, rest))

	noFile, err := Read(struct{ io.ReaderAt }{tarball.r}, tarball.Layout.Size(), "bucket")
	require.NoError(t, err)
	late = begin(noFile)
	part, err = late.Part()
	require.NoError(t, err)
	assert.Nil(t, part)
	cancel()
	_, err = late.Part()
	require.ErrorIs(t, err, context.Canceled)
}

// What is open is read to its end, by readers that begin before and after another file
// takes its name, and after that is removed.
func TestOpenTarballSurvivesReplacement(t *testing.T) {
	src := cachetest.Blobs{}
	tip := src.Add(cachetest.Noise(5, 9000))
	layers := []v1.Descriptor{src.Add(cachetest.Noise(1, 10_000)), src.Add(cachetest.Noise(2, 3*aheadBuffer)), tip}
	path := write(t, testImage(t, layers...), src, Provenance{})
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	tarball := open(t, path)
	begun, err := tarball.ReadRange(t.Context(), layers[1].Digest, 0, layers[1].Size)
	require.NoError(t, err)
	defer begun.Close()
	_, err = io.CopyN(io.Discard, begun, 100)
	require.NoError(t, err)

	other := write(t, testImage(t, src.Add(cachetest.Noise(3, 70_000)), tip), src, Provenance{})
	for _, change := range []func() error{
		func() error { return os.Rename(other, path) },
		func() error { return os.Remove(path) },
	} {
		require.NoError(t, change())
		require.NoError(t, tarball.Verify(t.Context(), nil))
		_, archive := openArchive(t, tarball, nil)
		got, err := io.ReadAll(archive)
		require.NoError(t, err)
		assert.True(t, bytes.Equal(want, got))
		img, err := tarball.V1()
		require.NoError(t, err)
		for _, d := range layers {
			r, err := tarball.ReadRange(t.Context(), d.Digest, 0, d.Size)
			require.NoError(t, err)
			content, err := io.ReadAll(r)
			require.NoError(t, err)
			assert.True(t, bytes.Equal(src[d.Digest], content))
			layer, err := img.LayerByDigest(d.Digest)
			require.NoError(t, err)
			blob, err := layer.Compressed()
			require.NoError(t, err)
			content, err = io.ReadAll(blob)
			require.NoError(t, err)
			assert.True(t, bytes.Equal(src[d.Digest], content))
			require.NoError(t, errors.Join(r.Close(), blob.Close()))
		}
	}
	rest, err := io.ReadAll(begun)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(src[layers[1].Digest][100:], rest))
}

// A file that has become shorter is never taken for complete.
func TestReadRangeOfAFileCutOff(t *testing.T) {
	img, _, path := written(t)
	tarball := open(t, path)
	layer := img.Layers()[0]
	at, _ := tarball.Layout.Layer(layer.Digest)
	require.NoError(t, os.Truncate(path, at.Offset+100))
	r, err := tarball.ReadRange(t.Context(), layer.Digest, 0, layer.Size)
	require.NoError(t, err)
	defer r.Close()
	got, err := io.ReadAll(r)
	assert.Len(t, got, 100)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.ErrorContains(t, err, path)
	require.ErrorIs(t, tarball.Verify(t.Context(), nil), ErrNotTarball)
}

func TestReadRangeEndsWithTheContext(t *testing.T) {
	img, _, path := written(t)
	reason := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	r, err := open(t, path).ReadRange(ctx, img.Layers()[0].Digest, 0, 10)
	require.NoError(t, err)
	defer r.Close()
	cancel(reason)
	_, err = r.Read(make([]byte, 1))
	require.ErrorIs(t, err, reason)
	require.ErrorIs(t, err, context.Canceled)
}

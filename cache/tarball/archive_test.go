package tarball

import (
	"archive/tar"
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
	"github.com/dockercache/dockercache/cache/internal/sys"
)

// archived is a tarball of four layers, and their bytes: one of several buffers of
// the read-ahead, one that is empty, and one that is in the image twice.
func archived(t *testing.T) (*Tarball, []v1.Descriptor, cachetest.Blobs) {
	t.Helper()
	src := cachetest.Blobs{}
	layers := []v1.Descriptor{src.Add(cachetest.Noise(1, 5000)), src.Add(cachetest.Noise(2, 3*aheadBuffer+17)), src.Add(nil), src.Add(cachetest.Noise(3, 700))}
	layers = append(layers, layers[0])
	return open(t, write(t, testImage(t, layers...), src, Provenance{})), layers, src
}

func openArchive(t *testing.T, tarball *Tarball, omit func(v1.Hash) bool) (*Archive, io.ReadCloser) {
	t.Helper()
	archive, err := tarball.Archive(omit)
	require.NoError(t, err)
	r := archive.Open(t.Context())
	t.Cleanup(func() { _ = r.Close() })
	return archive, r
}

// Byte by byte the file, also when nothing is left out of it.
func TestArchiveWhole(t *testing.T) {
	tarball, _, _ := archived(t)
	want, err := os.ReadFile(tarball.Name())
	require.NoError(t, err)
	for _, omit := range []func(v1.Hash) bool{nil, func(v1.Hash) bool { return false }} {
		archive, r := openArchive(t, tarball, omit)
		assert.EqualValues(t, len(want), archive.Size())
		got, err := io.ReadAll(r)
		require.NoError(t, err)
		assert.True(t, bytes.Equal(want, got))
	}
}

func TestArchiveIsAReader(t *testing.T) {
	_, _, path := written(t)
	tarball := open(t, path)
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	_, r := openArchive(t, tarball, nil)
	require.NoError(t, iotest.TestReader(r, want))
}

// Without some layers it is a tar archive with the same beginning, its size is
// known before it is read, and the data of layers stay aligned.
func TestArchiveWithoutLayers(t *testing.T) {
	tarball, layers, src := archived(t)
	for mask := range 1 << 4 {
		without := map[v1.Hash]bool{}
		for i, l := range layers[:4] {
			without[l.Digest] = mask>>i&1 == 1
		}
		archive, r := openArchive(t, tarball, func(h v1.Hash) bool { return without[h] })
		raw, err := io.ReadAll(r)
		require.NoError(t, err)
		require.EqualValues(t, archive.Size(), len(raw))

		at := bytes.NewReader(raw)
		entries := tar.NewReader(at)
		var names []string
		for {
			h, err := entries.Next()
			if err == io.EOF {
				break
			}
			require.NoError(t, err)
			names = append(names, h.Name)
			offset := at.Size() - int64(at.Len())
			content, err := io.ReadAll(entries)
			require.NoError(t, err)
			for digest, blob := range src {
				if h.Name == blobPath(digest) {
					assert.True(t, bytes.Equal(blob, content))
					assert.Zero(t, offset%sys.Align, "%s begins at %d", h.Name, offset)
				}
			}
		}
		assert.Zero(t, at.Len()%tarBlock)
		want := []string{"oci-layout", "index.json", "manifest.json", "blobs/", "blobs/sha256/", blobPath(tarball.Image.Digest()), blobPath(tarball.Image.ConfigDigest())}
		for _, l := range layers[:4] { // the fifth is the first
			if !without[l.Digest] {
				want = append(want, blobPath(l.Digest))
			}
		}
		assert.Equal(t, want, names)

		// All that is before the first layer's header is the same.
		whole, err := os.ReadFile(tarball.Name())
		require.NoError(t, err)
		beginning := lengthOfMetadata(t, tarball)
		assert.True(t, bytes.Equal(whole[:beginning], raw[:beginning]))
	}
}

// lengthOfMetadata is where the config's data ends.
func lengthOfMetadata(t *testing.T, tarball *Tarball) int {
	t.Helper()
	head, config := tarball.Layout.head(), tarball.Image.Config()
	at := bytes.LastIndex(head, config)
	require.Positive(t, at)
	return at + len(config)
}

func writeAt(t *testing.T, path string, at int64, p []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteAt(p, at)
	require.NoError(t, errors.Join(err, f.Close()))
}

// Of a layer with wrong bytes the last are withheld, and all that follows: no reader
// gets the layer whole.
func TestArchiveOfADamagedTarball(t *testing.T) {
	for _, where := range []string{"first byte", "last byte"} {
		for n := range 2 {
			tarball, layers, _ := archived(t)
			s, _ := tarball.Layout.Layer(layers[n].Digest)
			at := s.Offset
			if where == "last byte" {
				at += s.Length - 1
			}
			old := make([]byte, 1)
			f, err := os.Open(tarball.Name())
			require.NoError(t, err)
			_, err = f.ReadAt(old, at)
			require.NoError(t, errors.Join(err, f.Close()))
			writeAt(t, tarball.Name(), at, []byte{^old[0]})

			_, r := openArchive(t, tarball, nil)
			got, err := io.ReadAll(r)
			require.ErrorIs(t, err, ErrDigest)
			require.ErrorContains(t, err, tarball.Name()+": layer "+layers[n].Digest.String())
			assert.Less(t, int64(len(got)), s.Offset+s.Length)
			for range 3 { // and it stays so
				n, again := r.Read(make([]byte, 10))
				assert.Zero(t, n)
				assert.Equal(t, err, again)
			}
			// Without that layer nobody minds.
			_, r = openArchive(t, tarball, func(h v1.Hash) bool { return h == layers[n].Digest })
			_, err = io.ReadAll(r)
			require.NoError(t, err)
		}
	}
}

// A layer of no bytes has a digest too.
func TestArchiveOfAnImpossibleLayer(t *testing.T) {
	src := cachetest.Blobs{}
	layers := []v1.Descriptor{src.Add(cachetest.Noise(1, 100)), src.Add(cachetest.Noise(2, 200))}
	layers[1].Size = 0
	layout, err := NewLayout(testImage(t, layers...), Provenance{})
	require.NoError(t, err)
	path := t.TempDir() + "/forged.tar"
	var file []byte
	for _, s := range layout.Segments() {
		if s.IsBlob() {
			file = append(file, src[s.Blob][:s.Length]...)
		} else {
			file = append(file, s.Literal...)
		}
	}
	require.NoError(t, os.WriteFile(path, file, 0o644))
	_, r := openArchive(t, open(t, path), nil)
	_, err = io.ReadAll(r)
	require.ErrorIs(t, err, ErrDigest)
}

func TestArchiveEndsWithTheContext(t *testing.T) {
	tarball, _, _ := archived(t)
	archive, err := tarball.Archive(nil)
	require.NoError(t, err)
	reason := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	r := archive.Open(ctx)
	cancel(reason)
	_, err = io.ReadAll(r)
	require.ErrorIs(t, err, reason)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, r.Close())
}

// Without verification all bytes are given out, wrong ones too; Verify finds these, in the
// layers that the archive has.
func TestArchiveVerifiedLater(t *testing.T) {
	tarball, layers, _ := archived(t)
	whole, err := tarball.Archive(nil)
	require.NoError(t, err)
	require.NoError(t, whole.Verify(t.Context()))
	at, ok := tarball.Layout.Layer(layers[1].Digest)
	require.True(t, ok)
	writeAt(t, tarball.Name(), at.Offset+7, []byte("damage"))

	r := whole.OpenUnverified(t.Context())
	defer r.Close()
	got, err := io.ReadAll(r)
	require.NoError(t, err)
	want, err := os.ReadFile(tarball.Name())
	require.NoError(t, err)
	assert.True(t, bytes.Equal(want, got))
	err = whole.Verify(t.Context())
	require.ErrorIs(t, err, ErrDigest)
	require.ErrorContains(t, err, layers[1].Digest.String())

	without, err := tarball.Archive(func(h v1.Hash) bool { return h == layers[1].Digest })
	require.NoError(t, err)
	require.NoError(t, without.Verify(t.Context()), "that one is not in it")
	ctx, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("enough")
	cancel(reason)
	err = whole.Verify(ctx)
	require.ErrorIs(t, err, reason)
	require.ErrorIs(t, err, context.Canceled)
}

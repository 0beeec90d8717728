package cache

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
)

// archived is a tarball of four layers, and their bytes: one of several buffers of
// the read-ahead, one that is empty, and one that is in the image twice.
func archived(t *testing.T) (*Tarball, []v1.Descriptor, blobs) {
	t.Helper()
	src := blobs{}
	layers := []v1.Descriptor{src.add(noise(1, 5000)), src.add(noise(2, 3*aheadBuffer+17)), src.add(nil), src.add(noise(3, 700))}
	layers = append(layers, layers[0])
	dir := openTestDir(t)
	_, err := dir.Put(t.Context(), "name_main.tar", testImage(t, layers...), src, nil)
	require.NoError(t, err)
	tarball, err := dir.Lookup("name_main.tar")
	require.NoError(t, err)
	return tarball, layers, src
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
	want, err := os.ReadFile(tarball.Path)
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
	dir, _, _, path := stocked(t)
	tarball, err := dir.Lookup("name_main.tar")
	require.NoError(t, err)
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
					assert.Zero(t, offset%layerAlign, "%s begins at %d", h.Name, offset)
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
		whole, err := os.ReadFile(tarball.Path)
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

// Of a layer with wrong bytes the last are withheld, and all that follows: nobody
// can have read the layer whole.
func TestArchiveOfADamagedTarball(t *testing.T) {
	for _, where := range []string{"first byte", "last byte"} {
		for n := range 2 {
			tarball, layers, _ := archived(t)
			s, _ := tarball.segment(layers[n].Digest)
			at := s.Offset
			if where == "last byte" {
				at += s.Length - 1
			}
			old := make([]byte, 1)
			f, err := os.Open(tarball.Path)
			require.NoError(t, err)
			_, err = f.ReadAt(old, at)
			require.NoError(t, errors.Join(err, f.Close()))
			writeAt(t, tarball.Path, at, []byte{^old[0]})

			_, r := openArchive(t, tarball, nil)
			got, err := io.ReadAll(r)
			require.ErrorIs(t, err, ErrBlobDigest)
			require.ErrorContains(t, err, tarball.Path+": layer "+layers[n].Digest.String())
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
	src := blobs{}
	layers := []v1.Descriptor{src.add(noise(1, 100)), src.add(noise(2, 200))}
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
	tarball, err := ReadTarball(path)
	require.NoError(t, err)
	_, r := openArchive(t, tarball, nil)
	_, err = io.ReadAll(r)
	require.ErrorIs(t, err, ErrBlobDigest)
}

// When another image has taken the place of the tarball, its layers are read as far
// as they are the same; one that is not there any more ends it.
func TestArchiveOfAReplacedTarball(t *testing.T) {
	src := blobs{}
	shared, old := src.add(noise(1, 10_000)), src.add(noise(2, 20_000))
	dir := openTestDir(t)
	put := func(layers ...v1.Descriptor) *Tarball {
		_, err := dir.Put(t.Context(), "name_main.tar", testImage(t, layers...), src, nil)
		require.NoError(t, err)
		tarball, err := dir.Lookup("name_main.tar")
		require.NoError(t, err)
		return tarball
	}
	tarball := put(shared, old)
	want, err := os.ReadFile(tarball.Path)
	require.NoError(t, err)
	put(src.add(noise(3, 5000)), old, shared)
	_, r := openArchive(t, tarball, nil)
	got, err := io.ReadAll(r)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(want, got))
	put(shared)
	_, r = openArchive(t, tarball, nil)
	got, err = io.ReadAll(r)
	require.ErrorIs(t, err, ErrReplaced)
	assert.True(t, bytes.HasPrefix(want, got))
	require.NoError(t, os.Remove(tarball.Path))
	_, r = openArchive(t, tarball, nil)
	_, err = io.ReadAll(r)
	require.ErrorIs(t, err, os.ErrNotExist)
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
	require.Equal(t, reason, err)
	require.NoError(t, r.Close())
}

// Without the proof all bytes are given out, wrong ones too; Prove finds these, in the
// layers that the archive has.
func TestArchiveProvenLater(t *testing.T) {
	tarball, layers, _ := archived(t)
	whole, err := tarball.Archive(nil)
	require.NoError(t, err)
	require.NoError(t, whole.Prove(t.Context()))
	at, ok := tarball.segment(layers[1].Digest)
	require.True(t, ok)
	writeAt(t, tarball.Path, at.Offset+7, []byte("damage"))

	r := whole.OpenUnproven(t.Context())
	defer r.Close()
	got, err := io.ReadAll(r)
	require.NoError(t, err)
	want, err := os.ReadFile(tarball.Path)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(want, got))
	err = whole.Prove(t.Context())
	require.ErrorIs(t, err, ErrBlobDigest)
	require.ErrorContains(t, err, layers[1].Digest.String())

	without, err := tarball.Archive(func(h v1.Hash) bool { return h == layers[1].Digest })
	require.NoError(t, err)
	require.NoError(t, without.Prove(t.Context()), "that one is not in it")
	ctx, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("enough")
	cancel(reason)
	require.ErrorIs(t, whole.Prove(ctx), reason)
}

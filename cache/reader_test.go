package cache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"syscall"
	"testing"
	"testing/iotest"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTarballReadRange(t *testing.T) {
	src := blobs{}
	content := noise(1, 10_000)
	layer := src.add(content)
	dir := openTestDir(t)
	_, err := dir.Put(t.Context(), "name_main.tar", testImage(t, layer), src, nil)
	require.NoError(t, err)
	tarball, err := dir.Lookup("name_main.tar")
	require.NoError(t, err)
	for _, c := range []struct{ offset, length int64 }{{0, 10_000}, {0, 1}, {9_999, 1}, {5, 5_000}} {
		r, err := tarball.ReadRange(t.Context(), layer.Digest, c.offset, c.length)
		require.NoError(t, err)
		require.NoError(t, iotest.TestReader(r, content[c.offset:c.offset+c.length]))
		require.NoError(t, r.Close())
		require.NoError(t, r.Close())
	}
	for _, c := range []struct{ offset, length int64 }{{-1, 1}, {0, 0}, {0, 10_001}, {10_000, 1}} {
		_, err := tarball.ReadRange(t.Context(), layer.Digest, c.offset, c.length)
		require.Error(t, err, c)
	}
	_, err = tarball.ReadRange(t.Context(), v1.Hash{}, 0, 1)
	require.ErrorContains(t, err, "is not part of")

	// It is a source like any other.
	other := openTestDir(t)
	_, err = other.Put(t.Context(), "copy_main.tar", tarball.Image, tarball, nil)
	require.NoError(t, err)
	whole, err := os.ReadFile(tarball.Path)
	require.NoError(t, err)
	r := tarball.Open(t.Context())
	require.NoError(t, iotest.TestReader(r, whole))
	require.NoError(t, r.Close())
	_, err = r.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrClosed)
}

// A file that was opened before it is replaced is read to its end; one that is
// opened after that has the same layers, or says what happened.
func TestReaderSurvivesReplacement(t *testing.T) {
	src := blobs{}
	shared, old := noise(1, 10_000), noise(2, 20_000)
	layers := []v1.Descriptor{src.add(shared), src.add(old)}
	dir := openTestDir(t)
	_, err := dir.Put(t.Context(), "name_main.tar", testImage(t, layers...), src, nil)
	require.NoError(t, err)
	tarball, err := dir.Lookup("name_main.tar")
	require.NoError(t, err)
	opened, err := tarball.ReadRange(t.Context(), layers[1].Digest, 0, 20_000)
	require.NoError(t, err)
	defer opened.Close()
	_, err = io.CopyN(io.Discard, opened, 100)
	require.NoError(t, err)
	// Another layer before the shared one: it has moved.
	_, err = dir.Put(t.Context(), "name_main.tar", testImage(t, src.add(noise(3, 70_000)), layers[0]), src, nil)
	require.NoError(t, err)

	rest, err := io.ReadAll(opened)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(old[100:], rest))
	moved, err := tarball.ReadRange(t.Context(), layers[0].Digest, 10, 9_000)
	require.NoError(t, err)
	defer moved.Close()
	got, err := io.ReadAll(moved)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(shared[10:9_010], got))
	_, err = tarball.ReadRange(t.Context(), layers[1].Digest, 0, 1)
	require.ErrorIs(t, err, ErrReplaced)
}

// stale is a file on NFS of which the server dropped the inode after some bytes.
type stale struct {
	openFile
	left int
}

func (s *stale) ReadAt(p []byte, at int64) (int, error) {
	if s.left == 0 {
		return 0, &os.PathError{Op: "read", Err: syscall.ESTALE}
	}
	n, err := s.openFile.ReadAt(p[:min(len(p), s.left)], at)
	s.left -= n
	return n, err
}

func TestReaderReopensStaleFiles(t *testing.T) {
	src := blobs{}
	content := noise(1, 10_000)
	layer := src.add(content)
	dir := openTestDir(t)
	_, err := dir.Put(t.Context(), "name_main.tar", testImage(t, layer), src, nil)
	require.NoError(t, err)
	tarball, err := dir.Lookup("name_main.tar")
	require.NoError(t, err)
	segment, _ := tarball.segment(layer.Digest)
	opens, good := 0, 1000
	r := &layerReader{ctx: t.Context(), path: tarball.Path, layer: segment, left: segment.Length}
	r.open = func(path string, digest v1.Hash) (openFile, Segment, error) {
		if opens++; opens == 3 { // it may also be stale when it is opened
			return nil, Segment{}, &os.PathError{Op: "open", Err: syscall.ESTALE}
		}
		f, s, err := openForReading(path, digest)
		return &stale{f, good}, s, err
	}
	require.NoError(t, r.reopen())
	got, err := io.ReadAll(r)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(content, got))
	assert.Equal(t, 10+1, opens)
	require.NoError(t, r.Close())

	// One that is always stale ends.
	good = 0
	r = &layerReader{ctx: t.Context(), path: tarball.Path, layer: segment, left: segment.Length, open: r.open}
	require.NoError(t, r.reopen())
	_, err = io.ReadAll(r)
	require.ErrorIs(t, err, syscall.ESTALE)
	require.NoError(t, r.Close())
}

func TestReaderEndsWithTheContext(t *testing.T) {
	dir, img, _, _ := stocked(t)
	tarball, err := dir.Lookup("name_main.tar")
	require.NoError(t, err)
	reason := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	r, err := tarball.ReadRange(ctx, img.Layers()[0].Digest, 0, 10)
	require.NoError(t, err)
	defer r.Close()
	cancel(reason)
	_, err = r.Read(make([]byte, 1))
	require.Equal(t, reason, err)
}

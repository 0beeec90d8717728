package cache

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/cache/tarball"
)

// gated gives the second half of each answer when the gate is open.
type gated struct {
	io.Reader
	gate <-chan struct{}
	left int64 // before the gate
	ctx  context.Context
}

func (g *gated) Read(p []byte) (int, error) {
	if g.left == 0 {
		select {
		case <-g.gate:
			g.left = -1
		case <-g.ctx.Done():
			return 0, g.ctx.Err()
		}
	}
	if g.left > 0 {
		p = p[:min(int64(len(p)), g.left)]
	}
	n, err := g.Reader.Read(p)
	if g.left > 0 {
		g.left -= int64(n)
	}
	return n, err
}

func (g *gated) Close() error { return nil }

// putIncoming begins to stock an image, and returns the tarball that is being written, and
// what Put returns in the end.
func putIncoming(t *testing.T, dir *Dir, name string, img *tarball.Image, src tarball.Source) (*Incoming, <-chan error) {
	t.Helper()
	in, done := make(chan *Incoming, 1), make(chan error, 1)
	go func() {
		_, err := dir.Put(t.Context(), name, img, src, &PutOptions{Incoming: func(i *Incoming) { in <- i }})
		done <- err
	}()
	select {
	case i := <-in:
		return i, done
	case err := <-done:
		t.Fatal("it ended without a call", err)
		return nil, nil
	}
}

// Layers are read while they come.
func TestIncoming(t *testing.T) {
	src := cachetest.Blobs{}
	content := cachetest.Noise(1, 4<<20)
	layer := src.Add(content)
	img := testImage(t, layer)
	gate := make(chan struct{})
	dir := openTestDir(t)
	in, done := putIncoming(t, dir, "name_main.tar", img, cachetest.SourceFunc(func(ctx context.Context, d v1.Hash, off, n int64) (io.ReadCloser, error) {
		r, err := src.ReadRange(ctx, d, off, n)
		return &gated{r, gate, n / 2, ctx}, err
	}))
	assert.Equal(t, img, in.Image())
	r, err := in.ReadRange(t.Context(), layer.Digest, 10, layer.Size-10)
	require.NoError(t, err)
	early := make([]byte, 1<<20)
	_, err = io.ReadFull(r, early)
	require.NoError(t, err, "the other half has not come")
	assert.True(t, bytes.Equal(content[10:10+len(early)], early))
	late, err := in.ReadRange(t.Context(), layer.Digest, layer.Size-5, 5)
	require.NoError(t, err)

	// Who no longer waits is no burden.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	gone, err := in.ReadRange(ctx, layer.Digest, layer.Size-5, 5)
	require.NoError(t, err)
	_, err = gone.Read(make([]byte, 5))
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, gone.Close())

	for _, bad := range [][2]int64{{-1, 1}, {0, -1}, {layer.Size, 1}, {1, layer.Size}} {
		_, err := in.ReadRange(t.Context(), layer.Digest, bad[0], bad[1])
		require.ErrorContains(t, err, "no bytes")
	}
	_, err = in.ReadRange(t.Context(), cachetest.Digest(nil), 0, 0)
	require.ErrorContains(t, err, "no bytes")

	close(gate)
	require.NoError(t, <-done)
	// Who reads it goes on, also when the tarball has gone.
	require.ErrorIs(t, dir.Remove(t.Context(), "name_main.tar"), ErrInUse)
	require.NoError(t, os.Remove(filepath.Join(dir.Path(), "name_main.tar")))
	rest, err := io.ReadAll(r)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(content, append(append(content[:10:10], early...), rest...)))
	end, err := io.ReadAll(late)
	require.NoError(t, err)
	assert.Equal(t, content[len(content)-5:], end)
	require.NoError(t, r.Close())
	require.Error(t, r.Close())
	_, err = late.Read(nil)
	require.ErrorIs(t, err, io.EOF)
	require.NoError(t, late.Close())
	_, err = late.Read(make([]byte, 1))
	require.Error(t, err)
	_, err = in.ReadRange(t.Context(), layer.Digest, 0, 1)
	require.ErrorIs(t, err, errNotIncoming)
	assert.Nil(t, in.file, "it is closed")
}

// A source that fails in the middle is no end of the layer.
func TestIncomingFails(t *testing.T) {
	src := cachetest.Blobs{}
	layer := src.Add(cachetest.Noise(1, 4<<20))
	gate := make(chan struct{})
	failed := &marked{}
	in, done := putIncoming(t, openTestDir(t), "name_main.tar", testImage(t, layer), cachetest.SourceFunc(func(ctx context.Context, d v1.Hash, off, n int64) (io.ReadCloser, error) {
		if off > 0 {
			return nil, failed
		}
		r, _ := src.ReadRange(ctx, d, off, n/2)
		return &gated{io.MultiReader(r, errorReader{failed}), gate, n / 2, ctx}, nil
	}))
	r, err := in.ReadRange(t.Context(), layer.Digest, 0, layer.Size)
	require.NoError(t, err)
	defer r.Close()
	_, err = io.ReadFull(r, make([]byte, 1<<20))
	require.NoError(t, err)
	close(gate)
	require.ErrorIs(t, <-done, failed)
	_, err = io.Copy(io.Discard, r)
	require.ErrorIs(t, err, errNotIncoming)
	require.ErrorIs(t, err, failed)
}

type errorReader struct{ error }

func (e errorReader) Read([]byte) (int, error) { return 0, e.error }

// What was wrong is not continued with what is right.
func TestIncomingWrongBytes(t *testing.T) {
	src := cachetest.Blobs{}
	content := cachetest.Noise(1, 2<<20)
	layer := src.Add(content)
	first, second := make(chan struct{}), make(chan struct{})
	var asked atomic.Int64
	in, done := putIncoming(t, openTestDir(t), "name_main.tar", testImage(t, layer), cachetest.SourceFunc(func(ctx context.Context, d v1.Hash, off, n int64) (io.ReadCloser, error) {
		if asked.Add(1) == 1 {
			return &gated{bytes.NewReader(make([]byte, n)), first, n / 2, ctx}, nil
		}
		r, err := src.ReadRange(ctx, d, off, n)
		return &gated{r, second, n / 2, ctx}, err
	}))
	r, err := in.ReadRange(t.Context(), layer.Digest, 0, layer.Size)
	require.NoError(t, err)
	_, err = io.ReadFull(r, make([]byte, 1000))
	require.NoError(t, err)
	waiting, err := in.ReadRange(t.Context(), layer.Digest, layer.Size-10, 10) // has read nothing
	require.NoError(t, err)
	close(first)
	_, err = io.Copy(io.Discard, r)
	require.ErrorIs(t, err, tarball.ErrDigest)
	require.NoError(t, r.Close())
	r, err = in.ReadRange(t.Context(), layer.Digest, 0, layer.Size)
	require.NoError(t, err)
	defer r.Close()
	close(second)
	got, err := io.ReadAll(r)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(content, got))
	_, err = io.ReadAll(waiting)
	require.NoError(t, err)
	require.NoError(t, waiting.Close())
	require.NoError(t, <-done)
}

// What is cloned or copied from another tarball is there too; and nothing is called when
// there is nothing to write.
func TestIncomingOfOtherTarballs(t *testing.T) {
	src := cachetest.Blobs{}
	shared, own := src.Add(cachetest.Noise(1, 1<<20)), src.Add(cachetest.Noise(2, 1<<20))
	dir := openTestDir(t)
	putAs(t, dir, "base_main.tar", testImage(t, shared), src, tarball.Provenance{})
	gate := make(chan struct{})
	img := testImage(t, shared, own)
	in, done := putIncoming(t, dir, "name_main.tar", img, cachetest.SourceFunc(func(ctx context.Context, d v1.Hash, off, n int64) (io.ReadCloser, error) {
		r, err := src.ReadRange(ctx, d, off, n)
		return &gated{r, gate, n / 2, ctx}, err
	}))
	r, err := in.ReadRange(t.Context(), shared.Digest, 0, shared.Size)
	require.NoError(t, err)
	got, err := io.ReadAll(r)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(src[shared.Digest], got))
	require.NoError(t, r.Close())
	close(gate)
	require.NoError(t, <-done)
	_, err = dir.Put(t.Context(), "name_main.tar", img, none, &PutOptions{Incoming: func(*Incoming) { t.Error("called") }})
	require.NoError(t, err)
}

// Parts are of a file of the reader's own, and together what Read would have given.
func TestIncomingParts(t *testing.T) {
	src := cachetest.Blobs{}
	content := cachetest.Noise(1, 4<<20)
	layer := src.Add(content)
	gate := make(chan struct{})
	dir := openTestDir(t)
	in, done := putIncoming(t, dir, "name_main.tar", testImage(t, layer), cachetest.SourceFunc(func(ctx context.Context, d v1.Hash, off, n int64) (io.ReadCloser, error) {
		r, err := src.ReadRange(ctx, d, off, n)
		return &gated{r, gate, n / 2, ctx}, err
	}))
	open := func(offset, n int64) tarball.PartReader {
		r, err := in.ReadRange(t.Context(), layer.Digest, offset, n)
		require.NoError(t, err)
		return r.(tarball.PartReader)
	}
	early, other, late := open(10, layer.Size-20), open(0, layer.Size), open(0, layer.Size)
	part, err := early.Part()
	require.NoError(t, err)
	require.IsType(t, &os.File{}, part.R)
	theirs, err := other.Part()
	require.NoError(t, err)
	assert.NotSame(t, part.R, theirs.R)
	// Of a part that is not read to its end the rest comes again, in whatever way it is read.
	got := make([]byte, 3000)
	_, err = io.ReadFull(part, got[:1000])
	require.NoError(t, err)
	part, err = early.Part()
	require.NoError(t, err)
	_, err = io.ReadFull(part, got[1000:2000])
	require.NoError(t, err)
	_, err = io.ReadFull(early, got[2000:])
	require.NoError(t, err)
	assert.Equal(t, content[10:3010], got)

	close(gate)
	require.NoError(t, <-done)
	// The partial file has another name now: who has not begun reads the file that all have.
	part, err = late.Part()
	require.NoError(t, err)
	assert.Nil(t, part)
	all, err := io.ReadAll(late)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(content, all))
	for _, c := range []struct {
		tarball.PartReader
		want []byte
	}{{early, content[3010 : len(content)-10]}, {other, content}, {late, nil}} {
		var all []byte
		for {
			part, err := c.Part()
			if err == io.EOF {
				break
			}
			require.NoError(t, err)
			got, err := io.ReadAll(part)
			require.NoError(t, err)
			all = append(all, got...)
		}
		assert.True(t, bytes.Equal(c.want, all))
		require.NoError(t, c.Close())
	}
	_, err = late.Part()
	require.ErrorIs(t, err, io.EOF)
	require.ErrorIs(t, theirs.R.(*os.File).Close(), os.ErrClosed)
	assert.Nil(t, in.file, "it is closed")
}

package cache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// sourceFunc is a source made of a function.
type sourceFunc func(ctx context.Context, digest v1.Hash, offset, length int64) (io.ReadCloser, error)

func (f sourceFunc) ReadRange(ctx context.Context, digest v1.Hash, offset, length int64) (io.ReadCloser, error) {
	return f(ctx, digest, offset, length)
}

// serving is a source that answers every request with the same reader.
func serving(r io.Reader) sourceFunc {
	return func(context.Context, v1.Hash, int64, int64) (io.ReadCloser, error) { return io.NopCloser(r), nil }
}

func tempFile(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func TestFill(t *testing.T) {
	src := blobs{}
	a, b, empty := src.add(noise(1, 3*fillBuffer+7)), src.add(noise(2, 100)), src.add(nil)
	layout := mustLayout(t, testImage(t, a, b, a, empty))
	f := tempFile(t)
	n, err := Fill(t.Context(), f, layout, src)
	require.NoError(t, err)
	assert.Equal(t, a.Size+b.Size, n, "a repeated layer is read once")

	have, err := os.ReadFile(f.Name())
	require.NoError(t, err)
	require.Len(t, have, int(layout.Size()))
	for _, s := range layout.Segments() {
		want := s.Literal
		if s.IsBlob() {
			want = src[s.Blob]
		}
		assert.True(t, bytes.Equal(want, have[s.Offset:s.Offset+s.Length]), "segment at %d", s.Offset)
	}
}

func TestFillRefusesWrongBytes(t *testing.T) {
	right := noise(1, 1000)
	layer := blobs{}.add(right)
	wrong := bytes.Clone(right)
	wrong[999] ^= 1
	failure := errors.New("connection reset")
	for name, c := range map[string]struct {
		body io.Reader
		want error
		says string
	}{
		"one bit":           {bytes.NewReader(wrong), ErrBlobDigest, "wrong digest"},
		"short":             {bytes.NewReader(right[:999]), ErrBlobSize, "ends after 999 of the 1000 bytes"},
		"empty":             {bytes.NewReader(nil), ErrBlobSize, "ends after 0 of the 1000 bytes"},
		"long":              {bytes.NewReader(append(bytes.Clone(right), 0)), ErrBlobSize, "more than the 1000 bytes"},
		"endless":           {io.MultiReader(bytes.NewReader(right), zeros{}), ErrBlobSize, "more than the 1000 bytes"},
		"breaks":            {io.MultiReader(bytes.NewReader(right[:10]), failing{failure}), failure, "read at 10 of 1000 bytes"},
		"breaks at its end": {io.MultiReader(bytes.NewReader(right), failing{failure}), failure, "read at 1000 of 1000 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			layout := mustLayout(t, testImage(t, layer, sized("", 0)))
			f := tempFile(t)
			_, err := Fill(t.Context(), f, layout, serving(c.body))
			require.ErrorIs(t, err, c.want)
			assert.ErrorContains(t, err, c.says)
			assert.ErrorContains(t, err, layer.Digest.String(), "the error names the layer")
			info, err := f.Stat()
			require.NoError(t, err)
			assert.LessOrEqual(t, info.Size(), layout.Size(), "nothing is written beyond the tarball")
		})
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

type failing struct{ error }

func (f failing) Read([]byte) (int, error) { return 0, f.error }

func TestFillReportsTheSide(t *testing.T) {
	src := blobs{}
	layout := mustLayout(t, testImage(t, src.add(noise(1, 10))))

	_, err := Fill(t.Context(), tempFile(t), layout, blobs{})
	require.ErrorContains(t, err, "read: no blob")

	readOnly, err := os.Open(tempFile(t).Name())
	require.NoError(t, err)
	defer readOnly.Close()
	_, err = Fill(t.Context(), readOnly, layout, src)
	require.ErrorContains(t, err, "write: ")
}

// One layer fails while another one hangs: the context must end the other, and
// the error must be the first one's, not "context canceled".
func TestFillEndsWhenOneLayerFails(t *testing.T) {
	src := blobs{}
	good, bad := src.add(noise(1, 10)), src.add(noise(2, 10))
	waiting := make(chan struct{})
	layout := mustLayout(t, testImage(t, good, bad))
	failure := errors.New("gone")
	_, err := Fill(t.Context(), tempFile(t), layout, sourceFunc(func(ctx context.Context, d v1.Hash, _, _ int64) (io.ReadCloser, error) {
		if d == good.Digest {
			close(waiting)
			<-ctx.Done()
			return nil, ctx.Err()
		}
		<-waiting
		return nil, failure
	}))
	require.ErrorIs(t, err, failure)
	assert.ErrorContains(t, err, bad.Digest.String())
}

func TestFillReadsTwoLayersAtATime(t *testing.T) {
	src := blobs{}
	var layers []v1.Descriptor
	for i := range byte(6) {
		layers = append(layers, src.add(noise(i, 10)))
	}
	layout := mustLayout(t, testImage(t, layers...))
	f := tempFile(t)
	synctest.Test(t, func(t *testing.T) {
		var open, most atomic.Int32
		proceed := make(chan struct{})
		slow := sourceFunc(func(ctx context.Context, d v1.Hash, off, n int64) (io.ReadCloser, error) {
			most.Store(max(most.Load(), open.Add(1)))
			<-proceed
			r, err := src.ReadRange(ctx, d, off, n)
			return &closing{r, func() { open.Add(-1) }}, err
		})
		done := make(chan error, 1)
		go func() {
			_, err := Fill(t.Context(), f, layout, slow)
			done <- err
		}()
		for range layers {
			synctest.Wait() // everything that can start has started
			proceed <- struct{}{}
		}
		require.NoError(t, <-done)
		assert.EqualValues(t, layersAtATime, most.Load())
		assert.Zero(t, open.Load(), "every reader was closed")
	})
}

type closing struct {
	io.ReadCloser
	closed func()
}

func (c *closing) Close() error { c.closed(); return c.ReadCloser.Close() }

// Memory must not grow with the image: the buffer is all that is allocated.
func TestFillMemoryIsBounded(t *testing.T) {
	const size = 64 << 20
	layer := sized("", size)
	layer.Digest = mustHash(t, io.LimitReader(zeros{}, size))
	layout := mustLayout(t, testImage(t, layer))
	allocated := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			if _, err := Fill(context.Background(), discard{}, layout, serving(io.LimitReader(zeros{}, size))); err != nil {
				b.Fatal(err)
			}
		}
	}).AllocedBytesPerOp()
	assert.Positive(t, allocated)
	assert.Less(t, allocated, int64(4*fillBuffer))
}

type discard struct{}

func (discard) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }

func mustHash(t *testing.T, r io.Reader) v1.Hash {
	t.Helper()
	h, err := hashOf(r)
	require.NoError(t, err)
	return h
}

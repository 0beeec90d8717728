package tarball

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/internal/wait"
)

// endless is a source that counts what was read of it, and whether it was closed.
type endless struct {
	read   atomic.Int64
	closed atomic.Bool
}

func (e *endless) Read(p []byte) (int, error) {
	e.read.Add(int64(len(p)))
	return len(p), nil
}

func (e *endless) Close() error {
	e.closed.Store(true)
	return nil
}

func ahead(ctx context.Context, src io.Reader) *readAhead {
	closer, ok := src.(io.ReadCloser)
	if !ok {
		closer = io.NopCloser(src)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	return newReadAhead(ctx, cancel, closer)
}

func TestReadAhead(t *testing.T) {
	for _, size := range []int{0, 1, aheadBuffer - 1, aheadBuffer, aheadBuffer + 1, (aheadBuffers+3)*aheadBuffer + 5} {
		content := cachetest.Noise(1, size)
		for _, src := range []io.Reader{bytes.NewReader(content), iotest.HalfReader(bytes.NewReader(content)), iotest.DataErrReader(bytes.NewReader(content))} {
			r := ahead(t.Context(), src)
			got, err := io.ReadAll(r)
			require.NoError(t, err)
			assert.True(t, bytes.Equal(content, got), size)
			n, err := r.Read(make([]byte, 1)) // the end stays
			assert.Zero(t, n)
			assert.Equal(t, io.EOF, err)
			require.NoError(t, r.Close())
			require.NoError(t, r.Close())
		}
	}
	content := cachetest.Noise(2, 2*aheadBuffer+3)
	r := ahead(t.Context(), bytes.NewReader(content))
	defer r.Close()
	require.NoError(t, iotest.TestReader(r, content))
}

// What came before a failure is given out first, all of it.
func TestReadAheadFails(t *testing.T) {
	broken := errors.New("broken")
	content := cachetest.Noise(1, 2*aheadBuffer+100)
	r := ahead(t.Context(), io.MultiReader(bytes.NewReader(content), iotest.ErrReader(broken)))
	defer r.Close()
	got, err := io.ReadAll(r)
	require.Equal(t, broken, err)
	assert.True(t, bytes.Equal(content, got))
	_, err = r.Read(make([]byte, 1))
	require.Equal(t, broken, err)
}

// It reads as many buffers as it may, and no more until one is read.
func TestReadAheadIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &endless{}
		r := ahead(t.Context(), src)
		synctest.Wait()
		assert.EqualValues(t, aheadBuffers*aheadBuffer, src.read.Load())
		_, err := r.Read(make([]byte, 1))
		require.NoError(t, err)
		synctest.Wait() // that buffer is still being read
		assert.EqualValues(t, aheadBuffers*aheadBuffer, src.read.Load())
		_, err = io.CopyN(io.Discard, r, aheadBuffer)
		require.NoError(t, err)
		synctest.Wait()
		assert.EqualValues(t, (aheadBuffers+1)*aheadBuffer, src.read.Load())
		require.NoError(t, r.Close())
		assert.True(t, src.closed.Load())
	})
}

// The buffers are used again: of an endless source no more memory is taken.
func TestReadAheadUsesBuffersAgain(t *testing.T) {
	r := ahead(t.Context(), &endless{})
	defer r.Close()
	seen := map[*byte]bool{}
	for range 10 * aheadBuffers {
		_, err := io.CopyN(io.Discard, r, aheadBuffer)
		require.NoError(t, err)
		seen[&r.buffer[:1][0]] = true
	}
	assert.LessOrEqual(t, len(seen), aheadBuffers)
}

// waiting is a source that gives nothing until its context ends.
type waiting struct {
	ctx  context.Context
	came chan struct{}
}

func (w *waiting) Read([]byte) (int, error) {
	close(w.came)
	<-w.ctx.Done()
	return 0, wait.Err(w.ctx)
}

func (w *waiting) Close() error { return nil }

func TestReadAheadClosedWhileReading(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	src := &waiting{ctx, make(chan struct{})}
	r := newReadAhead(ctx, cancel, src)
	var group errgroup.Group
	group.Go(func() error {
		_, err := r.Read(make([]byte, 1))
		return err
	})
	<-src.came
	require.NoError(t, r.Close())
	require.ErrorIs(t, group.Wait(), os.ErrClosed)
	_, err := r.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrClosed)
}

func TestReadAheadEndsWithTheContext(t *testing.T) {
	reason := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	src := &endless{}
	r := ahead(ctx, src)
	cancel(reason)
	_, err := io.Copy(io.Discard, r)
	require.ErrorIs(t, err, reason)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, r.Close())
	assert.True(t, src.closed.Load())
}

// Several archives of one tarball are read at once, and closed at any time.
func TestArchivesAtOnce(t *testing.T) {
	tarball, _, _ := archived(t)
	want, err := os.ReadFile(tarball.Name())
	require.NoError(t, err)
	archive, err := tarball.Archive(nil)
	require.NoError(t, err)
	var group errgroup.Group
	for i := range 16 {
		group.Go(func() error {
			r := archive.Open(t.Context())
			if i%2 == 1 { // one reads and another closes
				var pair errgroup.Group
				pair.Go(r.Close)
				_, err := io.Copy(io.Discard, r)
				if err != nil && !errors.Is(err, os.ErrClosed) {
					return err
				}
				return pair.Wait()
			}
			defer r.Close()
			got, err := io.ReadAll(r)
			if err == nil && !bytes.Equal(want, got) {
				err = errors.New("other bytes")
			}
			return err
		})
	}
	require.NoError(t, group.Wait())
}

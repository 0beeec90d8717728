package sys

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestUnionAndGaps(t *testing.T) {
	for name, c := range map[string]struct{ all, union, gaps []Interval }{
		"none":       {nil, nil, []Interval{{0, 100}}},
		"touching":   {[]Interval{{50, 60}, {0, 50}}, []Interval{{0, 60}}, []Interval{{60, 100}}},
		"contained":  {[]Interval{{10, 90}, {20, 30}}, []Interval{{10, 90}}, []Interval{{0, 10}, {90, 100}}},
		"apart":      {[]Interval{{60, 100}, {0, 40}}, []Interval{{0, 40}, {60, 100}}, []Interval{{40, 60}}},
		"everything": {[]Interval{{0, 100}}, []Interval{{0, 100}}, nil},
	} {
		got := Union(c.all)
		assert.ElementsMatch(t, c.union, got, name)
		assert.Equal(t, c.gaps, Gaps(100, got), name)
	}
}

func TestAge(t *testing.T) {
	now := time.Now()
	assert.Equal(t, time.Hour, Age(now.Add(-time.Hour), now))
	assert.Zero(t, Age(now.Add(time.Hour), now), "a clock has jumped")
}

func TestReadChunk(t *testing.T) {
	buf := make([]byte, 10)
	n, err := ReadChunk(iotest.OneByteReader(bytes.NewReader(make([]byte, 15))), buf)
	assert.Equal(t, 10, n)
	require.NoError(t, err)
	n, err = ReadChunk(bytes.NewReader(make([]byte, 3)), buf)
	assert.Equal(t, 3, n)
	assert.Equal(t, io.EOF, err)
	broken := errors.New("connection reset")
	n, err = ReadChunk(io.MultiReader(bytes.NewReader(make([]byte, 4)), iotest.ErrReader(broken)), buf)
	assert.Equal(t, 4, n)
	assert.Equal(t, broken, err, "not an early end")
}

func create(t testing.TB, content []byte) *os.File {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(t.TempDir(), "file"), os.O_RDWR|os.O_CREATE, 0o644)
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	_, err = f.Write(content)
	require.NoError(t, err)
	return f
}

// hidden is a file that the kernel cannot copy from.
type hidden struct{ io.ReaderAt }

func TestCopy(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789abcdef"), (2*ReadBuffer+160)/16)
	src := create(t, content)
	for name, run := range map[string]func(ctx context.Context, dst *os.File, n int64) error{
		"kernel": func(ctx context.Context, dst *os.File, n int64) error {
			_, err := CopyRange(ctx, dst, 5, src, 7, n)
			return err
		},
		"memory": func(ctx context.Context, dst *os.File, n int64) error {
			return ReadAndWrite(ctx, dst, 5, hidden{src}, 7, n)
		},
	} {
		n := int64(len(content) - 7)
		dst := create(t, []byte("head!"))
		require.NoError(t, run(t.Context(), dst, n), name)
		have, err := os.ReadFile(dst.Name())
		require.NoError(t, err)
		assert.True(t, bytes.Equal(append([]byte("head!"), content[7:]...), have), name)

		err = run(t.Context(), dst, n+1)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF, name)
		assert.ErrorContains(t, err, "read ", name)
		assert.False(t, IsWrite(err), "%s: another source may have it", name)

		readOnly, err := os.Open(dst.Name())
		require.NoError(t, err)
		err = run(t.Context(), readOnly, n)
		assert.True(t, IsWrite(err), "%s: %v", name, err)
		var temporary interface{ Temporary() bool }
		require.ErrorAs(t, err, &temporary)
		assert.False(t, temporary.Temporary())
		require.NoError(t, readOnly.Close())

		ctx, cancel := context.WithCancelCause(t.Context())
		reason := errors.New("interrupted")
		cancel(reason)
		err = run(ctx, dst, n)
		require.ErrorIs(t, err, reason, name)
		require.ErrorIs(t, err, context.Canceled, name)
		assert.False(t, IsWrite(err), name)
	}
}

// What is cloned are whole blocks between offsets that are aligned, or nothing.
func TestCloneRange(t *testing.T) {
	content := bytes.Repeat([]byte{7}, 3*Align+5)
	src, dst := create(t, content), create(t, nil)
	assert.Zero(t, CloneRange(dst, 1, src, 0, Align))
	assert.Zero(t, CloneRange(dst, 0, src, 1, Align))
	assert.Zero(t, CloneRange(dst, 0, src, 0, Align-1))
	if n := CloneRange(dst, Align, src, 0, int64(len(content))); n > 0 { // the file system can
		assert.EqualValues(t, 3*Align, n)
		have := make([]byte, n)
		_, err := dst.ReadAt(have, Align)
		require.NoError(t, err)
		assert.True(t, bytes.Equal(content[:n], have))
	}
}

type wrapped struct {
	io.ReaderAt
	f *os.File
}

func (w wrapped) OSFile() *os.File { return w.f }

func TestFileOf(t *testing.T) {
	f := create(t, nil)
	assert.Same(t, f, FileOf(f))
	assert.Same(t, f, FileOf(wrapped{f, f}))
	assert.Nil(t, FileOf(hidden{f}))
	assert.Nil(t, FileOf(nil))
}

// All bytes, wherever blocks begin.
func TestCloneOrCopy(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789abcdef"), 5*Align/16)
	for _, i := range []Interval{{0, 5 * Align}, {1, 5*Align - 1}, {Align, 2 * Align}, {5, 10}, {Align - 1, Align + 1}, {7, 7}} {
		src, dst := create(t, content), create(t, make([]byte, len(content)))
		require.NoError(t, CloneOrCopy(t.Context(), dst, src, i.From, i.To))
		want := make([]byte, len(content))
		copy(want[i.From:i.To], content[i.From:i.To])
		have, err := os.ReadFile(dst.Name())
		require.NoError(t, err)
		assert.True(t, bytes.Equal(want, have), i)
	}
	src, dst := create(t, content[:100]), create(t, nil)
	require.ErrorIs(t, CloneOrCopy(t.Context(), dst, src, 0, 200), io.ErrUnexpectedEOF)
}

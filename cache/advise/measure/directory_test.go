package measure_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/advise"
	"github.com/dockercache/dockercache/cache/advise/measure"
	"github.com/dockercache/dockercache/cache/internal/sys"
)

func assertEmpty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Empty(t, entries)
}

func TestDirectory(t *testing.T) {
	dir := t.TempDir()
	s, samples, err := measure.Directory(t.Context(), dir, &measure.DirectoryOptions{Limit: measure.Limit{Time: time.Hour, Bytes: 5 << 20}, Readers: 3})
	require.NoError(t, err)
	for _, rate := range []float64{s.ReadOne, s.ReadMany, s.Write, s.Lock, s.Rename} {
		assert.Positive(t, rate)
	}
	assert.False(t, s.Bucket)
	assertEmpty(t, dir)
	var whats []string
	for _, s := range samples {
		whats = append(whats, s.What)
	}
	assert.Equal(t, []string{"written and flushed", "read by 1 reader", "read by 3 readers", "16 files created and locked", "16 files renamed, and the directory flushed"}, whats)
	assert.EqualValues(t, 5<<20, samples[0].Bytes, "the limit")
	assert.EqualValues(t, 5<<19, samples[1].Bytes, "half of it")
	assert.LessOrEqual(t, samples[2].Bytes, int64(5<<19))
	assert.Positive(t, samples[2].Bytes)
}

func TestDirectoryReadsExisting(t *testing.T) {
	dir := t.TempDir()
	tarball := filepath.Join(dir, "a.tar")
	require.NoError(t, os.WriteFile(tarball, make([]byte, 3<<20), 0o600))
	_, samples, err := measure.Directory(t.Context(), dir, &measure.DirectoryOptions{Limit: measure.Limit{Time: time.Hour, Bytes: 1 << 20}, Existing: tarball})
	require.NoError(t, err)
	assert.EqualValues(t, 1<<20, samples[1].Bytes, "the limit, though it is larger")
	assert.Contains(t, samples[5].Note, "not known, since it failed: ", "it is no tarball")
	require.NoError(t, os.Remove(tarball))
	assertEmpty(t, dir)
	_, _, err = measure.Directory(t.Context(), dir, &measure.DirectoryOptions{Limit: measure.Limit{Bytes: 1 << 20}, Existing: tarball})
	require.ErrorIs(t, err, os.ErrNotExist)
	assertEmpty(t, dir)
}

// A tarball of the directory itself is found and opened as loads do.
func TestDirectoryLooks(t *testing.T) {
	dir := t.TempDir()
	img, src := image(t, 3<<20)
	require.NoError(t, cache.WriteTarball(t.Context(), filepath.Join(dir, "a.tar"), img, src, nil))
	o := measure.DirectoryOptions{Limit: measure.Limit{Time: time.Hour, Bytes: 1 << 20}, Existing: filepath.Join(dir, "a.tar")}
	s, samples, err := measure.Directory(t.Context(), dir, &o)
	require.NoError(t, err)
	assert.Positive(t, s.Look)
	assert.Equal(t, "5 tarballs found and opened", samples[5].What)
	t.Chdir(dir)
	s, _, err = measure.Directory(t.Context(), ".", &o) // another name of it
	require.NoError(t, err)
	assert.Positive(t, s.Look)
	for at, existing := range map[string]string{".": "", t.TempDir(): o.Existing} {
		o.Existing = existing
		s, samples, err = measure.Directory(t.Context(), at, &o)
		require.NoError(t, err)
		assert.Zero(t, s.Look)
		assert.Len(t, samples, 5)
	}
}

// A limit of time that is used up by the first piece: the first piece is all.
func TestDirectoryLimitOfTime(t *testing.T) {
	s, samples, err := measure.Directory(t.Context(), t.TempDir(), &measure.DirectoryOptions{Limit: measure.Limit{Time: 1, Bytes: 64 << 20}})
	require.NoError(t, err)
	require.NoError(t, advise.Rates{Storage: s}.Check(), "a rate of each")
	assert.EqualValues(t, 1<<20, samples[0].Bytes)
	assert.Equal(t, "ended by its limit of time", samples[0].Note)
}

func TestDirectoryRefusesWithoutSpace(t *testing.T) {
	dir := t.TempDir()
	_, _, err := measure.Directory(t.Context(), dir, &measure.DirectoryOptions{Limit: measure.Limit{Bytes: 1 << 60}})
	require.ErrorIs(t, err, measure.ErrSpace)
	assert.ErrorContains(t, err, "measure the directory "+dir)
	assert.ErrorContains(t, err, "a sample of 1.0 EiB is written only where twice that is free: make room")
	assertEmpty(t, dir)
	_, _, err = measure.Directory(t.Context(), filepath.Join(dir, "missing"), nil)
	require.ErrorIs(t, err, os.ErrNotExist)
}

// Wherever it is interrupted, or fails, nothing stays.
func TestDirectoryLeavesNothing(t *testing.T) {
	flush := sys.Flush
	defer func() { sys.Flush = flush }()
	full := errors.New("full")
	for n := range 12 {
		for _, interrupt := range []bool{true, false} {
			dir := t.TempDir()
			ctx, cancel := context.WithCancelCause(t.Context())
			left := n
			sys.Flush = func(f *os.File) error {
				if left--; left >= 0 {
					return flush(f)
				}
				if interrupt {
					cancel(full)
					return flush(f)
				}
				return full
			}
			_, _, err := measure.Directory(ctx, dir, &measure.DirectoryOptions{Limit: measure.Limit{Time: time.Hour, Bytes: 20 << 20}})
			if interrupt || n < 5 { // later ones are of the directory
				require.ErrorIs(t, err, full, "%d", n)
			}
			assertEmpty(t, dir)
			cancel(nil)
		}
	}
}

// What a process left that was killed is removed when it is old.
func TestDirectorySweeps(t *testing.T) {
	dir := t.TempDir()
	old, young := filepath.Join(dir, ".advise.0123456789abcdef.sample"), filepath.Join(dir, ".advise.0123456789abcdee.sample")
	for _, path := range []string{old, young} {
		require.NoError(t, os.WriteFile(path, nil, 0o600))
	}
	at := time.Now().Add(-2 * sys.AbandonedAfter)
	require.NoError(t, os.Chtimes(old, at, at))
	_, _, err := measure.Directory(t.Context(), dir, &measure.DirectoryOptions{Limit: measure.Limit{Bytes: 1 << 20}})
	require.NoError(t, err)
	assert.NoFileExists(t, old)
	assert.FileExists(t, young)
}

package atomicfile

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/dockercache/dockercache/cache/internal/sys"
)

func put(content string) func(*os.File) error {
	return func(f *os.File) error { _, err := f.WriteString(content); return err }
}

func names(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	out := []string{}
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func requireContent(t testing.TB, path, want string) {
	t.Helper()
	have, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, want, string(have))
}

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	require.NoError(t, WriteFile(path, 0o644, put("one")))
	requireContent(t, path, "one")
	require.NoError(t, WriteFile(path, 0o644, put("two")))
	requireContent(t, path, "two")
	assert.Equal(t, []string{"file"}, names(t, dir))
}

func TestWriteFileInTheCurrentDirectory(t *testing.T) {
	t.Chdir(t.TempDir())
	require.NoError(t, WriteFile("file", 0o644, put("x")))
	requireContent(t, "file", "x")
}

// docker save writes 0600, which other users' runners cannot read.
func TestWriteFileModeFollowsTheUmask(t *testing.T) {
	old := unix.Umask(0o027)
	defer unix.Umask(old)
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, WriteFile(path, 0o666, put("x")))
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o640), info.Mode())
}

func TestWriteFileFailsAndLeavesTheOldOne(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	require.NoError(t, WriteFile(path, 0o644, put("old")))
	failure := errors.New("no more")
	err := WriteFile(path, 0o644, func(f *os.File) error {
		require.NoError(t, put("half")(f))
		requireContent(t, path, "old")
		return failure
	})
	require.ErrorIs(t, err, failure)
	requireContent(t, path, "old")
	assert.Equal(t, []string{"file"}, names(t, dir), "nothing else is left")

	require.Error(t, WriteFile(filepath.Join(dir, "missing", "file"), 0o644, put("x")))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "taken"), 0o755))
	require.Error(t, WriteFile(filepath.Join(dir, "taken"), 0o644, put("x")))
	assert.Equal(t, []string{"file", "taken"}, names(t, dir))
}

// A panic in write must not leave the temporary file behind either.
func TestWriteFileCleansUpAfterAPanic(t *testing.T) {
	dir := t.TempDir()
	assert.Panics(t, func() {
		_ = WriteFile(filepath.Join(dir, "file"), 0o644, func(*os.File) error { panic("bug") })
	})
	assert.Empty(t, names(t, dir))
}

// Two writers of one name never share a file: each one's content is whole.
func TestWriteFileTwoWriters(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	err := WriteFile(path, 0o644, func(f *os.File) error {
		require.NoError(t, put("outer")(f))
		require.NoError(t, WriteFile(path, 0o644, put("inner")))
		requireContent(t, path, "inner")
		return nil
	})
	require.NoError(t, err)
	requireContent(t, path, "outer")
	assert.Equal(t, []string{"file"}, names(t, dir))
}

func TestWriteFileWithTheLongestName(t *testing.T) {
	dir := t.TempDir()
	name := strings.Repeat("n", 255)
	require.NoError(t, WriteFile(filepath.Join(dir, name), 0o644, put("x")))
	assert.Equal(t, []string{name}, names(t, dir))
}

// On NFS a rename can be done and reported as failed.
func TestRenameThatWasDoneIsNoFailure(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	require.NoError(t, os.WriteFile(from, nil, 0o644))
	info, err := os.Stat(from)
	require.NoError(t, err)
	require.NoError(t, os.Rename(from, to)) // the server did it, the answer was lost
	require.NoError(t, rename(from, to, info))

	require.NoError(t, os.Remove(to))
	require.NoError(t, os.WriteFile(to, nil, 0o644)) // another process's file
	require.NoError(t, os.WriteFile(from, nil, 0o644))
	info, err = os.Stat(from)
	require.NoError(t, err)
	require.NoError(t, os.Remove(from))
	require.Error(t, rename(from, to, info))
}

// A later write removes what a killed writer left, but not too soon.
func TestWriteFileSweeps(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	for _, age := range []time.Duration{0, sys.AbandonedAfter} {
		f, err := sys.CreateTemp(dir, "file", "tmp", 0o666)
		require.NoError(t, err)
		require.NoError(t, f.Close())
		then := time.Now().Add(-age)
		require.NoError(t, os.Chtimes(f.Name(), then, then))
		require.NoError(t, WriteFile(path, 0o644, put("x")))
		if age == 0 {
			assert.FileExists(t, f.Name())
			require.NoError(t, os.Remove(f.Name()))
			continue
		}
		assert.NoFileExists(t, f.Name())
	}
}

// failing makes a call of the file system fail until the test ends, from the nth time on
// and only then, as the kernel reports what it could not write.
func failing(t *testing.T, call *func(*os.File) error, nth int) {
	real, n := *call, 0
	t.Cleanup(func() { *call = real })
	*call = func(f *os.File) error {
		if n++; n != nth {
			return real(f)
		}
		return errors.Join(unix.EIO, real(f))
	}
}

// After a flush or a close that failed nothing of the file is left, the name is what it
// was, and no second flush, which succeeds, makes the file good.
func TestFlushThatFails(t *testing.T) {
	for name, call := range map[string]*func(*os.File) error{"flush": &sys.Flush, "close": &sys.Close} {
		for _, flushFirst := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				dir := t.TempDir()
				path := filepath.Join(dir, "file")
				require.NoError(t, WriteFile(path, 0o644, put("old")))
				failing(t, call, 1)
				f, err := Create(path, 0o644)
				require.NoError(t, err)
				require.NoError(t, put("new")(f.File))
				first := f.Commit
				if flushFirst {
					first = f.Flush
				}
				require.ErrorIs(t, first(), unix.EIO)
				assert.Equal(t, []string{"file"}, names(t, dir), "at once: the process may be killed next")
				require.ErrorIs(t, f.Commit(), unix.EIO)
				require.ErrorIs(t, f.Flush(), unix.EIO)
				assert.False(t, f.Committed())
				require.NoError(t, f.Discard())
				requireContent(t, path, "old")
				require.NoError(t, WriteFile(path, 0o644, put("new")))
				requireContent(t, path, "new")
			})
			t.Run(name+" in WriteFile", func(t *testing.T) {
				dir := t.TempDir()
				failing(t, call, 1)
				require.ErrorIs(t, WriteFile(filepath.Join(dir, "file"), 0o644, put("new")), unix.EIO)
				assert.Empty(t, names(t, dir))
			})
		}
	}
}

// A directory that cannot be flushed: what has the name is whole, before and after a
// power failure, and the error says which is not sure.
func TestDirectoryFlushThatFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, WriteFile(path, 0o644, put("old")))
	failing(t, &sys.Flush, 2)
	err := WriteFile(path, 0o644, put("new"))
	require.ErrorIs(t, err, unix.EIO)
	assert.ErrorContains(t, err, "in place")
	requireContent(t, path, "new")
}

// What takes long is done before the file has its name.
func TestFlushThenCommit(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	f, err := Create(path, 0o644)
	require.NoError(t, err)
	require.NoError(t, put("new")(f.File))
	require.NoError(t, f.Flush())
	require.NoError(t, f.Flush())
	assert.NoFileExists(t, path)
	require.NoError(t, f.Commit())
	requireContent(t, path, "new")
	assert.Equal(t, []string{"file"}, names(t, dir))

	f, err = Create(path, 0o644)
	require.NoError(t, err)
	require.NoError(t, f.Flush())
	require.NoError(t, f.Discard())
	requireContent(t, path, "new")
	assert.Equal(t, []string{"file"}, names(t, dir))
}

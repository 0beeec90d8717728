package sys

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A temporary file is locked as long as its writer has it open, and its name fits however
// long the base is.
func TestCreateTemp(t *testing.T) {
	dir := t.TempDir()
	for _, base := range []string{"name_main.tar", strings.Repeat("n", 300)} {
		a, err := CreateTemp(dir, base, "partial", 0o666)
		require.NoError(t, err)
		b, err := CreateTemp(dir, base, "partial", 0o666)
		require.NoError(t, err)
		assert.NotEqual(t, a.Name(), b.Name())
		assert.LessOrEqual(t, len(filepath.Base(a.Name())), maxFileName)
		assert.Nil(t, LockDead(a.Name(), time.Now(), 0), "its writer is alive")
		require.NoError(t, a.Close())
		require.NoError(t, b.Close())
	}
	_, err := CreateTemp(filepath.Join(dir, "missing"), "name", "partial", 0o666)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestTemporaries(t *testing.T) {
	dir := t.TempDir()
	f, err := CreateTemp(dir, "a.tar", "partial", 0o666)
	require.NoError(t, err)
	defer f.Close()
	for _, other := range []string{".b.tar.0123.partial", ".a.tar.0123.tmp", "a.tar", ".a.tarx.0123.partial"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, other), nil, 0o666))
	}
	require.NoError(t, os.Symlink(f.Name(), filepath.Join(dir, ".a.tar.link.partial")))
	require.NoError(t, os.Mkdir(filepath.Join(dir, ".a.tar.dir.partial"), 0o777))
	assert.Equal(t, []string{f.Name()}, Temporaries(dir, "a.tar", "partial"))
	assert.Empty(t, Temporaries(filepath.Join(dir, "missing"), "a.tar", "partial"))
}

func TestLockDead(t *testing.T) {
	dir := t.TempDir()
	f, err := CreateTemp(dir, "name", "partial", 0o666)
	require.NoError(t, err)
	path := f.Name()
	require.NoError(t, f.Close())
	if IsNetworkAt(dir) {
		t.Skip("the temporary directory is on a network file system")
	}
	now := time.Now()
	assert.Nil(t, LockDead(path, now, time.Hour), "too young")
	past := now.Add(-time.Hour)
	require.NoError(t, os.Chtimes(path, past, past))
	dead := LockDead(path, now, time.Hour)
	require.NotNil(t, dead)
	assert.Nil(t, LockDead(path, now, time.Hour), "another process holds its lock")
	require.NoError(t, dead.Close())

	link := filepath.Join(dir, "link")
	require.NoError(t, os.Symlink(path, link))
	assert.Nil(t, LockDead(link, now, 0))
	assert.Nil(t, LockDead(dir, now, 0))
	assert.Nil(t, LockDead(filepath.Join(dir, "missing"), now, 0))
}

func TestSweepAbandoned(t *testing.T) {
	dir := t.TempDir()
	create := func(age time.Duration) *os.File {
		f, err := CreateTemp(dir, "name", "partial", 0o666)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(f.Name()+".journal", nil, 0o666))
		at := time.Now().Add(-age)
		require.NoError(t, os.Chtimes(f.Name(), at, at))
		return f
	}
	dead, young, alive := create(2*AbandonedAfter), create(AbandonedAfter/2), create(2*AbandonedAfter)
	defer alive.Close()
	require.NoError(t, dead.Close())
	require.NoError(t, young.Close())
	SweepAbandoned([]string{dead.Name(), young.Name(), alive.Name()}, time.Now(), ".journal")
	assert.NoFileExists(t, dead.Name())
	assert.NoFileExists(t, dead.Name()+".journal")
	for _, f := range []*os.File{young, alive} {
		assert.FileExists(t, f.Name())
		assert.FileExists(t, f.Name()+".journal")
	}
}

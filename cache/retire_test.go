package cache

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The version that was replaced stays for a while, whole, and goes then.
func TestRetire(t *testing.T) {
	dir, first, src, path := stocked(t)
	dir.grace = time.Hour
	now := time.Now()
	dir.now = func() time.Time { return now }
	old, err := os.Stat(path)
	require.NoError(t, err)
	second := testImage(t, src.add(noise(50, 2000)))
	put := func(img *Image) {
		_, err := dir.Put(t.Context(), "name_main.tar", img, src, nil)
		require.NoError(t, err)
	}
	put(second)
	retired := retiredOf(dir.Path(), "name_main.tar")
	require.Len(t, retired, 1)
	assert.True(t, strings.HasPrefix(filepath.Base(retired[0]), ".name_main.tar."))
	kept, err := os.Stat(retired[0])
	require.NoError(t, err)
	assert.True(t, os.SameFile(old, kept))
	tarball, err := ReadTarball(retired[0])
	require.NoError(t, err)
	require.NoError(t, tarball.Verify(t.Context()))

	now = now.Add(time.Hour - time.Second)
	put(second)
	assert.Len(t, retiredOf(dir.Path(), "name_main.tar"), 1)
	now = now.Add(2 * time.Second)
	put(second)
	assert.Empty(t, retiredOf(dir.Path(), "name_main.tar"))
	put(first)
	assert.Len(t, retiredOf(dir.Path(), "name_main.tar"), 1)
}

// What other hosts have kept for readers, for which this local directory is on a
// network, stays as long as if it had been this one.
func TestRetiredByOtherHosts(t *testing.T) {
	dir, img, src, _ := stocked(t)
	now := time.Unix(1_800_000_000, 0)
	dir.now = func() time.Time { return now }
	young := aged(t, dir, retiredName("name_main.tar", now.Add(-DefaultGrace+time.Second)), 0, "")
	old := aged(t, dir, retiredName("name_main.tar", now.Add(-DefaultGrace)), 0, "")
	_, err := dir.Put(t.Context(), "name_main.tar", img, none, nil)
	require.NoError(t, err)
	assert.FileExists(t, young)
	assert.NoFileExists(t, old)
	_, err = dir.Put(t.Context(), "name_main.tar", testImage(t, src.add(noise(50, 2000))), src, nil)
	require.NoError(t, err)
	assert.FileExists(t, young)
}

// On a local file system an open file stays whole by itself.
func TestNothingIsRetiredLocally(t *testing.T) {
	dir, _, src, _ := stocked(t)
	_, err := dir.Put(t.Context(), "name_main.tar", testImage(t, src.add(noise(50, 2000))), src, nil)
	require.NoError(t, err)
	assert.Equal(t, []string{"name_main.tar"}, names(t, dir.Path()))
}

// Mode, group and directory are as asked for, whatever the umask is.
func TestAccess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new")
	dir, err := OpenDir(path, &DirOptions{Mode: 0o664, DirMode: 0o2775 &^ 0o2000, Group: "0"})
	if os.Geteuid() != 0 {
		dir, err = OpenDir(path, &DirOptions{Mode: 0o664, DirMode: 0o775})
	}
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.ModeDir|0o775, info.Mode())
	src := blobs{}
	result, err := dir.Put(t.Context(), "name_main.tar", testImage(t, src.add(noise(1, 10))), src, nil)
	require.NoError(t, err)
	info, err = os.Stat(result.Path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o664), info.Mode())

	_, err = OpenDir(path, &DirOptions{Group: "no such group"})
	require.Error(t, err)
	_, err = OpenDir(filepath.Join(path, "a", "b"), &DirOptions{DirMode: 0o755})
	require.ErrorIs(t, err, os.ErrNotExist, "one directory, not a tree on the wrong disk")
}

// What does not fit is said before a byte is asked for, and leaves nothing.
func TestQuota(t *testing.T) {
	src := blobs{}
	base := src.add(noise(1, 1<<20))
	path := t.TempDir()
	dir, err := OpenDir(path, &DirOptions{Quota: 3 << 19})
	require.NoError(t, err)
	_, err = dir.Put(t.Context(), "a_main.tar", testImage(t, base), src, nil)
	require.NoError(t, err)
	_, err = dir.Put(t.Context(), "b_main.tar", testImage(t, src.add(noise(2, 1<<20))), none, nil)
	require.ErrorIs(t, err, ErrQuota)
	var room *RoomError
	require.ErrorAs(t, err, &room)
	assert.Equal(t, int64(1<<20), room.Need)
	assert.Less(t, room.Have, int64(1<<19))
	assert.Equal(t, []string{"a_main.tar"}, names(t, path))
}

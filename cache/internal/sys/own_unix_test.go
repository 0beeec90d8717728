//go:build unix

package sys

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// What another has put in the place of a file of ours is not opened, and so never
// written.
func TestOpenOwn(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(path, []byte("mine"), 0o600))
	f, err := OpenOwn(path, os.O_APPEND)
	require.NoError(t, err)
	_, err = f.WriteString(", more")
	require.NoError(t, err)
	require.NoError(t, f.Close())
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "mine, more", string(content))

	precious := filepath.Join(t.TempDir(), "precious")
	require.NoError(t, os.WriteFile(precious, []byte("precious"), 0o644))
	for name, replace := range map[string]func(path string) error{
		"a second name of another file": func(path string) error { return os.Link(precious, path) },
		"a link":                        func(path string) error { return os.Symlink(precious, path) },
		"a link to nothing":             func(path string) error { return os.Symlink(precious+".no", path) },
		"a directory":                   func(path string) error { return os.Mkdir(path, 0o755) },
		"a named pipe":                  func(path string) error { return unix.Mkfifo(path, 0o644) },
		"a socket":                      func(path string) error { return unix.Mknod(path, unix.S_IFSOCK|0o644, 0) },
	} {
		require.NoError(t, os.RemoveAll(path))
		require.NoError(t, replace(path), name)
		_, err := OpenOwn(path, 0)
		require.Error(t, err, name)
		assert.ErrorContains(t, err, path, name)
		_, err = CreateOwn(path)
		require.ErrorIs(t, err, os.ErrExist, name)
	}
	content, err = os.ReadFile(precious)
	require.NoError(t, err)
	assert.Equal(t, "precious", string(content))
	assert.NoFileExists(t, precious+".no")

	if os.Geteuid() == 0 {
		require.NoError(t, os.RemoveAll(path))
		require.NoError(t, os.WriteFile(path, nil, 0o666))
		require.NoError(t, os.Chown(path, 65534, 65534))
		_, err := OpenOwn(path, 0)
		require.ErrorIs(t, err, ErrNotOwn, "another user's")
	}
}

// Who may write to the directory can open the file, and nobody else, whatever the umask.
func TestCreateOwnFollowsTheDirectory(t *testing.T) {
	for _, umask := range []int{0o077, 0o022, 0o002, 0} {
		for mode, want := range map[os.FileMode]os.FileMode{
			0o700:                 0o600,
			0o755:                 0o600,
			0o775:                 0o660,
			0o770:                 0o660,
			0o777:                 0o666,
			0o757:                 0o606,
			0o777 | os.ModeSticky: 0o666,
			0o775 | os.ModeSetgid: 0o660,
			0o726:                 0o600, // without x nobody creates a file in it
			0o770 | os.ModeSticky: 0o660,
			0o773 | os.ModeSetgid: 0o666,
		} {
			dir := t.TempDir()
			require.NoError(t, os.Chmod(dir, mode))
			old := unix.Umask(umask)
			f, err := CreateOwn(filepath.Join(dir, "file"))
			unix.Umask(old)
			require.NoError(t, err)
			info, err := f.Stat()
			require.NoError(t, err)
			assert.Equal(t, want, info.Mode().Perm(), "umask %o, directory %v", umask, mode)
			require.NoError(t, f.Close())
		}
	}
	if os.Geteuid() == 0 { // the group is the directory's, where it matters
		dir := t.TempDir()
		require.NoError(t, os.Chown(dir, 0, 1234))
		require.NoError(t, os.Chmod(dir, 0o770))
		f, err := CreateOwn(filepath.Join(dir, "file"))
		require.NoError(t, err)
		defer f.Close()
		info, err := f.Stat()
		require.NoError(t, err)
		assert.EqualValues(t, 1234, info.Sys().(*syscall.Stat_t).Gid)
	}
}

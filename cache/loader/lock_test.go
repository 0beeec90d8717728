package loader

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// held reports whether another has the lock: a caller that waits gives up at once.
func held(t *testing.T, dir, key string) bool {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("enough")
	cancel(reason)
	unlock, err := lock(ctx, dir, key, quiet())
	if err != nil {
		require.ErrorIs(t, err, reason)
		require.ErrorIs(t, err, context.Canceled)
		return true
	}
	unlock()
	return false
}

func TestLock(t *testing.T) {
	dir := t.TempDir()
	unlock, err := lock(t.Context(), dir, "a", quiet())
	require.NoError(t, err)
	assert.True(t, held(t, dir, "a"))
	assert.False(t, held(t, dir, "b"))
	assert.False(t, held(t, t.TempDir(), "a"))
	unlock()
	assert.False(t, held(t, dir, "a"))
}

func TestLockWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, log := t.TempDir(), &logged{}
		unlock, err := lock(t.Context(), dir, "a", quiet())
		require.NoError(t, err)
		got := make(chan func())
		go func() {
			unlock, _ := lock(t.Context(), dir, "a", slog.New(slog.NewTextHandler(log, nil)))
			got <- unlock
		}()
		synctest.Wait()
		select {
		case <-got:
			t.Fatal("both have it")
		default:
		}
		unlock()
		(<-got)() // the bubble's clock goes on while all wait
		assert.Contains(t, log.String(), "waiting for it")
	})
}

// holdLock is this program as another process, which has the lock until it is
// killed.
func holdLock(dir string) {
	if _, err := lock(context.Background(), dir, "a", quiet()); err != nil {
		panic(err)
	}
	fmt.Println("locked")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func TestLockOfADeadProcess(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), holderVariable+"="+dir)
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "locked\n", line)
	assert.True(t, held(t, dir, "a"))
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	assert.False(t, held(t, dir, "a"))
}

// Without a lock the load goes on, and logs that.
func TestLockWithoutADirectory(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T, dir string){
		"a file":      func(t *testing.T, dir string) { require.NoError(t, os.WriteFile(dir, nil, 0o644)) },
		"a link":      func(t *testing.T, dir string) { require.NoError(t, os.Symlink(t.TempDir(), dir)) },
		"a dead link": func(t *testing.T, dir string) { require.NoError(t, os.Symlink("none", dir)) },
		"no parent":   func(t *testing.T, dir string) { require.NoError(t, os.Remove(filepath.Dir(dir))) },
	} {
		dir := filepath.Join(t.TempDir(), "parent", "locks")
		require.NoError(t, os.Mkdir(filepath.Dir(dir), 0o755))
		prepare(t, dir)
		log := &logged{}
		for range 2 {
			unlock, err := lock(t.Context(), dir, "a", slog.New(slog.NewTextHandler(log, nil)))
			require.NoError(t, err, name)
			defer unlock()
		}
		assert.Contains(t, log.String(), "are not seen", name)
		if target, err := os.Readlink(dir); err == nil && target != "none" {
			entries, err := os.ReadDir(target)
			require.NoError(t, err)
			assert.Empty(t, entries, name)
		}
	}
}

// Nor is a link followed that has the lock's name, to a file or to none.
func TestLockFileIsALink(t *testing.T) {
	for _, exists := range []bool{false, true} {
		dir := t.TempDir()
		unlock, err := lock(t.Context(), dir, "a", quiet())
		require.NoError(t, err)
		unlock()
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Len(t, entries, 1)
		path, target := filepath.Join(dir, entries[0].Name()), filepath.Join(t.TempDir(), "target")
		require.NoError(t, os.Remove(path))
		require.NoError(t, os.Symlink(target, path))
		if exists {
			require.NoError(t, os.WriteFile(target, nil, 0o600))
		}
		log := &logged{}
		unlock, err = lock(t.Context(), dir, "a", slog.New(slog.NewTextHandler(log, nil)))
		require.NoError(t, err)
		unlock()
		assert.Contains(t, log.String(), "are not seen")
		if !exists {
			_, err = os.Lstat(target)
			require.ErrorIs(t, err, fs.ErrNotExist)
		}
	}
}

// Every user of the machine can use it, whatever the umask was.
func TestLockModes(t *testing.T) {
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	dir := filepath.Join(t.TempDir(), "locks")
	unlock, err := lock(t.Context(), dir, "a", quiet())
	require.NoError(t, err)
	defer unlock()
	info, err := os.Stat(dir)
	require.NoError(t, err)
	assert.Equal(t, fs.ModeDir|fs.ModeSticky|0o777, info.Mode())
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	info, err = entries[0].Info()
	require.NoError(t, err)
	assert.Equal(t, fs.FileMode(0o666), info.Mode())
}

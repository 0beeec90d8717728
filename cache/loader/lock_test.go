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
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/dockercache/dockercache/internal/testtool"
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

// Only this user can open the lock, whatever the umask and the directory's mode are.
func TestLockModes(t *testing.T) {
	old := unix.Umask(0)
	defer unix.Umask(old)
	open := t.TempDir()
	require.NoError(t, os.Chmod(open, 0o777|fs.ModeSticky))
	for dir, want := range map[string]fs.FileMode{
		filepath.Join(t.TempDir(), "locks"): fs.ModeDir | 0o700,
		open:                                fs.ModeDir | fs.ModeSticky | 0o777,
	} {
		for range 2 {
			unlock, err := lock(t.Context(), dir, "a", quiet())
			require.NoError(t, err)
			unlock()
			info, err := os.Stat(dir)
			require.NoError(t, err)
			assert.Equal(t, want, info.Mode())
			entries, err := os.ReadDir(dir)
			require.NoError(t, err)
			info, err = entries[0].Info()
			require.NoError(t, err)
			assert.Equal(t, fs.FileMode(0o600), info.Mode())
			// As an earlier version made it.
			require.NoError(t, os.Chmod(filepath.Join(dir, entries[0].Name()), 0o666))
		}
	}
}

// A lock that is held for ever, as by a stopped process, is not waited for for ever.
func TestLockWaitHasALimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, log := t.TempDir(), &logged{}
		unlock, err := lock(t.Context(), dir, "a", quiet())
		require.NoError(t, err)
		defer unlock()
		begin := time.Now()
		second, err := lock(t.Context(), dir, "a", slog.New(slog.NewTextHandler(log, nil)))
		require.NoError(t, err)
		second()
		assert.Equal(t, maxWait, time.Since(begin))
		assert.Contains(t, log.String(), "loading it too")
	})
}

// A file that another user has put in the lock's place is not waited for, nor changed.
func TestLockOfAnotherUser(t *testing.T) {
	testtool.NeedRoot(t)
	dir := t.TempDir()
	unlock, err := lock(t.Context(), dir, "a", quiet())
	require.NoError(t, err)
	unlock()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	path := filepath.Join(dir, entries[0].Name())
	precious := filepath.Join(t.TempDir(), "precious")
	require.NoError(t, os.WriteFile(precious, nil, 0o644))
	for name, replace := range map[string]func() error{
		"a file":        func() error { return errors.Join(os.WriteFile(path, nil, 0o666), os.Chown(path, 65534, 65534)) },
		"a second name": func() error { return os.Link(precious, path) },
		"a directory":   func() error { return os.Mkdir(path, 0o777) },
		"a named pipe":  func() error { return unix.Mkfifo(path, 0o666) },
	} {
		require.NoError(t, os.RemoveAll(path))
		require.NoError(t, replace(), name)
		if other, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0); err == nil {
			defer other.Close()
			require.NoError(t, unix.Flock(int(other.Fd()), unix.LOCK_SH), name)
		}
		log := &logged{}
		unlock, err := lock(t.Context(), dir, "a", slog.New(slog.NewTextHandler(log, nil)))
		require.NoError(t, err)
		unlock()
		assert.Contains(t, log.String(), "are not seen", name)
	}
	info, err := os.Stat(precious)
	require.NoError(t, err)
	assert.Equal(t, fs.FileMode(0o644), info.Mode())
}

// By default the locks are in a directory that no other user can open.
func TestDefaultLockDir(t *testing.T) {
	testtool.NeedRoot(t)
	uid := fmt.Sprintf("dockercache-load-%d", os.Geteuid())
	for name, c := range map[string]struct {
		prepare func(runtimeDir, temp string) error
		want    string // below the parent of both; "" is none
	}{
		"a runtime directory":  {func(string, string) error { return nil }, "run/dockercache-load"},
		"of another user":      {func(run, _ string) error { return os.Chown(run, 65534, 65534) }, "tmp/" + uid},
		"that others can open": {func(run, _ string) error { return os.Chmod(run, 0o755) }, "tmp/" + uid},
		"that is not there":    {func(run, _ string) error { return os.Remove(run) }, "tmp/" + uid},
		"another user's in the temporary": {func(run, temp string) error {
			return errors.Join(os.Remove(run), os.Mkdir(temp+"/"+uid, 0o700), os.Chown(temp+"/"+uid, 65534, 65534))
		}, ""},
		"one for all in the temporary": {func(run, temp string) error {
			return errors.Join(os.Remove(run), os.Mkdir(temp+"/"+uid, 0o700), os.Chmod(temp+"/"+uid, 0o777))
		}, ""},
		"a link in the temporary": {func(run, temp string) error {
			return errors.Join(os.Remove(run), os.Mkdir(temp+"/x", 0o700), os.Symlink("x", temp+"/"+uid))
		}, ""},
		"one of an earlier version, for all": {func(run, temp string) error {
			return errors.Join(os.Remove(run), os.Mkdir(temp+"/dockercache-load", 0o777))
		}, "tmp/" + uid},
	} {
		parent := t.TempDir()
		run, temp := filepath.Join(parent, "run"), filepath.Join(parent, "tmp")
		require.NoError(t, errors.Join(os.Mkdir(run, 0o700), os.Mkdir(temp, 0o777)))
		require.NoError(t, c.prepare(run, temp), name)
		t.Setenv("XDG_RUNTIME_DIR", run)
		t.Setenv("TMPDIR", temp)
		log := &logged{}
		unlock, err := lock(t.Context(), "", "a", slog.New(slog.NewTextHandler(log, nil)))
		require.NoError(t, err)
		unlock()
		if c.want == "" {
			assert.Contains(t, log.String(), "is not a directory", name)
			continue
		}
		assert.Empty(t, log.String(), name)
		info, err := os.Stat(filepath.Join(parent, c.want))
		require.NoError(t, err, name)
		assert.Equal(t, fs.ModeDir|0o700, info.Mode(), name)
		entries, err := os.ReadDir(filepath.Join(parent, c.want))
		require.NoError(t, err)
		assert.Len(t, entries, 1, name)
	}
}

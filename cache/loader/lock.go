package loader

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/internal/wait"
)

// lookEvery is how often a waiting process looks whether the other has ended.
const lookEvery = 200 * time.Millisecond

// lock waits until no other process of this machine loads what key names; unlock
// lets the next one. The kernel drops the lock when the process ends, however it
// ends, so none waits for a dead one. An error is that of ctx.
//
// It only saves work. Where it cannot be had, as in a directory that another user
// has closed to others, the load goes on without it.
func lock(ctx context.Context, dir, key string, log *slog.Logger) (unlock func(), err error) {
	f, err := openLock(dir, key)
	if err != nil {
		log.WarnContext(ctx, "other processes that load the same image are not seen", "error", err)
		return func() {}, nil
	}
	unlock = func() { _ = f.Close() }
	for logged := false; ; logged = true {
		switch held, err := sys.TryLock(f); {
		case err != nil:
			log.WarnContext(ctx, "other processes that load the same image are not seen", "error", err)
			return unlock, nil
		case !held:
			return unlock, nil
		case !logged:
			log.InfoContext(ctx, "another process loads the image: waiting for it")
		}
		if err := wait.Sleep(ctx, lookEvery); err != nil {
			unlock()
			return nil, err
		}
	}
}

// openLock opens the file of a lock, which stays: removing it would let two have
// it. All users of the machine may share the directory, so no link is
// followed there.
func openLock(dir, key string) (*os.File, error) {
	if dir == "" {
		dir = filepath.Join(os.TempDir(), "dockercache-load")
	}
	// 01777, whatever the umask is: as the temporary directory itself.
	switch err := os.Mkdir(dir, 0o777); {
	case err == nil:
		if err := os.Chmod(dir, 0o777|fs.ModeSticky); err != nil {
			return nil, err
		}
	case !errors.Is(err, fs.ErrExist):
		return nil, err
	}
	if info, err := os.Lstat(dir); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("%s is not a directory", dir)
	}
	path := filepath.Join(dir, fmt.Sprintf("%x.lock", sha256.Sum256([]byte(key))))
	const flags = os.O_RDWR | sys.NoFollow | sys.NonBlock
	// Linux may refuse to open another user's file with O_CREAT in such a directory
	// (fs.protected_regular), so that comes last.
	f, err := os.OpenFile(path, flags, 0)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	f, err = os.OpenFile(path, flags|os.O_CREATE|os.O_EXCL, 0o666)
	if errors.Is(err, fs.ErrExist) { // just now
		return os.OpenFile(path, flags, 0)
	}
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(0o666); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

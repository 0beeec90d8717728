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

const (
	// lookEvery is how often a waiting process looks whether the other has ended.
	lookEvery = 200 * time.Millisecond
	// maxWait is how long it waits: longer than loads take, tens of gigabytes included.
	// Another process may be stopped, or wait for an engine that hangs.
	maxWait = 15 * time.Minute
)

// lock waits until no other process of this user on this machine loads what key names;
// unlock lets the next one. The kernel drops the lock when the process ends, however it
// ends, so none waits for a dead one. An error is that of ctx.
//
// It only saves work. Where it cannot be had, or not within maxWait, the load goes on
// without it.
func lock(ctx context.Context, dir, key string, log *slog.Logger) (unlock func(), err error) {
	f, err := openLock(dir, key)
	if err != nil {
		log.WarnContext(ctx, "other processes that load the same image are not seen", "error", err)
		return func() {}, nil
	}
	unlock = func() { _ = f.Close() }
	for waited := time.Duration(0); ; waited += lookEvery {
		switch held, err := sys.TryLock(f); {
		case err != nil:
			log.WarnContext(ctx, "other processes that load the same image are not seen", "error", err)
			return unlock, nil
		case !held:
			return unlock, nil
		case waited >= maxWait:
			log.WarnContext(ctx, "another process has been loading the image for too long: loading it too", "lock", f.Name(), "waited", waited)
			return unlock, nil
		case waited == 0:
			log.InfoContext(ctx, "another process loads the image: waiting for it", "lock", f.Name())
		}
		if err := wait.Sleep(ctx, lookEvery); err != nil {
			unlock()
			return nil, err
		}
	}
}

// openLock opens the file of a lock, which stays: removing it would let two have
// it. Who can open the file can lock it, so that is this user alone.
func openLock(dir, key string) (*os.File, error) {
	chosen := dir != ""
	if !chosen {
		dir = defaultLockDir()
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	// Another user may have made it first, or a link, where all may write.
	switch info, err := os.Lstat(dir); {
	case err != nil:
		return nil, err
	case !info.IsDir():
		return nil, fmt.Errorf("%s is not a directory", dir)
	case !chosen && !sys.IsPrivate(info):
		return nil, fmt.Errorf("%s is not a directory of this user alone (mode 0700): remove it, or choose another", dir)
	}
	path := filepath.Join(dir, fmt.Sprintf("%x.lock", sha256.Sum256([]byte(key))))
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|sys.NoFollow, 0o600)
	if !errors.Is(err, fs.ErrExist) {
		return f, err
	}
	if f, err = sys.OpenOwn(path, 0); err != nil {
		return nil, err
	}
	if err := f.Chmod(0o600); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// defaultLockDir returns a directory for this user: below XDG_RUNTIME_DIR where that is
// this user's alone (https://specifications.freedesktop.org/basedir-spec/latest/), else
// below the temporary one, with the user's number in its name.
func defaultLockDir() string {
	runtimeDir := os.Getenv("XDG_RUNTIME_DIR")
	if info, err := os.Stat(runtimeDir); err == nil && filepath.IsAbs(runtimeDir) && sys.IsPrivate(info) {
		return filepath.Join(runtimeDir, "dockercache-load")
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("dockercache-load-%d", os.Geteuid()))
}

package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/testtool"
	"github.com/dockercache/dockercache/internal/wait"
)

// suspended is a child that stocks an image as run 100, and stops itself once, as a
// machine does that is suspended: at a step, or while it reads. Then what it was reading
// turns out to be wrong. It returns what came of it.
func suspended(path, step string) string {
	src, images := killImages(&testing.T{})
	dir, err := Open(path, nil)
	if err != nil {
		return err.Error()
	}
	dir.fetcher = killFetcher()
	var stopped atomic.Bool
	var requests atomic.Int32
	stop := func() {
		if !stopped.Swap(true) {
			runtime.LockOSThread()
			_ = unix.Tgkill(os.Getpid(), unix.Gettid(), syscall.SIGSTOP) // this thread stops first
			runtime.UnlockOSThread()
		}
	}
	sys.AtStep = func(at string) {
		if at == step {
			stop()
		}
	}
	result, err := dir.Put(context.Background(), "name_main.tar", images[0], cachetest.SourceFunc(func(ctx context.Context, d v1.Hash, off, n int64) (io.ReadCloser, error) {
		switch {
		case step != "read" || requests.Add(1) < 10:
			return src.ReadRange(ctx, d, off, n)
		case !stopped.Load():
			stop()
			return io.NopCloser(bytes.NewReader(make([]byte, n))), nil
		}
		fmt.Println("wrong bytes are written")
		select {}
	}), &PutOptions{Provenance: tarball.Provenance{Run: tarball.Run{ID: 100}}})
	return fmt.Sprint(result.Outcome, " ", err)
}

// views are paths of one directory between which locks do not reach: two FUSE mounts, as
// two machines have a share, and the directory below, as its server sees it.
func views(t *testing.T) (below string, mounts [2]string) {
	t.Helper()
	testtool.NeedMounts(t)
	bindfs := testtool.Need(t, "bindfs")
	below = t.TempDir()
	for i := range mounts {
		mounts[i] = t.TempDir()
		out, err := exec.Command(bindfs, below, mounts[i]).CombinedOutput()
		if err != nil {
			testtool.Missing(t, "bindfs: %v\n%s", err, out)
		}
		t.Cleanup(func() {
			out, err := exec.Command("umount", mounts[i]).CombinedOutput()
			assert.NoError(t, err, "%s", out)
		})
	}
	f, err := os.Create(filepath.Join(mounts[0], "file"))
	require.NoError(t, err)
	require.False(t, isLocked(f))
	other, err := os.Open(filepath.Join(mounts[1], "file"))
	require.NoError(t, err)
	require.False(t, isLocked(other), "locks do not reach")
	require.NoError(t, errors.Join(f.Close(), other.Close(), os.Remove(f.Name())))
	return below, mounts
}

// suspendAt starts a child that suspends itself, and returns when it has.
func suspendAt(t *testing.T, dir, step string) (wake func(), next func() string) {
	t.Helper()
	cmd, lines := startChild(t, stopDirVar+"="+dir, killStepVar+"="+step)
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		for lines.Scan() { // lets Wait close the pipe
		}
		_ = cmd.Wait()
	})
	var status syscall.WaitStatus
	_, err := syscall.Wait4(cmd.Process.Pid, &status, syscall.WUNTRACED, nil)
	require.NoError(t, err)
	require.True(t, status.Stopped(), "it has ended")
	return func() { require.NoError(t, cmd.Process.Signal(syscall.SIGCONT)) },
		func() string {
			require.True(t, lines.Scan())
			return lines.Text()
		}
}

// onViews runs a test with each pair of paths between which locks do not reach.
func onViews(t *testing.T, test func(t *testing.T, one, other, below string)) {
	for name, pick := range map[string]func(below string, mounts [2]string) (one, other string){
		"two mounts":          func(_ string, mounts [2]string) (string, string) { return mounts[0], mounts[1] },
		"a mount, then below": func(below string, mounts [2]string) (string, string) { return mounts[0], below },
		"below, then a mount": func(below string, mounts [2]string) (string, string) { return below, mounts[0] },
	} {
		t.Run(name, func(t *testing.T) {
			below, mounts := views(t)
			one, other := pick(below, mounts)
			test(t, one, other, below)
		})
	}
}

// forget makes what a suspended writer left look as if it had done nothing for so long.
func forget(t *testing.T, below string) {
	t.Helper()
	past := time.Now().Add(-2 * sys.QuietAfter)
	for _, name := range names(t, below) {
		require.NoError(t, os.Chtimes(filepath.Join(below, name), past, past))
	}
}

// onlyPartial returns the one partial file of a directory.
func onlyPartial(t *testing.T, dir string) os.FileInfo {
	t.Helper()
	partials, err := filepath.Glob(filepath.Join(dir, ".*.partial"))
	require.NoError(t, err)
	require.Len(t, partials, 1)
	info, err := os.Stat(partials[0])
	require.NoError(t, err)
	return info
}

// A writer that was suspended wakes up when another has long published the tarball: what
// it writes then goes into a file of its own, that nobody has published.
func TestSuspendedWriterDoesNotShareItsFile(t *testing.T) {
	onViews(t, func(t *testing.T, one, other, below string) {
		wake, next := suspendAt(t, one, "read")
		forget(t, below)
		was := onlyPartial(t, below)

		src, images := killImages(t)
		dir, err := Open(other, nil)
		require.NoError(t, err)
		result, err := dir.Put(t.Context(), "name_main.tar", images[0], src, &PutOptions{Provenance: tarball.Provenance{Run: tarball.Run{ID: 100}}})
		require.NoError(t, err)
		assert.Equal(t, Stocked, result.Outcome)
		total := images[0].Layers()[0].Size + images[0].Layers()[1].Size
		assert.Less(t, result.Downloaded, total, "what the other left was used")
		now, err := os.Stat(filepath.Join(below, "name_main.tar"))
		require.NoError(t, err)
		assert.False(t, os.SameFile(was, now))

		wake()
		require.Equal(t, "wrong bytes are written", next())
		requireWhole(t, filepath.Join(below, "name_main.tar"))
	})
}

// An older run that was suspended in its flush does not replace what a newer run has
// published meanwhile.
func TestSuspendedRunDoesNotReplaceANewerOne(t *testing.T) {
	for _, step := range []string{"sync", "close"} {
		t.Run(step, func(t *testing.T) {
			onViews(t, func(t *testing.T, one, other, below string) {
				wake, next := suspendAt(t, one, step)
				forget(t, below)
				src, images := killImages(t)
				dir, err := Open(other, nil)
				require.NoError(t, err)
				putAs(t, dir, "name_main.tar", images[1], src, tarball.Provenance{Run: tarball.Run{ID: 200}})
				wake()
				assert.Equal(t, "superseded <nil>", next())
				stored := requireWhole(t, filepath.Join(below, "name_main.tar"))
				assert.EqualValues(t, 200, stored.Provenance.Run.ID)
				assert.Equal(t, images[1].Digest(), stored.Image.Digest())
			})
		})
	}
}

// A writer that died is not waited for where locks do not reach, if it was one of this
// machine: its file is gone on with as it is.
func TestDeadWriterOnAFileSystemWithoutLocks(t *testing.T) {
	onViews(t, func(t *testing.T, one, other, below string) {
		cmd, lines := startVictim(t, one, "sync")
		for lines.Scan() {
			require.NotContains(t, lines.Text(), "error")
		}
		requireKilled(t, cmd)
		forget(t, below)
		was := onlyPartial(t, below)
		src, images := killImages(t)
		dir, err := Open(other, nil)
		require.NoError(t, err)
		result, err := dir.Put(t.Context(), "name_main.tar", images[0], src, nil)
		require.NoError(t, err)
		assert.Zero(t, result.Downloaded)
		now, err := os.Stat(filepath.Join(below, "name_main.tar"))
		require.NoError(t, err)
		assert.True(t, os.SameFile(was, now))
	})
}

// On a file system whose locks reach, the file of a suspended writer is read and not written
// to; it wakes up when its work is done.
func TestSuspendedWriterIsNotWaitedFor(t *testing.T) {
	path := t.TempDir()
	wake, next := suspendAt(t, path, "read")
	was := onlyPartial(t, path)
	src, images := killImages(t)
	dir, err := Open(path, nil)
	require.NoError(t, err)
	var looks atomic.Int64
	start := time.Now()
	dir.now = func() time.Time { return start.Add(time.Duration(looks.Load()) * lookEvery) }
	dir.sleep = func(ctx context.Context, d time.Duration) error {
		if d != lookEvery {
			return wait.Sleep(ctx, d)
		}
		looks.Add(1)
		return nil
	}
	result, err := dir.Put(t.Context(), "name_main.tar", images[0], src, &PutOptions{Provenance: tarball.Provenance{Run: tarball.Run{ID: 100}}})
	require.NoError(t, err)
	assert.LessOrEqual(t, looks.Load(), int64(silentAfter/lookEvery))
	assert.Equal(t, Stocked, result.Outcome)
	assert.Positive(t, result.Resumed, "what it had")
	now, err := os.Stat(filepath.Join(path, "name_main.tar"))
	require.NoError(t, err)
	assert.False(t, os.SameFile(was, now))
	assert.True(t, os.SameFile(was, onlyPartial(t, path)), "it is its own")
	wake()
	require.Equal(t, "wrong bytes are written", next())
	requireWhole(t, filepath.Join(path, "name_main.tar"))
}

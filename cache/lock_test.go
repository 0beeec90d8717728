package cache

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
)

const lockName = ".name_main.tar.lock"

// writeOwner makes the lock's file say something.
func writeOwner(t testing.TB, dir *Dir, o owner) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir.Path(), lockName), os.O_WRONLY|os.O_CREATE, 0o644)
	require.NoError(t, err)
	defer f.Close()
	_, err = f.Write(o.record())
	require.NoError(t, err)
}

func readLock(t testing.TB, dir *Dir) owner {
	t.Helper()
	f, err := os.Open(filepath.Join(dir.Path(), lockName))
	require.NoError(t, err)
	defer f.Close()
	return readOwner(f)
}

// The second waits until the first is done, on a clock of its own; those of other
// tarballs do not wait.
func TestLock(t *testing.T) {
	dir := openTestDir(t)
	synctest.Test(t, func(t *testing.T) {
		first, ctx, err := dir.lock(t.Context(), "name_main.tar", tarball.Run{}, false)
		require.NoError(t, err)
		other, _, err := dir.lock(t.Context(), "other_main.tar", tarball.Run{}, false)
		require.NoError(t, err)
		other.unlock()
		done := make(chan time.Duration)
		start := time.Now()
		go func() {
			second, _, err := dir.lock(t.Context(), "name_main.tar", tarball.Run{}, false)
			assert.NoError(t, err)
			done <- time.Since(start)
			second.unlock()
		}()
		time.Sleep(10 * heartbeatEvery)
		require.NoError(t, ctx.Err())
		host, _ := os.Hostname()
		o := readLock(t, dir)
		assert.Equal(t, owner{ID: o.ID, Host: host, PID: os.Getpid(), Beat: o.Beat, Progress: o.Beat + 1}, o)
		assert.InDelta(t, 10, o.Beat, 1)
		first.unlock()
		assert.LessOrEqual(t, <-done, 10*heartbeatEvery+lookEvery)
		synctest.Wait()
	})
	assert.Empty(t, names(t, dir.Path()))
}

func TestLockEndsWithTheContext(t *testing.T) {
	dir := openTestDir(t)
	synctest.Test(t, func(t *testing.T) {
		first, _, err := dir.lock(t.Context(), "name_main.tar", tarball.Run{}, false)
		require.NoError(t, err)
		reason := errors.New("enough")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, reason)
		defer cancel()
		_, _, err = dir.lock(ctx, "name_main.tar", tarball.Run{}, false)
		require.ErrorIs(t, err, reason)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		first.unlock()
	})
}

// An owner on another host is alive as long as what it writes changes, whatever
// its clock says, and dead when it has not for long enough.
func TestLockOfAnotherHost(t *testing.T) {
	dir := openTestDir(t)
	dir.network = true
	far := owner{ID: "other", Host: "another-host", PID: 1}
	writeOwner(t, dir, far)
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		const beats = 10
		go func() {
			for far.Beat < beats {
				time.Sleep(deadAfter - 2*lookEvery)
				far.Beat++
				writeOwner(t, dir, far)
			}
		}()
		l, _, err := dir.lock(t.Context(), "name_main.tar", tarball.Run{}, false)
		require.NoError(t, err)
		assert.InDelta(t, beats*(deadAfter-2*lookEvery)+deadAfter, time.Since(start), float64(2*lookEvery))
		l.unlock()
	})
}

// On a local file system the kernel knows, whatever another host is called: it
// may be a container's name.
func TestLockOfAnotherHostOnALocalFileSystem(t *testing.T) {
	dir := openTestDir(t)
	writeOwner(t, dir, owner{ID: "other", Host: "another-host", PID: 1})
	dir.sleep = func(context.Context, time.Duration) error { return errors.New("it waits") }
	l, _, err := dir.lock(t.Context(), "name_main.tar", tarball.Run{}, false)
	require.NoError(t, err)
	l.unlock()
}

// An owner on this host that left its file and no lock is dead.
func TestLockOfADeadProcess(t *testing.T) {
	dir := openTestDir(t)
	dir.network = true
	host, err := os.Hostname()
	require.NoError(t, err)
	writeOwner(t, dir, owner{ID: "dead", Host: host, PID: 1 << 30})
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		l, _, err := dir.lock(t.Context(), "name_main.tar", tarball.Run{}, false)
		require.NoError(t, err)
		assert.Zero(t, time.Since(start))
		l.unlock()
	})
}

// What is in the place of a lock and is none is not followed or written to. Where it can
// be removed a fresh file takes its place; where not, the work is done without a lock.
func TestLockThatIsHostile(t *testing.T) {
	for name, create := range map[string]func(path, elsewhere string) error{
		"a link":                            func(path, elsewhere string) error { return os.Symlink(elsewhere, path) },
		"a link to nothing":                 func(path, elsewhere string) error { return os.Symlink(elsewhere+".no", path) },
		"a second name of a file elsewhere": func(path, elsewhere string) error { return os.Link(elsewhere, path) },
		"a named pipe":                      func(path, _ string) error { return unix.Mkfifo(path, 0o644) },
		"a socket":                          func(path, _ string) error { return unix.Mknod(path, unix.S_IFSOCK|0o644, 0) },
		"a directory":                       func(path, _ string) error { return os.Mkdir(path, 0o755) },
		"another file, moved there":         func(path, _ string) error { return os.WriteFile(path, cachetest.Noise(1, 100_000), 0o644) },
	} {
		dir := openTestDir(t)
		elsewhere := filepath.Join(t.TempDir(), "file")
		require.NoError(t, os.WriteFile(elsewhere, []byte("precious"), 0o644))
		past := time.Now().Add(-time.Hour).Truncate(time.Second)
		require.NoError(t, os.Chtimes(elsewhere, past, past))
		for _, kind := range []string{"", askKind} {
			require.NoError(t, create(filepath.Join(dir.Path(), lockName+kind), elsewhere))
		}
		dir.sleep = func(context.Context, time.Duration) error { return errors.New("it waits") }
		askFor(filepath.Join(dir.Path(), lockName), owner{ID: "x", Run: tarball.Run{ID: 9}})
		l, _, err := dir.lock(t.Context(), "name_main.tar", tarball.Run{}, false)
		require.NoError(t, err, name)
		assert.Equal(t, name != "a directory", l.file != nil, name)
		l.unlock()
		if name != "a directory" {
			assert.Empty(t, names(t, dir.Path()), name)
		}
		assert.Equal(t, "precious", content(t, elsewhere), name)
		info, err := os.Stat(elsewhere)
		require.NoError(t, err)
		assert.True(t, past.Equal(info.ModTime()), name)
		assert.NoFileExists(t, elsewhere+".no", name)
	}
}

// Who may only read can have locked the file of an earlier version, but not as a writer
// does; and no lock of this version can be opened by them.
func TestLockHeldByAReader(t *testing.T) {
	dir := openTestDir(t)
	writeOwner(t, dir, owner{ID: "dead", Host: "any", PID: 1 << 30})
	reader, err := os.Open(filepath.Join(dir.Path(), lockName))
	require.NoError(t, err)
	defer reader.Close()
	sys.LockShared(reader)
	dir.sleep = func(context.Context, time.Duration) error { return errors.New("it waits") }
	l, _, err := dir.lock(t.Context(), "name_main.tar", tarball.Run{}, false)
	require.NoError(t, err)
	require.NotNil(t, l.file, "a fresh file")
	info, err := l.file.Stat()
	require.NoError(t, err)
	assert.Zero(t, info.Mode().Perm()&0o007, "%v", info.Mode())
	l.unlock()
	l, err = dir.tryLock(t.Context(), "name_main.tar")
	require.NoError(t, err)
	require.NotNil(t, l)
	l.unlock()
}

// An owner that lives, as far as the kernel says, and shows nothing, is suspended or no
// writer: nobody waits for it for ever.
func TestLockOfASilentOwner(t *testing.T) {
	for _, network := range []bool{false, true} {
		dir := openTestDir(t)
		dir.network = network
		host, err := os.Hostname()
		require.NoError(t, err)
		writeOwner(t, dir, owner{ID: "suspended", Host: host, PID: 1})
		holder, err := os.Open(filepath.Join(dir.Path(), lockName))
		require.NoError(t, err)
		defer holder.Close()
		require.False(t, isLocked(holder))
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			l, ctx, err := dir.lock(t.Context(), "name_main.tar", tarball.Run{}, false)
			require.NoError(t, err)
			require.NoError(t, ctx.Err())
			want := silentAfter
			if network {
				want = deadAfter
			}
			assert.InDelta(t, want, time.Since(start), float64(2*lookEvery))
			assert.Nil(t, l.file)
			l.unlock()
		})
		assert.FileExists(t, holder.Name(), "it may live")
		l, err := dir.tryLock(t.Context(), "name_main.tar")
		require.NoError(t, err)
		assert.Nil(t, l, "in use, as far as is known")
	}
}

// A newer run makes an older one give up; an older one, and one that does not ask
// for it, waits.
func TestLockIsPreempted(t *testing.T) {
	for name, c := range map[string]struct {
		run     tarball.Run
		preempt bool
		taken   bool
	}{
		"newer":                    {tarball.Run{ID: 6, Attempt: 1}, true, true},
		"next attempt":             {tarball.Run{ID: 5, Attempt: 3}, true, true},
		"older":                    {tarball.Run{ID: 4, Attempt: 9}, true, false},
		"the same":                 {tarball.Run{ID: 5, Attempt: 2}, true, false},
		"unknown":                  {tarball.Run{}, true, false},
		"newer, but not asked for": {tarball.Run{ID: 6, Attempt: 1}, false, false},
	} {
		dir := openTestDir(t)
		synctest.Test(t, func(t *testing.T) {
			first, ctx, err := dir.lock(t.Context(), "name_main.tar", tarball.Run{ID: 5, Attempt: 2}, false)
			require.NoError(t, err)
			got := make(chan struct{})
			go func() {
				second, _, err := dir.lock(t.Context(), "name_main.tar", c.run, c.preempt)
				assert.NoError(t, err)
				second.unlock()
				close(got)
			}()
			if c.taken {
				<-ctx.Done()
				assert.Equal(t, ErrPreempted, context.Cause(ctx), name)
			} else {
				time.Sleep(time.Hour)
				assert.NoError(t, ctx.Err(), name)
			}
			first.unlock()
			<-got
		})
		assert.Empty(t, names(t, dir.Path()), name)
	}
}

// A request that was meant for an earlier owner is not for the next one.
func TestLockRequestOfTheDead(t *testing.T) {
	dir := openTestDir(t)
	askFor(filepath.Join(dir.Path(), lockName), owner{Run: tarball.Run{ID: 9}})
	synctest.Test(t, func(t *testing.T) {
		l, ctx, err := dir.lock(t.Context(), "name_main.tar", tarball.Run{ID: 6}, false)
		require.NoError(t, err)
		time.Sleep(time.Minute)
		require.NoError(t, ctx.Err())
		l.unlock()
	})
}

// Put end to end: of many writers of one tarball one works, the others find it
// done; with a dead owner's lock left behind, at once.
func TestPutByOneWriter(t *testing.T) {
	src := &counting{Blobs: cachetest.Blobs{}}
	img := testImage(t, src.Add(cachetest.Noise(1, 500_000)))
	dir := openTestDir(t)
	host, err := os.Hostname()
	require.NoError(t, err)
	writeOwner(t, dir, owner{ID: "dead", Host: host, PID: 1 << 30})
	var outcomes [2]atomic.Int64
	done := make(chan error)
	for range 6 {
		go func() {
			other, err := Open(dir.Path(), nil)
			if err == nil {
				var result *Result
				if result, err = other.Put(t.Context(), "name_main.tar", img, src, nil); err == nil && result.Outcome == Stocked {
					outcomes[0].Add(1)
				} else if err == nil && result.Outcome == Unchanged {
					assert.Zero(t, result.Downloaded+result.Reused, "nothing was done")
					outcomes[1].Add(1)
				}
			}
			done <- err
		}()
	}
	for range 6 {
		require.NoError(t, <-done)
	}
	assert.EqualValues(t, 1, outcomes[0].Load())
	assert.EqualValues(t, 5, outcomes[1].Load())
	assert.Equal(t, img.Layers()[0].Size, src.asked[img.Layers()[0].Digest])
	assert.Equal(t, []string{"name_main.tar"}, withoutMark(names(t, dir.Path())))
}

// The newer run's Put ends the older one's, and goes on with what that had.
func TestPutPreempts(t *testing.T) {
	src := cachetest.Blobs{}
	img := testImage(t, src.Add(cachetest.Noise(1, 3<<20)))
	dir := openTestDir(t)
	dir.heartbeat = time.Millisecond
	asked := make(chan struct{})
	slow := cachetest.SourceFunc(func(ctx context.Context, d v1.Hash, offset, n int64) (io.ReadCloser, error) {
		r, err := src.ReadRange(ctx, d, offset, n)
		return &stuck{ReadCloser: r, left: 2 << 20, at: asked, ctx: ctx}, err
	})
	older := make(chan error)
	go func() {
		_, err := dir.Put(t.Context(), "name_main.tar", img, slow, &PutOptions{Provenance: tarball.Provenance{Run: tarball.Run{ID: 5, Attempt: 1}}})
		older <- err
	}()
	<-asked
	newer, err := Open(dir.Path(), nil)
	require.NoError(t, err)
	result, err := newer.Put(t.Context(), "name_main.tar", img, src, &PutOptions{Provenance: tarball.Provenance{Run: tarball.Run{ID: 6, Attempt: 1}}, Preempt: true})
	require.NoError(t, err)
	require.ErrorIs(t, <-older, ErrPreempted)
	assert.Equal(t, Stocked, result.Outcome)
	assert.Less(t, result.Downloaded, int64(3<<20), "what the older one had fetched was used")
	assert.Equal(t, []string{"name_main.tar"}, names(t, dir.Path()))
}

// stuck gives some bytes and then none until its context ends.
type stuck struct {
	io.ReadCloser
	left int
	at   chan struct{}
	ctx  context.Context
}

func (s *stuck) Read(p []byte) (int, error) {
	if s.left == 0 {
		close(s.at)
		<-s.ctx.Done()
		return 0, context.Cause(s.ctx)
	}
	n, err := s.ReadCloser.Read(p[:min(len(p), s.left)])
	s.left -= n
	return n, err
}

// The kernel gives the lock of a killed owner to the next, who does not wait.
func TestLockOfAKilledProcess(t *testing.T) {
	dir := openTestDir(t)
	cmd, lines := startVictim(t, dir.Path(), "sync")
	for lines.Scan() {
	}
	requireKilled(t, cmd)
	require.FileExists(t, filepath.Join(dir.Path(), lockName))
	require.NotEqual(t, os.Getpid(), readLock(t, dir).PID)
	src, images := killImages(t)
	dir.sleep = func(context.Context, time.Duration) error { return errors.New("it waits") }
	_, err := dir.Put(t.Context(), "name_main.tar", images[1], src, nil)
	require.NoError(t, err)
}

// Where another host's clock is, or was set to, means nothing; nor do the times of
// its files.
func TestLockWhenClocksJump(t *testing.T) {
	dir := openTestDir(t)
	dir.network = true
	far := owner{ID: "other", Host: "another-host", PID: 1}
	writeOwner(t, dir, far)
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		const beats = 6
		go func() {
			for far.Beat < beats {
				time.Sleep(deadAfter / 2)
				far.Beat++
				writeOwner(t, dir, far)
				jump := start.AddDate(int(far.Beat%3-1)*30, 0, 0) // 30 years ago, now, in 30 years
				assert.NoError(t, os.Chtimes(filepath.Join(dir.Path(), lockName), jump, jump))
			}
		}()
		l, _, err := dir.lock(t.Context(), "name_main.tar", tarball.Run{}, false)
		require.NoError(t, err)
		assert.InDelta(t, beats*deadAfter/2+deadAfter, time.Since(start), float64(2*lookEvery))
		l.unlock()
	})
}

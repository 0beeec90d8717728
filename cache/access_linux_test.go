package cache

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/testtool"
)

// asAnother calls something as another user sees files. It must stay in its
// goroutine.
func asAnother(t *testing.T, call func()) {
	t.Helper()
	testtool.NeedRoot(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // the thread ends with the goroutine
		if assert.NoError(t, unix.Setfsuid(65534)) {
			call()
		}
	}()
	<-done
}

// sharedDir is a directory in which every user may write, with files that only
// their owner may write to.
func sharedDir(t *testing.T) (*Dir, *tarball.Image, string) {
	t.Helper()
	old := unix.Umask(0o022)
	t.Cleanup(func() { unix.Umask(old) })
	dir, img, _, path := stocked(t)
	for p := dir.Path(); p != os.TempDir() && p != "/"; p = filepath.Dir(p) { // t.TempDir is for this user alone
		require.NoError(t, os.Chmod(p, 0o777))
	}
	return dir, img, path
}

// A writer of another user is waited for, and its lock taken when it is dead.
func TestLockOfAnotherUser(t *testing.T) {
	dir, _, _ := sharedDir(t)
	synctest.Test(t, func(t *testing.T) {
		first, _, err := dir.lock(t.Context(), "name_main.tar", tarball.Run{}, false)
		require.NoError(t, err)
		got := make(chan time.Duration, 1)
		start := time.Now()
		go asAnother(t, func() {
			second, _, err := dir.lock(t.Context(), "name_main.tar", tarball.Run{}, false)
			assert.NoError(t, err)
			got <- time.Since(start)
			second.unlock()
		})
		time.Sleep(time.Minute)
		first.unlock()
		assert.InDelta(t, time.Minute, <-got, float64(lookEvery))
		synctest.Wait()
	})
	writeOwner(t, dir, owner{ID: "dead", Host: "any", PID: 1 << 30})
	dir.sleep = func(context.Context, time.Duration) error { return errors.New("it waits") }
	asAnother(t, func() {
		l, _, err := dir.lock(t.Context(), "name_main.tar", tarball.Run{ID: 5}, false)
		assert.NoError(t, err)
		assert.Equal(t, tarball.Run{ID: 5}, readLock(t, dir).Run, "it says whose it is")
		l.unlock()
	})
	assert.NoFileExists(t, filepath.Join(dir.Path(), lockName))
	writeOwner(t, dir, owner{})
	asAnother(t, func() {
		assert.False(t, dir.isBeingWritten("name_main.tar"))
		l, err := dir.tryLock(t.Context(), "name_main.tar")
		if assert.NoError(t, err) && assert.NotNil(t, l) {
			l.unlock()
		}
	})
	assert.Equal(t, []string{"name_main.tar"}, withoutMark(names(t, dir.Path())))
}

// Another user's record does not keep this one from saying what it found.
func TestRecordOfAnotherUser(t *testing.T) {
	dir, img, _ := sharedDir(t)
	now := time.Now()
	dir.now = func() time.Time { return now }
	put := func(run int64) {
		_, err := dir.Put(t.Context(), "name_main.tar", img, none, &PutOptions{Provenance: tarball.Provenance{Run: tarball.Run{ID: run}}})
		assert.NoError(t, err)
	}
	put(5)
	asAnother(t, func() { put(7) })
	was, _ := readRecord(dir.Path(), "name_main.tar")
	assert.Equal(t, tarball.Run{ID: 7}, was.of(img.Digest()).Run)
	require.NoError(t, os.Chown(markPath(dir.Path(), "name_main.tar"), 0, 0))
	now = now.Add(touchEvery + time.Minute)
	require.NoError(t, os.Chtimes(markPath(dir.Path(), "name_main.tar"), now.Add(-2*touchEvery), now.Add(-2*touchEvery)))
	asAnother(t, func() { put(6) })
	was, used := readRecord(dir.Path(), "name_main.tar")
	assert.Equal(t, tarball.Run{ID: 7}, was.of(img.Digest()).Run, "what was known stays")
	assert.Less(t, now.Sub(used), 2*touchEvery)
}

// A lock that cannot be opened, of an earlier version that followed the umask, is waited
// for as long as its owner writes to it. Then a fresh one takes its place, or where it
// cannot be removed the work is done without.
func TestLockThatCannotBeOpened(t *testing.T) {
	for _, sticky := range []bool{false, true} {
		dir, _, _ := sharedDir(t)
		if sticky {
			require.NoError(t, os.Chmod(dir.Path(), 0o777|os.ModeSticky))
		}
		path := filepath.Join(dir.Path(), lockName)
		synctest.Test(t, func(t *testing.T) {
			touch := func() { assert.NoError(t, os.Chtimes(path, time.Now(), time.Now())) }
			require.NoError(t, os.WriteFile(path, owner{ID: "1", Host: "any"}.record(), 0o600))
			touch()
			start := time.Now()
			go func() {
				for range 20 {
					time.Sleep(heartbeatEvery)
					touch()
				}
			}()
			asAnother(t, func() {
				assert.True(t, dir.isBeingWritten("name_main.tar"))
				l, err := dir.tryLock(t.Context(), "name_main.tar")
				assert.NoError(t, err)
				assert.Nil(t, l)
				l, _, err = dir.lock(t.Context(), "name_main.tar", tarball.Run{}, false)
				if !assert.NoError(t, err) {
					return
				}
				assert.InDelta(t, 20*heartbeatEvery+silentAfter, time.Since(start), float64(2*lookEvery))
				assert.Equal(t, sticky, l.file == nil, "sticky: %v", sticky)
				l.unlock()
			})
			time.Sleep(silentAfter)
			asAnother(t, func() { // long dead
				l, err := dir.tryLock(t.Context(), "name_main.tar")
				assert.NoError(t, err)
				if assert.NotNil(t, l) {
					l.unlock()
				}
			})
			synctest.Wait()
		})
	}
}

// Another user's lock that cannot be removed says whose it is, if it can be written.
func TestLockOfAnotherUserThatStays(t *testing.T) {
	dir, _, _ := sharedDir(t)
	require.NoError(t, os.Chmod(dir.Path(), 0o777|os.ModeSticky))
	path := filepath.Join(dir.Path(), lockName)
	dir.sleep = func(context.Context, time.Duration) error { return errors.New("it waits") }
	for content, says := range map[string]bool{string(owner{ID: "dead", Host: "any"}.record()): true, "": true, "something else": false} {
		require.NoError(t, os.WriteFile(path, []byte(content), 0o666))
		require.NoError(t, os.Chmod(path, 0o666))
		asAnother(t, func() {
			l, _, err := dir.lock(t.Context(), "name_main.tar", tarball.Run{ID: 5}, false)
			if assert.NoError(t, err) {
				assert.NotNil(t, l.file)
				l.unlock()
			}
		})
		have, err := os.ReadFile(path)
		require.NoError(t, err)
		assert.Equal(t, says, string(have) != content, "%q", have)
		require.NoError(t, os.Remove(path))
	}
}

// The order of build runs does not depend on a file that another user made: a newer run
// is recorded beside it, or in its place.
func TestRunsOfSeveralUsers(t *testing.T) {
	for name, c := range map[string]struct {
		dirMode os.FileMode
		mark    func(path string) error
		lost    bool // what the mark says cannot be read
	}{
		"no mark":                 {dirMode: 0o777 | os.ModeSticky},
		"its mark":                {dirMode: 0o777 | os.ModeSticky, mark: func(string) error { return nil }},
		"a mark for all to read":  {dirMode: 0o777 | os.ModeSticky, mark: func(path string) error { return os.Chmod(path, 0o444) }},
		"a mark that is closed":   {dirMode: 0o777 | os.ModeSticky, mark: func(path string) error { return os.Chmod(path, 0o600) }, lost: true},
		"the same, not sticky":    {dirMode: 0o777, mark: func(path string) error { return os.Chmod(path, 0o600) }, lost: true},
		"not sticky":              {dirMode: 0o777, mark: func(string) error { return nil }},
		"not sticky, to read":     {dirMode: 0o777, mark: func(path string) error { return os.Chmod(path, 0o444) }},
		"something else in place": {dirMode: 0o777 | os.ModeSticky, mark: func(path string) error { _ = os.Remove(path); return os.Mkdir(path, 0o755) }},
		"a second name of another": {dirMode: 0o777 | os.ModeSticky, mark: func(path string) error {
			_ = os.Remove(path)
			return os.Link(filepath.Join(filepath.Dir(path), "name_main.tar"), path)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dir, img, path := sharedDir(t)
			src := cachetest.Blobs{}
			other := testImage(t, src.Add(cachetest.Noise(7, 100)))
			require.NoError(t, os.Chmod(dir.Path(), c.dirMode))
			put := func(img *tarball.Image, run int64) *Result {
				result, err := dir.Put(t.Context(), "name_main.tar", img, src, &PutOptions{Provenance: tarball.Provenance{Run: tarball.Run{ID: run}}})
				assert.NoError(t, err)
				return result
			}
			if c.mark != nil {
				assert.Equal(t, Unchanged, put(img, 3).Outcome)
				require.NoError(t, c.mark(markPath(dir.Path(), "name_main.tar")))
			}
			asAnother(t, func() {
				result := put(img, 5)
				assert.Equal(t, Unchanged, result.Outcome)
				assert.NoError(t, result.Unrecorded)
			})
			assert.Equal(t, Superseded, put(other, 4).Outcome)
			assert.Equal(t, img.Digest(), requireWhole(t, path).Image.Digest())
			entries, err := dir.List(t.Context())
			require.NoError(t, err)
			assert.Equal(t, tarball.Run{ID: 5}, entries[0].Run)
			asAnother(t, func() {
				result := put(img, 0) // it has nothing to record
				assert.Equal(t, Unchanged, result.Outcome)
				if c.lost {
					assert.ErrorIs(t, result.Unrecorded, os.ErrPermission, "a newer run may be in it")
				} else {
					assert.NoError(t, result.Unrecorded)
				}
			})
			assert.Equal(t, Stocked, put(other, 6).Outcome)
			assert.Equal(t, Superseded, put(img, 5).Outcome)
			require.NoError(t, dir.Remove(t.Context(), "name_main.tar"))
			if name != "something else in place" {
				assert.Empty(t, names(t, dir.Path()))
			}
		})
	}
}

// Who may only read cannot record a newer run: the result says so.
func TestRunThatCannotBeRecorded(t *testing.T) {
	dir, img, _ := sharedDir(t)
	require.NoError(t, os.Chmod(dir.Path(), 0o755))
	for run, recorded := range map[int64]bool{0: true, 5: false} {
		asAnother(t, func() {
			result, err := dir.Put(t.Context(), "name_main.tar", img, none, &PutOptions{Provenance: tarball.Provenance{Run: tarball.Run{ID: run}}})
			assert.NoError(t, err)
			assert.Equal(t, Unchanged, result.Outcome)
			assert.Equal(t, recorded, result.Unrecorded == nil, "%v", result.Unrecorded)
			if !recorded {
				assert.ErrorIs(t, result.Unrecorded, os.ErrPermission)
				assert.ErrorContains(t, result.Unrecorded, "name_main.tar")
			}
		})
	}
}

package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/wait"
)

// stockedAt is when the tarballs of [several] were written, the first.
var stockedAt = time.Unix(1_700_000_000, 0)

// several stocks tarballs, each a day after the one before it.
func several(t testing.TB, tarballs ...string) *Dir {
	t.Helper()
	src := cachetest.Blobs{}
	dir, err := Open(t.TempDir(), nil)
	require.NoError(t, err)
	for i, name := range tarballs {
		path := putAs(t, dir, name, testImage(t, src.Add(cachetest.Noise(byte(i), 10_000+i))), src, tarball.Provenance{})
		at := stockedAt.Add(time.Duration(i) * 24 * time.Hour)
		require.NoError(t, os.Chtimes(path, at, at))
	}
	now := stockedAt.Add(time.Duration(len(tarballs)) * 24 * time.Hour)
	dir.now = func() time.Time { return now }
	return dir
}

func TestPrune(t *testing.T) {
	dir := several(t, "a_main.tar", "a_release.tar", "b_main.tar", "b_release.tar", "c_main.tar")
	// The first was used today.
	aged(t, dir, ".a_main.tar.mark", 0, "")
	aged(t, dir, ".a_release.tar.mark", 100*24*time.Hour, "")
	aged(t, dir, ".gone_main.tar.mark", 100*24*time.Hour, "")
	all := names(t, dir.Path())

	var results []*PruneResult
	for _, dryRun := range []bool{true, false} {
		r, err := dir.Prune(t.Context(), &PruneOptions{Count: 1, DryRun: dryRun})
		require.NoError(t, err)
		results = append(results, r)
		assert.Equal(t, []string{"b_main.tar count ", "a_main.tar count "}, planText(r.Removed), "the last used first")
		assert.Equal(t, []string{"a_release.tar count newest", "b_release.tar count newest", "c_main.tar count newest"}, planText(r.Kept))
		assert.Equal(t, r.Removed[0].Entry.Allocated+r.Removed[1].Entry.Allocated, r.Freed)
		assert.Equal(t, 3, r.Left)
		assert.Positive(t, r.LeftBytes)
		assert.Equal(t, []string{".gone_main.tar.mark"}, sweptNames(r.Swept))
		if dryRun {
			assert.Equal(t, all, names(t, dir.Path()), "a dry run")
		}
	}
	assert.Equal(t, results[0].LeftBytes, results[1].LeftBytes, "a dry run reports what would happen")
	assert.Equal(t, results[0].Swept, results[1].Swept)
	assert.Equal(t, []string{".a_release.tar.mark", "a_release.tar", "b_release.tar", "c_main.tar"}, names(t, dir.Path()))

	r, err := dir.Prune(t.Context(), nil)
	require.NoError(t, err)
	assert.Empty(t, r.Removed, "no limit")

	r, err = dir.Prune(t.Context(), &PruneOptions{MaxAge: 36 * time.Hour, RemoveNewest: true})
	require.NoError(t, err)
	assert.Len(t, r.Removed, 2)
	assert.Equal(t, []string{"c_main.tar"}, names(t, dir.Path()))
	r, err = dir.Prune(t.Context(), &PruneOptions{MaxBytes: 1, RemoveNewest: true})
	require.NoError(t, err)
	assert.Equal(t, []string{"c_main.tar bytes "}, planText(r.Removed))
	assert.Zero(t, r.Left)
	assert.Empty(t, names(t, dir.Path()))
}

func TestPruneRefusesLimits(t *testing.T) {
	dir := several(t, "a_main.tar")
	for _, o := range []PruneOptions{{Count: -1}, {MaxAge: -1}, {MaxBytes: -1}, {LowWater: 1}, {MaxBytes: 5, LowWater: 6}, {MaxBytes: 5, LowWater: -1}, {LeftoverAge: -1}} {
		_, err := dir.Prune(t.Context(), &o)
		require.Error(t, err, o)
	}
	assert.Equal(t, []string{"a_main.tar"}, names(t, dir.Path()))
}

// What is being read or written stays, and the next one goes in its place; a dry
// run reports the same.
func TestPruneKeepsWhatIsInUse(t *testing.T) {
	for name, use := range map[string]func(t *testing.T, dir *Dir, path string) (end func()){
		"a reader of this package": func(t *testing.T, dir *Dir, path string) func() {
			open, err := dir.Get(t.Context(), filepath.Base(path))
			require.NoError(t, err)
			return func() { require.NoError(t, open.Close()) }
		},
		"a writer": func(t *testing.T, dir *Dir, path string) func() {
			lock, _, err := dir.lock(t.Context(), filepath.Base(path), tarball.Run{}, false)
			require.NoError(t, err)
			return lock.unlock
		},
		"a writer on another host": func(t *testing.T, dir *Dir, path string) func() {
			lock := aged(t, dir, "."+filepath.Base(path)+".lock", 0, ownedBy(t, "another"))
			return func() { require.NoError(t, os.Remove(lock)) }
		},
		"another prune": func(t *testing.T, dir *Dir, path string) func() {
			lock, err := dir.tryLock(t.Context(), filepath.Base(path))
			require.NoError(t, err)
			return lock.unlock
		},
		"a writer that has not said who it is": func(t *testing.T, dir *Dir, path string) func() {
			lock := aged(t, dir, "."+filepath.Base(path)+".lock", 0, "")
			f, err := os.Open(lock)
			require.NoError(t, err)
			_, err = sys.TryLock(f)
			require.NoError(t, err)
			return func() { require.NoError(t, f.Close()) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := several(t, "a_main.tar", "b_main.tar", "c_main.tar")
			end := use(t, dir, filepath.Join(dir.Path(), "a_main.tar"))
			for _, dryRun := range []bool{true, false} {
				r, err := dir.Prune(t.Context(), &PruneOptions{Count: 2, RemoveNewest: true, DryRun: dryRun})
				require.NoError(t, err)
				assert.Equal(t, []string{"b_main.tar count "}, planText(r.Removed))
				assert.Equal(t, []string{"a_main.tar count in-use"}, planText(r.Kept))
			}
			end()
			r, err := dir.Prune(t.Context(), &PruneOptions{Count: 1, RemoveNewest: true})
			require.NoError(t, err)
			assert.Equal(t, []string{"a_main.tar count "}, planText(r.Removed))
			assert.Equal(t, []string{"c_main.tar"}, names(t, dir.Path()))
		})
	}
}

// A tarball that is no longer what was listed has just been stocked, and one with a
// new record has just been used.
func TestPruneLooksAgain(t *testing.T) {
	dir := several(t, "a_main.tar", "b_main.tar", "c_main.tar")
	entries, err := dir.List(t.Context())
	require.NoError(t, err)
	src := cachetest.Blobs{}
	a, b := &entries[0], &entries[1]
	putAs(t, dir, a.Name, testImage(t, src.Add(cachetest.Noise(9, 10))), src, tarball.Provenance{})
	aged(t, dir, ".b_main.tar.mark", 0, "")
	for _, e := range []*Entry{a, b} {
		used, err := dir.removeTarball(t.Context(), e, removeUnused)
		require.NoError(t, err)
		assert.True(t, used, e.Name)
		assert.FileExists(t, filepath.Join(dir.Path(), e.Name))
	}
	// One that another prune has removed is gone.
	c := &entries[2]
	require.NoError(t, os.Remove(filepath.Join(dir.Path(), c.Name)))
	used, err := dir.removeTarball(t.Context(), c, removeUnused)
	require.NoError(t, err)
	assert.False(t, used)
}

// Prunes at the same time remove no more than one alone, and writers that come in
// between find a directory that works.
func TestPruneConcurrently(t *testing.T) {
	var tarballs []string
	for i := range 12 {
		tarballs = append(tarballs, fmt.Sprintf("%c_main.tar", 'a'+i))
	}
	dir := several(t, tarballs...)
	dir.sleep = func(ctx context.Context, _ time.Duration) error { return wait.Sleep(ctx, time.Millisecond) }
	dir.heartbeat = time.Millisecond
	var group errgroup.Group
	for range 6 {
		group.Go(func() error {
			_, err := dir.Prune(t.Context(), &PruneOptions{Count: 5})
			return err
		})
	}
	for range 3 {
		group.Go(func() error {
			_, err := dir.Prune(t.Context(), &PruneOptions{Count: 5, RemoveNewest: true})
			return err
		})
	}
	require.NoError(t, group.Wait())
	assert.Equal(t, tarballs[7:], names(t, dir.Path()))
}

// A full disk is when room must be made.
func TestPruneOnAFullDisk(t *testing.T) {
	dir, err := Open(mountTmpfs(t, "size=1m"), nil)
	require.NoError(t, err)
	src := cachetest.Blobs{}
	putAs(t, dir, "a_main.tar", testImage(t, src.Add(cachetest.Noise(1, 100<<10))), src, tarball.Provenance{})
	putAs(t, dir, "b_main.tar", testImage(t, src.Add(cachetest.Noise(2, 100<<10))), src, tarball.Provenance{})
	rest := filepath.Join(dir.Path(), "rest")
	require.ErrorIs(t, os.WriteFile(rest, make([]byte, 2<<20), 0o644), unix.ENOSPC)
	filled := 0
	for ; err == nil; filled++ { // to the last page, which a large file may not get
		err = os.WriteFile(fmt.Sprintf("%s%02d", rest, filled), []byte{0}, 0o644)
	}
	require.ErrorIs(t, err, unix.ENOSPC)
	r, err := dir.Prune(t.Context(), &PruneOptions{Count: 1, RemoveNewest: true})
	require.NoError(t, err)
	assert.Equal(t, []string{"a_main.tar count "}, planText(r.Removed))
	_, err = dir.Prune(t.Context(), nil)
	require.NoError(t, err)
	have := names(t, dir.Path())
	assert.Equal(t, []string{"b_main.tar", "rest"}, have[:2], "no lock is left")
}

// Nothing but tarballs of the directory goes, and a hostile one keeps no other.
func TestPruneHostile(t *testing.T) {
	_, _, _, outside := stocked(t)
	dir := several(t, "a\nb_main.tar", "locked_main.tar", "marked_main.tar", "z_main.tar")
	at := func(name string) string { return filepath.Join(dir.Path(), name) }
	whole := content(t, outside)
	require.NoError(t, os.Symlink(outside, at("link_main.tar")))
	require.NoError(t, os.Mkdir(at("dir_main.tar"), 0o755))
	lying := bytes.Replace([]byte(whole), []byte(`"schemaVersion":2`), []byte(`"schemaVersion":3`), 1)
	require.NoError(t, os.WriteFile(at("lying_main.tar"), lying, 0o644))
	long := strings.Repeat("n", maxName) + ".tar"
	require.NoError(t, os.WriteFile(at(long), []byte(whole), 0o644))
	target := filepath.Join(t.TempDir(), "target")
	require.NoError(t, os.WriteFile(target, []byte("x"), 0o600))
	require.NoError(t, os.Symlink(target, at(".locked_main.tar.lock")))
	require.NoError(t, os.Symlink(target, at(".marked_main.tar.mark")))

	r, err := dir.Prune(t.Context(), &PruneOptions{MaxAge: 1, RemoveNewest: true})
	require.NoError(t, err)
	assert.Equal(t, []string{"a\nb_main.tar age ", "locked_main.tar age ", "marked_main.tar age ", "z_main.tar age "}, planText(r.Removed))
	assert.Empty(t, r.Kept)
	assert.Equal(t, []string{"dir_main.tar", "link_main.tar", "lying_main.tar", long}, names(t, dir.Path()))
	assert.Equal(t, "x", content(t, target))
	assert.True(t, whole == content(t, outside), "outside the directory")
}

func TestPruneEnds(t *testing.T) {
	dir := several(t, "a_main.tar", "b_main.tar")
	reason := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(reason)
	r, err := dir.Prune(ctx, &PruneOptions{Count: 1, RemoveNewest: true})
	require.ErrorIs(t, err, reason)
	assert.Empty(t, r.Removed)
	assert.Equal(t, []string{"a_main.tar", "b_main.tar"}, names(t, dir.Path()))

	read := mountTmpfs(t, "size=4m")
	readOnly, err := Open(read, nil)
	require.NoError(t, err)
	src := cachetest.Blobs{}
	putAs(t, readOnly, "a_main.tar", testImage(t, src.Add(cachetest.Noise(1, 10))), src, tarball.Provenance{})
	require.NoError(t, unix.Mount("", read, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	_, err = readOnly.Prune(t.Context(), &PruneOptions{MaxBytes: 1, RemoveNewest: true})
	require.ErrorIs(t, err, unix.EROFS)
	r, err = readOnly.Prune(t.Context(), &PruneOptions{MaxBytes: 1, RemoveNewest: true, DryRun: true})
	require.NoError(t, err)
	assert.Len(t, r.Removed, 1, "a dry run needs no permission to write")
}

// What is no tarball, and what the filter leaves out, counts for nothing.
func TestPruneFilter(t *testing.T) {
	dir := several(t, "a_main.tar", "b_main.tar", "c_main.tar", "d_main.tar")
	aged(t, dir, "broken_main.tar", 100*24*time.Hour, "not a tarball")
	onlyAB := func(e Entry) bool {
		assert.NoError(t, e.Err)
		assert.NotNil(t, e.Info)
		return e.Name < "c"
	}
	for _, o := range []*PruneOptions{{Count: 2}, {MaxAge: 5 * 24 * time.Hour}} {
		o.Filter, o.RemoveNewest = onlyAB, true
		r, err := dir.Prune(t.Context(), o)
		require.NoError(t, err)
		assert.Empty(t, r.Removed)
		assert.Empty(t, r.Kept)
		assert.Equal(t, 2, r.Left)
	}
	all, err := dir.List(t.Context())
	require.NoError(t, err)
	for _, dryRun := range []bool{true, false} {
		r, err := dir.Prune(t.Context(), &PruneOptions{Filter: onlyAB, Count: 1, RemoveNewest: true, DryRun: dryRun})
		require.NoError(t, err)
		assert.Equal(t, []string{"a_main.tar count "}, planText(r.Removed))
		assert.Equal(t, 1, r.Left)
		assert.Equal(t, all[1].Allocated, r.LeftBytes)
	}
	r, err := dir.Prune(t.Context(), &PruneOptions{Filter: func(Entry) bool { return false }, Count: 1, MaxAge: 1, MaxBytes: 1, RemoveNewest: true})
	require.NoError(t, err)
	assert.Empty(t, r.Removed)
	assert.Zero(t, r.Left)
	assert.Equal(t, []string{"b_main.tar", "broken_main.tar", "c_main.tar", "d_main.tar"}, names(t, dir.Path()))
}

// Which tarballs belong together is what the caller says, or what was recorded when
// they were stocked, or their names.
func TestPruneGroup(t *testing.T) {
	dir := several(t, "a_hotfix_1.tar", "a_hotfix_2.tar", "a_main.tar", "b_main.tar")
	plan := func(group func(Entry) string) (removed []string) {
		r, err := dir.Prune(t.Context(), &PruneOptions{Count: 1, Group: group, DryRun: true})
		require.NoError(t, err)
		return planText(r.Removed)
	}
	assert.Equal(t, []string{"a_hotfix_1.tar count "}, plan(nil), "by their names: a_hotfix, a, b")
	assert.Equal(t, []string{"a_hotfix_1.tar count ", "a_hotfix_2.tar count "}, plan(func(e Entry) string { return e.Name[:1] }))
	assert.Equal(t, []string{"a_hotfix_1.tar count ", "a_hotfix_2.tar count ", "a_main.tar count "}, plan(func(Entry) string { return "" }))
	assert.Empty(t, plan(func(e Entry) string { return e.Name }))

	src := cachetest.Blobs{}
	for i, name := range []string{"a_hotfix_1.tar", "a_hotfix_2.tar"} {
		path := filepath.Join(dir.Path(), name)
		was, err := os.Stat(path)
		require.NoError(t, err)
		img := testImage(t, src.Add(cachetest.Noise(byte(i), 10_000+i)))
		result, err := dir.Put(t.Context(), name, img, none, &PutOptions{Group: "a"})
		require.NoError(t, err)
		require.Equal(t, Unchanged, result.Outcome)
		require.NoError(t, os.Chtimes(markPath(dir.Path(), name), was.ModTime(), was.ModTime()))
	}
	assert.Equal(t, []string{"a_hotfix_1.tar count ", "a_hotfix_2.tar count "}, plan(nil), "as recorded")
}

func TestRemove(t *testing.T) {
	dir, img, src, path := stocked(t)
	_, err := dir.Put(t.Context(), "name_main.tar", img, none, nil)
	require.NoError(t, err)
	putAs(t, dir, "other_main.tar", img, src, tarball.Provenance{})
	require.Equal(t, []string{".name_main.tar.mark", "name_main.tar", "other_main.tar"}, names(t, dir.Path()))

	require.NoError(t, dir.Remove(t.Context(), "name_main.tar"), "though it has just been used")
	assert.Equal(t, []string{"other_main.tar"}, names(t, dir.Path()))
	require.ErrorIs(t, dir.Remove(t.Context(), "name_main.tar"), os.ErrNotExist)
	for _, name := range []string{"", "x", ".x.tar", "../x.tar"} {
		require.ErrorIs(t, dir.Remove(t.Context(), name), ErrInvalidName)
	}
	reason := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(reason)
	err = dir.Remove(ctx, "other_main.tar")
	require.ErrorIs(t, err, reason)
	require.ErrorIs(t, err, context.Canceled)

	// A link or directory is no tarball, and what a link leads to is not touched.
	require.NoError(t, os.Symlink(filepath.Join(dir.Path(), "other_main.tar"), path))
	require.ErrorContains(t, dir.Remove(t.Context(), "name_main.tar"), "not a regular file")
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.Mkdir(path, 0o755))
	require.ErrorContains(t, dir.Remove(t.Context(), "name_main.tar"), "not a regular file")
	assert.Equal(t, []string{"name_main.tar", "other_main.tar"}, names(t, dir.Path()))
	requireStocked(t, dir, "other_main.tar")

	// What is no tarball but called one can be removed too.
	require.NoError(t, os.WriteFile(filepath.Join(dir.Path(), "broken_main.tar"), []byte("x"), 0o644))
	require.NoError(t, dir.Remove(t.Context(), "broken_main.tar"))
	assert.Equal(t, []string{"name_main.tar", "other_main.tar"}, names(t, dir.Path()))
}

func TestRemoveInUse(t *testing.T) {
	dir, img, src, path := stocked(t)
	other, err := Open(dir.Path(), nil)
	require.NoError(t, err)

	open, err := dir.Get(t.Context(), "name_main.tar")
	require.NoError(t, err)
	err = other.Remove(t.Context(), "name_main.tar")
	require.ErrorIs(t, err, ErrInUse)
	assert.ErrorContains(t, err, path)
	require.NoError(t, open.Close())

	asked, goOn, done := make(chan struct{}), make(chan struct{}), make(chan error)
	next := testImage(t, src.Add(cachetest.Noise(9, 100)))
	go func() {
		_, err := dir.Put(t.Context(), "name_main.tar", next, cachetest.SourceFunc(func(ctx context.Context, d v1.Hash, offset, n int64) (io.ReadCloser, error) {
			close(asked)
			<-goOn
			return src.ReadRange(ctx, d, offset, n)
		}), nil)
		done <- err
	}()
	<-asked
	require.ErrorIs(t, other.Remove(t.Context(), "name_main.tar"), ErrInUse, "being written")
	close(goOn)
	require.NoError(t, <-done)
	assert.Equal(t, next.Digest(), requireStocked(t, dir, "name_main.tar").Image.Digest())
	assert.NotEqual(t, img.Digest(), next.Digest())
	require.NoError(t, other.Remove(t.Context(), "name_main.tar"))
	assert.Empty(t, names(t, dir.Path()))
}

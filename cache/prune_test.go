package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// stockedAt is when the tarballs of [several] were written, the first.
var stockedAt = time.Unix(1_700_000_000, 0)

// several stocks tarballs, each a day after the one before it.
func several(t testing.TB, tarballs ...string) *Dir {
	t.Helper()
	src := blobs{}
	dir, err := OpenDir(t.TempDir(), nil)
	require.NoError(t, err)
	for i, name := range tarballs {
		path := putAs(t, dir, name, testImage(t, src.add(noise(byte(i), 10_000+i))), src, Provenance{})
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

	var said []*PruneResult
	for _, dryRun := range []bool{true, false} {
		r, err := dir.Prune(t.Context(), &PruneOptions{Count: 1, DryRun: dryRun})
		require.NoError(t, err)
		said = append(said, r)
		assert.Equal(t, []string{"b_main.tar count ", "a_main.tar count "}, saidPlan(r.Removed), "the last used first")
		assert.Equal(t, []string{"a_release.tar count newest", "b_release.tar count newest", "c_main.tar count newest"}, saidPlan(r.Kept))
		assert.Equal(t, r.Removed[0].Entry.Allocated+r.Removed[1].Entry.Allocated, r.Freed)
		assert.Equal(t, 3, r.Left)
		assert.Positive(t, r.LeftBytes)
		assert.Equal(t, []string{".gone_main.tar.mark"}, sweptNames(r.Swept))
		if dryRun {
			assert.Equal(t, all, names(t, dir.Path()), "a dry run")
		}
	}
	assert.Equal(t, said[0].LeftBytes, said[1].LeftBytes, "a dry run tells what would happen")
	assert.Equal(t, said[0].Swept, said[1].Swept)
	assert.Equal(t, []string{".a_release.tar.mark", "a_release.tar", "b_release.tar", "c_main.tar"}, names(t, dir.Path()))

	r, err := dir.Prune(t.Context(), nil)
	require.NoError(t, err)
	assert.Empty(t, r.Removed, "no limit")

	r, err = dir.Prune(t.Context(), &PruneOptions{MaxAge: 36 * time.Hour, Newest: true})
	require.NoError(t, err)
	assert.Len(t, r.Removed, 2)
	assert.Equal(t, []string{"c_main.tar"}, names(t, dir.Path()))
	r, err = dir.Prune(t.Context(), &PruneOptions{MaxBytes: 1, Newest: true})
	require.NoError(t, err)
	assert.Equal(t, []string{"c_main.tar bytes "}, saidPlan(r.Removed))
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
// run tells the same.
func TestPruneKeepsWhatIsInUse(t *testing.T) {
	for name, use := range map[string]func(t *testing.T, dir *Dir, path string) (end func()){
		"a reader of this package": func(t *testing.T, dir *Dir, path string) func() {
			f, err := openToRead(path, 0)
			require.NoError(t, err)
			lockShared(f)
			return func() { _ = f.Close() }
		},
		"a writer": func(t *testing.T, dir *Dir, path string) func() {
			lock, _, err := dir.lock(t.Context(), filepath.Base(path), Run{}, false)
			require.NoError(t, err)
			return lock.unlock
		},
		"a writer on another host": func(t *testing.T, dir *Dir, path string) func() {
			lock := aged(t, dir, "."+filepath.Base(path)+".lock", 0, ownedBy(t, "another"))
			return func() { require.NoError(t, os.Remove(lock)) }
		},
		"another prune": func(t *testing.T, dir *Dir, path string) func() {
			lock, err := dir.tryLock(filepath.Base(path))
			require.NoError(t, err)
			return lock.unlock
		},
		"a pipe for a lock": func(t *testing.T, dir *Dir, path string) func() {
			lock := filepath.Join(dir.Path(), "."+filepath.Base(path)+".lock")
			require.NoError(t, unix.Mkfifo(lock, 0o644))
			return func() { require.NoError(t, os.Remove(lock)) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := several(t, "a_main.tar", "b_main.tar", "c_main.tar")
			end := use(t, dir, filepath.Join(dir.Path(), "a_main.tar"))
			for _, dryRun := range []bool{true, false} {
				r, err := dir.Prune(t.Context(), &PruneOptions{Count: 2, Newest: true, DryRun: dryRun})
				require.NoError(t, err)
				assert.Equal(t, []string{"b_main.tar count "}, saidPlan(r.Removed))
				assert.Equal(t, []string{"a_main.tar count in-use"}, saidPlan(r.Kept))
			}
			end()
			r, err := dir.Prune(t.Context(), &PruneOptions{Count: 1, Newest: true})
			require.NoError(t, err)
			assert.Equal(t, []string{"a_main.tar count "}, saidPlan(r.Removed))
			assert.Equal(t, []string{"c_main.tar"}, names(t, dir.Path()))
		})
	}
}

// A tarball that is no longer what was listed is what somebody has just stocked,
// and one with a new mark is what somebody wants.
func TestPruneLooksAgain(t *testing.T) {
	dir := several(t, "a_main.tar", "b_main.tar", "c_main.tar")
	entries, err := dir.List(t.Context())
	require.NoError(t, err)
	src := blobs{}
	a, b := &entries[0], &entries[1]
	putAs(t, dir, a.Name, testImage(t, src.add(noise(9, 10))), src, Provenance{})
	aged(t, dir, ".b_main.tar.mark", 0, "")
	for _, e := range []*Entry{a, b} {
		used, err := dir.removeTarball(e, false)
		require.NoError(t, err)
		assert.True(t, used, e.Name)
		assert.FileExists(t, e.Tarball.Path)
	}
	// One that another prune has removed is gone.
	c := &entries[2]
	require.NoError(t, os.Remove(c.Tarball.Path))
	used, err := dir.removeTarball(c, false)
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
	dir.wait = func(ctx context.Context, _ time.Duration) error { return sleep(ctx, time.Millisecond) }
	dir.beat = time.Millisecond
	var group errgroup.Group
	for range 6 {
		group.Go(func() error {
			_, err := dir.Prune(t.Context(), &PruneOptions{Count: 5})
			return err
		})
	}
	for range 3 {
		group.Go(func() error {
			_, err := dir.Prune(t.Context(), &PruneOptions{Count: 5, Newest: true})
			return err
		})
	}
	require.NoError(t, group.Wait())
	assert.Equal(t, tarballs[7:], names(t, dir.Path()))
}

// A full disk is when room must be made.
func TestPruneOnAFullDisk(t *testing.T) {
	dir, err := OpenDir(mountTmpfs(t, "size=1m"), nil)
	require.NoError(t, err)
	src := blobs{}
	putAs(t, dir, "a_main.tar", testImage(t, src.add(noise(1, 100<<10))), src, Provenance{})
	putAs(t, dir, "b_main.tar", testImage(t, src.add(noise(2, 100<<10))), src, Provenance{})
	rest := filepath.Join(dir.Path(), "rest")
	require.ErrorIs(t, os.WriteFile(rest, make([]byte, 2<<20), 0o644), unix.ENOSPC)
	filled := 0
	for ; err == nil; filled++ { // to the last page, which a large file may not get
		err = os.WriteFile(fmt.Sprintf("%s%02d", rest, filled), []byte{0}, 0o644)
	}
	require.ErrorIs(t, err, unix.ENOSPC)
	r, err := dir.Prune(t.Context(), &PruneOptions{Count: 1, Newest: true})
	require.NoError(t, err)
	assert.Equal(t, []string{"a_main.tar count "}, saidPlan(r.Removed))
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
	long := strings.Repeat("n", maxTarballName) + ".tar"
	require.NoError(t, os.WriteFile(at(long), []byte(whole), 0o644))
	target := filepath.Join(t.TempDir(), "target")
	require.NoError(t, os.WriteFile(target, []byte("x"), 0o600))
	require.NoError(t, os.Symlink(target, at(".locked_main.tar.lock")))
	require.NoError(t, os.Symlink(target, at(".marked_main.tar.mark")))

	r, err := dir.Prune(t.Context(), &PruneOptions{MaxAge: 1, Newest: true})
	require.ErrorContains(t, err, "locked_main.tar")
	require.ErrorIs(t, err, unix.ELOOP)
	assert.Equal(t, []string{"a\nb_main.tar age ", "marked_main.tar age ", "z_main.tar age "}, saidPlan(r.Removed))
	assert.Empty(t, r.Kept)
	assert.Equal(t, []string{".locked_main.tar.lock", "dir_main.tar", "link_main.tar", "locked_main.tar", "lying_main.tar", long}, names(t, dir.Path()))
	assert.Equal(t, "x", content(t, target))
	assert.True(t, whole == content(t, outside), "outside the directory")
}

func TestPruneEnds(t *testing.T) {
	dir := several(t, "a_main.tar", "b_main.tar")
	reason := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(reason)
	r, err := dir.Prune(ctx, &PruneOptions{Count: 1, Newest: true})
	require.ErrorIs(t, err, reason)
	assert.Empty(t, r.Removed)
	assert.Equal(t, []string{"a_main.tar", "b_main.tar"}, names(t, dir.Path()))

	read := mountTmpfs(t, "size=4m")
	readOnly, err := OpenDir(read, nil)
	require.NoError(t, err)
	src := blobs{}
	putAs(t, readOnly, "a_main.tar", testImage(t, src.add(noise(1, 10))), src, Provenance{})
	require.NoError(t, unix.Mount("", read, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	_, err = readOnly.Prune(t.Context(), &PruneOptions{MaxBytes: 1, Newest: true})
	require.ErrorIs(t, err, unix.EROFS)
	r, err = readOnly.Prune(t.Context(), &PruneOptions{MaxBytes: 1, Newest: true, DryRun: true})
	require.NoError(t, err)
	assert.Len(t, r.Removed, 1, "a dry run needs no permission to write")
}

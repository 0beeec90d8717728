package cache

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
)

// The version that was replaced stays for a while, whole, and goes then.
func TestPreviousVersion(t *testing.T) {
	dir, first, src, path := stocked(t)
	dir.grace = time.Hour
	now := time.Now()
	dir.now = func() time.Time { return now }
	old, err := os.Stat(path)
	require.NoError(t, err)
	second := testImage(t, src.Add(cachetest.Noise(50, 2000)))
	put := func(img *tarball.Image) {
		_, err := dir.Put(t.Context(), "name_main.tar", img, src, nil)
		require.NoError(t, err)
	}
	put(second)
	previous := sys.Temporaries(dir.Path(), "name_main.tar", previousKind)
	require.Len(t, previous, 1)
	assert.True(t, strings.HasPrefix(filepath.Base(previous[0]), ".name_main.tar."))
	kept, err := os.Stat(previous[0])
	require.NoError(t, err)
	assert.True(t, os.SameFile(old, kept))
	requireWhole(t, previous[0])

	now = now.Add(time.Hour - time.Second)
	put(second)
	assert.Len(t, sys.Temporaries(dir.Path(), "name_main.tar", previousKind), 1)
	now = now.Add(2 * time.Second)
	put(second)
	assert.Empty(t, sys.Temporaries(dir.Path(), "name_main.tar", previousKind))
	put(first)
	assert.Len(t, sys.Temporaries(dir.Path(), "name_main.tar", previousKind), 1)
}

// What other hosts have kept for readers, for which this local directory is on a
// network, stays as long as if it had been this one.
func TestPreviousVersionsOfOtherHosts(t *testing.T) {
	dir, img, src, _ := stocked(t)
	now := time.Unix(1_800_000_000, 0)
	dir.now = func() time.Time { return now }
	young := aged(t, dir, retiredName("name_main.tar", now.Add(-DefaultGrace+time.Second)), 0, "")
	old := aged(t, dir, retiredName("name_main.tar", now.Add(-DefaultGrace)), 0, "")
	_, err := dir.Put(t.Context(), "name_main.tar", img, none, nil)
	require.NoError(t, err)
	assert.FileExists(t, young)
	assert.NoFileExists(t, old)
	_, err = dir.Put(t.Context(), "name_main.tar", testImage(t, src.Add(cachetest.Noise(50, 2000))), src, nil)
	require.NoError(t, err)
	assert.FileExists(t, young)
}

// On a local file system an open file stays whole by itself.
func TestNoPreviousVersionLocally(t *testing.T) {
	dir, _, src, _ := stocked(t)
	_, err := dir.Put(t.Context(), "name_main.tar", testImage(t, src.Add(cachetest.Noise(50, 2000))), src, nil)
	require.NoError(t, err)
	assert.Equal(t, []string{"name_main.tar"}, names(t, dir.Path()))
}

// Mode, group and directory are as asked for, whatever the umask is.
func TestAccess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new")
	dir, err := Open(path, &Options{Mode: 0o664, DirMode: 0o2775 &^ 0o2000, Group: "0"})
	if os.Geteuid() != 0 {
		dir, err = Open(path, &Options{Mode: 0o664, DirMode: 0o775})
	}
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.ModeDir|0o775, info.Mode())
	src := cachetest.Blobs{}
	result, err := dir.Put(t.Context(), "name_main.tar", testImage(t, src.Add(cachetest.Noise(1, 10))), src, nil)
	require.NoError(t, err)
	info, err = os.Stat(result.Path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o664), info.Mode())

	_, err = Open(path, &Options{Group: "no such group"})
	require.Error(t, err)
	_, err = Open(filepath.Join(path, "a", "b"), &Options{DirMode: 0o755})
	require.ErrorIs(t, err, os.ErrNotExist, "one directory, not a tree on the wrong disk")
}

// What does not fit is reported before a byte is asked for, and leaves nothing.
func TestQuota(t *testing.T) {
	src := cachetest.Blobs{}
	base := src.Add(cachetest.Noise(1, 1<<20))
	path := t.TempDir()
	dir, err := Open(path, &Options{Quota: 3 << 19})
	require.NoError(t, err)
	_, err = dir.Put(t.Context(), "a_main.tar", testImage(t, base), src, nil)
	require.NoError(t, err)
	_, err = dir.Put(t.Context(), "b_main.tar", testImage(t, src.Add(cachetest.Noise(2, 1<<20))), none, nil)
	require.ErrorIs(t, err, ErrQuota)
	var space *SpaceError
	require.ErrorAs(t, err, &space)
	assert.Equal(t, int64(1<<20), space.Need)
	assert.Less(t, space.Have, int64(1<<19))
	assert.Equal(t, []string{"a_main.tar"}, names(t, path))
}

// The record is touched now and then, and nothing else is written.
func TestRecord(t *testing.T) {
	dir, img, src, _ := stocked(t)
	now := time.Now()
	dir.now = func() time.Time { return now }
	unchanged := func() time.Time {
		result, err := dir.Put(t.Context(), "name_main.tar", img, src, nil)
		require.NoError(t, err)
		require.Equal(t, Unchanged, result.Outcome)
		_, used := readRecord(dir.Path(), "name_main.tar")
		return used
	}
	first := unchanged()
	assert.WithinDuration(t, now, first, time.Minute)
	now = first.Add(touchEvery - 1)
	assert.Equal(t, first, unchanged())
	now = first.Add(touchEvery)
	assert.WithinDuration(t, now, unchanged(), time.Microsecond)
	info, err := os.Stat(markPath(dir.Path(), "name_main.tar"))
	require.NoError(t, err)
	assert.Zero(t, info.Size())

	now = first // a clock that was set back an hour
	assert.WithinDuration(t, first, unchanged(), time.Microsecond)
}

// What is in the place of a record and is none says nothing, and is not written to. The
// record is made all the same, in its place or beside.
func TestRecordThatIsHostile(t *testing.T) {
	for name, create := range map[string]func(path, elsewhere string) error{
		"a link":                            func(path, elsewhere string) error { return os.Symlink(elsewhere, path) },
		"a link to nothing":                 func(path, elsewhere string) error { return os.Symlink(elsewhere+".no", path) },
		"a second name of a file elsewhere": func(path, elsewhere string) error { return os.Link(elsewhere, path) },
		"a second name of a tarball": func(path, _ string) error {
			return os.Link(filepath.Join(filepath.Dir(path), "name_main.tar"), path)
		},
		"a named pipe": func(path, _ string) error { return unix.Mkfifo(path, 0o644) },
		"a directory":  func(path, _ string) error { return os.Mkdir(path, 0o755) },
		"nonsense":     func(path, _ string) error { return os.WriteFile(path, cachetest.Noise(1, 5000), 0o644) },
	} {
		dir, img, src, path := stocked(t)
		elsewhere := filepath.Join(t.TempDir(), "file")
		require.NoError(t, os.WriteFile(elsewhere, []byte("precious"), 0o644))
		past := time.Now().Add(-48 * time.Hour).Truncate(time.Second)
		require.NoError(t, os.Chtimes(elsewhere, past, past))
		require.NoError(t, os.Chtimes(path, past, past))
		require.NoError(t, create(markPath(dir.Path(), "name_main.tar"), elsewhere))
		dir.now = func() time.Time { return time.Now().Add(2 * touchEvery) }
		require.NoError(t, dir.Touch(t.Context(), "name_main.tar"))
		entries, err := dir.List(t.Context())
		require.NoError(t, err)
		assert.WithinDuration(t, dir.now(), entries[0].LastUsed, time.Minute, name)
		result, err := dir.Put(t.Context(), "name_main.tar", img, src, &PutOptions{Provenance: tarball.Provenance{Run: tarball.Run{ID: 9}}})
		require.NoError(t, err, name)
		assert.Equal(t, Unchanged, result.Outcome, name)
		require.NoError(t, result.Unrecorded, name)
		r, _ := readRecord(dir.Path(), "name_main.tar")
		assert.Equal(t, tarball.Run{ID: 9}, r.of(img.Digest()).Run, name)
		assert.Equal(t, "precious", content(t, elsewhere), name)
		assert.NoFileExists(t, elsewhere+".no")
		for _, file := range []string{elsewhere, path} {
			info, err := os.Stat(file)
			require.NoError(t, err)
			assert.True(t, past.Equal(info.ModTime()), "%s: %s", name, file)
		}
		requireWhole(t, path)
	}
}

// A group that was asked for stays recorded, until another image has the name.
func TestRecordOfGroup(t *testing.T) {
	src := cachetest.Blobs{}
	a, b := testImage(t, src.Add(cachetest.Noise(1, 1000))), testImage(t, src.Add(cachetest.Noise(2, 2000)))
	dir := openTestDir(t)
	now := time.Now()
	dir.now = func() time.Time { return now }
	const name = "x_hotfix_1.tar"
	put := func(img *tarball.Image, o *PutOptions, want Outcome) {
		t.Helper()
		result, err := dir.Put(t.Context(), name, img, src, o)
		require.NoError(t, err)
		require.Equal(t, want, result.Outcome)
	}
	group := func() string {
		t.Helper()
		other, err := Open(dir.Path(), nil)
		require.NoError(t, err)
		entries, err := other.List(t.Context())
		require.NoError(t, err)
		require.Len(t, entries, 1)
		return entries[0].Group
	}
	put(a, nil, Stocked)
	assert.Equal(t, "x_hotfix", group(), "its name's")
	assert.Equal(t, []string{name}, names(t, dir.Path()), "nothing is recorded")
	put(a, &PutOptions{Group: "x"}, Unchanged)
	assert.Equal(t, "x", group())

	// What else is recorded keeps it, and it keeps that.
	put(a, &PutOptions{Provenance: tarball.Provenance{Run: tarball.Run{ID: 7}}}, Unchanged)
	put(a, &PutOptions{Provenance: tarball.Provenance{Run: tarball.Run{ID: 6}}, Group: "y"}, Unchanged)
	assert.Equal(t, "y", group())
	put(a, &PutOptions{Group: "x"}, Unchanged)
	r, _ := readRecord(dir.Path(), name)
	assert.Equal(t, record{Digest: a.Digest(), Run: tarball.Run{ID: 7}, Group: "x"}, r.of(a.Digest()))
	now = now.Add(2 * touchEvery)
	require.NoError(t, dir.Touch(t.Context(), name))
	put(a, &PutOptions{Rewrite: true}, Stocked)
	assert.Equal(t, "x", group())
	put(a, &PutOptions{Group: "x_hotfix"}, Unchanged)
	assert.Equal(t, "x_hotfix", group(), "back to that of its name")
	put(a, &PutOptions{Group: "x"}, Unchanged)

	// Another image is of another group, unless it says so too.
	put(b, &PutOptions{Provenance: tarball.Provenance{Run: tarball.Run{ID: 8}}}, Stocked)
	assert.Equal(t, "x_hotfix", group(), "the record was of another image")
	put(a, &PutOptions{Force: true, Group: "z"}, Stocked)
	assert.Equal(t, "z", group())
	r, _ = readRecord(dir.Path(), name)
	assert.Equal(t, record{Digest: a.Digest(), Run: tarball.Run{ID: 7}, Group: "z"}, r.of(a.Digest()), "run 7 built this image, run 8 another")
	require.NoError(t, dir.Remove(t.Context(), name))
	assert.Empty(t, names(t, dir.Path()))
}

// Group is that of Stock too.
func TestStockRecordsTheGroup(t *testing.T) {
	src := cachetest.Blobs{}
	img := testImage(t, src.Add(cachetest.Noise(1, 1000)))
	dir := openTestDir(t)
	for _, group := range []string{"x", "y"} {
		_, err := dir.Stock(t.Context(), "x_hotfix_1.tar", cachetest.Ref, remoteOf(img, src), &PutOptions{Group: group})
		require.NoError(t, err)
		entries, err := dir.List(t.Context())
		require.NoError(t, err)
		assert.Equal(t, group, entries[0].Group)
	}
}

func TestTouch(t *testing.T) {
	dir, img, _, path := stocked(t)
	now := time.Now()
	dir.now = func() time.Time { return now }
	used := func() time.Time {
		entries, err := dir.List(t.Context())
		require.NoError(t, err)
		return entries[0].LastUsed
	}
	past := now.Add(-48 * time.Hour)
	require.NoError(t, os.Chtimes(path, past, past))
	require.NoError(t, dir.Touch(t.Context(), "name_main.tar"))
	first := used()
	assert.WithinDuration(t, now, first, time.Minute)
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.WithinDuration(t, past, info.ModTime(), time.Microsecond, "the tarball is as it was")

	now = first.Add(touchEvery - 1)
	require.NoError(t, dir.Touch(t.Context(), "name_main.tar"))
	assert.Equal(t, first, used(), "not for minutes")
	_, err = dir.Put(t.Context(), "name_main.tar", img, none, &PutOptions{Group: "x", Provenance: tarball.Provenance{Run: tarball.Run{ID: 7}}})
	require.NoError(t, err)
	was, _ := readRecord(dir.Path(), "name_main.tar")
	now = now.Add(2 * touchEvery)
	require.NoError(t, dir.Touch(t.Context(), "name_main.tar"))
	assert.WithinDuration(t, now, used(), time.Microsecond)
	is, _ := readRecord(dir.Path(), "name_main.tar")
	assert.Equal(t, was, is, "what is recorded stays")

	require.ErrorIs(t, dir.Touch(t.Context(), "missing.tar"), os.ErrNotExist)
	require.ErrorIs(t, dir.Touch(t.Context(), "../x.tar"), ErrInvalidName)
	reason := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(reason)
	err = dir.Touch(ctx, "name_main.tar")
	require.ErrorIs(t, err, reason)
	require.ErrorIs(t, err, context.Canceled)
	assert.Equal(t, []string{".name_main.tar.mark", "name_main.tar"}, names(t, dir.Path()))
}

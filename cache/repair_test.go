package cache

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/cache/tarball"
)

// verifyOne returns what Verify finds out about name_main.tar.
func verifyOne(t testing.TB, dir *Dir) *VerifyResult {
	t.Helper()
	results, err := dir.Verify(t.Context(), []string{"name_main.tar"}, nil)
	require.NoError(t, err)
	return &results[0]
}

func TestPutRewrite(t *testing.T) {
	dir, img, src, path := stocked(t)
	before := content(t, path)
	damage(t, path, 1)
	p := tarball.Provenance{Source: "mirror/x:t", Branch: "main"}
	result, err := dir.Put(t.Context(), "name_main.tar", img, none, &PutOptions{Provenance: p})
	require.NoError(t, err)
	assert.Equal(t, Unchanged, result.Outcome, "its beginning is right")

	result, err = dir.Put(t.Context(), "name_main.tar", img, src, &PutOptions{Provenance: p, Rewrite: true})
	require.NoError(t, err)
	assert.Equal(t, Stocked, result.Outcome)
	assert.EqualValues(t, 300, result.Downloaded, "the damaged layer and no other")
	assert.EqualValues(t, 5000, result.Reused)
	assert.Equal(t, []string{path}, result.Damaged)
	assert.True(t, before == content(t, path), "the same bytes")

	// What is there of another image is replaced or not as ever.
	result, err = dir.Put(t.Context(), "name_main.tar", testImage(t, src.Add(cachetest.Noise(7, 10))), src, &PutOptions{Rewrite: true})
	require.NoError(t, err)
	assert.Equal(t, Stocked, result.Outcome)
}

func TestRepair(t *testing.T) {
	src := cachetest.Blobs{}
	img := testImage(t, src.Add(cachetest.Noise(1, 5000)), src.Add(cachetest.Noise(2, 300)), src.Add(cachetest.Noise(3, 40_000)))
	dir, err := Open(t.TempDir(), nil)
	require.NoError(t, err)
	p := tarball.Provenance{Source: "mirror/x:t", Branch: "main", Run: tarball.Run{ID: 7, Attempt: 1}}
	path := putAs(t, dir, "name_main.tar", img, src, p)
	require.NoError(t, os.Chmod(path, 0o640))
	// A newer run has found it to be its own: that is no reason against repair.
	_, err = dir.Put(t.Context(), "name_main.tar", img, none, &PutOptions{Provenance: tarball.Provenance{Run: tarball.Run{ID: 9, Attempt: 1}}})
	require.NoError(t, err)
	before := content(t, path)
	damage(t, path, 0, 2)

	results, err := dir.Verify(t.Context(), nil, nil)
	require.NoError(t, err)
	require.Len(t, results[0].Damaged, 2)
	result, err := dir.Repair(t.Context(), &results[0], src, nil)
	require.NoError(t, err)
	assert.Equal(t, Stocked, result.Outcome)
	assert.EqualValues(t, 45_000, result.Downloaded)
	assert.EqualValues(t, 300, result.Reused)
	assert.True(t, before == content(t, path), "the same bytes")
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o640), info.Mode(), "who could read it still can")
	assert.Equal(t, []string{"name_main.tar"}, withoutMark(names(t, dir.Path())))
	entries, err := dir.List(t.Context())
	require.NoError(t, err)
	assert.Equal(t, tarball.Run{ID: 9, Attempt: 1}, entries[0].Run)
}

// The source has it no more: the damaged file stays, most of it may be of use.
func TestRepairFails(t *testing.T) {
	dir, _, _, path := stocked(t)
	damage(t, path, 1)
	before := content(t, path)
	damaged := verifyOne(t, dir)
	gone := errors.New("gone")
	_, err := dir.Repair(t.Context(), damaged, cachetest.SourceFunc(func(context.Context, v1.Hash, int64, int64) (io.ReadCloser, error) {
		return nil, permanent{gone}
	}), nil)
	require.ErrorIs(t, err, gone)
	assert.True(t, before == content(t, path), "the same bytes")
	assert.Equal(t, []string{"name_main.tar"}, names(t, dir.Path()))
}

// What another writer has published meanwhile is not undone, however late it
// comes, and what was removed does not come back.
func TestRepairOfWhatIsReplaced(t *testing.T) {
	for moment, before := range map[string]bool{"before": true, "while it is fetched": false} {
		t.Run(moment, func(t *testing.T) {
			dir, _, src, path := stocked(t)
			damage(t, path, 0)
			damaged := verifyOne(t, dir)
			other := t.TempDir()
			elsewhere, err := Open(other, nil)
			require.NoError(t, err)
			newer := testImage(t, src.Add(cachetest.Noise(9, 100)))
			from := putAs(t, elsewhere, "name_main.tar", newer, src, tarball.Provenance{})
			replace := func() { // where locks do not work
				assert.NoError(t, os.WriteFile(path+".new", []byte(content(t, from)), 0o644))
				assert.NoError(t, os.Rename(path+".new", path))
			}
			if before {
				replace()
			}
			_, err = dir.Repair(t.Context(), damaged, cachetest.SourceFunc(func(ctx context.Context, d v1.Hash, off, n int64) (io.ReadCloser, error) {
				replace()
				return src.ReadRange(ctx, d, off, n)
			}), nil)
			require.ErrorIs(t, err, ErrReplaced)
			now := infoOf(t, path)
			assert.Equal(t, newer.Digest(), now.Image.Digest())
			assert.Equal(t, []string{"name_main.tar"}, names(t, dir.Path()))

			again := verifyOne(t, dir)
			require.NoError(t, os.Remove(path))
			_, err = dir.Repair(t.Context(), again, src, nil)
			require.ErrorIs(t, err, ErrReplaced)
			assert.NoFileExists(t, filepath.Join(dir.Path(), "name_main.tar"))
		})
	}
}

// A repaired tarball is as old as it was: it does not become the newest of its group.
// What is repaired is not among those that are damaged still.
func TestRepairKeepsTheTime(t *testing.T) {
	dir, _, src, path := stocked(t)
	then := time.Now().Add(-48 * time.Hour).Truncate(time.Second)
	damage(t, path, 1)
	require.NoError(t, os.Chtimes(path, then, then))
	result, err := dir.Repair(t.Context(), verifyOne(t, dir), src, nil)
	require.NoError(t, err)
	assert.Equal(t, Stocked, result.Outcome)
	assert.Empty(t, result.Damaged)
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.True(t, info.ModTime().Equal(then), info.ModTime())
}

// Each result that cannot be repaired has its own reason.
func TestRepairSaysWhyNot(t *testing.T) {
	dir, _, src, path := stocked(t)
	open, err := dir.Get(t.Context(), "name_main.tar")
	require.NoError(t, err)
	defer open.Close()
	_, err = dir.Repair(t.Context(), &VerifyResult{Name: "name_main.tar", Info: &open.Info}, src, nil)
	require.ErrorContains(t, err, "a result of Dir.Verify is required")
	require.NoError(t, os.Truncate(path, 100))
	_, err = dir.Repair(t.Context(), verifyOne(t, dir), src, nil)
	require.ErrorContains(t, err, "stock it again")
}

// A result says what was stocked, and what it replaced.
func TestResultHasDigests(t *testing.T) {
	src := cachetest.Blobs{}
	a, b := testImage(t, src.Add(cachetest.Noise(1, 1000))), testImage(t, src.Add(cachetest.Noise(2, 2000)))
	dir := openTestDir(t)
	for _, c := range []struct {
		img      *tarball.Image
		replaced v1.Hash
	}{{a, v1.Hash{}}, {a, v1.Hash{}}, {b, a.Digest()}, {b, v1.Hash{}}} {
		result, err := dir.Put(t.Context(), "name_main.tar", c.img, src, nil)
		require.NoError(t, err)
		assert.Equal(t, c.img.Digest(), result.Digest)
		assert.Equal(t, c.replaced, result.Replaced)
	}
}

// A context that has ended is an error, also where nothing is to be done.
func TestPutAfterTheEnd(t *testing.T) {
	dir, img, src, _ := stocked(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	_, err := dir.Put(ctx, "name_main.tar", img, src, nil)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorContains(t, err, "enough")
}

// A Dir that Open has not made writes nothing anywhere.
func TestZeroDir(t *testing.T) {
	t.Chdir(t.TempDir())
	_, img, src, _ := stocked(t)
	for _, dir := range []*Dir{{}, nil} {
		_, err := dir.Put(t.Context(), "a.tar", img, src, nil)
		require.ErrorContains(t, err, "Open")
		_, err = dir.List(t.Context())
		require.ErrorContains(t, err, "Open")
		_, err = dir.Verify(t.Context(), nil, nil)
		require.ErrorContains(t, err, "Open")
		_, err = dir.Prune(t.Context(), nil)
		require.ErrorContains(t, err, "Open")
		require.ErrorContains(t, dir.Remove(t.Context(), "a.tar"), "Open")
		assert.Empty(t, dir.Path())
	}
	entries, err := os.ReadDir(".")
	require.NoError(t, err)
	assert.Empty(t, entries)
}

// Versions before this one read 1 KiB of a record, so that no group may make it longer.
func TestRecordIsShort(t *testing.T) {
	dir, img, src, _ := stocked(t)
	o := &PutOptions{Provenance: tarball.Provenance{Run: tarball.Run{ID: 9, Attempt: 1}}}
	for _, group := range []string{strings.Repeat("&", 200), strings.Repeat("\\", 200), strings.Repeat("\u2028", 66)} {
		o.Group = group
		_, err := dir.Put(t.Context(), "name_main.tar", img, src, o)
		require.NoError(t, err)
		r, _ := readRecord(dir.path, "name_main.tar")
		assert.Equal(t, group, r.of(img.Digest()).Group)
		info, err := os.Stat(markPath(dir.path, "name_main.tar"))
		require.NoError(t, err)
		assert.LessOrEqual(t, info.Size(), int64(1<<10))
	}
	for _, group := range []string{"a\xffb", "a\nb", "a\x00", strings.Repeat("a", 201)} {
		o.Group = group
		_, err := dir.Put(t.Context(), "name_main.tar", img, src, o)
		require.ErrorIs(t, err, ErrInvalidName, group)
	}
}

// A group that is the name's own is recorded too, where another one was.
func TestRewriteRecordsTheGroup(t *testing.T) {
	src := cachetest.Blobs{}
	img := testImage(t, src.Add(cachetest.Noise(1, 1000)))
	dir := openTestDir(t)
	for _, group := range []string{"a", "a_b"} {
		_, err := dir.Put(t.Context(), "a_b_c.tar", img, src, &PutOptions{Group: group, Rewrite: true})
		require.NoError(t, err)
		entries, err := dir.List(t.Context())
		require.NoError(t, err)
		assert.Equal(t, group, entries[0].Group)
	}
}

// The clock that recorded the last use may be wrong.
func TestRemoveWhatIsUsedInTheFuture(t *testing.T) {
	dir, _, _, path := stocked(t)
	require.NoError(t, dir.Touch(t.Context(), "name_main.tar"))
	later := time.Now().Add(72 * time.Hour)
	require.NoError(t, os.Chtimes(markPath(dir.path, "name_main.tar"), later, later))
	require.NoError(t, dir.Remove(t.Context(), "name_main.tar"))
	assert.NoFileExists(t, path)
}

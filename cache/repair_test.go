package cache

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

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

package cache

import (
	"context"
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

// An older build run never replaces a newer one's tarball, unless forced.
func TestPutInTheOrderOfRuns(t *testing.T) {
	src := cachetest.Blobs{}
	images := map[string]*tarball.Image{"old": testImage(t, src.Add(cachetest.Noise(1, 1000))), "new": testImage(t, src.Add(cachetest.Noise(2, 2000)))}
	of := func(id, attempt int64) *PutOptions {
		return &PutOptions{Provenance: tarball.Provenance{Run: tarball.Run{ID: id, Attempt: attempt}}}
	}
	dir := openTestDir(t)
	put := func(image string, o *PutOptions) Outcome {
		result, err := dir.Put(t.Context(), "name_main.tar", images[image], src, o)
		require.NoError(t, err)
		return result.Outcome
	}
	assert.Equal(t, Stocked, put("new", of(7, 1)))
	before, err := os.Stat(filepath.Join(dir.Path(), "name_main.tar"))
	require.NoError(t, err)
	assert.Equal(t, Superseded, put("old", of(6, 5)))
	after, err := os.Stat(filepath.Join(dir.Path(), "name_main.tar"))
	require.NoError(t, err)
	assert.True(t, os.SameFile(before, after))
	assert.Equal(t, Unchanged, put("new", of(6, 5)), "the same image is the same, whichever run built it")

	forced := of(6, 5)
	forced.Force = true
	assert.Equal(t, Stocked, put("old", forced))
	assert.Equal(t, Stocked, put("new", of(7, 2)))
	assert.Equal(t, Stocked, put("old", of(7, 3)), "a later attempt of the same run")
	assert.Equal(t, Stocked, put("new", nil), "without a run there is no order")
	assert.Equal(t, Stocked, put("old", of(1, 1)))

	assert.Equal(t, tarball.Run{ID: 1, Attempt: 1}, requireStocked(t, dir, "name_main.tar").Provenance.Run)
}

// Where locks do not work a newer run may publish in the middle of an older one's
// work: it stays, whether it has another image or the same.
func TestPutWhenANewerRunPublishesMeanwhile(t *testing.T) {
	for outcome, same := range map[Outcome]bool{Superseded: false, Unchanged: true} {
		src := cachetest.Blobs{}
		older := testImage(t, src.Add(cachetest.Noise(1, 1000)))
		newer := older
		if !same {
			newer = testImage(t, src.Add(cachetest.Noise(2, 2000)))
		}
		elsewhere, dir := openTestDir(t), openTestDir(t)
		from := putAs(t, elsewhere, "name_main.tar", newer, src, tarball.Provenance{Run: tarball.Run{ID: 7, Attempt: 1}})
		result, err := dir.Put(t.Context(), "name_main.tar", older, cachetest.SourceFunc(func(ctx context.Context, d v1.Hash, off, n int64) (io.ReadCloser, error) {
			assert.NoError(t, os.Rename(from, filepath.Join(dir.Path(), "name_main.tar")))
			return src.ReadRange(ctx, d, off, n)
		}), &PutOptions{Provenance: tarball.Provenance{Run: tarball.Run{ID: 6, Attempt: 1}}})
		require.NoError(t, err)
		assert.Equal(t, outcome, result.Outcome)
		stored := requireStocked(t, dir, "name_main.tar")
		assert.Equal(t, tarball.Run{ID: 7, Attempt: 1}, stored.Provenance.Run)
		assert.Equal(t, newer.Digest(), stored.Image.Digest())
		assert.Equal(t, []string{"name_main.tar"}, withoutMark(names(t, dir.Path())))
	}
}

// A newer run that built the same image again is remembered, so that a run in
// between does not replace it.
func TestPutRemembersNewerRuns(t *testing.T) {
	src := cachetest.Blobs{}
	a, b := testImage(t, src.Add(cachetest.Noise(1, 1000))), testImage(t, src.Add(cachetest.Noise(2, 2000)))
	dir := openTestDir(t)
	put := func(img *tarball.Image, id int64) Outcome {
		result, err := dir.Put(t.Context(), "name_main.tar", img, src, &PutOptions{Provenance: tarball.Provenance{Run: tarball.Run{ID: id}}})
		require.NoError(t, err)
		return result.Outcome
	}
	assert.Equal(t, Stocked, put(a, 5))
	assert.Equal(t, Unchanged, put(a, 7))
	assert.Equal(t, Superseded, put(b, 6))
	assert.Equal(t, Unchanged, put(a, 4))
	assert.Equal(t, Superseded, put(b, 6), "an older run that finds it is not remembered")
	assert.Equal(t, Stocked, put(b, 8))
	assert.Equal(t, Stocked, put(a, 9), "the record was of another image")
	assert.Equal(t, Superseded, put(b, 8))
}

// A machine that is suspended in the flush of a tarball goes on when a newer run has long
// published its own: the order is looked at after it.
func TestPutWhenANewerRunPublishesDuringTheFlush(t *testing.T) {
	for _, repair := range []bool{false, true} {
		for _, step := range []string{"sync", "close"} {
			src := cachetest.Blobs{}
			older, newer := testImage(t, src.Add(cachetest.Noise(1, 1000))), testImage(t, src.Add(cachetest.Noise(2, 2000)))
			elsewhere, dir := openTestDir(t), openTestDir(t)
			of := func(id int64) tarball.Provenance { return tarball.Provenance{Run: tarball.Run{ID: id}} }
			from := putAs(t, elsewhere, "name_main.tar", newer, src, of(200))
			var damaged []VerifyResult
			if repair {
				damage(t, putAs(t, dir, "name_main.tar", older, src, of(100)), 0)
				var err error
				damaged, err = dir.Verify(t.Context(), nil, nil)
				require.NoError(t, err)
			}
			published := false
			atStep(t, func(at string) {
				if at == step && !published {
					published = true
					assert.NoError(t, os.Rename(from, filepath.Join(dir.Path(), "name_main.tar")))
				}
			})
			if repair {
				_, err := dir.Repair(t.Context(), &damaged[0], src, nil)
				require.ErrorIs(t, err, ErrReplaced)
			} else {
				result, err := dir.Put(t.Context(), "name_main.tar", older, src, &PutOptions{Provenance: of(100)})
				require.NoError(t, err)
				assert.Equal(t, Superseded, result.Outcome, step)
			}
			assert.True(t, published)
			stored := requireStocked(t, dir, "name_main.tar")
			assert.EqualValues(t, 200, stored.Provenance.Run.ID)
			assert.Equal(t, []string{"name_main.tar"}, withoutMark(names(t, dir.Path())))
		}
	}
}

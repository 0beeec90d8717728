package cache

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRunNewerThan(t *testing.T) {
	for _, c := range []struct {
		a, b Run
		want bool
	}{
		{Run{2, 1}, Run{1, 1}, true},
		{Run{1, 2}, Run{1, 1}, true},
		{Run{2, 1}, Run{1, 9}, true},
		{Run{1, 1}, Run{1, 1}, false},
		{Run{1, 9}, Run{2, 1}, false},
		{Run{}, Run{1, 1}, false},
		{Run{1, 1}, Run{}, false},
		{Run{}, Run{}, false},
	} {
		assert.Equal(t, c.want, c.a.newerThan(c.b), "%v %v", c.a, c.b)
	}
}

// An older build run never replaces a newer one's tarball, unless forced.
func TestPutInTheOrderOfRuns(t *testing.T) {
	src := blobs{}
	images := map[string]*Image{"old": testImage(t, src.add(noise(1, 1000))), "new": testImage(t, src.add(noise(2, 2000)))}
	of := func(id, attempt int64) *PutOptions {
		return &PutOptions{Provenance: Provenance{Run: Run{id, attempt}}}
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
	assert.Equal(t, Unchanged, put("new", of(6, 5)), "the same image is the same, whoever built it")

	forced := of(6, 5)
	forced.Force = true
	assert.Equal(t, Stocked, put("old", forced))
	assert.Equal(t, Stocked, put("new", of(7, 2)))
	assert.Equal(t, Stocked, put("old", of(7, 3)), "a later attempt of the same run")
	assert.Equal(t, Stocked, put("new", nil), "without a run there is no order")
	assert.Equal(t, Stocked, put("old", of(1, 1)))

	tarball, err := dir.Lookup("name_main.tar")
	require.NoError(t, err)
	assert.Equal(t, Run{1, 1}, tarball.Provenance.Run)
}

// Where locks do not work a newer run may publish in the middle of an older one's
// work: it stays, whether it has another image or the same.
func TestPutWhenANewerRunPublishesMeanwhile(t *testing.T) {
	for outcome, same := range map[Outcome]bool{Superseded: false, Unchanged: true} {
		src := blobs{}
		older := testImage(t, src.add(noise(1, 1000)))
		newer := older
		if !same {
			newer = testImage(t, src.add(noise(2, 2000)))
		}
		elsewhere, dir := openTestDir(t), openTestDir(t)
		from := putAs(t, elsewhere, "name_main.tar", newer, src, Provenance{Run: Run{7, 1}})
		result, err := dir.Put(t.Context(), "name_main.tar", older, sourceFunc(func(ctx context.Context, d v1.Hash, off, n int64) (io.ReadCloser, error) {
			assert.NoError(t, os.Rename(from, filepath.Join(dir.Path(), "name_main.tar")))
			return src.ReadRange(ctx, d, off, n)
		}), &PutOptions{Provenance: Provenance{Run: Run{6, 1}}})
		require.NoError(t, err)
		assert.Equal(t, outcome, result.Outcome)
		tarball, err := dir.Lookup("name_main.tar")
		require.NoError(t, err)
		assert.Equal(t, Run{7, 1}, tarball.Provenance.Run)
		assert.Equal(t, newer.Digest(), tarball.Image.Digest())
		assert.Equal(t, []string{"name_main.tar"}, withoutMark(names(t, dir.Path())))
	}
}

// A newer run that built the same image again is remembered, so that a run in
// between does not replace it.
func TestPutRemembersNewerRuns(t *testing.T) {
	src := blobs{}
	a, b := testImage(t, src.add(noise(1, 1000))), testImage(t, src.add(noise(2, 2000)))
	dir := openTestDir(t)
	put := func(img *Image, id int64) Outcome {
		result, err := dir.Put(t.Context(), "name_main.tar", img, src, &PutOptions{Provenance: Provenance{Run: Run{ID: id}}})
		require.NoError(t, err)
		return result.Outcome
	}
	assert.Equal(t, Stocked, put(a, 5))
	assert.Equal(t, Unchanged, put(a, 7))
	assert.Equal(t, Superseded, put(b, 6))
	assert.Equal(t, Unchanged, put(a, 4))
	assert.Equal(t, Superseded, put(b, 6), "an older run that finds it is not remembered")
	assert.Equal(t, Stocked, put(b, 8))
	assert.Equal(t, Stocked, put(a, 9), "the mark was of another image")
	assert.Equal(t, Superseded, put(b, 8))
}

// The mark is touched now and then, and nothing else is written.
func TestMark(t *testing.T) {
	dir, img, src, _ := stocked(t)
	now := time.Now()
	dir.now = func() time.Time { return now }
	unchanged := func() time.Time {
		result, err := dir.Put(t.Context(), "name_main.tar", img, src, nil)
		require.NoError(t, err)
		require.Equal(t, Unchanged, result.Outcome)
		_, used := readMark(dir.Path(), "name_main.tar")
		return used
	}
	first := unchanged()
	assert.WithinDuration(t, now, first, time.Minute)
	now = first.Add(markEvery - 1)
	assert.Equal(t, first, unchanged())
	now = first.Add(markEvery)
	assert.WithinDuration(t, now, unchanged(), time.Microsecond)
	info, err := os.Stat(markPath(dir.Path(), "name_main.tar"))
	require.NoError(t, err)
	assert.Zero(t, info.Size())

	now = first // a clock that was set back an hour
	assert.WithinDuration(t, first, unchanged(), time.Microsecond)
}

// Whatever is in the place of a mark says nothing, and is not written through.
func TestMarkThatIsHostile(t *testing.T) {
	for name, make := range map[string]func(path, elsewhere string) error{
		"link":      func(path, elsewhere string) error { return os.Symlink(elsewhere, path) },
		"directory": func(path, _ string) error { return os.Mkdir(path, 0o755) },
		"nonsense":  func(path, _ string) error { return os.WriteFile(path, noise(1, 5000), 0o644) },
	} {
		dir, img, src, _ := stocked(t)
		elsewhere := filepath.Join(t.TempDir(), "file")
		require.NoError(t, os.WriteFile(elsewhere, []byte("precious"), 0o644))
		require.NoError(t, make(markPath(dir.Path(), "name_main.tar"), elsewhere))
		result, err := dir.Put(t.Context(), "name_main.tar", img, src, &PutOptions{Provenance: Provenance{Run: Run{ID: 9}}})
		require.NoError(t, err, name)
		assert.Equal(t, Unchanged, result.Outcome, name)
		content, err := os.ReadFile(elsewhere)
		require.NoError(t, err)
		assert.Equal(t, "precious", string(content))
	}
}

package cache

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/wait"
)

// named is an image of a reference, with a layer of its own.
func named(t testing.TB, src cachetest.Blobs, ref string) *tarball.Image {
	t.Helper()
	manifest, config := cachetest.Pair(src.Add([]byte(ref)))
	img, err := tarball.NewImage(ref, cachetest.Marshal(manifest), config)
	require.NoError(t, err)
	return img
}

func TestPutRefusesAnotherRepositorysName(t *testing.T) {
	const first = "registry.test/team/debian:bookworm-slim"
	for ref, same := range map[string]bool{
		"registry.test/team/debian:bookworm-2":   true, // what the cache is for
		"registry.test/team/debian:latest":       true,
		"registry.test/team/tool:bookworm-abc":   false,
		"registry.test/team/tool:bookworm-slim":  false,
		"registry.test/debian:bookworm-slim":     false,
		"registry.test/team/debian/x:bookworm-1": false,
		"mirror.test/team/debian:bookworm-slim":  false,
		"registry.test:443/team/debian:b":        false,
		"debian:bookworm-slim":                   false, // Docker Hub's
	} {
		src := cachetest.Blobs{}
		dir := openTestDir(t)
		path := putAs(t, dir, "bookworm_main.tar", named(t, src, first), src, tarball.Provenance{Run: tarball.Run{ID: 7, Attempt: 1}})
		before := content(t, path)
		other := named(t, src, ref)
		for _, run := range []int64{0, 6, 8} { // an error, also where it would be superseded
			if same && run != 8 {
				continue
			}
			o := &PutOptions{Provenance: tarball.Provenance{Run: tarball.Run{ID: run}}, Force: true, Rewrite: true, Verify: true, Preempt: true}
			r := remoteOf(other, src)
			result, err := dir.Stock(t.Context(), "bookworm_main.tar", ref, r, o)
			if same {
				require.NoError(t, err, ref)
				assert.Equal(t, Stocked, result.Outcome, ref)
				continue
			}
			require.ErrorIs(t, err, ErrOtherImage, ref)
			assert.ErrorContains(t, err, first)
			assert.ErrorContains(t, err, other.Reference())
			assert.ErrorContains(t, err, path)
			assert.Empty(t, result.Outcome)
			r.requireNotAsked(t)
			assert.True(t, before == content(t, path), ref)
			assert.Equal(t, []string{"bookworm_main.tar"}, names(t, dir.Path()))
		}
		if same {
			continue
		}
		result, err := dir.Put(t.Context(), "bookworm_main.tar", other, src, &PutOptions{Replace: true, Provenance: tarball.Provenance{Run: tarball.Run{ID: 8}}})
		require.NoError(t, err)
		assert.Equal(t, Stocked, result.Outcome)
		assert.Equal(t, other.Reference(), requireStocked(t, dir, "bookworm_main.tar").Image.Reference())
		// Replace is for the name, not for the order of runs.
		result, err = dir.Put(t.Context(), "bookworm_main.tar", named(t, src, first), src, &PutOptions{Replace: true, Provenance: tarball.Provenance{Run: tarball.Run{ID: 7}}})
		require.NoError(t, err)
		assert.Equal(t, Superseded, result.Outcome)
	}
}

// One image that two registries have is known by the one reference that the caller
// gives, wherever it comes from.
func TestPutFromAnotherRegistryUnderTheSameReference(t *testing.T) {
	src := cachetest.Blobs{}
	dir := openTestDir(t)
	img := named(t, src, cachetest.Ref)
	r := remoteOf(img, src)
	r.source = "ghcr.io/pytorch/ci-image:name-2f5e"
	result, err := dir.Stock(t.Context(), "name_main.tar", cachetest.Ref, r, nil)
	require.NoError(t, err)
	assert.Equal(t, Stocked, result.Outcome)
	r = remoteOf(img, none)
	r.source = cachetest.Ref
	result, err = dir.Stock(t.Context(), "name_main.tar", cachetest.Ref, r, nil)
	require.NoError(t, err)
	assert.Equal(t, Unchanged, result.Outcome)
}

func TestPutRefusesAnotherRepositorysNameInTheEarlierLayout(t *testing.T) {
	dir, src := oldDir(t)
	before := content(t, filepath.Join(dir.Path(), "name_main.tar"))
	_, err := dir.Put(t.Context(), "name_main.tar", named(t, src, "registry.test/team/tool:name-1"), none, nil)
	require.ErrorIs(t, err, ErrOtherImage)
	assert.True(t, before == content(t, filepath.Join(dir.Path(), "name_main.tar")))
}

// Two writers of two repositories, of which neither found anything: one is stocked, the
// other is refused, also where locks do not reach from one to the other.
func TestPutRefusesAnotherRepositorysNameUnderRaces(t *testing.T) {
	src := cachetest.Blobs{}
	refs := []string{"registry.test/a:x-1", "registry.test/b:x-1"}
	for range 20 {
		dir := openTestDir(t)
		dir.sleep = func(ctx context.Context, d time.Duration) error {
			if d == lookEvery {
				d = time.Millisecond // the second one looks again
			}
			return wait.Sleep(ctx, d)
		}
		var group sync.WaitGroup
		errs := make([]error, len(refs))
		for i, img := range []*tarball.Image{named(t, src, refs[0]), named(t, src, refs[1])} {
			group.Go(func() { _, errs[i] = dir.Put(t.Context(), "x_main.tar", img, src, nil) })
		}
		group.Wait()
		stored := requireStocked(t, dir, "x_main.tar").Image.Reference()
		for i, ref := range refs {
			if ref == stored {
				assert.NoError(t, errs[i])
			} else {
				assert.ErrorIs(t, errs[i], ErrOtherImage)
			}
		}
		assert.Equal(t, []string{"x_main.tar"}, names(t, dir.Path()))
	}

	elsewhere, dir := openTestDir(t), openTestDir(t)
	from := putAs(t, elsewhere, "x_main.tar", named(t, src, refs[0]), src, tarball.Provenance{})
	_, err := dir.Put(t.Context(), "x_main.tar", named(t, src, refs[1]), cachetest.SourceFunc(func(ctx context.Context, d v1.Hash, off, n int64) (io.ReadCloser, error) {
		assert.NoError(t, os.Rename(from, filepath.Join(dir.Path(), "x_main.tar")))
		return src.ReadRange(ctx, d, off, n)
	}), nil)
	require.ErrorIs(t, err, ErrOtherImage)
	assert.Equal(t, refs[0], requireStocked(t, dir, "x_main.tar").Image.Reference())
	assert.Equal(t, []string{"x_main.tar"}, names(t, dir.Path()))
}

// What docker save has left under the workflow's name is replaced, and so is what no
// reader could use.
func TestPutReplacesWhatIsNoTarballOfThisPackage(t *testing.T) {
	src := cachetest.Blobs{}
	whole := content(t, putAs(t, openTestDir(t), "x_main.tar", named(t, src, "registry.test/b:x-1"), src, tarball.Provenance{}))
	for kind, content := range map[string][]byte{
		"docker save": dockerSave(t, "registry.test/b:x-1"),
		"truncated":   []byte(whole[:len(whole)/2]),
		"empty":       nil,
	} {
		dir := openTestDir(t)
		require.NoError(t, os.WriteFile(filepath.Join(dir.Path(), "x_main.tar"), content, 0o600))
		result, err := dir.Put(t.Context(), "x_main.tar", named(t, src, "registry.test/a:x-1"), src, nil)
		require.NoError(t, err, kind)
		assert.Equal(t, Stocked, result.Outcome, kind)
	}
}

// dockerSave is an archive as docker save of Docker 20.10 writes it, with the manifest
// at its end, and no layers.
func dockerSave(t *testing.T, ref string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range [][2]string{{"0123.json", "{}"}, {"manifest.json", `[{"Config":"0123.json","RepoTags":["` + ref + `"],"Layers":[]}]`}, {"repositories", "{}"}} {
		require.NoError(t, w.WriteHeader(&tar.Header{Name: f[0], Size: int64(len(f[1])), Mode: 0o644}))
		_, err := w.Write([]byte(f[1]))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return out.Bytes()
}

package filesystems

import (
	"bytes"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/tarballtest"
)

// A refresh of which the last of five layers changed, 5 % of the bytes, and then
// a sibling: what is there is shared where the file system can, copied where it
// cannot, and never fetched.
func TestRefresh(t *testing.T) {
	for _, fs := range fileSystems {
		t.Run(fs.name, func(t *testing.T) {
			t.Parallel()
			testRefresh(t, fs.mounted(t, 800), fs.clone)
		})
	}
	t.Run("overlay", func(t *testing.T) {
		t.Parallel()
		testRefresh(t, overlay(t), false)
	})
}

func testRefresh(t *testing.T, path string, clone bool) {
	src := newSource()
	base := []layer{{"a", 40 * mib}, {"b", 30 * mib}, {"c", 20*mib + 4097}, {"d", 5*mib + 1}}
	const last = 5 * mib
	make := func(reference string, top string) *tarball.Image {
		img, err := src.image(reference, append(base[:len(base):len(base)], layer{top, last})...)
		require.NoError(t, err)
		return img
	}
	dir, err := cache.Open(path, nil)
	require.NoError(t, err)
	put := func(name string, img *tarball.Image) *cache.Result {
		result, err := dir.Put(t.Context(), name, img, src, nil)
		require.NoError(t, err)
		requireIntact(t, dir, name)
		return result
	}
	first := put("a_main.tar", make("example.com/a:1", "first"))
	assert.Zero(t, first.Reused)
	for name, img := range map[string]*tarball.Image{
		"a_release.tar": make("example.com/a:1", "second"),
		"b_main.tar":    make("example.com/b:1", "third"),
	} {
		before := used(t, path)
		result := put(name, img)
		assert.LessOrEqual(t, result.Downloaded, tarballtest.Once(first)*6/100, name)
		assert.Equal(t, tarballtest.Once(first), tarballtest.Once(result)+result.Reused)
		if clone {
			assert.Less(t, result.Copied, int64(4*4096), "only what is left of last blocks")
			assert.LessOrEqual(t, used(t, path)-before, first.Total*7/100, "newly allocated for %s", name)
		} else {
			assert.Zero(t, result.Cloned)
		}
	}
	// The old version goes only when the new one is there.
	before := used(t, path)
	put("a_main.tar", make("example.com/a:1", "fourth"))
	if clone {
		assert.LessOrEqual(t, used(t, path)-before, first.Total*7/100)
	}
	assert.Equal(t, []string{"a_main.tar", "a_release.tar", "b_main.tar"}, names(t, path))
}

// A layer that is damaged where it is: its blocks are shared first, and then not
// written to, for they are the other tarball's too.
func TestDamagedLayerIsFetched(t *testing.T) {
	for _, fs := range fileSystems {
		t.Run(fs.name, func(t *testing.T) {
			t.Parallel()
			path := fs.mounted(t, 400)
			src := newSource()
			first, err := src.image("example.com/a:1", layer{"a", 10 * mib})
			require.NoError(t, err)
			second, err := src.image("example.com/b:1", layer{"a", 10 * mib}, layer{"b", mib})
			require.NoError(t, err)
			dir, err := cache.Open(path, nil)
			require.NoError(t, err)
			put, err := dir.Put(t.Context(), "a_main.tar", first, src, nil)
			require.NoError(t, err)
			damaged, err := os.ReadFile(put.Path)
			require.NoError(t, err)
			damaged[5*mib] ^= 1
			require.NoError(t, os.WriteFile(put.Path, damaged, 0o644))

			result, err := dir.Put(t.Context(), "b_main.tar", second, src, nil)
			require.NoError(t, err)
			assert.Equal(t, []string{put.Path}, result.Damaged)
			assert.Zero(t, result.Reused)
			assert.GreaterOrEqual(t, result.Downloaded, int64(11*mib))
			requireIntact(t, dir, "b_main.tar")
			now, err := os.ReadFile(put.Path)
			require.NoError(t, err)
			assert.True(t, bytes.Equal(damaged, now), "the damaged one is as it was")
		})
	}
}

// Shared is what the file system shares, and not what layers have in common.
func TestSharedIsWhatIsShared(t *testing.T) {
	for _, fs := range fileSystems {
		t.Run(fs.name, func(t *testing.T) {
			t.Parallel()
			dir, err := cache.Open(fs.mounted(t, 600), nil)
			require.NoError(t, err)
			src := newSource()
			shared := func() (all []int64) {
				f, err := os.Open(dir.Path())
				require.NoError(t, err)
				require.NoError(t, unix.Syncfs(int(f.Fd()))) // btrfs counts then
				require.NoError(t, f.Close())
				entries, err := dir.List(t.Context())
				require.NoError(t, err)
				for _, e := range entries {
					require.NoError(t, e.Err)
					all = append(all, e.Shared)
				}
				return all
			}
			for _, name := range []string{"a_main.tar", "b_main.tar"} {
				img, err := src.image("example.com/a:1", layer{"base", 20 * mib}, layer{name, 3 * mib})
				require.NoError(t, err)
				_, err = dir.Put(t.Context(), name, img, src, nil)
				require.NoError(t, err)
			}
			img, err := src.image("example.com/c:1", layer{"c", 2 * mib})
			require.NoError(t, err)
			_, err = dir.Put(t.Context(), "c_main.tar", img, src, nil)
			require.NoError(t, err)
			want := 0
			if fs.clone {
				want = 20 * mib
			}
			have := shared()
			require.Len(t, have, 3)
			assert.InDelta(t, want, have[0], mib)
			assert.InDelta(t, want, have[1], mib)
			assert.Zero(t, have[2])
		})
	}
}

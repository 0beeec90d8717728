package filesystems

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/internal/testtool"
)

// A disk that is full at any step: the old tarball is intact, nothing else is
// left, and the error says how much was needed. With room again it goes on.
func TestFullDisk(t *testing.T) {
	for _, fs := range fileSystems {
		t.Run(fs.name, func(t *testing.T) {
			t.Parallel()
			path := fs.mounted(t, 600)
			src := newSource()
			first, err := src.image("example.com/a:1", layer{"a", 20 * mib})
			require.NoError(t, err)
			second, err := src.image("example.com/a:1", layer{"b", 30 * mib}, layer{"c", 10 * mib})
			require.NoError(t, err)
			dir, err := cache.Open(path, nil)
			require.NoError(t, err)
			_, err = dir.Put(t.Context(), "a_main.tar", first, src, nil)
			require.NoError(t, err)

			ballast := filepath.Join(filepath.Dir(path), "ballast")
			for _, left := range []int64{0, 1, 4096, mib, 10 * mib, 25 * mib, 39 * mib} {
				fill(t, ballast, path, left)
				result, err := dir.Put(t.Context(), "a_main.tar", second, src, nil)
				// A file system may keep some room for itself, or find some.
				if err == nil {
					require.Greater(t, left, int64(25*mib), "%d bytes were left", left)
					assert.Equal(t, cache.Stocked, result.Outcome)
					break
				}
				require.ErrorIs(t, err, syscall.ENOSPC, "%d bytes were left", left)
				assert.Regexp(t, `\d{8} bytes`, err.Error(), "how much was needed")
				require.NoError(t, os.Remove(ballast))
				assert.Equal(t, first.Digest(), requireIntact(t, dir, "a_main.tar"))
				assert.Equal(t, []string{"a_main.tar"}, names(t, path), "%d bytes were left", left)
			}
			_ = os.Remove(ballast)
			run(t, "sync", "-f", path) // btrfs gives room back later
			_, err = dir.Put(t.Context(), "a_main.tar", second, src, nil)
			require.NoError(t, err)
			assert.Equal(t, second.Digest(), requireIntact(t, dir, "a_main.tar"))
		})
	}
}

// A disk that others fill after the room was found: when the first byte of a layer
// comes, and when the last has come. What was reserved is there all the same; where
// nothing can be reserved the error says how much was needed, and the old tarball is
// intact.
func TestDiskFillsMeanwhile(t *testing.T) {
	for _, fs := range fileSystems {
		for _, at := range []int64{1, 39 * mib} {
			t.Run(fmt.Sprint(fs.name, " at ", at), func(t *testing.T) {
				t.Parallel()
				path := fs.mounted(t, 600)
				src := newSource()
				first, err := src.image("example.com/a:1", layer{"a", 20 * mib})
				require.NoError(t, err)
				second, err := src.image("example.com/a:1", layer{"b", 40 * mib})
				require.NoError(t, err)
				dir, err := cache.Open(path, nil)
				require.NoError(t, err)
				_, err = dir.Put(t.Context(), "a_main.tar", first, src, nil)
				require.NoError(t, err)
				ballast := filepath.Join(filepath.Dir(path), "ballast")
				filling := &midway{source: src, after: at, do: func() { fill(t, ballast, path, 0) }}
				result, err := dir.Put(t.Context(), "a_main.tar", second, filling, nil)
				want := second
				if err != nil {
					require.ErrorIs(t, err, syscall.ENOSPC)
					assert.Regexp(t, fmt.Sprintf(`not enough space in .* for the %d bytes of the tarball`, result.Total), err.Error())
					want = first
				} else {
					assert.Equal(t, cache.Stocked, result.Outcome)
				}
				require.NoError(t, os.Remove(ballast))
				assert.Equal(t, want.Digest(), requireIntact(t, dir, "a_main.tar"))
				assert.Equal(t, []string{"a_main.tar"}, names(t, path))
			})
		}
	}
}

// fill leaves about so many bytes of a file system.
func fill(t *testing.T, ballast, dir string, left int64) {
	t.Helper()
	f, err := os.Create(ballast)
	require.NoError(t, err)
	defer f.Close()
	for {
		require.NoError(t, unix.Syncfs(int(f.Fd())))
		var s syscall.Statfs_t
		require.NoError(t, syscall.Statfs(dir, &s))
		much := int64(s.Bavail)*int64(s.Bsize) - left
		if much <= 0 {
			return
		}
		info, err := f.Stat()
		require.NoError(t, err)
		// Not all of what is free can be had at once.
		n, err := much, error(syscall.ENOSPC)
		for ; err != nil && n >= 4096; n /= 2 {
			err = syscall.Fallocate(int(f.Fd()), 0, info.Size(), n)
		}
		if err != nil {
			if n, err := f.WriteAt(make([]byte, min(much, mib)), info.Size()); n == 0 {
				require.ErrorIs(t, err, syscall.ENOSPC, fmt.Sprint(much))
				return
			}
		}
	}
}

// An overlay, as a container's root is, of which the upper layer is full: what is in the
// lower one can be removed, as rm can, for nothing is copied up first.
func TestRemoveOnAFullOverlay(t *testing.T) {
	testtool.NeedRoot(t)
	base := fileSystems[3].mounted(t, 0)
	lower, small, merged := filepath.Join(base, "lower"), t.TempDir(), t.TempDir()
	require.NoError(t, os.Mkdir(lower, 0o755))
	mount(t, small, "-t", "tmpfs", "-o", "size=1m", "tmpfs", small)
	for _, d := range []string{"upper", "work"} {
		require.NoError(t, os.Mkdir(filepath.Join(small, d), 0o755))
	}
	src := newSource()
	below, err := cache.Open(lower, nil)
	require.NoError(t, err)
	img, err := src.image("example.com/a:1", layer{"a", 5 * mib})
	require.NoError(t, err)
	var all []string
	for _, name := range []string{"a_main.tar", "b_main.tar", "c_main.tar", "d_main.tar"} {
		_, err = below.Put(t.Context(), name, img, src, nil)
		require.NoError(t, err)
		_, err = below.Put(t.Context(), name, img, src, &cache.PutOptions{Group: "x"}) // a mark
		require.NoError(t, err)
		all = append(all, name)
	}
	old := time.Now().Add(-48 * time.Hour)
	for _, name := range []string{".gone_main.tar.lock", ".gone_main.tar.0123456789ab.0123456789abcdef.partial", ".gone_main.tar.0123456789abcdef.tmp"} {
		require.NoError(t, os.WriteFile(filepath.Join(lower, name), make([]byte, 2*mib), 0o644))
		require.NoError(t, os.Chtimes(filepath.Join(lower, name), old, old))
	}
	docker := filepath.Join(lower, "z_main.tar")
	run(t, "tar", "-C", t.TempDir(), "--transform", "s,.*,blobs/,", "-cf", docker, ".")
	mount(t, merged, "-t", "overlay", "-o", fmt.Sprintf("lowerdir=%s,upperdir=%[2]s/upper,workdir=%[2]s/work", lower, small), "overlay", merged)
	fill(t, filepath.Join(small, "ballast"), small, 0)
	_, err = os.OpenFile(filepath.Join(merged, all[0]), os.O_RDWR, 0)
	require.ErrorIs(t, err, syscall.ENOSPC, "it would be copied up")

	dir, err := cache.Open(merged, nil)
	require.NoError(t, err)
	open, err := dir.Get(t.Context(), all[1])
	require.NoError(t, err)
	r, err := dir.Prune(t.Context(), &cache.PruneOptions{MaxBytes: 1, RemoveNewest: true, Foreign: true})
	require.NoError(t, err)
	require.NoError(t, open.Close())
	assert.Len(t, r.Removed, 4)
	assert.Len(t, r.Swept, 3)
	require.Len(t, r.Kept, 1)
	assert.Equal(t, all[1], r.Kept[0].Entry.Name, "it was read")
	require.NoError(t, dir.Remove(t.Context(), all[1]))
	assert.Empty(t, names(t, merged))
}

package filesystems

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/internal/testtool"
)

// device returns the name of the loop device that is mounted above a directory.
func device(t *testing.T, dir string) string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	require.NoError(t, err)
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line)
		if len(fields) > 1 && fields[1] == filepath.Dir(dir) {
			return filepath.Base(fields[0])
		}
	}
	require.FailNow(t, "no device is mounted at "+filepath.Dir(dir))
	return ""
}

// deviceReads returns how many bytes were read from that device.
func deviceReads(t *testing.T, dir string) int64 {
	t.Helper()
	stat, err := os.ReadFile(filepath.Join("/sys/block", device(t, dir), "stat"))
	require.NoError(t, err)
	var requests, merged, sectors int64
	_, err = fmt.Sscan(string(stat), &requests, &merged, &sectors)
	require.NoError(t, err)
	return sectors * 512
}

// processReads returns how many bytes this process has read with system calls, and how many
// were read from devices for it.
func processReads(t *testing.T) (calls, devices int64) {
	t.Helper()
	raw, err := os.ReadFile("/proc/self/io")
	require.NoError(t, err)
	for line := range strings.Lines(string(raw)) {
		var name string
		var n int64
		if _, err := fmt.Sscan(line, &name, &n); err != nil {
			continue
		}
		switch name {
		case "rchar:":
			calls = n
		case "read_bytes:":
			devices = n
		}
	}
	return calls, devices
}

// forget makes a file be read from its device.
func forget(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
}

// A refresh reads nothing of the layers that did not change where they can be shared, and
// each of their bytes once where they cannot.
func TestRefreshReadsNothing(t *testing.T) {
	for _, fs := range fileSystems[:3] {
		t.Run(fs.name, func(t *testing.T) { // one at a time: the process's reads are counted
			path := fs.mounted(t, 600)
			src := newSource()
			base := []layer{{"a", 60 * mib}, {"b", 30 * mib}, {"c", 20*mib + 4097}, {"d", 5*mib + 1}}
			dir, err := cache.Open(path, nil)
			require.NoError(t, err)
			for i, top := range []string{"first", "second", "third"} {
				name := fmt.Sprintf("%c_main.tar", 'a'+i)
				img, err := src.image("example.com/a:1", append(base[:4:4], layer{top, 5 * mib})...)
				require.NoError(t, err)
				calls, devices := processReads(t)
				before := deviceReads(t, path)
				result, err := dir.Put(t.Context(), name, img, src, nil)
				require.NoError(t, err)
				callsAfter, devicesAfter := processReads(t)
				read := deviceReads(t, path) - before
				// What is read of each tarball: its beginning, with what the kernel reads ahead, and
				// the last block of each layer, which is shared with what follows it.
				const little = 512 << 10
				switch {
				case i == 0:
				case fs.clone:
					assert.Less(t, read, int64(little))
					assert.Less(t, devicesAfter-devices, int64(little))
					assert.Less(t, callsAfter-calls, result.Downloaded+little, "the new layer, which is hashed")
				default: // the kernel reads ahead up to the end of the tarball
					assert.Less(t, read, result.Total+little)
					assert.Less(t, devicesAfter-devices, result.Total+little)
					assert.InDelta(t, result.Reused+result.Downloaded, callsAfter-calls, little)
					assert.Greater(t, read, result.Reused, "it was not in memory")
				}
				for n := range i + 1 {
					forget(t, filepath.Join(path, fmt.Sprintf("%c_main.tar", 'a'+n)))
				}
			}
		})
	}
}

// onEach runs a test on each file system, and reports whether verifications are recorded there. Not
// in parallel: a process that another test begins has this one's files open for an instant, and
// then its file system cannot be unmounted.
func onEach(t *testing.T, test func(t *testing.T, path string, recorded bool)) {
	for i, fs := range fileSystems {
		t.Run(fs.name, func(t *testing.T) { test(t, fs.mounted(t, 400), i < 3) })
		if i >= 2 {
			t.Run("overlay on "+fs.name, func(t *testing.T) { test(t, fs.overlay(t), false) })
		}
	}
	t.Run("ext4 with whole seconds", func(t *testing.T) {
		test(t, fileSystem{"ext4", []string{"mkfs.ext4", "-q", "-I", "128"}, loop, false}.mounted(t, 200), false)
	})
	t.Run("FUSE on ext4", func(t *testing.T) {
		below, at := fileSystems[2].mounted(t, 200), t.TempDir()
		run(t, testtool.Need(t, "bindfs"), below, at)
		t.Cleanup(func() { unmount(t, at) })
		test(t, at, false)
	})
}

// A change of a tarball: what is done to its file, which is size bytes long, at the offset of a
// layer.
type change struct {
	name string
	do   func(t *testing.T, path string, at, size int64)
}

var changes = []change{
	{"written in place", func(t *testing.T, path string, at, _ int64) {
		writeTo(t, path, func(f *os.File) error {
			_, err := f.WriteAt([]byte("damaged"), at)
			return err
		})
	}},
	{"written in place, and flushed", func(t *testing.T, path string, at, _ int64) {
		writeTo(t, path, func(f *os.File) error {
			_, err := f.WriteAt([]byte("damaged"), at)
			return errors.Join(err, f.Sync())
		})
	}},
	{"mapped", func(t *testing.T, path string, at, size int64) {
		writeTo(t, path, func(f *os.File) error {
			m := mapped(t, f, size, unix.PROT_READ|unix.PROT_WRITE)
			copy(m[at:], "damaged")
			return unix.Munmap(m)
		})
	}},
	{"another file", func(t *testing.T, path string, at, _ int64) {
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		copy(content[at:], "damaged")
		require.NoError(t, os.WriteFile(path+".new", content, 0o644))
		require.NoError(t, os.Rename(path+".new", path))
	}},
	{"truncated and restored", func(t *testing.T, path string, at, size int64) {
		writeTo(t, path, func(f *os.File) error { return errors.Join(f.Truncate(at+10), f.Truncate(size)) })
	}},
	{"a hole", func(t *testing.T, path string, at, _ int64) {
		writeTo(t, path, func(f *os.File) error {
			err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at, 4096)
			if errors.Is(err, unix.EOPNOTSUPP) { // FUSE
				_, err = f.WriteAt(make([]byte, 4096), at)
			}
			return err
		})
	}},
	{"shared with another file", func(t *testing.T, path string, at, _ int64) {
		other, err := os.Create(filepath.Join(filepath.Dir(path), "other"))
		require.NoError(t, err)
		defer other.Close()
		_, err = other.Write(make([]byte, 4096))
		require.NoError(t, err)
		writeTo(t, path, func(f *os.File) error {
			err := unix.IoctlFileCloneRange(int(f.Fd()), &unix.FileCloneRange{Src_fd: int64(other.Fd()), Src_length: 4096, Dest_offset: uint64(at)})
			if err != nil { // not here
				_, err = f.WriteAt(make([]byte, 4096), at)
			}
			return err
		})
	}},
	{"restored by a backup", func(t *testing.T, path string, at, _ int64) {
		require.NoError(t, os.Rename(path, path+".old"))
		content, err := os.ReadFile(path + ".old")
		require.NoError(t, err)
		copy(content[at:], "damaged")
		require.NoError(t, os.WriteFile(path, content, 0o644))
		require.NoError(t, os.Remove(path+".old"))
	}},
}

func writeTo(t *testing.T, path string, how func(f *os.File) error) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, how(f))
}

func mapped(t *testing.T, f *os.File, size int64, access int) []byte {
	t.Helper()
	m, err := unix.Mmap(int(f.Fd()), 0, int(size), access, unix.MAP_SHARED)
	require.NoError(t, err)
	return m
}

// A recorded verification never outlives a changed file, whatever its time and size are.
func TestChangedFileIsHashed(t *testing.T) {
	onEach(t, func(t *testing.T, path string, recorded bool) {
		src := newSource()
		first, err := src.image("example.com/a:1", layer{"a", mib}, layer{"c", 1000})
		require.NoError(t, err)
		second, err := src.image("example.com/a:2", layer{"a", mib}, layer{"b", 1000})
		require.NoError(t, err)
		for _, c := range changes {
			t.Run(c.name, func(t *testing.T) {
				dir, err := cache.Open(filepath.Join(path, strings.ReplaceAll(c.name, " ", "-")), &cache.Options{DirMode: 0o755})
				require.NoError(t, err)
				put, err := dir.Put(t.Context(), "a_main.tar", first, src, nil)
				require.NoError(t, err)
				require.Equal(t, recorded, hasRecord(t, dir, "a_main.tar"))
				info, err := os.Stat(put.Path)
				require.NoError(t, err)
				stocked, err := dir.Get(t.Context(), "a_main.tar")
				require.NoError(t, err)
				at := stocked.Layout.Layers()[0].Offset
				require.NoError(t, stocked.Close())
				c.do(t, put.Path, at, info.Size())
				require.NoError(t, os.Chtimes(put.Path, info.ModTime(), info.ModTime()))
				now, err := os.Stat(put.Path)
				require.NoError(t, err)
				require.Equal(t, []any{info.Size(), info.ModTime(), info.Mode()}, []any{now.Size(), now.ModTime(), now.Mode()})

				result, err := dir.Put(t.Context(), "b_main.tar", second, src, nil)
				require.NoError(t, err)
				assert.Equal(t, []string{put.Path}, result.Damaged)
				requireIntact(t, dir, "b_main.tar")
			})
		}
	})
}

// A page that is mapped, and was changed before the verification was recorded, changes again.
func TestChangeOfAMappedPageIsSeen(t *testing.T) {
	onEach(t, func(t *testing.T, path string, recorded bool) {
		src := newSource()
		first, err := src.image("example.com/a:1", layer{"a", mib}, layer{"c", 1000})
		require.NoError(t, err)
		second, err := src.image("example.com/a:2", layer{"a", mib}, layer{"b", 1000})
		require.NoError(t, err)
		dir, err := cache.Open(path, nil)
		require.NoError(t, err)
		put, err := dir.Put(t.Context(), "a_main.tar", first, src, nil)
		require.NoError(t, err)
		stocked, err := dir.Get(t.Context(), "a_main.tar")
		require.NoError(t, err)
		at := stocked.Layout.Layers()[0].Offset
		require.NoError(t, stocked.Close())
		writeTo(t, put.Path, func(f *os.File) error {
			page := mapped(t, f, put.Total, unix.PROT_READ|unix.PROT_WRITE)
			page[at] ^= 1
			page[at] ^= 1
			results, err := dir.Verify(t.Context(), nil, nil)
			require.NoError(t, err)
			require.NoError(t, results[0].Err)
			require.Equal(t, recorded, hasRecord(t, dir, "a_main.tar"))
			page[at] ^= 1
			return unix.Munmap(page)
		})
		result, err := dir.Put(t.Context(), "b_main.tar", second, src, nil)
		require.NoError(t, err)
		assert.Equal(t, []string{put.Path}, result.Damaged)
		requireIntact(t, dir, "b_main.tar")
	})
}

func hasRecord(t *testing.T, dir *cache.Dir, name string) bool {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir.Path(), "."+name+".*.verified"))
	require.NoError(t, err)
	return len(found) > 0
}

// Damage that the file system does not know of, as of a disk: a refresh takes it over, Verify
// finds it, and Repair takes nothing on trust.
func TestDamageOfADiskIsFound(t *testing.T) {
	for _, fs := range fileSystems[:3] {
		t.Run(fs.name, func(t *testing.T) {
			path := fs.mounted(t, 400)
			src := newSource()
			first, err := src.image("example.com/a:1", layer{"a", 2 * mib}, layer{"c", 1000})
			require.NoError(t, err)
			second, err := src.image("example.com/a:2", layer{"a", 2 * mib}, layer{"b", 1000})
			require.NoError(t, err)
			dir, err := cache.Open(path, nil)
			require.NoError(t, err)
			put, err := dir.Put(t.Context(), "a_main.tar", first, src, nil)
			require.NoError(t, err)
			require.True(t, hasRecord(t, dir, "a_main.tar"))
			layer := first.Layers()[0]
			damageDisk(t, path, put.Path, src.Blobs[layer.Digest][mib:mib+64])

			result, err := dir.Put(t.Context(), "b_main.tar", second, src, nil)
			require.NoError(t, err)
			assert.Equal(t, layer.Size, result.Reused)
			assert.Empty(t, result.Damaged)
			assert.True(t, hasRecord(t, dir, "b_main.tar"))
			results, err := dir.Verify(t.Context(), nil, nil)
			require.NoError(t, err)
			require.Len(t, results, 2)
			for _, r := range results {
				require.Error(t, r.Err, r.Name)
				assert.False(t, hasRecord(t, dir, r.Name))
				_, err := dir.Repair(t.Context(), &r, src, nil)
				require.NoError(t, err)
				requireIntact(t, dir, r.Name)
				assert.True(t, hasRecord(t, dir, r.Name))
			}
		})
	}
}

// damageDisk changes these bytes of a file on the device that is mounted above a directory,
// wherever they are.
func damageDisk(t *testing.T, dir, path string, of []byte) {
	t.Helper()
	name, err := os.ReadFile(filepath.Join("/sys/block", device(t, dir), "loop", "backing_file"))
	require.NoError(t, err)
	image := strings.TrimSpace(string(name))
	f, err := os.Open(image)
	require.NoError(t, err)
	defer f.Close()
	info, err := f.Stat()
	require.NoError(t, err)
	content := mapped(t, f, info.Size(), unix.PROT_READ)
	at := bytes.Index(content, of)
	require.NoError(t, unix.Munmap(content))
	require.Positive(t, at)
	writeTo(t, image, func(f *os.File) error {
		_, err := f.WriteAt([]byte{of[0] ^ 1}, int64(at))
		return err
	})
	forget(t, path)
}

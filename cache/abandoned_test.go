package cache

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
)

// failNth makes a call of the file system fail once, the nth time, until the test ends.
func failNth(t *testing.T, call *func(*os.File) error, nth int) {
	real, n := *call, 0
	t.Cleanup(func() { *call = real })
	*call = func(f *os.File) error {
		if n++; n != nth {
			return real(f)
		}
		return errors.Join(syscall.EIO, real(f))
	}
}

// After a flush or a close that failed nothing of the file is believed again, whatever process
// wrote it, and what the name had before stays.
func TestPutAfterAFlushThatFailed(t *testing.T) {
	for name, call := range map[string]*func(*os.File) error{"flush": &sys.Flush, "close": &sys.Close} {
		t.Run(name, func(t *testing.T) {
			dir, old, src, path := stocked(t)
			layer := src.Add(cachetest.Noise(7, 9000))
			img := testImage(t, layer)
			failNth(t, call, 1)
			_, err := dir.Put(t.Context(), "name_main.tar", img, src, nil)
			require.ErrorIs(t, err, syscall.EIO)
			assert.ErrorContains(t, err, name)
			assert.Equal(t, []string{"name_main.tar"}, withoutMark(names(t, dir.Path())))
			assert.Equal(t, old.Digest(), requireStocked(t, dir, "name_main.tar").Image.Digest())

			result, err := dir.Put(t.Context(), "name_main.tar", img, src, nil)
			require.NoError(t, err)
			assert.Equal(t, layer.Size, result.Downloaded)
			requireStocked(t, dir, "name_main.tar")

			damage(t, path, 0)
			results, err := dir.Verify(t.Context(), nil, nil)
			require.NoError(t, err)
			failNth(t, call, 1)
			_, err = dir.Repair(t.Context(), &results[0], src, nil)
			require.ErrorIs(t, err, syscall.EIO)
			assert.Equal(t, []string{"name_main.tar"}, withoutMark(names(t, dir.Path())))
			_, err = dir.Repair(t.Context(), &results[0], src, nil)
			require.NoError(t, err)
			requireStocked(t, dir, "name_main.tar")

			failNth(t, call, 1)
			require.ErrorIs(t, WriteTarball(t.Context(), path, old, src, nil), syscall.EIO)
			assert.Equal(t, []string{"name_main.tar"}, withoutMark(names(t, dir.Path())))
			assert.Equal(t, img.Digest(), requireStocked(t, dir, "name_main.tar").Image.Digest())
		})
	}
}

// A directory that could not be flushed: the error says so, what is there is whole, and
// nothing else is left.
func TestPutWhenTheDirectoryCannotBeFlushed(t *testing.T) {
	dir, _, src, path := stocked(t)
	img := testImage(t, src.Add(cachetest.Noise(7, 9000)))
	failNth(t, &sys.Flush, 2)
	result, err := dir.Put(t.Context(), "name_main.tar", img, src, nil)
	require.ErrorIs(t, err, syscall.EIO)
	assert.ErrorContains(t, err, path+" is in place")
	assert.Empty(t, result.Outcome)
	assert.Equal(t, []string{"name_main.tar"}, withoutMark(names(t, dir.Path())))
	assert.Equal(t, img.Digest(), requireStocked(t, dir, "name_main.tar").Image.Digest())
}

// left is a partial file that an earlier attempt left.
type left struct {
	dir    *Dir
	src    cachetest.Blobs
	img    *tarball.Image
	layout *tarball.Layout
	path   string
	inode  os.FileInfo
	lacks  int64 // bytes
}

// leave leaves a partial file that was not written to for a while: all of one layer, and
// parts of another.
func leave(t *testing.T) *left {
	t.Helper()
	l := &left{dir: openTestDir(t), src: cachetest.Blobs{}}
	l.img = testImage(t, l.src.Add(cachetest.Noise(1, 5000)), l.src.Add(cachetest.Noise(2, 100_000)))
	layout, err := tarball.NewLayout(l.img, tarball.Provenance{})
	require.NoError(t, err)
	l.layout = layout
	p, err := openPartial(l.dir.Path(), "name_main.tar", l.img.Digest(), layout)
	require.NoError(t, err)
	for _, part := range []struct {
		layer    int
		from, to int64
	}{{0, 0, 5000}, {1, 0, 10_000}, {1, 20_001, 60_007}} {
		at := layout.Layers()[part.layer]
		_, err := p.file.WriteAt(l.src[at.Blob][part.from:part.to], at.Offset+part.from)
		require.NoError(t, err)
		p.journal.Add(at.Blob, part.from, part.to)
	}
	l.lacks = 100_000 - 10_000 - 40_006
	l.path = p.file.Name()
	p.close()
	open, err := os.Open(l.path) // so that no other file gets its number
	require.NoError(t, err)
	t.Cleanup(func() { _ = open.Close() })
	l.inode, err = open.Stat()
	require.NoError(t, err)
	l.age(t, sys.QuietAfter)
	return l
}

func (l *left) age(t *testing.T, age time.Duration) {
	t.Helper()
	at := time.Now().Add(-age)
	require.NoError(t, os.Chtimes(l.path, at, at))
}

// writer replaces the line that says who writes the file.
func (l *left) writer(t *testing.T, edit func(line string) string) {
	t.Helper()
	lines := strings.SplitAfter(content(t, l.path+journalKind), "\n")
	require.Regexp(t, `^writer [0-9a-f]+ \S+ pid:\S+ \d+ \d+ .*\n$`, lines[1])
	lines[1] = edit(lines[1])
	require.NoError(t, os.WriteFile(l.path+journalKind, []byte(strings.Join(lines, "")), 0o666))
}

// put stocks the image and returns whether the file that was left is the tarball now.
func (l *left) put(t *testing.T) (result *Result, adopted bool) {
	t.Helper()
	result, err := l.dir.Put(t.Context(), "name_main.tar", l.img, l.src, nil)
	require.NoError(t, err)
	assert.Equal(t, Stocked, result.Outcome)
	requireStocked(t, l.dir, "name_main.tar")
	info, err := os.Stat(result.Path)
	require.NoError(t, err)
	return result, os.SameFile(info, l.inode)
}

// What a dead process of this machine left is gone on with as it is.
func TestDeadWritersFileIsAdopted(t *testing.T) {
	for name, age := range map[string]time.Duration{"now": 0, "long ago": 24 * time.Hour} {
		l := leave(t)
		l.age(t, age)
		result, adopted := l.put(t)
		assert.True(t, adopted, name)
		assert.Equal(t, l.lacks, result.Downloaded, name)
		assert.Equal(t, []string{"name_main.tar"}, names(t, l.dir.Path()), name)
	}
}

// Where its writer may live, who adopted its file would publish what that one goes on
// writing to. So the new tarball is another file, with what was left in it.
func TestLivingWritersFileIsCopied(t *testing.T) {
	field := func(i int, to string) func(string) string {
		return func(line string) string {
			all := strings.Fields(line)
			all[i] = to
			return strings.Join(all, " ") + "\n"
		}
	}
	const fuse = "65735546"
	for name, edit := range map[string]func(string) string{
		"a version that did not say who": func(string) string { return "" },
		"a cut line":                     func(string) string { return "writer ef53 boot\n" },
		"another file system's view":     field(1, fuse),
		"another machine":                func(line string) string { return field(2, "another-boot")(field(1, fuse)(line)) },
		"another container":              func(line string) string { return field(3, "pid:[1]")(field(1, fuse)(line)) },
		"a clone of this machine":        func(line string) string { return field(6, "another-host")(field(1, fuse)(line)) },
	} {
		for _, old := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				l := leave(t)
				if !old {
					l.age(t, 0)
				}
				l.writer(t, edit)
				// It wakes up in the end, and writes what was in flight, wrong.
				woken, err := os.OpenFile(l.path, os.O_RDWR, 0)
				require.NoError(t, err)
				defer woken.Close()
				result, adopted := l.put(t)
				assert.False(t, adopted)
				assert.Equal(t, l.lacks, result.Downloaded, "what was left is not fetched")
				_, err = woken.WriteAt(make([]byte, result.Total), 0)
				require.NoError(t, err)
				requireStocked(t, l.dir, "name_main.tar")
				want := []string{"name_main.tar"}
				if !old { // it may be at work: its file stays
					want = append([]string{filepath.Base(l.path), filepath.Base(l.path) + journalKind}, want...)
				}
				assert.Equal(t, want, names(t, l.dir.Path()))
			})
		}
	}
}

// A process of this kernel, on a file system whose locks do not show whether it lives.
func TestWriterOnAFileSystemWithoutLocks(t *testing.T) {
	for alive, pid := range map[bool]int{true: os.Getpid(), false: 1 << 30} {
		l := leave(t)
		l.writer(t, func(line string) string {
			all := strings.Fields(line)
			all[1] = "65735546"
			if !alive {
				all[4] = "1073741824"
				require.Equal(t, 1<<30, pid)
			}
			return strings.Join(all, " ") + "\n"
		})
		result, adopted := l.put(t)
		assert.Equal(t, !alive, adopted)
		assert.Equal(t, l.lacks, result.Downloaded)
	}
}

// A second name of another file, or another user's, is never written to; what is in it
// can be used all the same.
func TestPartialFileThatIsNotOnesOwn(t *testing.T) {
	for name, change := range map[string]func(l *left) error{
		"a second name": func(l *left) error { return os.Link(l.path, filepath.Join(filepath.Dir(l.path), "precious")) },
		"another user's": func(l *left) error {
			if os.Geteuid() != 0 {
				return nil
			}
			return errors.Join(os.Chown(l.path, 65534, 65534))
		},
		"another user's journal": func(l *left) error {
			if os.Geteuid() != 0 {
				return nil
			}
			return errors.Join(os.Chown(l.path+journalKind, 65534, 65534))
		},
	} {
		if os.Geteuid() != 0 && name != "a second name" {
			continue // it cannot be made
		}
		l := leave(t)
		require.NoError(t, change(l), name)
		opened, err := os.Open(l.path)
		require.NoError(t, err)
		before, err := io.ReadAll(opened)
		require.NoError(t, err)
		result, adopted := l.put(t)
		assert.False(t, adopted, name)
		assert.Equal(t, l.lacks, result.Downloaded, name)
		after, err := io.ReadAll(io.NewSectionReader(opened, 0, 1<<20))
		require.NoError(t, err)
		assert.True(t, string(before) == string(after), name)
		require.NoError(t, opened.Close())
	}
}

// What is left is flushed and read from the disk before it counts. Where the flush fails,
// which its writer may not have seen, nothing does.
func TestWhatIsLeftIsFlushedFirst(t *testing.T) {
	l := leave(t)
	failNth(t, &sys.Flush, 1)
	result, adopted := l.put(t)
	assert.False(t, adopted)
	assert.EqualValues(t, 105_000, result.Downloaded)
	assert.Equal(t, []string{"name_main.tar"}, names(t, l.dir.Path()))

	// The flush is before what is read of it.
	l = leave(t)
	real, flushed := sys.Flush, false
	t.Cleanup(func() { sys.Flush = real })
	sys.Flush = func(f *os.File) error {
		if !flushed {
			flushed = true
			_, err := f.WriteAt(make([]byte, 500), l.layout.Layers()[0].Offset) // what the disk has
			assert.NoError(t, err)
		}
		return real(f)
	}
	result, adopted = l.put(t)
	assert.True(t, adopted)
	assert.EqualValues(t, 5000+l.lacks, result.Downloaded, "the layer that is wrong on the disk")
}

// A file that cannot be copied, or for which there is no room, is fetched again.
func TestLivingWritersFileThatCannotBeCopied(t *testing.T) {
	t.Run("shorter than its journal says", func(t *testing.T) {
		l := leave(t)
		l.writer(t, func(string) string { return "" })
		require.NoError(t, os.Truncate(l.path, 9000))
		l.age(t, sys.QuietAfter)
		result, _ := l.put(t)
		assert.Greater(t, result.Downloaded, l.lacks)
		assert.Equal(t, []string{"name_main.tar"}, names(t, l.dir.Path()))
	})
	t.Run("no room for two", func(t *testing.T) {
		l := leave(t)
		l.writer(t, func(string) string { return "" })
		f, err := os.OpenFile(l.path, os.O_RDWR, 0)
		require.NoError(t, err)
		require.NoError(t, sys.Reserve(f, []sys.Interval{{From: 0, To: 110_000}}))
		require.NoError(t, f.Close())
		l.age(t, sys.QuietAfter)
		l.dir.quota = 140_000
		result, adopted := l.put(t)
		assert.False(t, adopted)
		assert.EqualValues(t, 105_000, result.Downloaded)
		assert.Equal(t, []string{"name_main.tar"}, names(t, l.dir.Path()))
	})
	t.Run("the caller gives up", func(t *testing.T) {
		l := leave(t)
		l.writer(t, func(string) string { return "" })
		p, err := openPartial(l.dir.Path(), "name_main.tar", l.img.Digest(), l.layout)
		require.NoError(t, err)
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errors.New("interrupted"))
		err = p.copyAbandoned(ctx, l.layout, func(int64) error { return nil })
		require.ErrorContains(t, err, "interrupted")
		p.close()
		assert.FileExists(t, l.path)
	})
}

// An attempt that stops at once, of the source's, leaves what it has for the next.
func TestCopyIsLeftForTheNext(t *testing.T) {
	l := leave(t)
	l.writer(t, func(string) string { return "" })
	refused := errors.New("refused")
	_, err := l.dir.Put(t.Context(), "name_main.tar", l.img, cachetest.SourceFunc(func(context.Context, v1.Hash, int64, int64) (io.ReadCloser, error) {
		return nil, tarball.Permanent(refused)
	}), nil)
	require.ErrorIs(t, err, refused)
	assert.NoFileExists(t, l.path)
	result, adopted := l.put(t)
	assert.False(t, adopted)
	assert.Equal(t, l.lacks, result.Downloaded)
}

package cache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
)

func readArchive(t testing.TB, opened *tarball.Tarball) ([]byte, error) {
	t.Helper()
	archive, err := opened.Archive(nil)
	require.NoError(t, err)
	r := archive.Open(t.Context())
	defer r.Close()
	return io.ReadAll(r)
}

func readLayer(t testing.TB, opened *tarball.Tarball, d v1.Descriptor) ([]byte, error) {
	t.Helper()
	r, err := opened.ReadRange(t.Context(), d.Digest, 0, d.Size)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// A tarball of a directory is a source like any other.
func TestTarballIsASource(t *testing.T) {
	src := cachetest.Blobs{}
	layer := src.Add(cachetest.Noise(1, 10_000))
	dir := openTestDir(t)
	_, err := dir.Put(t.Context(), "name_main.tar", testImage(t, layer), src, nil)
	require.NoError(t, err)
	opened := get(t, dir, "name_main.tar")
	other := openTestDir(t)
	_, err = other.Put(t.Context(), "copy_main.tar", opened.Image, opened, nil)
	require.NoError(t, err)
	whole, err := os.ReadFile(opened.Name())
	require.NoError(t, err)
	archive, err := get(t, other, "copy_main.tar").Archive(nil)
	require.NoError(t, err)
	r := archive.Open(t.Context())
	require.NoError(t, iotest.TestReader(r, whole))
	require.NoError(t, r.Close())
	_, err = r.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrClosed)
}

// What was opened before it is replaced, or removed, is read to its end, by readers
// that begin before and after that.
func TestReaderSurvivesReplacement(t *testing.T) {
	src := cachetest.Blobs{}
	shared, old := cachetest.Noise(1, 10_000), cachetest.Noise(2, 20_000)
	layers := []v1.Descriptor{src.Add(shared), src.Add(old)}
	dir := openTestDir(t)
	_, err := dir.Put(t.Context(), "name_main.tar", testImage(t, layers...), src, nil)
	require.NoError(t, err)
	opened := get(t, dir, "name_main.tar")
	want, err := os.ReadFile(opened.Name())
	require.NoError(t, err)
	begun, err := opened.ReadRange(t.Context(), layers[1].Digest, 0, 20_000)
	require.NoError(t, err)
	defer begun.Close()
	_, err = io.CopyN(io.Discard, begun, 100)
	require.NoError(t, err)
	for _, change := range []func() error{
		func() error { // another layer before the shared one: it has moved
			_, err := dir.Put(t.Context(), "name_main.tar", testImage(t, src.Add(cachetest.Noise(3, 70_000)), layers[0]), src, nil)
			return err
		},
		func() error { return os.Remove(opened.Name()) }, // whatever does it
	} {
		require.NoError(t, change())
		for i, content := range [][]byte{shared, old} {
			got, err := readLayer(t, opened, layers[i])
			require.NoError(t, err)
			assert.True(t, bytes.Equal(content, got))
		}
		got, err := readArchive(t, opened)
		require.NoError(t, err)
		assert.True(t, bytes.Equal(want, got))
		require.NoError(t, opened.Verify(t.Context(), nil))
	}
	rest, err := io.ReadAll(begun)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(old[100:], rest))
}

// once is how many bytes a file gives before it is stale, which no later one is.
func once(n int) func() int {
	first := true
	return func() int {
		if first {
			first = false
			return n
		}
		return 1 << 30
	}
}

func noError() error { return nil }

// pinnedStale returns a tarball of a directory whose file is stale after left() bytes
// more; each file that is opened then gives that many.
func pinnedStale(t *testing.T, path string, opened func() error, left func() int) *tarball.Tarball {
	t.Helper()
	f, info, err := openLocked(path, 0)
	require.NoError(t, err)
	var mu sync.Mutex
	budget := map[*os.File]int{}
	reading := false
	p := &pinned{path: path, file: f}
	p.open = func(path string, flags int) (*os.File, os.FileInfo, error) {
		if err := opened(); err != nil {
			return nil, nil, err
		}
		return openLocked(path, flags)
	}
	p.read = func(f *os.File, b []byte, at int64) (int, error) {
		if !reading {
			return f.ReadAt(b, at)
		}
		mu.Lock()
		if _, ok := budget[f]; !ok {
			budget[f] = left()
		}
		most := min(len(b), budget[f])
		budget[f] -= most
		mu.Unlock()
		if most == 0 {
			return 0, &os.PathError{Op: "read", Err: syscall.ESTALE}
		}
		n, err := f.ReadAt(b[:most], at)
		if err == nil && n < len(b) {
			err = &os.PathError{Op: "read", Err: syscall.ESTALE}
		}
		return n, err
	}
	stale, err := tarball.Read(p, info.Size(), path)
	require.NoError(t, err)
	p.planned = stale.Layout
	reading = true
	t.Cleanup(func() { _ = stale.Close() })
	return stale
}

// A file on NFS of which the server dropped the inode is opened again, and read on
// from the same byte.
func TestPinnedReopensStaleFiles(t *testing.T) {
	src := cachetest.Blobs{}
	content := cachetest.Noise(1, 10_000)
	layer := src.Add(content)
	dir := openTestDir(t)
	result, err := dir.Put(t.Context(), "name_main.tar", testImage(t, layer), src, nil)
	require.NoError(t, err)
	opens, good := 0, 1000
	opened := func() error {
		if opens++; opens == 3 { // it may also be stale when it is opened
			return &os.PathError{Op: "open", Err: syscall.ESTALE}
		}
		return nil
	}
	stale := pinnedStale(t, result.Path, opened, func() int { return good })
	got, err := readLayer(t, stale, layer)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(content, got))
	assert.Equal(t, 9+1, opens)

	// One that is always stale ends.
	good = 0
	stale = pinnedStale(t, result.Path, opened, func() int { return good })
	_, err = readLayer(t, stale, layer)
	require.ErrorIs(t, err, syscall.ESTALE)
}

// When the file is stale and another image has its name, layers are read on as far as
// they are the same; one that is not there any more ends it.
func TestPinnedStaleAndReplaced(t *testing.T) {
	src := cachetest.Blobs{}
	shared, old := src.Add(cachetest.Noise(1, 10_000)), src.Add(cachetest.Noise(2, 20_000))
	dir := openTestDir(t)
	put := func(layers ...v1.Descriptor) string {
		result, err := dir.Put(t.Context(), "name_main.tar", testImage(t, layers...), src, nil)
		require.NoError(t, err)
		return result.Path
	}
	path := put(shared, old)
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	staleOnce := func() *tarball.Tarball { return pinnedStale(t, path, noError, once(1000)) }
	moved, gone, removed := staleOnce(), staleOnce(), staleOnce()
	put(src.Add(cachetest.Noise(3, 5000)), old, shared)
	got, err := readArchive(t, moved)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(want, got))
	put(shared)
	got, err = readArchive(t, gone)
	require.ErrorIs(t, err, ErrReplaced)
	assert.True(t, bytes.HasPrefix(want, got))
	require.NoError(t, os.Remove(path))
	_, err = readArchive(t, removed)
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// A tarball that is open keeps its bytes, whatever other processes do to its name and to
// the previous version that was kept of it.
func TestOpenTarballKeepsItsBytes(t *testing.T) {
	src, images := killImages(t)
	for name, change := range map[string]func(t *testing.T, dir *Dir, path string){
		"another process stocks another image": func(t *testing.T, dir *Dir, path string) {
			cmd, lines := startVictim(t, dir.Path(), "once")
			defer endVictim(t, cmd)
			for lines.Scan() && lines.Text() != "done" {
				require.NotContains(t, lines.Text(), "error")
			}
			assert.Equal(t, images[0].Digest(), requireWhole(t, path).Image.Digest())
		},
		"the previous version is kept and swept": func(t *testing.T, dir *Dir, path string) {
			other, err := Open(dir.Path(), &Options{Grace: time.Hour})
			require.NoError(t, err)
			putAs(t, other, "name_main.tar", images[0], src, tarball.Provenance{})
			require.Len(t, sys.Temporaries(dir.Path(), "name_main.tar", previousKind), 1)
			other.now = func() time.Time { return time.Now().Add(2 * time.Hour) }
			swept, err := other.Sweep(t.Context(), nil)
			require.NoError(t, err)
			require.Len(t, swept, 1)
		},
		"it is repaired": func(t *testing.T, dir *Dir, path string) {
			_, err := dir.Put(t.Context(), "name_main.tar", images[1], src, &PutOptions{Rewrite: true})
			require.NoError(t, err)
		},
		"it is removed": func(t *testing.T, dir *Dir, path string) { require.NoError(t, os.Remove(path)) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := openTestDir(t)
			path := putAs(t, dir, "name_main.tar", images[1], src, tarball.Provenance{})
			want := content(t, path)
			opened := get(t, dir, "name_main.tar")
			archive, err := opened.Archive(nil)
			require.NoError(t, err)
			begun := archive.Open(t.Context())
			defer begun.Close()
			start := make([]byte, 1000)
			_, err = io.ReadFull(begun, start)
			require.NoError(t, err)

			change(t, dir, path)
			rest, err := io.ReadAll(begun)
			require.NoError(t, err)
			assert.True(t, want == string(start)+string(rest), "what was begun before")
			all, err := readArchive(t, opened)
			require.NoError(t, err)
			assert.True(t, want == string(all), "what is begun afterwards")
			for _, l := range images[1].Layers() {
				got, err := readLayer(t, opened, l)
				require.NoError(t, err)
				assert.True(t, bytes.Equal(src[l.Digest], got))
			}
			require.NoError(t, opened.Verify(t.Context(), nil))
		})
	}
}

// endVictim ends a child that has nothing to do any more.
func endVictim(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	require.NoError(t, cmd.Process.Kill())
	requireKilled(t, cmd)
}

// Prune leaves what is open through Get, in any process, until it is closed.
func TestPruneKeepsOpenTarballs(t *testing.T) {
	dir := several(t, "a_main.tar", "b_main.tar")
	other, err := Open(dir.Path(), nil)
	require.NoError(t, err)
	opened, err := other.Get(t.Context(), "a_main.tar")
	require.NoError(t, err)
	want := content(t, opened.Name())
	for range 2 {
		r, err := dir.Prune(t.Context(), &PruneOptions{MaxAge: time.Hour, RemoveNewest: true})
		require.NoError(t, err)
		assert.Equal(t, []string{"a_main.tar age in-use"}, planText(r.Kept))
		got, err := readArchive(t, opened)
		require.NoError(t, err)
		assert.True(t, want == string(got))
	}
	assert.Equal(t, []string{"a_main.tar"}, names(t, dir.Path()))
	require.NoError(t, opened.Close())
	r, err := dir.Prune(t.Context(), &PruneOptions{MaxAge: time.Hour, RemoveNewest: true})
	require.NoError(t, err)
	assert.Equal(t, []string{"a_main.tar age "}, planText(r.Removed))
	assert.Empty(t, names(t, dir.Path()))
	_, err = opened.ReadRange(t.Context(), opened.Image.Layers()[0].Digest, 0, 1)
	if err == nil {
		_, err = readLayer(t, opened, opened.Image.Layers()[0])
	}
	require.ErrorIs(t, err, os.ErrClosed)
	require.ErrorIs(t, opened.Close(), os.ErrClosed)
}

// Layers are found where they are in the file that is opened in place of a stale one,
// and no read goes beyond them.
func TestPinnedReadsAcrossSegments(t *testing.T) {
	src := cachetest.Blobs{}
	a, b := src.Add(cachetest.Noise(1, 10_000)), src.Add(cachetest.Noise(2, 20_000))
	dir := openTestDir(t)
	path := putAs(t, dir, "name_main.tar", testImage(t, a, b), src, tarball.Provenance{})
	want := content(t, path)
	open := func(left int) (*pinned, *tarball.Layout) {
		f, info, err := openLocked(path, 0)
		require.NoError(t, err)
		p := &pinned{path: path, open: openLocked, file: f}
		t.Cleanup(func() { _ = p.Close() })
		opened, err := tarball.Read(p, info.Size(), path)
		require.NoError(t, err)
		p.planned = opened.Layout
		p.read = func(now *os.File, b []byte, at int64) (int, error) {
			if now != f {
				return now.ReadAt(b, at)
			}
			n, err := f.ReadAt(b[:min(len(b), left)], at)
			if left -= n; err == nil && n < len(b) {
				err = &os.PathError{Op: "read", Err: syscall.ESTALE}
			}
			return n, err
		}
		return p, opened.Layout
	}
	whole, layout := open(1 << 30)
	at, _ := layout.Layer(a.Digest)
	buf := make([]byte, 15_000)
	n, err := whole.ReadAt(buf, at.Offset-100)
	require.NoError(t, err)
	assert.True(t, want[at.Offset-100:][:n] == string(buf[:n]))

	within, _ := open(1000)
	moved, _ := open(1000)
	n, err = within.ReadAt(buf[:10_000], at.Offset)
	require.NoError(t, err)
	assert.Equal(t, 10_000, n)
	assert.True(t, want[at.Offset:][:n] == string(buf[:n]))

	putAs(t, dir, "name_main.tar", testImage(t, src.Add(cachetest.Noise(3, 5000)), b, a), src, tarball.Provenance{})
	n, err = moved.ReadAt(buf, at.Offset+5)
	require.ErrorIs(t, err, ErrReplaced, "the bytes between the layers are another image's")
	assert.Equal(t, 9_995, n, "but the layer is whole")
	assert.True(t, want[at.Offset+5:][:n] == string(buf[:n]))
	_, err = moved.ReadAt(buf, int64(len(want)))
	require.ErrorIs(t, err, io.EOF)
	require.NoError(t, moved.Close())
	_, err = moved.ReadAt(buf, at.Offset)
	require.ErrorIs(t, err, os.ErrClosed)
}

// Of many readers of one file that goes stale each gets its bytes, and the file is
// opened once for all.
func TestPinnedConcurrently(t *testing.T) {
	src := cachetest.Blobs{}
	layers := []v1.Descriptor{src.Add(cachetest.Noise(1, 300_000)), src.Add(cachetest.Noise(2, 200_000))}
	dir := openTestDir(t)
	path := putAs(t, dir, "name_main.tar", testImage(t, layers...), src, tarball.Provenance{})
	f, info, err := openLocked(path, 0)
	require.NoError(t, err)
	const readers = 8
	var waiting atomic.Int64
	all := make(chan struct{})
	opens := 0
	p := &pinned{path: path, file: f, open: func(path string, flags int) (*os.File, os.FileInfo, error) {
		opens++
		return openLocked(path, flags)
	}}
	opened, err := tarball.Read(p, info.Size(), path)
	require.NoError(t, err)
	defer opened.Close()
	p.planned = opened.Layout
	p.read = func(now *os.File, b []byte, at int64) (int, error) {
		if now != f {
			return now.ReadAt(b, at)
		}
		if waiting.Add(1) == readers {
			close(all)
		}
		<-all // each has found it stale
		return 0, &os.PathError{Op: "read", Err: syscall.ESTALE}
	}
	putAs(t, dir, "name_main.tar", testImage(t, layers[1], layers[0]), src, tarball.Provenance{})
	var group errgroup.Group
	for i := range readers {
		l := layers[i%2]
		group.Go(func() error {
			got, err := readLayer(t, opened, l)
			if err == nil {
				assert.True(t, bytes.Equal(src[l.Digest], got))
			}
			return err
		})
	}
	require.NoError(t, group.Wait())
	assert.Equal(t, 1, opens)
}

// A file that goes stale and is no tarball any more, or cannot be opened, ends the
// reading.
func TestPinnedStaleAndUnreadable(t *testing.T) {
	dir, img, _, path := stocked(t)
	refused := errors.New("refused")
	opened := pinnedStale(t, path, func() error { return refused }, once(10))
	_, err := readLayer(t, opened, img.Layers()[0])
	require.ErrorIs(t, err, refused)

	opened = pinnedStale(t, path, noError, once(10))
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.WriteFile(filepath.Join(dir.Path(), "name_main.tar"), []byte("x"), 0o644))
	_, err = readLayer(t, opened, img.Layers()[0])
	require.ErrorIs(t, err, tarball.ErrNotTarball)
}

func TestGetRefuses(t *testing.T) {
	dir, _, _, path := stocked(t)
	reason := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(reason)
	_, err := dir.Get(ctx, "name_main.tar")
	require.ErrorIs(t, err, reason)
	require.ErrorIs(t, err, context.Canceled)
	_, err = dir.Get(t.Context(), "missing.tar")
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = dir.Get(t.Context(), ".x.tar")
	require.ErrorIs(t, err, ErrInvalidName)
	require.NoError(t, os.Truncate(path, 100))
	_, err = dir.Get(t.Context(), "name_main.tar")
	require.ErrorIs(t, err, tarball.ErrNotTarball)
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.Mkdir(path, 0o755))
	_, err = dir.Get(t.Context(), "name_main.tar")
	require.ErrorIs(t, err, tarball.ErrNotTarball)
	require.NoError(t, os.Remove(path))
	require.NoError(t, syscall.Mkfifo(path, 0o644))
	_, err = dir.Get(t.Context(), "name_main.tar") // which does not wait
	require.ErrorIs(t, err, tarball.ErrNotTarball)
}

// A reader that has a tarball open, and a writer that takes layers from it, are seen
// on other machines too.
func TestReadersLock(t *testing.T) {
	dir, _, _, path := stocked(t)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	stored, _, err := openTarball(path, 0)
	require.NoError(t, err)
	asked := 0
	require.NoError(t, stored.Verify(t.Context(), func(int64) {
		asked++
		assert.True(t, isLocked(f))
	}))
	assert.Positive(t, asked)
	require.NoError(t, stored.Close())
	assert.False(t, isLocked(f))
	require.NoError(t, f.Close())
	f, err = os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()

	found, end := dir.findLayers(stored.Layout.Layers())
	assert.Len(t, found, 2)
	assert.True(t, isLocked(f))
	end()
	assert.False(t, isLocked(f))
}

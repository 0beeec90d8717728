package cache

import (
	"bytes"
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
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/testtool"
)

// none is a source that must not be asked.
var none = cachetest.SourceFunc(func(context.Context, v1.Hash, int64, int64) (io.ReadCloser, error) {
	return nil, errors.New("asked for a blob")
})

func TestPut(t *testing.T) {
	src := cachetest.Blobs{}
	img := testImage(t, src.Add(cachetest.Noise(1, 5000)))
	dir, err := Open(t.TempDir(), nil)
	require.NoError(t, err)
	result, err := dir.Put(t.Context(), "name_main.tar", img, src, nil)
	require.NoError(t, err)
	path := filepath.Join(dir.Path(), "name_main.tar")
	layout, err := tarball.NewLayout(img, tarball.Provenance{})
	require.NoError(t, err)
	require.Len(t, result.Sources, 1)
	assert.EqualValues(t, 5000, result.Sources[0].Bytes)
	result.Sources = nil
	assert.Equal(t, &Result{Outcome: Stocked, Digest: img.Digest(), Path: path, Total: layout.Size(), Downloaded: 5000}, result)
	assert.Equal(t, []string{"name_main.tar"}, names(t, dir.Path()))

	assert.Equal(t, img, requireStocked(t, dir, "name_main.tar").Image)
}

// docker save writes 0600, which other users' runners cannot read.
func TestPutModeFollowsTheUmask(t *testing.T) {
	for umask, want := range map[int]os.FileMode{0o022: 0o644, 0o007: 0o660} {
		old := unix.Umask(umask)
		_, _, _, path := stocked(t)
		unix.Umask(old)
		info, err := os.Stat(path)
		require.NoError(t, err)
		assert.Equal(t, want, info.Mode())
	}
}

func TestPutUnchanged(t *testing.T) {
	dir, img, _, path := stocked(t)
	before, err := os.Stat(path)
	require.NoError(t, err)
	// Another mirror or branch gives the same image: still nothing to do.
	result, err := dir.Put(t.Context(), "name_main.tar", img, none, &PutOptions{Provenance: tarball.Provenance{Source: "other"}})
	require.NoError(t, err)
	assert.Equal(t, &Result{Outcome: Unchanged, Digest: img.Digest(), Path: path, Total: before.Size()}, result)
	after, err := os.Stat(path)
	require.NoError(t, err)
	assert.True(t, os.SameFile(before, after))
	assert.Equal(t, before.ModTime(), after.ModTime())

	// Once its use is recorded, not even the directory is written to: no lock, no
	// temporary file, however short.
	past := time.Unix(1_700_000_000, 0)
	require.NoError(t, os.Chtimes(dir.Path(), past, past))
	_, err = dir.Put(t.Context(), "name_main.tar", img, none, nil)
	require.NoError(t, err)
	_, err = dir.Stock(t.Context(), "name_main.tar", img.Reference(), remoteOf(img, none), nil)
	require.NoError(t, err)
	info, err := os.Stat(dir.Path())
	require.NoError(t, err)
	assert.Equal(t, past, info.ModTime())
}

// However long ago it was interrupted.
func TestPutResumesOldWork(t *testing.T) {
	src := cachetest.Blobs{}
	img := testImage(t, src.Add(cachetest.Noise(1, 100)), src.Add(cachetest.Noise(2, 200)))
	dir, err := Open(t.TempDir(), nil)
	require.NoError(t, err)
	second := img.Layers()[1].Digest
	_, err = dir.Put(t.Context(), "name_main.tar", img, cachetest.SourceFunc(func(ctx context.Context, d v1.Hash, off, n int64) (io.ReadCloser, error) {
		if d == second { // when the other one is there
			for {
				found, err := filepath.Glob(filepath.Join(dir.Path(), ".*"+journalKind))
				if err != nil || len(found) != 1 {
					return nil, errors.New("no journal")
				}
				if content, _ := os.ReadFile(found[0]); bytes.Contains(content, []byte(img.Layers()[0].Digest.Hex)) {
					return nil, &marked{}
				}
			}
		}
		return src.ReadRange(ctx, d, off, n)
	}), nil)
	var failure *marked
	require.ErrorAs(t, err, &failure)
	past := time.Now().Add(-24 * time.Hour)
	for _, name := range names(t, dir.Path()) {
		require.NoError(t, os.Chtimes(filepath.Join(dir.Path(), name), past, past))
	}
	result, err := dir.Put(t.Context(), "name_main.tar", img, src, nil)
	require.NoError(t, err)
	assert.EqualValues(t, 200, result.Downloaded)
	assert.EqualValues(t, 100, result.Resumed)
	assert.Equal(t, []string{"name_main.tar"}, names(t, dir.Path()))
}

// The sweep runs even when there is nothing else to do, which is the rule.
func TestPutSweepsWhenUnchanged(t *testing.T) {
	dir, img, _, _ := stocked(t)
	f, err := sys.CreateTemp(dir.Path(), "name_main.tar.0123456789ab", partialKind, 0o666)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	past := time.Now().Add(-sys.AbandonedAfter)
	require.NoError(t, os.Chtimes(f.Name(), past, past))
	result, err := dir.Put(t.Context(), "name_main.tar", img, none, nil)
	require.NoError(t, err)
	assert.Equal(t, Unchanged, result.Outcome)
	assert.Equal(t, []string{"name_main.tar"}, withoutMark(names(t, dir.Path())))
}

func TestPutReplaces(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T, path string){
		"another image": func(*testing.T, string) {},
		"a truncated tarball": func(t *testing.T, path string) {
			info, err := os.Stat(path)
			require.NoError(t, err)
			require.NoError(t, os.Truncate(path, info.Size()-512))
		},
		"garbage": func(t *testing.T, path string) { require.NoError(t, os.WriteFile(path, []byte("x"), 0o644)) },
		"a symbolic link": func(t *testing.T, path string) {
			require.NoError(t, os.Rename(path, path+".moved"))
			require.NoError(t, os.Symlink(path+".moved", path))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, img, src, path := stocked(t)
			if name == "another image" {
				img = testImage(t, src.Add(cachetest.Noise(9, 100)))
			}
			prepare(t, path)
			result, err := dir.Put(t.Context(), "name_main.tar", img, src, nil)
			require.NoError(t, err)
			assert.Equal(t, Stocked, result.Outcome)
			stored := requireStocked(t, dir, "name_main.tar")
			assert.Equal(t, img.Digest(), stored.Image.Digest())
			info, err := os.Lstat(path)
			require.NoError(t, err)
			assert.True(t, info.Mode().IsRegular())
		})
	}
}

// The same image under another name must not count as current: consumers ask
// for the reference that is inside.
func TestPutReplacesAnotherReference(t *testing.T) {
	dir, img, src, _ := stocked(t)
	other, err := tarball.NewImage("ghcr.io/pytorch/ci-image:name-2f5e", img.Manifest(), img.Config())
	require.NoError(t, err)
	_, err = dir.Put(t.Context(), "name_main.tar", other, none, nil)
	require.ErrorIs(t, err, ErrOtherImage)
	result, err := dir.Put(t.Context(), "name_main.tar", other, src, &PutOptions{Replace: true})
	require.NoError(t, err)
	assert.Equal(t, Stocked, result.Outcome)
}

func TestPutFailsAndLeavesTheOldOne(t *testing.T) {
	dir, old, src, path := stocked(t)
	layer := src.Add(cachetest.Noise(9, 100))
	src[layer.Digest][50] ^= 1
	result, err := dir.Put(t.Context(), "name_main.tar", testImage(t, layer), src, nil)
	require.ErrorIs(t, err, tarball.ErrDigest)
	assert.Empty(t, result.Outcome)
	assert.EqualValues(t, 200, result.Downloaded, "what was read counts, used or not")
	stored := infoOf(t, path)
	assert.Equal(t, old.Digest(), stored.Image.Digest())
	assert.Equal(t, []string{"name_main.tar"}, names(t, dir.Path()))
}

// A caller who gave up must not find the file changed afterwards, even when the
// last byte was there already.
func TestPutCanceledDoesNotPublish(t *testing.T) {
	src := cachetest.Blobs{}
	img := testImage(t, src.Add(cachetest.Noise(1, 100)))
	dir, err := Open(t.TempDir(), nil)
	require.NoError(t, err)
	ctx, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("interrupted")
	_, err = dir.Put(ctx, "name_main.tar", img, cachetest.SourceFunc(func(ctx context.Context, d v1.Hash, off, n int64) (io.ReadCloser, error) {
		r, err := src.ReadRange(ctx, d, off, n)
		return &closing{r, func() { cancel(reason) }}, err
	}), nil)
	require.ErrorIs(t, err, reason)
	require.ErrorIs(t, err, context.Canceled)
	assert.NoFileExists(t, filepath.Join(dir.Path(), "name_main.tar"))

	// What was read is not read again.
	result, err := dir.Put(t.Context(), "name_main.tar", img, none, nil)
	require.NoError(t, err)
	assert.Equal(t, Stocked, result.Outcome)
	assert.Zero(t, result.Downloaded)
	assert.Equal(t, []string{"name_main.tar"}, names(t, dir.Path()))
}

func TestPutRefusesNames(t *testing.T) {
	dir, img, _, _ := stocked(t)
	for _, name := range []string{"", ".tar", ".x.tar", "..", "../x.tar", "a/b.tar", `a\b.tar`, "x", "x.tar.tmp", "x\x00.tar", strings.Repeat("n", 197) + ".tar"} {
		_, err := dir.Put(t.Context(), name, img, none, nil)
		require.ErrorIs(t, err, ErrInvalidName, name)
		_, err = dir.Get(t.Context(), name)
		require.ErrorIs(t, err, ErrInvalidName, name)
	}
	assert.Equal(t, []string{"name_main.tar"}, names(t, dir.Path()))
}

func TestLongestTarballName(t *testing.T) {
	src := cachetest.Blobs{}
	dir, err := Open(t.TempDir(), nil)
	require.NoError(t, err)
	name := strings.Repeat("n", maxName-4) + ".tar"
	_, err = dir.Put(t.Context(), name, testImage(t, src.Add(cachetest.Noise(1, 10))), src, nil)
	require.NoError(t, err)
	assert.Equal(t, []string{name}, names(t, dir.Path()))
}

func TestPutOverADirectory(t *testing.T) {
	dir, img, _, path := stocked(t)
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.Mkdir(path, 0o755))
	_, err := dir.Put(t.Context(), "name_main.tar", img, none, nil)
	require.ErrorContains(t, err, "is a directory")
}

func TestOpenRefuses(t *testing.T) {
	_, err := Open(filepath.Join(t.TempDir(), "missing"), nil)
	require.ErrorIs(t, err, os.ErrNotExist)
	assert.ErrorContains(t, err, "create it, or mount")
	_, err = Open(tempFile(t).Name(), nil)
	require.ErrorContains(t, err, "is not a directory")
}

func TestPutWithoutWritePermission(t *testing.T) {
	path := mountTmpfs(t, "size=4m")
	require.NoError(t, unix.Mount("", path, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	dir, err := Open(path, nil)
	require.NoError(t, err)
	src := cachetest.Blobs{}
	_, err = dir.Put(t.Context(), "name_main.tar", testImage(t, src.Add(cachetest.Noise(1, 10))), none, nil)
	require.ErrorIs(t, err, syscall.EROFS)
	assert.ErrorContains(t, err, path)
}

func TestPutOnAFullDisk(t *testing.T) {
	dir, err := Open(mountTmpfs(t, "size=1m"), nil)
	require.NoError(t, err)
	src := cachetest.Blobs{}
	small := testImage(t, src.Add(cachetest.Noise(1, 100<<10)))
	_, err = dir.Put(t.Context(), "name_main.tar", small, src, nil)
	require.NoError(t, err)

	large := testImage(t, src.Add(cachetest.Noise(2, 2<<20)))
	result, err := dir.Put(t.Context(), "name_main.tar", large, none, nil)
	require.ErrorIs(t, err, syscall.ENOSPC, "known before a byte is asked for")
	var space *SpaceError
	require.ErrorAs(t, err, &space)
	assert.EqualValues(t, 2<<20, space.Need)
	assert.ErrorContains(t, err, "2097152 bytes more are needed")
	assert.Positive(t, result.Total)
	assert.Equal(t, []string{"name_main.tar"}, names(t, dir.Path()))
	stored := requireStocked(t, dir, "name_main.tar")
	assert.Equal(t, small.Digest(), stored.Image.Digest())
}

func mountTmpfs(t *testing.T, options string) string {
	t.Helper()
	testtool.NeedMounts(t)
	path := t.TempDir()
	require.NoError(t, unix.Mount("tmpfs", path, "tmpfs", 0, options))
	t.Cleanup(func() { assert.NoError(t, unix.Unmount(path, unix.MNT_DETACH)) })
	return path
}

// Sixteen writers of two images under one name, and readers all the while: what
// is there is always whole, and one of the two.
func TestPutConcurrently(t *testing.T) {
	dir, first, src, path := stocked(t)
	second := testImage(t, src.Add(cachetest.Noise(7, 20_000)))
	var writers errgroup.Group
	for i := range 16 {
		writers.Go(func() error {
			_, err := dir.Put(t.Context(), "name_main.tar", []*tarball.Image{first, second}[i%2], src, nil)
			return err
		})
	}
	done := make(chan error)
	go func() { done <- writers.Wait() }()
	for running := true; running; {
		select {
		case err := <-done:
			require.NoError(t, err)
			running = false
		default:
		}
		// One open file, so that a rename in between does not mix two.
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		read, err := tarball.Read(bytes.NewReader(content), int64(len(content)), path)
		require.NoError(t, err)
		for _, s := range read.Layout.Segments() {
			if s.IsBlob() {
				require.Equal(t, s.Blob, cachetest.Digest(content[s.Offset:s.Offset+s.Length]))
			}
		}
	}
	assert.Equal(t, []string{"name_main.tar"}, withoutMark(names(t, dir.Path())))
}

// The beginning and the size of a tarball do not show that a layer is damaged, or
// what is between the layers; hashing does.
func TestPutVerify(t *testing.T) {
	dir, img, src, path := stocked(t)
	verify := &PutOptions{Provenance: tarball.Provenance{Source: "mirror/x:t", Branch: "main"}, Verify: true}
	result, err := dir.Put(t.Context(), "name_main.tar", img, none, verify)
	require.NoError(t, err)
	assert.Equal(t, Unchanged, result.Outcome)

	before := content(t, path)
	for name, c := range map[string]struct {
		harm       func()
		downloaded int64
	}{
		"a layer":   {func() { damage(t, path, 1) }, 300},
		"the end":   {func() { require.NoError(t, os.WriteFile(path, []byte(before[:len(before)-1]+"x"), 0o644)) }, 0},
		"no layer":  {func() { damage(t, path, 0, 1) }, 5300},
		"its size":  {func() { require.NoError(t, os.Truncate(path, int64(len(before)-512))) }, 5300},
		"it is all": {func() {}, -1},
	} {
		c.harm()
		result, err := dir.Put(t.Context(), "name_main.tar", img, src, verify)
		require.NoError(t, err, name)
		if c.downloaded < 0 {
			assert.Equal(t, Unchanged, result.Outcome, name)
			continue
		}
		assert.Equal(t, Stocked, result.Outcome, name)
		assert.Equal(t, c.downloaded, result.Downloaded, name)
		assert.True(t, before == content(t, path), name)
	}
	assert.False(t, verify.Rewrite, "the caller's options are as they were")

	reason := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(reason)
	_, err = dir.Put(ctx, "name_main.tar", img, none, verify)
	require.ErrorIs(t, err, reason)
	require.ErrorIs(t, err, context.Canceled)
}

package cache

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
)

// It writes what Put writes, wherever it is asked to.
func TestWriteTarball(t *testing.T) {
	dir, img, src, stockedAt := stocked(t)
	want := content(t, stockedAt)
	p := tarball.Provenance{Source: "mirror/x:t", Branch: "main"}
	t.Chdir(t.TempDir())
	for _, path := range []string{
		filepath.Join(t.TempDir(), "image.oci"),
		filepath.Join(t.TempDir(), ".hidden"),
		filepath.Join(t.TempDir(), strings.Repeat("n", 255)),
		filepath.Join(dir.Path(), "no tarball's name"),
		"relative",
	} {
		for range 2 { // a new file, and in place of one
			require.NoError(t, WriteTarball(t.Context(), path, img, src, &WriteOptions{Provenance: p}), path)
			assert.True(t, want == content(t, path), path)
		}
		info := requireWhole(t, path)
		assert.Equal(t, img, info.Image)
		assert.Equal(t, p, info.Provenance)
	}
	assert.Equal(t, []string{"relative"}, names(t, "."))
	assert.Equal(t, []string{"name_main.tar", "no tarball's name"}, names(t, dir.Path()))
}

func TestWriteTarballOptions(t *testing.T) {
	old := unix.Umask(0o022)
	defer unix.Umask(old)
	src := cachetest.Blobs{}
	img := testImage(t, src.Add(cachetest.Noise(1, 5000)), src.Add(cachetest.Noise(2, 300)))
	path := filepath.Join(t.TempDir(), "image")
	for _, c := range []struct {
		o    *WriteOptions
		mode fs.FileMode
	}{{nil, 0o644}, {&WriteOptions{}, 0o644}, {&WriteOptions{Mode: 0o640}, 0o640}, {&WriteOptions{Mode: 0o666}, 0o644}} {
		require.NoError(t, WriteTarball(t.Context(), path, img, src, c.o))
		info, err := os.Stat(path)
		require.NoError(t, err)
		assert.Equal(t, c.mode, info.Mode())
		assert.Equal(t, tarball.Provenance{}, requireWhole(t, path).Provenance)
	}

	var first, last *tarball.Progress
	most, now := 0, 0
	one := cachetest.SourceFunc(func(ctx context.Context, d v1.Hash, off, n int64) (io.ReadCloser, error) {
		now++
		most = max(most, now)
		r, err := src.ReadRange(ctx, d, off, n)
		return &closing{r, func() { now-- }}, err
	})
	require.NoError(t, WriteTarball(t.Context(), path, img, one, &WriteOptions{Connections: 1, Progress: func(p tarball.Progress) {
		if last = &p; first == nil {
			first = &p
		}
	}}))
	assert.Equal(t, 1, most)
	assert.Equal(t, &tarball.Progress{Total: 5300}, first)
	assert.Equal(t, &tarball.Progress{Done: 5300, Total: 5300, Downloaded: 5300}, last)
}

// Until all of the new tarball is verified the path is what it was before, and whatever
// fails leaves that, and nothing else.
func TestWriteTarballFails(t *testing.T) {
	src := cachetest.Blobs{}
	img := testImage(t, src.Add(cachetest.Noise(1, 5000)), src.Add(cachetest.Noise(2, 300)))
	first := img.Layers()[0].Digest
	gone, reason := errors.New("gone"), errors.New("enough")
	for name, c := range map[string]struct {
		source func(cancel func()) tarball.Source
		want   []error
	}{
		"the source fails": {func(func()) tarball.Source {
			return cachetest.SourceFunc(func(ctx context.Context, d v1.Hash, off, n int64) (io.ReadCloser, error) {
				if d == first {
					return nil, tarball.Permanent(gone)
				}
				return src.ReadRange(ctx, d, off, n)
			})
		}, []error{gone}},
		"wrong bytes": {func(func()) tarball.Source {
			wrong := cachetest.Blobs{}
			for d, blob := range src {
				wrong[d] = append([]byte{blob[0] ^ 1}, blob[1:]...)
			}
			return wrong
		}, []error{tarball.ErrDigest}},
		"it is canceled": {func(cancel func()) tarball.Source {
			return cachetest.SourceFunc(func(ctx context.Context, d v1.Hash, off, n int64) (io.ReadCloser, error) {
				cancel()
				return src.ReadRange(ctx, d, off, n)
			})
		}, []error{reason, context.Canceled}},
		"it is canceled at the last byte": {func(cancel func()) tarball.Source {
			return cachetest.SourceFunc(func(ctx context.Context, d v1.Hash, off, n int64) (io.ReadCloser, error) {
				r, err := src.ReadRange(ctx, d, off, n)
				return &closing{r, cancel}, err
			})
		}, []error{reason, context.Canceled}},
	} {
		for _, before := range []string{"", "precious"} {
			t.Run(name+", before: "+before, func(t *testing.T) {
				dir := t.TempDir()
				path := filepath.Join(dir, "image")
				if before != "" {
					require.NoError(t, os.WriteFile(path, []byte(before), 0o600))
				}
				ctx, cancel := context.WithCancelCause(t.Context())
				err := WriteTarball(ctx, path, img, c.source(func() { cancel(reason) }), nil)
				for _, want := range c.want {
					require.ErrorIs(t, err, want)
				}
				assert.ErrorContains(t, err, path)
				if before == "" {
					assert.Empty(t, names(t, dir))
					return
				}
				assert.Equal(t, []string{"image"}, names(t, dir))
				assert.Equal(t, before, content(t, path))
			})
		}
	}
}

// It is never written in place: who has the old file open keeps it, and the name is the
// old file's until the new one is whole.
func TestWriteTarballIsAtomic(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "image")
	require.NoError(t, os.WriteFile(path, []byte("precious"), 0o644))
	reader, err := os.Open(path)
	require.NoError(t, err)
	defer reader.Close()
	src := cachetest.Blobs{}
	img := testImage(t, src.Add(cachetest.Noise(1, 5000)))
	require.NoError(t, WriteTarball(t.Context(), path, img, cachetest.SourceFunc(func(ctx context.Context, d v1.Hash, off, n int64) (io.ReadCloser, error) {
		assert.Equal(t, "precious", content(t, path))
		assert.Len(t, names(t, dir), 2)
		return src.ReadRange(ctx, d, off, n)
	}), nil))
	requireWhole(t, path)
	old, err := io.ReadAll(reader)
	require.NoError(t, err)
	assert.Equal(t, "precious", string(old))
}

func TestWriteTarballRefuses(t *testing.T) {
	src := cachetest.Blobs{}
	img := testImage(t, src.Add(cachetest.Noise(1, 10)))
	dir := t.TempDir()
	path := filepath.Join(dir, "image")
	require.ErrorContains(t, WriteTarball(t.Context(), path, nil, src, nil), "required")
	require.ErrorContains(t, WriteTarball(t.Context(), path, img, nil, nil), "required")
	require.Error(t, WriteTarball(t.Context(), "", img, src, nil))
	require.Error(t, WriteTarball(t.Context(), dir, img, src, nil), "a directory")
	require.ErrorIs(t, WriteTarball(t.Context(), filepath.Join(dir, "missing", "image"), img, src, nil), fs.ErrNotExist)
	assert.Empty(t, names(t, dir))

	reason := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(reason)
	for _, img := range []*tarball.Image{img, testImage(t)} { // also where there is nothing to fetch
		err := WriteTarball(ctx, path, img, none, nil)
		require.ErrorIs(t, err, reason)
		require.ErrorIs(t, err, context.Canceled)
		assert.Empty(t, names(t, dir))
	}
}

func TestWriteTarballOnAFullDisk(t *testing.T) {
	dir := mountTmpfs(t, "size=1m")
	path := filepath.Join(dir, "image")
	src := cachetest.Blobs{}
	require.NoError(t, WriteTarball(t.Context(), path, testImage(t, src.Add(cachetest.Noise(1, 100<<10))), src, nil))
	before := content(t, path)
	err := WriteTarball(t.Context(), path, testImage(t, src.Add(cachetest.Noise(2, 2<<20))), none, nil)
	require.ErrorIs(t, err, unix.ENOSPC, "known before a byte is asked for")
	var space *SpaceError
	require.ErrorAs(t, err, &space)
	assert.Equal(t, dir, space.Dir)
	assert.Greater(t, space.Need, int64(2<<20))
	assert.Less(t, space.Have, int64(1<<20))
	assert.True(t, before == content(t, path))
	assert.Equal(t, []string{"image"}, names(t, dir))
}

// Killed at any step: the path is the old or the whole new tarball, and what is left
// beside it is removed by a later write, when it is old.
func TestWriteTarballKilledAtEachStep(t *testing.T) {
	src, images := killImages(t)
	for _, c := range []struct {
		step string
		done bool
	}{
		{"create", false}, {"write", false}, {"read", false}, {"sync", false}, {"close", false}, {"rename", false},
		{"sync directory", true}, {"done", true},
	} {
		for _, old := range []bool{false, true} {
			dir := t.TempDir()
			path := filepath.Join(dir, "image")
			if old {
				require.NoError(t, WriteTarball(t.Context(), path, images[1], src, nil))
			}
			cmd, lines := startChild(t, killFileVar+"="+path, killStepVar+"="+c.step)
			for lines.Scan() {
				require.NotContains(t, lines.Text(), "error")
			}
			requireKilled(t, cmd)
			switch {
			case c.done:
				assert.Equal(t, images[0].Digest(), requireWhole(t, path).Image.Digest(), c.step)
			case old:
				assert.Equal(t, images[1].Digest(), requireWhole(t, path).Image.Digest(), c.step)
			default:
				assert.NoFileExists(t, path)
			}
			past := time.Now().Add(-sys.AbandonedAfter)
			for _, left := range sys.Temporaries(dir, "image", "tmp") {
				require.NoError(t, os.Chtimes(left, past, past))
			}
			require.NoError(t, WriteTarball(t.Context(), path, images[0], src, nil))
			assert.Equal(t, images[0].Digest(), requireWhole(t, path).Image.Digest())
			assert.Equal(t, []string{"image"}, names(t, dir), c.step)
		}
	}
}

package cache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/cache/tarball"
)

// counting counts the bytes of each layer that are asked of a source.
type counting struct {
	cachetest.Blobs
	mu    sync.Mutex
	asked map[v1.Hash]int64
}

func (c *counting) ReadRange(ctx context.Context, d v1.Hash, offset, length int64) (io.ReadCloser, error) {
	c.mu.Lock()
	if c.asked == nil {
		c.asked = map[v1.Hash]int64{}
	}
	c.asked[d] += length
	c.mu.Unlock()
	return c.Blobs.ReadRange(ctx, d, offset, length)
}

// Layers that any tarball in the directory has are taken from there: the version
// before, the other branch, a sibling image.
func TestPutReusesLayers(t *testing.T) {
	src := &counting{Blobs: cachetest.Blobs{}}
	base, shared := src.Add(cachetest.Noise(1, 300_000)), src.Add(cachetest.Noise(2, 10_001))
	dir, err := Open(t.TempDir(), nil)
	require.NoError(t, err)
	put := func(name string, img *tarball.Image) *Result {
		result, err := dir.Put(t.Context(), name, img, src, nil)
		require.NoError(t, err)
		requireStocked(t, dir, name)
		return result
	}
	first := put("a_main.tar", testImage(t, base, shared, src.Add(cachetest.Noise(3, 5_000))))
	assert.Zero(t, first.Reused)
	for name, layer := range map[string]v1.Descriptor{"a_main.tar": src.Add(cachetest.Noise(4, 6_000)), "a_release.tar": src.Add(cachetest.Noise(5, 7_000)), "b_main.tar": src.Add(cachetest.Noise(6, 8_000))} {
		result := put(name, testImage(t, base, shared, layer))
		assert.Equal(t, layer.Size, result.Downloaded, name)
		assert.Equal(t, base.Size+shared.Size, result.Reused, name)
		assert.Equal(t, result.Reused, result.Cloned+result.Copied, name)
		assert.Empty(t, result.Damaged)
	}
	assert.Equal(t, base.Size, src.asked[base.Digest])
	assert.Equal(t, shared.Size, src.asked[shared.Digest])
}

// A layer that is not what its tarball says is noticed, fetched, and reported.
func TestPutNoticesDamagedLayers(t *testing.T) {
	src := &counting{Blobs: cachetest.Blobs{}}
	base := src.Add(cachetest.Noise(1, 300_000))
	dir, err := Open(t.TempDir(), nil)
	require.NoError(t, err)
	_, err = dir.Put(t.Context(), "a_main.tar", testImage(t, base), src, nil)
	require.NoError(t, err)
	path := filepath.Join(dir.Path(), "a_main.tar")
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	content[len(content)-2000] ^= 1
	require.NoError(t, os.WriteFile(path, content, 0o644))

	result, err := dir.Put(t.Context(), "b_main.tar", testImage(t, base, src.Add(cachetest.Noise(2, 100))), src, nil)
	require.NoError(t, err)
	assert.Equal(t, []string{path}, result.Damaged)
	assert.Zero(t, result.Reused)
	assert.Equal(t, base.Size+100, result.Downloaded)
	requireStocked(t, dir, "b_main.tar")
}

// What is in the directory but is no tarball of ours has no layers: a link to
// one, a file that lies, a directory, a named pipe.
func TestPutReusesNothingElse(t *testing.T) {
	src := &counting{Blobs: cachetest.Blobs{}}
	base := src.Add(cachetest.Noise(1, 100_000))
	elsewhere, err := Open(t.TempDir(), nil)
	require.NoError(t, err)
	_, err = elsewhere.Put(t.Context(), "a_main.tar", testImage(t, base), src, nil)
	require.NoError(t, err)
	dir, err := Open(t.TempDir(), nil)
	require.NoError(t, err)
	require.NoError(t, os.Symlink(filepath.Join(elsewhere.Path(), "a_main.tar"), filepath.Join(dir.Path(), "link_main.tar")))
	require.NoError(t, os.Mkdir(filepath.Join(dir.Path(), "dir_main.tar"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir.Path(), "short_main.tar"), cachetest.Noise(2, 100), 0o644))
	require.NoError(t, unix.Mkfifo(filepath.Join(dir.Path(), "pipe_main.tar"), 0o644))
	lying, err := os.ReadFile(filepath.Join(elsewhere.Path(), "a_main.tar"))
	require.NoError(t, err)
	other := testImage(t, base, src.Add(cachetest.Noise(3, 10)))
	lying = bytes.Replace(lying, []byte(testImage(t, base).Digest().Hex), []byte(other.Digest().Hex), 1)
	require.NoError(t, os.WriteFile(filepath.Join(dir.Path(), "lying_main.tar"), lying, 0o644))
	result, err := dir.Put(t.Context(), "b_main.tar", testImage(t, base), src, nil)
	require.NoError(t, err)
	assert.Zero(t, result.Reused)
	result, err = dir.Put(t.Context(), "lying_main.tar", other, src, nil)
	require.NoError(t, err)
	assert.Equal(t, Stocked, result.Outcome, "what its index says is not what it holds")
	requireStocked(t, dir, "lying_main.tar")
}

// Of images that are stocked at the same time each layer comes once, whichever of
// them begins.
func TestPutSharesLayersInFlight(t *testing.T) {
	src := &counting{Blobs: cachetest.Blobs{}}
	base := src.Add(cachetest.Noise(1, 3_000_000))
	other := src.Add(cachetest.Noise(2, 2_000_000))
	dir, err := Open(t.TempDir(), nil)
	require.NoError(t, err)
	var group errgroup.Group
	var reused atomic.Int64
	const images = 8
	var all []*tarball.Image
	for i := range images {
		layers := []v1.Descriptor{base, other, src.Add(cachetest.Noise(10+byte(i), 1000+i))}
		if i%2 == 1 {
			layers[0], layers[1] = layers[1], layers[0]
		}
		all = append(all, testImage(t, layers...))
	}
	for i, img := range all {
		group.Go(func() error {
			result, err := dir.Put(t.Context(), string(rune('a'+i))+"_main.tar", img, src, nil)
			reused.Add(result.Reused)
			return err
		})
	}
	require.NoError(t, group.Wait())
	assert.Equal(t, base.Size, src.asked[base.Digest])
	assert.Equal(t, other.Size, src.asked[other.Digest])
	assert.Equal(t, (images-1)*(base.Size+other.Size), reused.Load())
	for i := range images {
		requireStocked(t, dir, string(rune('a'+i))+"_main.tar")
	}
	assert.Empty(t, dir.inflight.layers)
}

// When the one that fetches a layer fails, one of those that wait fetches it.
func TestPutAfterAFailedTransfer(t *testing.T) {
	src := cachetest.Blobs{}
	base := src.Add(cachetest.Noise(1, 1_000_000))
	dir, err := Open(t.TempDir(), nil)
	require.NoError(t, err)
	second := testImage(t, base, src.Add(cachetest.Noise(2, 10)))
	asked, goOn := make(chan struct{}), make(chan struct{})
	broken := errors.New("broken")
	failing := cachetest.SourceFunc(func(context.Context, v1.Hash, int64, int64) (io.ReadCloser, error) {
		close(asked)
		<-goOn
		return nil, permanent{broken}
	})
	var group errgroup.Group
	group.Go(func() error {
		_, err := dir.Put(t.Context(), "a_main.tar", testImage(t, base), failing, nil)
		if !errors.Is(err, broken) {
			return errors.Join(errors.New("it should have failed"), err)
		}
		return nil
	})
	<-asked
	group.Go(func() error {
		_, err := dir.Put(t.Context(), "b_main.tar", second, src, nil)
		return err
	})
	close(goOn)
	require.NoError(t, group.Wait())
	requireStocked(t, dir, "b_main.tar")
}

type permanent struct{ error }

func (permanent) Temporary() bool { return false }
func (p permanent) Unwrap() error { return p.error }

// Progress counts all layers at every moment, also those that others bring.
func TestPutProgressOfSharedLayers(t *testing.T) {
	src := cachetest.Blobs{}
	base := src.Add(cachetest.Noise(1, 500_000))
	dir, err := Open(t.TempDir(), nil)
	require.NoError(t, err)
	for _, name := range []string{"a_main.tar", "b_main.tar"} {
		own := src.Add(cachetest.Noise(byte(name[0]), 1000))
		var mu sync.Mutex
		var last tarball.Progress
		_, err = dir.Put(t.Context(), name, testImage(t, base, own), src, &PutOptions{Progress: func(p tarball.Progress) {
			mu.Lock()
			defer mu.Unlock()
			last = tarball.Progress{Done: max(p.Done, last.Done), Total: p.Total}
		}})
		require.NoError(t, err)
		assert.Equal(t, tarball.Progress{Done: base.Size + own.Size, Total: base.Size + own.Size}, last)
	}
}

// What an earlier attempt has left of a layer is not copied again, and when the whole
// is wrong then, the tarball is not blamed for it.
func TestPutCopiesWhatIsMissing(t *testing.T) {
	src := cachetest.Blobs{}
	layer := src.Add(cachetest.Noise(1, 1_000_000))
	img := testImage(t, layer)
	for name, leftRight := range map[string]bool{"left right": true, "left wrong": false} {
		t.Run(name, func(t *testing.T) {
			dir, err := Open(t.TempDir(), nil)
			require.NoError(t, err)
			_, err = dir.Put(t.Context(), "a_main.tar", img, src, nil)
			require.NoError(t, err)

			layout := mustLayout(t, img)
			p, err := openPartial(dir.path, "b_main.tar", img.Digest(), layout)
			require.NoError(t, err)
			at, _ := layout.Layer(layer.Digest)
			left := src[layer.Digest][:400_000]
			if !leftRight {
				left = cachetest.Noise(3, len(left))
			}
			_, err = p.file.WriteAt(left, at.Offset)
			require.NoError(t, err)
			p.journal.Add(layer.Digest, 0, int64(len(left)))
			p.close()

			result, err := dir.Put(t.Context(), "b_main.tar", img, src, nil)
			require.NoError(t, err)
			requireStocked(t, dir, "b_main.tar")
			assert.Empty(t, result.Damaged)
			switch {
			case result.Cloned > 0: // the file system can, so all of it was
				assert.Equal(t, layer.Size, result.Reused)
				assert.Zero(t, result.Resumed)
			case leftRight:
				assert.EqualValues(t, 400_000, result.Resumed)
				assert.Equal(t, layer.Size-400_000, result.Copied)
				assert.Zero(t, result.Downloaded)
			default:
				assert.Zero(t, result.Reused)
				assert.Zero(t, result.Resumed)
				assert.Equal(t, layer.Size, result.Downloaded)
			}
		})
	}
}

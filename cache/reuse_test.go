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
)

// counting counts the bytes of each layer that are asked of a source.
type counting struct {
	blobs
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
	return c.blobs.ReadRange(ctx, d, offset, length)
}

// Layers that any tarball in the directory has are taken from there: the version
// before, the other branch, a sibling image.
func TestPutReusesLayers(t *testing.T) {
	src := &counting{blobs: blobs{}}
	base, shared := src.add(noise(1, 300_000)), src.add(noise(2, 10_001))
	dir, err := OpenDir(t.TempDir(), nil)
	require.NoError(t, err)
	put := func(name string, img *Image) *Result {
		result, err := dir.Put(t.Context(), name, img, src, nil)
		require.NoError(t, err)
		tarball, err := dir.Lookup(name)
		require.NoError(t, err)
		require.NoError(t, tarball.Verify(t.Context()))
		return result
	}
	first := put("a_main.tar", testImage(t, base, shared, src.add(noise(3, 5_000))))
	assert.Zero(t, first.Reused)
	for name, layer := range map[string]v1.Descriptor{"a_main.tar": src.add(noise(4, 6_000)), "a_release.tar": src.add(noise(5, 7_000)), "b_main.tar": src.add(noise(6, 8_000))} {
		result := put(name, testImage(t, base, shared, layer))
		assert.Equal(t, layer.Size, result.Downloaded, name)
		assert.Equal(t, base.Size+shared.Size, result.Reused, name)
		assert.Equal(t, result.Reused, result.Cloned+result.Copied, name)
		assert.Empty(t, result.Damaged)
	}
	assert.Equal(t, base.Size, src.asked[base.Digest])
	assert.Equal(t, shared.Size, src.asked[shared.Digest])
}

// A layer that is not what its tarball says is noticed, fetched, and said.
func TestPutNoticesDamagedLayers(t *testing.T) {
	src := &counting{blobs: blobs{}}
	base := src.add(noise(1, 300_000))
	dir, err := OpenDir(t.TempDir(), nil)
	require.NoError(t, err)
	_, err = dir.Put(t.Context(), "a_main.tar", testImage(t, base), src, nil)
	require.NoError(t, err)
	path := filepath.Join(dir.Path(), "a_main.tar")
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	content[len(content)-2000] ^= 1
	require.NoError(t, os.WriteFile(path, content, 0o644))

	result, err := dir.Put(t.Context(), "b_main.tar", testImage(t, base, src.add(noise(2, 100))), src, nil)
	require.NoError(t, err)
	assert.Equal(t, []string{path}, result.Damaged)
	assert.Zero(t, result.Reused)
	assert.Equal(t, base.Size+100, result.Downloaded)
	tarball, err := dir.Lookup("b_main.tar")
	require.NoError(t, err)
	require.NoError(t, tarball.Verify(t.Context()))
}

// What is in the directory but is no tarball of ours has no layers: a link to
// one, a file that lies, a directory, a named pipe.
func TestPutReusesNothingElse(t *testing.T) {
	src := &counting{blobs: blobs{}}
	base := src.add(noise(1, 100_000))
	elsewhere, err := OpenDir(t.TempDir(), nil)
	require.NoError(t, err)
	_, err = elsewhere.Put(t.Context(), "a_main.tar", testImage(t, base), src, nil)
	require.NoError(t, err)
	dir, err := OpenDir(t.TempDir(), nil)
	require.NoError(t, err)
	require.NoError(t, os.Symlink(filepath.Join(elsewhere.Path(), "a_main.tar"), filepath.Join(dir.Path(), "link_main.tar")))
	require.NoError(t, os.Mkdir(filepath.Join(dir.Path(), "dir_main.tar"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir.Path(), "short_main.tar"), noise(2, 100), 0o644))
	require.NoError(t, unix.Mkfifo(filepath.Join(dir.Path(), "pipe_main.tar"), 0o644))
	lying, err := os.ReadFile(filepath.Join(elsewhere.Path(), "a_main.tar"))
	require.NoError(t, err)
	other := testImage(t, base, src.add(noise(3, 10)))
	lying = bytes.Replace(lying, []byte(testImage(t, base).Digest().Hex), []byte(other.Digest().Hex), 1)
	require.NoError(t, os.WriteFile(filepath.Join(dir.Path(), "lying_main.tar"), lying, 0o644))
	result, err := dir.Put(t.Context(), "b_main.tar", testImage(t, base), src, nil)
	require.NoError(t, err)
	assert.Zero(t, result.Reused)
	result, err = dir.Put(t.Context(), "lying_main.tar", other, src, nil)
	require.NoError(t, err)
	assert.Equal(t, Stocked, result.Outcome, "what its index says is not what it holds")
	tarball, err := dir.Lookup("lying_main.tar")
	require.NoError(t, err)
	require.NoError(t, tarball.Verify(t.Context()))
}

// Of images that are stocked at the same time each layer comes once, whichever of
// them begins.
func TestPutSharesLayersOnTheirWay(t *testing.T) {
	src := &counting{blobs: blobs{}}
	base := src.add(noise(1, 3_000_000))
	other := src.add(noise(2, 2_000_000))
	dir, err := OpenDir(t.TempDir(), nil)
	require.NoError(t, err)
	var group errgroup.Group
	var reused atomic.Int64
	const images = 8
	var all []*Image
	for i := range images {
		layers := []v1.Descriptor{base, other, src.add(noise(10+byte(i), 1000+i))}
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
		tarball, err := dir.Lookup(string(rune('a'+i)) + "_main.tar")
		require.NoError(t, err)
		require.NoError(t, tarball.Verify(t.Context()))
	}
	assert.Empty(t, dir.flights.going)
}

// When the one that fetches a layer fails, one of those that wait fetches it.
func TestPutTakesOverAFailedFlight(t *testing.T) {
	src := blobs{}
	base := src.add(noise(1, 1_000_000))
	dir, err := OpenDir(t.TempDir(), nil)
	require.NoError(t, err)
	second := testImage(t, base, src.add(noise(2, 10)))
	asked, goOn := make(chan struct{}), make(chan struct{})
	broken := errors.New("broken")
	failing := sourceFunc(func(context.Context, v1.Hash, int64, int64) (io.ReadCloser, error) {
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
	tarball, err := dir.Lookup("b_main.tar")
	require.NoError(t, err)
	require.NoError(t, tarball.Verify(t.Context()))
}

type permanent struct{ error }

func (permanent) Temporary() bool { return false }
func (p permanent) Unwrap() error { return p.error }

// Progress counts all layers at every moment, also those that others bring.
func TestPutProgressOfSharedLayers(t *testing.T) {
	src := blobs{}
	base := src.add(noise(1, 500_000))
	dir, err := OpenDir(t.TempDir(), nil)
	require.NoError(t, err)
	for _, name := range []string{"a_main.tar", "b_main.tar"} {
		own := src.add(noise(byte(name[0]), 1000))
		var mu sync.Mutex
		var last Progress
		_, err = dir.Put(t.Context(), name, testImage(t, base, own), src, &PutOptions{Progress: func(p Progress) {
			mu.Lock()
			defer mu.Unlock()
			last = Progress{Done: max(p.Done, last.Done), Total: p.Total}
		}})
		require.NoError(t, err)
		assert.Equal(t, Progress{base.Size + own.Size, base.Size + own.Size}, last)
	}
}

func TestReadAndWrite(t *testing.T) {
	dir := t.TempDir()
	content := noise(1, 3*readBuffer+5)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "src"), content, 0o644))
	src, err := os.Open(filepath.Join(dir, "src"))
	require.NoError(t, err)
	defer src.Close()
	dst, err := os.Create(filepath.Join(dir, "dst"))
	require.NoError(t, err)
	defer dst.Close()
	for name, copy := range map[string]func(context.Context, *os.File, int64, *os.File, int64, int64) error{"by memory": readAndWrite, "by the kernel": copyRange} {
		require.NoError(t, dst.Truncate(0))
		n := int64(len(content)) - 100
		require.NoError(t, copy(t.Context(), dst, 4096, src, 100, n), name)
		got, err := os.ReadFile(dst.Name())
		require.NoError(t, err)
		assert.True(t, bytes.Equal(content[100:], got[4096:]), name)
		require.ErrorIs(t, copy(t.Context(), dst, 0, src, int64(len(content))-10, 20), io.ErrUnexpectedEOF, name)
		reason := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(reason)
		require.Equal(t, reason, copy(ctx, dst, 0, src, 0, 20), name)
	}
}

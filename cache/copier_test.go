package cache

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// localFile is a place from which a layer of these bytes can be copied.
func localFile(t *testing.T, content []byte) localLayer {
	t.Helper()
	path := filepath.Join(t.TempDir(), "local")
	require.NoError(t, os.WriteFile(path, append(make([]byte, 100), content...), 0o644))
	f, err := os.Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return localLayer{f, 100}
}

// copying are the options of a fill that has local layers, and what it tells.
type copying struct {
	mu         sync.Mutex
	copied     map[v1.Hash]int64
	unreadable []localLayer
	damaged    []v1.Hash
}

func (c *copying) options(local map[v1.Hash][]localLayer) *FillOptions {
	c.copied = map[v1.Hash]int64{}
	return &FillOptions{
		local: local, allCopied: func() {},
		copied: func(layer v1.Hash, _ localLayer, n int64) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.copied[layer] += n
		},
		unreadable: func(_ v1.Hash, from localLayer, _ error) { c.unreadable = append(c.unreadable, from) },
		damaged:    func(layer v1.Hash) { c.damaged = append(c.damaged, layer) },
	}
}

// Layers are fetched while others are copied: each waits for the other here.
func TestFillCopiesWhileItFetches(t *testing.T) {
	src := blobs{}
	local, remote := src.add(noise(1, 100_000)), src.add(noise(2, 5000))
	layout := mustLayout(t, testImage(t, local, remote))
	fetching, copyingBegan := make(chan struct{}), make(chan struct{})
	var once, begin sync.Once
	c := &copying{}
	o := c.options(map[v1.Hash][]localLayer{local.Digest: {localFile(t, src[local.Digest])}})
	note := o.copied
	o.copied = func(layer v1.Hash, from localLayer, n int64) {
		begin.Do(func() { close(copyingBegan) })
		<-fetching
		note(layer, from, n)
	}
	f := tempFile(t)
	downloaded, err := testEngine(4).Fill(t.Context(), f, layout, sourceFunc(func(ctx context.Context, d v1.Hash, offset, length int64) (io.ReadCloser, error) {
		assert.Equal(t, remote.Digest, d, "a layer that can be copied is not fetched")
		<-copyingBegan
		once.Do(func() { close(fetching) })
		return src.ReadRange(ctx, d, offset, length)
	}), o)
	require.NoError(t, err)
	assert.Equal(t, remote.Size, downloaded)
	assert.Equal(t, map[v1.Hash]int64{local.Digest: local.Size}, c.copied)
	requireFilled(t, f, layout, src)
}

// Where a layer cannot be read, the next place has it, and in the end the source.
// What was copied until then stays.
func TestFillCopiesFromTheNextPlace(t *testing.T) {
	src := blobs{}
	layer := src.add(noise(1, 30_000))
	layout := mustLayout(t, testImage(t, layer))
	content := src[layer.Digest]
	short, shorter := localFile(t, content[:20_000]), localFile(t, content[:10_000])
	for name, places := range map[string][]localLayer{
		"source":       {short},
		"next":         {short, localFile(t, content)},
		"worse, next":  {shorter, short, localFile(t, content)},
		"none of them": {shorter, short, shorter},
	} {
		t.Run(name, func(t *testing.T) {
			c := &copying{}
			f := tempFile(t)
			downloaded, err := testEngine(4).Fill(t.Context(), f, layout, src, c.options(map[v1.Hash][]localLayer{layer.Digest: places}))
			require.NoError(t, err)
			requireFilled(t, f, layout, src)
			last := places[len(places)-1]
			if last == short || last == shorter {
				assert.Equal(t, places, c.unreadable)
				assert.Positive(t, downloaded)
				assert.LessOrEqual(t, downloaded, int64(10_000+4000), "only what no place has, and the range in which that begins")
			} else {
				assert.Equal(t, places[:len(places)-1], c.unreadable)
				assert.Zero(t, downloaded)
			}
			assert.Equal(t, layer.Size, c.copied[layer.Digest]+downloaded)
			assert.Empty(t, c.damaged)
		})
	}
}

// Wrong bytes that were copied are found out, said, and fetched.
func TestFillNoticesWhatWasCopiedWrong(t *testing.T) {
	src := blobs{}
	layer := src.add(noise(1, 100_000))
	layout := mustLayout(t, testImage(t, layer))
	c := &copying{}
	f := tempFile(t)
	o := c.options(map[v1.Hash][]localLayer{layer.Digest: {localFile(t, noise(2, 100_000))}})
	note := o.damaged
	o.damaged = func(damaged v1.Hash) {
		c.mu.Lock()
		defer c.mu.Unlock()
		assert.Equal(t, layer.Size, c.copied[damaged], "it is known by then what was copied")
		note(damaged)
	}
	downloaded, err := testEngine(4).Fill(t.Context(), f, layout, src, o)
	require.NoError(t, err)
	requireFilled(t, f, layout, src)
	assert.Equal(t, []v1.Hash{layer.Digest}, c.damaged)
	assert.Equal(t, layer.Size, downloaded)
}

// What an earlier run has left of a layer is not copied again, and when the whole
// is wrong then, the tarball is not blamed for it.
func TestPutCopiesWhatIsMissing(t *testing.T) {
	src := blobs{}
	layer := src.add(noise(1, 1_000_000))
	img := testImage(t, layer)
	for name, leftRight := range map[string]bool{"left right": true, "left wrong": false} {
		t.Run(name, func(t *testing.T) {
			dir, err := OpenDir(t.TempDir(), nil)
			require.NoError(t, err)
			_, err = dir.Put(t.Context(), "a_main.tar", img, src, nil)
			require.NoError(t, err)

			layout := mustLayout(t, img)
			p, err := openPartial(dir.path, "b_main.tar", img.Digest(), layout)
			require.NoError(t, err)
			at, _ := (&Tarball{Layout: layout}).segment(layer.Digest)
			left := src[layer.Digest][:400_000]
			if !leftRight {
				left = noise(3, len(left))
			}
			_, err = p.file.WriteAt(left, at.Offset)
			require.NoError(t, err)
			p.journal.add(layer.Digest, 0, int64(len(left)))
			p.close()

			result, err := dir.Put(t.Context(), "b_main.tar", img, src, nil)
			require.NoError(t, err)
			tarball, err := dir.Lookup("b_main.tar")
			require.NoError(t, err)
			require.NoError(t, tarball.Verify(t.Context()))
			assert.Empty(t, result.Damaged)
			switch {
			case result.Cloned > 0: // the file system can, so all of it was
				assert.Equal(t, layer.Size, result.Reused)
			case leftRight:
				assert.Equal(t, layer.Size-400_000, result.Copied)
				assert.Zero(t, result.Downloaded)
			default:
				assert.Zero(t, result.Reused)
				assert.Equal(t, layer.Size, result.Downloaded)
			}
		})
	}
}

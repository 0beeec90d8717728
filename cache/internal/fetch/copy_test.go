package fetch

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

	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/cache/internal/sys"
)

// localFile is a place from which a layer of these bytes can be copied.
func localFile(t *testing.T, content []byte) Local {
	t.Helper()
	path := filepath.Join(t.TempDir(), "local")
	require.NoError(t, os.WriteFile(path, append(make([]byte, 100), content...), 0o644))
	f, err := os.Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return Local{R: f, Offset: 100, Name: path}
}

// copying records the events of a fetch that has local layers.
type copying struct {
	NoEvents
	mu         sync.Mutex
	copied     map[v1.Hash]int64
	unreadable []Local
	damaged    []v1.Hash

	onCopied  func()        // when not nil, is called before a copy is recorded
	onDamaged func(v1.Hash) // likewise
}

func (c *copying) Copied(layer v1.Hash, _ Local, n int64) {
	if c.onCopied != nil {
		c.onCopied()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.copied == nil {
		c.copied = map[v1.Hash]int64{}
	}
	c.copied[layer] += n
}

func (c *copying) Unreadable(_ v1.Hash, from Local, _ error) {
	c.unreadable = append(c.unreadable, from)
}

func (c *copying) Damaged(layer v1.Hash) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.onDamaged != nil {
		c.onDamaged(layer)
	}
	c.damaged = append(c.damaged, layer)
}

// Layers are fetched while others are copied: each waits for the other here.
func TestFetchCopiesWhileItFetches(t *testing.T) {
	src := cachetest.Blobs{}
	local, remote := src.Add(cachetest.Noise(1, 100_000)), src.Add(cachetest.Noise(2, 5000))
	layout := mustLayout(t, testImage(t, local, remote))
	fetching, copyingBegan := make(chan struct{}), make(chan struct{})
	var once, begin sync.Once
	c := &copying{onCopied: func() {
		begin.Do(func() { close(copyingBegan) })
		<-fetching
	}}
	f := tempFile(t)
	downloaded, err := testFetcher(4).Fetch(t.Context(), Job{Sink: File{f}, Layout: layout, Events: c, Local: map[v1.Hash][]Local{local.Digest: {localFile(t, src[local.Digest])}}, Source: cachetest.SourceFunc(func(ctx context.Context, d v1.Hash, offset, length int64) (io.ReadCloser, error) {
		assert.Equal(t, remote.Digest, d, "a layer that can be copied is not fetched")
		<-copyingBegan
		once.Do(func() { close(fetching) })
		return src.ReadRange(ctx, d, offset, length)
	})})
	require.NoError(t, err)
	assert.Equal(t, remote.Size, downloaded.Downloaded)
	assert.Equal(t, map[v1.Hash]int64{local.Digest: local.Size}, c.copied)
	requireFetched(t, f, layout, src)
}

// Where a layer cannot be read, it comes from the next place, and in the end from the source.
// What was copied until then stays.
func TestFetchCopiesFromTheNextPlace(t *testing.T) {
	src := cachetest.Blobs{}
	layer := src.Add(cachetest.Noise(1, 30_000))
	layout := mustLayout(t, testImage(t, layer))
	content := src[layer.Digest]
	short, shorter := localFile(t, content[:20_000]), localFile(t, content[:10_000])
	for name, places := range map[string][]Local{
		"source":       {short},
		"next":         {short, localFile(t, content)},
		"worse, next":  {shorter, short, localFile(t, content)},
		"none of them": {shorter, short, shorter},
	} {
		t.Run(name, func(t *testing.T) {
			c := &copying{}
			f := tempFile(t)
			downloaded, err := testFetcher(4).Fetch(t.Context(), Job{Sink: File{f}, Layout: layout, Source: src, Events: c, Local: map[v1.Hash][]Local{layer.Digest: places}})
			require.NoError(t, err)
			requireFetched(t, f, layout, src)
			last := places[len(places)-1]
			if last.Name == short.Name || last.Name == shorter.Name {
				assert.Equal(t, places, c.unreadable)
				assert.Positive(t, downloaded.Downloaded)
				assert.LessOrEqual(t, downloaded.Downloaded, int64(10_000+4000), "only what no place has, and the range in which that begins")
			} else {
				assert.Equal(t, places[:len(places)-1], c.unreadable)
				assert.Zero(t, downloaded.Downloaded)
			}
			assert.Equal(t, layer.Size, c.copied[layer.Digest]+downloaded.Downloaded)
			assert.Empty(t, c.damaged)
		})
	}
}

// Wrong bytes that were copied are detected, reported, and fetched.
func TestFetchNoticesWhatWasCopiedWrong(t *testing.T) {
	src := cachetest.Blobs{}
	layer := src.Add(cachetest.Noise(1, 100_000))
	layout := mustLayout(t, testImage(t, layer))
	c := &copying{}
	c.onDamaged = func(damaged v1.Hash) {
		assert.Equal(t, layer.Size, c.copied[damaged], "it is known by then what was copied")
	}
	f := tempFile(t)
	downloaded, err := testFetcher(4).Fetch(t.Context(), Job{Sink: File{f}, Layout: layout, Source: src, Events: c, Local: map[v1.Hash][]Local{layer.Digest: {localFile(t, cachetest.Noise(2, 100_000))}}})
	require.NoError(t, err)
	requireFetched(t, f, layout, src)
	assert.Equal(t, []v1.Hash{layer.Digest}, c.damaged)
	assert.Equal(t, layer.Size, downloaded.Downloaded)
}

// The page cache is asked to read ahead of a hasher: that needs the file in the sink.
func TestFileIsAFile(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	require.NoError(t, err)
	defer f.Close()
	assert.Same(t, f, sys.FileOf(File{f}))
}

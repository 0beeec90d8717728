package bucket

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/bucket/buckettest"
	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/cache/tarball"
)

// tarballBytes are the bytes of an image's tarball.
func tarballBytes(t testing.TB, img *tarball.Image, src cachetest.Blobs) []byte {
	t.Helper()
	layout, err := tarball.NewLayout(img, tarball.Provenance{})
	require.NoError(t, err)
	var out []byte
	for _, s := range layout.Segments() {
		if s.IsBlob() {
			out = append(out, src[s.Blob]...)
		} else {
			out = append(out, s.Literal...)
		}
	}
	return out
}

// stock stores an image's tarball under a name, as a writer does.
func stock(t testing.TB, server *buckettest.Server, name string, src *source, layers ...v1.Descriptor) []byte {
	t.Helper()
	return stockImage(t, server, name, src, src.image(t, layers...))
}

func stockImage(t testing.TB, server *buckettest.Server, name string, src *source, img *tarball.Image) []byte {
	t.Helper()
	raw := tarballBytes(t, img, src.Blobs)
	i := identity{digest: img.Digest(), reference: img.Reference(), indexes: digestsOf(img.Indexes()), verified: time.Now(), token: "t"}
	server.Put("images/"+name, raw, i.metadata())
	return raw
}

// get opens a tarball until the test ends.
func get(t testing.TB, b *Bucket, name string) *tarball.Tarball {
	t.Helper()
	file, err := b.Get(t.Context(), name)
	require.NoError(t, err)
	t.Cleanup(func() { _ = file.Close() })
	return file
}

func readLayer(t testing.TB, file *tarball.Tarball, layer v1.Descriptor) ([]byte, error) {
	t.Helper()
	r, err := file.ReadRange(t.Context(), layer.Digest, 0, layer.Size)
	require.NoError(t, err)
	defer r.Close()
	return io.ReadAll(r)
}

func requireLayer(t testing.TB, file *tarball.Tarball, src *source, layer v1.Descriptor) {
	t.Helper()
	got, err := readLayer(t, file, layer)
	require.NoError(t, err)
	require.True(t, bytes.Equal(src.Blobs[layer.Digest], got), "the layer has other bytes")
}

// requested is how many bytes of objects were asked for.
func requested(t testing.TB, server *buckettest.Server) (n int64) {
	t.Helper()
	for _, r := range server.Requests() {
		if r.Op == buckettest.GetObject {
			var from, to int64
			_, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to)
			require.NoError(t, err)
			n += to + 1 - from
		}
	}
	return n
}

// A gate holds requests for objects until there are so many at a time, and counts them.
type gate struct {
	mu        sync.Mutex
	want      int
	now, most int
	isOpen    bool
	open      chan struct{}
}

func newGate(want int) *gate { return &gate{want: want, open: make(chan struct{})} }

// replace is for [buckettest.Quirks]: it is called before each request is handled.
func (g *gate) replace(op buckettest.Op, _ string) {
	if op != buckettest.GetObject {
		return
	}
	g.mu.Lock()
	g.now++
	g.most = max(g.most, g.now)
	if g.now >= g.want && !g.isOpen {
		g.isOpen = true
		close(g.open)
	}
	g.mu.Unlock()
	<-g.open
	g.mu.Lock()
	g.now--
	g.mu.Unlock()
}

// What is read in order comes by several requests at a time: the server answers none before
// it has got four.
func TestReadAhead(t *testing.T) {
	server := buckettest.New(t, "bucket")
	src := newSource()
	layer := src.layer(1, 40<<20+123)
	stock(t, server, name, src, layer)
	file := get(t, open(t, server, nil), name)
	g := newGate(4)
	server.SetQuirks(buckettest.Quirks{Replace: g.replace})
	requireLayer(t, file, src, layer)
	assert.LessOrEqual(t, g.most, 8+1)
	assert.LessOrEqual(t, server.Count(buckettest.GetObject), 1+(40<<20)/blockSize+2)
}

// Of an archive the layers that follow are read ahead too, those that are left out are not: many
// small layers come by as many requests at a time as a large one.
func TestReadAheadOfSmallLayers(t *testing.T) {
	server := buckettest.New(t, "bucket")
	src := newSource()
	var sizes []int
	for range 60 {
		sizes = append(sizes, beginning, 0, 70_000)
	}
	layers := src.layers(sizes...)
	stock(t, server, name, src, layers...)
	file := get(t, open(t, server, nil), name)
	isOmitted := func(d v1.Hash) bool {
		return slices.ContainsFunc(layers, func(l v1.Descriptor) bool { return l.Digest == d && l.Size == beginning })
	}
	archive, err := file.Archive(isOmitted)
	require.NoError(t, err)
	before, wanted := requested(t, server), int64(0)
	for _, l := range archive.Layers() {
		wanted += l.Length
	}
	g := newGate(8)
	server.SetQuirks(buckettest.Quirks{Replace: g.replace})
	r := archive.Open(t.Context())
	defer r.Close()
	n, err := io.Copy(io.Discard, r) // each layer is verified
	require.NoError(t, err)
	assert.Equal(t, archive.Size(), n)
	assert.LessOrEqual(t, requested(t, server)-before, wanted)
	assert.LessOrEqual(t, g.most, 8+1)
}

// Reading one layer asks for its bytes, and the beginning of the tarball.
func TestReadAheadEndsWithTheLayer(t *testing.T) {
	server := buckettest.New(t, "bucket")
	src := newSource()
	layers := src.layers(9<<20, 9<<20, 9<<20+5, 9<<20, 9<<20)
	stock(t, server, name, src, layers...)
	file := get(t, open(t, server, nil), name)
	requireLayer(t, file, src, layers[2])
	assert.LessOrEqual(t, requested(t, server), layers[2].Size+beginning)
	before := requested(t, server)
	requireLayer(t, file, src, layers[0]) // of which the beginning is known in part
	assert.Less(t, requested(t, server)-before, layers[0].Size)
	r, err := file.ReadRange(t.Context(), layers[4].Digest, 5<<20, 1000)
	require.NoError(t, err)
	before = requested(t, server)
	_, err = io.ReadAll(r)
	require.NoError(t, err)
	assert.Equal(t, int64(1000), requested(t, server)-before)
}

// smallReader opens a tarball with a reader of small blocks.
func smallReader(t testing.TB, b *Bucket, name string, block, ahead int64) (*reader, *object) {
	t.Helper()
	o, r, err := b.openReader(t.Context(), name)
	require.NoError(t, err)
	t.Cleanup(func() { _ = r.Close() })
	r.block, r.ahead = block, ahead
	return r, o
}

// held is how many bytes of blocks are in memory, or were asked for.
func (r *reader) held() (n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range r.blocks {
		if b.fetch != nil {
			n += b.to - b.from
		}
	}
	return n
}

// Blocks that are announced and never read take no more memory than is read ahead, and do not
// keep others from being read ahead.
func TestMemoryOfBlocks(t *testing.T) {
	server := buckettest.New(t, "bucket")
	src := newSource()
	raw := stock(t, server, name, src, src.layer(1, 4<<20))
	r, _ := smallReader(t, open(t, server, nil), name, 16<<10, 128<<10)
	for at := int64(1 << 20); at < 3<<20; at += 64 << 10 { // readers that have gone elsewhere
		r.WillNeed(at, 64<<10)
		assert.LessOrEqual(t, r.held(), r.ahead)
	}
	p := make([]byte, 16<<10)
	for at := int64(3 << 20); at < 4<<20-int64(len(p)); at += int64(len(p)) {
		r.WillNeed(at, int64(len(p)))
		_, err := r.ReadAt(p, at)
		require.NoError(t, err)
		require.Equal(t, raw[at:at+int64(len(p))], p)
		assert.LessOrEqual(t, r.held(), 2*r.ahead)
	}
	for at := int64(1 << 20); at < 3<<20; at += int64(len(p)) { // of each a byte is read, and no more
		r.WillNeed(at, int64(len(p)))
		_, err := r.ReadAt(p[:1], at)
		require.NoError(t, err)
		assert.LessOrEqual(t, r.held(), 2*r.ahead)
	}
	for at := range int64(1000) {
		r.WillNeed(1<<20+at, 1)
	}
	assert.LessOrEqual(t, len(r.blocks), mostRecords)
	r.mu.Lock()
	for _, b := range r.blocks {
		b.passed = 1000 // nobody comes any more
	}
	r.schedule()
	r.mu.Unlock()
	assert.Zero(t, r.held())
}

// More readers at a time than blocks may be in memory read right bytes.
func TestManyReaders(t *testing.T) {
	server := buckettest.New(t, "bucket")
	src := newSource()
	raw := stock(t, server, name, src, src.layer(1, 6<<20))
	r, _ := smallReader(t, open(t, server, nil), name, 16<<10, 128<<10)
	const readers, each = 20, 256 << 10
	var group sync.WaitGroup
	for i := range int64(readers) {
		group.Go(func() {
			from := 128<<10 + i*each
			for at := from; at < from+each; at += 64 << 10 {
				r.WillNeed(at, 64<<10)
				p := make([]byte, 64<<10)
				n, err := r.ReadAt(p, at)
				if assert.NoError(t, err) {
					assert.True(t, bytes.Equal(raw[at:at+int64(n)], p))
				}
			}
		})
	}
	group.Wait()
	assert.Zero(t, r.held())
}

// Any range is read, in any order, by many at a time.
func TestRandomReads(t *testing.T) {
	server := buckettest.New(t, "bucket")
	src := newSource()
	raw := stock(t, server, name, src, src.layers(300_000, 0, 100_000, 1)...)
	r, o := smallReader(t, open(t, server, nil), name, 10_000, 80_000)
	r.layout = &tarball.Layout{} // the beginning is not read further
	require.EqualValues(t, len(raw), o.size)
	noise := cachetest.Noise(3, 4000)
	var group sync.WaitGroup
	for i := range 4 {
		group.Go(func() {
			for j := range 100 {
				k := (i*100 + j) * 8
				at := int64(noise[k])<<16 + int64(noise[k+1])<<8 + int64(noise[k+2])
				at %= int64(len(raw)) + 100
				n := int(noise[k+3])*int(noise[k+4]) + 1
				if noise[k+5]%2 == 0 {
					r.WillNeed(at, int64(noise[k+6])*100)
				}
				p := make([]byte, n)
				got, err := r.ReadAt(p, at)
				want := raw[min(at, int64(len(raw))):min(at+int64(n), int64(len(raw)))]
				if assert.True(t, bytes.Equal(want, p[:got]), "%d bytes at %d", n, at) && got < n {
					assert.Equal(t, io.EOF, err)
				}
			}
		})
	}
	group.Wait()
	_, err := r.ReadAt(make([]byte, 1), -1)
	require.Error(t, err)
}

// Connections that break in the middle of answers, and refusals, cost other requests: what has
// come is not asked for again.
func TestReadSurvives(t *testing.T) {
	gets := map[buckettest.Op]int{buckettest.GetObject: 2}
	for about, quirks := range map[string]buckettest.Quirks{
		"answers are cut":          {CutGet: 40_000},
		"the beginning is cut":     {CutGet: 5000, CutGetCount: 3},
		"SlowDown":                 {SlowDown: gets},
		"InternalError":            {InternalError: gets},
		"the connection is closed": {LoseAnswer: gets},
	} {
		t.Run(about, func(t *testing.T) {
			t.Parallel()
			server := buckettest.New(t, "bucket")
			src := newSource()
			layers := src.layers(300_000, 100_000)
			stock(t, server, name, src, layers...)
			server.SetQuirks(quirks)
			file := get(t, open(t, server, nil), name)
			for _, l := range layers {
				requireLayer(t, file, src, l)
			}
			require.NoError(t, file.Verify(t.Context(), nil))
			if quirks.CutGet > 0 {
				assert.Positive(t, server.Happened("CutGet"))
			}
		})
	}
}

// Each byte is sent once, however often connections break.
func TestCutAnswersAreGoneOnWith(t *testing.T) {
	server := buckettest.New(t, "bucket")
	src := newSource()
	layer := src.layer(1, 500_000)
	stock(t, server, name, src, layer)
	server.SetQuirks(buckettest.Quirks{CutGet: 30_000})
	file := get(t, open(t, server, nil), name)
	requireLayer(t, file, src, layer)
	var sent int64
	for _, r := range server.Requests() {
		sent += r.Downloaded
	}
	size := file.Layout.Size()
	assert.LessOrEqual(t, sent, size)
	assert.Greater(t, server.Count(buckettest.GetObject), 10)
}

// What could not be read ahead is asked for again when it is needed.
func TestReadAheadFails(t *testing.T) {
	server := buckettest.New(t, "bucket")
	src := newSource()
	raw := stock(t, server, name, src, src.layer(1, 300_000))
	r, _ := smallReader(t, open(t, server, nil), name, 64<<10, 512<<10)
	server.SetQuirks(buckettest.Quirks{Denied: map[buckettest.Op]bool{buckettest.GetObject: true}})
	r.WillNeed(100_000, 100_000)
	require.Len(t, r.blocks, 2)
	for _, b := range r.blocks {
		<-b.fetch.done
	}
	server.SetQuirks(buckettest.Quirks{})
	p := make([]byte, 100_000)
	_, err := r.ReadAt(p, 100_000)
	require.NoError(t, err)
	assert.Equal(t, raw[100_000:200_000], p)

	// One that fails while it is waited for is not asked for ahead again.
	server.SetQuirks(buckettest.Quirks{Denied: map[buckettest.Op]bool{buckettest.GetObject: true}})
	r.WillNeed(100_000, 1000)
	_, err = r.ReadAt(p[:10], 100_000)
	require.ErrorIs(t, err, fs.ErrPermission)
	server.SetQuirks(buckettest.Quirks{})
	before := server.Count(buckettest.GetObject)
	r.WillNeed(0, 0)
	assert.Zero(t, r.held())
	_, err = r.ReadAt(p[:1000], 100_000)
	require.NoError(t, err)
	assert.Equal(t, 1, server.Count(buckettest.GetObject)-before)
}

// An answer that brings no bytes is given up and asked for again.
func TestStalledAnswer(t *testing.T) {
	server := buckettest.New(t, "bucket")
	src := newSource()
	raw := stock(t, server, name, src, src.layer(1, 300_000))
	r, _ := smallReader(t, open(t, server, nil), name, 64<<10, 512<<10)
	r.layout, r.stall = &tarball.Layout{}, 50*time.Millisecond
	server.SetQuirks(buckettest.Quirks{Rate: func(buckettest.Request) int64 {
		if server.Count(buckettest.GetObject) <= 3 { // the first two after the beginning
			return 1
		}
		return 0
	}})
	p := make([]byte, 100_000)
	_, err := r.ReadAt(p, 100_000)
	require.NoError(t, err)
	assert.Equal(t, raw[100_000:200_000], p)
}

// A server that says all the time that the object is another one does not keep a read for ever.
func TestAlwaysAnotherObject(t *testing.T) {
	server := buckettest.New(t, "bucket")
	src := newSource()
	layers := src.layers(200_000, 10)
	stock(t, server, name, src, layers...)
	file := get(t, open(t, server, nil), name)
	server.SetQuirks(buckettest.Quirks{OpaqueETags: true, Replace: func(op buckettest.Op, key string) {
		if op == buckettest.GetObject {
			raw, _ := server.Object(key)
			server.Put(key, raw, nil) // another ETag each time
		}
	}})
	_, err := readLayer(t, file, layers[0])
	require.Error(t, err)
	assert.Less(t, server.Count(buckettest.GetObject), 500)
}

// Layers that the object in its place has too are read from there.
func TestReplacedWhileRead(t *testing.T) {
	for _, quirks := range []buckettest.Quirks{{}, {OpaqueETags: true}, {IgnoresIfMatchOnRead: true}} {
		server := buckettest.New(t, "bucket")
		server.SetQuirks(quirks)
		src := newSource()
		layers := src.layers(100_000, 300_000, 90_000, 0, 200_000)
		stock(t, server, name, src, layers...)
		file := get(t, open(t, server, nil), name)
		shared, err := file.ReadRange(t.Context(), layers[1].Digest, 0, layers[1].Size)
		require.NoError(t, err)
		half := make([]byte, 1000)
		_, err = io.ReadFull(shared, half)
		require.NoError(t, err)
		fresh := src.layer(50, 70_000)
		stock(t, server, name, src, layers[4], fresh, layers[1])
		rest, err := io.ReadAll(shared)
		require.NoError(t, err)
		require.True(t, bytes.Equal(src.Blobs[layers[1].Digest], append(half, rest...)))
		requireLayer(t, file, src, layers[4])
		_, err = readLayer(t, file, layers[2])
		require.ErrorIs(t, err, cache.ErrReplaced)

		stock(t, server, name, src, fresh, layers[1]) // and once more
		requireLayer(t, file, src, layers[1])
		_, err = readLayer(t, file, layers[4])
		require.ErrorIs(t, err, cache.ErrReplaced)

		stock(t, server, name, src, layers...)
		requireLayer(t, file, src, layers[1])
		requireLayer(t, file, src, layers[4])
		assert.Equal(t, len(server.Requests()), server.Count(buckettest.GetObject))
	}
}

// When it is replaced, many requests that find that look once at what is there.
func TestReplacedIsLookedAtOnce(t *testing.T) {
	server := buckettest.New(t, "bucket")
	src := newSource()
	layers := src.layers(100_000, 20<<20)
	stock(t, server, name, src, layers...)
	file := get(t, open(t, server, nil), name)
	stock(t, server, name, src, layers[1])
	requireLayer(t, file, src, layers[1])
	looks := 0
	for _, r := range server.Requests() {
		if r.Op == buckettest.GetObject && r.Header.Get("If-Match") == "" {
			looks++
		}
	}
	assert.Equal(t, 2, looks, "at the beginning, and when it was replaced")
}

// What is removed or replaced by something else cannot be read any more, and the error says so.
func TestRemovedWhileRead(t *testing.T) {
	server := buckettest.New(t, "bucket")
	src := newSource()
	layer := src.layer(1, 200_000)
	stock(t, server, name, src, layer)
	file := get(t, open(t, server, nil), name)
	server.Remove("images/" + name)
	_, err := readLayer(t, file, layer)
	require.ErrorIs(t, err, cache.ErrReplaced)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, "removed")
	for _, content := range []string{"", "else", strings.Repeat("else", 100_000)} {
		server.Put("images/"+name, []byte(content), nil)
		_, err = readLayer(t, file, layer)
		require.ErrorIs(t, err, cache.ErrReplaced)
		require.ErrorIs(t, err, tarball.ErrNotTarball)
	}
	server.SetQuirks(buckettest.Quirks{NoBucket: true})
	_, err = readLayer(t, file, layer)
	require.ErrorContains(t, err, "NoSuchBucket")
	require.NotErrorIs(t, err, cache.ErrReplaced)
}

// A layer of the same digest and another size, in a manifest that lies, is not read from.
func TestReplacedByALiar(t *testing.T) {
	server := buckettest.New(t, "bucket")
	src := newSource()
	layer := src.layer(1, 200_000)
	stock(t, server, name, src, layer)
	file := get(t, open(t, server, nil), name)
	liar := layer
	liar.Size = 100_000
	honest := src.Blobs[layer.Digest]
	src.Blobs[layer.Digest] = honest[:100_000]
	stock(t, server, name, src, liar)
	src.Blobs[layer.Digest] = honest
	_, err := readLayer(t, file, layer)
	require.ErrorIs(t, err, cache.ErrReplaced)
}

// Close ends what is on its way.
func TestCloseWhileRead(t *testing.T) {
	server := buckettest.New(t, "bucket")
	src := newSource()
	layer := src.layer(1, 40<<20)
	stock(t, server, name, src, layer)
	b := open(t, server, nil)
	file, err := b.Get(t.Context(), name)
	require.NoError(t, err)
	began := make(chan struct{}, 100)
	server.SetQuirks(buckettest.Quirks{Rate: func(buckettest.Request) int64 {
		select {
		case began <- struct{}{}:
		default:
		}
		return 1
	}})
	failed := make(chan error)
	go func() {
		_, err := readLayer(t, file, layer)
		failed <- err
	}()
	<-began
	require.NoError(t, file.Close())
	require.ErrorIs(t, <-failed, fs.ErrClosed)
	_, err = readLayer(t, file, layer)
	require.ErrorIs(t, err, fs.ErrClosed)
	require.NoError(t, file.Close())
}

// What Get waits for ends with its context, and what it has opened does not.
func TestContextOfGet(t *testing.T) {
	server := buckettest.New(t, "bucket")
	src := newSource()
	layer := src.layer(1, 200_000)
	stock(t, server, name, src, layer)
	b := open(t, server, nil)
	ctx, cancel := context.WithCancel(t.Context())
	file, err := b.Get(ctx, name)
	require.NoError(t, err)
	defer file.Close()
	cancel()
	requireLayer(t, file, src, layer)
	_, err = b.Get(ctx, name)
	require.ErrorIs(t, err, context.Canceled)

	// One whose beginning has more requests than one.
	img := largeImage(t, src)
	stockImage(t, server, name, src, img)
	ctx, cancel = context.WithCancel(t.Context())
	first := server.Count(buckettest.GetObject) + 1
	server.SetQuirks(buckettest.Quirks{Rate: func(buckettest.Request) int64 {
		if server.Count(buckettest.GetObject) > first {
			cancel()
			return 1
		}
		return 0
	}})
	_, err = b.Get(ctx, name)
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, tarball.ErrNotTarball)
}

// largeImage is an image whose manifest and config are larger than the beginning.
func largeImage(t testing.TB, src *source) *tarball.Image {
	t.Helper()
	manifest, config := cachetest.Pair(src.layers(70_000, 5)...)
	var c map[string]any
	require.NoError(t, json.Unmarshal(config, &c))
	c["comment"] = strings.Repeat("long ", 100_000)
	config = cachetest.Marshal(c)
	manifest.Config.Digest, manifest.Config.Size = cachetest.Digest(config), int64(len(config))
	manifest.Annotations = map[string]string{"long": strings.Repeat("annotation", 30_000)}
	img, err := tarball.NewImage(cachetest.Ref, cachetest.Marshal(manifest), config)
	require.NoError(t, err)
	return img
}

// A beginning of any length is read by a few requests.
func TestLargeBeginning(t *testing.T) {
	server := buckettest.New(t, "bucket")
	src := newSource()
	img := largeImage(t, src)
	raw := stockImage(t, server, name, src, img)
	b := open(t, server, nil)
	file := get(t, b, name)
	assert.Equal(t, img.Digest(), file.Image.Digest())
	assert.LessOrEqual(t, server.Count(buckettest.GetObject), 6)
	assert.LessOrEqual(t, requested(t, server), int64(len(raw)))
	require.NoError(t, file.Verify(t.Context(), nil))

	// It is replaced while its beginning is read: the other one is opened.
	other := src.image(t, src.layers(3000)...)
	gets := 0
	server.SetQuirks(buckettest.Quirks{Replace: func(op buckettest.Op, _ string) {
		if gets++; gets == 2 {
			stockImage(t, server, name, src, other)
		}
	}})
	assert.Equal(t, other.Digest(), get(t, b, name).Image.Digest())

	// What cannot be read is not said to be no tarball.
	stockImage(t, server, name, src, img)
	gets = 0
	server.SetQuirks(buckettest.Quirks{Denied: map[buckettest.Op]bool{}, Replace: func(op buckettest.Op, _ string) {
		if gets++; gets == 1 {
			server.SetQuirks(buckettest.Quirks{Denied: map[buckettest.Op]bool{buckettest.GetObject: true}})
		}
	}})
	_, err := b.Get(t.Context(), name)
	require.ErrorIs(t, err, fs.ErrPermission)
	require.NotErrorIs(t, err, tarball.ErrNotTarball)
	entries, err := b.List(t.Context())
	require.NoError(t, err)
	require.ErrorIs(t, entries[0].Err, fs.ErrPermission)
	server.SetQuirks(buckettest.Quirks{})
	entries, err = b.List(t.Context())
	require.NoError(t, err)
	require.NoError(t, entries[0].Err, "it was not remembered")
}

// A server that gives another range than was asked for is not believed.
func TestWrongRange(t *testing.T) {
	server := buckettest.New(t, "bucket")
	src := newSource()
	layer := src.layer(1, 200_000)
	stock(t, server, name, src, layer)
	b := open(t, server, nil)
	file := get(t, b, name)
	_, err := b.get(t.Context(), "images/"+name, "", 5, 10)
	require.NoError(t, err)
	wrong := withoutRange{server}
	cfg := server.Config()
	cfg.HTTPClient = &http.Client{Transport: wrong}
	other, err := Open(t.Context(), "s3://bucket/images", &Options{Config: &cfg})
	require.NoError(t, err)
	again := get(t, other, name) // the beginning is what it should be
	_, err = readLayer(t, again, layer)
	require.ErrorContains(t, err, "not what was asked for")
	requireLayer(t, file, src, layer)
}

// withoutRange is a way to a server that ignores ranges.
type withoutRange struct{ server *buckettest.Server }

func (w withoutRange) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Del("Range")
	return http.DefaultTransport.RoundTrip(r)
}

package fetch

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/internal/cachetest"
	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
)

// fetching is a fetch of one layer of size bytes, by hand.
func fetching(t *testing.T, size int64) (*run, *layer) {
	t.Helper()
	src := cachetest.Blobs{}
	d := src.Add(cachetest.Noise(1, int(size)))
	l := newLayer(tarball.Segment{Blob: d.Digest, Length: size}, nil, nil, false)
	r := newRun(testFetcher(1), Job{Sink: File{tempFile(t)}, Source: src, Events: NoEvents{}})
	r.layers = []*layer{l}
	return r, l
}

// take gives a connection the first chunk that waits; nil if there is none.
func take(r *run) *connection {
	p, _ := r.find(time.Now())
	if p == nil {
		return nil
	}
	c := &connection{layer: p.layer, chunk: p.chunk, generation: p.layer.generation, choice: p.choice, cancel: func(error) {}}
	c.chunk.active, c.chunk.connections = true, []*connection{c}
	return c
}

// A layer is begun again while a connection of the generation before has bytes at hand:
// they must not get into the file any more, where others may have been hashed.
func TestStaleConnectionsWriteNothing(t *testing.T) {
	r, l := fetching(t, 3000)
	c := take(r)
	r.restart(l)
	done, err := r.deliver(t.Context(), c, []byte("stale"))
	require.NoError(t, err)
	assert.True(t, done, "the connection has to end")
	content, err := os.ReadFile(r.Sink.(File).Name())
	require.NoError(t, err)
	assert.Empty(t, content)
	assert.Zero(t, l.present())
}

// And if it is writing just then, nothing of the new generation is given out before
// that write has ended.
func TestRestartWaitsForTheLastWrite(t *testing.T) {
	r, l := fetching(t, 3000)
	c := take(r)
	c.chunk.writing = true // as in deliver, between its two halves
	l.writes = 1
	assert.True(t, l.canFetch(), "a write of this generation holds up no other")
	r.restart(l)
	assert.False(t, l.canFetch())
	assert.Nil(t, take(r))
	l.writes = 0
	assert.NotNil(t, take(r))
}

// Nor while a hasher of the generation before is at work: the sink would release bytes
// of the new one that are not hashed yet.
func TestRestartWaitsForTheHasher(t *testing.T) {
	r, l := fetching(t, 3000)
	l.chunks[0].pos = l.chunks[0].end
	l.hashing = true
	hasher := &hashing{layer: l, generation: l.generation, state: l.state, upTo: l.prefix()}
	r.restart(l)
	assert.Nil(t, take(r))
	require.NoError(t, r.settle(hasher))
	assert.Zero(t, l.hashed, "what it hashed does not count")
	assert.NotNil(t, take(r))
}

func TestChunksOf(t *testing.T) {
	var got [][3]int64
	for _, s := range chunksOf(1000, []sys.Interval{{From: 0, To: 50}, {From: 400, To: 500}, {From: 950, To: 1000}}) {
		got = append(got, [3]int64{s.start, s.pos, s.end})
	}
	assert.Equal(t, [][3]int64{{0, 50, 50}, {50, 50, 400}, {400, 500, 500}, {500, 500, 950}, {950, 1000, 1000}}, got)
	assert.Empty(t, chunksOf(0, nil))
}

// What is cut off a chunk waits, together with what waited behind it.
func TestCut(t *testing.T) {
	_, l := fetching(t, 1000)
	c := l.chunks[0]
	l.cut(c, 800)
	c.active, c.pos = true, 100
	l.cut(c, 300)
	require.Len(t, l.chunks, 2)
	assert.Equal(t, []int64{0, 100, 300}, []int64{c.start, c.pos, c.end})
	rest := l.chunks[1]
	assert.Equal(t, []int64{300, 300, 1000}, []int64{rest.start, rest.pos, rest.end})
	assert.True(t, rest.isWaiting())
	assert.Equal(t, int64(100), l.prefix())
	rest.active, rest.pos, c.pos = true, 400, 300
	assert.Equal(t, int64(400), l.prefix())
	l.cut(rest, 500)
	assert.Len(t, l.chunks, 3)
}

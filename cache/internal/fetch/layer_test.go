package fetch

import (
	"os"
	"testing"

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
	l := newLayer(tarball.Segment{Blob: d.Digest, Length: size}, sizes{least: 1000, most: 1000, split: 100}, 1, nil, nil, false)
	r := &run{Job: Job{Sink: File{tempFile(t)}, Source: src, Events: NoEvents{}}, fetcher: testFetcher(1), layers: []*layer{l}}
	r.cond.L = &r.mu
	return r, l
}

// A layer is begun again while a worker of the generation before has bytes at hand:
// they must not get into the file any more, where others may have been hashed.
func TestStaleWorkersWriteNothing(t *testing.T) {
	r, l := fetching(t, 3000)
	w := r.take()
	r.restart(l)
	written, complete, err := r.write(t.Context(), w, []byte("stale"))
	require.NoError(t, err)
	assert.Zero(t, written)
	assert.True(t, complete, "the worker has to stop")
	content, err := os.ReadFile(r.Sink.(File).Name())
	require.NoError(t, err)
	assert.Empty(t, content)
	assert.Zero(t, l.present())
}

// And if it is writing just then, nothing of the new generation is given out before
// that write has ended.
func TestRestartWaitsForTheLastWrite(t *testing.T) {
	r, l := fetching(t, 3000)
	w := r.take()
	w.chunk.claimed = 500 // as in write, between its two halves
	l.writes = 1
	assert.NotNil(t, l.pending(noLimit, true), "a write of this generation holds up no other")
	r.restart(l)
	assert.Nil(t, l.pending(noLimit, true))
	assert.Nil(t, r.take())
	l.writes = 0
	assert.NotNil(t, r.take())
}

// Nor while a hasher of the generation before is at work: the sink would release bytes
// of the new one that are not hashed yet.
func TestRestartWaitsForTheHasher(t *testing.T) {
	r, l := fetching(t, 3000)
	l.chunks[0].pos = l.chunks[0].end
	l.hashing = true
	hasher := &hashing{layer: l, generation: l.generation, state: l.state, upTo: l.prefix()}
	r.restart(l)
	assert.Nil(t, r.take())
	require.NoError(t, r.settle(hasher))
	assert.Zero(t, l.hashed, "what it hashed does not count")
	assert.NotNil(t, r.take())
}

func TestSplit(t *testing.T) {
	_, l := fetching(t, 1000)
	s := l.chunks[0]
	s.active, s.pos, s.claimed = true, 100, 200
	require.Same(t, s, l.largest())
	half := l.splitOff(s)
	assert.Equal(t, []int64{0, 100, 600}, []int64{s.start, s.pos, s.end}, "what is being written stays")
	assert.Equal(t, []int64{600, 600, 1000}, []int64{half.start, half.pos, half.end})
	assert.Equal(t, []*chunk{s, half}, l.chunks)

	s.pos, s.claimed = 450, 450
	half.active, half.pos, half.claimed = true, 850, 850
	assert.Nil(t, l.largest(), "150 bytes each: too little for two requests")
	assert.Equal(t, int64(450), l.prefix())
	s.pos = 600
	assert.Equal(t, int64(850), l.prefix())
	half.pos = 1000
	assert.Equal(t, int64(1000), l.prefix())
}

func TestRangeLength(t *testing.T) {
	for size, want := range map[int64]int64{
		0:              minRange,
		100 << 20:      minRange,
		1 << 30:        32 << 20, // two for each of 16 connections
		18_600_000_000: maxRange,
	} {
		assert.Equal(t, want, defaultSizes.length(size, 16), size)
	}
}

func TestChunksOf(t *testing.T) {
	var got [][3]int64
	for _, s := range chunksOf(1000, func(int64) int64 { return 300 }, []sys.Interval{{From: 0, To: 50}, {From: 400, To: 500}, {From: 950, To: 1000}}) {
		got = append(got, [3]int64{s.start, s.pos, s.end})
	}
	assert.Equal(t, [][3]int64{{0, 50, 50}, {50, 50, 350}, {350, 350, 400}, {400, 500, 500}, {500, 500, 800}, {800, 800, 950}, {950, 1000, 1000}}, got)
	assert.Empty(t, chunksOf(0, func(int64) int64 { return 300 }, nil))

	// Ranges get shorter towards the end.
	var lengths []int64
	r := sizes{least: 100, most: 400}
	for _, s := range chunksOf(2000, func(left int64) int64 { return r.length(left, 2) }, nil) {
		lengths = append(lengths, s.end-s.start)
	}
	assert.Equal(t, []int64{400, 400, 300, 225, 168, 126, 100, 100, 100, 81}, lengths)
}

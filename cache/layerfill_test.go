package cache

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// filling is a fill of one layer of size bytes, by hand.
func filling(t *testing.T, size int64) (*fill, *layerFill) {
	t.Helper()
	src := blobs{}
	d := src.add(noise(1, int(size)))
	l := newLayerFill(Segment{Blob: d.Digest, Length: size}, ranging{least: 1000, most: 1000, split: 100}, 1, nil, nil)
	f := &fill{engine: testEngine(1), file: tempFile(t), src: src, options: &FillOptions{}, layers: []*layerFill{l}}
	f.cond.L = &f.mu
	return f, l
}

// A layer is begun anew while a worker of the round before has bytes at hand:
// they must not get into the file any more, where others may have been hashed.
func TestStaleWorkersWriteNothing(t *testing.T) {
	f, l := filling(t, 3000)
	w := f.take()
	f.restart(l)
	written, complete, err := f.write(w, []byte("stale"))
	require.NoError(t, err)
	assert.Zero(t, written)
	assert.True(t, complete, "the worker is told to stop")
	content, err := os.ReadFile(f.file.Name())
	require.NoError(t, err)
	assert.Empty(t, content)
	assert.Zero(t, l.present())
}

// And if it is writing just then, nothing of the new round is given out before
// that write has ended.
func TestRestartWaitsForTheLastWrite(t *testing.T) {
	f, l := filling(t, 3000)
	w := f.take()
	w.span.reserved = 500 // as write has it, between its two halves
	l.writes = 1
	assert.NotNil(t, l.pending(), "a write of this round holds up nobody")
	f.restart(l)
	assert.Nil(t, l.pending())
	assert.Nil(t, f.take())
	l.writes = 0
	assert.NotNil(t, f.take())
}

func TestSplit(t *testing.T) {
	_, l := filling(t, 1000)
	s := l.spans[0]
	s.active, s.pos, s.reserved = true, 100, 200
	require.Same(t, s, l.largest())
	half := l.split(s)
	assert.Equal(t, []int64{0, 100, 600}, []int64{s.start, s.pos, s.end}, "what is being written stays")
	assert.Equal(t, []int64{600, 600, 1000}, []int64{half.start, half.pos, half.end})
	assert.Equal(t, []*span{s, half}, l.spans)

	s.pos, s.reserved = 450, 450
	half.active, half.pos, half.reserved = true, 850, 850
	assert.Nil(t, l.largest(), "150 bytes each: too little for two requests")
	assert.Equal(t, int64(450), l.frontier())
	s.pos = 600
	assert.Equal(t, int64(850), l.frontier())
	half.pos = 1000
	assert.Equal(t, int64(1000), l.frontier())
}

func TestRangeLength(t *testing.T) {
	for size, want := range map[int64]int64{
		0:              minRange,
		100 << 20:      minRange,
		1 << 30:        32 << 20, // two for each of 16 connections
		18_600_000_000: maxRange,
	} {
		assert.Equal(t, want, defaultRanging.length(size, 16), size)
	}
}

func TestSpansOf(t *testing.T) {
	var got [][3]int64
	for _, s := range spansOf(1000, func(int64) int64 { return 300 }, []interval{{0, 50}, {400, 500}, {950, 1000}}) {
		got = append(got, [3]int64{s.start, s.pos, s.end})
	}
	assert.Equal(t, [][3]int64{{0, 50, 50}, {50, 50, 350}, {350, 350, 400}, {400, 500, 500}, {500, 500, 800}, {800, 800, 950}, {950, 1000, 1000}}, got)
	assert.Empty(t, spansOf(0, func(int64) int64 { return 300 }, nil))

	// Ranges get shorter towards the end.
	var lengths []int64
	r := ranging{least: 100, most: 400}
	for _, s := range spansOf(2000, func(left int64) int64 { return r.length(left, 2) }, nil) {
		lengths = append(lengths, s.end-s.start)
	}
	assert.Equal(t, []int64{400, 400, 300, 225, 168, 126, 100, 100, 100, 81}, lengths)
}

package fetch

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"math"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
)

// A chunk is a run of a layer's bytes, [pos, end), that one worker at a time
// fetches. Offsets are within the layer. What lies before pos is in the sink;
// what lies before claimed is being written and must not be split off.
type chunk struct {
	start, pos, end int64
	claimed         int64
	journaled       int64 // up to here
	active          bool  // a worker fetches it
}

const (
	// Ranges are this long, in bytes. A connection needs some 100 ms to reach
	// its speed (name, TLS, redirect, slow start), which at 25 MB/s is 2.5 MB:
	// 8 MiB keep that below a third. Beyond 64 MiB nothing is gained, and more
	// is lost when a connection breaks in a way that gives its bytes up.
	minRange = 8 << 20
	maxRange = 64 << 20
	// rangesAhead: a range is so much of what is left of the layer that each
	// connection could get two more. So ranges get shorter towards the end, where
	// long ones would leave much to hash after the last byte came.
	rangesAhead = 2
	// minSplit: less than twice this is not worth another request.
	minSplit = 2 << 20
)

// noLimit is the limit of a sink without a window.
const noLimit = math.MaxInt64

// sizes is how layers are cut, in bytes.
type sizes struct{ least, most, split int64 }

var defaultSizes = sizes{minRange, maxRange, minSplit}

// length chooses the length of a range where left bytes of the layer are left.
func (s sizes) length(left int64, connections int) int64 {
	return min(max(left/int64(connections*rangesAhead), s.least), s.most)
}

// within makes ranges so short that each connection can have one in a window.
func (s sizes) within(window int64, connections int) sizes {
	if window > 0 {
		s.most = max(min(s.most, window/int64(connections)), 1)
		s.least = min(s.least, s.most)
	}
	return s
}

// chunksOf cuts the bytes of a layer into chunks: those in done are complete, the
// rest is cut into ranges, whose length depends on how much of the layer is left.
// done must be sorted and without overlap.
func chunksOf(size int64, length func(left int64) int64, done []sys.Interval) []*chunk {
	var chunks []*chunk
	missing := func(from, to int64) {
		for from < to {
			end := min(from+length(size-from), to)
			chunks = append(chunks, &chunk{start: from, pos: from, claimed: from, journaled: from, end: end})
			from = end
		}
	}
	at := int64(0)
	for _, d := range done {
		missing(at, d.From)
		chunks = append(chunks, &chunk{start: d.From, pos: d.To, claimed: d.To, journaled: d.To, end: d.To})
		at = d.To
	}
	missing(at, size)
	return chunks
}

// layer is a layer on its way into the sink: which bytes are there, how far
// they are hashed. Its fields are guarded by the run's mutex; what state points
// to belongs to the hasher that set hashing.
type layer struct {
	digest v1.Hash
	offset int64 // of the layer in the tarball
	size   int64
	length func(left int64) int64 // of a range
	split  int64                  // what splitting leaves on each side

	local      []Local  // where it is copied from; without any it is fetched
	chunks     []*chunk // by start; they cover the layer without gap
	first      int      // chunks before it are complete
	generation int      // counts how often the layer was begun
	writes     int      // how many writes into the sink are in progress
	reused     int64    // bytes that were there at the beginning, or copied
	resumed    bool     // some bytes were written by an earlier attempt, or copied
	refetch    bool     // its bytes were wrong once
	stream     bool     // the source has no ranges: one chunk, from the beginning
	cold       bool     // what was there at the beginning may not be in memory
	prefetch   sys.Prefetch
	hashing    bool  // a hasher works on it
	lagging    bool  // that hasher is of a generation before
	hashed     int64 // bytes that went into state
	state      hash.Hash
	verified   bool
}

func newLayer(s tarball.Segment, sizes sizes, connections int, done []sys.Interval, local []Local, stream bool) *layer {
	l := &layer{
		digest: s.Blob, offset: s.Offset, size: s.Length, state: sha256.New(), local: local,
		resumed: len(done)+len(local) > 0, cold: len(done) > 0, stream: stream, split: sizes.split,
	}
	l.length = func(left int64) int64 { return sizes.length(left, connections) }
	l.cut(done)
	return l
}

func (l *layer) cut(done []sys.Interval) {
	length := l.length
	if l.stream {
		length = func(left int64) int64 { return left }
	}
	l.chunks = chunksOf(l.size, length, done)
}

// restart drops every byte of the layer. Workers that still have a chunk of
// the generation before notice that by its number, and no new chunk is given out
// until their last write has ended: it must not land on bytes that were hashed. Nor
// while a hasher of that generation reads: its [Sink.Hashed] would release new bytes.
func (l *layer) restart() {
	l.generation++
	l.lagging = l.hashing
	l.first, l.hashed, l.reused, l.resumed, l.local, l.cold = 0, 0, 0, false, nil, false
	l.state = sha256.New()
	l.cut(nil)
}

// present returns how many bytes of the layer are in the sink.
func (l *layer) present() int64 {
	n := int64(0)
	for _, c := range l.chunks {
		n += c.pos - c.start
	}
	return n
}

// prefix returns how many bytes from the layer's beginning are in the sink
// without a gap.
func (l *layer) prefix() int64 {
	for l.first < len(l.chunks) && l.chunks[l.first].pos == l.chunks[l.first].end {
		l.first++
	}
	if l.first == len(l.chunks) {
		return l.size
	}
	return l.chunks[l.first].pos
}

// pending returns a chunk to fetch that no worker has and that ends before the limit of
// the sink, or nil. A stream ends where it may: it is given out when all before it is
// in the sink, and waits on its way.
func (l *layer) pending(limit int64, isFirst bool) *chunk {
	if len(l.local) > 0 || l.stale() {
		return nil
	}
	l.prefix() // passes over what is complete
	for i, c := range l.chunks[l.first:] {
		if !c.active && c.pos < c.end {
			if l.offset+c.end <= limit || l.stream && isFirst && i == 0 {
				return c
			}
			return nil
		}
	}
	return nil
}

// stale reports whether workers of the generation before are still writing, or its
// hasher reading.
func (l *layer) stale() bool {
	if l.writes == 0 || l.lagging {
		return l.lagging
	}
	current := 0
	for _, c := range l.chunks[l.first:] {
		if c.active && c.claimed > c.pos {
			current++
		}
	}
	return l.writes > current
}

// largest returns the chunk in work that has the most to split, or nil.
func (l *layer) largest() *chunk {
	var most *chunk
	for _, c := range l.chunks[l.first:] {
		if c.active && !l.stream && len(l.local) == 0 && c.end-c.claimed >= 2*l.split && (most == nil || c.end-c.claimed > most.end-most.claimed) {
			most = c
		}
	}
	return most
}

// splitOff cuts the second half off what is left of a chunk and returns it.
func (l *layer) splitOff(c *chunk) *chunk {
	middle := c.claimed + (c.end-c.claimed)/2
	half := &chunk{start: middle, pos: middle, claimed: middle, journaled: middle, end: c.end}
	c.end = middle
	l.chunks = slices.Insert(l.chunks, slices.Index(l.chunks, c)+1, half)
	return half
}

func (l *layer) sum() string { return hex.EncodeToString(l.state.Sum(nil)) }

package fetch

import (
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"fmt"
	"hash"
	"math"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
)

// A chunk is a run of a layer's bytes. What lies before pos is in the sink; the rest is
// fetched by a connection, or two that race, or is copied, or waits. Offsets are within
// the layer.
type chunk struct {
	start, pos, end int64
	journaled       int64         // up to here
	active          bool          // it is being copied, or a connection fetches it
	connections     []*connection // that fetch it: the first one, and one that races it
	writing         bool          // bytes from pos on are being written
	races           int
	raced           time.Time // the last time
	trouble         trouble
}

// noLimit is the limit of a sink without a window.
const noLimit = math.MaxInt64

// chunksOf cuts the bytes of a layer into chunks: those in done are complete, what lies
// between them waits. done must be sorted and without overlap.
func chunksOf(size int64, done []sys.Interval) []*chunk {
	var chunks []*chunk
	add := func(from, pos, to int64) {
		if from < to {
			chunks = append(chunks, &chunk{start: from, pos: pos, journaled: pos, end: to})
		}
	}
	at := int64(0)
	for _, d := range done {
		add(at, at, d.From)
		add(d.From, d.To, d.To)
		at = d.To
	}
	add(at, at, size)
	return chunks
}

// layer is a layer on its way into the sink: which bytes are there, how far
// they are hashed. Its fields are guarded by the fetcher's mutex; what state points
// to belongs to the hasher that set hashing.
type layer struct {
	digest v1.Hash
	offset int64 // of the layer in the tarball
	size   int64

	local      []Local         // where it is copied from; without any it is fetched
	chunks     []*chunk        // by start; they cover the layer without gap
	first      int             // chunks before it are complete
	generation int             // counts how often the layer was begun
	writes     int             // how many writes into the sink are in progress
	reused     int64           // bytes that were there at the beginning, or copied
	resumed    bool            // some bytes were written by an earlier attempt, or copied
	refetch    bool            // its bytes were wrong once
	stream     bool            // no origin has ranges: one chunk, from the beginning
	noRanges   map[string]bool // origins that have none of this layer
	cold       bool            // what was there at the beginning may not be in memory
	prefetch   sys.Prefetch
	hashing    bool  // a hasher works on it
	lagging    bool  // that hasher is of a generation before
	hashed     int64 // bytes that went into state
	state      hash.Hash
	verified   bool
}

func newLayer(s tarball.Segment, done []sys.Interval, local []Local, stream bool) *layer {
	return &layer{
		digest: s.Blob, offset: s.Offset, size: s.Length, state: sha256.New(), local: local,
		resumed: len(done)+len(local) > 0, cold: len(done) > 0, stream: stream, chunks: chunksOf(s.Length, done),
	}
}

// goOn begins a layer after what is hashed already.
func (l *layer) goOn(s HashState) error {
	if s.N < 0 || s.N > l.size {
		return fmt.Errorf("layer %s has %d bytes, and %d of them are said to be hashed", l.digest, l.size, s.N)
	}
	if err := l.state.(encoding.BinaryUnmarshaler).UnmarshalBinary(s.State); err != nil {
		return fmt.Errorf("layer %s: %w", l.digest, err)
	}
	l.hashed, l.resumed = s.N, true
	l.chunks = chunksOf(l.size, []sys.Interval{{From: 0, To: s.N}})
	return nil
}

// restart drops every byte of the layer. Connections that still have a chunk of
// the generation before notice that by its number, and no new chunk is given out
// until their last write has ended: it must not land on bytes that were hashed. Nor
// while a hasher of that generation reads: its [Sink.Hashed] would release new bytes.
func (l *layer) restart() {
	l.generation++
	l.lagging = l.hashing
	l.first, l.hashed, l.reused, l.resumed, l.local, l.cold = 0, 0, 0, false, nil, false
	l.state = sha256.New()
	l.chunks = chunksOf(l.size, nil)
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

// open returns the chunks that are not complete.
func (l *layer) open() []*chunk {
	l.prefix() // passes over what is complete
	return l.chunks[l.first:]
}

// isActive reports whether anything fetches bytes of the layer.
func (l *layer) isActive() bool {
	return slices.ContainsFunc(l.open(), func(c *chunk) bool { return c.active })
}

// isWaiting reports whether bytes of the chunk are missing and nothing fetches them.
func (c *chunk) isWaiting() bool { return !c.active && c.pos < c.end }

// canFetch reports whether chunks of the layer may be given to connections.
func (l *layer) canFetch() bool { return !l.verified && len(l.local) == 0 && !l.isStale() }

// isStale reports whether connections of the generation before are still writing, or its
// hasher reading.
func (l *layer) isStale() bool {
	if l.writes == 0 || l.lagging {
		return l.lagging
	}
	current := 0
	for _, c := range l.chunks[l.first:] {
		if c.writing {
			current++
		}
	}
	return l.writes > current
}

// join joins the chunk at an index, which waits, with those behind it that do and have had
// no trouble.
func (l *layer) join(i int) {
	n := i + 1
	for n < len(l.chunks) && l.chunks[n].isWaiting() && l.chunks[n].pos == l.chunks[n].start && l.chunks[n].trouble.isNone() {
		n++
	}
	l.chunks[i].end = l.chunks[n-1].end
	l.chunks = slices.Delete(l.chunks, i+1, n)
}

// cut shortens a chunk to end, and lets what lies behind that wait.
func (l *layer) cut(c *chunk, end int64) {
	i := slices.Index(l.chunks, c) + 1
	if i < len(l.chunks) && c.active {
		if next := l.chunks[i]; next.isWaiting() && next.pos == next.start && next.trouble.isNone() {
			next.start, next.pos, next.journaled, c.end = end, end, end, end
			return
		}
	}
	rest := &chunk{start: end, pos: end, journaled: end, end: c.end}
	if !c.active {
		rest.trouble = c.trouble
		rest.trouble.failed, rest.trouble.tried = slices.Clip(c.trouble.failed), slices.Clip(c.trouble.tried)
	}
	l.chunks = slices.Insert(l.chunks, i, rest)
	c.end = end
}

func (l *layer) sum() string { return hex.EncodeToString(l.state.Sum(nil)) }

package cache

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// layerFill is a layer on its way into the file: which bytes are there, how far
// they are hashed. Its fields are guarded by the fill's mutex; what state points
// to belongs to the hasher that set hashing.
type layerFill struct {
	digest v1.Hash
	offset int64 // of the layer in the tarball
	size   int64
	length func(left int64) int64 // of a range
	least  int64                  // what splitting leaves on each side

	local    []localLayer // where it is copied from; without any it is fetched
	spans    []*span      // by start; they cover the layer without gap
	front    int          // spans before it are complete
	round    int          // counts how often the layer was begun
	writes   int          // how many writes into the file are under way
	resumed  bool         // some bytes were written by an earlier run, or copied
	refetch  bool         // its bytes were wrong once
	stream   bool         // the source has no ranges: one span, from the beginning
	cold     bool         // what was there at the beginning may not be in memory
	prefetch prefetch     // of what is hashed
	hashing  bool         // a hasher has it
	hashed   int64        // bytes that went into state
	state    hash.Hash
	verified bool
}

func newLayerFill(s Segment, r ranging, connections int, done []interval, local []localLayer) *layerFill {
	l := &layerFill{digest: s.Blob, offset: s.Offset, size: s.Length, state: sha256.New(), local: local, resumed: len(done)+len(local) > 0, cold: len(done) > 0}
	l.length = func(left int64) int64 { return r.length(left, connections) }
	l.least = r.split
	l.spans = spansOf(l.size, l.length, done)
	return l
}

// restart forgets every byte of the layer. Workers that still have a span of
// the round before find that out by its number, and no new span is given out
// until their last write has ended: it must not land on bytes that were hashed.
func (l *layerFill) restart() {
	l.round++
	l.front, l.hashed, l.resumed, l.local, l.cold = 0, 0, false, nil, false
	l.state = sha256.New()
	length := l.length
	if l.stream {
		length = func(left int64) int64 { return left }
	}
	l.spans = spansOf(l.size, length, nil)
}

// present returns how many bytes of the layer are in the file.
func (l *layerFill) present() int64 {
	n := int64(0)
	for _, s := range l.spans {
		n += s.pos - s.start
	}
	return n
}

// frontier returns how many bytes from the layer's beginning are in the file
// without a gap.
func (l *layerFill) frontier() int64 {
	for l.front < len(l.spans) && l.spans[l.front].pos == l.spans[l.front].end {
		l.front++
	}
	if l.front == len(l.spans) {
		return l.size
	}
	return l.spans[l.front].pos
}

// pending returns a span to fetch that nobody works on, or nil.
func (l *layerFill) pending() *span {
	if len(l.local) > 0 || l.stale() {
		return nil
	}
	for _, s := range l.spans[l.front:] {
		if !s.active && s.pos < s.end {
			return s
		}
	}
	return nil
}

// stale tells whether workers of the round before are still writing.
func (l *layerFill) stale() bool {
	if l.writes == 0 {
		return false
	}
	inRound := 0
	for _, s := range l.spans[l.front:] {
		if s.active && s.reserved > s.pos {
			inRound++
		}
	}
	return l.writes > inRound
}

// largest returns the span in work that has the most to split, or nil.
func (l *layerFill) largest() *span {
	var most *span
	for _, s := range l.spans[l.front:] {
		if s.active && !l.stream && len(l.local) == 0 && s.end-s.reserved >= 2*l.least && (most == nil || s.end-s.reserved > most.end-most.reserved) {
			most = s
		}
	}
	return most
}

// split cuts the second half off what is left of a span and returns it.
func (l *layerFill) split(s *span) *span {
	middle := s.reserved + (s.end-s.reserved)/2
	half := &span{start: middle, pos: middle, reserved: middle, said: middle, end: s.end}
	s.end = middle
	l.spans = slices.Insert(l.spans, slices.Index(l.spans, s)+1, half)
	return half
}

func (l *layerFill) sum() string { return hex.EncodeToString(l.state.Sum(nil)) }

package bucket

import (
	"bytes"
	"fmt"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache/tarball"
)

// The limits of multipart uploads, by
// https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html.
const (
	leastPart = 5 << 20 // but for the last part
	mostParts = 10_000
	mostCopy  = 5 << 30
)

const (
	// usualPart is how long a part is that this process sends: large enough for a request to
	// cost little, small enough for several to be in memory.
	usualPart = 8 << 20
	// ownParts is how many parts of those that are allowed may be sent; the rest is for copies,
	// and for what is cut unevenly around them.
	ownParts = 8_000
	// copyPart is how long a part is that the server copies: several are copied at a time.
	copyPart = 512 << 20
)

// An origin is the object that bytes are copied from, in the state that it was in.
type origin struct {
	Key  string `json:"key"`
	ETag string `json:"etag"`
}

// A span is a range of a tarball that the server can copy from another object.
type span struct {
	From   int64  `json:"from"`
	To     int64  `json:"to"`
	Origin origin `json:"origin"`
	At     int64  `json:"at"` // of From, in the other object
}

// A part is one of an upload.
type part struct {
	number   int32 // from 1 on
	from, to int64 // in the tarball
	copied   *span // as far as the server copies it; nil: this process sends it
}

// A head is a range that this process reads from another object, since it is too short to be
// copied.
type head struct {
	from, to int64
	origin   origin
	at       int64 // of from, in the other object
}

// A plan says how a tarball is uploaded.
type plan struct {
	parts []part
	heads []head
}

// limits are those of parts.
type limits struct{ least, usual, copied int64 }

func defaultLimits(size int64) limits {
	l := limits{least: leastPart, usual: usualPart, copied: copyPart}
	for size/l.usual > ownParts {
		l.usual += 1 << 20
	}
	return l
}

// makePlan plans the upload of a tarball of size bytes, of which spans can be copied: in order,
// without overlap. What is shorter than the least part cannot be copied, nor can what would
// leave less than that before it: it is read from there.
func makePlan(size int64, spans []span, l limits) (plan, error) {
	var p plan
	at, copies := int64(0), int64(0)
	for _, s := range spans {
		if s.From < at || s.To <= s.From || s.To > size || s.At < 0 {
			return plan{}, fmt.Errorf("the range %d to %d of %d bytes cannot be copied", s.From, s.To, size)
		}
		at = s.To
		copies += 1 + (s.To-s.From)/l.copied
	}
	if size/l.usual > mostParts || copies > mostParts {
		return plan{}, fmt.Errorf("the upload would have more than %d parts", mostParts)
	}
	at = 0
	own := func(to int64) {
		n := to - at
		count := max((n+l.usual-1)/l.usual, 1)
		if to < size || count > 1 {
			count = max(min(count, n/l.least), 1)
		}
		for i := range count {
			p.parts = append(p.parts, part{from: at + n*i/count, to: at + n*(i+1)/count})
		}
		at = to
	}
	for _, s := range spans {
		from := s.From
		if before := from - at; before > 0 && before < l.least {
			from = at + l.least
		}
		if s.To-from < l.least {
			p.heads = append(p.heads, head{s.From, s.To, s.Origin, s.At})
			continue
		}
		if from > s.From {
			p.heads = append(p.heads, head{s.From, from, s.Origin, s.At})
		}
		if from > at {
			own(from)
		}
		n := s.To - from
		count := min((n+l.copied-1)/l.copied, max(n/l.least, 1))
		for i := range count {
			a, z := from+n*i/count, from+n*(i+1)/count
			p.parts = append(p.parts, part{from: a, to: z, copied: &span{a, z, s.Origin, s.At + a - s.From}})
		}
		at = s.To
	}
	if at < size {
		own(size)
	}
	if len(p.parts) > mostParts {
		return plan{}, fmt.Errorf("the upload would have %d parts, more than %d", len(p.parts), mostParts)
	}
	for i := range p.parts {
		p.parts[i].number = int32(i + 1)
	}
	return p, nil
}

// A holder is an object of the prefix that has layers of an image.
type holder struct {
	origin
	layout *tarball.Layout
}

// spansOf returns what of a tarball the holders have, the first of them that has a layer. What
// lies between two layers counts too, where it is the same there.
func spansOf(layout *tarball.Layout, holders []holder) (spans []span, layers map[v1.Hash]bool) {
	layers = map[v1.Hash]bool{}
	segments := layout.Segments()
	for i, s := range segments {
		if !s.IsBlob() || s.Length == 0 {
			continue
		}
		h := slices.IndexFunc(holders, func(h holder) bool {
			there, ok := h.layout.Layer(s.Blob)
			return ok && there.Length == s.Length
		})
		if h < 0 {
			continue
		}
		from := holders[h]
		there, _ := from.layout.Layer(s.Blob)
		layers[s.Blob] = true
		if n := len(spans); n > 0 && spans[n-1].Origin == from.origin && spans[n-1].At-spans[n-1].From == there.Offset-s.Offset {
			last := &spans[n-1]
			if gap := between(segments[:i], last.To); gap != nil && bytes.Equal(gap, literalAt(from.layout, last.At+last.To-last.From, there.Offset)) {
				last.To = s.Offset + s.Length
				continue
			}
		}
		spans = append(spans, span{s.Offset, s.Offset + s.Length, from.origin, there.Offset})
	}
	return spans, layers
}

// between returns the literal bytes at the end of segments that begin at an offset; nil if a
// layer is among them.
func between(segments []tarball.Segment, from int64) []byte {
	var all []byte
	for i := len(segments) - 1; i >= 0 && segments[i].Offset >= from; i-- {
		if segments[i].IsBlob() && segments[i].Length > 0 {
			return nil
		}
		all = append(slices.Clone(segments[i].Literal), all...)
	}
	return all
}

// literalAt returns the literal bytes of a layout in a range; nil if others are in it.
func literalAt(layout *tarball.Layout, from, to int64) (all []byte) {
	for _, s := range layout.Segments() {
		if s.Offset+s.Length <= from || s.Offset >= to {
			continue
		}
		if s.IsBlob() || s.Offset < from || s.Offset+s.Length > to {
			return nil
		}
		all = append(all, s.Literal...)
	}
	return all
}

// areWhole reports whether spans begin and end with layers of a layout.
func areWhole(spans []span, layout *tarball.Layout) bool {
	begins, ends := map[int64]bool{}, map[int64]bool{}
	for _, l := range layout.Layers() {
		begins[l.Offset], ends[l.Offset+l.Length] = true, true
	}
	return !slices.ContainsFunc(spans, func(s span) bool { return !begins[s.From] || !ends[s.To] })
}

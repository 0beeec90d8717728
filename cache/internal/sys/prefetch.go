package sys

import (
	"io"
	"os"
)

// prefetchAhead is how many bytes the kernel is asked to read before they are
// needed. By itself it reads 128 KiB ahead on most devices, which leaves a device, or
// a file server, waiting for the next request most of the time.
const prefetchAhead = 4 << 20

// A Prefetch lets the storage read ahead of a reader that reads a file in order.
type Prefetch struct {
	to int64 // has been asked for
}

// A Prefetcher is a reader that reads ahead itself when it is told what comes.
type Prefetcher interface {
	io.ReaderAt
	// Ahead is how many bytes it reads ahead at most.
	Ahead() int64
	// WillNeed reads n bytes from offset on in the background, for ReadAt calls to come.
	WillNeed(offset, n int64)
}

// Keep asks for what follows at, up to end. A reader of no file is left alone, unless it is a
// [Prefetcher].
func (p *Prefetch) Keep(r io.ReaderAt, at, end int64) {
	if own, ok := r.(Prefetcher); ok {
		if offset, n := p.next(at, end, own.Ahead()); n > 0 {
			own.WillNeed(offset, n)
		}
		return
	}
	if offset, n := p.next(at, end, prefetchAhead); n > 0 {
		if f := FileOf(r); f != nil {
			willNeed(f, offset, n)
		}
	}
}

// A Range is one of a file.
type Range struct{ Offset, Length int64 }

// KeepRanges is Keep for a reader that reads ranges one after the other, of which it has read
// done bytes: what follows may be in the ranges to come.
func (p *Prefetch) KeepRanges(r io.ReaderAt, done int64, ranges []Range) {
	ahead := int64(prefetchAhead)
	own, isOwn := r.(Prefetcher)
	f := FileOf(r)
	switch {
	case isOwn:
		ahead = own.Ahead()
	case f == nil:
		return
	}
	var total int64
	for _, s := range ranges {
		total += s.Length
	}
	from, n := p.next(done, total, ahead)
	to := from + n
	for _, s := range ranges {
		if i, j := max(from, 0), min(to, s.Length); i < j {
			if isOwn {
				own.WillNeed(s.Offset+i, j-i)
			} else {
				willNeed(f, s.Offset+i, j-i)
			}
		}
		from, to = from-s.Length, to-s.Length
	}
}

// next returns what is to be asked for now, if n is not 0: half of what may be ahead
// at a time, so that requests are large.
func (p *Prefetch) next(at, end, ahead int64) (offset, n int64) {
	p.to = max(p.to, at)
	if p.to-at > ahead/2 {
		return 0, 0
	}
	offset = p.to
	p.to = max(p.to, min(at+ahead, end))
	return offset, p.to - offset
}

// IsNetworkAt is [IsNetwork] of the directory at path; false if that cannot be
// opened.
func IsNetworkAt(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	return IsNetwork(f)
}

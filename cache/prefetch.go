package cache

import "os"

// prefetchAhead is how many bytes the kernel is asked to read before they are
// needed. By itself it reads 128 KiB ahead on most devices, which leaves a device, or
// a file server, waiting for the next request most of the time.
const prefetchAhead = 4 << 20

// A prefetch lets the storage read ahead of one who reads a file in order.
type prefetch struct {
	to int64 // has been asked for
}

// keep asks for what follows at, up to end. What is no file is left alone.
func (p *prefetch) keep(f any, at, end int64) {
	if offset, n := p.next(at, end); n > 0 {
		if file, ok := f.(*os.File); ok {
			willNeed(file, offset, n)
		}
	}
}

// next returns what is to be asked for now, if n is not 0: half of what may be ahead
// at a time, so that requests are large.
func (p *prefetch) next(at, end int64) (offset, n int64) {
	p.to = max(p.to, at)
	if p.to-at > prefetchAhead/2 {
		return 0, 0
	}
	offset = p.to
	p.to = max(p.to, min(at+prefetchAhead, end))
	return offset, p.to - offset
}

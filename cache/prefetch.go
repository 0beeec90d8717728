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
	file, ok := f.(*os.File)
	p.to = max(p.to, at)
	if !ok || p.to-at > prefetchAhead/2 {
		return
	}
	if n := min(at+prefetchAhead, end) - p.to; n > 0 {
		willNeed(file, p.to, n)
		p.to += n
	}
}

package loader

import (
	"sync"

	"github.com/dockercache/dockercache/cache/tarball"
)

// unpacking reports the progress of an engine that unpacks what it was sent.
type unpacking struct {
	progress func(tarball.Progress) // nil: none
	total    int64                  // of the layers in the archive

	mu    sync.Mutex
	began bool
	ended bool
	done  int64
}

func newUnpacking(progress func(tarball.Progress), archive *tarball.Archive) *unpacking {
	u := &unpacking{progress: progress}
	for _, s := range archive.Layers() {
		u.total += s.Length
	}
	return u
}

// engine returns the engine that reports here, if it can.
func (u *unpacking) engine(e Engine) Engine {
	if r, ok := e.(Reporter); ok && u.progress != nil {
		return r.Reporting(u.report)
	}
	return e
}

// begin is called when all was sent.
func (u *unpacking) begin() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.began = true
	u.call()
}

// report is called with how many bytes of layers are unpacked.
func (u *unpacking) report(done int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.done = min(done, u.total)
	u.call()
}

// call calls the progress, with no total as long as the engine has reported nothing.
func (u *unpacking) call() {
	if u.progress == nil || !u.began || u.ended {
		return
	}
	p := tarball.Progress{Phase: tarball.Unpacking}
	if u.done > 0 {
		p.Done, p.Total = u.done, u.total
	}
	u.progress(p)
}

// end ends the reports.
func (u *unpacking) end() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.ended = true
}

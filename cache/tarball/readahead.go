package tarball

import (
	"context"
	"io"
	"os"

	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/internal/wait"
)

const (
	// aheadBuffer is what is read at a time: large enough for a network file
	// system, which moves up to 1 MiB in one request (rsize, nfs(5)).
	aheadBuffer = 1 << 20
	// aheadBuffers is how many of them may wait for the reader.
	aheadBuffers = 8
)

// readAhead reads in the background, so that neither the storage nor the consumer
// waits while the other works. Unlike most readers it may be closed while
// it is being read, as net/http does with a request's body.
type readAhead struct {
	ctx    context.Context // of the source; it has ended when the reader is closed
	cancel context.CancelCauseFunc
	full   chan []byte
	empty  chan []byte
	ended  chan struct{} // closed when err is set and the source is closed
	err    error

	buffer, rest []byte // in use by Read, and what is left of it
}

// newReadAhead reads src until it ends or ctx does, and closes it. A read in progress
// is waited for: on a file server that hangs nothing ends it.
func newReadAhead(ctx context.Context, cancel context.CancelCauseFunc, src io.ReadCloser) *readAhead {
	r := &readAhead{ctx: ctx, cancel: cancel, full: make(chan []byte, aheadBuffers), empty: make(chan []byte, aheadBuffers), ended: make(chan struct{})}
	for range aheadBuffers {
		r.empty <- nil // made when it is needed: small archives need one
	}
	go r.fill(src)
	return r
}

func (r *readAhead) fill(src io.ReadCloser) {
	defer close(r.ended)
	defer src.Close()
	for {
		var buffer []byte
		select {
		case buffer = <-r.empty:
		case <-r.ctx.Done():
			r.err = wait.Err(r.ctx)
			return
		}
		if buffer == nil {
			buffer = make([]byte, aheadBuffer)
		}
		n, err := sys.ReadChunk(src, buffer[:aheadBuffer])
		if n > 0 {
			r.full <- buffer[:n] // has room: there are no more buffers than that
		}
		if err != nil {
			r.err = err
			return
		}
	}
}

func (r *readAhead) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		if r.buffer != nil {
			r.empty <- r.buffer
			r.buffer = nil
		}
		if r.ctx.Err() != nil {
			return 0, wait.Err(r.ctx)
		}
		select {
		case r.buffer = <-r.full:
		case <-r.ended:
			select { // what came before the end
			case r.buffer = <-r.full:
			default:
				return 0, r.err
			}
		}
		r.rest = r.buffer
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func (r *readAhead) Close() error {
	r.cancel(os.ErrClosed)
	<-r.ended
	return nil
}

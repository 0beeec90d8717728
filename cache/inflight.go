package cache

import (
	"context"
	"maps"
	"os"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/internal/wait"
)

// inflight are the layers that this process is bringing into a directory, so that of
// two images that are stocked at once each layer comes once.
type inflight struct {
	mu     sync.Mutex
	layers map[v1.Hash]*transfer
}

// A transfer is one layer in flight. Its leader brings it; the others wait, without
// holding a connection, and take it from the leader's file.
type transfer struct {
	done chan struct{} // closed when the layer is complete, or will not be

	// Guarded by the mutex of inflight; what is before users does not change
	// once done is closed.
	file     *os.File // nil if it failed
	offset   int64
	ended    bool
	users    int  // who may read file
	released bool // none joins any more
}

// join returns the layer's transfer, and whether the caller is its leader, which
// calls complete when the layer is there, and release in the end whatever happens.
// All others call leave when the file is no longer needed.
func (f *inflight) join(layer v1.Hash) (t *transfer, leader bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if t := f.layers[layer]; t != nil {
		t.users++
		return t, false
	}
	if f.layers == nil {
		f.layers = map[v1.Hash]*transfer{}
	}
	t = &transfer{done: make(chan struct{})}
	f.layers[layer] = t
	return t, true
}

// complete says that the layer, verified, is in file at offset. The transfer keeps a
// handle of its own, so that file may be closed, renamed and removed.
func (f *inflight) complete(t *transfer, file *os.File, offset int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if t.ended {
		return
	}
	if own, err := sys.Duplicate(file, file.Name()); err == nil {
		t.file, t.offset = own, offset
	} else { // the others fetch it themselves: none joins a transfer without a file
		maps.DeleteFunc(f.layers, func(_ v1.Hash, other *transfer) bool { return other == t })
	}
	t.ended = true
	close(t.done)
}

// release ends a transfer: by now the tarball is published, where a later one finds
// the layer, or there is none.
func (f *inflight) release(layer v1.Hash, t *transfer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.layers[layer] == t {
		delete(f.layers, layer)
	}
	t.released = true
	if !t.ended {
		t.ended = true
		close(t.done)
	}
	t.closeUnused()
}

func (f *inflight) leave(t *transfer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t.users--
	t.closeUnused()
}

func (t *transfer) closeUnused() {
	if t.released && t.users == 0 && t.file != nil {
		_ = t.file.Close()
		t.file = nil
	}
}

// isComplete reports whether there is a file to take the layer from.
func (t *transfer) isComplete() bool {
	select {
	case <-t.done:
		return t.file != nil
	default:
		return false
	}
}

// wait waits until a transfer is complete or has failed.
func (t *transfer) wait(ctx context.Context) error {
	select {
	case <-t.done:
		return nil
	case <-ctx.Done():
		return wait.Err(ctx)
	}
}

package cache

import (
	"context"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

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
// holding a connection, and take it from the leader's file. When next to nothing comes to the
// leader, one of those that wait becomes another leader, with its own source, and the
// others wait for both: the first that has the layer serves them all.
type transfer struct {
	done chan struct{} // closed when the layer is complete, or will not be

	// Guarded by the mutex of inflight; what is before leaders does not change
	// once done is closed, for those who use it.
	file     *os.File // nil if it failed
	offset   int64
	by       *flow // whose file it is
	ended    bool
	leaders  []*flow // who are bringing it
	users    int     // who may read file
	released bool    // none joins any more
}

// join returns the layer's transfer, and whether the caller, of whose work f is the flow, is
// a leader: it calls complete when the layer is there, and release in the end whatever
// happens. All others call leave when the file is no longer needed.
func (i *inflight) join(layer v1.Hash, f *flow) (t *transfer, leads bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	t = i.layers[layer]
	if t != nil && !t.isSlow() {
		t.users++
		return t, false
	}
	if t == nil {
		if i.layers == nil {
			i.layers = map[v1.Hash]*transfer{}
		}
		t = &transfer{done: make(chan struct{})}
		i.layers[layer] = t
	}
	t.leaders = append(t.leaders, f)
	return t, true
}

// complete says that the layer, verified, is in file at offset. The transfer keeps a
// handle of its own, so that file may be closed, renamed and removed.
func (i *inflight) complete(t *transfer, f *flow, file *os.File, offset int64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if t.ended {
		return
	}
	if own, err := sys.Duplicate(file, file.Name()); err == nil {
		t.file, t.offset = own, offset
	} else { // the others fetch it themselves: none joins a transfer without a file
		maps.DeleteFunc(i.layers, func(_ v1.Hash, other *transfer) bool { return other == t })
	}
	t.by, t.ended = f, true
	close(t.done)
}

// release ends what a leader does for a transfer. It ends the transfer too if that one has
// brought the layer, for by now the tarball is published, where a later one finds the layer,
// or there is none; and if there is no other leader.
func (i *inflight) release(layer v1.Hash, t *transfer, f *flow) {
	i.mu.Lock()
	defer i.mu.Unlock()
	t.leaders = slices.DeleteFunc(t.leaders, func(l *flow) bool { return l == f })
	if t.by != f && len(t.leaders) > 0 {
		return
	}
	if i.layers[layer] == t {
		delete(i.layers, layer)
	}
	t.released = true
	if !t.ended {
		t.ended = true
		close(t.done)
	}
	t.closeUnused()
}

func (i *inflight) leave(t *transfer) {
	i.mu.Lock()
	defer i.mu.Unlock()
	t.users--
	t.closeUnused()
}

// isFromOther reports whether another leader has brought the layer.
func (i *inflight) isFromOther(t *transfer, f *flow) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return t.ended && t.by != f
}

// use lets a leader take the layer from the file of another, if there is one, and then call
// leave.
func (i *inflight) use(t *transfer, f *flow) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if t.file == nil || t.by == f {
		return false
	}
	t.users++
	return true
}

func (t *transfer) closeUnused() {
	if t.released && t.users == 0 && t.file != nil {
		_ = t.file.Close()
		t.file = nil
	}
}

// isSlow reports whether next to nothing comes to all that lead the transfer. The mutex is
// held.
func (t *transfer) isSlow() bool {
	return !t.ended && !slices.ContainsFunc(t.leaders, func(f *flow) bool { return !f.slow.Load() })
}

// isComplete reports whether there is a file to take the layer from. Only those who have
// joined and not left may ask.
func (t *transfer) isComplete() bool {
	select {
	case <-t.done:
		return t.file != nil
	default:
		return false
	}
}

// wait waits until the first of some transfers is complete or has failed, or next to nothing
// comes to one that is not.
func (i *inflight) wait(ctx context.Context, all []awaited) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for !i.mayGoOn(all) {
		select {
		case <-all[0].transfer.done:
		case <-tick.C:
		case <-ctx.Done():
			return wait.Err(ctx)
		}
	}
	return nil
}

func (i *inflight) mayGoOn(all []awaited) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.ContainsFunc(all, func(a awaited) bool { return a.transfer.ended || a.transfer.isSlow() })
}

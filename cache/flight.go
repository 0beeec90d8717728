package cache

import (
	"context"
	"maps"
	"os"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// flights are the layers that are on their way into a directory by this process,
// so that of two images that are stocked at once each layer comes once.
type flights struct {
	mu    sync.Mutex
	going map[v1.Hash]*flight
}

// A flight is one layer on its way. Who does not fly it waits, without holding a
// connection, and takes it from the file that it has landed in.
type flight struct {
	done chan struct{} // closed when it has landed or failed

	// Guarded by the mutex of the flights; what is before users does not change
	// once done is closed.
	file    *os.File // nil if it failed
	offset  int64
	over    bool
	users   int  // who may read file
	retired bool // nobody else boards
}

// board returns the layer's flight, and whether the caller is its pilot, who
// calls land or retire, whatever happens, and retire in the end. Everybody else
// calls leave when the file is no longer needed.
func (f *flights) board(layer v1.Hash) (fl *flight, pilot bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl := f.going[layer]; fl != nil {
		fl.users++
		return fl, false
	}
	if f.going == nil {
		f.going = map[v1.Hash]*flight{}
	}
	fl = &flight{done: make(chan struct{})}
	f.going[layer] = fl
	return fl, true
}

// land says that the layer, verified, is in file at offset. The flight keeps a
// handle of its own, so that file may be closed, renamed and removed.
func (f *flights) land(fl *flight, file *os.File, offset int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl.over {
		return
	}
	if own, err := duplicate(file); err == nil {
		fl.file, fl.offset = own, offset
	} else { // the others fetch it themselves: nobody boards what has no file
		maps.DeleteFunc(f.going, func(_ v1.Hash, going *flight) bool { return going == fl })
	}
	fl.over = true
	close(fl.done)
}

// retire ends a flight: by now the tarball is published, where the next one finds
// the layer, or there is none.
func (f *flights) retire(layer v1.Hash, fl *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.going[layer] == fl {
		delete(f.going, layer)
	}
	fl.retired = true
	if !fl.over {
		fl.over = true
		close(fl.done)
	}
	fl.closeUnused()
}

func (f *flights) leave(fl *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fl.users--
	fl.closeUnused()
}

func (fl *flight) closeUnused() {
	if fl.retired && fl.users == 0 && fl.file != nil {
		_ = fl.file.Close()
		fl.file = nil
	}
}

// landed tells whether there is a file to take the layer from.
func (fl *flight) landed() bool {
	select {
	case <-fl.done:
		return fl.file != nil
	default:
		return false
	}
}

// wait waits for a flight to land or fail.
func (fl *flight) wait(ctx context.Context) error {
	select {
	case <-fl.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

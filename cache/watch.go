package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache/tarball"
)

// errBrought ends a fetch that is slow, since another image has brought one of its layers.
var errBrought = errors.New("another image has brought the layer")

// errDone ends a fetch that is slow, since there is nothing left to do.
var errDone = errors.New("another writer has published the tarball")

// A watch is what looks after a fetch while it runs.
type watch struct {
	flow    *flow
	rate    *rate
	minRate int64  // of [PutOptions]
	source  string // what errors call the source
	// published reports whether another writer has published what makes this work needless.
	published func(ctx context.Context) (bool, error)
}

// watched begins to look after a fetch, in the context that it returns, which brings some
// layers from the source. end ends that, and returns why the fetch was ended, nil if it was not.
func (a *assembly) watched(ctx context.Context, layers []tarball.Segment) (watched context.Context, end func() error) {
	watched, cancel := context.WithCancelCause(ctx)
	why := make(chan error, 1)
	go func() {
		err := a.look(watched, layers)
		if err != nil {
			cancel(err)
		}
		why <- err
	}()
	return watched, func() error {
		cancel(nil)
		err := <-why
		a.watch.flow.slow.Store(false)
		return err
	}
}

// look measures what comes until ctx ends, or there is a reason to end the fetch.
func (a *assembly) look(ctx context.Context, layers []tarball.Segment) error {
	w, f := &a.watch, a.watch.flow
	var s slowness
	var awaited bool
	var writes int64
	for a.dir.sleep(ctx, measureEvery) == nil {
		now, awaits, came := a.dir.now(), f.awaits(), f.came.Load()
		// What is so for an instant says nothing of the time since the last measurement: a
		// request that follows another, a write of the few bytes that have come.
		begun := f.writes.Load()
		writing := f.writing.Load() > 0 && begun == writes
		slow := s.isSlow(now, (awaits || awaited) && !writing, came+f.other.Load())
		awaited, writes = awaits, begun
		f.slow.Store(slow)
		if got, ok := w.rate.overMinute(now, awaits, came); ok && got < w.minRate {
			return w.tooSlow(got, a.src, layers)
		}
		if !slow {
			continue
		}
		if done, err := w.published(ctx); done || err != nil {
			return cmp.Or(err, errDone)
		}
		if a.isBrought(layers) {
			return errBrought
		}
	}
	return nil
}

// isBrought reports whether one of some layers that come from the source can be taken from
// another image by now. Each is tried once: what is found may be damaged.
func (a *assembly) isBrought(layers []tarball.Segment) bool {
	a.mu.Lock()
	layers = slices.DeleteFunc(slices.Clone(layers), func(l tarball.Segment) bool { return a.here[l.Blob] || a.tried[l.Blob] })
	a.mu.Unlock()
	size, found := map[v1.Hash]int64{}, false
	for _, l := range layers {
		size[l.Blob] = l.Length
		if t := a.leading[l.Blob]; t != nil && a.dir.inflight.isFromOther(t, a.watch.flow) {
			a.tried[l.Blob], found = true, true
		}
	}
	for _, h := range a.dir.layers.holders(a.dir.path, size) {
		for _, layer := range h.layers {
			a.tried[layer], found = true, true
		}
	}
	return found
}

// tooSlow returns the error of a source that gives so many bytes a second.
func (w *watch) tooSlow(got int64, src tarball.Source, layers []tarball.Segment) error {
	var names []string
	for _, l := range layers {
		for _, o := range tarball.OriginsOf(src, l.Blob) {
			if o.Name != "" && !slices.Contains(names, o.Name) {
				names = append(names, o.Name)
			}
		}
	}
	return fmt.Errorf("%w: %d bytes a second came from %s in the last minute, and %d are required; what has come is kept: try again, from another source, or require less",
		ErrTooSlow, got, cmp.Or(strings.Join(names, " and "), w.source, "the source"), w.minRate)
}

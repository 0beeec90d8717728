package cache

import (
	"context"
	"fmt"
)

// work is a span that a worker has taken, in the round in which it did.
type work struct {
	layer *layerFill
	span  *span
	round int
}

// fetchSpans takes spans and fetches them until every layer is verified.
func (f *fill) fetchSpans(ctx context.Context) error {
	for {
		if more, err := f.awaitWork(ctx); !more || err != nil {
			return err
		}
		if err := f.engine.acquire(ctx); err != nil {
			return err
		}
		if w := f.take(); w == nil { // another was quicker
			f.engine.release()
		} else if err := f.fetch(ctx, w); err != nil {
			return err
		}
	}
}

// fetch gets a span to its end, however often the source must be asked. It is
// called with a connection of the engine, which it gives back: at its end, and
// while it waits, so that trouble here holds up nobody else.
func (f *fill) fetch(ctx context.Context, w *work) error {
	for attempt := 0; ; {
		got, err := f.read(ctx, w)
		f.engine.release()
		if attempt++; got > 0 {
			attempt = 0
		}
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case ignoresRange(err):
			f.streamFrom(w)
			return nil
		case !canRetry(err) || attempt == maxAttempts:
			return fmt.Errorf("layer %s: %w", w.layer.digest, err)
		}
		if wait := backoff(attempt, err); wait > 0 {
			if err := f.engine.wait(ctx, wait); err != nil {
				return err
			}
		}
		if err := f.engine.acquire(ctx); err != nil {
			return err
		}
	}
}

// awaitWork waits until there is a span to take (true) or none will ever be.
func (f *fill) awaitWork(ctx context.Context) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		finished := true
		for _, l := range f.layers {
			if l.verified {
				continue
			}
			finished = false
			if l.pending() != nil || l.largest() != nil {
				return true, nil
			}
		}
		if finished {
			return false, nil
		}
		f.cond.Wait()
	}
}

// take gives a worker a span: one that waits, or else half of the one that has
// the most left, so that the end does not hang on one slow connection.
func (f *fill) take() *work {
	f.mu.Lock()
	defer f.mu.Unlock()
	var most *span
	var of *layerFill
	for _, l := range f.layers {
		if l.verified {
			continue
		}
		if s := l.pending(); s != nil {
			s.active = true
			return &work{l, s, l.round}
		}
		if s := l.largest(); s != nil && (most == nil || s.end-s.reserved > most.end-most.reserved) {
			most, of = s, l
		}
	}
	if most == nil {
		return nil
	}
	s := of.split(most)
	s.active = true
	return &work{of, s, of.round}
}

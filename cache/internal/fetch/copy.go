package fetch

import (
	"context"

	"github.com/dockercache/dockercache/cache/internal/sys"
)

// copyLayers copies the layers that are local, while others are fetched
// and hashed. One at a time: two writers would wait for the same file.
func (r *run) copyLayers(ctx context.Context) error {
	defer r.Events.AllCopied()
	for _, l := range r.layers {
		for {
			c, from, err := r.takeLocal(ctx, l)
			if err != nil {
				return err
			}
			if c == nil {
				break
			}
			if err := r.copyChunk(ctx, l, c, from); err != nil {
				return err
			}
		}
		r.settleTrusted(l)
	}
	return nil
}

// trusts reports whether all that there is of a layer was copied, unread, from a place where it
// is known to be right: then it is not hashed. A window moves with what is hashed, so with one
// everything is. The mutex is held.
func (r *run) trusts(l *layer) bool {
	return r.window == 0 && !l.cold && l.generation == 0 && len(l.local) > 0 && len(l.local) == len(r.Local[l.digest]) && l.local[0].Verified != nil
}

// distrust lets a layer be hashed after all. The mutex is held.
func (r *run) distrust(l *layer) {
	if r.trusts(l) {
		from := l.local[0]
		from.Verified = nil
		l.local = append([]Local{from}, l.local[1:]...) // the job's are not changed
	}
}

// settleTrusted decides whether a layer that was copied needs to be hashed.
func (r *run) settleTrusted(l *layer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.cond.Broadcast()
	defer r.poke()
	if !r.trusts(l) {
		return
	}
	if l.size > 0 && l.prefix() == l.size {
		verified := l.local[0].Verified
		r.mu.Unlock() // it looks at a file
		right := verified()
		r.mu.Lock()
		if right {
			l.hashed, l.verified = l.size, true
			r.Events.Verified(l.digest)
			return
		}
	}
	r.distrust(l)
}

// takeLocal takes a chunk of a layer that can be copied, nil if there is none (any
// more): then the source has what is missing. It waits for room in the sink's window.
func (r *run) takeLocal(ctx context.Context, l *layer) (*chunk, Local, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		if ctx.Err() != nil {
			return nil, Local{}, context.Cause(ctx)
		}
		if len(l.local) == 0 || l.prefix() == l.size {
			return nil, Local{}, nil
		}
		c := l.open()[0]
		room := r.limit() - l.offset
		if c.pos < room && room < c.end {
			l.cut(c, room)
		}
		if c.end <= room {
			c.active = true
			return c, l.local[0], nil
		}
		r.cond.Wait()
	}
}

// copyChunk copies what a chunk lacks. Where that cannot be read the layer is looked
// for in the next place: the error is that of the sink, or of ctx.
func (r *run) copyChunk(ctx context.Context, l *layer, c *chunk, from Local) error {
	for at := c.pos; at < c.end; {
		n := min(c.end-at, r.fetcher.sizes.copied)
		unread, err := r.copy(ctx, l.offset+at, from, at, n)
		if sys.IsWrite(err) || ctx.Err() != nil {
			return err
		}
		if err == nil { // before it can be found wrong
			r.Events.Copied(l.digest, from, n)
			r.Journal.Add(l.digest, at, at+n)
		}
		r.mu.Lock()
		if err != nil {
			l.local = l.local[1:]
			c.active = false
			if len(l.local) == 0 && l.present() == 0 {
				l.resumed = false // what comes now is the source's alone
			}
			r.poke()
		} else {
			at += n
			c.pos, c.journaled = at, at
			l.reused += n
			if !unread {
				r.distrust(l)
			}
			r.progress.Done += n
			r.progress.Reused += n
		}
		trusted := r.trusts(l)
		r.cond.Broadcast()
		r.mu.Unlock()
		if err == nil && trusted {
			r.Sink.Hashed(l.offset+at-n, n)
		}
		if err != nil {
			r.Events.Unreadable(l.digest, from, err)
			return nil
		}
		r.report()
	}
	return nil
}

func (r *run) copy(ctx context.Context, to int64, from Local, at, n int64) (unread bool, err error) {
	if c, ok := r.Sink.(Copier); ok {
		return c.Copy(ctx, to, from, at, n)
	}
	return false, sys.ReadAndWrite(ctx, r.Sink, to, from.R, from.Offset+at, n)
}

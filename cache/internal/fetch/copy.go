package fetch

import (
	"context"

	"github.com/dockercache/dockercache/cache/internal/sys"
)

// copyLayers copies the layers that are local, while others are fetched
// and all are hashed. One at a time: two writers would wait for the same file.
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
	}
	return nil
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
		err := r.copy(ctx, l.offset+at, from, at, n)
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
			r.progress.Done += n
			r.progress.Reused += n
		}
		r.cond.Broadcast()
		r.mu.Unlock()
		if err != nil {
			r.Events.Unreadable(l.digest, from, err)
			return nil
		}
		r.report()
	}
	return nil
}

func (r *run) copy(ctx context.Context, to int64, from Local, at, n int64) error {
	if c, ok := r.Sink.(Copier); ok {
		return c.Copy(ctx, to, from, at, n)
	}
	return sys.ReadAndWrite(ctx, r.Sink, to, from.R, from.Offset+at, n)
}

package fetch

import (
	"cmp"
	"context"
	"encoding"
	"fmt"
	"hash"
	"strings"

	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
)

// writeStep is how many bytes the sink may write out at a time at most, while later
// ones come.
const writeStep = 8 << 20

// hashLayers follows the downloads with sha256 over what is in the sink without
// a gap, until every layer is verified. It reads the sink, of a file the page
// cache: what is verified is what was written, resumed bytes included, and no
// connection ever waits for a hash.
func (r *run) hashLayers(ctx context.Context) error {
	buf := make([]byte, sys.HashBuffer)
	for {
		t, err := r.awaitBytes(ctx)
		if t == nil || err != nil {
			return err
		}
		if err := r.hash(ctx, t, buf); err != nil {
			if ctx.Err() == nil && r.discardResumed(t) {
				continue
			}
			return err
		}
		if err := r.settle(t); err != nil {
			return err
		}
	}
}

// hashing is a layer that a hasher has taken, and up to where its bytes are
// there. A layer that is begun again meanwhile gets another state.
type hashing struct {
	layer      *layer
	generation int
	state      hash.Hash
	from, upTo int64
	cold       bool
}

// awaitBytes waits for a layer with bytes that are not hashed yet, and takes it.
// It returns nil when every layer is verified.
func (r *run) awaitBytes(ctx context.Context) (*hashing, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		finished := true
		for _, l := range r.layers {
			if l.verified {
				continue
			}
			finished = false
			if upTo := l.prefix(); !l.hashing && !r.trusts(l) && (upTo-l.hashed >= r.hashStep() || upTo == l.size) {
				l.hashing = true
				return &hashing{l, l.generation, l.state, l.hashed, upTo, l.cold}, nil
			}
		}
		if finished {
			return nil, nil
		}
		r.cond.Wait()
	}
}

func (r *run) hash(ctx context.Context, t *hashing, buf []byte) error {
	l, begun := t.layer, t.from
	keeper, _ := r.Sink.(StateSink)
	for t.from < t.upTo {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if t.cold {
			l.prefetch.Keep(r.Sink, l.offset+t.from, l.offset+t.upTo)
		}
		p := buf[:min(int64(len(buf)), t.upTo-t.from)]
		next := int64(-1)
		if keeper != nil {
			next = keeper.NextState(l.offset + t.from)
			p = p[:min(int64(len(p)), next-l.offset-t.from)]
		}
		if _, err := r.Sink.ReadAt(p, l.offset+t.from); err != nil {
			return &sys.WriteError{Err: fmt.Errorf("read back: %w", err)}
		}
		_, _ = t.state.Write(p) // a hash never fails
		t.from += int64(len(p))
		if l.offset+t.from == next {
			state, err := t.state.(encoding.BinaryMarshaler).MarshalBinary()
			if err != nil {
				return err
			}
			keeper.KeepState(next, HashState{t.from, state})
		}
		if t.from-begun >= writeStep || t.from == t.upTo {
			r.Sink.Hashed(l.offset+begun, t.from-begun)
			begun = t.from
		}
	}
	return nil
}

// discardResumed begins a layer again that cannot be read back, if an earlier attempt or
// another tarball has a part in it: then what is written now may be readable.
func (r *run) discardResumed(t *hashing) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := t.layer
	if t.generation == l.generation && !l.resumed {
		return false
	}
	l.hashing, l.lagging = false, false
	if t.generation == l.generation {
		r.Events.Damaged(l.digest)
		r.restart(l)
	}
	r.cond.Broadcast()
	return true
}

// hashStep is how many bytes are worth a hasher's time. With a window what is in it
// may be less.
func (r *run) hashStep() int64 {
	if r.window > 0 {
		return 1
	}
	return sys.HashBuffer
}

// settle gives the layer back, and if all of it is hashed decides what it is:
// right, to be fetched again, or wrong for good.
func (r *run) settle(t *hashing) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.cond.Broadcast()
	defer r.poke()
	l := t.layer
	l.hashing, l.lagging = false, false
	if t.generation != l.generation {
		return nil
	}
	l.hashed = t.from
	if l.hashed < l.size {
		return nil
	}
	got := l.sum()
	switch {
	case got == l.digest.Hex:
		l.verified = true
		r.Events.Verified(l.digest)
		return nil
	case l.resumed: // the journal or another tarball was wrong
		r.Events.Damaged(l.digest)
		r.restart(l)
		return nil
	case !l.refetch:
		l.refetch = true
		if d, ok := r.Source.(tarball.Distruster); ok {
			d.Distrust(l.digest)
		}
		r.restart(l)
		return nil
	}
	if l.size == 0 { // nothing was read
		return fmt.Errorf("layer %s: %w: the manifest states that it has 0 bytes, but the digest of 0 bytes is sha256:%s; the image is damaged", l.digest, tarball.ErrDigest, got)
	}
	from := "the source"
	if o, ok := r.Source.(tarball.OriginReporter); ok {
		from = cmp.Or(strings.Join(o.Origins(l.digest), " and "), from)
	}
	return fmt.Errorf("layer %s: %w: downloaded twice (%d bytes), got sha256:%s from %s; the blob is corrupt at the source or was altered in transit", l.digest, tarball.ErrDigest, l.size, got, from)
}

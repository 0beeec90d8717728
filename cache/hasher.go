package cache

import (
	"context"
	"fmt"
	"hash"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// hashBuffer is how much is read back and hashed at a time: it stays in the
// CPU's cache in between.
const hashBuffer = 256 << 10

// writeStep is how many bytes go to the disk at a time at most, while later ones come.
const writeStep = 8 << 20

// hashLayers follows the downloads with sha256 over what is in the file without
// a gap, until every layer is verified. It reads the file, which is in the page
// cache: what is proven is what was written, resumed bytes included, and no
// connection ever waits for a hash. What has been hashed is on its way to the disk, so
// that publication does not wait for all of it.
func (f *fill) hashLayers(ctx context.Context) error {
	buf := make([]byte, hashBuffer)
	for {
		t, err := f.awaitBytes(ctx)
		if t == nil || err != nil {
			return err
		}
		if err := f.hash(ctx, t, buf); err != nil {
			return err
		}
		if err := f.settle(t); err != nil {
			return err
		}
	}
}

// hashing is a layer that a hasher has taken, and up to where its bytes are
// there. A layer that is begun anew meanwhile gets another state.
type hashing struct {
	layer      *layerFill
	round      int
	state      hash.Hash
	from, upTo int64
	cold       bool
}

// awaitBytes waits for a layer with bytes that are not hashed yet, and takes it.
// It returns nil when every layer is verified.
func (f *fill) awaitBytes(ctx context.Context) (*hashing, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		finished := true
		for _, l := range f.layers {
			if l.verified {
				continue
			}
			finished = false
			if upTo := l.frontier(); !l.hashing && (upTo-l.hashed >= hashBuffer || upTo == l.size) {
				l.hashing = true
				return &hashing{l, l.round, l.state, l.hashed, upTo, l.cold}, nil
			}
		}
		if finished {
			return nil, nil
		}
		f.cond.Wait()
	}
}

func (f *fill) hash(ctx context.Context, t *hashing, buf []byte) error {
	l, begun := t.layer, t.from
	for t.from < t.upTo {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if t.cold {
			l.prefetch.keep(f.file, l.offset+t.from, l.offset+t.upTo)
		}
		p := buf[:min(int64(len(buf)), t.upTo-t.from)]
		if _, err := f.file.ReadAt(p, l.offset+t.from); err != nil {
			return fmt.Errorf("read back: %w", err)
		}
		_, _ = t.state.Write(p) // a hash never fails
		t.from += int64(len(p))
		if !t.cold && (t.from-begun >= writeStep || t.from == t.upTo) {
			startWriting(f.file, l.offset+begun, t.from-begun)
			begun = t.from
		}
	}
	return nil
}

// settle gives the layer back, and if all of it is hashed decides what it is:
// right, to be fetched again, or wrong for good.
func (f *fill) settle(t *hashing) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer f.cond.Broadcast()
	l := t.layer
	l.hashing = false
	if t.round != l.round {
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
		if f.options.verified != nil {
			f.options.verified(l.digest)
		}
		return nil
	case l.resumed: // it was not what a journal or another tarball said
		if f.options.damaged != nil {
			f.options.damaged(l.digest)
		}
		f.restart(l)
		return nil
	case !l.refetch:
		l.refetch = true
		if d, ok := f.src.(interface{ Distrust(digest v1.Hash) }); ok {
			d.Distrust(l.digest)
		}
		f.restart(l)
		return nil
	}
	from := "the source"
	if o, ok := f.src.(interface{ Origins(digest v1.Hash) []string }); ok {
		from = strings.Join(o.Origins(l.digest), " and ")
	}
	return fmt.Errorf("layer %s: %w: twice the %d bytes that were read had another digest, at last sha256:%s from %s: that is damaged, or something on the way changed them", l.digest, ErrBlobDigest, l.size, got, from)
}

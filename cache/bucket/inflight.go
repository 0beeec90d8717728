package bucket

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/wait"
)

// inflight are the tarballs that this process is storing, so that a layer that two of them have
// comes once: the second waits for the first, and then copies the layer from its object.
type inflight struct {
	mu      sync.Mutex
	leaders []*leader
}

// A leader is a tarball that is being stored.
type leader struct {
	bucket *Bucket
	image  string // the name, and the image's digest
	layers []v1.Hash
	moved  atomic.Int64 // bytes that have come
	done   chan struct{}
	waited bool // for another one
}

const (
	// lookEvery is how often one that waits looks whether the other makes progress.
	lookEvery = 2 * time.Second
	// dripAfter is for how long the other may bring less than dripBytes.
	dripAfter = 30 * time.Second
	dripBytes = 2 << 20
)

// join waits until no other that makes progress is storing the same image under the same name, or
// one of the layers, and makes the caller a leader, which calls release in the end. Another image
// under the same name is not waited for: which of the two stays is decided when they are complete.
func (b *Bucket) join(ctx context.Context, image string, layers []tarball.Segment) (*leader, error) {
	f := &b.inflight
	l := &leader{bucket: b, image: image, done: make(chan struct{})}
	for _, s := range layers {
		if s.Length > 0 {
			l.layers = append(l.layers, s.Blob)
		}
	}
	slow := map[*leader]bool{}
	for {
		f.mu.Lock()
		i := slices.IndexFunc(f.leaders, func(o *leader) bool { return !slow[o] && o.shares(l) })
		if i < 0 {
			f.leaders = append(f.leaders, l)
			f.mu.Unlock()
			return l, nil
		}
		other := f.leaders[i]
		f.mu.Unlock()
		l.waited = true
		drips, err := other.wait(ctx)
		if err != nil {
			return nil, err
		}
		slow[other] = drips
	}
}

func (l *leader) shares(with *leader) bool {
	return l.image == with.image || slices.ContainsFunc(l.layers, func(d v1.Hash) bool { return slices.Contains(with.layers, d) })
}

// wait waits until the leader is done, or next to nothing has come to it for a while.
func (l *leader) wait(ctx context.Context) (drips bool, err error) {
	now := l.bucket.now
	tick := time.NewTicker(l.bucket.lookEvery)
	defer tick.Stop()
	since, moved := now(), l.moved.Load()
	for {
		select {
		case <-l.done:
			return false, nil
		case <-ctx.Done():
			return false, wait.Err(ctx)
		case <-tick.C:
		}
		if n := l.moved.Load(); n-moved >= dripBytes {
			since, moved = now(), n
		} else if now().Sub(since) >= dripAfter {
			return true, nil
		}
	}
}

func (l *leader) release() {
	f := &l.bucket.inflight
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leaders = slices.DeleteFunc(f.leaders, func(o *leader) bool { return o == l })
	close(l.done)
}

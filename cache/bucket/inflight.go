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
	flight *inflight
	name   string
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

// join waits until no other that makes progress is storing the same name or one of the layers,
// and makes the caller a leader, which calls release in the end.
func (f *inflight) join(ctx context.Context, name string, layers []tarball.Segment, now func() time.Time) (*leader, error) {
	l := &leader{flight: f, name: name, done: make(chan struct{})}
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
		drips, err := other.wait(ctx, now)
		if err != nil {
			return nil, err
		}
		slow[other] = drips
	}
}

func (l *leader) shares(with *leader) bool {
	return l.name == with.name || slices.ContainsFunc(l.layers, func(d v1.Hash) bool { return slices.Contains(with.layers, d) })
}

// wait waits until the leader is done, or next to nothing has come to it for a while.
func (l *leader) wait(ctx context.Context, now func() time.Time) (drips bool, err error) {
	tick := time.NewTicker(lookEvery)
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
	l.flight.mu.Lock()
	defer l.flight.mu.Unlock()
	l.flight.leaders = slices.DeleteFunc(l.flight.leaders, func(o *leader) bool { return o == l })
	close(l.done)
}

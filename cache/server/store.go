package server

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dockercache/dockercache/cache"
	"github.com/dockercache/dockercache/cache/tarball"
)

// A Store is where tarballs are, such as a bucket.Bucket. It must be safe for concurrent use.
type Store interface {
	// List returns all tarballs, as [cache.Dir.List] does. It should not read again what has
	// not changed.
	List(ctx context.Context) ([]cache.Entry, error)
	// Get opens a tarball, as [cache.Dir.Get] does.
	Get(ctx context.Context, name string) (*tarball.Tarball, error)
	// Touch records that a tarball is used, as [cache.Dir.Touch] does.
	Touch(ctx context.Context, name string) error
}

// DefaultListEvery is the default of [Options.ListEvery].
const DefaultListEvery = 10 * time.Second

// touchEvery is how often the use of a tarball is recorded: a request to the store or two.
const touchEvery = time.Hour

// NewOf is [New] of a store. Where it is no directory it is listed no more often than
// [Options.ListEvery]: a tarball that has come is served that much later, unless another
// one is found to be gone. Of a nil store nothing is served.
//
// Whether a tarball that is held can be read to its end when it was replaced or removed is
// the store's matter: a bucket's cannot.
func NewOf(store Store, o *Options) *Handler {
	if dir, ok := store.(*cache.Dir); ok || store == nil {
		return New(dir, o)
	}
	s := newServer(o)
	s.lists = true
	c := &storeCatalog{store: store, every: s.ListEvery, skipped: s.notServed, holder: holder{hold: s.Hold}, touched: map[string]time.Time{}}
	s.catalog = c
	return &Handler{s, &c.holder}
}

// storeCatalog is what a store holds.
type storeCatalog struct {
	store   Store
	every   time.Duration
	skipped func(context.Context, error) // is called with why a tarball is not served
	holder  holder
	known   atomic.Pointer[listing] // nil before the first list
	stale   atomic.Bool             // what is known is known to be wrong

	mu       sync.Mutex // held by who lists
	listed   time.Time  // when the last list began
	err      error      // of that
	reported map[string]string

	touching sync.Mutex
	touched  map[string]time.Time
}

func (c *storeCatalog) images(ctx context.Context, fresh bool) (*listing, error) {
	if known := c.known.Load(); known != nil && !fresh {
		return known, nil
	}
	asked := time.Now()
	c.mu.Lock()
	var skipped []error
	// Another request may have listed meanwhile, for this one too, also if it failed.
	isNew := c.listed.After(asked) || c.err == nil && !c.listed.IsZero() && asked.Sub(c.listed) < c.every && !c.stale.Load()
	if !isNew {
		skipped = c.list(ctx)
	}
	err := c.err
	c.mu.Unlock()
	for _, err := range skipped { // not under the lock: the function may take its time
		c.skipped(ctx, err)
	}
	if err != nil {
		return nil, err
	}
	return c.known.Load(), nil
}

// list brings up to date what is known, and returns why tarballs are not served that have
// not been reported.
func (c *storeCatalog) list(ctx context.Context) (skipped []error) {
	c.listed = time.Now()
	c.stale.Store(false)
	var entries []cache.Entry
	// What is found is for all requests: it does not end with this one.
	if entries, c.err = c.store.List(context.WithoutCancel(ctx)); c.err != nil {
		return nil
	}
	var all []image
	reported := map[string]string{}
	for _, e := range entries {
		err := e.Err
		if err == nil {
			var i image
			if i, err = newImage(e.Name, e.Info); err == nil {
				i.run, i.written = e.Run, e.Written
				i.version = version{size: e.Size, written: e.Written.UnixNano(), inode: e.Inode}
				all = append(all, i)
				continue
			}
		}
		if reported[e.Name] = err.Error(); c.reported[e.Name] != reported[e.Name] {
			skipped = append(skipped, err)
		}
	}
	c.reported = reported
	c.known.Store(newListing(all))
	return skipped
}

// confirm implements [catalog]. What was listed a moment ago is believed: open finds out.
func (c *storeCatalog) confirm(context.Context, []image) bool { return true }

func (c *storeCatalog) held() []image { return c.holder.images() }

// open opens a tarball, or returns the one that is open still.
func (c *storeCatalog) open(ctx context.Context, i image) (*tarball.Tarball, func(), error) {
	t, done, err := c.holder.acquire(i, func() (*tarball.Tarball, error) { return getImage(ctx, c.store, i) })
	if isGone(err) {
		c.stale.Store(true)
	}
	return t, done, err
}

// getImage opens the tarball of an image. The error is [cache.ErrReplaced] when it has
// another one by now.
func getImage(ctx context.Context, from Store, i image) (*tarball.Tarball, error) {
	t, err := from.Get(ctx, i.file)
	if err == nil && t.Image.Digest() != i.info.Image.Digest() {
		_ = t.Close()
		return nil, fmt.Errorf("%s: %w: it holds %s now", i.file, cache.ErrReplaced, t.Image.Digest())
	}
	return t, err
}

// used implements [catalog]. It is best effort: who may read need not be allowed to write.
func (c *storeCatalog) used(ctx context.Context, i image) {
	now := time.Now()
	c.touching.Lock()
	recent := now.Sub(c.touched[i.file]) < touchEvery
	if !recent {
		c.touched[i.file] = now
	}
	c.touching.Unlock()
	if !recent {
		_ = c.store.Touch(ctx, i.file)
	}
}

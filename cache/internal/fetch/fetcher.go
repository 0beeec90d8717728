package fetch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/wait"
)

// MostConnections is how many ranges a [Fetcher] reads at a time at most by default.
const MostConnections = 64

// firstConnections is how many it begins with. SOCI recommends 10 to 20 for ECR, which gives some
// 25 MB/s to each.
const firstConnections = 16

// A Fetcher fetches the layers of tarballs. Its connections are shared by all fetches
// that run at the same time; one that waits to try again does not hold any. It is safe
// for concurrent use.
//
// Memory: 1 MiB for each connection, and 256 KiB for each fetch and CPU, and 1 MiB for
// each fetch that copies where the kernel cannot.
type Fetcher struct {
	// Sleep waits between attempts; tests replace it.
	Sleep func(ctx context.Context, d time.Duration) error

	slots   chan struct{}
	buffers sync.Pool
	sizes   sizes
}

// New returns a fetcher that reads so many ranges at a time; for less than 1 the
// number finds itself.
func New(connections int) *Fetcher {
	if connections < 1 {
		connections = firstConnections
	}
	f := &Fetcher{Sleep: wait.Sleep, slots: make(chan struct{}, connections), sizes: defaultSizes}
	f.buffers.New = func() any { b := make([]byte, sys.ReadBuffer); return &b }
	return f
}

// SetSizes sets the lengths of ranges, in bytes, for tests with small layers: the least
// and most of a range, and the least that is split off one.
func (f *Fetcher) SetSizes(least, most, split int64) { f.sizes = sizes{least, most, split} }

func (f *Fetcher) connections() int { return cap(f.slots) }

func (f *Fetcher) acquire(ctx context.Context) error {
	select {
	case f.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return wait.Err(ctx)
	}
}

func (f *Fetcher) release() { <-f.slots }

// A Result is what [Fetcher.Fetch] has got.
type Result struct {
	// Downloaded is how many bytes came from the source, duplicates included.
	Downloaded int64
	// Sources is what each origin of the source has given, the preferred first.
	Sources []tarball.SourceUse
}

// A Job is what [Fetcher.Fetch] does. Sink, Layout and Source are required.
type Job struct {
	Sink   Sink
	Layout *tarball.Layout
	Source tarball.Source

	// Layers are the layers to bring. Nil is all of the layout.
	Layers []tarball.Segment
	// Have says which bytes of layers an earlier attempt has written, as [sys.Union]
	// returns them. They are hashed like all others.
	Have map[v1.Hash][]sys.Interval
	// Local says where layers can be copied from. What is wrong there comes from the
	// source.
	Local map[v1.Hash][]Local

	// Journal, when not nil, records what is written.
	Journal *Journal
	// Events, when not nil, is called with what happens to layers.
	Events Events
	// Progress, when not nil, is called at the beginning and whenever bytes of layers
	// were written, by one goroutine at a time.
	Progress func(tarball.Progress)
	// Before is the progress of the layout's layers that are not among Layers.
	Before tarball.Progress
}

// Events is called with what happens to the layers of a job. Its methods are called
// concurrently, must be quick, and must not call the fetcher.
type Events interface {
	// Copied: n bytes of a layer were copied.
	Copied(layer v1.Hash, from Local, n int64)
	// Unreadable: a layer cannot be copied from where it is.
	Unreadable(layer v1.Hash, from Local, err error)
	// AllCopied: Job.Local is no longer needed.
	AllCopied()
	// Restarted: nothing that there was of the layer counts any more.
	Restarted(layer v1.Hash)
	// Damaged: the layer was there, or copied, and is wrong. Restarted follows.
	Damaged(layer v1.Hash)
	// Verified: all of the layer is in the sink, with its digest.
	Verified(layer v1.Hash)
}

// NoEvents are [Events] without effect, to embed.
type NoEvents struct{}

func (NoEvents) Copied(v1.Hash, Local, int64)     {}
func (NoEvents) Unreadable(v1.Hash, Local, error) {}
func (NoEvents) AllCopied()                       {}
func (NoEvents) Restarted(v1.Hash)                {}
func (NoEvents) Damaged(v1.Hash)                  {}
func (NoEvents) Verified(v1.Hash)                 {}

// Fetch writes all that the layout plans to the sink: the literal bytes, and the
// layers of the job. The size and sha256 of every layer are verified by what is in
// the sink. It returns what came from the source, also when it fails.
//
// A range that fails is asked for again from where it stopped, after a delay
// that grows, until too little has come for six times in a row, see [pace];
// [tarball.TemporaryError], [tarball.RetryAfterError] and [tarball.RangeIgnorer]
// for what an error may say more. A layer with wrong bytes is fetched once more, after
// [tarball.Distruster].
//
// After an error the sink holds nothing that may be used. Bytes that are not
// the layer's wrap [tarball.ErrSize] or [tarball.ErrDigest]; other errors are those of
// the source, the sink, which is a [*sys.WriteError], and ctx.
func (f *Fetcher) Fetch(ctx context.Context, job Job) (Result, error) {
	if job.Sink == nil || job.Layout == nil || job.Source == nil {
		return Result{}, errors.New("fetch: sink, layout and source are required")
	}
	if job.Events == nil {
		job.Events = NoEvents{}
	}
	if job.Layers == nil {
		job.Layers = job.Layout.Layers()
	}
	caller := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r := &run{Job: job, fetcher: f, cancel: cancel, progress: job.Before, window: job.Sink.Window()}
	r.cond.L = &r.mu
	for _, s := range job.Layout.Segments() {
		if !s.IsBlob() {
			if _, err := job.Sink.WriteAt(s.Literal, s.Offset); err != nil {
				return Result{}, &sys.WriteError{Err: err}
			}
		}
	}
	for _, s := range job.Layers {
		l := newLayer(s, f.sizes.within(r.window, f.connections()), f.connections(), job.Have[s.Blob], job.Local[s.Blob], ignoresRange(job.Source))
		l.reused = l.present()
		r.layers = append(r.layers, l)
		r.progress.Total += l.size
		r.progress.Done += l.reused
		r.progress.Reused += l.reused
	}
	r.report()
	slices.SortStableFunc(r.layers, func(a, b *layer) int {
		if r.window > 0 {
			return cmp.Compare(a.offset, b.offset)
		}
		// The largest first: its sha256 is one after the other and takes longest.
		return cmp.Compare(b.size, a.size)
	})

	stop := context.AfterFunc(ctx, func() { r.mu.Lock(); r.cond.Broadcast(); r.mu.Unlock() })
	defer stop()
	var group errgroup.Group
	for range min(f.connections(), r.mostWorkers()) {
		group.Go(func() error { return r.stopOn(r.fetchChunks(ctx)) })
	}
	if len(job.Local) > 0 {
		group.Go(func() error { return r.stopOn(r.copyLayers(ctx)) })
	}
	for range min(runtime.GOMAXPROCS(0), len(r.layers)) {
		group.Go(func() error { return r.stopOn(r.hashLayers(ctx)) })
	}
	if err := group.Wait(); err != nil {
		r.journalRest()
		if cause := context.Cause(ctx); caller.Err() == nil || !errors.Is(cause, context.Cause(caller)) {
			return r.result(), cause // the first error
		}
		return r.result(), wait.Err(caller)
	}
	return r.result(), nil
}

// run is one call of Fetch.
type run struct {
	Job
	fetcher *Fetcher
	cancel  context.CancelCauseFunc
	window  int64

	mu       sync.Mutex
	cond     sync.Cond // work appeared, bytes were written, a layer is verified, or the context ended
	layers   []*layer
	progress tarball.Progress

	reporting sync.Mutex // is held while Job.Progress is called
}

func (r *run) result() Result { return Result{Downloaded: r.progress.Downloaded - r.Before.Downloaded} }

// report calls Progress with how far it is.
func (r *run) report() {
	if r.Progress == nil {
		return
	}
	r.reporting.Lock()
	defer r.reporting.Unlock()
	r.mu.Lock()
	p := r.progress
	r.mu.Unlock()
	r.Progress(p)
}

func (r *run) mostWorkers() int {
	n := 0
	for _, l := range r.layers {
		n += int(min(l.size/l.split, int64(r.fetcher.connections()))) + 1
	}
	return n
}

// stopOn ends all others when one fails.
func (r *run) stopOn(err error) error {
	if err != nil {
		r.cancel(err)
	}
	return err
}

// work is a chunk that a worker has taken, of the generation in which it did.
type work struct {
	layer      *layer
	chunk      *chunk
	generation int
}

// fetchChunks takes chunks and fetches them until every layer is verified.
func (r *run) fetchChunks(ctx context.Context) error {
	for {
		if more, err := r.awaitWork(ctx); !more || err != nil {
			return err
		}
		if err := r.fetcher.acquire(ctx); err != nil {
			return err
		}
		if w := r.take(); w == nil { // another was quicker
			r.fetcher.release()
		} else if err := r.fetch(ctx, w); err != nil {
			return err
		}
	}
}

// fetch gets a chunk to its end, however often the source must be asked. It is
// called with a connection of the fetcher, which it gives back: at its end, and
// while it waits, so that trouble here holds up no other fetch.
func (r *run) fetch(ctx context.Context, w *work) error {
	var p pace
	for attempt := 0; ; {
		p.begin(r.left(w))
		got, err := r.read(ctx, w)
		r.fetcher.release()
		if attempt++; p.isProgress(got) {
			attempt = 0
		}
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case ignoresRange(err) && r.streamFrom(w):
			return nil
		case !canRetry(err) || attempt == maxAttempts:
			return fmt.Errorf("layer %s: %w", w.layer.digest, err)
		}
		if d := delay(attempt, err); d > 0 {
			if err := r.fetcher.Sleep(ctx, d); err != nil {
				return err
			}
		}
		if err := r.fetcher.acquire(ctx); err != nil {
			return err
		}
	}
}

// left returns how many bytes a chunk lacks.
func (r *run) left(w *work) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return w.chunk.end - w.chunk.pos
}

// awaitWork waits until there is a chunk to take (true) or none will ever be.
func (r *run) awaitWork(ctx context.Context) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		finished := true
		limit := r.limit()
		for _, l := range r.layers {
			if l.verified {
				continue
			}
			if l.pending(limit, finished) != nil || l.largest() != nil {
				return true, nil
			}
			finished = false
		}
		if finished {
			return false, nil
		}
		r.cond.Wait()
	}
}

// take gives a worker a chunk: one that waits, or else half of the one that has
// the most left, so that the end does not hang on one slow connection.
func (r *run) take() *work {
	r.mu.Lock()
	defer r.mu.Unlock()
	var most *chunk
	var of *layer
	limit, isFirst := r.limit(), true
	for _, l := range r.layers {
		if l.verified {
			continue
		}
		c := l.pending(limit, isFirst)
		isFirst = false
		if c != nil {
			c.active = true
			return &work{l, c, l.generation}
		}
		if c := l.largest(); c != nil && (most == nil || c.end-c.claimed > most.end-most.claimed) {
			most, of = c, l
		}
	}
	if most == nil {
		return nil
	}
	c := of.splitOff(most)
	c.active = true
	return &work{of, c, of.generation}
}

// limit returns the offset in the tarball up to which the sink takes bytes.
func (r *run) limit() int64 {
	if r.window > 0 {
		for _, l := range r.layers {
			if !l.verified {
				return l.offset + l.hashed + r.window
			}
		}
	}
	return noLimit
}

// isNext reports whether a chunk follows what is in the sink without a gap, so that
// only hashing must go on for it to fit into the window.
func (r *run) isNext(l *layer, c *chunk) bool {
	i := slices.IndexFunc(r.layers, func(l *layer) bool { return !l.verified })
	return r.layers[i] == l && l.prefix() < l.size && l.chunks[l.first] == c
}

// streamFrom begins a layer again as one chunk, for a source that has no ranges. It
// reports false if the layer is read so already.
func (r *run) streamFrom(w *work) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case w.generation != w.layer.generation:
		return true
	case w.layer.stream:
		return false
	}
	w.layer.stream = true
	r.restart(w.layer)
	r.cond.Broadcast()
	return true
}

// restart begins a layer again, for the journal too.
func (r *run) restart(l *layer) {
	r.progress.Done -= l.present()
	r.progress.Reused -= l.reused
	l.restart()
	r.Journal.Forget(l.digest)
	r.Events.Restarted(l.digest)
}

// journalRest journals what was written since the last lines.
func (r *run) journalRest() {
	for _, l := range r.layers {
		for _, c := range l.chunks {
			r.Journal.Add(l.digest, c.journaled, c.pos)
		}
	}
}

package fetch

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"runtime"
	"slices"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/cache/timing"
	"github.com/dockercache/dockercache/internal/wait"
)

// MostConnections is how many ranges a [Fetcher] reads at a time at most by default.
const MostConnections = 64

// firstConnections is how many it begins with. SOCI recommends 10 to 20 for ECR, which gives some
// 25 MB/s to each.
const firstConnections = 16

// A Fetcher fetches the layers of tarballs. Its connections are shared by all fetches
// that run at the same time, see [Fetcher.Fetch]. It is safe for concurrent use.
//
// Memory: 1 MiB for each connection, 512 KiB where the number finds itself, 256 KiB for each
// fetch and CPU, and 1 MiB for each fetch that copies where the kernel cannot.
type Fetcher struct {
	// MinRangeRate is how many bytes a second a connection must fetch, in the mean of a
	// minute after its first byte; 0 is no limit. Set it before the first fetch.
	MinRangeRate int64
	// Log gets changes of the number of connections and of origins. Set it before the first
	// fetch.
	Log *slog.Logger

	buffers sync.Pool
	sizes   sizes

	mu      sync.Mutex
	limit   limiter
	got     int64 // bytes, by all runs
	runs    map[*run]bool
	origins map[string]*origin // by name
	hosts   map[string]*hostState
}

// New returns a fetcher that reads at most so many ranges at a time; for less than 1 the
// number finds itself, up to [MostConnections].
func New(connections int) *Fetcher {
	f := &Fetcher{
		Log: slog.New(slog.DiscardHandler), limit: newLimiter(connections), sizes: defaultSizes,
		runs: map[*run]bool{}, origins: map[string]*origin{}, hosts: map[string]*hostState{},
	}
	size := max(min(32<<20/max(f.limit.most, 1), sys.ReadBuffer), 64<<10)
	f.buffers.New = func() any { b := make([]byte, size); return &b }
	return f
}

// SetSizes sets the lengths of ranges, in bytes, for tests with small layers: the least and
// most of a range, and what a slow connection keeps at least.
func (f *Fetcher) SetSizes(least, most, keep int64) {
	f.sizes = sizes{whole: least, first: least, least: least, most: most, keep: keep, copied: most}
}

// A Result is what [Fetcher.Fetch] has got.
type Result struct {
	// Downloaded is how many bytes came from the source, duplicates included.
	Downloaded int64
	// Sources is what each origin of the source has given, in the order in which they were
	// first asked.
	Sources []tarball.SourceUse
}

// A Job is what [Fetcher.Fetch] does. Sink, Layout and Source are required.
type Job struct {
	Sink   Sink
	Layout *tarball.Layout
	Source tarball.Source

	// Layers are the layers to fetch. Nil is all of the layout.
	Layers []tarball.Segment
	// Have says which bytes of layers an earlier attempt has written, as [sys.Union]
	// returns them. They are hashed like all others.
	Have map[v1.Hash][]sys.Interval
	// Hashed is what is hashed of layers already, and is in the sink: it is not read again.
	Hashed map[v1.Hash]HashState
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
	// Observer, when not nil, is notified of what the job does: waits for the first byte, fetches,
	// copies, or hashes what is there. It and Progress are called by one goroutine at a time.
	Observer timing.Observer
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
// Ranges are as long as the connections that fetch them are fast, so that all end together.
// A connection that falls far behind the others of its origin, or behind what it was, gives
// back what it cannot fetch in time, and is raced by another where that is free; what comes
// twice is at most 5 % of the layers. Of several origins, see [tarball.MultiSource], the first one
// serves all, unless others may be read in parallel, or are faster when it is slow; then
// each serves what it can carry.
//
// A range that fails is asked for again from where it stopped, first from the other origins,
// then after a delay that grows, until too little has come for six times in a row, see
// [trouble]; [tarball.TemporaryError], [tarball.RetryAfterError] and [tarball.RangeIgnorer]
// for what an error may say more. A delay that a source asks for holds for all requests to
// its host, which gets fewer and larger ones after that; one that asks for nothing but
// delays for a minute is given up. A layer with wrong bytes is fetched once more, after
// [tarball.Distruster].
//
// Of several fetches each has the same share of the connections that it wants, but for
// those whose connections fetch little beside the others': these have what that is worth.
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
	r := newRun(f, job)
	r.cancel = cancel
	for _, s := range job.Layout.Segments() {
		if !s.IsBlob() {
			if _, err := job.Sink.WriteAt(s.Literal, s.Offset); err != nil {
				return Result{}, &sys.WriteError{Err: err}
			}
		}
	}
	for _, s := range job.Layers {
		l := newLayer(s, job.Have[s.Blob], job.Local[s.Blob], ignoresRange(job.Source))
		if state, ok := job.Hashed[s.Blob]; ok {
			if err := l.goOn(state); err != nil {
				return Result{}, err
			}
		}
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
		// Those that are not cut come first: at the end there must be something to cut. Then the
		// largest: its sha256 is one after the other and takes longest.
		if isWhole := a.size <= f.sizes.whole; isWhole != (b.size <= f.sizes.whole) {
			if isWhole {
				return -1
			}
			return 1
		}
		return cmp.Compare(b.size, a.size)
	})

	stop := context.AfterFunc(ctx, func() { r.mu.Lock(); r.cond.Broadcast(); r.mu.Unlock() })
	defer stop()
	group := &r.group
	group.Go(func() error { return r.stopOn(r.schedule(ctx)) })
	if len(job.Local) > 0 {
		group.Go(func() error { return r.stopOn(r.copyLayers(ctx)) })
	}
	for range min(runtime.GOMAXPROCS(0), max(len(r.layers), 1)) {
		group.Go(func() error { return r.stopOn(r.hashLayers(ctx)) })
	}
	err := group.Wait()
	r.report()
	if err != nil {
		r.journalRest()
		if cause := context.Cause(ctx); caller.Err() == nil || !errors.Is(cause, context.Cause(caller)) {
			return r.result(), cause // the first error
		}
		return r.result(), wait.Err(caller)
	}
	return r.result(), nil
}

package cache

import (
	"context"
	"io"
	"slices"
	"sync/atomic"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/dockercache/dockercache/cache/internal/fetch"
	"github.com/dockercache/dockercache/cache/tarball"
)

// A flow shows others whether the work on a tarball goes on: those who wait for its lock,
// and those in this process who wait for one of its layers.
//
// Only a source can hold one writer up and not the other. So the work goes on, as far as a
// flow knows, unless bytes of the source are missing and do not come. Whatever the file
// system does may take its time: who waits would have to wait for it as well.
type flow struct {
	slow atomic.Bool // next to nothing comes of the source

	open    atomic.Int64 // readers of the source
	failed  atomic.Bool  // the last of them, so that the source is asked again after a delay
	writing atomic.Int64 // writes into the file that are in progress
	writes  atomic.Int64 // writes that have begun
	came    atomic.Int64 // bytes of the source
	other   atomic.Int64 // bytes that were copied or hashed
	lacking atomic.Bool  // not all bytes of the layers are there
}

// awaits reports whether bytes of the source are awaited. They are not while other images
// have all connections.
func (f *flow) awaits() bool {
	return f.open.Load() > 0 || f.failed.Load() && f.lacking.Load()
}

const (
	// measureEvery is how often it is measured what comes.
	measureEvery = 2 * time.Second
	// slowest is how many bytes a second are next to nothing, over all connections:
	// 1 KiB/s on each is what a fetch calls no progress.
	slowest = fetch.MostConnections << 10
	// dripAfter is for how long a source may give less, without a pause.
	dripAfter = 10 * time.Second
	// pause is for how long a source that gives less may give nothing.
	pause = 5 * time.Second
	// nothingAfter is for how long it may give nothing, or so little with pauses. A source
	// that refuses requests may ask for 60 s; a connection that gives next to
	// nothing is ended after a minute, and the next may be better.
	nothingAfter = 90 * time.Second
)

// A slowness finds out whether next to nothing comes, from one measurement to the next.
type slowness struct {
	moved int64     // how much had come when enough had
	at    time.Time // when that was
	last  int64     // the last measurement
	came  time.Time // when the last byte came
	begun time.Time // since when bytes come without a pause, and not enough of them
}

// isSlow measures. awaits: bytes are missing; got counts those that came.
func (s *slowness) isSlow(now time.Time, awaits bool, got int64) bool {
	const enough = slowest * int64(dripAfter/time.Second)
	if !awaits || s.at.IsZero() || got-s.moved >= enough {
		*s = slowness{moved: got, at: now, last: got, came: now, begun: now}
		return false
	}
	if got > s.last {
		s.last, s.came = got, now
	} else if now.Sub(s.came) >= pause {
		s.begun = now
	}
	return now.Sub(s.begun) > dripAfter || now.Sub(s.at) > nothingAfter
}

// A rate measures what comes of a source in the mean of the last minute in which bytes
// were missing.
type rate struct {
	awaited time.Duration // how long bytes were missing
	at      time.Time     // of the last measurement; zero: they were not missing
	samples []rateSample  // of the last minute, the oldest first
}

type rateSample struct {
	awaited time.Duration
	came    int64
}

// overMinute measures, and returns how many bytes a second came; false until there was a
// minute.
func (r *rate) overMinute(now time.Time, awaits bool, came int64) (perSecond int64, ok bool) {
	switch n := len(r.samples); {
	case !awaits:
		r.at = time.Time{}
		return 0, false
	case !r.at.IsZero():
		// A process that was suspended did not read.
		r.awaited += min(now.Sub(r.at), 2*measureEvery)
	case n > 0: // what came while nothing was missing does not count either
		since := came - r.samples[n-1].came
		for i := range r.samples {
			r.samples[i].came += since
		}
	}
	r.at = now
	r.samples = append(r.samples, rateSample{r.awaited, came})
	for len(r.samples) > 1 && r.awaited-r.samples[1].awaited >= time.Minute {
		r.samples = slices.Delete(r.samples, 0, 1)
	}
	first := r.samples[0]
	took := r.awaited - first.awaited
	return int64(float64(came-first.came) / max(took, 1).Seconds()), took >= time.Minute
}

// A measuredSource counts what comes of a source, as it comes: a fetch reports bytes when
// they are written, which is 1 MiB later for each connection.
type measuredSource struct {
	tarball.Source
	flow *flow
}

// measured returns src with what else it can say.
func (f *flow) measured(src tarball.Source) tarball.Source {
	m := measuredSource{src, f}
	if multi, ok := src.(tarball.MultiSource); ok {
		return measuredOrigins{m, multi}
	}
	return m
}

// ReadRange implements [tarball.Source].
func (s measuredSource) ReadRange(ctx context.Context, digest v1.Hash, offset, length int64) (io.ReadCloser, error) {
	s.flow.open.Add(1)
	s.flow.failed.Store(false)
	r, err := s.Source.ReadRange(ctx, digest, offset, length)
	if r == nil || err != nil {
		s.flow.end(ctx, true)
		return r, err
	}
	return &measuredReader{ReadCloser: r, flow: s.flow, ctx: ctx, left: length}, nil
}

// end counts a reader less.
func (f *flow) end(ctx context.Context, failed bool) {
	if failed && ctx.Err() == nil {
		f.failed.Store(true)
	}
	f.open.Add(-1)
}

// Distrust implements [tarball.Distruster].
func (s measuredSource) Distrust(digest v1.Hash) {
	if d, ok := s.Source.(tarball.Distruster); ok {
		d.Distrust(digest)
	}
}

// Origins implements [tarball.OriginReporter].
func (s measuredSource) Origins(digest v1.Hash) []string {
	if o, ok := s.Source.(tarball.OriginReporter); ok {
		return o.Origins(digest)
	}
	return nil
}

// IgnoresRange implements [tarball.RangeIgnorer].
func (s measuredSource) IgnoresRange() bool {
	i, ok := s.Source.(tarball.RangeIgnorer)
	return ok && i.IgnoresRange()
}

type measuredOrigins struct {
	measuredSource
	multi tarball.MultiSource
}

// EachOrigin implements [tarball.MultiSource].
func (s measuredOrigins) EachOrigin(digest v1.Hash, yield func(name, host string, parallel bool, wait time.Duration, read tarball.ReadRangeFunc) bool) {
	for _, o := range tarball.OriginsOf(s.multi, digest) {
		if !yield(o.Name, o.Host, o.Parallel, o.Wait, measuredSource{o.Source, s.flow}.ReadRange) {
			return
		}
	}
}

type measuredReader struct {
	io.ReadCloser
	flow   *flow
	ctx    context.Context
	left   int64 // bytes that it should still give
	failed atomic.Bool
	closed atomic.Bool
}

func (r *measuredReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.flow.came.Add(int64(n))
	if r.left -= int64(n); err != nil && (err != io.EOF || r.left > 0) {
		r.failed.Store(true)
	}
	return n, err
}

func (r *measuredReader) Close() error {
	err := r.ReadCloser.Close()
	if !r.closed.Swap(true) {
		r.flow.end(r.ctx, r.failed.Load())
	}
	return err
}

// A measuredFile is the file that the layers are written into.
type measuredFile struct {
	fetch.File
	flow     *flow
	incoming *Incoming // nil if nobody reads it
}

// WriteAt implements [fetch.Sink].
func (f measuredFile) WriteAt(p []byte, at int64) (int, error) {
	f.flow.writes.Add(1)
	f.flow.writing.Add(1)
	defer f.flow.writing.Add(-1)
	return f.File.WriteAt(p, at)
}

// Hashed implements [fetch.Sink].
func (f measuredFile) Hashed(offset, n int64) {
	f.flow.other.Add(n)
	f.File.Hashed(offset, n)
	f.incoming.hashed(offset, n)
}

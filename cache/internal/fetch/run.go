package fetch

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/cache/timing"
)

// run is one call of Fetch. What is not set at its beginning is guarded by the fetcher's
// mutex.
type run struct {
	Job
	fetcher *Fetcher
	cancel  context.CancelCauseFunc
	window  int64
	group   errgroup.Group

	mu          *sync.Mutex // the fetcher's
	cond        sync.Cond   // bytes were written, a layer is verified, or the context ended
	wake        chan struct{}
	layers      []*layer
	connections []*connection
	unnamed     map[string]*origin // of a source that is no [tarball.MultiSource]
	uses        []*use
	duplicate   int64
	advanced    int       // counts what made progress
	wants       bool      // it could use another connection
	starves     bool      // its connections have fetched next to nothing for a while
	moved       time.Time // when a byte came, or the first connection was opened
	common      float64   // what a connection has fetched of late
	measured    time.Time
	progress    tarball.Progress

	reporting sync.Mutex // is held while Job.Progress and Job.Observer are called
	phase     timing.Phase
}

func newRun(f *Fetcher, job Job) *run {
	r := &run{
		Job: job, fetcher: f, mu: &f.mu, window: job.Sink.Window(), progress: job.Before,
		wake: make(chan struct{}, 1), unnamed: map[string]*origin{},
	}
	r.cond.L = r.mu
	return r
}

// use is what a run has got from an origin.
type use struct {
	tarball.SourceUse
	origin *origin
	open   int
	since  time.Time // when open changed
	waits  []time.Duration
}

// use returns the account of an origin.
func (r *run) use(o choice) *use {
	i := slices.IndexFunc(r.uses, func(u *use) bool { return u.origin == o.origin })
	if i < 0 {
		i = len(r.uses)
		r.uses = append(r.uses, &use{SourceUse: tarball.SourceUse{Name: o.name}, origin: o.origin})
	}
	return r.uses[i]
}

// opened adds connections to an account, or takes them away.
func (u *use) opened(n int, now time.Time) {
	if since := now.Sub(u.since); u.open > 0 {
		u.Busy += since
		u.Connected += since * time.Duration(u.open)
	}
	u.open += n
	u.since = now
	u.Connections = max(u.Connections, u.open)
}

// mostWaits is of how many first bytes the median is known.
const mostWaits = 1000

func (u *use) firstByte(took time.Duration) {
	if len(u.waits) < mostWaits {
		u.waits = append(u.waits, took)
	}
}

func (r *run) result() Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	result := Result{Downloaded: r.progress.Downloaded - r.Before.Downloaded}
	for _, u := range r.uses {
		if len(u.waits) > 0 {
			slices.Sort(u.waits)
			u.FirstByte = u.waits[len(u.waits)/2]
		}
		result.Sources = append(result.Sources, u.SourceUse)
	}
	return result
}

// report calls Progress and Observer with how far it is.
func (r *run) report() {
	if r.Progress == nil && r.Observer == nil {
		return
	}
	r.reporting.Lock()
	defer r.reporting.Unlock()
	r.mu.Lock()
	p := r.progress
	phase := r.phase
	if r.Observer != nil {
		phase = r.doing()
	}
	r.mu.Unlock()
	if phase != r.phase {
		r.phase = phase
		timing.Begin(r.Observer, phase)
	}
	if r.Progress != nil {
		r.Progress(p)
	}
}

// doing returns the phase: what the end of the job waits for.
func (r *run) doing() timing.Phase {
	toFetch, _ := r.missing()
	switch {
	case toFetch > 0 && r.progress.Downloaded == r.Before.Downloaded:
		return timing.FirstByte
	case toFetch > 0:
		return timing.Fetch
	case slices.ContainsFunc(r.layers, func(l *layer) bool { return l.prefix() < l.size }):
		return timing.Copy
	default:
		return timing.Hash
	}
}

// stopOn ends all others when one fails.
func (r *run) stopOn(err error) error {
	if err != nil {
		r.cancel(err)
	}
	return err
}

// poke lets the run look for work again.
func (r *run) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// isFinished reports whether every layer is verified.
func (r *run) isFinished() bool {
	return !slices.ContainsFunc(r.layers, func(l *layer) bool { return !l.verified })
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
func (r *run) streamFrom(l *layer) bool {
	if l.stream {
		return false
	}
	l.stream = true
	r.restart(l)
	return true
}

// restart begins a layer again, for the journal too.
func (r *run) restart(l *layer) {
	r.progress.Done -= l.present()
	r.progress.Reused -= l.reused
	for _, c := range l.chunks {
		for _, other := range c.connections {
			other.drop()
		}
	}
	l.restart()
	r.Journal.Forget(l.digest)
	r.Events.Restarted(l.digest)
	r.cond.Broadcast()
	r.poke()
}

// journalRest journals what was written since the last lines.
func (r *run) journalRest() {
	for _, l := range r.layers {
		for _, c := range l.chunks {
			r.Journal.Add(l.digest, c.journaled, c.pos)
		}
	}
}

// missing returns how many bytes must still come from the source, and how many of them
// wait for a connection.
func (r *run) missing() (all, waiting int64) {
	for _, l := range r.layers {
		if l.verified || len(l.local) > 0 {
			continue
		}
		for _, c := range l.open() {
			all += c.end - c.pos
			if !c.active {
				waiting += c.end - c.pos
			}
		}
	}
	return all, waiting
}

// speed returns how many bytes a second the connections fetch that are not slow.
func (r *run) speed() (speed float64) {
	for _, c := range r.connections {
		if !c.slow {
			speed += c.rate
		}
	}
	return speed
}

// eta returns how long the rest takes at the present speed.
func (r *run) eta() time.Duration {
	all, _ := r.missing()
	var speed float64
	for _, c := range r.connections {
		speed += c.rate
	}
	if speed < 1 {
		return 0 // not known
	}
	return time.Duration(min(float64(all)/speed, 1e9) * float64(time.Second))
}

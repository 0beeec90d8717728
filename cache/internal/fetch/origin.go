package fetch

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/dockercache/dockercache/cache/tarball"
)

const (
	// tick is how often rates are measured. rateAge is how long ago a moment is that counts
	// 1/e of the present one.
	tick    = 100 * time.Millisecond
	rateAge = 250 * time.Millisecond
	// bestAge is the same for the best rate of an origin: what was normal long ago is not now.
	bestAge = 2 * time.Minute
	// slowPart: what fetches less than one slowPart-th of what others of its kind do, or it did
	// before, is slow.
	slowPart = 4
	// commonAge is how long ago a moment is that counts 1/e for what a connection is compared
	// with that is the last one.
	commonAge = 3 * time.Second
	// farAway is how long the rest of an image may take before another origin is tried
	// though the first one is no slower than it was.
	farAway = 10 * time.Second
	// firstProbe is how long an origin that was tried and is no faster is not tried again;
	// it doubles up to longestProbe.
	firstProbe   = 10 * time.Second
	longestProbe = 5 * time.Minute
	// firstBack is how long the first origin, which others replace, is not tried again; it
	// doubles up to longestBack.
	firstBack   = 2 * time.Second
	longestBack = 30 * time.Second
	// refusedFor is how long a host may refuse everything before a fetch fails, and
	// refusedTimes how often at least.
	refusedFor   = time.Minute
	refusedTimes = 6
	// refusedOne is how long a range may be refused while the host serves others.
	refusedOne = 10 * time.Minute
)

// An origin is what a fetcher knows of one origin of sources, over all images.
type origin struct {
	name        string
	host        *hostState
	connections []*connection
	rate        float64       // of a connection, in bytes a second: the mean of late; 0: not known
	measured    time.Time     // when
	best        float64       // the highest rate of late
	common      float64       // the rate of several connections at the same time, of late
	ended       float64       // the rate of connections that have ended, of late
	endedAt     time.Time     // when the last one did
	firstByte   time.Duration // the mean of late
	longest     time.Duration // the longest first byte of late
	inVain      time.Duration // how long a connection was open at most that was ended without one
	moved       time.Time     // when a byte came, or the first connection was opened
	stuck       bool          // it waited longer than usual for a byte, and none has come since
	probeAt     time.Time     // not before
	probeWait   time.Duration
	back        time.Duration // how long it is not asked whether it is back
}

// A hostState is what limits the requests to the origins that are on it.
type hostState struct {
	asked     int           // requests without an answer
	until     time.Time     // no request before
	window    int           // how many requests may be without an answer; 0 is no limit
	refusedAt time.Time     // the last time that it refused a request
	since     time.Time     // the first time without an answer in between; zero: it answers
	times     int           // how often it did since, requests at the same time counted once
	sent      []time.Time   // the requests of the last second
	every     time.Duration // at least between two requests
	easing    time.Time     // when that is no longer kept
}

// longDelay: a host that asks for a longer delay is asked no more often than it allowed
// before; one that asks for a shorter one is tried each time.
const longDelay = 2 * time.Second

// scantFor is how long ranges are longer after a request was refused.
const scantFor = 30 * time.Second

// jitter is up to this part of a delay that a source asks for: those who were refused
// together do not come back together.
const jitter = 10

// refused records that a request which was sent at some time is to be sent again after a
// delay, and returns whether the host does nothing else for too long.
func (h *hostState) refused(sent, now time.Time, after time.Duration) (over bool) {
	if h.since.IsZero() || sent.Sub(h.until) > scantFor { // it was not asked meanwhile
		h.times = 0
		h.since = now
	}
	if sent.After(h.refusedAt) || h.refusedAt.IsZero() { // not of those that were in flight together
		if allowed := len(h.sent) - h.asked; after > longDelay && allowed > 0 {
			h.every, h.easing = time.Second*11/10/time.Duration(allowed), now.Add(5*after)
		}
		h.refusedAt = now
		h.times++
		h.window = 1
		// Beyond what it asks for, up to half of the time that it has refused: it is asked again
		// before half as much time more has passed.
		after = max(after, min(delay(h.times-1), now.Sub(h.since)/2))
	}
	if until := now.Add(after + rand.N(after/jitter+1)); until.After(h.until) {
		h.until = until
	}
	return h.times > refusedTimes && now.Sub(h.since) > refusedFor
}

// refusedUntil records that the host has refused requests other than these until some time.
func (h *hostState) refusedUntil(at time.Time) {
	if at.Sub(h.until) > tick {
		h.until, h.window = at, 1
	}
}

// ask records a request.
func (h *hostState) ask(now time.Time) {
	h.asked++
	h.sent = append(slices.DeleteFunc(h.sent, func(at time.Time) bool { return now.Sub(at) >= time.Second }), now)
	if now.Before(h.easing) {
		h.until = now.Add(h.every)
	}
}

// answered records that the host has answered with bytes.
func (h *hostState) answered(most int) {
	h.since, h.times = time.Time{}, 0
	if h.window > 0 {
		if h.window++; h.window >= most {
			h.window = 0
		}
	}
}

// isScant reports whether requests are refused, or were of late, so that each is dear.
func (h *hostState) isScant(now time.Time) bool {
	return now.Sub(h.until) < scantFor
}

// isFree reports whether a request may be sent.
func (h *hostState) isFree(now time.Time) bool {
	return !now.Before(h.until) && (h.window == 0 || h.asked < h.window)
}

// measure updates the rates of the origin's connections and its own.
func (o *origin) measure(now time.Time) {
	var sum float64
	n := 0
	for _, c := range o.connections {
		before := c.before
		if c.measure(now); c.samples > 0 {
			sum += c.rate
			n++
		}
		if c.before > before {
			o.moved, o.stuck = now, false
		}
	}
	o.stuck = o.waits(now)
	if n == 0 {
		return
	}
	since := now.Sub(o.measured)
	o.rate, o.measured = sum/float64(n), now
	if keep := math.Exp(-since.Seconds() / commonAge.Seconds()); n > 1 {
		o.common = keep*o.common + (1-keep)*o.rate
	}
	o.best = max(o.best*math.Exp(-since.Seconds()/bestAge.Seconds()), o.rate)
}

// began records how long a first byte took.
func (o *origin) began(first time.Duration) {
	if o.firstByte == 0 {
		o.firstByte = first
	}
	o.firstByte += (first - o.firstByte) / 8
	o.longest = max(first, o.longest*15/16)
	o.inVain = o.inVain * 15 / 16
}

// finished records the rate of a connection that has ended.
func (o *origin) finished(c *connection, now time.Time) {
	took := now.Sub(c.opened) - time.Duration(c.first.Load())
	got := c.got.Load()
	if got > 0 && c.samples == 0 { // it was too short to be measured
		o.moved, o.stuck = now, false
		if least := float64(got) / max(took, tick/2).Seconds(); (len(o.connections) == 0 || o.rate == 0) && least > o.rate {
			o.rate, o.measured, o.best = least, now, max(o.best, least)
		}
	}
	if got > 0 && took >= tick/2 { // of less the rate is that of a buffer
		rate := float64(got) / took.Seconds()
		if o.ended == 0 {
			o.ended = rate
		}
		o.ended += (rate - o.ended) / 4
		o.endedAt = now
	}
}

// waits reports whether the origin has connections, and none has brought a byte for longer
// than a first one usually takes.
func (o *origin) waits(now time.Time) bool {
	return o.stuck || len(o.connections) > 0 && now.Sub(o.moved) >= o.usualFirst()
}

// usualFirst is how long a first byte takes at most, by those that came.
func (o *origin) usualFirst() time.Duration {
	return max(5*o.firstByte, o.longest*3/2, time.Second)
}

// patience is how long a first byte may take before the connection counts as slow: longer
// than one that was ended without it was open, for a registry that is a cache may have to
// fetch the blob first, and each new connection would be ended too early.
func (o *origin) patience() time.Duration {
	return max(o.usualFirst(), o.inVain*3/2)
}

// usual returns the rate that connections of the origin other than this one have, or had of
// late; 0 if that is not known.
func (o *origin) usual(not *connection, now time.Time) float64 {
	var ended float64 // what is left may be the slow ones
	if now.Sub(o.endedAt) < time.Second {
		ended = o.ended
	}
	var rates []float64
	for _, c := range o.connections {
		if c != not && c.samples >= 2 {
			rates = append(rates, c.rate)
		}
	}
	if len(rates) == 0 {
		if o.common == 0 { // there was never another one
			return 0
		}
		return max(o.common, ended)
	}
	slices.Sort(rates)
	return max(rates[len(rates)/2], ended)
}

// A choice is an origin that a range may be read from.
type choice struct {
	tarball.Origin
	*origin
}

// origin returns what is known of an origin. Those without a name are the source's alone.
func (r *run) origin(o tarball.Origin) *origin {
	f := r.fetcher
	known := f.origins
	if o.Name == "" {
		known = r.unnamed
	}
	if known[o.Name] == nil {
		h := f.hosts[o.Host]
		if h == nil || o.Host == "" {
			h = &hostState{}
			f.hosts[o.Host] = h
		}
		known[o.Name] = &origin{name: o.Name, host: h}
	}
	return known[o.Name]
}

// choices returns the origins that a chunk may be read from, in order, and how long to wait
// for one of them if there are none now; less than 0 if all were tried. A layer that was wrong
// is read from one at a time, so that it can be told which one has it right.
func (r *run) choices(l *layer, c *chunk, now time.Time) (free []choice, wait time.Duration) {
	wait = -1
	whole := l.stream || c.start == 0 && c.pos == 0 && c.end == l.size
	var aside []choice
	for _, o := range tarball.OriginsOf(r.Source, l.digest) {
		if slices.Contains(c.trouble.tried, o.Name) || l.noRanges[o.Name] && !whole {
			continue
		}
		state := r.origin(o)
		if o.Wait < 0 {
			state.host.refusedUntil(now.Add(o.Wait))
		}
		if !state.host.isFree(now) {
			left := max(state.host.until.Sub(now), tick)
			if wait < 0 || left < wait {
				wait = left
			}
		} else if o.Wait > 0 {
			aside = append(aside, choice{o, state})
		} else {
			free = append(free, choice{o, state})
		}
	}
	if len(free) == 0 && wait < 0 && len(aside) > 0 {
		// It answers at once if it is not to be asked at all.
		slices.SortStableFunc(aside, func(a, b choice) int { return int(a.Wait - b.Wait) })
		free = aside[:1]
	}
	if l.refetch && len(free) > 1 {
		free = free[:1]
	}
	return free, wait
}

// choose returns the origin for the next range: the first one, and beside it those that may
// be read in parallel, or that are faster now that it is slow; of these the one whose
// connections are fewest for their rate. A short range is to find out whether the first one
// is back.
func (r *run) choose(free []choice, now time.Time) (o choice, short bool) {
	first := free[0]
	used := free[:1:1]
	for _, o := range free[1:] {
		if o.Parallel || r.isFaster(o.origin, first.origin, now) {
			used = append(used, o)
		}
	}
	if len(used) == 1 {
		first.back = 0
		return first, false
	}
	if len(first.connections) == 0 && now.Sub(first.measured) > firstBack && now.After(first.probeAt) {
		first.back = min(max(2*first.back, firstBack), longestBack)
		first.probeAt = now.Add(first.back)
		return first, true
	}
	most := 1.0
	for _, o := range used {
		most = max(most, o.rate)
	}
	best, least, eta := first, math.Inf(1), r.eta().Seconds()
	for _, o := range used {
		if o.rate > 0 && eta > 0 && o.rate*eta < float64(r.fetcher.sizes.keep) {
			continue // it would bring too little until the others end
		}
		rate := o.rate
		if rate == 0 {
			rate = most
		}
		if o.waits(now) {
			rate = 1
		}
		if score := (float64(len(o.connections)) + 0.5) / rate; score < least {
			best, least = o, score
		}
	}
	return best, false
}

// isFaster reports whether an origin is known to be so much faster than the first one that
// it takes ranges from it.
func (r *run) isFaster(o, first *origin, now time.Time) bool {
	switch {
	case o.rate == 0 || len(o.connections) == 0 && now.Sub(o.measured) > time.Minute:
		return false
	case first.rate == 0 || first.waits(now):
		return first.waits(now)
	case first.isSlow(now):
		return o.rate > 1.5*first.rate
	}
	return o.rate > slowPart*first.rate
}

// isSlow reports whether an origin gives much less than it did, or nothing.
func (o *origin) isSlow(now time.Time) bool {
	return o.rate > 0 && o.rate*slowPart < o.best || o.waits(now)
}

// probe returns another origin to try beside the first one of a chunk, nil if there is no
// reason to.
func (r *run) probe(free []choice, now time.Time) *choice {
	if len(free) < 2 {
		return nil
	}
	first := free[0].origin
	if len(first.connections) == 0 || !first.isSlow(now) && (first.rate == 0 || r.eta() < farAway) {
		return nil
	}
	for _, o := range free[1:] {
		if !o.Parallel && len(o.connections) == 0 && !now.Before(o.probeAt) && !r.isFaster(o.origin, first, now) {
			return &o
		}
	}
	return nil
}

// probed records that the origin is being tried.
func (o *origin) probed(now time.Time) {
	o.probeWait = min(max(2*o.probeWait, firstProbe), longestProbe)
	o.probeAt = now.Add(o.probeWait)
}

package fetch

import (
	"cmp"
	"log/slog"
	"math"
	"slices"
	"time"
)

const (
	// leastConnections is how few connections are tried where the number finds itself.
	leastConnections = 4
	// settling is how long connections need to reach their speed (name, TLS, redirect, slow
	// start); trial is how long a number of connections is measured after that.
	settling = 100 * time.Millisecond
	trial    = 200 * time.Millisecond
	// firstRest is how long a number is kept before others are tried again; it doubles up to
	// longestRest.
	firstRest   = 5 * time.Second
	longestRest = 2 * time.Minute
)

// A limiter is how many connections may be open. Where the number finds itself, more are
// tried as long as more comes, and fewer as long as as much comes.
type limiter struct {
	now, most int
	finds     bool

	trying   int     // +1: more, -1: fewer, 0: neither
	base     int     // the number that was best
	baseRate float64 // what came with it
	from     time.Time
	bytes    int64 // had come then
	rest     time.Duration
	until    time.Time // no other number is tried before
}

func newLimiter(connections int) limiter {
	if connections < 1 {
		return limiter{now: firstConnections, most: MostConnections, finds: true}
	}
	return limiter{now: connections, most: connections}
}

// adapt tries another number, if it is time to. busy reports whether all connections are
// in use, no more than that, and more could be; got is how many bytes have come. It reports
// whether the number has changed.
func (l *limiter) adapt(now time.Time, busy bool, got int64) bool {
	switch {
	case !l.finds:
		return false
	case !busy:
		l.from = time.Time{}
		return false
	case l.from.IsZero() && l.base == 0: // the first
		l.from, l.bytes = now, got
		return false
	case l.from.IsZero():
		l.from, l.bytes = now.Add(settling), -1
		return false
	case now.Before(l.from):
		return false
	case l.bytes < 0:
		l.from, l.bytes = now, got
		return false
	case now.Sub(l.from) < trial:
		return false
	}
	was, rate := l.now, float64(got-l.bytes)/now.Sub(l.from).Seconds()
	if l.from = (time.Time{}); rate == 0 { // all wait for a first byte: that says nothing
		return false
	}
	switch l.trying {
	case 0:
		l.base, l.baseRate = l.now, rate
		if now.Before(l.until) {
			break
		}
		l.try(1)
	case 1:
		if rate >= l.baseRate*(1+0.1*(float64(l.now)/float64(l.base)-1)) {
			l.base, l.baseRate, l.rest = l.now, rate, 0
			l.try(1)
		} else {
			l.try(-1)
		}
	case -1:
		if rate >= 0.97*l.baseRate {
			l.base, l.baseRate = l.now, max(l.baseRate, rate)
			l.try(-1)
		} else {
			l.keep(now)
		}
	}
	if l.trying != 0 && l.now == l.base { // there is no further number
		l.keep(now)
	}
	if l.now != was {
		l.from, l.bytes = now.Add(settling), -1
	}
	return l.now != was
}

// overlaps reports whether a connection that is about to end is followed by the next one. Where
// the number finds itself there are more anyhow.
func (l *limiter) overlaps() bool { return !l.finds && l.now > 1 }

func (l *limiter) try(direction int) {
	l.trying = direction
	if direction > 0 {
		l.now = min(2*l.base, l.most)
	} else {
		l.now = max(l.base*3/4, min(leastConnections, l.base))
	}
}

// keep returns to the best number for a while.
func (l *limiter) keep(now time.Time) {
	l.now, l.trying = l.base, 0
	l.rest = min(max(2*l.rest, firstRest), longestRest)
	l.until = now.Add(l.rest)
}

// adapt gives the number of connections what was measured.
func (f *Fetcher) adapt(now time.Time) {
	wanted := false
	for r := range f.runs {
		wanted = wanted || r.wants
	}
	if f.limit.adapt(now, wanted && f.counted() == f.limit.now, f.got) {
		f.Log.Debug("number of connections", slog.Int("connections", f.limit.now), slog.Int64("best_rate", int64(f.limit.baseRate)), slog.Int("best", f.limit.base))
		f.pokeAll()
	}
}

// counted returns how many connections count: those that are neither slow nor about to end.
func (f *Fetcher) counted() int {
	n := 0
	for r := range f.runs {
		n += r.counted()
	}
	return n
}

func (r *run) counted() int {
	n := 0
	for _, c := range r.connections {
		if !c.slow && !c.probe && !(r.fetcher.limit.overlaps() && c.isEnding()) {
			n++
		}
	}
	return n
}

// mayOpen reports whether a run may open another connection: there is one left, and other
// images that want one have their share. A plan may be allowed beyond that.
func (r *run) mayOpen(p *plan, now time.Time) bool {
	f := r.fetcher
	others := false
	for other := range f.runs {
		others = others || other != r && other.wants
	}
	switch {
	case p != nil && p.probe:
		return true
	case f.open() >= f.mostOpen():
		return false
	case p != nil && p.early && !others:
		return true
	}
	return f.counted() < f.limit.now && (!others || r.counted() < r.share(now))
}

// open returns how many connections are open.
func (f *Fetcher) open() (n int) {
	for r := range f.runs {
		n += len(r.connections)
	}
	return n
}

// mostOpen is how many connections may be open, those that do not count included.
func (f *Fetcher) mostOpen() int { return f.limit.now + (f.limit.now+3)/4 }

// makeRoom ends connections that fetch little, for a run that wants more than it has:
// those of runs that have more than their share, and those that do not count if there are
// too many of them.
func (f *Fetcher) makeRoom(by *run, now time.Time) {
	missing := min(by.share(now), f.limit.now) - by.counted()
	unused := f.limit.now - f.counted()
	for r := range f.runs {
		surplus := r.counted() - r.share(now)
		for _, c := range slices.SortedFunc(slices.Values(r.connections), func(a, b *connection) int { return cmp.Compare(a.rate, b.rate) }) {
			tooMany := c.slow && f.open() >= f.mostOpen() && unused > 0
			isSurplus := r != by && !c.slow && surplus > 0 && missing > 0 && now.Sub(c.opened) > idle && c.rate < float64(f.sizes.keep)
			if c.dropped || !tooMany && !isSurplus {
				continue
			}
			if c.samples == 0 {
				c.inVain = max(c.inVain, now.Sub(c.opened))
			}
			c.drop()
			if tooMany {
				unused--
			} else {
				surplus--
				missing--
			}
		}
	}
}

// share returns how many connections a run deserves beside the others that want some: all
// alike, but those whose connections fetch little only as many as that is worth.
func (r *run) share(now time.Time) int {
	var most, sum, own float64
	for other := range r.fetcher.runs {
		most = max(most, other.rate())
	}
	for other := range r.fetcher.runs {
		if other != r && !other.wants && len(other.connections) == 0 {
			continue
		}
		weight := 1.0
		switch rate := other.rate(); {
		case other.starves:
			weight = 1 / float64(r.fetcher.limit.now)
		case rate == 0 && other.isIdle(now):
			weight = 0.125
		case rate > 0:
			weight = max(rate/most, 1/float64(r.fetcher.limit.now))
		}
		sum += weight
		if other == r {
			own = weight
		}
	}
	return max(int(math.Ceil(float64(r.fetcher.limit.now)*own/sum)), 1)
}

// isIdle reports whether the run has asked for bytes and got none for a while.
func (r *run) isIdle(now time.Time) bool {
	return !r.moved.IsZero() && now.Sub(r.moved) > idle
}

// rate returns how many bytes a second a connection of the run fetches; 0 if that is not
// known yet.
func (r *run) rate() float64 {
	var sum float64
	n := 0
	for _, c := range r.connections {
		if c.samples > 0 {
			sum += c.rate
			n++
		}
	}
	if n == 0 {
		return 0
	}
	return sum / float64(n)
}

// pokeAll lets all runs look for work again.
func (f *Fetcher) pokeAll() {
	for r := range f.runs {
		r.poke()
	}
}

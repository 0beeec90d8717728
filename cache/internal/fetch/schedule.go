package fetch

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/internal/wait"
)

// sizes is how layers are cut, in bytes.
type sizes struct {
	// whole: layers up to this size are not cut, and so asked for without a range.
	whole int64
	// least and most are the lengths of ranges.
	least, most int64
	// first is how long the ranges are by which rates are found out, where the number of
	// connections finds itself.
	first int64
	// keep is what a slow connection keeps at least: it is worth the request.
	keep int64
	// copied is how many bytes of a layer are copied before they count: small enough for the
	// hashers to keep pace, large enough for a file server, to which each copy is a request.
	copied int64
}

var defaultSizes = sizes{whole: 8 << 20, first: 8 << 20, least: 1 << 20, most: 16 << 20, keep: 64 << 10, copied: 16 << 20}

const (
	// slowAfter is how long a connection has at least before it counts as slow.
	slowAfter = 400 * time.Millisecond
	// starving is how long a run has fetched next to nothing that has no share.
	starving = 400 * time.Millisecond
	// recent is how long ago an origin was measured to be compared with.
	recent = 10 * time.Second
	// idle is how long a connection has that fetches next to nothing, while others want it.
	idle = 100 * time.Millisecond
	// duplicatePart: of the bytes that are fetched one duplicatePart-th may come twice.
	duplicatePart = 20
	// leastTime is how long a range takes at most that is no longer than the least.
	leastTime = 2 * time.Second
	// mostTime is how long a range takes at most where there are several origins.
	mostTime = 5 * time.Second
	// worthRequest is how long a range takes at least where requests are refused.
	worthRequest = 4 * time.Second
	// mostRaces is how often a chunk is raced before it is only now and then.
	mostRaces = 3
	raceAgain = 10 * time.Second
)

func (r *run) mostDuplicate() int64 { return (r.progress.Total - r.Before.Total) / duplicatePart }

// schedule gives chunks to connections until every layer is verified.
func (r *run) schedule(ctx context.Context) error {
	f := r.fetcher
	f.mu.Lock()
	f.runs[r] = true
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.runs, r)
		f.pokeAll()
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		f.mu.Lock()
		if r.isFinished() {
			f.mu.Unlock()
			return nil
		}
		next := time.Duration(0)
		if ctx.Err() == nil {
			next = r.step(ctx, time.Now())
		}
		f.mu.Unlock()
		timer.Reset(next)
		select {
		case <-ctx.Done():
			return wait.Err(ctx)
		case <-r.wake:
		case <-timer.C:
		}
	}
}

// step does what is to be done now, and returns how long to wait for the next step.
func (r *run) step(ctx context.Context, now time.Time) time.Duration {
	if now.Sub(r.measured) >= tick {
		r.measured = now
		r.judge(now)
		r.fetcher.adapt(now)
	}
	r.wants = false
	for {
		p, after := r.find(now)
		if p == nil {
			if p = r.findRace(now); len(r.connections) > 0 {
				after = min(after, tick)
			}
		}
		if p == nil {
			return after
		}
		if !r.mayOpen(p, now) {
			r.wants = true
			r.fetcher.makeRoom(r, now)
			return tick
		}
		r.open(ctx, p, now)
	}
}

// A plan is a connection to be opened.
type plan struct {
	layer *layer
	chunk *chunk
	choice
	end           int64 // of the range
	racing, probe bool
	others        bool // there are other origins
	short         bool // to find out whether the origin is back
	early         bool // all connections wait for a first byte, and the layer was not asked for
}

// find looks for a chunk that waits and may be fetched now. If there is none, it returns
// how long to wait before there may be one without an event.
func (r *run) find(now time.Time) (p *plan, after time.Duration) {
	if r.starves && r.rate() == 0 {
		// A registry that is a cache may fetch a blob when it is first asked for.
		if p, _ := r.findIn(now, func(l *layer) bool { return !l.isActive() }); p != nil {
			p.early = true
			return p, 0
		}
	}
	return r.findIn(now, func(*layer) bool { return true })
}

func (r *run) findIn(now time.Time, may func(*layer) bool) (p *plan, after time.Duration) {
	after = time.Hour
	limit, isFirst := r.limit(), true
	for _, l := range r.layers {
		if l.verified {
			continue
		}
		first := isFirst
		isFirst = false
		if !l.canFetch() || !may(l) {
			continue
		}
		l.prefix() // passes over what is complete
		for i := l.first; i < len(l.chunks); i++ {
			c := l.chunks[i]
			if !c.isWaiting() {
				continue
			}
			if wait := c.trouble.notBefore.Sub(now); wait > 0 {
				after = min(after, wait)
				continue
			}
			l.join(i)
			free, wait := r.choices(l, c, now)
			if len(free) == 0 {
				if wait < 0 { // there were others when they were tried
					c.trouble.tried, wait = nil, tick
				}
				after = min(after, wait)
				continue
			}
			p := &plan{layer: l, chunk: c, others: len(free) > 1}
			if o := r.probe(free, now); o != nil {
				p.choice, p.probe = *o, true
			} else {
				p.choice, p.short = r.choose(free, now)
			}
			p.end = c.pos + r.length(l, c, p, now)
			if l.offset+p.end > limit && !(l.stream && first && i == l.first) {
				return nil, after // hashing must go on
			}
			return p, 0
		}
	}
	return nil, after
}

// length chooses the length of a range: that which lets all connections end together, and
// a part of it, so that what was expected wrongly can be mended.
func (r *run) length(l *layer, c *chunk, p *plan, now time.Time) int64 {
	f := r.fetcher
	left := c.end - c.pos
	if l.stream || c.pos == 0 && c.end == l.size && l.size <= f.sizes.whole && r.window == 0 {
		return left
	}
	most := f.sizes.most
	if r.window > 0 { // each connection can have one
		most = max(min(most, r.window/int64(f.limit.now)), 1)
	}
	least := min(f.sizes.least, most)
	all, waiting := r.missing()
	n := float64(max(r.share(now), 1))
	if mean := r.rate(); mean > 0 && p.rate > 0 {
		n *= max(mean/p.rate, 1/n)
	}
	n = max(n, 1)
	length := int64(math.Ceil(float64(waiting) / n))
	overhead := int64(min(p.rate*p.firstByte.Seconds(), noLimit/4)) // what comes in the time of another request
	switch {
	case n == 1:
	case r.common == 0 && int64(float64(all)/n) < f.sizes.whole:
		// Little in all: one range for each connection, for another request takes longer.
		length = int64(math.Ceil(float64(waiting) / max(n-float64(len(r.connections)), 1)))
	case length <= overhead: // one request more takes longer
		length = min(4*length, waiting)
	case p.rate == 0: // so that what was expected wrongly can be mended
		length -= length / 4
	default:
		length -= length / 8
	}
	if p.others && p.rate > 0 { // these may become faster, or are back
		most = min(most, max(int64(p.rate*mostTime.Seconds()), f.sizes.keep))
		least, length = min(least, most), min(length, most)
	}
	if p.rate > 0 {
		// Of a slow connection not more than takes some time.
		least = min(least, max(int64(p.rate*leastTime.Seconds()), f.sizes.keep))
	}
	if r.window == 0 {
		most = max(most, min(4*overhead, noLimit/4))
	}
	least = min(max(least, min(2*overhead, length)), most)
	if eta := r.eta(); p.rate > 0 && eta > 0 { // not more than comes until the others end
		length = min(length, max(int64(p.rate*eta.Seconds()), f.sizes.keep))
		least = min(least, length)
	}
	switch limit := &f.limit; {
	case p.short:
		length = least
	case p.probe:
		length = min(length, int64(max(r.rate(), p.best)/2))
	case p.host.isScant(now): // each request is dear
		least = max(least, int64(p.rate*worthRequest.Seconds()))
		if length = int64(2*float64(waiting)/n) + 1; p.rate == 0 { // it may be fast
			length = waiting
		}
		if r.window == 0 {
			most = noLimit
		}
	case limit.finds && (p.rate == 0 || limit.base == 0 || limit.trying > 0): // others may come
		length = min(length, max(f.sizes.first, int64(p.rate)))
	}
	length = min(max(length, least), most)
	if left-length < least/2 && left <= most {
		return left
	}
	return min(length, left)
}

// findRace looks for a chunk whose connection is slow, to be raced by another, nil if there
// is none or enough has come twice.
func (r *run) findRace(now time.Time) (p *plan) {
	least := time.Duration(0)
	for _, c := range r.connections {
		l, left := c.layer, c.left()
		if !c.slow || c.dropped || c.generation != l.generation || l.stream || len(c.chunk.connections) > 1 || c.chunk.races >= mostRaces && now.Sub(c.chunk.raced) < raceAgain ||
			r.duplicate+min(left, int64(c.rate)+r.fetcher.sizes.keep) > r.mostDuplicate() {
			continue
		}
		takes := time.Duration(min(float64(left)/max(c.rate, 1), 1e9) * float64(time.Second))
		if takes <= least {
			continue
		}
		free, _ := r.choices(l, c.chunk, now)
		if len(free) == 0 {
			continue
		}
		least = takes
		p = &plan{layer: l, chunk: c.chunk, choice: free[0], end: c.chunk.end, racing: true}
		for _, o := range free {
			if o.origin != c.origin && !o.isSlow(now) && (o.rate == 0 || o.rate > c.rate) {
				p.choice = o
				break
			}
		}
	}
	return p
}

// judge decides which connections are slow, and takes from these what they cannot fetch in
// time.
func (r *run) judge(now time.Time) {
	var fast float64 // the rate of the fastest origin
	for _, u := range r.uses {
		o := u.origin
		o.measure(now)
		if now.Sub(o.measured) < recent {
			fast = max(fast, o.rate)
		}
	}
	if rate := r.rate(); rate >= float64(r.fetcher.sizes.keep) {
		r.starves = false
	} else if len(r.connections) > 0 && !slices.ContainsFunc(r.connections, func(c *connection) bool { return now.Sub(c.opened) <= starving }) {
		r.starves = true
	}
	if rate := r.rate(); rate > 0 {
		r.common = rate
	}
	crowded := r.isCrowded(now)
	surplus := len(r.connections) - r.share(now)
	for _, c := range r.connections {
		c.slow = r.isSlow(c, max(c.usual(c, now), fast), now)
		if crowded && !c.slow && surplus > 0 && r.isWorthLittle(c) { // its share goes on
			c.slow = true
			surplus--
		}
		r.endDripping(c, now)
		if c.samples == 0 && now.Sub(c.opened) > c.patience() {
			c.answered() // another request may be sent in its place
		}
	}
	all, waiting := r.missing()
	speed := r.speed()
	if speed == 0 {
		speed = fast * float64(r.share(now))
	}
	keep := r.fetcher.sizes.keep
	give := func(c *connection, rest int64) {
		left := c.left()
		rest = max(rest, int64(c.rate*patience.Seconds()))
		if ch := c.chunk; c.generation == c.layer.generation && !c.dropped && !ch.writing && !c.layer.stream && len(ch.connections) == 1 && left-rest >= keep {
			c.layer.cut(ch, ch.end-left+rest)
		}
	}
	for _, c := range r.connections {
		switch {
		case c.slow && speed > 0 && float64(c.left()) > c.rate*2*c.firstByte.Seconds():
			give(c, max(int64(c.rate*float64(all)/speed/2), keep))
		case c.samples > 2 && speed > 0 && float64(c.left()) > c.rate*(1.5*float64(all)/speed+0.5+2*c.firstByte.Seconds()):
			give(c, max(int64(c.rate*float64(all)/speed), keep))
		case crowded && c.rate > 0 && float64(c.left()) > c.rate:
			give(c, max(int64(c.rate/2), keep)) // another image waits for it
		}
	}
	if waiting > 0 || r.isCopying() {
		return
	}
	// Nothing waits, but what the slowest has may be given to one that is free, or to an
	// origin that is faster.
	var last *connection
	for _, c := range r.connections {
		if c.samples > 0 && !c.slow && c.left() >= 2*r.fetcher.sizes.least && (last == nil || c.left() > last.left()) {
			last = c
		}
	}
	if last == nil {
		return
	}
	free, _ := r.choices(last.layer, last.chunk, now)
	if last.host.isScant(now) && float64(last.left()) < last.rate*worthRequest.Seconds() {
		return
	}
	isBetter := func(o choice) bool { return o.origin != last.origin && r.isFaster(o.origin, last.origin, now) }
	if len(free) > 0 && (r.probe(free, now) != nil || slices.ContainsFunc(free, isBetter) || r.mayOpen(nil, now) && float64(last.left()) > last.rate*(1+2*last.firstByte.Seconds())) {
		give(last, last.left()/2)
	}
}

// isCopying reports whether chunks wait that a copy may still provide.
func (r *run) isCopying() bool {
	return slices.ContainsFunc(r.layers, func(l *layer) bool { return !l.verified && len(l.local) > 0 })
}

// isSlow reports whether a connection fetches much less than is usual.
func (r *run) isSlow(c *connection, usual float64, now time.Time) bool {
	switch {
	case now.Sub(c.opened) < slowAfter:
		return false
	case c.samples == 0: // of those that wait for a first byte together none is slow
		return r.common > 0 && (now.Sub(c.opened) > c.patience() || c.stuck && c.others)
	case c.slow:
		return c.rate*slowPart/2 < usual
	}
	return c.samples > 2 && c.rate*slowPart < usual
}

// isCrowded reports whether the run has more connections than its share, and others want
// some.
func (r *run) isCrowded(now time.Time) bool {
	for other := range r.fetcher.runs {
		if other != r && other.wants {
			return len(r.connections) > r.share(now)
		}
	}
	return false
}

// isWorthLittle reports whether a connection fetches next to nothing beside those of other
// runs.
func (r *run) isWorthLittle(c *connection) bool {
	if r.starves {
		return true
	}
	for other := range r.fetcher.runs {
		if other != r && c.samples > 2 && c.rate*2*slowPart < other.rate() {
			return true
		}
	}
	return false
}

// endDripping ends a connection that fetches less than [Fetcher.MinRangeRate].
func (r *run) endDripping(c *connection, now time.Time) {
	if r.fetcher.MinRangeRate <= 0 || c.samples == 0 {
		return
	}
	got := c.got.Load()
	if c.minute.IsZero() {
		c.minute, c.inMinute = now, got
	}
	if since := now.Sub(c.minute); since >= time.Minute {
		if float64(got-c.inMinute) < float64(r.fetcher.MinRangeRate)*since.Seconds() {
			c.cancel(errDrips)
		}
		c.minute, c.inMinute = now, got
	}
}

// open opens a connection.
func (r *run) open(ctx context.Context, p *plan, now time.Time) {
	f, ch := r.fetcher, p.chunk
	if p.end < ch.end {
		p.layer.cut(ch, p.end)
	}
	own, cancel := context.WithCancelCause(ctx)
	c := &connection{
		layer: p.layer, chunk: ch, generation: p.layer.generation, choice: p.choice, racing: p.racing, probe: p.probe, others: p.others,
		cancel: cancel, from: ch.pos, at: ch.pos, end: ch.end, opened: now,
	}
	if p.layer.stream {
		c.again = c.from
	}
	ch.active = true
	ch.connections = append(ch.connections, c)
	if p.racing {
		ch.races++
		ch.raced = now
	} else {
		ch.trouble.begin(ch.end - ch.pos)
	}
	if p.probe {
		p.probed(now)
		f.Log.DebugContext(ctx, "another source is tried", "source", p.name)
	}
	if len(p.origin.connections) == 0 {
		p.moved = now
	}
	if r.moved.IsZero() {
		r.moved = now
	}
	p.origin.connections = append(p.origin.connections, c)
	p.host.ask(now)
	r.connections = append(r.connections, c)
	u := r.use(c.choice)
	u.opened(1, now)
	u.Requests++
	r.group.Go(func() error {
		defer cancel(nil)
		err := r.read(own, c)
		if errors.Is(context.Cause(own), errDrips) && err != nil {
			err = fmt.Errorf("%w: less than %d bytes a second in the mean of a minute", errDrips, f.MinRangeRate)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		err = r.stopOn(r.ended(ctx, c, err, time.Now()))
		f.pokeAll()
		return err
	})
}

func without(all []*connection, c *connection) []*connection {
	return slices.DeleteFunc(all, func(other *connection) bool { return other == c })
}

// ended puts away a connection that has ended, and decides what becomes of its chunk. The
// error ends the run.
func (r *run) ended(ctx context.Context, c *connection, err error, now time.Time) error {
	l, ch := c.layer, c.chunk
	r.count(c, 0)
	ch.connections = without(ch.connections, c)
	c.origin.connections = without(c.origin.connections, c)
	c.answered()
	c.finished(c, now)
	r.connections = without(r.connections, c)
	u := r.use(c.choice)
	u.opened(-1, now)
	if first := time.Duration(c.first.Load()); first > 0 {
		u.firstByte(first)
	}
	after := retryAfter(err)
	if after > 0 && !c.dropped {
		u.Refused++
	}
	others := len(ch.connections) > 0
	if others {
		ch.connections[0].racing = false
	} else {
		ch.active = false
	}
	switch {
	case sys.IsWrite(err):
		return err
	case c.dropped || c.generation != l.generation:
		return nil
	case err == nil:
		ch.trouble = trouble{}
		r.advanced++
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	if after > 0 {
		over := c.host.refused(c.opened, now, after)
		if t := &ch.trouble; t.refused.IsZero() {
			t.refused = now
		} else if now.Sub(t.refused) > refusedOne { // though the host serves others
			over = true
		}
		if free, wait := r.choices(l, ch, now); over && len(free) == 0 && wait >= 0 && !others {
			if len(l.noRanges) > 0 && r.streamFrom(l) {
				return nil
			}
			return fmt.Errorf("layer %s: no answer but to wait for %v: %w", l.digest, now.Sub(ch.trouble.refused).Round(time.Second), err)
		}
		return nil
	}
	if others {
		return nil
	}
	if canRetry(err) && ch.trouble.isProgress(c.at-c.from, now.Sub(c.opened)) {
		r.advanced++
		return nil
	}
	return r.failed(l, ch, c.name, err, now)
}

// failed decides what becomes of a chunk of which a request has failed without progress.
func (r *run) failed(l *layer, ch *chunk, origin string, err error, now time.Time) error {
	t := &ch.trouble
	if ignoresRange(err) && !l.stream {
		if l.noRanges == nil {
			l.noRanges = map[string]bool{}
		}
		l.noRanges[origin] = true
	}
	t.failed, t.tried = append(t.failed, err), append(t.tried, origin)
	if free, wait := r.choices(l, ch, now); len(free) > 0 || wait >= 0 {
		return nil // another origin may have it
	}
	err = joined(t.failed)
	t.failed, t.tried = nil, nil
	if ignoresRange(err) && r.streamFrom(l) {
		return nil
	}
	if t.attempts++; t.attempts == 1 {
		t.progress = r.advanced
	}
	if !canRetry(err) || t.attempts >= mostAttempts || t.attempts >= maxAttempts && r.advanced == t.progress {
		if len(l.noRanges) > 0 && r.streamFrom(l) { // that origin was not asked for it
			return nil
		}
		return fmt.Errorf("layer %s: %w", l.digest, err)
	}
	if t.attempts >= maxAttempts {
		t.progress = r.advanced
	}
	t.notBefore = now.Add(delay(t.attempts))
	return nil
}

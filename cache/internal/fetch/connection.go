package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync/atomic"
	"time"

	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
)

// A connection fetches a chunk, of the generation in which it was given to it.
type connection struct {
	layer      *layer
	chunk      *chunk
	generation int
	choice
	racing bool // the chunk has another one, which was there before
	probe  bool // beyond the number of connections, to measure an origin
	others bool // its range could be read from another origin too
	cancel context.CancelCauseFunc

	from, end int64        // what is asked for
	again     int64        // of a stream: what is there already, and comes again
	got       atomic.Int64 // bytes of the body
	first     atomic.Int64 // when the first one came, in ns since opened; 0: not yet

	// Guarded by the fetcher's mutex.
	at         int64 // up to where bytes of the layer were read
	opened     time.Time
	rate       float64 // bytes a second, of late
	samples    int     // how often that was measured; 0 before the first byte
	measured   time.Time
	before     int64 // got when it was measured
	slow       bool  // it does not count among the connections
	dropped    bool  // what it fetches is no longer wanted
	isAnswered bool  // or has ended
	reported   int64 // how much of got is in the run's numbers
	advanced   int64 // how much of it has counted as progress
	minute     time.Time
	inMinute   int64 // got, then
}

// The causes with which a connection is ended.
var (
	errDropped = errors.New("the range has come from elsewhere")
	errDrips   = errors.New("the connection is too slow")
)

// measure updates the connection's rate.
func (c *connection) measure(now time.Time) {
	got := c.got.Load()
	if first := c.first.Load(); c.samples == 0 {
		if first == 0 {
			return
		}
		begun := c.opened.Add(time.Duration(first))
		if since := now.Sub(begun); since >= tick/2 {
			c.rate, c.samples, c.measured, c.before = float64(got)/since.Seconds(), 1, now, got
			c.began(time.Duration(first))
		}
		return
	}
	if since := now.Sub(c.measured); since >= tick/2 {
		keep := math.Exp(-since.Seconds() / rateAge.Seconds())
		c.rate = keep*c.rate + (1-keep)*float64(got-c.before)/since.Seconds()
		c.samples++
		c.measured, c.before = now, got
	}
}

// left returns how many bytes of the chunk have not come yet.
func (c *connection) left() int64 {
	return c.chunk.end - min(max(c.chunk.pos, c.from-c.again+c.got.Load()), c.chunk.end)
}

// isEnding reports whether the rest comes before another connection would bring a first byte.
func (c *connection) isEnding() bool {
	return c.samples > 0 && float64(c.left()) < 1.25*c.rate*c.overlap().Seconds()
}

// mostOverlap is how long before its end a connection may be followed by the next one.
const mostOverlap = 100 * time.Millisecond

// overlap is how long before its end a connection is followed by the next one.
func (c *connection) overlap() time.Duration {
	if c.firstByte > mostOverlap {
		return 0 // who knows when the next one begins
	}
	return c.firstByte
}

// counting counts the bytes of a body as they come.
type counting struct {
	body io.Reader
	c    *connection
}

func (b counting) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	if n > 0 {
		if b.c.first.Load() == 0 {
			b.c.first.Store(max(int64(time.Since(b.c.opened)), 1))
		}
		b.c.got.Add(int64(n))
	}
	return n, err
}

// patience is how long bytes that have come wait in a buffer for more, if those come.
const patience = 200 * time.Millisecond

// fill reads as much into buf as comes within [patience], and at least one byte.
func fill(r io.Reader, buf []byte) (n int, err error) {
	begun := time.Time{}
	for n < len(buf) && err == nil {
		var got int
		got, err = r.Read(buf[n:])
		if n += got; got == 0 || n == len(buf) {
			continue
		}
		if begun.IsZero() {
			begun = time.Now()
		} else if time.Since(begun) >= patience {
			break
		}
	}
	return n, err
}

// read asks the origin for what the connection is to fetch, and writes what comes. A nil
// error means that nothing more is wanted of it.
func (r *run) read(ctx context.Context, c *connection) error {
	from := c.from - c.again
	body, err := c.ReadRange(ctx, c.layer.digest, from, c.end-from)
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	if body == nil {
		return tarball.Permanent(errors.New("read: the source returned neither a reader nor an error"))
	}
	defer body.Close()
	bytes := counting{body, c}
	if c.again > 0 {
		if _, err := io.CopyN(io.Discard, bytes, c.again); err != nil {
			return fmt.Errorf("read again up to %d: %w", c.from, err)
		}
	}
	pooled := r.fetcher.buffers.Get().(*[]byte)
	defer r.fetcher.buffers.Put(pooled)
	buf := *pooled
	if r.window > 0 {
		buf = buf[:min(int64(len(buf)), r.window)]
	}
	for {
		n, readErr := fill(bytes, buf[:min(int64(len(buf)), max(r.wanted(c), 1))])
		done, err := r.deliver(ctx, c, buf[:n])
		switch {
		case err != nil:
			return err
		case done && c.at < c.end: // the rest was given back, or the layer begun again
			return nil
		case done && readErr == nil:
			return expectEnd(body, c.layer.size)
		case done:
			return nil
		case readErr == io.EOF:
			return fmt.Errorf("%w: the source ends after %d of the %d bytes that the manifest declares", tarball.ErrSize, c.at, c.layer.size)
		case readErr != nil:
			return fmt.Errorf("read at %d of %d bytes: %w", c.at, c.layer.size, readErr)
		}
	}
}

// wanted returns how many more bytes a connection may fetch until it is to be looked at again:
// when it is about to end, and in the end.
func (r *run) wanted(c *connection) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	left := c.chunk.end - c.at
	if last := int64(c.rate * c.overlap().Seconds()); last > 0 && last < left {
		return left - last
	}
	return left
}

// expectEnd reads the end of a body, which lets its connection be used again,
// and notices a source that gives more than it was asked for.
func expectEnd(body io.Reader, size int64) error {
	var one [1]byte
	if n, err := io.ReadFull(body, one[:]); n > 0 {
		return &tooLongError{size}
	} else if err != io.EOF {
		return nil // the bytes are there; only the connection is not
	}
	return nil
}

// tooLongError is permanent: it will be as long the next time.
type tooLongError struct{ size int64 }

func (e *tooLongError) Error() string {
	return fmt.Sprintf("%v: the source gives more than the %d bytes that the manifest declares", tarball.ErrSize, e.size)
}
func (e *tooLongError) Unwrap() error   { return tarball.ErrSize }
func (e *tooLongError) Temporary() bool { return false }

// deliver writes bytes that a connection has read, as many as are wanted, and reports whether
// no more are wanted of it.
func (r *run) deliver(ctx context.Context, c *connection, p []byte) (done bool, err error) {
	l, ch := c.layer, c.chunk
	r.mu.Lock()
	p, done, err = r.turn(ctx, c, p)
	if len(p) == 0 {
		r.count(c, 0)
		over := c.racing && r.duplicate > r.mostDuplicate()
		r.mu.Unlock()
		return done || over, err
	}
	at := ch.pos
	ch.writing = true
	l.writes++
	r.mu.Unlock()

	_, err = r.Sink.WriteAt(p, l.offset+at)

	r.mu.Lock()
	l.writes--
	ch.writing = false
	c.at += int64(len(p))
	var journal sys.Interval
	switch {
	case c.generation != l.generation:
		r.count(c, int64(len(p)))
		done = true
	case err != nil:
		err = &sys.WriteError{Err: err}
	default:
		r.count(c, int64(len(p)))
		ch.pos = c.at
		r.progress.Done += int64(len(p))
		if ch.pos >= ch.end {
			done = true
		}
		for _, other := range ch.connections {
			if other != c && (done || c.racing) { // it was overtaken
				other.drop()
			}
		}
		if r.wants && c.isEnding() { // the next one may be opened
			r.poke()
		}
		if done || ch.pos-ch.journaled >= journalStep {
			journal, ch.journaled = sys.Interval{From: ch.journaled, To: ch.pos}, ch.pos
		}
	}
	r.cond.Broadcast()
	r.mu.Unlock()
	if err != nil {
		return false, err
	}
	r.Journal.Add(l.digest, journal.From, journal.To)
	if len(p) > 0 {
		r.report()
	}
	return done, nil
}

// turn waits until a connection may write, and returns the bytes of p that its chunk lacks. If
// there are none, done reports whether no more are wanted of the connection. The mutex is held.
func (r *run) turn(ctx context.Context, c *connection, p []byte) (rest []byte, done bool, err error) {
	l, ch := c.layer, c.chunk
	for {
		if c.generation != l.generation || c.dropped && ch.writing {
			return nil, true, nil
		}
		if ch.writing { // the other one that races
			r.cond.Wait()
			continue
		}
		if skip := min(ch.pos-c.at, int64(len(p))); skip > 0 {
			c.at += skip
			p = p[skip:]
		}
		end := min(ch.pos+int64(len(p)), ch.end)
		switch {
		case ch.pos == ch.end:
			return nil, true, nil
		case len(p) == 0:
			return nil, false, nil
		case r.window > 0 && ctx.Err() != nil:
			return nil, false, context.Cause(ctx)
		case r.window == 0 || l.offset+end <= r.limit():
			return p[:end-ch.pos], false, nil
		case c.dropped || !r.isNext(l, ch): // a layer before it was restarted, and may need this connection
			return nil, true, nil
		}
		r.cond.Wait() // a stream is ahead of what is hashed
	}
}

// answered records that the request is no longer without an answer.
func (c *connection) answered() {
	if !c.isAnswered {
		c.isAnswered = true
		c.host.asked--
	}
}

// drop ends a connection of which nothing is wanted any more.
func (c *connection) drop() {
	if !c.dropped {
		c.dropped = true
		c.cancel(errDropped)
	}
}

// count adds what a connection has read since the last time to the run's numbers, written
// bytes of which were wanted.
func (r *run) count(c *connection, written int64) {
	got := c.got.Load() - c.reported
	c.reported += got
	r.progress.Downloaded += got
	written += min(c.reported, c.again) - min(c.reported-got, c.again) // no duplicates: there is no other way
	r.duplicate += got - written
	if got > 0 && c.reported == got { // the first bytes
		c.answered()
		c.host.answered(r.fetcher.limit.most)
		r.poke()
	}
	u := r.use(c.choice)
	u.Bytes += got
	u.Duplicate += got - written
	r.fetcher.got += got
	if got > 0 {
		r.moved = time.Now()
	}
	if c.reported-c.advanced >= enough {
		c.advanced = c.reported
		r.advanced++
	}
}

package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/dockercache/dockercache/cache/internal/sys"
	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/backoff"
)

const (
	// maxAttempts is how often a range is asked for in a row without progress, see
	// [pace]. With the delays below that is some 15 s, in which a registry that
	// restarts is back. Progress begins the count again.
	maxAttempts = 6
	firstDelay  = 500 * time.Millisecond
	maxDelay    = 30 * time.Second
)

// A pace decides whether the attempts at a range make progress. A source that gives a
// byte and closes the connection would otherwise be asked for every byte, as fast as it
// answers.
type pace struct {
	left  int64 // what the range lacked when it last made progress
	since int64 // bytes since then
	begun time.Time
}

const (
	// enough is how many bytes are progress however long they took, and enoughOf the part
	// of what a short range lacks that is. Below that a connection is hardly worth its
	// making.
	enough   = 64 << 10
	enoughOf = 16
	// slowest is how many bytes a second are progress, however few they are, for an
	// attempt that took longer than slowestAfter.
	slowest      = 1 << 10
	slowestAfter = time.Second
)

// begin begins an attempt at a range that lacks so many bytes.
func (p *pace) begin(left int64) {
	if p.begun = time.Now(); p.since == 0 {
		p.left = left
	}
}

// isProgress reports whether an attempt that brought got bytes made progress, alone or
// with those before it.
func (p *pace) isProgress(got int64) bool {
	took := time.Since(p.begun)
	p.since += got
	if p.since >= max(min(enough, p.left/enoughOf), 1) || took >= slowestAfter && float64(got) >= slowest*took.Seconds() {
		p.since = 0
		return true
	}
	return false
}

// canRetry reports whether the source may give the bytes if it is asked again.
func canRetry(err error) bool {
	var t tarball.TemporaryError
	return !errors.As(err, &t) || t.Temporary()
}

// ignoresRange reports whether a source, or the error of one, gives blobs only from
// their beginning.
func ignoresRange(v any) bool {
	var r tarball.RangeIgnorer
	if err, ok := v.(error); ok {
		return errors.As(err, &r) && r.IgnoresRange()
	}
	r, ok := v.(tarball.RangeIgnorer)
	return ok && r.IgnoresRange()
}

// delay returns how long to wait after so many attempts without progress; not at all
// after progress; or what the source asked for, within a limit.
func delay(attempt int, err error) time.Duration {
	var asked tarball.RetryAfterError
	if errors.As(err, &asked) && asked.RetryAfter() > 0 {
		return min(asked.RetryAfter(), 2*maxDelay)
	}
	return backoff.Delay(firstDelay, maxDelay, attempt)
}

// read asks the source once for what a chunk lacks and writes what comes. It
// returns how many bytes that was, also when it fails. A nil error means that
// the chunk is complete or given back, or that the layer was begun again meanwhile.
func (r *run) read(ctx context.Context, w *work) (got int64, err error) {
	r.mu.Lock()
	have, end, stream, over := w.chunk.pos, w.chunk.end, w.layer.stream, w.generation != w.layer.generation
	r.mu.Unlock()
	if over || have == end {
		return 0, nil
	}
	from := have
	if stream {
		from = 0
	}
	body, err := r.Source.ReadRange(ctx, w.layer.digest, from, end-from)
	if err != nil {
		return 0, fmt.Errorf("read: %w", err)
	}
	if body == nil {
		return 0, tarball.Permanent(errors.New("read: the source returned neither a reader nor an error"))
	}
	defer body.Close()
	if stream { // no ranges: what is there already comes again
		if _, err := io.CopyN(io.Discard, body, have); err != nil {
			return 0, fmt.Errorf("read again up to %d: %w", have, err)
		}
	}
	pooled := r.fetcher.buffers.Get().(*[]byte)
	defer r.fetcher.buffers.Put(pooled)
	buf := *pooled
	if r.window > 0 {
		buf = buf[:min(int64(len(buf)), r.window)]
	}
	for {
		n, readErr := sys.ReadChunk(body, buf)
		written, complete, err := r.write(ctx, w, buf[:n])
		got += written
		switch at := have + got; {
		case err != nil:
			return got, err
		case complete && at < end: // the rest was split off or given back, or the layer begun again
			return got, nil
		case complete && int64(n) > written:
			return got, &tooLongError{w.layer.size}
		case complete && readErr == nil:
			return got, expectEnd(body, w.layer.size)
		case complete:
			return got, nil
		case readErr == io.EOF:
			return got, fmt.Errorf("%w: the source ends after %d of the %d bytes that the manifest declares", tarball.ErrSize, at, w.layer.size)
		case readErr != nil:
			return got, fmt.Errorf("read at %d of %d bytes: %w", at, w.layer.size, readErr)
		}
	}
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

// write puts bytes at the chunk's position into the sink, as many as the chunk
// still wants, and reports whether it wants no more from this worker.
func (r *run) write(ctx context.Context, w *work, p []byte) (written int64, complete bool, err error) {
	l, c := w.layer, w.chunk
	r.mu.Lock()
	for r.window > 0 && w.generation == l.generation && ctx.Err() == nil && l.offset+min(c.pos+int64(len(p)), c.end) > r.limit() {
		if !r.isNext(l, c) {
			// A layer before it was restarted, and may need this connection.
			c.active = false
			r.cond.Broadcast()
			r.mu.Unlock()
			return 0, true, nil
		}
		r.cond.Wait() // a stream is ahead of what is hashed
	}
	if w.generation != l.generation {
		r.mu.Unlock()
		return 0, true, nil
	}
	if r.window > 0 && ctx.Err() != nil {
		r.mu.Unlock()
		return 0, false, context.Cause(ctx)
	}
	at := c.pos
	p = p[:min(int64(len(p)), c.end-at)]
	c.claimed = at + int64(len(p)) // from here on these are not split off
	l.writes++
	r.mu.Unlock()

	_, err = r.Sink.WriteAt(p, l.offset+at)

	r.mu.Lock()
	l.writes--
	r.progress.Downloaded += int64(len(p))
	var done sys.Interval
	switch over := w.generation != l.generation; {
	case over:
		complete = true
	case err != nil:
		c.claimed, err = at, &sys.WriteError{Err: err}
	default:
		c.pos = c.claimed
		r.progress.Done += int64(len(p))
		complete = c.pos == c.end
		if complete || c.pos-c.journaled >= journalStep {
			done, c.journaled = sys.Interval{From: c.journaled, To: c.pos}, c.pos
		}
	}
	r.cond.Broadcast()
	r.mu.Unlock()
	if err != nil {
		return 0, false, err
	}
	r.Journal.Add(l.digest, done.From, done.To)
	if len(p) > 0 {
		r.report()
	}
	return int64(len(p)), complete, nil
}

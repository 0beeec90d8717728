package registry

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// tolerance is how many requests in a row may fail before a source is set
	// aside: one broken connection says little, and sixteen ranges that break at
	// once with the same registry would otherwise say it sixteen times.
	tolerance = 3
	// firstAside and longestAside bound how long a source is set aside; it
	// doubles each time that it fails again. A registry that restarts is back
	// within half a minute, and one that is gone is asked once in five.
	firstAside   = 30 * time.Second
	longestAside = 5 * time.Minute
	// enough is after how many bytes a body that breaks is no failure of its
	// source, so that a connection that breaks now and then is just continued.
	enough = 1 << 20
)

// health tells whether a source is worth being asked before the others. A
// source that is set aside is asked after them, never not at all.
type health struct {
	now func() time.Time

	mu       sync.Mutex
	failures int // in a row
	aside    time.Duration
	until    time.Time // set aside until then
	probing  bool      // one request finds out whether it is back
	last     error
}

// allow tells whether the source may be asked now. After it was set aside for
// its time, one request at a time is allowed, until one is answered. Each true
// must be followed by settle.
func (h *health) allow() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.aside == 0 {
		return true
	}
	if h.probing || h.now().Before(h.until) {
		return false
	}
	h.probing = true
	return true
}

// asideFor returns why a source is set aside at the moment, nil if it is not.
func (h *health) asideFor() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.aside == 0 || !h.now().Before(h.until) {
		return nil
	}
	return h.last
}

// settle says how a request ended: nil for well, errNeutral for what tells
// nothing about the source. It returns for how long the source is set aside by
// that; 0 if it is not, or is already.
func (h *health) settle(err error) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch h.probing = false; {
	case err == nil:
		h.failures, h.aside, h.until, h.last = 0, 0, time.Time{}, nil
	case err != errNeutral:
		h.failures++
		h.last = err
		if h.failures >= tolerance && !h.now().Before(h.until) {
			return h.setAside()
		}
	}
	return 0
}

// fail sets the source aside at once: its requests were repeated already.
func (h *health) fail(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failures, h.last, h.probing = max(h.failures, tolerance), err, false
	h.setAside()
}

func (h *health) setAside() time.Duration {
	h.aside = min(max(2*h.aside, firstAside), longestAside)
	h.until = h.now().Add(h.aside)
	return h.aside
}

// settle is [health.settle] of the repository, and says what follows. That a
// registry ignores ranges is no failure: it serves whole blobs.
func (r *repository) settle(err error) {
	if errors.Is(err, ErrRange) {
		err = errNeutral
	}
	if d := r.health.settle(err); d > 0 {
		r.client.options.Logger.Warn("source keeps failing, any other is asked before it", "source", r.name, "for", d, "error", err)
	}
}

// resolved sets the source aside that does not answer when it is asked for an
// image: these requests were repeated already. A login has said so itself.
func (r *repository) resolved(ctx context.Context, err error) {
	if err != nil && errors.Is(newError(ctx, "resolve", r.name, err), ErrUnreachable) && r.health.asideFor() == nil {
		r.health.fail(err)
	}
}

// errNeutral is the end of a request that tells nothing about its source.
var errNeutral = errors.New("not the source's doing")

// asideError is why a source was passed over without being asked.
type asideError struct{ err error }

func (e *asideError) Error() string { return e.err.Error() }
func (e *asideError) Unwrap() error { return e.err }

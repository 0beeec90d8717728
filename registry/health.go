package registry

import (
	"errors"
	"sync"
	"time"
)

const (
	// tolerance is how many requests in a row may fail before a source is set
	// aside: one broken connection says little, and sixteen ranges that break at
	// once with the same registry would otherwise count sixteen times.
	tolerance = 3
	// firstAside and longestAside bound how long a source is set aside; the time
	// doubles each time that it fails again. A registry that restarts is back
	// within half a minute, and one that is gone is asked every five minutes.
	firstAside   = 30 * time.Second
	longestAside = 5 * time.Minute
	// probeWait is what callers wait for another's probe before they look again.
	probeWait = time.Second
	// enough is after how many bytes a body that breaks is no failure of its
	// source, so that a connection that breaks now and then is just continued.
	enough = 1 << 20
)

// A health decides whether a source is asked before the others. A source that is
// set aside is asked after them. It is safe for concurrent use.
type health struct {
	now func() time.Time

	mu       sync.Mutex
	failures int // in a row
	aside    time.Duration
	until    time.Time // set aside until then
	probing  bool      // one request finds out whether it is back
	last     error
}

// allow reports whether the source may be asked now. After it was set aside for
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

// wait returns how long the source is not to be asked: what is left of the time that it is
// set aside for, and then as long as another request finds out whether it is back.
func (h *health) wait() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch left := h.until.Sub(h.now()); {
	case h.aside == 0:
		return 0
	case left > 0:
		return left
	case h.probing:
		return probeWait
	}
	return 0
}

// errNeutral is the end of a request that says nothing about its source.
var errNeutral = errors.New("not caused by the source")

// settle records how a request ended: nil for success, errNeutral for what says
// nothing about the source. It returns for how long that sets the source aside;
// 0 if it does not, or if the source is set aside already.
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

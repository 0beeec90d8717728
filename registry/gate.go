package registry

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/dockercache/dockercache/internal/backoff"
	"github.com/dockercache/dockercache/internal/httpretry"
	"github.com/dockercache/dockercache/internal/wait"
)

const (
	// mostRefusals and longestRefused bound how often, and for how long, one request is
	// refused while others are served: what is refused whenever it is asked for ends too.
	// Of 20 images at once, at a host that asks for too short a delay, one was refused 20
	// times by bad luck.
	mostRefusals   = 20
	longestRefused = 10 * time.Minute
	// leastJitter is the least range of what is added to a delay, however short that is.
	leastJitter = 5 * time.Millisecond
	// mostGates is how many hosts are remembered at least, for registries may redirect to
	// many.
	mostGates = 256
)

// gates make the requests of a client wait for hosts that refuse them: those that answer
// 429, or 503 with a delay. A refusal belongs to the host and not to the request that got
// it, so it shuts the gate for all. Ranges of blobs fail at a shut gate: their caller has
// other sources, and a connection to give to them. Other requests wait, no longer than
// their contexts allow, and are let through one by one at first, more with each that is
// served. They end when nothing was served between as many refusals as a request has
// attempts, see [httpretry.Retries].
type gates struct {
	inner  http.RoundTripper
	first  time.Duration                     // the delay after a refusal that asks for none
	jitter func(time.Duration) time.Duration // from 0 to so much
	log    *slog.Logger

	mu    sync.Mutex
	hosts map[string]*gate
}

func newGates(inner http.RoundTripper, first time.Duration, log *slog.Logger) *gates {
	return &gates{inner: inner, first: first, jitter: func(most time.Duration) time.Duration { return rand.N(most + 1) }, log: log, hosts: map[string]*gate{}}
}

// A gate is that of a host which has refused a request. Its fields are guarded by the
// mutex of gates.
type gate struct {
	until    time.Time // for ranges
	opens    time.Time // for others: jitter later, so that a fleet does not come in step
	timer    *time.Timer
	shut     int           // how often, so far
	refused  int           // how often it was shut since a request was served
	last     *refusedError // why it was shut
	waiting  []chan pass   // in order; each gets one when it may go on, or is to end
	inFlight int           // of those that came through since it was shut
	limit    int           // of inFlight
}

// A pass is how a request came through.
type pass struct {
	gate    *gate
	shut    int   // of the gate, at that moment
	counted bool  // in inFlight
	err     error // it is not made
}

// A refusedError is an answer that asks for a delay, or a request that was not made, since
// the delay has not passed.
type refusedError struct {
	host  string
	err   error         // the answer
	delay time.Duration // that is left
	early bool          // not asked
}

func (e *refusedError) Error() string { return e.err.Error() }
func (e *refusedError) Unwrap() error { return e.err }

// RoundTrip makes a request when its host is ready for it.
func (g *gates) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, host := req.Context(), req.URL.Host
	var since time.Time // it was refused
	for own := 1; ; own++ {
		through := g.enter(ctx, host)
		if through.err != nil {
			if req.Body != nil {
				_ = req.Body.Close()
			}
			return nil, through.err
		}
		resp, err := g.inner.RoundTrip(req)
		refused := refusalOf(host, resp)
		if refused == nil {
			g.passed(host, through, err == nil)
			return resp, err
		}
		if since.IsZero() {
			since = time.Now()
		}
		end := g.refuse(ctx, host, through, refused) || own >= mostRefusals && time.Since(since) >= longestRefused
		if end || ctx.Value(onceKey{}) != nil {
			return nil, refused
		}
		if req = again(req); req == nil {
			return nil, refused
		}
	}
}

// again returns a request to be made once more, nil if its body is gone.
func again(req *http.Request) *http.Request {
	if req.Body == nil || req.Body == http.NoBody {
		return req
	}
	if req.GetBody == nil {
		return nil
	}
	body, err := req.GetBody()
	if err != nil {
		return nil
	}
	next := *req
	next.Body = body
	return &next
}

// refusalOf returns the refusal that an answer is, nil if it is none. Its body is closed.
func refusalOf(host string, resp *http.Response) *refusedError {
	if resp == nil || resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusServiceUnavailable {
		return nil
	}
	delay := delayOf(resp.Header, textOf(resp))
	if resp.StatusCode == http.StatusServiceUnavailable && delay == 0 {
		return nil
	}
	defer resp.Body.Close()
	return &refusedError{host: host, err: transport.CheckError(resp), delay: delay}
}

// maxText is how much of an error's text is read, in bytes: what go-containerregistry does.
const maxText = 64 << 10

// textOf reads the body of an answer that is an error, and puts it back.
func textOf(resp *http.Response) string {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxText)) // the status is what counts
	resp.Body = struct {
		io.Reader
		io.Closer
	}{bytes.NewReader(text), resp.Body}
	return string(text)
}

// enter waits until a request may be made.
func (g *gates) enter(ctx context.Context, host string) pass {
	g.mu.Lock()
	at := g.hosts[host]
	switch {
	case at == nil:
		g.mu.Unlock()
		return pass{}
	case ctx.Value(onceKey{}) != nil:
		defer g.mu.Unlock()
		if refused := at.refusal(); refused != nil {
			return pass{err: refused}
		}
		return pass{gate: at, shut: at.shut}
	}
	w := make(chan pass, 1)
	at.waiting = append(at.waiting, w)
	at.admit()
	g.mu.Unlock()
	select {
	case through := <-w:
		return through
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	at.waiting = slices.DeleteFunc(at.waiting, func(other chan pass) bool { return other == w })
	select {
	case through := <-w: // at the same moment
		at.left(through)
		at.admit()
	default:
	}
	return pass{err: wait.Err(ctx)}
}

// refusal returns the error of a range at the gate, nil if it is open.
func (at *gate) refusal() *refusedError {
	left := time.Until(at.until)
	if left <= 0 {
		return nil
	}
	return &refusedError{host: at.last.host, err: at.last.err, delay: left, early: true}
}

// admit lets through who may go on. The caller holds the mutex.
func (at *gate) admit() {
	for len(at.waiting) > 0 && at.inFlight < at.limit && !time.Now().Before(at.opens) {
		at.inFlight++
		at.waiting[0] <- pass{gate: at, shut: at.shut, counted: true}
		at.waiting = at.waiting[1:]
	}
}

// left records that a request is no longer in flight. The caller holds the mutex.
func (at *gate) left(through pass) {
	if through.counted && through.gate == at && through.shut == at.shut {
		at.inFlight--
	}
}

// passed records that a request was not refused, and whether it was answered.
func (g *gates) passed(host string, through pass, answered bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	at := g.hosts[host]
	if at == nil {
		return
	}
	at.left(through)
	if answered {
		at.refused = 0
	}
	if through.gate == at && through.shut == at.shut {
		// Without an answer too: one host that is gone must not hold up one request
		// after the other.
		at.limit++
	}
	at.admit()
}

// refuse shuts the gate after a refusal, and sets the delay that it is shut for. It reports
// whether the request is to end.
func (g *gates) refuse(ctx context.Context, host string, through pass, refused *refusedError) (end bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	at := g.hosts[host]
	if at == nil {
		g.forget()
		at = &gate{}
		at.timer = time.AfterFunc(time.Hour, func() {
			g.mu.Lock()
			defer g.mu.Unlock()
			at.admit()
		})
		g.hosts[host] = at
	}
	begins := at.shut == 0 || through.gate == at && through.shut == at.shut // otherwise it was asked before the gate was shut
	at.left(through)
	if begins {
		at.shut++
		at.refused++
		at.inFlight, at.limit = 0, 1
	}
	// A delay that was too short is not believed for ever.
	switch n := at.refused; {
	case refused.delay == 0:
		refused.delay = backoff.Delay(g.first, httpretry.LongestWait, max(n, 1))
	default:
		refused.delay = max(refused.delay, backoff.Delay(g.first, httpretry.LongestWait, n-1))
	}
	if until := time.Now().Add(refused.delay); until.After(at.until) || begins {
		at.until, at.last = until, refused
		at.opens = until.Add(g.jitter(max(refused.delay/10, leastJitter)))
		at.timer.Reset(time.Until(at.opens))
	}
	refused.delay = max(refused.delay, time.Until(at.until))
	if begins {
		g.log.InfoContext(ctx, "the host refuses requests for a while", "host", host, "for", refused.delay, "times", at.refused)
	}
	if at.refused <= httpretry.Retries {
		at.admit()
		return false
	}
	at.refused = 0 // what is asked later has all attempts again
	for _, w := range at.waiting {
		w <- pass{err: refused}
	}
	at.waiting = nil
	return true
}

// forget drops the gates that are open, if there are many.
func (g *gates) forget() {
	if len(g.hosts) < mostGates {
		return
	}
	for host, at := range g.hosts {
		if len(at.waiting) == 0 && at.inFlight == 0 && !time.Now().Before(at.opens) {
			delete(g.hosts, host)
		}
	}
}

// refusedLately is how long a host counts as one that refuses requests after its delay.
const refusedLately = 30 * time.Second

// sinceRefusal returns how long ago the delay ended that a host asked for last, 0 if that is
// long ago, or if it never did.
func (g *gates) sinceRefusal(host string) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if at := g.hosts[host]; at != nil {
		if since := time.Since(at.until); since > 0 && since < refusedLately {
			return since
		}
	}
	return 0
}

// refusal returns the error of a range that would be asked for now, nil if the host is
// ready for it.
func (g *gates) refusal(host string) *refusedError {
	g.mu.Lock()
	defer g.mu.Unlock()
	if at := g.hosts[host]; at != nil {
		return at.refusal()
	}
	return nil
}

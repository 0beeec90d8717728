package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"time"
)

// The causes with which a request is ended that takes too long.
var (
	errFirstByte = errors.New("no first byte came in time")
	errStalled   = errors.New("no byte came for too long")
	errSlow      = errors.New("the answer did not end in time")
)

// small is how many times as long as it may stall an answer may take in all that is
// no blob: otherwise one that comes byte by byte would never end.
const small = 4

// A timedTransport limits how long an answer may take. Its first byte: as long as a blob's
// may, of its header and again of its body, from the request on. Each other byte: as
// long as an answer may stall; and so may the connection, where net/http makes it. All of
// it, unless it is a range of a blob that is served: a multiple of that, for a blob from
// its header on.
type timedTransport struct {
	inner                     http.RoundTripper
	firstByte, stall          time.Duration
	tooLate, stalled, tooSlow error // with the option that is the limit
}

func newTimedTransport(inner http.RoundTripper, firstByte, stall time.Duration) *timedTransport {
	return &timedTransport{
		inner, firstByte, stall,
		fmt.Errorf("%w (%v), see Options.FirstByteTimeout", errFirstByte, firstByte),
		fmt.Errorf("%w (%v), see Options.StallTimeout", errStalled, stall),
		fmt.Errorf("%w (%v), which is %d times Options.StallTimeout", errSlow, small*stall, small),
	}
}

func (t *timedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	begun := time.Now()
	ctx, cancel := context.WithCancelCause(req.Context())
	isBlob := ctx.Value(blobKey{}) != nil && ctx.Value(tokenKey{}) == nil
	isRange := isBlob && ctx.Value(onceKey{}) != nil
	first, cause := t.firstByte, t.tooLate
	if !isBlob {
		first, cause = small*t.stall, t.tooSlow // as all of it
		t.endAfter(ctx, cancel)
	}
	timer := time.AfterFunc(first, func() { cancel(cause) })
	connecting := time.AfterFunc(t.stall, func() { cancel(t.stalled) })
	connecting.Stop()
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { connecting.Reset(t.stall) },
		GotConn: func(httptrace.GotConnInfo) { connecting.Stop() },
	})
	resp, err := t.inner.RoundTrip(req.WithContext(traced))
	timer.Stop()
	connecting.Stop()
	if err != nil {
		err = t.explain(ctx, err)
		cancel(nil)
		return nil, err
	}
	if isBlob && !(isRange && resp.StatusCode >= 200 && resp.StatusCode < 300) {
		t.endAfter(ctx, cancel)
	}
	resp.Body = &timedBody{ReadCloser: resp.Body, transport: t, ctx: ctx, cancel: cancel, timer: timer, first: max(first-time.Since(begun), t.stall)}
	return resp, nil
}

// endAfter ends a request that takes too long in all.
func (t *timedTransport) endAfter(ctx context.Context, cancel context.CancelCauseFunc) {
	end := time.AfterFunc(small*t.stall, func() { cancel(t.tooSlow) })
	context.AfterFunc(ctx, func() { end.Stop() })
}

// explain returns why a request ended: net/http only says that its context did.
func (t *timedTransport) explain(ctx context.Context, err error) error {
	switch cause := context.Cause(ctx); cause {
	case t.tooLate, t.stalled, t.tooSlow:
		return cause
	}
	return err
}

type timedBody struct {
	io.ReadCloser
	transport *timedTransport
	ctx       context.Context // of this request alone
	cancel    context.CancelCauseFunc
	timer     *time.Timer   // ends it
	first     time.Duration // that the first byte may take; 0 once it came
}

func (b *timedBody) Read(p []byte) (int, error) {
	// Only the wait for the server counts, not the time between two reads.
	if b.first > 0 {
		b.timer.Reset(b.first)
	} else {
		b.timer.Reset(b.transport.stall)
	}
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop()
	if n > 0 && b.first > 0 {
		b.first = 0
		b.timer = time.AfterFunc(b.transport.stall, func() { b.cancel(b.transport.stalled) })
		b.timer.Stop()
	}
	if err != nil && err != io.EOF {
		err = b.transport.explain(b.ctx, err)
	}
	return n, err
}

func (b *timedBody) Close() error {
	b.timer.Stop()
	b.cancel(nil)
	return b.ReadCloser.Close()
}

package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// errStalled is the cause with which a request that stalled is ended.
var errStalled = errors.New("no byte came for too long")

// stallTransport ends every request that gives nothing for timeout, before its
// answer or in the middle of it: not blobs alone, a manifest or a token that
// stalls would hold a run up as well.
type stallTransport struct {
	inner   http.RoundTripper
	timeout time.Duration
}

func (t *stallTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	timer := time.AfterFunc(t.timeout, func() { cancel(errStalled) })
	resp, err := t.inner.RoundTrip(req.WithContext(ctx))
	timer.Stop()
	if err != nil {
		err = stalled(ctx, t.timeout, err)
		cancel(nil)
		return nil, err
	}
	resp.Body = &stallBody{ReadCloser: resp.Body, ctx: ctx, cancel: cancel, timer: timer, timeout: t.timeout}
	return resp, nil
}

type stallBody struct {
	io.ReadCloser
	ctx     context.Context // of this request alone
	cancel  context.CancelCauseFunc
	timer   *time.Timer
	timeout time.Duration
}

func (b *stallBody) Read(p []byte) (int, error) {
	// Only the wait for the other side counts, not what the reader does between
	// two reads.
	b.timer.Reset(b.timeout)
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop()
	if err != nil && err != io.EOF {
		err = stalled(b.ctx, b.timeout, err)
	}
	return n, err
}

// stalled returns why a request ended: net/http says only that its context did.
func stalled(ctx context.Context, timeout time.Duration, err error) error {
	if context.Cause(ctx) == errStalled {
		return fmt.Errorf("%w (%v)", errStalled, timeout)
	}
	return err
}

func (b *stallBody) Close() error {
	b.timer.Stop()
	b.cancel(nil)
	return b.ReadCloser.Close()
}

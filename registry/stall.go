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

// stallTransport ends every answer whose body gives nothing for timeout: not
// blobs alone, a manifest or a token that stalls would hold a run up as well.
// (Waiting for the answer's head is the connection's affair.)
type stallTransport struct {
	inner   http.RoundTripper
	timeout time.Duration
}

func (t *stallTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	resp, err := t.inner.RoundTrip(req.WithContext(ctx))
	if err != nil {
		cancel(nil)
		return nil, err
	}
	b := &stallBody{ReadCloser: resp.Body, ctx: ctx, cancel: cancel, timeout: t.timeout}
	b.timer = time.AfterFunc(t.timeout, func() { cancel(errStalled) })
	b.timer.Stop()
	resp.Body = b
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
	if err != nil && err != io.EOF && context.Cause(b.ctx) == errStalled {
		err = fmt.Errorf("%w (%v)", errStalled, b.timeout)
	}
	return n, err
}

func (b *stallBody) Close() error {
	b.timer.Stop()
	b.cancel(nil)
	return b.ReadCloser.Close()
}

package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/dockercache/dockercache/internal/httpclient"
	"github.com/dockercache/dockercache/internal/httpretry"
)

// maxRedirects is what net/http allows by default.
const maxRedirects = 10

// DefaultTransport returns a new transport as a [Client] uses by default, for
// importers that change or wrap it: the proxy that the environment names, 10 s at
// most for connecting, and HTTP/1.1 alone. HTTP/2 would put all ranges of a blob
// through one connection, and it is the connection that is slow.
func DefaultTransport() *http.Transport {
	t := httpclient.NewTransport()
	t.MaxIdleConnsPerHost = 64
	t.Protocols = new(http.Protocols)
	t.Protocols.SetHTTP1(true)
	return t
}

// newTransport returns the stack below the credentials: the check for plain
// HTTP, retries, and the connection.
func newTransport(base *guard, plainHTTP []string, retryWait, stallTimeout time.Duration) http.RoundTripper {
	// A redirect is followed above the credentials.
	client := httpretry.New(&secureTransport{&stallTransport{base, stallTimeout}, plainHTTP, base.refuses}, retryWait, checkRetry)
	return &oneOfBoth{&retryablehttp.RoundTripper{Client: client}}
}

// oneOfBoth drops the answer that go-retryablehttp returns together with an error
// when a context ends between two attempts: net/http would log that.
type oneOfBoth struct{ inner http.RoundTripper }

func (t *oneOfBoth) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.inner.RoundTrip(req)
	if err != nil && resp != nil {
		_ = resp.Body.Close()
		resp = nil
	}
	return resp, err
}

// onceKey marks a context whose requests are not repeated here.
type onceKey struct{}

// withoutRetries is for ranges of blobs: a caller who reads many at once can wait
// without keeping other ranges from a connection.
func withoutRetries(ctx context.Context) context.Context {
	return context.WithValue(ctx, onceKey{}, true)
}

// checkRetry repeats requests as [httpretry.Check], and those answered with 429.
func checkRetry(ctx context.Context, resp *http.Response, err error) (bool, error) {
	var refused *plainHTTPError
	var away *awayError
	switch {
	case ctx.Err() != nil:
		return false, ctx.Err()
	case ctx.Value(onceKey{}) != nil:
		return false, nil
	case errors.As(err, &refused), errors.As(err, &away), errors.Is(err, ErrLocalAddress), errors.Is(err, http.ErrSchemeMismatch), isCertificate(err):
		return false, nil // permanent; loopback registries are tried with HTTPS first
	case err == nil && resp.StatusCode == http.StatusTooManyRequests:
		return true, nil
	}
	return httpretry.Check(ctx, resp, err)
}

// checkRedirect limits the number of redirects. secureTransport checks that none
// leads away from HTTPS, and guard where it leads.
func checkRedirect(req *http.Request, via []*http.Request) error {
	// It would be the whole URL before, with its signature.
	req.Header.Del("Referer")
	if len(via) >= maxRedirects {
		return fmt.Errorf("stopped after %d redirects", maxRedirects)
	}
	return nil
}

// A secureTransport refuses plain HTTP to any host but loopback and those that
// plainHTTP names. go-containerregistry would use it for all private addresses.
type secureTransport struct {
	inner     http.RoundTripper
	plainHTTP []string
	refuses   func(*http.Request) error // for a reason that is worth more
}

func (t *secureTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := t.refuses(req); err != nil {
		return nil, err
	}
	if req.URL.Scheme != "https" && !httpclient.IsLoopback(req.URL.Hostname()) && !allows(t.plainHTTP, req.URL.Host) {
		return nil, &plainHTTPError{req.URL.Host}
	}
	resp, err := t.inner.RoundTrip(req)
	if err != nil || resp.StatusCode < 300 || resp.StatusCode >= 400 {
		return resp, err
	}
	to, err := resp.Location()
	switch {
	case errors.Is(err, http.ErrNoLocation):
		return resp, nil
	case err != nil || strings.Trim(strings.ToLower(to.Host), "abcdefghijklmnopqrstuvwxyz0123456789-._:[]") != "":
		// An error would quote it, with its signature; and what has other
		// characters than a host, but stands in its place, could be anything.
		err = fmt.Errorf("%s redirects to a malformed URL", req.URL.Host)
	case leadsAway(req, to.Host):
		err = &awayError{req.URL.Host, to.Host}
	default:
		return resp, nil
	}
	resp.Body.Close()
	return nil, err
}

// tokenKey marks the context of a request for a token.
type tokenKey struct{}

// leadsAway reports whether following a redirect would send a credential to
// another host, or drop it: then the error would be a "denied" without a reason.
func leadsAway(req *http.Request, to string) bool {
	if req.Method != http.MethodGet {
		// Only a token server gets a POST, and its body is a credential. A client
		// that follows 307 or 308 would send it on.
		return true
	}
	return req.Context().Value(tokenKey{}) != nil && req.Header.Get("Authorization") != "" && to != req.URL.Host
}

// An awayError is a redirect that is not followed.
type awayError struct{ from, to string }

func (e *awayError) Error() string {
	return fmt.Sprintf("%s redirects the request for a token, which contains a credential, to %s", e.from, e.to)
}

// hostOf returns the host of HOST or HOST:PORT.
func hostOf(hostPort string) string {
	if host, _, err := net.SplitHostPort(hostPort); err == nil {
		return host
	}
	return strings.Trim(hostPort, "[]")
}

// allows reports whether a list of HOST and HOST:PORT contains this one.
func allows(list []string, hostPort string) bool {
	host, _, err := net.SplitHostPort(hostPort)
	return slices.Contains(list, hostPort) || err == nil && slices.Contains(list, host)
}

type plainHTTPError struct{ host string }

func (e *plainHTTPError) Error() string {
	return fmt.Sprintf("plain HTTP to %s is not allowed: name it as a plain-HTTP registry if the network in between can be trusted", e.host)
}

// The causes with which a request that stalled, or dripped, is ended.
var (
	errStalled = errors.New("no byte came for too long")
	errSlow    = errors.New("the answer did not end in time")
)

// small is how many times as long as it may stall an answer may take in all that is
// no range of a blob: otherwise one that comes byte by byte would never end.
const small = 4

// A stallTransport ends every request that receives nothing for timeout, before
// its answer or in the middle of it. That holds for blobs, manifests and tokens. All
// but ranges of blobs are ended as well after a multiple of it.
type stallTransport struct {
	inner   http.RoundTripper
	timeout time.Duration
}

func (t *stallTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	if req.Context().Value(onceKey{}) == nil { // no range
		end := time.AfterFunc(small*t.timeout, func() { cancel(errSlow) })
		context.AfterFunc(ctx, func() { end.Stop() })
	}
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
	// Only the wait for the server counts, not the time between two reads.
	b.timer.Reset(b.timeout)
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop()
	if err != nil && err != io.EOF {
		err = stalled(b.ctx, b.timeout, err)
	}
	return n, err
}

func (b *stallBody) Close() error {
	b.timer.Stop()
	b.cancel(nil)
	return b.ReadCloser.Close()
}

// stalled returns why a request ended: net/http only says that its context did.
func stalled(ctx context.Context, timeout time.Duration, err error) error {
	switch context.Cause(ctx) {
	case errStalled:
		return fmt.Errorf("%w (%v)", errStalled, timeout)
	case errSlow:
		return fmt.Errorf("%w (%v)", errSlow, small*timeout)
	}
	return err
}

package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"

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

// newTransport returns the stack below the credentials: retries, the check for plain
// HTTP, the gates of hosts that refuse requests, the limits of time, and the connection.
func newTransport(base *guard, o *Options, log *slog.Logger) (http.RoundTripper, *gates) {
	gates := newGates(newTimedTransport(base, o.FirstByteTimeout, o.StallTimeout), o.RetryWait, log)
	// A redirect is followed above the credentials.
	client := httpretry.New(&secureTransport{gates, o.PlainHTTP, base.refuses}, o.RetryWait, checkRetry)
	return &oneOfBoth{&retryablehttp.RoundTripper{Client: client}}, gates
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

// onceKey marks a context whose requests are not repeated here, and do not wait for a host
// that refuses them. blobKey marks one of requests for blobs.
type (
	onceKey struct{}
	blobKey struct{}
)

// forRange is for ranges of blobs: a caller who reads many at once can wait
// without keeping other ranges from a connection.
func forRange(ctx context.Context) context.Context {
	return context.WithValue(forBlob(ctx), onceKey{}, true)
}

// forBlob is for requests whose answer may take long to begin.
func forBlob(ctx context.Context) context.Context {
	return context.WithValue(ctx, blobKey{}, true)
}

// forLogin is for a login on the way of another request. It is for all, and goes on
// without it: with retries, even for a range of a blob, since a failure is remembered.
func forLogin(ctx context.Context) context.Context {
	return context.WithValue(context.WithValue(context.WithoutCancel(ctx), onceKey{}, nil), blobKey{}, nil)
}

// checkRetry repeats requests as [httpretry.Check]. Those that a host refused have waited
// at its gate.
func checkRetry(ctx context.Context, resp *http.Response, err error) (bool, error) {
	var plain *plainHTTPError
	var away *awayError
	var refused *refusedError
	switch {
	case ctx.Err() != nil:
		return false, ctx.Err()
	case ctx.Value(onceKey{}) != nil:
		return false, nil
	case errors.As(err, &refused), errors.As(err, &plain), errors.As(err, &away), errors.Is(err, ErrLocalAddress), errors.Is(err, http.ErrSchemeMismatch), isCertificate(err):
		return false, nil // permanent; loopback registries are tried with HTTPS first
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

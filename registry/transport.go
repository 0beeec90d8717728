package registry

import (
	"context"
	"errors"
	"fmt"
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

// newTransport returns the stack below the credentials: the check for plain
// HTTP, retries, and the connection.
func newTransport(o Options) http.RoundTripper {
	base := o.Transport
	if base == nil {
		t := httpclient.NewTransport()
		t.MaxIdleConnsPerHost = 64
		// HTTP/2 would put all ranges of a blob through one connection, and it is
		// the connection that is slow.
		t.Protocols = new(http.Protocols)
		t.Protocols.SetHTTP1(true)
		base = t
	}
	// A redirect is followed above the credentials.
	client := httpretry.New(&secureTransport{inner: &stallTransport{base, o.StallTimeout}, plainHTTP: o.PlainHTTP}, o.RetryWait, checkRetry)
	return &oneOfBoth{&retryablehttp.RoundTripper{Client: client}}
}

// oneOfBoth drops the answer that comes with an error, when a context ends
// between two tries: net/http would complain about it on standard error.
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

// withoutRetries is for ranges of blobs: who reads many side by side waits
// better, without keeping others from a connection.
func withoutRetries(ctx context.Context) context.Context {
	return context.WithValue(ctx, onceKey{}, true)
}

// checkRetry repeats what may go better the next time: no answer, 429, and 5xx
// except 501.
func checkRetry(ctx context.Context, resp *http.Response, err error) (bool, error) {
	var refused *plainHTTPError
	var away *awayError
	switch {
	case ctx.Err() != nil:
		return false, ctx.Err()
	case ctx.Value(onceKey{}) != nil:
		return false, nil
	case errors.As(err, &refused), errors.As(err, &away), errors.Is(err, http.ErrSchemeMismatch):
		return false, nil // the answer is no; loopback registries are tried with HTTPS first
	case err == nil && resp.StatusCode == http.StatusTooManyRequests:
		return true, nil
	}
	return httpretry.Check(ctx, resp, err)
}

// checkRedirect bounds redirects, and refuses to be led by a registry elsewhere
// to services of this machine or to a cloud's metadata. secureTransport checks
// that no redirect leads away from HTTPS.
func checkRedirect(req *http.Request, via []*http.Request) error {
	// It would be the whole URL before, with the signature of that storage.
	req.Header.Del("Referer")
	if len(via) >= maxRedirects {
		return fmt.Errorf("stopped after %d redirects", maxRedirects)
	}
	if !httpclient.MayRedirect(via[0].URL.Hostname(), req.URL.Hostname()) {
		return fmt.Errorf("%s redirects to %s, which is not its to name", via[0].URL.Host, req.URL.Host)
	}
	return nil
}

// secureTransport refuses plain HTTP to any host but loopback and those named.
// go-containerregistry would use it for all private addresses.
type secureTransport struct {
	inner     http.RoundTripper
	plainHTTP []string
}

func (t *secureTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" && !httpclient.IsLoopback(req.URL.Hostname()) && !allows(t.plainHTTP, req.URL.Host) {
		return nil, &plainHTTPError{req.URL.Host}
	}
	resp, err := t.inner.RoundTrip(req)
	if err != nil || resp.StatusCode < 300 || resp.StatusCode >= 400 {
		return resp, err
	}
	if to, err := resp.Location(); err == nil && leadsAway(req, to.Host) {
		resp.Body.Close()
		return nil, &awayError{req.URL.Host, to.Host}
	}
	return resp, nil
}

// leadsAway tells whether to follow a redirect would take a credential to where
// it does not belong, or lose it on the way: a token that is asked for in vain
// ends in a "denied" that says nothing.
func leadsAway(req *http.Request, to string) bool {
	if req.Method != http.MethodGet {
		// Only a token server is posted to, and the body is a credential. A
		// client that follows 307 or 308 would send it on.
		return true
	}
	return req.Context().Value(tokenKey{}) != nil && req.Header.Get("Authorization") != "" && to != req.URL.Host
}

// An awayError is a redirect that is not followed.
type awayError struct{ from, to string }

func (e *awayError) Error() string {
	return fmt.Sprintf("%s redirects the request for a token, which holds a credential, to %s", e.from, e.to)
}

// hostOf returns the host of HOST or HOST:PORT.
func hostOf(hostPort string) string {
	if host, _, err := net.SplitHostPort(hostPort); err == nil {
		return host
	}
	return strings.Trim(hostPort, "[]")
}

// allows tells whether a list of HOST and HOST:PORT has this one.
func allows(list []string, hostPort string) bool {
	host, _, err := net.SplitHostPort(hostPort)
	return slices.Contains(list, hostPort) || err == nil && slices.Contains(list, host)
}

type plainHTTPError struct{ host string }

func (e *plainHTTPError) Error() string {
	return fmt.Sprintf("plain HTTP to %s is not allowed: name it as a plain-HTTP registry if the network in between can be trusted", e.host)
}

package artifacts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"
)

const (
	// retries is how often a request is repeated: with the default first wait,
	// 1 + 2 + 4 + 8 s.
	retries = 4
	// longestWait bounds the wait before a repetition, also the one that the
	// Retry-After of a 503 asks for. Rate limits are waited for elsewhere.
	longestWait = time.Minute
	// maxAnswer is how large an answer of the API may be: a page of 100
	// artifacts has some 100 KB.
	maxAnswer = 8 << 20
)

// newHTTP returns the client with retries, over the requests that are whole.
func newHTTP(o *Options) *retryablehttp.Client {
	base := o.Transport
	if base == nil {
		base = &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DialContext:         (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			TLSHandshakeTimeout: 10 * time.Second,
			IdleConnTimeout:     90 * time.Second,
			ForceAttemptHTTP2:   true,
		}
	}
	client := retryablehttp.NewClient()
	client.HTTPClient = &http.Client{
		Transport: &wholeTransport{base: base, maxArchive: o.Limits.ArchiveBytes},
		Timeout:   o.Timeout,
		// A redirect of the API is an answer, not a way: followed by net/http,
		// the token goes along to another port and to any sub-domain.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	client.Logger = nil // it would log URLs with their signatures
	client.RetryMax = retries
	client.RetryWaitMin, client.RetryWaitMax = o.RetryWait, longestWait
	client.CheckRetry, client.Backoff = checkRetry, backoff
	client.ErrorHandler = retryablehttp.PassthroughErrorHandler
	return client
}

// wholeTransport gives answers with their whole body, and for a download what
// the storage answers that the API redirects to. So a body that breaks off is
// repeated as a request that failed is, and each repetition of a download asks
// for a new URL of the storage: they are good for one minute.
type wholeTransport struct {
	base       http.RoundTripper
	maxArchive int64
}

// isDownload tells which requests are answered with a redirect to a storage.
func isDownload(u *url.URL) bool { return strings.HasSuffix(u.Path, "/zip") }

func (t *wholeTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.whole(req, maxAnswer)
	if err != nil || resp.StatusCode != http.StatusFound || !isDownload(req.URL) {
		return resp, err
	}
	location, err := resp.Location()
	if err != nil {
		return nil, errors.New("a redirect to nowhere")
	}
	if err := checkSecure(location); err != nil {
		return nil, err
	}
	if host := location.Hostname(); !isLoopback(req.URL.Hostname()) && (isLoopback(host) || net.ParseIP(host).IsLinkLocalUnicast()) {
		// Services of this machine, or a cloud's metadata.
		return nil, &unsafeURLError{fmt.Sprintf("%s redirects to %s, which is not its to name", req.URL.Host, location.Host)}
	}
	// A request of its own: with no token, cookie or referrer.
	get, err := http.NewRequestWithContext(req.Context(), http.MethodGet, location.String(), nil)
	if err != nil {
		return nil, errors.New("a redirect to an unusable URL")
	}
	get.Header.Set("User-Agent", userAgent)
	get.Header.Set("Accept-Encoding", "identity") // the digest is of the bytes as they are stored
	body, err := t.whole(get, t.maxArchive)
	if err != nil {
		return nil, err
	}
	if body.StatusCode != http.StatusOK {
		return nil, &storageError{location.Host, body.StatusCode}
	}
	return body, nil
}

// whole makes a request and reads all of its answer.
func (t *wholeTransport) whole(req *http.Request, limit int64) (*http.Response, error) {
	resp, err := t.base.RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", req.URL.Host, err)
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, fmt.Errorf("%s: read the answer: %w", req.URL.Host, err)
	}
	if int64(len(content)) > limit {
		return nil, overLimit("%s answers with more than %d bytes", req.URL.Host, limit)
	}
	resp.Body, resp.Request = io.NopCloser(bytes.NewReader(content)), req
	return resp, nil
}

// A storageError is an answer of the storage that is not the artifact. It has
// no status code for the retries to see, so that a refused signature is not
// taken for the API's refusal.
type storageError struct {
	host   string
	status int
}

func (e *storageError) Error() string {
	return fmt.Sprintf("the storage %s answers %d %s", e.host, e.status, http.StatusText(e.status))
}

// checkRetry repeats what may go better the next time: no answer, 5xx except
// 501, and anything that a storage says, for it gets another URL.
func checkRetry(ctx context.Context, resp *http.Response, err error) (bool, error) {
	var unsafeURL *unsafeURLError
	var limit *limitError
	var lookup *net.DNSError
	switch {
	case ctx.Err() != nil:
		return false, ctx.Err()
	case errors.As(err, &unsafeURL), errors.As(err, &limit):
		return false, nil
	case errors.As(err, &lookup) && lookup.IsNotFound:
		return false, nil
	case err != nil:
		return retryablehttp.DefaultRetryPolicy(ctx, nil, err)
	}
	return resp.StatusCode >= 500 && resp.StatusCode != http.StatusNotImplemented, nil
}

// backoff doubles the wait, takes up to half of it away at random so that a
// fleet does not come back in step, and obeys Retry-After up to the limit.
func backoff(first, limit time.Duration, attempt int, resp *http.Response) time.Duration {
	wait := min(retryablehttp.DefaultBackoff(first, limit, attempt, resp), limit)
	if resp != nil && resp.Header.Get("Retry-After") != "" {
		return wait
	}
	return wait - rand.N(wait/2+1)
}

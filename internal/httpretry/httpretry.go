// Package httpretry repeats HTTP requests that may go better the next time, by
// go-retryablehttp.
package httpretry

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/dockercache/dockercache/internal/backoff"
	"github.com/dockercache/dockercache/internal/retryafter"
)

const (
	// Retries is how often a request is repeated. The waits double, so a server
	// that restarts is waited for, and one that is gone does not hold up the next
	// one for long.
	Retries = 4
	// LongestWait bounds the wait before a repetition, also the one that a
	// Retry-After asks for: a server must not be able to stop a program for hours.
	LongestWait = time.Minute
)

// New returns a client that repeats a request when check reports that it may, the
// first time after firstWait. It follows no redirect, logs nothing, since URLs
// have signatures, and returns the last answer as it is. It is safe for
// concurrent use.
func New(transport http.RoundTripper, firstWait time.Duration, check retryablehttp.CheckRetry) *retryablehttp.Client {
	client := retryablehttp.NewClient()
	client.HTTPClient = &http.Client{
		Transport: transport,
		// net/http would send the credential along wherever only the port
		// differs, and to sub-domains.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	client.Logger = nil
	client.RetryMax = Retries
	client.RetryWaitMin, client.RetryWaitMax = firstWait, LongestWait
	client.CheckRetry, client.Backoff = check, Backoff
	client.ErrorHandler = retryablehttp.PassthroughErrorHandler
	return client
}

// Check reports whether to repeat a request: when there was no answer, unless the
// host or port does not exist or the certificate is not trusted, and when the
// status is 5xx except 501. The end of ctx is an error.
func Check(ctx context.Context, resp *http.Response, err error) (bool, error) {
	var address *net.AddrError
	var lookup *net.DNSError
	switch {
	case ctx.Err() != nil:
		return false, ctx.Err()
	case errors.As(err, &address), errors.As(err, &lookup) && lookup.IsNotFound:
		return false, nil
	case err != nil:
		return retryablehttp.DefaultRetryPolicy(ctx, nil, err)
	}
	return resp.StatusCode >= 500 && resp.StatusCode != http.StatusNotImplemented, nil
}

// Backoff doubles the wait with each attempt, counted from 0, less up to half of
// it at random so that a fleet does not come back in step, and obeys Retry-After
// up to the limit.
func Backoff(first, limit time.Duration, attempt int, resp *http.Response) time.Duration {
	if resp != nil {
		if wait, ok := retryafter.Delay(resp.Header, time.Now(), limit); ok {
			return wait
		}
	}
	return backoff.Delay(first, limit, attempt+1)
}

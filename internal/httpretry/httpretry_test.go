package httpretry

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-retryablehttp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestBackoff(t *testing.T) {
	for attempt, want := range []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second} {
		for range 100 {
			got := Backoff(500*time.Millisecond, LongestWait, attempt, nil)
			require.LessOrEqual(t, got, want)
			require.GreaterOrEqual(t, got, want/2)
		}
	}
	answer := func(status int, retryAfter string) *http.Response {
		return &http.Response{StatusCode: status, Header: http.Header{"Retry-After": {retryAfter}}}
	}
	assert.Equal(t, 7*time.Second, Backoff(time.Second, LongestWait, 0, answer(429, "7")))
	assert.Equal(t, 7*time.Second, Backoff(time.Second, LongestWait, 0, answer(503, "7")))
	assert.Equal(t, LongestWait, Backoff(time.Second, LongestWait, 0, answer(503, "86400")), "no server stops a program for a day")
	assert.Equal(t, 7*time.Second, Backoff(time.Second, LongestWait, 0, answer(500, "7")), "whatever the status is")
	for _, huge := range []string{"9999999999", "18446744074", "9223372036854775807", strings.Repeat("9", 400)} {
		assert.Equal(t, LongestWait, Backoff(time.Second, LongestWait, 0, answer(503, huge)), "nor makes it ask without a wait")
	}
}

func TestCheck(t *testing.T) {
	status := func(code int) *http.Response { return &http.Response{StatusCode: code} }
	for what, c := range map[string]struct {
		resp *http.Response
		err  error
		want bool
	}{
		"200":           {status(200), nil, false},
		"404":           {status(404), nil, false},
		"500":           {status(500), nil, true},
		"501":           {status(501), nil, false},
		"503":           {status(503), nil, true},
		"broken":        {nil, errors.New("connection reset"), true},
		"no such host":  {nil, &net.DNSError{IsNotFound: true}, false},
		"lookup failed": {nil, &net.DNSError{IsTemporary: true}, true},
		"no such port":  {nil, &net.AddrError{Err: "invalid port"}, false},
	} {
		again, err := Check(t.Context(), c.resp, c.err)
		require.NoError(t, err, what)
		assert.Equal(t, c.want, again, what)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	again, err := Check(ctx, status(503), nil)
	assert.False(t, again)
	assert.ErrorIs(t, err, context.Canceled)
}

// A request is repeated so often, and the last answer is returned, also when it
// is a redirect.
func TestNew(t *testing.T) {
	asked := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked++; r.URL.Path == "/redirect" {
			http.Redirect(w, r, "/", http.StatusFound)
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer s.Close()
	for path, want := range map[string]struct{ status, asked int }{"/": {503, Retries + 1}, "/redirect": {302, 1}} {
		asked = 0
		req, err := retryablehttp.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+path, nil)
		require.NoError(t, err)
		resp, err := New(http.DefaultTransport, time.Microsecond, Check).Do(req)
		require.NoError(t, err)
		resp.Body.Close()
		assert.Equal(t, want.status, resp.StatusCode)
		assert.Equal(t, want.asked, asked)
	}
}

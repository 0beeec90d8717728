package registry

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A registry in a private network gets no plain HTTP by itself, although
// go-containerregistry would try it, unless it is named.
func TestPlainHTTP(t *testing.T) {
	for _, c := range []struct {
		host  string
		allow []string
		want  bool
	}{
		{"10.0.0.5:5000", nil, false},
		{"10.0.0.5:5000", []string{"10.0.0.5:5000"}, true},
		{"10.0.0.5:5000", []string{"10.0.0.5"}, true},
		{"10.0.0.5:5000", []string{"10.0.0.5:5001", "10.0.0.50"}, false},
		{"registry.example.com", nil, false},
		{"registry.example.com", []string{"registry.example.com"}, true},
		{"localhost:5000", nil, true},
		{"127.0.0.1:5000", nil, true},
	} {
		plain := false
		client := New(&Options{
			Keychain:  authn.NewMultiKeychain(),
			RetryWait: time.Microsecond,
			PlainHTTP: c.allow,
			Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
				plain = plain || r.URL.Scheme == "http"
				return nil, errors.New("no network in this test")
			}),
		})
		_, err := client.Resolve(t.Context(), DefaultPlatform(), c.host+"/image:tag")
		require.ErrorIs(t, err, ErrUnreachable)
		assert.Equal(t, c.want, plain, c)
	}
}

// Many images with a dead mirror in common must not each wait for all retries.
func TestFailedLoginIsRemembered(t *testing.T) {
	requests := 0
	client := New(&Options{
		Keychain:  authn.NewMultiKeychain(),
		RetryWait: time.Microsecond,
		Transport: roundTripper(func(*http.Request) (*http.Response, error) {
			requests++
			return nil, errors.New("no network in this test")
		}),
	})
	for _, tag := range []string{"one", "two"} {
		_, err := client.Resolve(t.Context(), DefaultPlatform(), "registry.example.com/image:"+tag)
		require.ErrorIs(t, err, ErrUnreachable)
		assert.Equal(t, retries+1, requests, tag)
	}
}

func TestIsLoopback(t *testing.T) {
	for _, host := range []string{"localhost", "127.0.0.1", "127.8.9.1", "::1"} {
		assert.True(t, isLoopback(host), host)
	}
	for _, host := range []string{"", "10.0.0.1", "localhost.example.com", "127.0.0.1.example.com", "0.0.0.0", "::"} {
		assert.False(t, isLoopback(host), host)
	}
}

func TestBackoff(t *testing.T) {
	for attempt, want := range []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second} {
		for range 100 {
			got := backoff(500*time.Millisecond, longestWait, attempt, nil)
			require.LessOrEqual(t, got, want)
			require.GreaterOrEqual(t, got, want/2)
		}
	}
	answer := func(status int, retryAfter string) *http.Response {
		return &http.Response{StatusCode: status, Header: http.Header{"Retry-After": {retryAfter}}}
	}
	assert.Equal(t, 7*time.Second, backoff(time.Second, longestWait, 0, answer(429, "7")))
	assert.Equal(t, 7*time.Second, backoff(time.Second, longestWait, 0, answer(503, "7")))
	assert.Equal(t, longestWait, backoff(time.Second, longestWait, 0, answer(503, "86400")), "no server stops a run for a day")
}

func TestParseContentRange(t *testing.T) {
	for s, want := range map[string][3]int64{"bytes 0-0/1": {0, 0, 1}, "bytes 5-9/*": {5, 9, -1}, "bytes 5-9/10": {5, 9, 10}} {
		first, last, total, ok := parseContentRange(s)
		require.True(t, ok, s)
		assert.Equal(t, want, [3]int64{first, last, total}, s)
	}
	for _, s := range []string{"", "bytes */10", "bytes 9-5/10", "bytes 5-10/10", "bytes 5-9", "bytes=5-9/10", "bytes -1-9/10", "bytes 0-9/10 ", "bytes 0-99999999999999999999/*", "items 0-9/10"} {
		_, _, _, ok := parseContentRange(s)
		assert.False(t, ok, s)
	}
}

func FuzzParseContentRange(f *testing.F) {
	f.Add("bytes 0-9/10")
	f.Add("bytes 5-9/*")
	f.Fuzz(func(t *testing.T, s string) {
		first, last, total, ok := parseContentRange(s)
		if ok && (first < 0 || last < first || (total >= 0 && total <= last)) {
			t.Fatalf("%q: %d-%d/%d", s, first, last, total)
		}
	})
}

func TestParsePlatform(t *testing.T) {
	p, err := ParsePlatform("linux/arm64/v8")
	require.NoError(t, err)
	assert.Equal(t, "linux/arm64/v8", p.String())
	for _, s := range []string{"", "linux", "linux/", "/amd64", "linux/arm64/v8/x", "linux/amd64:10", "Linux/amd64", "linux amd64"} {
		_, err := ParsePlatform(s)
		require.Error(t, err, s)
		assert.ErrorContains(t, err, "want OS/ARCH")
	}
}

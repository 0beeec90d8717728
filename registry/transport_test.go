package registry

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/internal/httpretry"
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
		_, err := client.Image(t.Context(), DefaultPlatform(), c.host+"/image:tag")
		require.ErrorIs(t, err, ErrUnreachable)
		assert.Equal(t, c.want, plain, c)
	}
}

// Many images with a dead mirror in common must not each wait for all retries.
// Where there is no other source, a registry that is up again must be asked.
func TestDeadMirrorIsPassedOver(t *testing.T) {
	requests := map[string]int{}
	client := New(&Options{
		Keychain:  authn.NewMultiKeychain(),
		RetryWait: time.Microsecond,
		Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			requests[r.URL.Host]++
			return nil, errors.New("no network in this test")
		}),
	})
	for n, tag := range []string{"one", "two"} {
		_, err := client.Image(t.Context(), DefaultPlatform(), "mirror.example.com/image:"+tag, "own.example.com/image:"+tag)
		require.ErrorIs(t, err, ErrUnreachable)
		assert.ErrorContains(t, err, "mirror.example.com/image:"+tag)
		assert.Equal(t, map[string]int{"mirror.example.com": httpretry.Retries + 1, "own.example.com": (n + 1) * (httpretry.Retries + 1)}, requests)
	}
}

// Callers wait for a login that hangs as long as their contexts allow.
func TestLoginDoesNotOutlastItsCaller(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	client := New(&Options{
		Keychain: authn.NewMultiKeychain(),
		Transport: roundTripper(func(*http.Request) (*http.Response, error) {
			<-hang
			return nil, errors.New("no network in this test")
		}),
	})
	reason := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(reason)
	for range 2 {
		_, err := client.Image(ctx, DefaultPlatform(), "registry.example.com/image:tag")
		require.EqualError(t, err, "interrupted")
		require.ErrorIs(t, err, reason)
		require.ErrorIs(t, err, context.Canceled)
	}
}

func TestCheckRedirect(t *testing.T) {
	request := func(u string) *http.Request {
		r, err := http.NewRequest(http.MethodGet, u, nil)
		require.NoError(t, err)
		return r
	}
	for _, c := range []struct {
		from, to string
		ok       bool
	}{
		{"https://registry.example.com", "https://storage.example.com", true},
		{"https://registry.example.com", "https://10.0.0.7", true},
		{"https://registry.example.com", "http://127.0.0.1:8080", false},
		{"https://registry.example.com", "https://localhost", false},
		{"https://registry.example.com", "http://169.254.169.254/latest", false},
		{"http://127.0.0.1:5000", "http://127.0.0.1:6000", true},
	} {
		err := checkRedirect(request(c.to), []*http.Request{request(c.from)})
		assert.Equal(t, c.ok, err == nil, c)
	}
	require.Error(t, checkRedirect(request("https://x"), make([]*http.Request, maxRedirects)))
}

// Which redirects take a credential away; a blob's may go anywhere, since nothing
// goes with it, and so may the request for a token that has none.
func TestLeadsAway(t *testing.T) {
	for _, c := range []struct {
		method, authorization string
		token                 bool
		to                    string
		want                  bool
	}{
		{"GET", "Basic x", true, "elsewhere.example.com", true},
		{"GET", "Basic x", true, "auth.example.com:444", true},
		{"GET", "Basic x", true, "auth.example.com", false},
		{"GET", "", true, "elsewhere.example.com", false},
		{"GET", "Basic x", false, "elsewhere.example.com", false},
		{"POST", "", true, "elsewhere.example.com", true},
		{"POST", "", true, "auth.example.com", true},
	} {
		ctx := t.Context()
		if c.token {
			ctx = context.WithValue(ctx, tokenKey{}, true)
		}
		req, err := http.NewRequestWithContext(ctx, c.method, "https://auth.example.com/token", nil)
		require.NoError(t, err)
		if c.authorization != "" {
			req.Header.Set("Authorization", c.authorization)
		}
		assert.Equal(t, c.want, leadsAway(req, c.to), c)
	}
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

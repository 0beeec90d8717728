package artifacts_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/artifacts"
)

// answers is a transport that gives answers in order, the last one for ever, and
// counts them.
type answers struct {
	all   []func(w http.ResponseWriter)
	asked int
}

func (a *answers) RoundTrip(*http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	a.all[min(a.asked, len(a.all)-1)](w)
	a.asked++
	return w.Result(), nil
}

func status(code int, headerAndValue ...string) func(w http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		for i := 0; i < len(headerAndValue); i += 2 {
			w.Header().Set(headerAndValue[i], headerAndValue[i+1])
		}
		w.WriteHeader(code)
	}
}

func run5(w http.ResponseWriter) {
	_, _ = w.Write([]byte(`{"id": 5, "repository": {"full_name": "example/project"}}`))
}

// ask asks for a run with the default options and tells how long that took, by
// the clock of a bubble.
func ask(ctx context.Context, t *testing.T, a *answers) (time.Duration, error) {
	t.Helper()
	c, err := artifacts.New(&artifacts.Options{APIURL: "https://api.example.com", Transport: a})
	require.NoError(t, err)
	begin := time.Now()
	_, err = c.Run(ctx, repo, 5)
	return time.Since(begin), err
}

// The waits between repetitions double, are not the same for a whole fleet, and
// are as long as a busy server asks for, up to a limit.
func TestWaitsBetweenRepetitions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &answers{all: []func(http.ResponseWriter){status(502)}}
		took, err := ask(t.Context(), t, a)
		require.ErrorIs(t, err, artifacts.ErrUnreachable)
		assert.Equal(t, 5, a.asked)
		assert.GreaterOrEqual(t, took, 7500*time.Millisecond, "at least half of 1 + 2 + 4 + 8 s")
		assert.LessOrEqual(t, took, 15*time.Second)
	})
	for retryAfter, want := range map[string]time.Duration{"7": 28 * time.Second, "86400": 4 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			a := &answers{all: []func(http.ResponseWriter){status(503, "Retry-After", retryAfter)}}
			took, err := ask(t.Context(), t, a)
			require.ErrorIs(t, err, artifacts.ErrUnreachable)
			assert.Equal(t, 5, a.asked)
			assert.Equal(t, want, took)
		})
	}
	synctest.Test(t, func(t *testing.T) {
		a := &answers{all: []func(http.ResponseWriter){status(501)}}
		_, err := ask(t.Context(), t, a)
		require.ErrorIs(t, err, artifacts.ErrUnreachable)
		assert.Equal(t, 1, a.asked, "what is not implemented stays so")
	})
}

// A rate limit is waited out by default, also one that names a date, and a
// context that ends ends the wait.
func TestWaitsForRateLimits(t *testing.T) {
	for retryAfter, want := range map[string]time.Duration{"90": 90 * time.Second, "Sun, 09 Sep 2001 01:48:00 GMT": 80 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			a := &answers{all: []func(http.ResponseWriter){status(429, "Retry-After", retryAfter, "Date", "Sun, 09 Sep 2001 01:46:40 GMT"), run5}}
			took, err := ask(t.Context(), t, a)
			require.NoError(t, err)
			assert.Equal(t, want, took)
		})
	}
	synctest.Test(t, func(t *testing.T) {
		cause := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(10*time.Second, func() { cancel(cause) })
		a := &answers{all: []func(http.ResponseWriter){status(429, "Retry-After", "90"), run5}}
		took, err := ask(ctx, t, a)
		require.ErrorIs(t, err, cause)
		require.ErrorIs(t, err, context.Canceled)
		assert.Equal(t, 10*time.Second, took)
		assert.Equal(t, 1, a.asked)
	})
}

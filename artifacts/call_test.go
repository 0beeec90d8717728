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

// Whatever form the time of a limit has, the wait is by it or the call fails, and says
// why: it never asks again at once.
func TestOddTimesOfRateLimits(t *testing.T) {
	const date = "Sun, 09 Sep 2001 01:46:40 GMT" // 1,000,000,000
	primary := func(reset string) []string { return []string{"X-Ratelimit-Remaining", "0", "X-Ratelimit-Reset", reset} }
	for name, c := range map[string]struct {
		header []string
		want   time.Duration // of the first wait; 0 for none at all
	}{
		"reset 2^63-1":              {primary("9223372036854775807"), 0},
		"reset 2^62":                {primary("4611686018427387904"), 0},
		"reset beyond any number":   {primary("99999999999999999999999"), 0},
		"reset in milliseconds":     {primary("1000000030000"), 0},
		"reset in a year":           {primary("1031536000"), 0},
		"reset negative":            {primary("-9223372036854775808"), time.Minute},
		"reset before 1970":         {primary("-5"), time.Minute},
		"reset empty":               {primary(""), time.Minute},
		"reset no number":           {primary("soon"), time.Minute},
		"reset a fraction":          {primary("1000000030.5"), time.Minute},
		"reset a date":              {primary(date), time.Minute},
		"reset past":                {primary("999999000"), 2 * time.Second},
		"reset now":                 {primary("1000000000"), 2 * time.Second},
		"reset soon":                {primary("1000000030"), 31 * time.Second},
		"after 2^63-1":              {[]string{"Retry-After", "9223372036854775807"}, 0},
		"after 2^31":                {[]string{"Retry-After", "2147483648"}, 0},
		"after beyond any number":   {[]string{"Retry-After", "99999999999999999999999"}, 0},
		"after negative":            {[]string{"Retry-After", "-7"}, time.Minute},
		"after a fraction":          {[]string{"Retry-After", "1.5"}, 1500 * time.Millisecond},
		"after no number":           {[]string{"Retry-After", "soon"}, time.Minute},
		"after a duration":          {[]string{"Retry-After", "7s"}, time.Minute},
		"after 0":                   {[]string{"Retry-After", "0"}, time.Second},
		"after 7":                   {[]string{"Retry-After", " 7 "}, 7 * time.Second},
		"after a past date":         {[]string{"Retry-After", "Sun, 09 Sep 2001 01:00:00 GMT"}, time.Second},
		"after a date":              {[]string{"Retry-After", "Sun, 09 Sep 2001 01:47:00 GMT"}, 20 * time.Second},
		"after the year 9999":       {[]string{"Retry-After", "Fri, 31 Dec 9999 23:59:59 GMT"}, 0},
		"odd after, then the reset": {append(primary("1000000030"), "Retry-After", "soon"), 31 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for _, code := range []int{http.StatusForbidden, http.StatusTooManyRequests} {
					refusal := func(w http.ResponseWriter) {
						status(code, append(c.header, "Date", date)...)(w)
						_, _ = w.Write([]byte(`{"message": "API rate limit exceeded"}`))
					}
					a := &answers{all: []func(http.ResponseWriter){refusal, run5}}
					took, err := ask(t.Context(), t, a)
					assert.Equal(t, c.want, took)
					if c.want > 0 {
						require.NoError(t, err)
						continue
					}
					require.ErrorIs(t, err, artifacts.ErrRateLimited)
					assert.ErrorContains(t, err, "the API asks to wait for ")
					assert.ErrorContains(t, err, "the limit on waiting leaves 10m0s")
					assert.Equal(t, 1, a.asked)
				}
				// For ever: the waits of one call are bounded together.
				a := &answers{all: []func(http.ResponseWriter){status(http.StatusTooManyRequests, append(c.header, "Date", date)...)}}
				took, err := ask(t.Context(), t, a)
				require.ErrorIs(t, err, artifacts.ErrRateLimited)
				assert.LessOrEqual(t, took, 10*time.Minute)
			})
		})
	}
}

// A drip is a body of one byte a second, by the clock of a bubble.
type drip struct{ ctx context.Context }

func (d drip) Read(p []byte) (int, error) {
	select {
	case <-d.ctx.Done():
		return 0, context.Cause(d.ctx)
	case <-time.After(time.Second):
		p[0] = ' '
		return 1, nil
	}
}

func (drip) Close() error { return nil }

// An answer that drips is not waited for without end, nor one that never begins.
func TestSlowAnswers(t *testing.T) {
	for name, slow := range map[string]func(r *http.Request) (*http.Response, error){
		"drips": func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: drip{r.Context()}}, nil
		},
		"no answer": func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			asked := 0
			c, err := artifacts.New(&artifacts.Options{APIURL: "https://api.example.com", Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
				asked++
				return slow(r)
			})})
			require.NoError(t, err)
			begin := time.Now()
			_, err = c.Run(t.Context(), repo, 5)
			require.ErrorIs(t, err, artifacts.ErrUnreachable, name)
			assert.ErrorContains(t, err, "the answer is not complete after 30s")
			assert.Equal(t, 5, asked)
			assert.Less(t, time.Since(begin), 3*time.Minute)
		})
	}
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

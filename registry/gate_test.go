package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/internal/httpretry"
)

// A fakeHost answers requests after a second, by the clock of the test.
type fakeHost struct {
	answer func(n int, r *http.Request) (status int, retryAfter string) // n counts from 1

	mu    sync.Mutex
	begun []time.Time
	since time.Time
}

func (h *fakeHost) RoundTrip(r *http.Request) (*http.Response, error) {
	h.mu.Lock()
	h.begun = append(h.begun, time.Now())
	n := len(h.begun)
	h.mu.Unlock()
	time.Sleep(time.Second)
	status, retryAfter := h.answer(n, r)
	if status == 0 {
		return nil, errors.New("connection reset")
	}
	resp := &http.Response{StatusCode: status, Header: http.Header{}, Body: http.NoBody, Request: r}
	if retryAfter != "" {
		resp.Header.Set("Retry-After", retryAfter)
	}
	return resp, nil
}

func (h *fakeHost) gates(jitter func(time.Duration) time.Duration) *gates {
	h.since = time.Now()
	g := newGates(h, 500*time.Millisecond, slog.New(slog.DiscardHandler))
	g.jitter = jitter
	return g
}

func none(time.Duration) time.Duration { return 0 }

func ask(ctx context.Context, g *gates, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://registry.example.com"+path, nil)
	if err != nil {
		return nil, err
	}
	return g.RoundTrip(req)
}

// After the delay one request goes, then two, then four: the rest waits.
func TestGateOpensSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := &fakeHost{answer: func(n int, _ *http.Request) (int, string) {
			if n <= 16 {
				return http.StatusTooManyRequests, "10"
			}
			return http.StatusOK, ""
		}}
		g := host.gates(none)
		var group sync.WaitGroup
		for range 16 {
			group.Go(func() {
				resp, err := ask(t.Context(), g, "/v2/")
				if assert.NoError(t, err) {
					assert.Equal(t, http.StatusOK, resp.StatusCode)
				}
			})
		}
		group.Wait()
		begun := map[time.Duration]int{}
		for _, at := range host.begun {
			begun[at.Sub(host.since)]++
		}
		assert.Equal(t, map[time.Duration]int{0: 16, 11 * time.Second: 1, 12 * time.Second: 2, 13 * time.Second: 4, 14 * time.Second: 8, 15 * time.Second: 1}, begun)
	})
}

// To the delay a tenth is added at random, and some milliseconds if it is short; ranges
// are given the delay as it is.
func TestGateJitter(t *testing.T) {
	for _, c := range []struct {
		retryAfter     string
		delay, jitters time.Duration
	}{{"20", 20 * time.Second, 2 * time.Second}, {"0.000880092", 880092 * time.Nanosecond, leastJitter}} {
		synctest.Test(t, func(t *testing.T) {
			host := &fakeHost{answer: func(n int, _ *http.Request) (int, string) {
				return map[bool]int{true: http.StatusServiceUnavailable, false: http.StatusOK}[n == 1], c.retryAfter
			}}
			g := host.gates(func(most time.Duration) time.Duration {
				assert.Equal(t, c.jitters, most)
				return most / 2
			})
			_, err := ask(t.Context(), g, "/v2/")
			require.NoError(t, err)
			require.Len(t, host.begun, 2)
			assert.Equal(t, time.Second+c.delay+c.jitters/2, host.begun[1].Sub(host.begun[0]))
			assert.Nil(t, g.refusal("registry.example.com"))
		})
	}
	g := newGates(nil, 0, nil)
	for range 100 {
		d := g.jitter(time.Second)
		require.GreaterOrEqual(t, d, time.Duration(0))
		require.LessOrEqual(t, d, time.Second)
	}
}

// A host that refuses all ends it for all that wait, after the attempts of one request;
// a delay is no longer than a minute, whatever it asks for. What is asked after that has
// all attempts again.
func TestGateEnds(t *testing.T) {
	for retryAfter, most := range map[string]time.Duration{
		"":                       20 * time.Second,
		"0.000880092":            20 * time.Second,
		"30":                     3 * time.Minute,
		strings.Repeat("9", 400): 6 * time.Minute,
	} {
		synctest.Test(t, func(t *testing.T) {
			host := &fakeHost{answer: func(int, *http.Request) (int, string) { return http.StatusTooManyRequests, retryAfter }}
			g := host.gates(none)
			for range 2 {
				host.begun = nil
				begin := time.Now()
				var group sync.WaitGroup
				for range 20 {
					group.Go(func() {
						_, err := ask(t.Context(), g, "/v2/")
						var refused *refusedError
						assert.ErrorAs(t, err, &refused)
					})
				}
				group.Wait()
				assert.LessOrEqual(t, len(host.begun), 20+httpretry.Retries)
				assert.GreaterOrEqual(t, len(host.begun), 1+httpretry.Retries)
				assert.LessOrEqual(t, time.Since(begin), most)
			}
		})
	}
}

// One request that is refused whenever it is made ends too, and the others do not wait
// for that.
func TestGateOfOneThatIsAlwaysRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused := 0
		host := &fakeHost{answer: func(_ int, r *http.Request) (int, string) {
			if r.URL.Path == "/refused" {
				refused++
				return http.StatusTooManyRequests, "1"
			}
			return http.StatusOK, ""
		}}
		g := host.gates(none)
		ended := make(chan error)
		go func() { _, err := ask(t.Context(), g, "/refused"); ended <- err }()
		for n := 0; ; n++ {
			select {
			case err := <-ended:
				var why *refusedError
				require.ErrorAs(t, err, &why)
				assert.GreaterOrEqual(t, refused, mostRefusals)
				assert.GreaterOrEqual(t, time.Since(host.since), longestRefused)
				assert.LessOrEqual(t, time.Since(host.since), longestRefused+time.Minute)
				assert.Greater(t, n, refused/2)
				return
			default:
				_, err := ask(t.Context(), g, "/served")
				require.NoError(t, err)
			}
		}
	})
}

// Who waits is gone when its context ends, and takes no place from others.
func TestGateIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := &fakeHost{answer: func(n int, _ *http.Request) (int, string) {
			return map[bool]int{true: http.StatusTooManyRequests, false: http.StatusOK}[n == 1], "10"
		}}
		g := host.gates(none)
		var group sync.WaitGroup
		group.Go(func() { _, err := ask(t.Context(), g, "/"); assert.NoError(t, err) })
		time.Sleep(2 * time.Second)
		reason := errors.New("interrupted")
		for _, after := range []time.Duration{3 * time.Second, 9 * time.Second} { // the latter at the moment that the gate opens
			ctx, cancel := context.WithTimeoutCause(t.Context(), after, reason)
			defer cancel()
			group.Go(func() {
				begin := time.Now()
				_, err := ask(ctx, g, "/")
				if err != nil {
					assert.ErrorIs(t, err, reason)
					assert.Equal(t, after, time.Since(begin))
				}
			})
		}
		group.Go(func() { _, err := ask(t.Context(), g, "/"); assert.NoError(t, err) })
		group.Wait()
		assert.Zero(t, g.hosts["registry.example.com"].inFlight)
		assert.Empty(t, g.hosts["registry.example.com"].waiting)
	})
}

// Without an answer a request is neither served nor refused: the others go on, and do not
// wait for each other's timeouts.
func TestGateOfAHostThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := &fakeHost{answer: func(n int, _ *http.Request) (int, string) {
			return map[bool]int{true: http.StatusTooManyRequests, false: 0}[n <= 16], "1"
		}}
		g := host.gates(none)
		var group sync.WaitGroup
		for range 16 {
			group.Go(func() { _, err := ask(t.Context(), g, "/"); assert.EqualError(t, err, "connection reset") })
		}
		group.Wait()
		assert.LessOrEqual(t, time.Since(host.since), 8*time.Second)
	})
}

// The body of a request for a token is sent again.
func TestGateRepeatsABody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var bodies []string
		host := &fakeHost{answer: func(n int, r *http.Request) (int, string) {
			body, err := io.ReadAll(r.Body)
			assert.NoError(t, err)
			bodies = append(bodies, string(body))
			return map[bool]int{true: http.StatusTooManyRequests, false: http.StatusOK}[n < 3], "1"
		}}
		g := host.gates(none)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://auth.example.com/token", strings.NewReader("grant_type=password"))
		require.NoError(t, err)
		_, err = g.RoundTrip(req)
		require.NoError(t, err)
		assert.Equal(t, []string{"grant_type=password", "grant_type=password", "grant_type=password"}, bodies)

		req, err = http.NewRequestWithContext(t.Context(), http.MethodPost, "https://other.example.com/token", io.NopCloser(strings.NewReader("once")))
		require.NoError(t, err)
		host.begun = nil
		_, err = g.RoundTrip(req)
		var refused *refusedError
		require.ErrorAs(t, err, &refused)
	})
}

// Hosts that a registry redirects to once are forgotten again.
func TestGatesAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := &fakeHost{answer: func(int, *http.Request) (int, string) { return http.StatusTooManyRequests, "1" }}
		g := host.gates(none)
		ctx := forRange(t.Context())
		for n := range 2 * mostGates {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("https://storage-%d.example.com/", n), nil)
			require.NoError(t, err)
			_, err = g.RoundTrip(req)
			require.Error(t, err)
		}
		assert.LessOrEqual(t, len(g.hosts), mostGates)
	})
}

// A range is not made at a shut gate, wherever it was led; nor does it wait for its turn
// when the gate opens.
func TestGateOfRanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := &fakeHost{answer: func(n int, _ *http.Request) (int, string) {
			return map[bool]int{true: http.StatusTooManyRequests, false: http.StatusPartialContent}[n == 1], "10"
		}}
		g := host.gates(none)
		var group sync.WaitGroup
		group.Go(func() { _, err := ask(t.Context(), g, "/"); assert.NoError(t, err) })
		time.Sleep(3 * time.Second)
		for range 3 {
			_, err := ask(forRange(t.Context()), g, "/")
			var refused *refusedError
			require.ErrorAs(t, err, &refused)
			assert.Equal(t, 8*time.Second, refused.delay)
			assert.True(t, refused.early)
		}
		host.mu.Lock()
		begun := len(host.begun)
		host.mu.Unlock()
		require.Equal(t, 1, begun)
		time.Sleep(8 * time.Second)
		for range 5 {
			group.Go(func() { _, err := ask(forRange(t.Context()), g, "/"); assert.NoError(t, err) })
		}
		group.Wait()
		assert.Equal(t, 12*time.Second, time.Since(host.since))
	})
}

// A context that ends at the moment at which its request may go on leaves no place taken.
func TestGateIsLeftAtThatMoment(t *testing.T) {
	g := newGates(nil, 0, slog.New(slog.DiscardHandler))
	at := &gate{limit: 1}
	g.hosts["registry.example.com"] = at
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 { // either may be noticed first
		if through := g.enter(ended, "registry.example.com"); through.err == nil {
			at.left(through)
		}
		require.Zero(t, at.inFlight)
	}
}

// For a while after its delay a host counts as one that refuses requests.
func TestSinceRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGates(nil, time.Second, slog.New(slog.DiscardHandler))
		assert.Zero(t, g.sinceRefusal("host"))
		g.hosts["host"] = &gate{until: time.Now().Add(time.Second)}
		assert.Zero(t, g.sinceRefusal("host"), "it is shut")
		time.Sleep(6 * time.Second)
		assert.Equal(t, 5*time.Second, g.sinceRefusal("host"))
		assert.Zero(t, g.sinceRefusal("other"))
		time.Sleep(refusedLately)
		assert.Zero(t, g.sinceRefusal("host"))
	})
}

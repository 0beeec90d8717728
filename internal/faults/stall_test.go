package faults

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/internal/tarballtest"
	"github.com/dockercache/dockercache/registry/registrytest"
)

// A body that stalls is abandoned, and what it lacks is asked for on a new
// connection, from where it stopped.
func TestStall(t *testing.T) {
	t.Parallel()
	const stalls = 3
	o := options()
	o.StallTimeout = 200 * time.Millisecond
	r := resolved(t, threeLayers, 1, o, nil)
	r.own.SetQuirks(registrytest.Quirks{Stall: true, StallCount: stalls, Stalled: drain(t)})
	p := r.put(t, 2, nil)
	r.requireRight(t, p)
	assert.Equal(t, r.size, tarballtest.Once(p.Result))

	found := 0
	for _, requests := range allAsked(t, r.layers, r.own.Requests()) {
		byStart := starts(requests)
		for _, a := range requests {
			if a.sent != 16<<10 { // what the server sends before it stalls
				continue
			}
			found++
			require.NotEmpty(t, byStart[a.from+a.sent], "asked for from where it stopped: %v", a)
			for _, again := range byStart[a.from+a.sent] {
				assert.NotEqual(t, a.remote, again.remote, "on a new connection")
			}
		}
	}
	assert.Equal(t, stalls, found)
}

// drain takes what is said of stalls.
func drain(t *testing.T) chan<- struct{} {
	c := make(chan struct{})
	go func() {
		for {
			select {
			case <-c:
			case <-t.Context().Done():
				return
			}
		}
	}()
	return c
}

// The wait for the answer is a wait without progress too.
func TestNoAnswer(t *testing.T) {
	t.Parallel()
	o := options()
	o.FirstByteTimeout = 200 * time.Millisecond
	o.Transport = &http.Transport{} // it would wait for ever
	r := resolved(t, oneLayer, 1, o, nil)
	r.own.SetQuirks(registrytest.Quirks{NoAnswer: true, NoAnswerCount: 2})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // ends a test that would hang
	defer cancel()
	p := r.putContext(ctx, t, 2, nil)
	r.requireRight(t, p)
	assert.Equal(t, r.size, tarballtest.Once(p.Result))
	assert.Equal(t, 2, r.own.Happened("NoAnswer"))
}

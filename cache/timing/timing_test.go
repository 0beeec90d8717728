package timing_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/dockercache/dockercache/cache/timing"
)

func TestRecorderAddsPhasesUp(t *testing.T) {
	at := time.Now()
	after := func(d time.Duration) time.Time { return at.Add(d) }
	var r timing.Recorder
	assert.Empty(t, r.Spent())
	r.Begin(timing.Resolve, after(0))
	assert.Empty(t, r.Spent(), "a phase counts when it has ended")
	r.Begin(timing.Fetch, after(time.Second))
	r.Begin(timing.Fetch, after(3*time.Second)) // goes on
	r.Begin(timing.Hash, after(4*time.Second))
	r.Begin("", after(4500*time.Millisecond)) // a pause belongs to no phase
	r.Begin(timing.Fetch, after(time.Minute))
	r.Begin("", after(time.Minute+time.Second))
	assert.Equal(t, map[timing.Phase]time.Duration{
		timing.Resolve: time.Second, timing.Fetch: 4 * time.Second, timing.Hash: 500 * time.Millisecond,
	}, r.Spent())
}

func TestRecorderTakesNoTimeAway(t *testing.T) {
	var r timing.Recorder
	at := time.Now()
	r.Begin(timing.Fetch, at)
	r.Begin(timing.Hash, at.Add(-time.Second)) // another goroutine has read the clock before
	r.Begin("", at)
	assert.Equal(t, map[timing.Phase]time.Duration{timing.Fetch: 0, timing.Hash: time.Second}, r.Spent())
}

func TestNilObserver(t *testing.T) {
	assert.Zero(t, testing.AllocsPerRun(10, func() {
		timing.Begin(nil, timing.Fetch)
		timing.End(nil)
	}))
}

func BenchmarkNilObserver(b *testing.B) {
	for b.Loop() {
		timing.Begin(nil, timing.Fetch)
	}
}

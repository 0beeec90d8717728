package registry

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// A source that keeps failing is set aside, for longer each time, and one
// request finds out whether it is back.
func TestHealth(t *testing.T) {
	now := time.Now()
	h := &health{now: func() time.Time { return now }}
	down := errors.New("down")
	for range tolerance - 1 {
		assert.True(t, h.allow())
		assert.Zero(t, h.settle(down))
	}
	assert.NoError(t, h.asideFor())
	assert.True(t, h.allow())
	assert.Equal(t, firstAside, h.settle(down))

	for _, aside := range []time.Duration{firstAside, time.Minute, 2 * time.Minute, 4 * time.Minute, longestAside, longestAside} {
		assert.False(t, h.allow())
		assert.Equal(t, down, h.asideFor())
		assert.Zero(t, h.settle(down), "asked all the same, as the last one left: no longer for that")
		now = now.Add(aside - 1)
		assert.False(t, h.allow())
		now = now.Add(1)
		assert.NoError(t, h.asideFor())
		assert.True(t, h.allow(), "after %v one may try", aside)
		assert.False(t, h.allow(), "and one alone")
		h.settle(errNeutral)
		assert.True(t, h.allow(), "that one told nothing: another")
		h.settle(down)
	}

	now = now.Add(longestAside)
	assert.True(t, h.allow())
	h.settle(nil)
	assert.True(t, h.allow())
	assert.True(t, h.allow(), "back")
	h.settle(down)
	h.settle(nil)
	h.settle(down)
	h.settle(down)
	assert.True(t, h.allow(), "only failures in a row count")
	h.settle(down)
	assert.False(t, h.allow())
	now = now.Add(firstAside)
	assert.True(t, h.allow(), "the times begin anew")
}

// A login was repeated already: it fails for all.
func TestHealthOfALogin(t *testing.T) {
	now := time.Now()
	h := &health{now: func() time.Time { return now }}
	down := errors.New("down")
	h.fail(down)
	assert.False(t, h.allow())
	assert.Equal(t, down, h.asideFor())
	now = now.Add(firstAside)
	assert.True(t, h.allow())
	h.fail(down)
	now = now.Add(firstAside)
	assert.False(t, h.allow(), "twice as long")
}

// Package backoff computes how long to wait before the next attempt.
package backoff

import (
	"math/rand/v2"
	"time"
)

// Delay returns how long to wait after a number of attempts, counted from 1: first
// after one, twice as long each time, limit at most. Up to a half of it is taken
// away at random, so that many that failed together do not come back together.
// After 0 attempts it is 0.
func Delay(first, limit time.Duration, attempts int) time.Duration {
	return Jitter(Double(first, limit, attempts))
}

// Double is [Delay] with nothing taken away.
func Double(first, limit time.Duration, attempts int) time.Duration {
	if attempts < 1 {
		return 0
	}
	delay := first
	for n := 1; n < attempts && delay < limit; n++ {
		delay *= 2
	}
	return min(delay, limit)
}

// Jitter takes up to a half of a delay away at random.
func Jitter(delay time.Duration) time.Duration { return delay - rand.N(delay/2+1) }

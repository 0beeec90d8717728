package cache

import (
	"errors"
	"math/rand/v2"
	"time"
)

const (
	// maxAttempts is how often a range is asked for in a row without a single
	// byte coming. With the waits below that is some 15 s, in which a registry
	// that restarts is back. Any progress begins the count anew.
	maxAttempts = 6
	firstWait   = 500 * time.Millisecond
	longestWait = 30 * time.Second
)

// canRetry tells whether the source may give the bytes if it is asked again.
// An error says so by its method Temporary; one without it, such as a
// connection that broke, may.
func canRetry(err error) bool {
	var t interface{ Temporary() bool }
	return !errors.As(err, &t) || t.Temporary()
}

// ignoresRange tells whether an error means that the source gives blobs only
// from their beginning.
func ignoresRange(err error) bool {
	var r interface{ IgnoresRange() bool }
	return errors.As(err, &r) && r.IgnoresRange()
}

// backoff returns how long to wait after so many attempts without progress:
// twice as long each time, less up to a half so that many do not come back in
// step; not at all after progress; or what the source asked for, within the
// limit.
func backoff(attempt int, err error) time.Duration {
	var asked interface{ RetryAfter() time.Duration }
	if errors.As(err, &asked) && asked.RetryAfter() > 0 {
		return min(asked.RetryAfter(), 2*longestWait)
	}
	if attempt == 0 {
		return 0
	}
	wait := min(firstWait<<(attempt-1), longestWait)
	return wait - rand.N(wait/2+1)
}

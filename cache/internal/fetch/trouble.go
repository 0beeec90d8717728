package fetch

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/dockercache/dockercache/cache/tarball"
	"github.com/dockercache/dockercache/internal/backoff"
)

const (
	// maxAttempts is how often a range is asked for in a row without progress, see
	// [trouble]. With the delays below that is 11 to 16 s, in which a registry that
	// restarts is back. Progress begins the count again.
	maxAttempts = 6
	// mostAttempts is the same while other ranges make progress.
	mostAttempts = 24
	firstDelay   = 500 * time.Millisecond
	maxDelay     = 20 * time.Second
	// longestDelay bounds the delay that a source asks for: no source stops a run for a day.
	longestDelay = time.Minute
)

const (
	// enough is how many bytes are progress however long they took, and enoughOf the part
	// of what a short range lacks that is. Below that a connection is hardly worth its
	// making.
	enough   = 64 << 10
	enoughOf = 16
	// slowest is how many bytes a second are progress, however few they are, for an
	// attempt that took longer than slowestAfter.
	slowest      = 1 << 10
	slowestAfter = time.Second
)

// A trouble is what went wrong with a chunk since it last made progress. It decides
// whether the attempts at it make progress: a source that gives a byte and closes the
// connection would otherwise be asked for every byte, as fast as it answers.
type trouble struct {
	left      int64     // what it lacked when it last made progress
	since     int64     // bytes since then
	attempts  int       // without progress
	progress  int       // of the run, when the attempts began
	notBefore time.Time // of the next attempt
	failed    []error   // of the origins that were asked in this attempt
	tried     []string  // these origins
	refused   time.Time // the first time that it was to be asked for later
}

func (t *trouble) isNone() bool { return t.attempts == 0 && len(t.tried) == 0 }

// begin begins an attempt at a chunk that lacks so many bytes.
func (t *trouble) begin(left int64) {
	if t.since == 0 {
		t.left = left
	}
}

// isProgress reports whether an attempt that brought got bytes in a time made progress,
// alone or with those before it.
func (t *trouble) isProgress(got int64, took time.Duration) bool {
	t.since += got
	if t.since >= max(min(enough, t.left/enoughOf), 1) || took >= slowestAfter && float64(got) >= slowest*took.Seconds() {
		*t = trouble{}
		return true
	}
	return false
}

// canRetry reports whether the source may give the bytes if it is asked again.
func canRetry(err error) bool {
	var t tarball.TemporaryError
	return !errors.As(err, &t) || t.Temporary()
}

// ignoresRange reports whether a source, or the error of one, gives blobs only from
// their beginning.
func ignoresRange(v any) bool {
	var r tarball.RangeIgnorer
	if err, ok := v.(error); ok {
		return errors.As(err, &r) && r.IgnoresRange()
	}
	r, ok := v.(tarball.RangeIgnorer)
	return ok && r.IgnoresRange()
}

// retryAfter returns how long a source asks to wait, within a limit; 0 if it does not.
func retryAfter(err error) time.Duration {
	var asked tarball.RetryAfterError
	if errors.As(err, &asked) {
		return min(max(asked.RetryAfter(), 0), longestDelay)
	}
	return 0
}

// delay returns how long to wait after so many attempts without progress. Up to a quarter
// is taken away at random, so that not all come back together.
func delay(attempts int) time.Duration {
	d := backoff.Double(firstDelay, maxDelay, attempts)
	return d - rand.N(d/4+1)
}

// originErrors are those of all origins of a range, one after the other.
type originErrors []error

func (e originErrors) Error() string {
	texts := make([]string, len(e))
	for i, err := range e {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

func (e originErrors) Unwrap() []error { return e }

// Temporary reports whether any of the origins may do better later.
func (e originErrors) Temporary() bool { return slices.ContainsFunc(e, canRetry) }

// IgnoresRange reports whether any of the origins could give the blob in one piece.
func (e originErrors) IgnoresRange() bool {
	return slices.ContainsFunc(e, func(err error) bool { return ignoresRange(err) })
}

// joined returns the errors as one.
func joined(all []error) error {
	if len(all) == 1 {
		return all[0]
	}
	return originErrors(slices.Clone(all))
}

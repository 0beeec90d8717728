package measure

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A Limit bounds a sample.
type Limit struct {
	// Time is how long it may take.
	Time time.Duration
	// Bytes is how many it may move.
	Bytes int64
}

// or returns the limit with defaults for what is 0.
func (l Limit) or(time time.Duration, bytes int64) Limit {
	return Limit{cmp.Or(l.Time, time), cmp.Or(l.Bytes, bytes)}
}

// A Sample is what was done to find out a number.
type Sample struct {
	// What it was, for people.
	What string
	// Bytes is how many were moved, Took in what time; for latencies both are of all repetitions.
	Bytes int64
	Took  time.Duration
	// Note is what a reader should know, such as why it ended before its limits; empty for nothing.
	Note string

	// untimed is how many of the bytes came with the first one, in no time that is known.
	untimed int64
}

// rate returns bytes per second; 0 if there were none. What took no time that a clock shows
// counts as a microsecond, so that the rate is finite.
func (s Sample) rate() float64 {
	return float64(s.Bytes-s.untimed) / max(s.Took, time.Microsecond).Seconds()
}

// median returns the middle one, in seconds; 0 of none.
func median(all []time.Duration) float64 {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[len(all)/2].Seconds()
}

func sum(all []time.Duration) (total time.Duration) {
	for _, d := range all {
		total += d
	}
	return total
}

func times(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// errTime is the cause of a context that ended since a sample has a limit of time.
var errTime = errors.New("the limit of time")

const endedByTime = "ended by its limit of time"

func joinNotes(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}

// tries is how often [tried] tries, and tryLimit how long all of them may take.
const (
	tries    = 5
	tryLimit = 10 * time.Second
)

// tried measures the median of a few tries. The first failure is the sample's note, and nothing is known then.
func tried(ctx context.Context, noun, of string, do func(ctx context.Context) error) (seconds float64, _ Sample) {
	ctx, cancel := context.WithTimeout(ctx, tryLimit)
	defer cancel()
	var took []time.Duration
	for first := time.Now(); len(took) < tries && (len(took) == 0 || time.Since(first) < latencyLimit); {
		begun := time.Now()
		if err := do(ctx); err != nil {
			return 0, failedSample(noun, of, err)
		}
		took = append(took, time.Since(begun))
	}
	return median(took), Sample{What: times(len(took), noun) + " " + of, Took: sum(took)}
}

func failedSample(noun, of string, err error) Sample {
	return Sample{What: noun + " " + of, Note: "not known, since it failed: " + err.Error()}
}

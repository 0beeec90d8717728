package advise

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// Thresholds are from when on something is worth doing.
type Thresholds struct {
	// Share and Seconds are how much of a job's seconds a way must save, and how many, to be
	// recommended in place of a simpler one; plain pulls are the simplest. Both must be reached.
	Share, Seconds float64
}

// DefaultThresholds are those of a nil *Thresholds: 10 % and one second.
var DefaultThresholds = Thresholds{0.1, 1}

// A Recommendation is one.
type Recommendation struct {
	// Way is the name of the way that is recommended: [Pull] is not to cache. It is empty when nothing
	// can be recommended.
	Way string `json:"way"`
	// Cache is whether the image should be cached.
	Cache bool `json:"cache"`
	// Saved is how many seconds a job saves by it, beside a plain pull; 0 if that is not known.
	Saved float64 `json:"savedSecondsPerJob"`
	// Reason says why, with the numbers: a sentence or two for people.
	Reason string `json:"reason"`
}

// Recommend returns which of the ways that [Predict] has returned is to be used: the one with the
// fewest seconds per job, of those that break even; but a simpler one if that saves too little. Nil
// thresholds are the default ones.
func Recommend(ways []Way, t *Thresholds) Recommendation {
	if t == nil {
		t = &DefaultThresholds
	}
	// fastest is that of those that cache, also if it does not break even, or moves more than the
	// storage gives in a day: then Why says so.
	var pull, best, fastest *Way
	for i := range ways {
		w := &ways[i]
		if w.Name == Pull && w.Possible {
			pull = w
		}
		if w.Name != Pull && (w.Possible || w.Cold.Total() > 0) && (fastest == nil || w.Job.Total() < fastest.Job.Total()) {
			fastest = w
		}
		if w.Possible && w.BreakEven != Never && (best == nil || w.Job.Total() < best.Job.Total()) {
			best = w
		}
	}
	if best == nil {
		return Recommendation{Reason: "Nothing can be recommended: " + whyNot(ways) + "."}
	}
	for i := range ways { // the simplest first
		w := &ways[i]
		if saves := w.Job.Total() - best.Job.Total(); w.Possible && w.BreakEven != Never && (saves < t.Share*w.Job.Total() || saves < t.Seconds) {
			best = w
			break
		}
	}
	r := Recommendation{Way: best.Name, Cache: best.Name != Pull}
	switch {
	case !r.Cache && fastest == nil:
		r.Reason = fmt.Sprintf("Nothing else can be recommended than plain pulls, which take %s per job: %s.", seconds(best.Job), whyNot(ways))
	case !r.Cache:
		r.Reason = "Do not cache here: " + against(pull, fastest, t) + "."
	case pull == nil:
		r.Reason = fmt.Sprintf("Use %s: a job waits %s, fewer than by any other way that was measured. Plain pulls: %s.", r.Way, seconds(best.Job), ways[0].Why)
	default:
		r.Saved = pull.Job.Total() - best.Job.Total()
		r.Reason = fmt.Sprintf("Use %s: a job waits %s, and %s with a plain pull (%s). It breaks even after %s.", r.Way, seconds(best.Job), seconds(pull.Job), largest(pull.Job), jobs(best.BreakEven))
	}
	return r
}

// against says why plain pulls are better than the fastest way that caches.
func against(pull, fastest *Way, t *Thresholds) string {
	saves := pull.Job.Total() - fastest.Job.Total()
	compared := fmt.Sprintf("a plain pull takes %s per job (%s), the fastest way that caches, %s, %s (%s)",
		seconds(pull.Job), largest(pull.Job), fastest.Name, seconds(fastest.Job), largest(fastest.Job))
	switch {
	case !fastest.Possible:
		return compared + ", and " + fastest.Why
	case saves <= 0:
		return compared
	case fastest.BreakEven == Never:
		return compared + fmt.Sprintf(", and stocking each day's builds takes %s a day, more than jobs save", duration(fastest.Background))
	default:
		return compared + fmt.Sprintf("; that saves %s, and to be worth it, it would have to be %.0f %% and %s", duration(saves), 100*t.Share, duration(t.Seconds))
	}
}

// whyNot says why ways are not possible.
func whyNot(ways []Way) string {
	var texts []string
	names := map[string][]string{}
	for _, w := range ways {
		if !w.Possible {
			names[w.Why] = append(names[w.Why], w.Name)
		}
	}
	if len(names) == 0 {
		return "no way breaks even"
	}
	for _, w := range ways {
		if of := names[w.Why]; len(of) > 0 && of[0] == w.Name {
			texts = append(texts, strings.Join(of, ", ")+": "+w.Why)
		}
	}
	return strings.Join(texts, "; ")
}

// largest names what most of a cost is.
func largest(c Cost) string {
	part, of := c.Other, "to clone and lock"
	for _, p := range []struct {
		seconds float64
		of      string
	}{{c.Registry, "of the registry"}, {c.Storage, "of the storage"}, {c.Engine, "of the engine"}} {
		if p.seconds > part {
			part, of = p.seconds, p.of
		}
	}
	if part == 0 {
		return "nothing to wait for"
	}
	return duration(part) + " " + of
}

func seconds(c Cost) string { return duration(c.Total()) }

// duration prints seconds for people.
func duration(s float64) string {
	if s < 100 {
		return fmt.Sprintf("%.3g s", s)
	}
	if s < math.MaxInt64/1e9 {
		return (time.Duration(s) * time.Second).String()
	}
	return fmt.Sprintf("%.3g s", s)
}

func jobs(n int64) string {
	if n == 1 {
		return "the first job"
	}
	return fmt.Sprintf("%d jobs", n)
}

package artifacts

import (
	"bytes"
	"net/http"
	"strconv"
	"time"
)

// secondaryWait is how long to wait first when the API says that there were too
// many requests but not for how long, and doubles from there. See
// https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api.
const secondaryWait = time.Minute

// rateLimit tells whether an answer is a rate limit, and how long to wait. A
// 403 is one only if its headers or its message say so: most are refusals.
// before is how many limits without a time were waited for already.
func (a *answer) rateLimit(before int) (time.Duration, bool) {
	if a.status != http.StatusForbidden && a.status != http.StatusTooManyRequests {
		return 0, false
	}
	if text := a.header.Get("Retry-After"); text != "" {
		if seconds, err := strconv.ParseInt(text, 10, 32); err == nil && seconds >= 0 {
			return bounded(time.Duration(seconds) * time.Second), true
		}
		if at, err := http.ParseTime(text); err == nil {
			return bounded(at.Sub(a.now())), true
		}
	}
	if a.header.Get("X-Ratelimit-Remaining") == "0" {
		if reset, err := strconv.ParseInt(a.header.Get("X-Ratelimit-Reset"), 10, 64); err == nil {
			// The reset is within the second that it names.
			return bounded(time.Unix(reset, 0).Sub(a.now())) + time.Second, true
		}
	}
	if a.status == http.StatusTooManyRequests || bytes.Contains(bytes.ToLower(a.body), []byte("rate limit")) {
		return secondaryWait << min(before, 10), true
	}
	return 0, false
}

// bounded keeps a server that says "now" from being asked without end, and one
// that names a year far off from making a sum overflow.
func bounded(wait time.Duration) time.Duration {
	return min(max(wait, time.Second), 1000*time.Hour)
}

// now is the time at the server: the clock of this machine may be wrong, and
// the reset is a time of the server's.
func (a *answer) now() time.Time {
	if t, err := http.ParseTime(a.header.Get("Date")); err == nil {
		return t
	}
	return time.Now()
}

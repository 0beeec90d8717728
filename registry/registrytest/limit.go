package registrytest

import (
	"cmp"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// A limit is the token bucket of [Quirks.RequestsPerSecond].
type limit struct {
	used float64 // of the burst
	at   time.Time
}

// take counts a request and returns how long it comes too early; 0 if it is served.
func (l *limit) take(q Quirks, now time.Time) time.Duration {
	burst := float64(cmp.Or(q.RequestBurst, 1))
	if !l.at.IsZero() {
		l.used = max(0, l.used-q.RequestsPerSecond*now.Sub(l.at).Seconds())
	}
	l.at = now
	// A client that waits as long as it was asked to must not be early by a rounding.
	early := l.used + 1 - burst
	if early < 1e-6 {
		l.used++
		return 0
	}
	if q.CountRefused {
		l.used = min(l.used+1, 2*burst)
	}
	return time.Duration(math.Ceil((l.used + 1 - burst) / q.RequestsPerSecond * 1e9))
}

// isOverLimit refuses a request that comes too early, and reports whether it did.
func (s *Server) isOverLimit(w http.ResponseWriter, q Quirks) bool {
	if q.RequestsPerSecond <= 0 {
		return false
	}
	now := time.Now
	if q.Now != nil {
		now = q.Now
	}
	s.mu.Lock()
	wait := s.limit.take(q, now())
	s.mu.Unlock()
	if wait == 0 {
		return false
	}
	s.first("RequestsPerSecond", 0)
	if q.RetryAfterText == "" || q.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(cmp.Or(q.RetryAfter, int(math.Ceil(wait.Seconds())))))
	}
	message := cmp.Or(q.RetryAfterText, fmt.Sprintf("more than %v requests per second", q.RequestsPerSecond))
	refuse(w, http.StatusTooManyRequests, "TOOMANYREQUESTS", strings.ReplaceAll(message, "%s", wait.String()))
	return true
}

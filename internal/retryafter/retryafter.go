// Package retryafter reads how long a server asks to wait. It is apart from package backoff, which
// packages use that know nothing of HTTP.
package retryafter

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Delay returns how long the header Retry-After of an answer asks to wait from now on: a
// number of seconds, with a fraction or without, or a date. It is bounded by most, and not
// negative. ok is false where the header is missing, or is neither.
func Delay(h http.Header, now time.Time, most time.Duration) (wait time.Duration, ok bool) {
	text := strings.TrimSpace(h.Get("Retry-After"))
	if wait, ok := Units(text, time.Second, most); ok {
		return wait, true
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0, false
	}
	return min(max(at.Sub(now), 0), most), true
}

// Units returns a number of units, bounded by most. ok is false for a text that is not of digits
// and at most one point.
func Units(digits string, unit, most time.Duration) (d time.Duration, ok bool) {
	if strings.Trim(digits, "0123456789.") != "" || strings.Count(digits, ".") > 1 || strings.Trim(digits, ".") == "" {
		return 0, false
	}
	n, _ := strconv.ParseFloat(digits, 64) // +Inf if it is too large
	if n >= float64(most)/float64(unit) {
		return most, true
	}
	return time.Duration(n * float64(unit)), true
}

package registry

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestDelayOf(t *testing.T) {
	many := strings.Repeat("9", 400)
	synctest.Test(t, func(t *testing.T) {
		for header, want := range map[string]time.Duration{
			"": 0, "0": 0, "5": 5 * time.Second, " 5 ": 5 * time.Second, "0.25": 250 * time.Millisecond, "1.5": 1500 * time.Millisecond, ".5": 500 * time.Millisecond,
			"60": time.Minute, "61": time.Minute, "2000000000": time.Minute, many: time.Minute, many + "." + many: time.Minute,
			"-5": 0, "NaN": 0, "Inf": 0, "1e309": 0, "0x10": 0, "5s": 0, "1.2.3": 0, ".": 0, "1_000": 0, "soon": 0,
			time.Now().Add(7 * time.Second).UTC().Format(http.TimeFormat): 7 * time.Second,
			time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat):      0,
			time.Now().Add(24 * time.Hour).UTC().Format(http.TimeFormat):  time.Minute,
		} {
			assert.Equal(t, want, delayOf(http.Header{"Retry-After": {header}}, ""), header)
		}
	})
	for text, want := range map[string]time.Duration{
		"": 0, "too many requests": 0, "allowed: 44000/minute": 0,
		"retry-after: 880.092µs, allowed: 44000/minute":         880092 * time.Nanosecond,
		"retry-after: 880.092\u03bcs":                           880092 * time.Nanosecond,
		"Retry-After: 5":                                        5 * time.Second,
		"Retry-After: 5.":                                       5 * time.Second,
		"retry after 30s":                                       30 * time.Second,
		"please retry after 30 seconds":                         30 * time.Second,
		"Try again in 2m":                                       time.Minute,
		"try again in 1m30s, or later":                          time.Minute,
		"try again in 0m 20s":                                   20 * time.Second,
		"retry_after=3":                                         3 * time.Second,
		`{"error":"x","error_description":"retry after 250ms"}`: 250 * time.Millisecond,
		`retryAfter="250ms"`:                                    250 * time.Millisecond,
		"retry-after: 7us":                                      7 * time.Microsecond,
		"retry-after: 7ns":                                      7,
		"retry-after: 1h":                                       time.Minute,
		"retry-after: 1 minute":                                 time.Minute,
		"retry after 2s, or retry after 3s":                     3 * time.Second,
		"retry-after: -5":                                       0,
		"retry-after: -5s":                                      0,
		"retry-after: NaN":                                      0,
		"retry-after: 1e309":                                    0,
		"retry-after: 5 apples":                                 5 * time.Second,
		"retry-after: 5x":                                       0,
		"retry-after: " + many:                                  time.Minute,
		"retry-after: " + many + "h":                            time.Minute,
		"retry-after: " + strings.Repeat("1s", 1000):            time.Minute,
		`{"errors":[{"code":"TOOMANYREQUESTS","message":"retry-after: 880.092\u00b5s"}]}`:               880092 * time.Nanosecond,
		`{"errors":[{"code":"DENIED","message":"no","detail":"try again in 20s"}]}`:                     20 * time.Second,
		`{"errors":[{"message":"retry after 1s"},{"message":"retry after 4s","detail":{"limit":"9"}}]}`: 4 * time.Second,
		"<html>Too many requests. Try again in 3 s.</html>":                                             3 * time.Second,
	} {
		assert.Equal(t, want, delayOf(nil, text), text)
	}
	assert.Equal(t, 9*time.Second, delayOf(http.Header{"Retry-After": {"9"}}, "retry after 2s"), "the longer one")
	assert.Equal(t, 9*time.Second, delayOf(http.Header{"Retry-After": {"2"}}, "retry after 9s"), "the longer one")
}

func FuzzDelayOf(f *testing.F) {
	f.Add("5", "retry-after: 880.092µs, allowed: 44000/minute")
	f.Add("Thu, 26 Nov 2026 12:00:00 GMT", `{"errors":[{"message":"try again in 1m30s"}]}`)
	f.Fuzz(func(t *testing.T, header, body string) {
		if d := delayOf(http.Header{"Retry-After": {header}}, body); d < 0 || d > time.Minute {
			t.Fatalf("%q, %q: %v", header, body, d)
		}
	})
}

package registry

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/dockercache/dockercache/internal/httpretry"
	"github.com/dockercache/dockercache/internal/retryafter"
)

// texts is how the text of an answer asks for a delay: "retry-after: 880.092µs, allowed:
// 44000/minute" (ghcr.io), "Retry-After: 5", "retry after 30s", "try again in 1m30s". A
// number without a unit is of seconds. What is longer than it looks, such as 1e309, or
// negative, is none.
var texts = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?i)(?:retry[-_ ]?after|retry in|try again (?:in|after))["']?\s*[:=]?\s*["']?` +
		`((?:[0-9]+(?:\.[0-9]+)?\s?(?:ns|us|µs|μs|ms|s|m|h|(?:milli|micro|nano)?sec(?:ond)?s?|min(?:ute)?s?|hours?)\s?)+|[0-9]+(?:\.[0-9]+)?)(?:[^\pL\pN_]|$)`)
})

// parts are the numbers and units of what texts finds.
var parts = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`([0-9]+(?:\.[0-9]+)?)\s?(\pL*)`) })

// delayOf returns the longest delay that an answer asks for, in its header Retry-After or
// in a text of its body, bounded by [httpretry.LongestWait]; 0 if it asks for none.
func delayOf(header http.Header, body string) time.Duration {
	delay, _ := retryafter.Delay(header, time.Now(), httpretry.LongestWait)
	for _, text := range messages(body) {
		for _, found := range texts().FindAllStringSubmatch(text, -1) {
			var sum time.Duration
			for _, part := range parts().FindAllStringSubmatch(found[1], -1) {
				one, _ := retryafter.Units(part[1], unitOf(strings.ToLower(part[2])), httpretry.LongestWait)
				sum = min(sum+one, httpretry.LongestWait)
			}
			delay = max(delay, sum)
		}
	}
	return delay
}

func unitOf(name string) time.Duration {
	switch {
	case name == "ns", strings.HasPrefix(name, "nano"):
		return time.Nanosecond
	case name == "us", name == "µs", name == "μs", strings.HasPrefix(name, "micro"):
		return time.Microsecond
	case name == "ms", strings.HasPrefix(name, "milli"):
		return time.Millisecond
	case strings.HasPrefix(name, "m"):
		return time.Minute
	case strings.HasPrefix(name, "h"):
		return time.Hour
	}
	return time.Second
}

// messages returns the texts in a body: all of a JSON document, or else the body itself.
func messages(body string) []string {
	var document any
	if err := json.Unmarshal([]byte(body), &document); err != nil {
		return []string{body}
	}
	return stringsIn(document)
}

func stringsIn(value any) (all []string) {
	switch v := value.(type) {
	case string:
		return []string{v}
	case []any:
		for _, one := range v {
			all = append(all, stringsIn(one)...)
		}
	case map[string]any:
		for _, one := range v {
			all = append(all, stringsIn(one)...)
		}
	}
	return all
}

package retryafter

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestDelay(t *testing.T) {
	const most, none = time.Minute, time.Duration(-1)
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	many := strings.Repeat("9", 400)
	for text, want := range map[string]time.Duration{
		"0": 0, "5": 5 * time.Second, " 5 ": 5 * time.Second, "0.25": 250 * time.Millisecond, ".5": 500 * time.Millisecond, "5.": 5 * time.Second,
		"60": most, "61": most, "9999999999": most, "18446744074": most, "9223372036854775807": most, many: most, many + "." + many: most,
		"": none, "-5": none, "+5": none, "NaN": none, "Inf": none, "1e309": none, "0x10": none, "5s": none, "1.2.3": none, ".": none, "1_000": none, "soon": none,
		now.Add(7 * time.Second).Format(http.TimeFormat):                            7 * time.Second,
		now.Add(-time.Hour).Format(http.TimeFormat):                                 0,
		now.Add(24 * time.Hour).Format(http.TimeFormat):                             most,
		now.AddDate(900, 0, 0).Format(http.TimeFormat):                              most,
		now.Add(7 * time.Second).Format("Monday, 02-Jan-06 15:04:05 MST"):           7 * time.Second,
		now.Add(7 * time.Second).In(time.FixedZone("", 3600)).Format(time.RFC1123Z): none,
	} {
		got, ok := Delay(http.Header{"Retry-After": {text}}, now, most)
		assert.Equal(t, want != none, ok, text)
		assert.Equal(t, max(want, 0), got, text)
	}
	_, ok := Delay(nil, now, most)
	assert.False(t, ok)
}

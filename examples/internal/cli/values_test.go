package cli

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestDuration(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{"30d": 30 * day, "1d12h": 36 * time.Hour, "36h": 36 * time.Hour, "90s": 90 * time.Second, "90m": 90 * time.Minute} {
		var d Duration
		require.NoError(t, d.Set(text), text)
		assert.Equal(t, want, time.Duration(d), text)
	}
	for _, text := range []string{"", "d", "0", "0d", "-1d", "-5h", "1d-5h", "30", "1dd", "999999999d", "1.5d"} {
		require.Error(t, new(Duration).Set(text), text)
	}
}

func TestDurationOrNone(t *testing.T) {
	for text, want := range map[string]time.Duration{"7d": 7 * 24 * time.Hour, "90s": 90 * time.Second, "0": -1, "0s": -1, "0d": -1} {
		var d DurationOrNone
		require.NoError(t, d.Set(text), text)
		assert.Equal(t, want, time.Duration(d), text)
		assert.NotContains(t, d.String(), "-")
	}
	for _, text := range []string{"", "d", "-1", "-1d", "-5h", "30", "never"} {
		require.Error(t, new(DurationOrNone).Set(text), text)
	}
}

func TestCount(t *testing.T) {
	var c Count
	require.NoError(t, c.Set("64"))
	assert.EqualValues(t, 64, c)
	for _, text := range []string{"", "0", "-1", "1025", "16x", "1e3", "99999999999999999999"} {
		require.EqualError(t, new(Count).Set(text), "want a number from 1 to 1024", text)
	}
}

func TestRate(t *testing.T) {
	for text, want := range map[string]int64{"1KiB": 1024, "10MB/s": 10e6, "1": 1, "1.5k": 1500, "0": -1, "0B": -1} {
		var n int64
		require.NoError(t, Rate{&n, -1}.Set(text), text)
		assert.Equal(t, want, n, text)
	}
	n := int64(7)
	require.NoError(t, Rate{N: &n}.Set("0"))
	assert.Zero(t, n)
	assert.Equal(t, Rate{}.String(), Rate{N: &n}.String(), "it has no default in the help")
	n = 10 << 20
	assert.Equal(t, "10 MiB/s", Rate{N: &n}.String())
	for _, text := range []string{"", "-1", "many", "16EiB", "1XB", "1/m", "/s"} {
		require.Error(t, Rate{N: &n}.Set(text), text)
	}
}

func TestSize(t *testing.T) {
	for text, want := range map[string]Size{"500GB": 500e9, "500GiB": 500 << 30, "1": 1, "1.5k": 1500} {
		var s Size
		require.NoError(t, s.Set(text), text)
		assert.Equal(t, want, s, text)
	}
	for _, text := range []string{"", "0", "-1", "many", "16EiB", "1XB"} {
		require.Error(t, new(Size).Set(text), text)
	}
}

func TestPrintable(t *testing.T) {
	assert.Equal(t, "a_main.tar", Printable("a_main.tar"))
	assert.Equal(t, `"a\n\x1b[2J.tar"`, Printable("a\n\x1b[2J.tar"))
}

func TestSeconds(t *testing.T) {
	for text, want := range map[string]time.Duration{"18000": 5 * time.Hour, "5h": 5 * time.Hour, "900": 15 * time.Minute, "1h30m": 90 * time.Minute} {
		var s Seconds
		require.NoError(t, s.Set(text), text)
		assert.Equal(t, want, time.Duration(s), text)
	}
	for _, text := range []string{"", "0", "-1", "-5h", "1.5", "99999999999"} {
		require.Error(t, new(Seconds).Set(text), text)
	}
}

func TestMode(t *testing.T) {
	var m Mode
	require.NoError(t, m.Set("0640"))
	assert.Equal(t, Mode(0o640), m)
	for _, text := range []string{"", "0", "999", "01777", "rw"} {
		require.Error(t, new(Mode).Set(text), text)
	}
}

func TestSince(t *testing.T) {
	for text, want := range map[string]string{"2026-11-26": "2026-11-26T00:00:00Z", "2026-11-26T12:00:00+02:00": "2026-11-26T10:00:00Z"} {
		var s Since
		require.NoError(t, s.Set(text), text)
		assert.Equal(t, want, s.String())
	}
	var s Since
	require.NoError(t, s.Set("7d"))
	assert.WithinDuration(t, time.Now().AddDate(0, 0, -7), time.Time(s), 2*time.Hour) // a clock may change to summer
	for _, text := range []string{"", "soon", "2026-13-01", "0", "-1h"} {
		assert.Error(t, s.Set(text), text)
	}
}

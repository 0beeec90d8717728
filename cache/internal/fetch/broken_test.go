package fetch

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A byte that never comes ends the fetch, after a bounded number of attempts, also while
// other ranges go on for long.
func TestRangeThatAlwaysBreaks(t *testing.T) {
	for _, rate := range []float64{25 * MB, link / 10} {
		for _, at := range []float64{0, 0.4, 0.999} {
			for _, layers := range [][]float64{{64 * MiB}, {64 * MiB, 10 * MiB}} {
				t.Run(fmt.Sprintf("at %.3f, %.1f MB/s, %d layers", at, rate/MB, len(layers)), func(t *testing.T) {
					layer := content.layer(1, 64*MiB/10)
					bad := int64(at * float64(layer.Size))
					attempts := 0
					h := &server{rate: constant(rate), roundTrip: roundTrip, breaks: func(r request) (int64, bool) {
						if r.blob != layer.Digest || r.offset > bad || r.offset+r.length <= bad {
							return 0, false
						}
						attempts++
						return bad - r.offset, true
					}}
					o := simulate(t, simulation{connections: 16, layers: layers, hosts: []*server{h}})
					t.Logf("%d attempts: %s", attempts, o)
					require.Error(t, o.err)
					assert.ErrorContains(t, o.err, layer.Digest.String())
					assert.ErrorIs(t, o.err, errReset)
					assert.LessOrEqual(t, attempts, 20, "%s", o)
					assert.GreaterOrEqual(t, attempts, 4, "%s", o)
					assert.LessOrEqual(t, o.took, time.Minute, "%s", o)
				})
			}
		}
	}
}

// Connections that break often, each after some bytes, are continued.
func TestConnectionsThatBreak(t *testing.T) {
	for _, after := range []float64{MiB, 3 * MiB, 10 * MiB} {
		t.Run(fmt.Sprint(after/MiB), func(t *testing.T) {
			o := succeed(t, simulation{connections: 16, layers: []float64{160 * MiB}, hosts: []*server{{rate: constant(link), roundTrip: roundTrip, breaks: func(request) (int64, bool) { return int64(after / 10), true }}}})
			atMost(t, o, 1.5, ideal(160*MiB, 16*link), "what connections carry")
			assert.LessOrEqual(t, float64(o.sent), 1.05*float64(o.size), "%s", o)
		})
	}
}

// A registry that restarts is waited for; one that does not come back is given up.
func TestHostThatIsDown(t *testing.T) {
	for _, c := range []struct {
		from, to time.Duration
		fails    bool
	}{
		{time.Second, 3 * time.Second, false},
		{time.Second, 11 * time.Second, false},
		{0, 10 * time.Second, false},
		{time.Second, time.Hour, true},
		{0, time.Hour, true},
	} {
		for _, layers := range [][]float64{{160 * MiB}, {60 * MiB, 50 * MiB, 40 * MiB, 6 * MiB, 4 * MiB}} {
			t.Run(fmt.Sprint(c.from, " to ", c.to, " ", len(layers)), func(t *testing.T) {
				o := simulate(t, simulation{connections: 16, layers: layers, hosts: []*server{{
					rate: constant(link), roundTrip: roundTrip, down: func(now time.Duration) bool { return now >= c.from && now < c.to },
				}}})
				t.Log(o)
				if c.fails {
					require.ErrorIs(t, o.err, errDown)
					assert.LessOrEqual(t, o.took, 75*time.Second, "%s", o)
					assert.GreaterOrEqual(t, o.took, 10*time.Second, "%s", o) // it might have come back
					assert.LessOrEqual(t, o.requests, 16*20, "%s", o)
					return
				}
				require.NoError(t, o.err, "%s", o)
				assert.LessOrEqual(t, o.took, c.to+10*time.Second, "%s", o)
				assert.LessOrEqual(t, float64(o.sent), 1.1*float64(o.size), "%s", o)
			})
		}
	}
}

// A caller that cancels waits for nothing: not for bytes, answers, delays.
func TestFetchEndsWithItsContext(t *testing.T) {
	for name, hosts := range map[string][]*server{
		"bytes come":  one(constant(link)),
		"slow":        one(slowAt(link, link/50, func(c conn) bool { return c.number%4 == 0 })),
		"still":       one(constant(0)),
		"no answer":   {{firstByte: func(request) time.Duration { return time.Hour }}},
		"refuses":     {{roundTrip: roundTrip, quota: &quota{after: time.Minute}}},
		"is down":     {{roundTrip: roundTrip, down: func(time.Duration) bool { return true }}},
		"two, slow":   mirrored(constant(link/50), constant(link/50)),
		"two, broken": {{down: func(time.Duration) bool { return true }}, {firstByte: func(request) time.Duration { return time.Hour }}},
	} {
		t.Run(name, func(t *testing.T) {
			o := simulate(t, simulation{connections: 16, layers: []float64{120 * MiB, 40 * MiB}, hosts: hosts, cancelAt: 2 * time.Second})
			require.ErrorIs(t, o.err, context.Canceled, "%s", o)
			assert.LessOrEqual(t, o.took, 2*time.Second, "%s", o)
		})
	}
}

// With a least rate of a connection one that is alone and drips is ended, and in the end
// the fetch.
func TestMinRangeRate(t *testing.T) {
	const least = 1 << 10 // before scaling
	run := func(t *testing.T, rate func(conn) float64, minRate float64) *outcome {
		o := simulate(t, simulation{connections: 1, layers: []float64{4 * MiB}, minRate: minRate, within: time.Hour, hosts: []*server{{rate: rate, roundTrip: roundTrip, step: 20 * time.Millisecond}}})
		t.Log(o)
		return o
	}
	t.Run("drips", func(t *testing.T) {
		o := run(t, constant(10), 100*least)
		require.Error(t, o.err)
		assert.ErrorContains(t, o.err, content.layer(1, 4*MiB/10).Digest.String())
		assert.Regexp(t, "slow|bytes a second", o.err.Error())
		assert.LessOrEqual(t, o.requests, 20, "%s", o)
		assert.Greater(t, o.requests, 1, "%s", o)
		assert.LessOrEqual(t, o.took, 15*time.Minute, "%s", o)
	})
	t.Run("drips once", func(t *testing.T) {
		o := run(t, slowAt(link, 10, func(c conn) bool { return c.number == 0 }), 100*least)
		require.NoError(t, o.err, "%s", o)
		assert.LessOrEqual(t, o.took, 90*time.Second, "%s", o)
	})
	t.Run("drips after the half", func(t *testing.T) {
		o := run(t, slowAt(link, 10, func(c conn) bool { return c.number == 0 && c.sent > 2*MiB }), 100*least)
		require.NoError(t, o.err, "%s", o)
		assert.LessOrEqual(t, o.took, 2*time.Minute, "%s", o)
	})
	t.Run("just above", func(t *testing.T) {
		o := run(t, constant(120*least), 100*least)
		require.NoError(t, o.err, "%s", o)
		assert.LessOrEqual(t, o.requests, 3, "%s", o)
	})
	t.Run("without", func(t *testing.T) {
		o := run(t, constant(10*least), 0)
		require.NoError(t, o.err, "%s", o)
		assert.LessOrEqual(t, o.requests, 3, "%s", o)
	})
}

package fetch

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// An image whose source gives next to nothing does not hold up another.
func TestDrippingImageDoesNotStarveAnother(t *testing.T) {
	healthy := func() simulation {
		return simulation{within: time.Minute, layers: []float64{120 * MiB, 40 * MiB}, hosts: []*server{{name: "healthy", rate: constant(link), roundTrip: roundTrip}}}
	}
	drips := map[string]func() *server{
		"one byte a second": func() *server { return &server{rate: constant(10)} },
		"no byte":           func() *server { return &server{rate: constant(0)} },
		"no answer":         func() *server { return &server{firstByte: func(request) time.Duration { return time.Hour }} },
		"1/100":             func() *server { return &server{rate: constant(link / 100)} },
		"refuses":           func() *server { return &server{quota: &quota{after: time.Second}} },
		"is down":           func() *server { return &server{down: func(time.Duration) bool { return true }} },
	}
	for _, connections := range []int{16, 0} {
		alone := healthy()
		alone.connections = connections
		without := succeed(t, alone)
		for name, drip := range drips {
			for _, late := range []time.Duration{-10 * time.Second, 0, time.Second} {
				if connections == 0 && late == 0 {
					continue
				}
				t.Run(fmt.Sprint(name, " ", connections, " ", late), func(t *testing.T) {
					h := drip()
					h.name, h.roundTrip = "drips", roundTrip
					slow := start{simulation: simulation{layers: []float64{100 * MiB, 30 * MiB, 29 * MiB}, hosts: []*server{h}}, endless: true, after: max(late, 0)}
					o := together(t, connections, start{simulation: healthy(), after: max(-late, 0)}, slow)[0]
					require.NoError(t, o.err, "%s", o)
					bar := 1.2
					if late == 0 { // at first nothing is known of either
						bar = 1.3
					}
					atMost(t, o, bar, without.took, "the healthy one alone")
				})
			}
		}
	}
}

// Sources without names are not one.
func TestDrippingImageWithoutAName(t *testing.T) {
	healthy := simulation{connections: 16, within: time.Minute, layers: []float64{120 * MiB, 40 * MiB}, hosts: one(constant(link))}
	without := succeed(t, healthy)
	for name, drips := range map[string]*server{
		"drips":   {rate: constant(10), roundTrip: roundTrip},
		"refuses": {roundTrip: roundTrip, quota: &quota{after: time.Second}},
	} {
		t.Run(name, func(t *testing.T) {
			healthy.hosts = one(constant(link))
			o := together(t, 16, start{simulation: healthy, after: 5 * time.Second, unnamed: true},
				start{simulation: simulation{layers: []float64{159 * MiB}, hosts: []*server{drips}}, endless: true, unnamed: true})[0]
			require.NoError(t, o.err, "%s", o)
			atMost(t, o, 1.2, without.took, "the healthy one alone")
		})
	}
}

// Images that drip are many: still the healthy one has connections.
func TestManyDrippingImages(t *testing.T) {
	healthy := simulation{within: time.Minute, connections: 16, layers: []float64{120 * MiB, 40 * MiB}, hosts: one(constant(link))}
	without := succeed(t, healthy)
	healthy.hosts = one(constant(link))
	starts := []start{{simulation: healthy, after: 5 * time.Second}}
	for i := range 5 {
		h := &server{name: fmt.Sprint("drips", i), rate: constant(10), roundTrip: roundTrip}
		starts = append(starts, start{simulation: simulation{layers: []float64{100*MiB + float64(i)}, hosts: []*server{h}}, endless: true})
	}
	o := together(t, 16, starts...)[0]
	require.NoError(t, o.err, "%s", o)
	atMost(t, o, 16.0/11*1.1, without.took, "the healthy one alone, when each that drips has one connection")
}

// Healthy images share the connections.
func TestHealthyImagesShare(t *testing.T) {
	image := func(name string, layers ...float64) simulation {
		return simulation{layers: layers, hosts: []*server{{name: name, rate: constant(link), roundTrip: roundTrip}}}
	}
	took := func(n int, mib float64) time.Duration { return time.Duration(n) * ideal(mib*MiB, 16*link) }
	t.Run("two of the same size", func(t *testing.T) {
		o := together(t, 16, start{simulation: image("a", 160*MiB)}, start{simulation: image("b", 159*MiB)})
		for _, o := range o {
			atMost(t, o, 1.15, took(2, 160), "half of the connections")
			assert.GreaterOrEqual(t, o.took, took(1, 160), "%s", o)
		}
	})
	t.Run("one begins later", func(t *testing.T) {
		o := together(t, 16, start{simulation: image("a", 320*MiB)}, start{simulation: image("b", 40*MiB), after: time.Second})
		require.NoError(t, o[0].err)
		atMost(t, o[0], 1.15, took(1, 360), "all bytes")
		atMost(t, o[1], 2, took(2, 40), "half of the connections")
	})
	t.Run("one of many small layers", func(t *testing.T) {
		o := together(t, 16, start{simulation: image("a", 160*MiB)}, start{simulation: image("b", repeat(MiB, 80)...)})
		atMost(t, o[0], 1.2, took(1, 240), "all bytes")
		atMost(t, o[1], 2, took(2, 80), "half of the connections")
	})
	t.Run("four", func(t *testing.T) {
		o := together(t, 16, start{simulation: image("a", 100*MiB)}, start{simulation: image("b", 99*MiB)}, start{simulation: image("c", 98*MiB)}, start{simulation: image("d", 8*MiB)})
		for _, o := range o[:3] {
			atMost(t, o, 1.15, took(1, 305), "all bytes")
		}
		atMost(t, o[3], 4, took(4, 8)+100*time.Millisecond, "a fourth of the connections")
	})
	t.Run("one connection", func(t *testing.T) {
		o := together(t, 1, start{simulation: image("a", 16*MiB)}, start{simulation: image("b", 4*MiB), after: 500 * time.Millisecond})
		atMost(t, o[0], 1.2, ideal(20*MiB, link), "all bytes")
		atMost(t, o[1], 2.5, 2*ideal(4*MiB, link), "half of the connection")
	})
}

// An image that is slow but alive gets its share, beside one that takes all it gets.
func TestSlowImageIsNotStarved(t *testing.T) {
	slow := simulation{layers: []float64{16 * MiB}, hosts: []*server{{name: "slow", rate: constant(link / 10), roundTrip: roundTrip}}}
	fast := simulation{layers: []float64{320 * MiB}, hosts: []*server{{name: "fast", rate: constant(link), roundTrip: roundTrip}}}
	for _, after := range []time.Duration{0, 2 * time.Second} {
		t.Run(after.String(), func(t *testing.T) {
			slow.hosts[0], fast.hosts[0] = &server{name: "slow", rate: constant(link / 10), roundTrip: roundTrip}, &server{name: "fast", rate: constant(link), roundTrip: roundTrip}
			o := together(t, 16, start{simulation: fast}, start{simulation: slow, after: after})
			t.Log(o[0])
			t.Log(o[1])
			require.NoError(t, o[0].err)
			require.NoError(t, o[1].err)
			assert.LessOrEqual(t, o[1].took, ideal(320*MiB, 16*link)+2*ideal(16*MiB, 16*link/10), "the slow one: %s", o[1])
		})
	}
	t.Run("with one connection", func(t *testing.T) {
		o := together(t, 2, start{simulation: simulation{layers: []float64{100 * MiB}, hosts: one(constant(8 * link))}},
			start{simulation: simulation{layers: []float64{MiB}, hosts: []*server{{name: "slow", rate: constant(link / 10)}}}})
		t.Log(o[1])
		require.NoError(t, o[1].err)
		assert.LessOrEqual(t, o[1].took, 3*ideal(MiB, link/10), "the slow one: %s", o[1])
	})
}

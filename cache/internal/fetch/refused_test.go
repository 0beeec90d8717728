package fetch

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/tarball"
)

// small and giant are the images that a registry with few requests a second serves.
var (
	small = []float64{20 * MiB, 10 * MiB, 5 * MiB, 3 * MiB, MiB}
	giant = []float64{400 * MiB}
)

// inTurns is how many requests are refused in three episodes of all connections.
const inTurns = 3 * 16

// A registry that allows few requests a second is asked that often, and with ranges that
// are the longer; it takes little longer than the requests do.
func TestRequestsThatAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		layers []float64
		most   time.Duration
	}{
		"small": {small, 4 * time.Second}, // five requests take 1 to 2 s, and the largest layer 0.8 s
		"giant": {giant, 8 * time.Second}, // it takes 3.4 s if each second three connections more are opened
	} {
		for _, connections := range []int{16, 0} {
			for _, sliding := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, %d connections, sliding=%t", name, connections, sliding), func(t *testing.T) {
					step := 50 * time.Millisecond
					if connections == 0 || sliding {
						step = 250 * time.Millisecond
					}
					for phase := time.Duration(0); phase < time.Second; phase += step {
						o := simulate(t, simulation{scale: 40, connections: connections, layers: c.layers, hosts: []*server{{
							rate: constant(25 * MB), roundTrip: roundTrip, quota: &quota{requests: 3, phase: phase, after: time.Second, sliding: sliding},
						}}})
						if phase == 0 {
							t.Log(o)
						}
						require.NoError(t, o.err, "phase %v: %s", phase, o)
						assert.LessOrEqual(t, o.took, c.most, "phase %v: %s", phase, o)
						assert.LessOrEqual(t, o.refused, inTurns, "phase %v: %s", phase, o)
						assert.LessOrEqual(t, o.requests-o.refused, 40, "phase %v: %s", phase, o)
					}
				})
			}
		}
	}
}

// Where refused requests count too, only fewer requests help.
func TestRefusedRequestsCountToo(t *testing.T) {
	for name, layers := range map[string][]float64{"small": small, "giant": giant} {
		for _, after := range []time.Duration{time.Second, 200 * time.Millisecond, time.Nanosecond} {
			t.Run(fmt.Sprint(name, " ", after), func(t *testing.T) {
				o := succeed(t, simulation{connections: 16, layers: layers, hosts: []*server{{
					rate: constant(25 * MB), roundTrip: roundTrip, quota: &quota{requests: 3, after: after, sliding: true, countRefused: true},
				}}})
				t.Log(o)
				assert.LessOrEqual(t, o.took, 30*time.Second, "%s", o)
				assert.LessOrEqual(t, o.refused, 2*inTurns, "%s", o)
			})
		}
	}
}

// A registry may ask for less than helps, or for long.
func TestRetryAfterOfAnyLength(t *testing.T) {
	for _, c := range []struct {
		after time.Duration
		most  time.Duration
	}{
		{time.Millisecond, 15 * time.Second},
		{880092 * time.Nanosecond, 15 * time.Second},
		{100 * time.Millisecond, 15 * time.Second},
		{5 * time.Second, 40 * time.Second},
		{30 * time.Second, 75 * time.Second},
	} {
		for name, layers := range map[string][]float64{"small": small, "giant": giant} {
			t.Run(fmt.Sprint(name, " ", c.after), func(t *testing.T) {
				o := succeed(t, simulation{connections: 16, layers: layers, hosts: []*server{{
					rate: constant(25 * MB), roundTrip: roundTrip, quota: &quota{requests: 3, after: c.after},
				}}})
				t.Log(o)
				assert.LessOrEqual(t, o.took, c.most, "%s", o)
				assert.LessOrEqual(t, o.refused, inTurns, "%s", o)
				keepsWaits(t, o, c.after)
			})
		}
	}
}

// keepsWaits requires that after a refusal no request comes before the wait that the
// host asked for is over, up to a minute.
func keepsWaits(t testing.TB, o *outcome, after time.Duration) {
	t.Helper()
	refused := time.Duration(-1)
	for _, a := range o.hosts[0].asked {
		// Those on their way did not know.
		if refused >= 0 && a.now > refused+2*roundTrip && a.now < refused+after {
			t.Errorf("a request at %v, though one at %v was asked to wait for %v: %s", a.now, refused, after, o)
			return
		}
		if a.refused {
			refused = a.now
		}
	}
}

// A registry that refuses for ever is given up after minutes, not at once.
func TestRefusedForEver(t *testing.T) {
	for _, after := range []time.Duration{0, time.Millisecond, time.Second, 30 * time.Second, time.Hour} {
		t.Run(after.String(), func(t *testing.T) {
			o := simulate(t, simulation{connections: 16, layers: small, within: 15 * time.Minute, hosts: []*server{{
				roundTrip: roundTrip, quota: &quota{after: after},
			}}})
			t.Log(o)
			require.Error(t, o.err)
			assert.GreaterOrEqual(t, o.took, 8*time.Second, "%s", o)
			assert.LessOrEqual(t, o.requests, 300, "%s", o)
			var marked *marked
			assert.ErrorAs(t, o.err, &marked, "the error is the registry's")
		})
	}
}

// A refusal that ends is waited for, also when it lasts.
func TestRefusedForAWhile(t *testing.T) {
	for _, lasts := range []time.Duration{2 * time.Second, 20 * time.Second, 45 * time.Second} {
		t.Run(lasts.String(), func(t *testing.T) {
			h := &server{rate: constant(link), roundTrip: roundTrip}
			h.refuse = func(now time.Duration) (time.Duration, bool) {
				return time.Second, now > time.Second && now < time.Second+lasts
			}
			o := succeed(t, simulation{connections: 16, layers: []float64{160 * MiB}, hosts: []*server{h}})
			t.Log(o)
			assert.LessOrEqual(t, o.took, lasts+lasts/2+8*time.Second, "%s", o)
		})
	}
}

// After refusals a registry that allows more is asked more again.
func TestConnectionsComeBackAfterRefusals(t *testing.T) {
	h := &server{rate: constant(link / 3), roundTrip: roundTrip}
	h.refuse = func(now time.Duration) (time.Duration, bool) {
		return 500 * time.Millisecond, now > time.Second && now < 2*time.Second
	}
	s := simulation{connections: 16, layers: repeat(MiB, 160), hosts: one(constant(link / 3))}
	without := succeed(t, s)
	s.hosts = []*server{h}
	atMost(t, succeed(t, s), 1.3, without.took, "the run without refusals")
}

// What one origin refuses comes from the next; the one that refuses is left alone.
func TestRefusedByOneOfTwoSources(t *testing.T) {
	s := simulation{connections: 16, layers: []float64{120 * MiB, 40 * MiB}, hosts: one(constant(link))}
	alone := succeed(t, s)
	s.hosts = mirrored(constant(link), constant(link))
	s.hosts[0].quota = &quota{after: 30 * time.Second} // allows none
	o := succeed(t, s)
	atMost(t, o, 1.3, alone.took, "the own registry alone")
	assert.LessOrEqual(t, o.refused, 20, "%s", o)
}

// Two images of one registry share its limit: neither fails.
func TestRefusedWithTwoImages(t *testing.T) {
	a := &server{name: "registry", rate: constant(25 * MB), roundTrip: roundTrip, quota: &quota{requests: 3, after: time.Second}}
	o := together(t, 16, start{simulation: simulation{layers: small, hosts: []*server{a}}}, start{simulation: simulation{layers: []float64{60 * MiB, 2 * MiB}, hosts: []*server{a}}})
	for i, o := range o {
		t.Log(o)
		require.NoError(t, o.err, "image %d: %s", i, o)
		assert.LessOrEqual(t, o.took, 15*time.Second, "image %d: %s", i, o)
	}
	assert.LessOrEqual(t, a.refused, 2*inTurns)
}

// Two repositories of one registry share its limit.
func TestRefusedByTheHostOfTwoSources(t *testing.T) {
	for _, parallel := range []bool{false, true} {
		t.Run(fmt.Sprint("parallel=", parallel), func(t *testing.T) {
			shared := &quota{requests: 3, after: time.Second}
			var hosts []*server
			for _, name := range []string{"one", "two"} {
				hosts = append(hosts, &server{name: name, hostName: "registry", parallel: parallel, rate: constant(25 * MB), roundTrip: roundTrip, quota: shared})
			}
			o := succeed(t, simulation{connections: 16, layers: small, hosts: hosts})
			t.Log(o)
			assert.LessOrEqual(t, o.refused, inTurns, "%s", o)
			assert.LessOrEqual(t, o.took, 10*time.Second, "%s", o)
		})
	}
}

// A server that gives blobs only as a whole gives one stream for each layer, all layers at
// the same time.
func TestHostWithoutRanges(t *testing.T) {
	layers := []float64{40 * MiB, 30 * MiB, 20 * MiB, 10 * MiB, 5 * MiB}
	for _, connections := range []int{16, 2, 0} {
		t.Run(fmt.Sprint(connections), func(t *testing.T) {
			o := succeed(t, simulation{connections: connections, layers: layers, hosts: []*server{{rate: constant(10 * MB), roundTrip: roundTrip, noRanges: true}}})
			least := ideal(40*MiB, 10*MB)
			if connections == 2 {
				least = ideal(60*MiB, 10*MB)
			}
			atMost(t, o, 1.1, least, "the longest stream")
			assert.LessOrEqual(t, float64(o.sent), 1.02*float64(o.size), "%s", o)
			assert.LessOrEqual(t, o.requests, len(layers)+3*16, "%s", o)
		})
	}
	t.Run("that breaks", func(t *testing.T) {
		breaks := 2
		o := succeed(t, simulation{wasteful: true, connections: 16, layers: layers, hosts: []*server{{rate: constant(10 * MB), roundTrip: roundTrip, noRanges: true, breaks: func(r request) (int64, bool) {
			if r.size != 40*MiB/10 || breaks == 0 {
				return 0, false
			}
			breaks--
			return r.size / 2, true
		}}}})
		atMost(t, o, 1, 2*ideal(40*MiB, 10*MB)+3*time.Second, "two halves, and all")
		assert.LessOrEqual(t, float64(o.sent), 1.45*float64(o.size), "%s", o)
	})
	t.Run("and another with", func(t *testing.T) {
		hosts := mirrored(constant(10*MB), constant(10*MB))
		hosts[0].noRanges = true
		o := succeed(t, simulation{connections: 16, layers: layers, hosts: hosts})
		atMost(t, o, 1.1, ideal(40*MiB, 10*MB), "the longest stream")
		assert.LessOrEqual(t, float64(o.sent), 1.05*float64(o.size), "%s", o)
	})
	t.Run("and slow", func(t *testing.T) {
		o := succeed(t, simulation{connections: 16, layers: layers, hosts: []*server{{rate: slowAt(10*MB, 2*MB, func(c conn) bool { return c.number%4 == 0 }), roundTrip: roundTrip, noRanges: true}}})
		t.Log(o)
		assert.LessOrEqual(t, o.took, time.Second+ideal(40*MiB, 2*MB), "%s", o)
	})
}

// lately is a source whose host has refused other requests a moment ago.
type lately struct{ *server }

func (l lately) EachOrigin(_ v1.Hash, yield func(name, host string, parallel bool, wait time.Duration, read tarball.ReadRangeFunc) bool) {
	yield("lately", "host", false, -time.Second, l.ReadRange)
}

// A host that has refused other requests gets one large request at first, not a range for
// each connection.
func TestRequestsAfterARefusalOfOthers(t *testing.T) {
	for connections, rate := range map[int]float64{16: 2000 * MB, 0: 2000 * MB} {
		synctest.Test(t, func(t *testing.T) {
			h := &server{rate: constant(rate), roundTrip: roundTrip}
			h.start("lately", 10)
			layer := content.layer(1, int(160*MiB/10))
			layout := mustLayout(t, testImage(t, layer))
			_, err := New(connections).Fetch(t.Context(), Job{Sink: File{tempFile(t)}, Layout: layout, Source: lately{h}})
			require.NoError(t, err)
			assert.Equal(t, 1, h.requests)
		})
	}
}

package fetch

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

const (
	link      = 3 * MB // of one connection, bytes a second
	roundTrip = 20 * time.Millisecond
	dial      = 2 * roundTrip // TCP and TLS
)

func one(rate func(conn) float64) []*server {
	return []*server{{rate: rate, roundTrip: roundTrip, dial: dial}}
}

// One slow connection of several holds nothing up: others bring what it should have.
func TestSlowConnectionIsRaced(t *testing.T) {
	number := func(n int) func(conn) bool { return func(c conn) bool { return c.number == n } }
	below := func(n int) func(conn) bool { return func(c conn) bool { return c.number < n } }
	healthy := func(connections int) simulation {
		return simulation{connections: connections, layers: []float64{160 * MiB}, hosts: one(constant(link * 16 / float64(connections)))}
	}
	without := map[int]*outcome{}
	for _, n := range []int{2, 4, 16} {
		without[n] = succeed(t, healthy(n))
	}
	for _, c := range []struct {
		name        string
		connections int
		slow        int // so many connections are slow
		rate        func(conn) float64
	}{
		{"1 of 16 at 1/50", 16, 1, slowAt(link, link/50, number(3))},
		{"the first of 16 at 1/50", 16, 1, slowAt(link, link/50, number(0))},
		{"the last of 16 at 1/50", 16, 1, slowAt(link, link/50, number(15))},
		{"1 of 16 at 1/5", 16, 1, slowAt(link, link/5, number(3))},
		{"1 of 16 at 1/200", 16, 1, slowAt(link, link/200, number(3))},
		{"1 of 16 falls to 1/50 after 3.5 MiB", 16, 1, slowAt(link, link/50, func(c conn) bool { return c.number == 3 && c.sent > 3.5*MiB })},
		{"1 of 16 falls to 1/200 near its end", 16, 1, slowAt(link, link/200, func(c conn) bool { return c.number == 3 && c.sent > 9*MiB })},
		{"1 of 16 stands still", 16, 1, slowAt(link, 0, number(3))},
		{"1 of 16 stands still after 3.5 MiB", 16, 1, slowAt(link, 0, func(c conn) bool { return c.number == 3 && c.sent > 3.5*MiB })},
		{"each 16th at 1/50, new ones too", 16, 1, slowAt(link, link/50, func(c conn) bool { return c.number%16 == 3 })},
		{"2 of 16 at 1/50", 16, 2, slowAt(link, link/50, below(2))},
		{"8 of 16 at 1/50", 16, 8, slowAt(link, link/50, below(8))},
		{"each second at 1/50, new ones too", 16, 8, slowAt(link, link/50, func(c conn) bool { return c.number%2 == 1 })},
		{"1 of 4 at 1/50", 4, 1, slowAt(link*4, link*4/50, number(1))},
		{"1 of 2 at 1/50", 2, 1, slowAt(link*8, link*8/50, number(1))},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := healthy(c.connections)
			s.hosts = one(c.rate)
			// 1.2 with one slow connection of 16 (the bar is 1.15 for a whole run); and what the
			// others can bring.
			bar := 1.2 * 15 / 16 * float64(c.connections) / float64(c.connections-c.slow)
			atMost(t, succeed(t, s), bar, without[c.connections].took, "the run without")
		})
	}
}

// The same with many small layers, and in an image of one large and some small ones.
func TestSlowConnectionIsRacedInEveryLayer(t *testing.T) {
	for name, layers := range map[string][]float64{
		"32 layers of 5 MiB":       repeat(5*MiB, 32),
		"120 MiB and 5 of 8 MiB":   append(repeat(8*MiB, 5), 120*MiB),
		"160 layers of 1 MiB":      repeat(MiB, 160),
		"3 layers, one of 100 MiB": {100 * MiB, 50 * MiB, 10 * MiB},
	} {
		t.Run(name, func(t *testing.T) {
			s := simulation{connections: 16, layers: layers, hosts: one(constant(link))}
			without := succeed(t, s)
			s.hosts = one(slowAt(link, link/50, func(c conn) bool { return c.number == 3 }))
			atMost(t, succeed(t, s), 1.15, without.took, "the run without")
		})
	}
}

// In an image that takes less than a second, little more than the time to notice it is lost.
func TestSlowConnectionInASmallImage(t *testing.T) {
	for name, layers := range map[string][]float64{
		"8 layers of 2 MiB":   repeat(2*MiB, 8),
		"one layer of 16 MiB": {16 * MiB},
		"5 layers":            {8 * MiB, 4 * MiB, 2 * MiB, MiB, MiB},
	} {
		for _, slow := range []int{1, 3} {
			t.Run(fmt.Sprint(name, ", ", slow, " slow"), func(t *testing.T) {
				without := succeed(t, simulation{connections: 16, layers: layers, hosts: one(constant(link))})
				o := succeed(t, simulation{connections: 16, layers: layers, hosts: one(slowAt(link, link/50, func(c conn) bool { return c.number < slow }))})
				t.Logf("without: %s; with: %s", without, o)
				assert.LessOrEqual(t, o.took, without.took+1500*time.Millisecond, "without: %s; with: %s", without, o)
			})
		}
	}
}

// The same where the sink takes only so many bytes beyond those that are hashed: each byte
// is waited for soon.
func TestSlowConnectionIsRacedWithAWindow(t *testing.T) {
	for name, c := range map[string]struct {
		layers []float64
		rate   func(conn) float64
	}{
		"one layer":                  {[]float64{160 * MiB}, slowAt(link, link/50, func(c conn) bool { return c.number == 3 })},
		"several layers":             {repeat(16*MiB, 10), slowAt(link, link/50, func(c conn) bool { return c.number == 3 })},
		"falls after 3.5 MiB":        {[]float64{160 * MiB}, slowAt(link, link/50, func(c conn) bool { return c.number == 3 && c.sent > 3.5*MiB })},
		"stands still":               {[]float64{160 * MiB}, slowAt(link, 0, func(c conn) bool { return c.number == 3 })},
		"stands still after 1 MiB":   {[]float64{160 * MiB}, slowAt(link, 0, func(c conn) bool { return c.number == 0 && c.sent > MiB })},
		"the first of all the bytes": {[]float64{160 * MiB}, slowAt(link, link/200, func(c conn) bool { return c.number == 0 })},
	} {
		for _, window := range []int64{160 * MiB, 64 * MiB} {
			t.Run(fmt.Sprint(name, " ", window/MiB, " MiB"), func(t *testing.T) {
				s := simulation{connections: 16, layers: c.layers, window: window, hosts: one(constant(link))}
				without := succeed(t, s)
				s.hosts = one(c.rate)
				bar := 1.15
				if window < 160*MiB { // the slow one is noticed when the others stand already
					bar = 1.45
				}
				atMost(t, succeed(t, s), bar, without.took, "the run without")
			})
		}
	}
}

func repeat(size float64, n int) (layers []float64) {
	for range n {
		layers = append(layers, size)
	}
	return layers
}

// One connection alone has nothing to be compared with.
func TestSlowConnectionAlone(t *testing.T) {
	s := simulation{connections: 1, layers: []float64{16 * MiB}, hosts: one(constant(link / 4))}
	o := succeed(t, s)
	atMost(t, o, 1.05, ideal(16*MiB, link/4), "what the connection carries")
	assert.Zero(t, o.duplicate(), "%s", o)
	assert.Equal(t, 1, o.hosts[0].most, "%s", o)
}

// Where every connection is slow nothing is gained by a second request.
func TestNothingIsRacedWhenAllAreSlowAlike(t *testing.T) {
	for _, connections := range []int{1, 4, 16, 0} {
		for _, c := range []struct {
			name string
			from time.Duration // until then they are fast
			by   float64
		}{
			{"from the beginning", 0, 50},
			{"after 30 %", 400 * time.Millisecond, 50},
			{"after 30 %, by a little", 400 * time.Millisecond, 3},
		} {
			t.Run(fmt.Sprint(connections, " ", c.name), func(t *testing.T) {
				rate := link * 16 / max(float64(connections), 1) // the first 30 % take as long with each number
				if connections == 0 {
					rate = link
				}
				layers := []float64{64 * MiB}
				s := simulation{connections: connections, layers: layers, hosts: one(constant(rate))}
				healthy := succeed(t, s)
				s.hosts = one(slowAt(rate, rate/c.by, func(n conn) bool { return n.now >= c.from }))
				s.hosts[0].step = 10 * time.Millisecond
				o := succeed(t, s)
				t.Logf("healthy: %s", healthy)
				t.Logf("slow: %s", o)
				assert.Zero(t, o.duplicate(), "%s", o)
				if connections == 0 { // their number may change meanwhile
					assert.LessOrEqual(t, float64(o.sent), 1.01*float64(o.size), "%s", o)
				} else {
					assert.LessOrEqual(t, float64(o.sent), 1.001*float64(o.size), "%s", o)
					assert.LessOrEqual(t, float64(o.requests), 2.2*float64(healthy.requests)+2, "healthy: %s; slow: %s", healthy, o)
				}
			})
		}
	}
}

// Rates that vary by 30 % are none to race; and no range is cut in a healthy fetch:
// the host sends what it is asked for.
func TestHealthyFetchIsSentOnce(t *testing.T) {
	for name, layers := range map[string][]float64{
		"5 layers":              {120 * MiB, 20 * MiB, 10 * MiB, 5 * MiB, 1 * MiB},
		"one layer of 51 MiB":   {51 * MiB},
		"one layer of 1 GiB":    {1024 * MiB},
		"one layer of 3 MiB":    {3 * MiB},
		"20 layers of 10.3 MiB": repeat(10.3*MiB, 20),
	} {
		for _, varying := range []bool{false, true} {
			for _, connections := range []int{16, 0} {
				t.Run(fmt.Sprintf("%s, varying=%t, %d connections", name, varying, connections), func(t *testing.T) {
					rate := constant(25 * MB)
					if varying {
						rate = func(c conn) float64 {
							r := rand.New(rand.NewPCG(uint64(c.number), uint64(c.now/(300*time.Millisecond))))
							return 25 * MB * (0.7 + 0.6*r.Float64())
						}
					}
					s := simulation{connections: connections, layers: layers, hosts: one(rate)}
					if layers[0] > 200*MiB {
						s.scale = 64
					}
					o := succeed(t, s)
					t.Log(o)
					assert.LessOrEqual(t, float64(o.sent), 1.01*float64(o.size), "%s", o)
				})
			}
		}
	}
}

// The connections of a fetch are busy to its end.
func TestFetchUsesWhatConnectionsCarry(t *testing.T) {
	for name, layers := range map[string][]float64{
		"one layer of 1 GiB": {1024 * MiB},
		"970 MiB and 54 MiB": {970 * MiB, 20 * MiB, 20 * MiB, 10 * MiB, 4 * MiB},
	} {
		for _, rtt := range []time.Duration{0, 20 * time.Millisecond, 100 * time.Millisecond} {
			t.Run(fmt.Sprint(name, " ", rtt), func(t *testing.T) {
				o := succeed(t, simulation{scale: 64, connections: 16, layers: layers, hosts: []*server{{rate: constant(25 * MB), roundTrip: rtt}}})
				bar := 1 / 0.93
				if rtt > 20*time.Millisecond {
					bar = 1 / 0.75
				}
				atMost(t, o, bar, ideal(1024*MiB, 16*25*MB), "connections x limit")
			})
		}
	}
}

// A registry that fetches a blob first answers late. It is waited for, and not asked more
// often for that.
func TestFirstByteMayTakeLong(t *testing.T) {
	const late = 20 * time.Second
	for _, c := range []struct {
		name string
		late func(request) time.Duration
		most time.Duration
	}{
		{"each range", func(request) time.Duration { return late }, 3*late + 10*time.Second},
		{"the first 20 s of a blob", func(r request) time.Duration { return max(late-r.blobAge, 0) }, 2*late + 6*time.Second},
		{"the first requests", func(r request) time.Duration {
			if r.number < 16 {
				return late
			}
			return 0
		}, late + 6*time.Second},
		{"from 0 to 20 s", func(r request) time.Duration { return time.Duration(r.number%5) * 5 * time.Second }, 3*late + 10*time.Second},
	} {
		for _, layers := range [][]float64{{160 * MiB}, {100 * MiB, 30 * MiB, 20 * MiB, 9 * MiB, MiB}} {
			for _, connections := range []int{16, 0} {
				t.Run(fmt.Sprint(c.name, " ", len(layers), " layers ", connections), func(t *testing.T) {
					o := succeed(t, simulation{connections: connections, layers: layers, hosts: []*server{{rate: constant(link), roundTrip: roundTrip, firstByte: c.late}}})
					t.Log(o)
					assert.LessOrEqual(t, o.took, c.most, "%s", o)
					if connections > 0 {
						assert.LessOrEqual(t, o.requests, cmp.Or(8*connections, 4*MostConnections), "%s", o)
					}
					assert.LessOrEqual(t, o.requests, 512, "%s", o)
				})
			}
		}
	}
}

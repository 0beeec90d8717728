package fetch

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/tarball"
)

// mirrored are two origins that are read one in place of the other: a mirror, and the
// image's own registry.
func mirrored(mirror, own func(conn) float64) []*server {
	return []*server{{name: "mirror", rate: mirror, roundTrip: roundTrip, dial: dial}, {name: "own", rate: own, roundTrip: roundTrip, dial: dial}}
}

// A mirror that becomes slow without failing loses its ranges to the next origin.
func TestSlowSourceIsReplaced(t *testing.T) {
	after := func(d time.Duration, by float64) func(conn) float64 {
		return slowAt(link, link/by, func(c conn) bool { return c.now >= d })
	}
	const third = time.Second // some 30 % of the image
	image := func(connections int) simulation {
		s := simulation{connections: connections, layers: []float64{120 * MiB, 40 * MiB}, hosts: one(constant(link)), within: 2 * time.Minute}
		switch connections {
		case 4:
			s.layers = []float64{30 * MiB, 10 * MiB}
		case 0: // it ends in more than third too
			s.layers = []float64{240 * MiB, 40 * MiB}
		}
		return s
	}
	alone := map[int]*outcome{}
	for _, n := range []int{16, 4, 0} {
		alone[n] = succeed(t, image(n))
	}
	for _, c := range []struct {
		name   string
		mirror func(conn) float64
	}{
		{"at 1/50 after 30 %", after(third, 50)},
		{"at 1/200 after 30 %", after(third, 200)},
		{"at 1/10 after 30 %", after(third, 10)},
		{"at 1/50 after 90 %", after(3*third, 50)},
		{"still after 30 %", slowAt(link, 0, func(c conn) bool { return c.now >= third })},
		{"at 1/50 from the first byte", constant(link / 50)},
		{"one byte a second from the first byte", constant(10)},
		{"no byte", constant(0)},
		{"each connection at 1/50 after 3 MiB", slowAt(link, link/50, func(c conn) bool { return c.sent > 3*MiB })},
	} {
		for _, connections := range []int{16, 4, 0} {
			t.Run(fmt.Sprint(c.name, " ", connections), func(t *testing.T) {
				// Goroutines take turns at random: a run in fifty is slower. The bar is the median's.
				o := medianOf(func() *outcome {
					s := image(connections)
					s.hosts = mirrored(c.mirror, constant(link))
					return succeed(t, s)
				})
				bar := 1.5
				if connections != 16 { // few show little, and alone the default finds a larger number sooner
					bar = 1.75
				}
				atMost(t, o, bar, alone[connections].took, "the own registry alone")
			})
		}
	}
}

// medianOf returns the run of three that took neither the longest nor the shortest.
func medianOf(run func() *outcome) *outcome {
	all := []*outcome{run(), run(), run()}
	slices.SortFunc(all, func(a, b *outcome) int { return cmp.Compare(a.took, b.took) })
	return all[1]
}

// The mirror's limit may be one of all its connections.
func TestSourceWithASlowLinkIsReplaced(t *testing.T) {
	s := simulation{connections: 16, layers: []float64{120 * MiB, 40 * MiB}}
	s.hosts = one(constant(link))
	alone := succeed(t, s)
	s.hosts = mirrored(nil, constant(link))
	s.hosts[0].total = func(now time.Duration) float64 {
		if now < time.Second {
			return 16 * link
		}
		return 16 * link / 50
	}
	atMost(t, succeed(t, s), 1.5, alone.took, "the own registry alone")
}

// A mirror that never answers costs little, long before its request would fail.
func TestSourceThatNeverAnswersIsReplaced(t *testing.T) {
	for name, mirror := range map[string]*server{
		"never":         {firstByte: func(request) time.Duration { return time.Hour }},
		"after 30 s":    {firstByte: func(request) time.Duration { return 30 * time.Second }, rate: constant(link)},
		"never, from 1": {firstByte: func(r request) time.Duration { return min(time.Duration(r.number), 1) * time.Hour }, rate: constant(link)},
	} {
		t.Run(name, func(t *testing.T) {
			s := simulation{connections: 16, layers: []float64{120 * MiB, 40 * MiB}}
			s.hosts = one(constant(link))
			alone := succeed(t, s)
			mirror.name = "mirror"
			s.hosts = []*server{mirror, {name: "own", rate: constant(link), roundTrip: roundTrip}}
			o := succeed(t, s)
			t.Log(o)
			assert.LessOrEqual(t, o.took, alone.took+5*time.Second, "alone %s; with the mirror %s", alone, o)
		})
	}
}

// A mirror that has recovered is read again.
func TestSourceThatRecoversIsReadAgain(t *testing.T) {
	const rate = MB / 2 // so that it takes 42 s
	s := simulation{connections: 16, layers: []float64{240 * MiB, 80 * MiB}}
	s.hosts = one(constant(rate))
	alone := succeed(t, s)
	s.hosts = mirrored(slowAt(rate, rate/50, func(c conn) bool { return c.now >= 3*time.Second && c.now < 7*time.Second }), constant(rate))
	o := succeed(t, s)
	atMost(t, o, 1.3, alone.took, "the own registry alone")
	mirror, own := o.hosts[0], o.hosts[1]
	during, later := mirror.sentBetween(5*time.Second, 7*time.Second), mirror.sentBetween(20*time.Second, time.Hour)
	t.Logf("the mirror sent %.0f bytes from 5 to 7 s, and %.0f after 20 s", during, later)
	assert.Less(t, during, 0.3*2*16*rate/10, "while the mirror is slow: %s", o)
	require.NotZero(t, own.requests)
	assert.Greater(t, later, 0.5*20*16*rate/10, "of what could come after 20 s most comes from the mirror: %s", o)
}

// A mirror that is fast and slow by turns makes nothing slower than the own registry,
// and no flood of requests.
func TestSourceThatAlternates(t *testing.T) {
	const rate = MB
	image := simulation{connections: 16, layers: []float64{120 * MiB, 40 * MiB}, hosts: one(constant(rate))}
	alone := succeed(t, image)
	for _, period := range []time.Duration{500 * time.Millisecond, 2 * time.Second, 5 * time.Second} {
		for _, first := range []int{0, 1} {
			t.Run(fmt.Sprint(period, first), func(t *testing.T) {
				s := image
				s.hosts = mirrored(slowAt(rate, rate/50, func(c conn) bool { return int(c.now/period)%2 == first }), constant(rate))
				o := succeed(t, s)
				atMost(t, o, 1.5, alone.took, "the own registry alone")
				assert.LessOrEqual(t, o.requests, 4*alone.requests+32, "alone %s; alternating %s", alone, o)
				assert.LessOrEqual(t, float64(o.sent), 1.05*float64(o.size), "%s", o)
			})
		}
	}
}

// Where every origin is slow alike there is nothing to change to.
func TestSlowSourcesAllAlike(t *testing.T) {
	for name, hosts := range map[string][]*server{
		"one origin":          {{rate: constant(link / 50), roundTrip: roundTrip, step: 10 * time.Millisecond}},
		"two origins":         mirrored(constant(link/50), constant(link/50)),
		"the other is slower": mirrored(constant(link/50), constant(link/200)),
	} {
		t.Run(name, func(t *testing.T) {
			o := succeed(t, simulation{multi: true, connections: 16, layers: []float64{40 * MiB}, hosts: hosts})
			atMost(t, o, 1.15, ideal(40*MiB, 16*link/50), "what connections carry")
			assert.LessOrEqual(t, float64(o.sent), 1.05*float64(o.size), "%s", o)
			assert.LessOrEqual(t, o.requests, 160, "%s", o)
			if len(hosts) == 1 {
				assert.Zero(t, o.duplicate(), "%s", o)
				assert.LessOrEqual(t, float64(o.sent), 1.001*float64(o.size), "%s", o)
			}
		})
	}
}

// Where the preferred origin is healthy the next one is hardly asked, were it faster.
func TestHealthySourceIsReadAlone(t *testing.T) {
	for _, faster := range []float64{1, 2, 0.1} {
		for _, connections := range []int{16, 0} {
			t.Run(fmt.Sprint(faster, connections), func(t *testing.T) {
				s := simulation{connections: connections, layers: []float64{120 * MiB, 40 * MiB}, hosts: mirrored(constant(link), constant(faster*link))}
				o := succeed(t, s)
				t.Log(o)
				assert.LessOrEqual(t, o.hosts[1].sent, 0.02*float64(o.size), "%s", o)
				assert.LessOrEqual(t, float64(o.sent), 1.02*float64(o.size), "%s", o)
			})
		}
	}
}

// One slow connection to a healthy mirror is no slow mirror.
func TestSlowConnectionToOneOfTwoSources(t *testing.T) {
	s := simulation{connections: 16, layers: []float64{120 * MiB, 40 * MiB}, hosts: mirrored(constant(link), constant(link))}
	without := succeed(t, s)
	s.hosts = mirrored(slowAt(link, link/50, func(c conn) bool { return c.number == 3 }), constant(link))
	o := succeed(t, s)
	atMost(t, o, 1.15, without.took, "the run without")
	assert.Less(t, o.hosts[1].sent, 0.15*float64(o.size), "%s", o)
}

// Origins that may be read at the same time give what they can carry together.
func TestParallelSourcesGiveTheirSum(t *testing.T) {
	total := func(rates ...float64) (hosts []*server) {
		for _, r := range rates {
			hosts = append(hosts, &server{parallel: true, total: inAll(r * MB), rate: constant(200 * MB), roundTrip: roundTrip})
		}
		return hosts
	}
	for _, c := range []struct {
		name  string
		hosts func() []*server
		sum   float64 // with 16 connections
	}{
		{"200 + 50 MB/s", func() []*server { return total(200, 50) }, 250},
		{"50 + 200 MB/s", func() []*server { return total(50, 200) }, 250},
		{"100 + 100 MB/s", func() []*server { return total(100, 100) }, 200},
		{"200 + 2 MB/s", func() []*server { return total(200, 2) }, 202},
		{"2 + 200 MB/s", func() []*server { return total(2, 200) }, 202},
		{"100 + 60 + 20 MB/s", func() []*server { return total(100, 60, 20) }, 180},
		{"25 MB/s per connection", func() []*server {
			return []*server{{parallel: true, rate: constant(25 * MB), roundTrip: roundTrip}, {parallel: true, rate: constant(25 * MB), roundTrip: roundTrip}}
		}, 400},
		{"25 MB/s per connection, 200 + 50 in all", func() []*server {
			hosts := total(200, 50)
			hosts[0].rate, hosts[1].rate = constant(25*MB), constant(25*MB)
			return hosts
		}, 250},
		{"200 MB/s, and 50 that become 200", func() []*server {
			hosts := total(200, 50)
			hosts[1].total = func(now time.Duration) float64 {
				if now < 1500*time.Millisecond {
					return 50 * MB
				}
				return 200 * MB
			}
			return hosts
		}, 310},
	} {
		for _, connections := range []int{16, 0} {
			t.Run(fmt.Sprint(c.name, " ", connections), func(t *testing.T) {
				o := succeed(t, simulation{scale: 64, connections: connections, layers: []float64{1024 * MiB}, hosts: c.hosts()})
				bar := 0.9
				if connections == 0 { // meanwhile it finds their number
					bar = 0.8
				}
				atMost(t, o, 1/bar, ideal(1024*MiB, c.sum*MB), "the sum")
				assert.LessOrEqual(t, float64(o.sent), 1.15*float64(o.size), "%s", o)
			})
		}
	}
}

// One of them may fail, or become slow.
func TestParallelSourceThatFails(t *testing.T) {
	first := func() *server {
		return &server{parallel: true, rate: constant(25 * MB), total: inAll(100 * MB), roundTrip: roundTrip}
	}
	alone := succeed(t, simulation{scale: 64, connections: 16, layers: []float64{512 * MiB}, hosts: []*server{first()}})
	for name, second := range map[string]*server{
		"refuses connections":    {down: func(time.Duration) bool { return true }},
		"is down after 1 s":      {rate: constant(25 * MB), down: func(now time.Duration) bool { return now > time.Second }},
		"is at 1/50 after 1 s":   {rate: slowAt(25*MB, MB/2, func(c conn) bool { return c.now > time.Second })},
		"stands still after 1 s": {rate: slowAt(25*MB, 0, func(c conn) bool { return c.now > time.Second })},
		"never answers":          {firstByte: func(request) time.Duration { return time.Hour }},
	} {
		t.Run(name, func(t *testing.T) {
			second.parallel, second.roundTrip = true, roundTrip
			o := succeed(t, simulation{scale: 64, connections: 16, layers: []float64{512 * MiB}, hosts: []*server{first(), second}})
			atMost(t, o, 1.25, alone.took, "the first alone")
			assert.LessOrEqual(t, float64(o.duplicate()), 0.02*float64(o.size), "what a connection has read that makes room is kept: %s", o)
		})
	}
}

// Of several origins any may fail, in any way, as long as one gives the bytes.
func TestSourceThatFails(t *testing.T) {
	layers := repeat(20*MiB, 8)
	alone := succeed(t, simulation{connections: 16, layers: layers, hosts: one(constant(link))})
	for name, mirror := range map[string]*server{
		"permanently":             {fails: tarball.Permanent(errors.New("simulated: not found"))},
		"temporarily":             {fails: errors.New("simulated: internal server error")},
		"is down":                 {down: func(time.Duration) bool { return true }},
		"is down after 1 s":       {rate: constant(link), down: func(now time.Duration) bool { return now > time.Second }},
		"breaks each answer":      {rate: constant(link), breaks: func(r request) (int64, bool) { return r.length / 3, true }},
		"gives wrong bytes":       {rate: constant(link), wrong: true},
		"slow, gives wrong bytes": {rate: slowAt(link, link/50, func(c conn) bool { return c.now > time.Second }), wrong: true},
	} {
		for _, parallel := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, parallel=%t", name, parallel), func(t *testing.T) {
				mirror := &server{name: "mirror", parallel: parallel, roundTrip: roundTrip, rate: mirror.rate, fails: mirror.fails, down: mirror.down, breaks: mirror.breaks, wrong: mirror.wrong}
				own := &server{name: "own", parallel: parallel, roundTrip: roundTrip, rate: constant(link)}
				o := succeed(t, simulation{wasteful: mirror.wrong, connections: 16, layers: layers, hosts: []*server{mirror, own}})
				bar, requests := 1.25, own.requests+len(layers)+16
				switch {
				case mirror.wrong: // a layer may come twice
					bar = 2.3
				case mirror.breaks != nil: // each answer is progress
					bar, requests = 2, 3000
				}
				atMost(t, o, bar, alone.took, "the own registry alone")
				assert.LessOrEqual(t, mirror.requests, requests, "%s", o)
			})
		}
	}
}

// After wrong bytes a layer comes from one origin alone, were another one faster.
func TestLayerThatWasWrongComesFromOneOrigin(t *testing.T) {
	for _, own := range []float64{link, link / 10} {
		for _, parallel := range []bool{false, true} {
			t.Run(fmt.Sprintf("%.0f, parallel=%t", own, parallel), func(t *testing.T) {
				s := simulation{wasteful: true, connections: 16, layers: []float64{40 * MiB, 20 * MiB}, hosts: mirrored(constant(link), constant(own))}
				s.hosts[0].wrong = true
				for _, h := range s.hosts {
					h.parallel = parallel
				}
				succeed(t, s)
			})
		}
	}
}

// An error that is no use to repeat ends the fetch at once where there is no other origin,
// and where all agree.
func TestSourcesThatAllFail(t *testing.T) {
	missing := tarball.Permanent(errors.New("simulated: not found"))
	for name, hosts := range map[string][]*server{
		"one": {{fails: missing, roundTrip: roundTrip}},
		"two": {{fails: missing, roundTrip: roundTrip}, {fails: missing, roundTrip: roundTrip}},
	} {
		t.Run(name, func(t *testing.T) {
			o := simulate(t, simulation{multi: true, connections: 16, layers: []float64{120 * MiB, 40 * MiB}, hosts: hosts})
			require.ErrorIs(t, o.err, missing)
			assert.LessOrEqual(t, o.took, time.Second, "%s", o)
			assert.LessOrEqual(t, o.requests, 32, "%s", o)
		})
	}
}

// The result reports what each origin gave.
func TestResultReportsSources(t *testing.T) {
	for name, c := range map[string]struct {
		hosts []*server
		multi bool
	}{
		"one":             {one(constant(link)), false},
		"one of several":  {one(constant(link)), true},
		"a mirror":        {mirrored(slowAt(link, link/50, func(c conn) bool { return c.now > time.Second }), constant(link)), true},
		"parallel":        {[]*server{{parallel: true, rate: constant(link)}, {parallel: true, rate: constant(link)}}, true},
		"slow connection": {one(slowAt(link, link/50, func(c conn) bool { return c.number == 3 })), false},
		"refusals":        {[]*server{{rate: constant(link), quota: &quota{requests: 10, after: time.Second}}}, false},
		"late":            {[]*server{{rate: constant(link), firstByte: func(request) time.Duration { return time.Second }}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			o := succeed(t, simulation{multi: c.multi, connections: 16, layers: []float64{120 * MiB, 40 * MiB}, hosts: c.hosts})
			t.Logf("%s\n%+v", o, o.Sources)
			require.Len(t, o.Sources, len(c.hosts))
			bytes := int64(0)
			for i, u := range o.Sources {
				h := c.hosts[i]
				if want := ""; !c.multi {
					assert.Equal(t, want, u.Name)
				} else {
					assert.Equal(t, h.name+"/repository", u.Name)
				}
				assert.Equal(t, h.requests, u.Requests)
				assert.Equal(t, h.refused, u.Refused)
				assert.Equal(t, h.most, u.Connections)
				assert.LessOrEqual(t, u.Bytes, int64(h.sent)+1)
				assert.LessOrEqual(t, u.Busy, o.took)
				assert.LessOrEqual(t, u.Busy, u.Connected)
				assert.LessOrEqual(t, u.Connected, u.Busy*time.Duration(u.Connections))
				if h.firstByte != nil {
					assert.InDelta(t, 1, u.FirstByte.Seconds(), 0.2)
				} else if u.Bytes > 0 {
					assert.InDelta(t, h.roundTrip.Seconds(), u.FirstByte.Seconds(), 0.05)
				}
				bytes += u.Bytes
			}
			assert.Equal(t, o.Downloaded, bytes)
			assert.Equal(t, o.size, bytes-o.duplicate())
		})
	}
}

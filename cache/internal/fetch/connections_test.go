package fetch

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// The number of connections that finds itself is within 10 % of the best fixed one.
func TestConnectionsFindTheirNumber(t *testing.T) {
	for _, c := range []struct {
		name  string
		size  float64
		fixed []int // those that can be the best
		host  func() *server
	}{
		{"25 MB/s per connection", 8 << 30, []int{16, 64}, func() *server { return &server{rate: constant(25 * MB)} }},
		{"25 MB/s per connection, 400 in all", 4 << 30, []int{16, 64}, func() *server { return &server{rate: constant(25 * MB), total: inAll(400 * MB)} }},
		{"25 MB/s per connection, 1000 in all", 4 << 30, []int{32, 64}, func() *server { return &server{rate: constant(25 * MB), total: inAll(1000 * MB)} }},
		{"100 MB/s in all", 1 << 30, []int{4, 16, 64}, func() *server { return &server{rate: constant(100 * MB), total: inAll(100 * MB)} }},
		{"2 GB/s in all", 8 << 30, []int{16, 64}, func() *server { return &server{rate: constant(500 * MB), total: inAll(2000 * MB)} }},
		{"3 requests a second", 2 << 30, []int{2, 4, 8, 16, 64}, func() *server {
			return &server{rate: constant(25 * MB), quota: &quota{requests: 3, after: time.Second}}
		}},
		{"3 requests a second, fast", 2 << 30, []int{2, 4, 8, 16, 64}, func() *server {
			return &server{rate: constant(100 * MB), total: inAll(400 * MB), quota: &quota{requests: 3, after: time.Second}}
		}},
		// More connections are worse where each costs the server something.
		{"fewer than 16 are best", 2 << 30, []int{8, 16}, func() *server {
			h := &server{rate: constant(100 * MB)}
			h.total = func(time.Duration) float64 { return 400 * MB / (1 + max(float64(len(h.bodies))-8, 0)/100) }
			return h
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			run := func(connections int) *outcome {
				h := c.host()
				h.roundTrip = roundTrip
				s := simulation{scale: c.size / (16 << 20), connections: connections, layers: []float64{0.97 * c.size, 0.02 * c.size, 0.01 * c.size}, hosts: []*server{h}}
				return simulate(t, s)
			}
			var best *outcome
			for _, n := range c.fixed {
				o := run(n)
				t.Logf("%d connections: %s", n, o)
				if o.err == nil && (best == nil || o.took < best.took) {
					best = o
				}
			}
			found := run(0)
			if best == nil || found.err != nil {
				t.Fatalf("found itself: %s", found)
			}
			t.Logf("connections over time: %s", overTime(found.hosts[0]))
			bar := 1.15
			if strings.HasSuffix(c.name, "fast") { // chance decides what is refused
				bar = 1.2
			}
			atMost(t, found, bar, best.took, "the best fixed number")
			assert.LessOrEqual(t, found.hosts[0].most, MostConnections*5/4)
		})
	}
}

// overTime returns how many connections were open each half second.
func overTime(h *server) (list string) {
	next := time.Duration(0)
	for _, s := range h.samples {
		if s.at >= next {
			list += fmt.Sprint(s.open, " ")
			next = s.at + 500*time.Millisecond
		}
	}
	return list
}

// A fixed number is what is open, but for ranges that are raced.
func TestFixedConnectionsAreKept(t *testing.T) {
	for _, connections := range []int{1, 2, 4, 16} {
		for name, rate := range map[string]func(conn) float64{
			"healthy":          constant(link),
			"one slow":         slowAt(link, link/50, func(c conn) bool { return c.number == 0 }),
			"each second slow": slowAt(link, link/50, func(c conn) bool { return c.number%2 == 1 }),
		} {
			if connections == 1 && name == "one slow" {
				continue // there is no other to compare it with
			}
			t.Run(fmt.Sprint(connections, " ", name), func(t *testing.T) {
				o := succeed(t, simulation{connections: connections, layers: repeat(2*MiB, 8), hosts: one(rate), within: 10 * time.Minute})
				t.Log(o)
				assert.LessOrEqual(t, o.hosts[0].most, 2*connections, "%s", o)
				if name == "healthy" {
					assert.LessOrEqual(t, o.hosts[0].most, connections+(connections+3)/4, "%s", o)
				}
			})
		}
	}
}

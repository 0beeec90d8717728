package advise

import "math"

// pullsAtOnce is how many layers an engine pulls at a time: Docker's and containerd's default.
// podman pulls 6.
const pullsAtOnce = 3

// A link is where an engine pulls layers from.
type link struct {
	firstByte float64
	one, all  float64 // bytes per second, of one connection and of all
}

// pulled returns how long it takes to pull and unpack layers, and how much of that the engine
// unpacks, at unpack bytes per second.
func pulled(layers []int64, from link, unpack float64) (total, unpacking float64) {
	for i, came := range from.arrivals(layers) {
		takes := float64(layers[i]) / unpack
		total = max(total, came) + takes
		unpacking += takes
	}
	return total, unpacking
}

// arrivals returns when each layer has come whole.
func (l link) arrivals(layers []int64) []float64 {
	type connection struct {
		layer int
		wait  float64 // until the first byte
		left  float64 // bytes
	}
	came := make([]float64, len(layers))
	var open []connection
	now, next := 0.0, 0
	for {
		for ; len(open) < pullsAtOnce && next < len(layers); next++ {
			open = append(open, connection{next, l.firstByte, float64(layers[next])})
		}
		if len(open) == 0 {
			return came
		}
		sending := 0
		for _, c := range open {
			if c.wait == 0 {
				sending++
			}
		}
		rate := min(l.one, l.all/float64(max(sending, 1)))
		// Rates are the same until a connection gets its first byte, or its last.
		step := math.Inf(1)
		for _, c := range open {
			if c.wait > 0 {
				step = min(step, c.wait)
			} else {
				step = min(step, c.left/rate)
			}
		}
		now += step
		still := open[:0]
		for _, c := range open {
			switch {
			case c.wait > step:
				c.wait -= step
			case c.wait > 0:
				c.wait = 0
			case c.left/rate <= step: // as above, so that one of them ends whatever is rounded
				came[c.layer] = now
				continue
			default:
				c.left -= step * rate
			}
			still = append(still, c)
		}
		open = still
	}
}

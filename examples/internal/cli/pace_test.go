package cli

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestPace(t *testing.T) {
	const mib = 1 << 20
	now := time.Now()
	var p pace
	assert.Zero(t, p.speed(now), "nothing is known")
	p.add(900*mib, now)
	assert.Zero(t, p.speed(now.Add(time.Second)), "what was there has no speed")
	assert.Empty(t, timeLeft(100*mib, p.speed(now.Add(time.Second))))

	// A steady pace is that from the beginning on, in pieces of any length.
	p.add(900*mib, now)
	for i := range 40 {
		step := time.Duration(50+100*(i%5)) * time.Millisecond
		now = now.Add(step)
		p.add(p.done+int64(step.Seconds()*10*mib), now)
		assert.InEpsilon(t, 10*mib, p.speed(now), 0.01)
	}
	assert.Equal(t, "10s left", timeLeft(100*mib, p.speed(now)))

	// Then nothing comes: the time that is left grows, until nothing can be said.
	before := p.speed(now)
	for _, d := range []time.Duration{time.Second, 5 * time.Second, 30 * time.Second} {
		after := p.speed(now.Add(d))
		assert.Less(t, after, before)
		before = after
		assert.NotEqual(t, "0s left", timeLeft(100*mib, after))
	}
	assert.Empty(t, timeLeft(100*mib, p.speed(now.Add(2*time.Minute))))

	// A layer is fetched again.
	p.add(p.done-500*mib, now.Add(time.Second))
	assert.Zero(t, p.speed(now.Add(time.Second)))
	now = now.Add(time.Second)
	p.add(p.done, now)
	assert.Zero(t, p.speed(now))
}

func TestTimeLeft(t *testing.T) {
	for want, c := range map[string]struct {
		rest  int64
		speed float64
	}{
		"1s left":      {1, 1 << 30},
		"2m10s left":   {1300, 10},
		"99h0m0s left": {99 * 3600, 1},
	} {
		assert.Equal(t, want, timeLeft(c.rest, c.speed))
	}
	assert.Empty(t, timeLeft(0, 100), "all is there: it is unpacked")
	assert.Empty(t, timeLeft(-1, 100))
	assert.Empty(t, timeLeft(100, 0))
	assert.Empty(t, timeLeft(1<<40, 1))
	assert.Empty(t, timeLeft(1, 0.5))
}

package cli

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/dockercache/dockercache/cache/tarball"
)

const mib = 1 << 20

func TestPace(t *testing.T) {
	now := time.Now()
	var image, all tally
	p := tarball.Progress{Done: 900 * mib, Total: 2000 * mib, Reused: 400 * mib}
	step := func(d time.Duration, came, reused int64) string {
		now = now.Add(d)
		p.Done += came + reused
		p.Reused += reused
		image.set(p, &all, now)
		assert.Equal(t, image.speed(now), all.speed(now), "of one image")
		return image.speed(now)
	}
	assert.Equal(t, "0 B/s", step(0, 0, 0), "what an earlier attempt left has no rate")
	now = now.Add(7500 * time.Millisecond)
	assert.Equal(t, "0 B/s, no bytes for 7s", image.speed(now), "a first byte that takes long")

	// A steady pace, in pieces of any length. After the window the past does not count.
	for i := range 40 {
		d := time.Duration(50+100*(i%5)) * time.Millisecond
		step(d, int64(d.Seconds()*10*mib), 0)
	}
	rest := p.Total - p.Done
	assert.InEpsilon(t, 10*mib, float64(image.came.sum(now))/paceWindow.Seconds(), 0.1)
	for range 50 {
		step(paceStep, 2*mib, 0)
	}
	assert.InEpsilon(t, 20*mib, float64(image.came.sum(now))/paceWindow.Seconds(), 0.03)
	assert.Less(t, p.Total-p.Done, rest)

	// What is reused comes at once: it is in no rate, nor in the time that is left.
	before := image.speed(now)
	assert.Regexp(t, "^20 MiB/s, 4[0-9]s left$", before)
	assert.Regexp(t, "^20 MiB/s, 3[0-9]s left$", step(0, 0, 200*mib))

	// Then nothing comes, and nothing calls set: the rate falls, the time that is left grows,
	// until nothing can be said of it.
	last := image.came.sum(now)
	for range 4 {
		now = now.Add(time.Second)
		n := image.came.sum(now)
		assert.Less(t, n, last)
		assert.Regexp(t, " left$", image.speed(now))
		last = n
	}
	now = now.Add(time.Second)
	assert.Equal(t, "0 B/s, no bytes for 5s", image.speed(now))
	assert.Equal(t, "0 B/s, no bytes for 5s", all.speed(now))
	now = now.Add(85 * time.Second)
	assert.Equal(t, "0 B/s, no bytes for 1m30s", image.speed(now))

	// A layer is fetched again.
	assert.Equal(t, "0 B/s, no bytes for 1m30s", step(0, -100*mib, 0))
	assert.Regexp(t, "^10 MiB/s, ", step(0, 50*mib, 0))
	now = now.Add(time.Minute)
	assert.Equal(t, "10 MiB/s reused", step(0, 0, 50*mib), "the source says nothing yet")

	// All is there.
	assert.Regexp(t, "^[0-9.]+ MiB/s$", step(time.Second, p.Total-p.Done, 0))
	now = now.Add(time.Minute)
	assert.Equal(t, "0 B/s", image.speed(now), "it is something else that takes long")
}

// The first bytes of a fast source are not a rate of gigabytes.
func TestPaceAtTheBeginning(t *testing.T) {
	now := time.Now()
	var image, all tally
	image.set(tarball.Progress{Total: 100 * mib}, &all, now)
	image.set(tarball.Progress{Done: 5 * mib, Total: 100 * mib}, &all, now.Add(time.Millisecond))
	assert.Equal(t, "5.0 MiB/s, 19s left", image.speed(now.Add(time.Millisecond)))
	assert.Equal(t, "2.5 MiB/s, 38s left", image.speed(now.Add(2*time.Second)))
}

// What an earlier attempt left of one image is not what comes of all.
func TestPaceOfAll(t *testing.T) {
	now := time.Now()
	var one, two, all tally
	one.set(tarball.Progress{Total: 100 * mib}, &all, now)
	now = now.Add(10 * time.Second)
	assert.Equal(t, "0 B/s, no bytes for 10s", all.speed(now))
	two.set(tarball.Progress{Done: 50 * mib, Total: 100 * mib}, &all, now)
	assert.Equal(t, "0 B/s", all.speed(now))
	assert.Equal(t, "50 MiB of 200 MiB", all.bytes())
	one.set(tarball.Progress{Done: 10 * mib, Total: 100 * mib}, &all, now)
	two.set(tarball.Progress{Done: 60 * mib, Total: 100 * mib}, &all, now)
	assert.Equal(t, "4.0 MiB/s, 33s left", all.speed(now))
	one.end(&all)
	two.set(tarball.Progress{Done: 100 * mib, Total: 100 * mib}, &all, now)
	two.end(&all)
	assert.Equal(t, tarball.Progress{Done: 110 * mib, Total: 110 * mib}, all.last(), "a failed image is not waited for")
}

func TestTimeLeft(t *testing.T) {
	for want, c := range map[string]struct {
		rest   int64
		rate   float64
		silent time.Duration
	}{
		"1s left":      {1, 1 << 30, 0},
		"4s left":      {1, 1 << 30, 4 * time.Second}, // nothing came in 4 s
		"2m10s left":   {1300, 10, 4 * time.Second},
		"99h0m0s left": {99 * 3600, 1, 0},
	} {
		assert.Equal(t, want, timeLeft(c.rest, c.rate, c.silent))
	}
	assert.Empty(t, timeLeft(100, 0, 0))
	assert.Empty(t, timeLeft(1<<40, 1, 0))
	assert.Empty(t, timeLeft(1, 0.5, 0))
}

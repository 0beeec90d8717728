package cli

import (
	"bytes"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache/tarball"
)

func TestProgressLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := newDisplay(&out, true)
		reportOne, endOne := p.Track("one.tar")
		reportTwo, endTwo := p.Track("two.tar")
		_, endThree := p.Track("three.tar") // its registry has not answered yet
		reportOne(tarball.Progress{Done: 500 << 20, Total: 2000 << 20})
		reportTwo(tarball.Progress{Total: 100 << 20})
		reportOne(tarball.Progress{Done: 800 << 20, Total: 2000 << 20})
		time.Sleep(lineEvery) // the bubble's clock
		synctest.Wait()
		assert.Equal(t, "one.tar: 800 MiB of 2.0 GiB, 10 MiB/s, 2m0s left\n"+
			"two.tar: 0 B of 100 MiB, 0 B/s\n"+
			"all images: 800 MiB of 2.1 GiB, 10 MiB/s, 2m10s left\n", out.String())

		out.Reset()
		endOne()
		endThree()
		reportTwo(tarball.Progress{Done: 30 << 20, Total: 100 << 20})
		time.Sleep(lineEvery)
		synctest.Wait()
		assert.Equal(t, "two.tar: 30 MiB of 100 MiB, 1.0 MiB/s, 1m10s left\n", out.String())

		endTwo()
		p.end()
		require.Same(t, &out, p.above(&out))
	})
}

func TestQuiet(t *testing.T) {
	var out bytes.Buffer
	p := newDisplay(&out, false)
	report, end := p.Track("one.tar")
	assert.Nil(t, report)
	end()
	p.end()
	assert.Empty(t, out.String())
}

func TestBars(t *testing.T) {
	var out bytes.Buffer
	b := newBars(&out)
	report, end := b.Track("one.tar")
	report(tarball.Progress{Done: 100 << 20, Total: 100 << 20})
	assert.Nil(t, b.total, "one image is all")
	one := newBar(b.container, "stalled")
	one.set(tarball.Progress{Done: 50 << 20, Total: 100 << 20})
	assert.Equal(t, "0 B/s", one.speedText(50<<20, time.Now().Add(time.Minute)), "nothing comes, so nobody knows how long it takes")
	one.pace.add(100<<20, one.pace.at.Add(5*time.Second))
	assert.Equal(t, "10 MiB/s, 3s left", one.speedText(30<<20, one.pace.at))
	assert.Equal(t, "10 MiB/s", one.speedText(0, one.pace.at))
	one.Abort(true)
	end()
	report, end = b.Track("two.tar")
	report(tarball.Progress{Done: 1 << 20, Total: 100 << 20})
	assert.Equal(t, tarball.Progress{Done: 101 << 20, Total: 200 << 20}, b.sums)
	assert.NotNil(t, b.total)
	end()
	above := &aboveBars{b.container, &out}
	fmt.Fprintln(above, "above")
	b.end()
	fmt.Fprintln(above, "after")
	assert.Contains(t, out.String(), "above\n")
	assert.Regexp(t, "after\n$", out.String())
	assert.Same(t, &out, b.above(&out), "what is no terminal gets its lines directly")
}

// A phase stands in place of what was sent, as long as it goes on.
func TestPhases(t *testing.T) {
	sent := tarball.Progress{Done: 100 << 20, Total: 100 << 20}
	begun := tarball.Progress{Phase: tarball.Unpacking}
	known := tarball.Progress{Phase: tarball.Unpacking, Done: 30 << 20, Total: 90 << 20}
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := newDisplay(&out, true)
		report, end := p.Track("one.tar")
		for want, progress := range map[string]tarball.Progress{
			"one.tar: unpacking\n":                   begun,
			"one.tar: unpacking, 30 MiB of 90 MiB\n": known,
		} {
			out.Reset()
			report(sent)
			report(progress)
			time.Sleep(lineEvery) // the bubble's clock
			synctest.Wait()
			assert.Equal(t, want, out.String())
		}
		out.Reset()
		report(sent)
		time.Sleep(lineEvery)
		synctest.Wait()
		assert.Contains(t, out.String(), "one.tar: 100 MiB of 100 MiB")
		end()
		p.end()
	})

	var out bytes.Buffer
	b := newBars(&out)
	report, end := b.Track("one.tar")
	for _, p := range []tarball.Progress{begun, sent, begun, known, sent, sent, known} {
		report(p)
	}
	assert.Nil(t, b.total, "one image is all, in how many phases ever")
	end()
	report, end = b.Track("two.tar")
	report(sent)
	assert.NotNil(t, b.total)
	end()
	b.end()
}

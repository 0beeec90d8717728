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
		reportOne(tarball.Progress{Done: 500 * mib, Total: 2000 * mib})
		reportTwo(tarball.Progress{Total: 100 * mib})
		time.Sleep(lineEvery - paceWindow - time.Millisecond) // the bubble's clock
		for n := range int64(10) {
			time.Sleep(paceWindow / 10)
			reportOne(tarball.Progress{Done: (500 + 5*(n+1)) * mib, Total: 2000 * mib})
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		assert.Equal(t, "one.tar: 550 MiB of 2.0 GiB, 10 MiB/s, 2m25s left\n"+
			"two.tar: 0 B of 100 MiB, 0 B/s, no bytes for 30s\n"+
			"all images: 550 MiB of 2.1 GiB, 10 MiB/s, 2m35s left\n", out.String())

		// Nothing calls the display while nothing comes.
		out.Reset()
		endThree()
		time.Sleep(lineEvery)
		synctest.Wait()
		assert.Equal(t, "one.tar: 550 MiB of 2.0 GiB, 0 B/s, no bytes for 30s\n"+
			"two.tar: 0 B of 100 MiB, 0 B/s, no bytes for 1m0s\n"+
			"all images: 550 MiB of 2.1 GiB, 0 B/s, no bytes for 30s\n", out.String())

		out.Reset()
		endOne()
		time.Sleep(lineEvery - time.Second)
		reportTwo(tarball.Progress{Done: 30 * mib, Total: 100 * mib})
		time.Sleep(time.Second)
		synctest.Wait()
		assert.Equal(t, "two.tar: 30 MiB of 100 MiB, 6.0 MiB/s, 12s left\n", out.String())

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
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		b := newBars(&out)
		report, end := b.Track("one.tar")
		report(tarball.Progress{Done: 60 * mib, Total: 100 * mib})
		assert.Nil(t, b.total, "one image is all")
		time.Sleep(time.Second) // the bubble's clock
		report(tarball.Progress{Done: 70 * mib, Total: 100 * mib})
		time.Sleep(time.Second)
		// From here on nothing calls the display: it looks at the clock by itself.
		time.Sleep(12 * time.Second)
		end()
		report, end = b.Track("two.tar")
		report(tarball.Progress{Done: 1 * mib, Total: 100 * mib})
		assert.Equal(t, tarball.Progress{Done: 71 * mib, Total: 170 * mib}, b.all.last(), "what will not come any more is not waited for")
		assert.NotNil(t, b.total)
		time.Sleep(time.Second)
		end()
		above := &aboveBars{b.container, &out}
		fmt.Fprintln(above, "above")
		b.end()
		fmt.Fprintln(above, "after")
		text := out.String()
		for _, want := range []string{"60 MiB of 100 MiB", "70 MiB of 100 MiB", " 5.1 MiB/s, 6s left", " 2.0 MiB/s, 15s left", " 0 B/s, no bytes for 5s", " 0 B/s, no bytes for 12s", "all images", "above\n"} {
			assert.Contains(t, text, want)
		}
		assert.NotContains(t, text, " 0s left")
		assert.Regexp(t, "after\n$", text)
		assert.Same(t, &out, b.above(&out), "what is no terminal gets its lines directly")
	})
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

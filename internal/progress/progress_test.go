package progress

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dockercache/dockercache/cache"
)

func TestProgressLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := New(&out, false)
		tellOne, endOne := p.Image("one.tar")
		tellTwo, endTwo := p.Image("two.tar")
		_, endThree := p.Image("three.tar") // its registry has not answered yet
		tellOne(cache.Progress{Done: 500 << 20, Total: 2000 << 20})
		tellTwo(cache.Progress{Total: 100 << 20})
		tellOne(cache.Progress{Done: 800 << 20, Total: 2000 << 20})
		time.Sleep(lineEvery) // the bubble's clock
		synctest.Wait()
		assert.Equal(t, "one.tar: 800 MiB of 2.0 GiB, 10 MiB/s, 2m0s left\n"+
			"two.tar: 0 B of 100 MiB, 0 B/s\n"+
			"all images: 800 MiB of 2.1 GiB, 10 MiB/s, 2m10s left\n", out.String())

		out.Reset()
		endOne()
		endThree()
		tellTwo(cache.Progress{Done: 30 << 20, Total: 100 << 20})
		time.Sleep(lineEvery)
		synctest.Wait()
		assert.Equal(t, "two.tar: 30 MiB of 100 MiB, 1.0 MiB/s, 1m10s left\n", out.String())

		endTwo()
		p.Stop()
		require.Same(t, &out, p.Above(&out))
	})
}

func TestQuiet(t *testing.T) {
	var out bytes.Buffer
	p := New(&out, true)
	tell, end := p.Image("one.tar")
	assert.Nil(t, tell)
	end()
	p.Stop()
	assert.Empty(t, out.String())
}

func TestBars(t *testing.T) {
	var out bytes.Buffer
	b := newBars(&out)
	tell, end := b.Image("one.tar")
	tell(cache.Progress{Done: 100 << 20, Total: 100 << 20})
	end()
	b.Stop()
	assert.Same(t, &out, b.Above(&out), "what is no terminal gets its lines directly")
}
